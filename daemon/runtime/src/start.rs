//! A container between its first process and its init: namespaces exist, nothing of the guest's runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cabin_sys::process;
use cabin_undo::{Undo, fault};

use crate::cgroup::Layout;
use crate::disk;
use crate::error::{Error, Result};
use crate::runtime::{self, PATIENCE, Runtime, check_name};
use crate::spec::{CgroupLimits, DiskSpec, IdMap, InitSpec};
use crate::supervisor::Supervisor;
use crate::wire::{self, GuestCgroups, Order, Progress, Standing};

/// `SIGKILL`.
const KILL: i32 = 9;

/// A container whose init waits to be released. Dropping it ends the container.
#[derive(Debug)]
pub struct Starting {
    runtime: Runtime,
    name: String,
    socket: OwnedFd,
    init_pid: u32,
    init: OwnedFd,
    standing: Standing,
    netns: OwnedFd,
    ready: bool,
}

impl Starting {
    /// The container's network namespace.
    #[must_use]
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// The container's first process, by the host's number.
    #[must_use]
    pub fn init_pid(&self) -> u32 {
        self.init_pid
    }

    /// Puts disks in place, once the root filesystem is.
    ///
    /// # Errors
    /// [`Error::Disk`] or [`Error::Start`] names the step that failed.
    pub fn attach(&mut self, disks: &[DiskSpec]) -> Result<()> {
        if disks.is_empty() {
            return Ok(());
        }
        self.wait()?;
        disk::change(&self.runtime, &self.name, self.init.as_fd(), &self.standing, &[], disks)
    }

    fn wait(&mut self) -> Result<()> {
        if !self.ready {
            expect(&self.socket, &self.name, |progress| matches!(progress, Progress::Ready))?;
            self.ready = true;
        }
        Ok(())
    }

    /// Waits until the root filesystem is in place, and lets init run.
    ///
    /// # Errors
    /// [`Error::Start`] names the step that failed; nothing of the container stays then.
    pub fn release(mut self) -> Result<Supervisor> {
        self.wait()?;
        tell(&self.socket, &self.name, &Order::Release, &[])?;
        expect(&self.socket, &self.name, |progress| matches!(progress, Progress::Running))?;
        self.runtime.connect(&self.name)?.ok_or(Error::NotRunning { name: self.name })
    }
}

/// The host's ids of a container's root.
pub(crate) fn owner(ids: IdMap) -> (u32, u32) {
    match ids {
        IdMap::Isolated(range) => (range.base, range.base),
        IdMap::Privileged => (0, 0),
    }
}

pub(crate) fn spawn(
    runtime: &Runtime,
    spec: &InitSpec,
    limits: &CgroupLimits,
    undo: &mut Undo,
) -> Result<Starting> {
    check_name(&spec.name)?;
    let name = spec.name.clone();
    let owner = owner(spec.ids);
    let cgroups = runtime.cgroups();
    let cgroup_failed = |source| Error::Cgroup { name: name.clone(), source };
    cgroups.create(&name, limits, owner, undo).map_err(cgroup_failed)?;
    runtime.clear_exit_record(&name)?;

    let entry = cgroups.entry(&name).map_err(cgroup_failed)?;
    let guest = match cgroups.layout() {
        Layout::Unified | Layout::Hybrid => GuestCgroups::Unified,
        Layout::Legacy => GuestCgroups::Named,
    };
    let (socket, _first) = runtime.inner.launch(&[])?;
    let run_dir = runtime.inner.run_dir().path().to_owned();
    let unified = entry.unified.is_some();
    let order = Order::Start { spec: Box::new(spec.clone()), run_dir, guest, unified };
    tell(&socket, &name, &order, &entry.fds())?;
    drop(entry);
    let (progress, fds) = expect(&socket, &name, |progress| matches!(progress, Progress::Born { .. }))?;
    let Progress::Born { init_pid } = progress else { return Err(odd(&name)) };
    let [init, netns, supervisor] = <[OwnedFd; 3]>::try_from(fds).map_err(|_| odd(&name))?;
    let handle = init.try_clone().map_err(|source| lost(&name, source))?;
    let (inverse_of, stray) = (runtime.clone(), name.clone());
    undo.push(format!("container {name}"), move || end(&inverse_of, &stray, &init, &supervisor))
        .map_err(|source| Error::Interrupted { name: name.clone(), source })?;

    fault::pass("container in its cgroup")
        .map_err(|source| Error::Interrupted { name: name.clone(), source })?;
    let standing = Standing { init_pid, ids: spec.ids, rlimits: spec.rlimits.clone() };
    let ready = false;
    Ok(Starting { runtime: runtime.clone(), name, socket, init_pid, init: handle, standing, netns, ready })
}

/// The inverse of a start, at whatever point it stopped. The kernel kills init with its supervisor.
fn end(runtime: &Runtime, name: &str, init: &OwnedFd, supervisor: &OwnedFd) -> io::Result<()> {
    for process in [supervisor, init] {
        match process::signal(process, KILL) {
            Err(e) if e.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error()) => return Err(e),
            _ => {}
        }
    }
    for process in [supervisor, init] {
        if !wire::readable_within(process.as_fd(), PATIENCE)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "killed, and not gone yet"));
        }
    }
    let run_dir = runtime.inner.run_dir();
    run_dir.remove_file(&runtime::socket_name(name))?;
    run_dir.remove_file(&runtime::record_name(name))
}

fn tell(socket: &OwnedFd, name: &str, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<()> {
    match wire::send(socket, order, fds) {
        Ok(()) => Ok(()),
        // It has already ended, and says why in what it sent before.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(lost(name, source)),
    }
}

fn expect(
    socket: &OwnedFd,
    name: &str,
    wanted: impl Fn(&Progress) -> bool,
) -> Result<(Progress, Vec<OwnedFd>)> {
    match wire::receive_within(socket, PATIENCE).map_err(|source| lost(name, source))? {
        Some((Progress::Failed(failure), _)) => {
            // The end of the socket is the end of the process: then nothing it made is left.
            let _ = wire::receive_within::<Progress>(socket, PATIENCE);
            let source = failure.source();
            Err(Error::Start { name: name.to_owned(), step: failure.step, source })
        }
        Some((progress, fds)) if wanted(&progress) => Ok((progress, fds)),
        Some(_) => Err(odd(name)),
        None => Err(lost(name, io::Error::from(io::ErrorKind::UnexpectedEof))),
    }
}

fn odd(name: &str) -> Error {
    lost(name, io::Error::from(io::ErrorKind::InvalidData))
}

fn lost(name: &str, source: io::Error) -> Error {
    Error::Start { name: name.to_owned(), step: "talk to its supervisor".to_owned(), source }
}
