//! The name server of a bridge: one dnsmasq with its files, which outlives the daemon.
//!
//! Owns `DIR/NAME/dnsmasq.{conf,raw,pid,leases,hosts,names}`. [`config`] says what it is told; here it is
//! started, found again, and ended. What is in `hosts` and `names` is `reservation`'s.

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

use process::Server;

use crate::error::{Error, Result};
use crate::name::{IfName, Mac};
use crate::spec::BridgeSpec;

/// What the server is told by, in the order it is written.
const FILES: [&str; 2] = ["dnsmasq.raw", "dnsmasq.conf"];

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
    all: BTreeMap<u64, (IfName, Server)>,
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
    fn watch(&self, name: &IfName, server: Server) -> io::Result<()> {
        let mut watched = self.watched();
        if watched.all.values().any(|(watched, _)| watched == name) {
            return Ok(());
        }
        watched.last += 1;
        let number = watched.last;
        epoll::add(&self.ends, &server, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        watched.all.insert(number, (name.clone(), server));
        Ok(())
    }

    /// Its end is wanted.
    fn unwatch(&self, name: &IfName) {
        // The descriptor is the only one of its kind, so closing it takes it out of the epoll set too.
        self.watched().all.retain(|_, (watched, _)| watched != name);
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

    /// Sees to it that a server with this configuration runs, or none where none is needed. One that runs
    /// with the same configuration is left alone.
    pub fn ensure(&self, spec: &BridgeSpec) -> Result<()> {
        let home = self.home(&spec.name)?;
        for file in FILES {
            // Of a daemon that died before it took them.
            home.remove_file(&next(file)).map_err(|source| file_error("remove", file, &spec.name, source))?;
        }
        if !spec.serves() {
            return self.stop(&spec.name);
        }
        let conf = config::render(spec, home.path(), &config::account(home.path()));
        let raw = spec.raw_dnsmasq.clone().unwrap_or_default();
        let same =
            |file: &str, wanted: &str| home.read(file, 1 << 20).is_ok_and(|got| got == wanted.as_bytes());
        let changed = !same("dnsmasq.conf", &conf) || !same("dnsmasq.raw", &raw);
        if !changed && let Some(server) = self.find(&spec.name)? {
            // A daemon that died may not have told it what is gone.
            self.reload(&spec.name)?;
            return self
                .watch(&spec.name, server)
                .map_err(|source| Error::StartServer { network: spec.name.clone(), source });
        }
        // Written before the old server ends: a disk without room leaves that one as it is.
        for (file, content) in FILES.iter().zip([&raw, &conf]) {
            home.replace(&next(file), content.as_bytes(), 0o600)
                .map_err(|source| file_error("write", file, &spec.name, source))?;
        }
        self.stop(&spec.name)?;
        if let Some(pid) = self.noted(&spec.name) {
            process::outlast_dying(pid);
        }
        for file in FILES {
            home.rename_over(&next(file), file)
                .map_err(|source| file_error("replace", file, &spec.name, source))?;
        }
        self.start(spec, home.path())
    }

    /// The pid in the server's file.
    fn noted(&self, name: &IfName) -> Option<i32> {
        let bytes = self.root.read(&format!("{name}/dnsmasq.pid"), 64).ok()?;
        String::from_utf8(bytes).ok()?.trim().parse().ok()
    }

    fn start(&self, spec: &BridgeSpec, home: &Path) -> Result<()> {
        let name = &spec.name;
        let mut command = self
            .programs
            .command(Program::Dnsmasq)
            .map_err(|source| Error::Program { network: name.clone(), source })?;
        command.arg(process::conf_argument(home)).current_dir("/");
        let failed = |source| Error::StartServer { network: name.clone(), source };
        process::launch(&mut command).map_err(failed)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(server) = self.find(name)? {
                return self.watch(name, server).map_err(failed);
            }
            if Instant::now() > deadline {
                let source = io::Error::new(io::ErrorKind::TimedOut, "it ended right after its start");
                return Err(failed(source));
            }
            std::thread::yield_now();
        }
    }

    /// Ends the server; one already gone is success.
    pub fn stop(&self, name: &IfName) -> Result<()> {
        let failed =
            |act| move |source: io::Error| Error::SignalServer { act, network: name.clone(), source };
        self.unwatch(name);
        let Some(server) = self.find(name)? else { return Ok(()) };
        server.signal(Signal::TERM).map_err(failed("end"))?;
        if !server.ended(PATIENCE).map_err(failed("wait for"))? {
            server.signal(Signal::KILL).map_err(failed("kill"))?;
            if !server.ended(PATIENCE).map_err(failed("wait for"))? {
                return Err(failed("kill")(io::Error::from(io::ErrorKind::TimedOut)));
            }
        }
        Ok(())
    }

    /// Has the server read its reservations and names anew: it sees new files by itself, but forgets
    /// removed and changed ones only then.
    pub fn reload(&self, name: &IfName) -> Result<()> {
        self.reloads().insert(name.clone(), Reload::now());
        let Some(server) = self.find(name)? else { return Ok(()) };
        let failed = |source| Error::SignalServer { act: "reload", network: name.clone(), source };
        server.reload().map_err(failed)
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

    /// Whether the server of a network runs.
    pub fn runs(&self, name: &IfName) -> Result<bool> {
        Ok(self.find(name)?.is_some())
    }

    /// The network's server, by its pid file or, failing that, by its command line. The file belongs to
    /// the server's own user and a pid may be somebody else's by now, so what it says is only believed
    /// when that process runs dnsmasq with our configuration; the handle is taken before the look.
    fn find(&self, name: &IfName) -> Result<Option<Server>> {
        let home = self.root.path().join(name.as_str());
        if let Some(server) = self.noted(name).and_then(|pid| Server::open(pid, &home)) {
            return Ok(Some(server));
        }
        let wrong = |source| file_error("look for", "dnsmasq.pid", name, source);
        if !self.root.exists(&format!("{name}/dnsmasq.conf")).map_err(wrong)? {
            return Ok(None);
        }
        let listing = HostDir::open(Path::new("/proc")).and_then(|proc| proc.list());
        let processes = listing.map_err(wrong)?;
        let pids = processes.iter().filter_map(|entry| entry.name.parse::<i32>().ok());
        Ok(pids.into_iter().find_map(|pid| Server::open(pid, &home)))
    }
}

pub fn file_error(act: &'static str, file: &str, network: &IfName, source: io::Error) -> Error {
    Error::File { act, file: file.to_owned(), network: network.to_string(), source }
}
