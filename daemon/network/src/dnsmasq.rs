//! The servers of a bridge: a dnsmasq for leases and, mostly, another one for names, with their files. They outlive the
//! daemon.
//!
//! Owns `DIR/NAME/dnsmasq.{conf,raw,pid,leases,hosts,names,dns.conf,dns.pid}`. [`config`] says what they are told; here they
//! are started, found again, and ended. What is in `hosts` and `names` is `reservation`'s.

pub mod config;
mod process;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cabin_sys::command::{Program, Programs};
use cabin_sys::dir::HostDir;
use rustix::event::{Timespec, epoll};
use rustix::process::Signal;

use config::Part;
use process::Server;

use crate::error::{Error, Result};
use crate::name::{IfName, Mac};
use crate::spec::BridgeSpec;

/// Lines of somebody else's, which the settings of [`Part::Leases`] lead to.
const RAW: &str = "dnsmasq.raw";

/// The name a file has before it takes the place of the old one.
fn next(file: &str) -> String {
    format!("{file}.next")
}

/// How long dnsmasq has to write its pid file, and to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far apart the times are at which a server reads all of its reservations anew: with a thousand of them that
/// is no small thing, and many may go at once.
const APART: Duration = Duration::from_millis(500);

/// The directories of every network, and the programs.
pub struct Servers {
    root: HostDir,
    programs: Programs,
    /// Tells when one ends that should not.
    ends: OwnedFd,
    watched: Mutex<Watched>,
    reloads: Mutex<HashMap<IfName, Reload>>,
}

/// When a server last read its reservations anew, and what it may still know that is gone.
struct Reload {
    last: Instant,
    waiting: bool,
    gone: BTreeSet<Mac>,
    free: BTreeSet<IpAddr>,
}

impl Reload {
    fn now() -> Reload {
        Reload { last: Instant::now(), waiting: false, gone: BTreeSet::new(), free: BTreeSet::new() }
    }
}

/// The servers that are to run, by the number their end is told with.
#[derive(Default)]
struct Watched {
    last: u64,
    all: BTreeMap<u64, (IfName, Part, Server)>,
}

impl Servers {
    /// `root` holds a directory for each network.
    ///
    /// # Errors
    /// As epoll_create(2).
    pub fn new(root: HostDir, programs: Programs) -> io::Result<Servers> {
        let ends = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Servers { root, programs, ends, watched: Mutex::default(), reloads: Mutex::default() })
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the end of this server is told.
    fn watch(&self, name: &IfName, part: Part, server: Server) -> io::Result<()> {
        let mut watched = self.watched();
        if watched.all.values().any(|(one, its, _)| (one, *its) == (name, part)) {
            return Ok(());
        }
        watched.last += 1;
        let number = watched.last;
        epoll::add(&self.ends, &server, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        watched.all.insert(number, (name.clone(), part, server));
        Ok(())
    }

    /// Its end is wanted.
    fn unwatch(&self, name: &IfName, part: Part) {
        // The descriptor is the only one of its kind, so closing it takes it out of the epoll set too.
        self.watched().all.retain(|_, (one, its, _)| (&*one, *its) != (name, part));
    }

    /// A descriptor that can be read when a server has ended.
    pub fn ends(&self) -> BorrowedFd<'_> {
        self.ends.as_fd()
    }

    /// The bridges whose servers have ended by themselves since the last call.
    pub fn ended(&self) -> BTreeSet<IfName> {
        let mut events = Vec::with_capacity(64);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Nothing is lost by an error: what is not taken out is told the next time.
        let _ = epoll::wait(&self.ends, rustix::buffer::spare_capacity(&mut events), Some(&now));
        let mut watched = self.watched();
        events.iter().filter_map(|event| Some(watched.all.remove(&event.data.u64())?.0)).collect()
    }

    /// The directory of a network, made when missing. The server's user must get through it.
    pub fn home(&self, name: &IfName) -> Result<HostDir> {
        let make = || {
            let home = self.root.ensure_dir(name.as_str(), 0o711)?;
            home.ensure_dir("dnsmasq.hosts", 0o755)?;
            home.ensure_dir("dnsmasq.names", 0o755)?;
            Ok(home)
        };
        make().map_err(|source| file_error("make", "", name, source))
    }

    /// The directory of a network that has one.
    pub fn existing_home(&self, name: &IfName) -> io::Result<HostDir> {
        self.root.open_dir(name.as_str())
    }

    /// Removes everything of a network.
    pub fn forget(&self, name: &IfName) -> Result<()> {
        self.root.remove_tree(name.as_str()).map_err(|source| file_error("remove", "", name, source))
    }

    /// The networks that have a directory.
    pub fn known(&self) -> Result<Vec<IfName>> {
        let entries = self.root.list().map_err(|source| Error::File {
            act: "list",
            file: String::new(),
            network: "*".to_owned(),
            source,
        })?;
        Ok(entries.into_iter().filter_map(|entry| entry.name.parse().ok()).collect())
    }

    /// Says early what would be missing later.
    pub fn check(&self, spec: &BridgeSpec) -> Result<()> {
        if spec.serves() {
            self.programs
                .command(Program::Dnsmasq)
                .map_err(|source| Error::Program { network: spec.name.clone(), source })?;
        }
        Ok(())
    }

    /// Sees to it that servers with this configuration run, or none where none is needed. One that runs with the same
    /// configuration is left alone.
    pub fn ensure(&self, spec: &BridgeSpec) -> Result<()> {
        let home = self.home(&spec.name)?;
        let account = config::account(home.path());
        let raw = spec.raw_dnsmasq.clone().unwrap_or_default();
        let mut files = vec![(RAW, raw)];
        files.extend(Part::ALL.map(|part| (part.conf(), config::render(part, spec, home.path(), &account))));
        for (file, _) in &files {
            // Of a daemon that died before it took them.
            home.remove_file(&next(file)).map_err(|source| file_error("remove", file, &spec.name, source))?;
        }
        let changed: BTreeSet<&str> = files
            .iter()
            .filter(|(file, wanted)| !home.read(file, 1 << 20).is_ok_and(|got| got == wanted.as_bytes()))
            .map(|(file, _)| *file)
            .collect();
        let (run, end): (Vec<Part>, Vec<Part>) = Part::ALL.into_iter().partition(|part| part.serves(spec));
        let (mut start, mut goes_on) = (Vec::new(), false);
        for part in run {
            let changed = changed.contains(part.conf()) || part == Part::Leases && changed.contains(RAW);
            match self.find(&spec.name, part)? {
                Some(server) if !changed => {
                    goes_on = true;
                    self.watch(&spec.name, part, server)
                        .map_err(|source| Error::StartServer { network: spec.name.clone(), source })?;
                }
                _ => start.push(part),
            }
        }
        let ours = |file: &str| file == RAW || start.iter().any(|part| part.conf() == file);
        files.retain(|(file, _)| !start.is_empty() && ours(file));
        // Written before the old server ends: a disk without room leaves that one as it is.
        for (file, content) in &files {
            home.replace(&next(file), content.as_bytes(), 0o600)
                .map_err(|source| file_error("write", file, &spec.name, source))?;
        }
        for part in end.iter().chain(&start) {
            self.stop_part(&spec.name, *part)?;
            if let Some(pid) = self.noted(&spec.name, *part).filter(|_| start.contains(part)) {
                process::outlast_dying(pid);
            }
        }
        for (file, _) in &files {
            home.rename_over(&next(file), file)
                .map_err(|source| file_error("replace", file, &spec.name, source))?;
        }
        for part in end {
            home.remove_file(part.conf())
                .map_err(|source| file_error("remove", part.conf(), &spec.name, source))?;
        }
        start.iter().try_for_each(|part| self.start(spec, *part, home.path()))?;
        // A daemon that died may not have told it what is gone.
        if goes_on { self.reload(&spec.name) } else { Ok(()) }
    }

    /// The pid in a server's file.
    fn noted(&self, name: &IfName, part: Part) -> Option<i32> {
        let bytes = self.root.read(&format!("{name}/{}", part.pid()), 64).ok()?;
        String::from_utf8(bytes).ok()?.trim().parse().ok()
    }

    fn start(&self, spec: &BridgeSpec, part: Part, home: &Path) -> Result<()> {
        let name = &spec.name;
        let mut command = self
            .programs
            .command(Program::Dnsmasq)
            .map_err(|source| Error::Program { network: name.clone(), source })?;
        command.arg(process::conf_argument(home, part)).current_dir("/");
        let failed = |source| Error::StartServer { network: name.clone(), source };
        process::launch(&mut command).map_err(failed)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(server) = self.find(name, part)? {
                return self.watch(name, part, server).map_err(failed);
            }
            if Instant::now() > deadline {
                let source = io::Error::new(io::ErrorKind::TimedOut, "it ended right after its start");
                return Err(failed(source));
            }
            std::thread::yield_now();
        }
    }

    /// Ends the servers of a bridge; those already gone are success.
    pub fn stop(&self, name: &IfName) -> Result<()> {
        Part::ALL.map(|part| self.stop_part(name, part)).into_iter().fold(Ok(()), Result::and)
    }

    fn stop_part(&self, name: &IfName, part: Part) -> Result<()> {
        let failed =
            |act| move |source: io::Error| Error::SignalServer { act, network: name.clone(), source };
        self.unwatch(name, part);
        let Some(server) = self.find(name, part)? else { return Ok(()) };
        server.signal(Signal::TERM).map_err(failed("end"))?;
        if !server.ended(PATIENCE).map_err(failed("wait for"))? {
            server.signal(Signal::KILL).map_err(failed("kill"))?;
            if !server.ended(PATIENCE).map_err(failed("wait for"))? {
                return Err(failed("kill")(io::Error::from(io::ErrorKind::TimedOut)));
            }
        }
        Ok(())
    }

    /// Has the servers read their reservations and names anew: they see new files by themselves, but forget
    /// removed and changed ones only then.
    pub fn reload(&self, name: &IfName) -> Result<()> {
        self.reloads().insert(name.clone(), Reload::now());
        let failed = |source| Error::SignalServer { act: "reload", network: name.clone(), source };
        for part in Part::ALL {
            let Some(server) = self.find(name, part)? else { continue };
            server.reload().map_err(failed)?;
        }
        Ok(())
    }

    /// As [`Servers::reload`], at once or together with others that come within [`APART`]. `mac` with its addresses
    /// is gone. Gives how long to wait before [`Servers::reload`] is to be called, when nobody else is going to.
    pub fn reload_soon(&self, name: &IfName, mac: Mac, addresses: &[IpAddr]) -> Result<Option<Duration>> {
        if let Some(reload) = self.reloads().get_mut(name) {
            let left = APART.saturating_sub(reload.last.elapsed());
            if reload.waiting || !left.is_zero() {
                reload.gone.insert(mac);
                reload.free.extend(addresses);
                return Ok((!std::mem::replace(&mut reload.waiting, true)).then_some(left));
            }
        }
        self.reload(name).map(|()| None)
    }

    /// Whether the server may still know this MAC or one of these addresses from something that is gone: then it
    /// would not take them as new.
    pub fn confuses(&self, name: &IfName, mac: Mac, addresses: &[IpAddr]) -> bool {
        let known = |reload: &Reload| {
            reload.gone.contains(&mac) || addresses.iter().any(|address| reload.free.contains(address))
        };
        self.reloads().get(name).is_some_and(known)
    }

    fn reloads(&self) -> MutexGuard<'_, HashMap<IfName, Reload>> {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the servers of a bridge run that it needs.
    pub fn run(&self, spec: &BridgeSpec) -> Result<bool> {
        for part in Part::ALL.into_iter().filter(|part| part.serves(spec)) {
            if self.find(&spec.name, part)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A server of a network, by its pid file or, failing that, by its command line. The file belongs to
    /// the server's own user and a pid may be somebody else's by now, so what it says is only believed
    /// when that process runs dnsmasq with our configuration; the handle is taken before the look.
    fn find(&self, name: &IfName, part: Part) -> Result<Option<Server>> {
        let home = self.root.path().join(name.as_str());
        if let Some(server) = self.noted(name, part).and_then(|pid| Server::open(pid, &home, part)) {
            return Ok(Some(server));
        }
        let wrong = |source| file_error("look for", part.pid(), name, source);
        if !self.root.exists(&format!("{name}/{}", part.conf())).map_err(wrong)? {
            return Ok(None);
        }
        let listing = HostDir::open(Path::new("/proc")).and_then(|proc| proc.list());
        let processes = listing.map_err(wrong)?;
        let pids = processes.iter().filter_map(|entry| entry.name.parse::<i32>().ok());
        Ok(pids.into_iter().find_map(|pid| Server::open(pid, &home, part)))
    }
}

pub fn file_error(act: &'static str, file: &str, network: &IfName, source: io::Error) -> Error {
    Error::File { act, file: file.to_owned(), network: network.to_string(), source }
}
