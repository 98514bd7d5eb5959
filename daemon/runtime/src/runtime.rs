//! The face of the crate: starts containers, finds running ones, knows how stopped ones ended.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use cabin_sys::dir::HostDir;
use cabin_sys::{command, socket};
use cabin_undo::Undo;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroups;
use crate::error::{Error, Result};
use crate::exec::{self, Exec, Prepared};
use crate::spec::{CgroupLimits, ExecSpec, InitSpec};
use crate::start::{self, Starting};
use crate::supervisor::{self, Supervisor};
use crate::wire::{self, SessionProgress};

/// The largest exit record, in bytes.
const RECORD: u64 = 1024;

/// The largest kept console output, in bytes.
const CONSOLE: u64 = 1 << 20;

/// How a container's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// Halted or powered off from inside, or init ended.
    Stopped {
        /// What init exited with; 128 and the signal's number when one ended it. 0 for a power-off.
        status: i32,
    },
    /// Asked for a reboot from inside.
    Reboot,
    /// The supervisor was killed, and the container with it.
    SupervisorDied,
}

/// Containers of one daemon: the processes, not their files, networks or configuration.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    run_dir: RwLock<Arc<HostDir>>,
    pub(crate) program: PathBuf,
    pub(crate) cgroups: Cgroups,
    pub(crate) serial: AtomicU64,
    /// The socket of a helper that waits for a command ([`Runtime::keep_helper`]).
    spare: Mutex<Option<OwnedFd>>,
}

impl Runtime {
    /// A runtime that keeps control sockets and exit records in `run_dir` (made when missing, mode 0700) and
    /// runs `cabin-init` from `bin_dir`.
    ///
    /// # Errors
    /// When the directory cannot be used, or there is no `cabin-init`.
    pub fn new(run_dir: &Path, bin_dir: &Path, cgroups: Cgroups) -> Result<Runtime> {
        let program = bin_dir.join("cabin-init");
        rustix::fs::access(&program, rustix::fs::Access::EXEC_OK)
            .map_err(|e| Error::Launch { path: program.clone(), source: e.into() })?;
        let run_dir = HostDir::ensure(run_dir, 0o700)
            .map_err(|source| Error::RunDir { path: run_dir.to_owned(), source })?;
        let run_dir = RwLock::new(Arc::new(run_dir));
        Ok(Runtime {
            inner: Arc::new(Inner {
                run_dir,
                program,
                cgroups,
                serial: AtomicU64::new(0),
                spare: Mutex::default(),
            }),
        })
    }

    /// Makes the container's cgroups and its namespaces. When this returns, its first process exists and
    /// waits, and its root filesystem is being prepared.
    ///
    /// # Errors
    /// [`Error::Start`] names the step; nothing stays.
    pub fn spawn(&self, spec: &InitSpec, limits: &CgroupLimits, undo: &mut Undo) -> Result<Starting> {
        start::spawn(self, spec, limits, undo)
    }

    /// The supervisor of a running container; `None` when it does not run. A socket that nobody listens on
    /// any more is removed.
    ///
    /// # Errors
    /// When the supervisor is there and cannot be reached.
    pub fn connect(&self, name: &str) -> Result<Option<Supervisor>> {
        check_name(name)?;
        supervisor::connect(self, name)
    }

    /// How the container's last run ended; `None` when there is no record (it runs, never ran, or its
    /// supervisor was killed).
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn exit_record(&self, name: &str) -> Result<Option<Exit>> {
        check_name(name)?;
        let failed = |source| Error::Record { name: name.to_owned(), source };
        match self.inner.run_dir().read(&record_name(name), RECORD) {
            Ok(bytes) => wire::unpack(&bytes).map(Some).map_err(failed),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    /// Forgets how the last run ended. Nothing to forget is success.
    ///
    /// # Errors
    /// When the record cannot be removed.
    pub fn clear_exit_record(&self, name: &str) -> Result<()> {
        check_name(name)?;
        self.inner
            .run_dir()
            .remove_file(&record_name(name))
            .map_err(|source| Error::Record { name: name.to_owned(), source })
    }

    /// The console output of the last run that has ended: at most its last 128 KiB. Empty when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last_console_log(&self, name: &str) -> Result<Vec<u8>> {
        check_name(name)?;
        match self.inner.run_dir().read(&console_name(name), CONSOLE) {
            Ok(log) => Ok(log),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(Error::Record { name: name.to_owned(), source }),
        }
    }

    /// Removes what the last run left in the run directory: the exit record, the console output, and the
    /// control socket of a supervisor that was killed. Nothing to remove is success.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn forget(&self, name: &str) -> Result<()> {
        self.clear_exit_record(name)?;
        for file in [console_name(name), socket_name(name)] {
            let removed = self.inner.run_dir().remove_file(&file);
            removed.map_err(|source| Error::Record { name: name.to_owned(), source })?;
        }
        Ok(())
    }

    /// Runs a command in a running container. `given` are stdin, stdout and stderr for
    /// [`crate::spec::Streams::Given`], and are ignored otherwise. The call returns when the command runs.
    ///
    /// # Errors
    /// As [`Runtime::prepare_exec`] and [`Prepared::run`].
    pub fn exec(&self, name: &str, spec: &ExecSpec, given: Option<[OwnedFd; 3]>) -> Result<Exec> {
        self.prepare_exec(name, spec, given)?.run()
    }

    /// Does everything for a command but start its program: its process waits in the container.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; else [`Error::Exec`] names the step.
    pub fn prepare_exec(&self, name: &str, spec: &ExecSpec, given: Option<[OwnedFd; 3]>) -> Result<Prepared> {
        let supervisor = self.connect(name)?.ok_or(Error::NotRunning { name: name.to_owned() })?;
        exec::prepare(self, &supervisor, spec, given)
    }

    /// Sees to it that a helper waits for the next command, so that nobody waits for it to be started. One that cannot
    /// be started now is started when it is needed, and says then why it cannot.
    pub fn keep_helper(&self) {
        let spare = |it: &Inner| it.spare.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if spare(&self.inner) {
            return;
        }
        let Ok((socket, _first)) = self.inner.launch(&[wire::EXEC_MODE]) else { return };
        self.inner.spare.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(socket);
    }

    /// Sends the helper away that waits for a command, and waits until it has gone.
    pub fn dismiss_helper(&self) {
        let spare = self.inner.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(socket) = spare else { return };
        // It ends when it sees the end of its orders; its own end of the socket goes with it.
        if rustix::net::shutdown(&socket, rustix::net::Shutdown::Write).is_ok() {
            let _ = wire::receive_within::<SessionProgress>(&socket, Duration::from_secs(1));
        }
    }

    /// Kills everything in the container and waits until its supervisor has gone too. One that does not run
    /// is success.
    ///
    /// # Errors
    /// When a process stays.
    pub fn kill(&self, name: &str) -> Result<()> {
        let watch = self.connect(name)?.map(|supervisor| supervisor.watch()).transpose();
        self.inner.cgroups.kill(name).map_err(|source| Error::Cgroup { name: name.to_owned(), source })?;
        if let Ok(Some(watch)) = watch {
            let _ = watch.wait();
        }
        Ok(())
    }

    /// The containers that have a control socket here, running or not any more, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<String>> {
        let dir = self.inner.run_dir();
        let entries = dir.list().map_err(|source| Error::RunDir { path: dir.path().to_owned(), source })?;
        Ok(entries.into_iter().filter_map(|e| e.name.strip_suffix(".sock").map(str::to_owned)).collect())
    }

    /// The containers of which the run directory holds anything: a socket, an exit record, console output.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn recorded(&self) -> Result<Vec<String>> {
        let dir = self.inner.run_dir();
        let entries = dir.list().map_err(|source| Error::RunDir { path: dir.path().to_owned(), source })?;
        let name = |file: &str| {
            [".sock", ".exit", ".console"].iter().find_map(|end| file.strip_suffix(end)).map(str::to_owned)
        };
        let mut names: Vec<String> = entries.iter().filter_map(|entry| name(&entry.name)).collect();
        names.dedup();
        Ok(names)
    }

    /// Makes the run directory again when somebody removed it.
    ///
    /// # Errors
    /// [`Error::RunDir`] when it cannot be looked at or made.
    pub fn renew_run_dir(&self) -> Result<()> {
        let old = self.inner.run_dir();
        let failed = |source| Error::RunDir { path: old.path().to_owned(), source };
        if rustix::fs::fstat(old.as_fd()).map_err(|e| failed(e.into()))?.st_nlink > 0 {
            return Ok(());
        }
        let made = HostDir::ensure(old.path(), 0o700).map_err(failed)?;
        *self.inner.run_dir.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
        Ok(())
    }

    /// Whether the control socket of a container is where it should be.
    ///
    /// # Errors
    /// When the run directory cannot tell.
    pub fn has_socket(&self, name: &str) -> io::Result<bool> {
        self.inner.run_dir().exists(&socket_name(name))
    }

    /// Makes the cgroups of a running container again where somebody took them away, with these limits: see
    /// [`Cgroups::renew`].
    ///
    /// # Errors
    /// [`Error::Cgroup`].
    pub fn renew_cgroups(&self, supervisor: &Supervisor, limits: &CgroupLimits) -> Result<()> {
        let (name, owner) = (supervisor.name(), start::owner(supervisor.standing().ids));
        let done = self.inner.cgroups.renew(name, limits, owner, supervisor.init_pid());
        done.map_err(|source| Error::Cgroup { name: name.to_owned(), source })
    }

    /// The cgroups of this runtime's containers.
    #[must_use]
    pub fn cgroups(&self) -> &Cgroups {
        &self.inner.cgroups
    }
}

/// The name of a container's exit record in the run directory.
#[must_use]
pub fn record_name(name: &str) -> String {
    format!("{name}.exit")
}

/// The name of the file that keeps the console output of a container's last run.
#[must_use]
pub fn console_name(name: &str) -> String {
    format!("{name}.console")
}

/// The name of a container's control socket in the run directory.
#[must_use]
pub fn socket_name(name: &str) -> String {
    format!("{name}.sock")
}

/// A name becomes a file's and a cgroup's, so it has no slash and no dot.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 200 || !name.chars().all(fine) {
        return Err(Error::Name { name: name.to_owned() });
    }
    Ok(())
}

impl Inner {
    /// The directory of control sockets and records.
    pub(crate) fn run_dir(&self) -> Arc<HostDir> {
        self.run_dir.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A helper for one command: the one that waits, or another.
    pub(crate) fn session_helper(&self) -> Result<OwnedFd> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that somebody killed meanwhile is seen as the end of its socket.
        match spare.filter(|socket| !wire::readable_within(socket.as_fd(), Duration::ZERO).unwrap_or(true)) {
            Some(socket) => Ok(socket),
            None => self.launch(&[wire::EXEC_MODE]).map(|(socket, _first)| socket),
        }
    }

    /// Runs `cabin-init`, which copies itself away at once, and gives the daemon's end of its socket. One that
    /// cannot copy itself is seen as the end of the socket.
    pub(crate) fn launch(&self, arguments: &[&str]) -> Result<(OwnedFd, Launched)> {
        let failed = |source| Error::Launch { path: self.program.clone(), source };
        let (ours, theirs) = socket::pair().map_err(failed)?;
        let first = command::own_helper(&self.program)
            .args(arguments)
            // The one descriptor std hands over without code between fork and exec.
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        Ok((ours, Launched(first)))
    }
}

/// The first process of a helper, which is waited for when this is dropped: once its copy has answered, it has ended.
pub(crate) struct Launched(Child);

impl Drop for Launched {
    fn drop(&mut self) {
        // Whether it could copy itself, the socket has told.
        let _ = self.0.wait();
    }
}

/// How long a step on the other side may take before it counts as hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
