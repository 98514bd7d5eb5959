//! The daemon's side of a command inside a running container.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use cabin_sys::pty;

use crate::cgroup::ExecLeaf;
use crate::error::{Error, Result};
use crate::runtime::{PATIENCE, Runtime};
use crate::spec::{ExecSpec, Streams};
use crate::supervisor::{self, Supervisor};
use crate::wire::{self, SessionOrder, SessionProgress};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecStatus {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// Unknown: what ran it was killed, and the command with it.
    Lost,
}

impl ExecStatus {
    /// The code a shell would show: 128 and the number for a signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            ExecStatus::Exited(code) => code,
            ExecStatus::Killed(signal) => 128 + signal,
            ExecStatus::Lost => 137,
        }
    }
}

/// A running command. Dropping it (and every [`ExecControl`] of it) kills the command and its process group.
/// As a descriptor it is readable when the command has ended.
#[derive(Debug)]
pub struct Exec {
    /// The terminal, for [`Streams::Terminal`].
    pub terminal: Option<OwnedFd>,
    /// Where to write the command's input, for [`Streams::Pipes`].
    pub stdin: Option<OwnedFd>,
    /// Where to read the command's output, for [`Streams::Pipes`].
    pub stdout: Option<OwnedFd>,
    /// Where to read the command's errors, for [`Streams::Pipes`].
    pub stderr: Option<OwnedFd>,
    pid: u32,
    socket: OwnedFd,
    leaf: Leaf,
}

/// The command's cgroup, removed with its owner.
#[derive(Debug)]
struct Leaf(Option<ExecLeaf>);

impl Leaf {
    fn get(&self) -> Option<&ExecLeaf> {
        self.0.as_ref()
    }
}

/// Signals and window sizes for a running command; independent of who waits for it.
#[derive(Debug)]
pub struct ExecControl {
    socket: OwnedFd,
    terminal: Option<OwnedFd>,
}

/// A command whose process waits in the container, with everything done but its program. Dropping it ends that
/// process, and waits for that.
#[derive(Debug)]
pub struct Prepared {
    exec: Option<Exec>,
    name: String,
    program: String,
    init: OwnedFd,
}

pub(crate) fn prepare(
    runtime: &Runtime,
    supervisor: &Supervisor,
    spec: &ExecSpec,
    given: Option<[OwnedFd; 3]>,
) -> Result<Prepared> {
    let name = supervisor.name();
    let entered = enter(runtime, supervisor, spec, given);
    let exec = entered.map_err(|why| overtaken(name, supervisor.pidfd(), why))?;
    let init = supervisor.pidfd().try_clone_to_owned().map_err(|e| failed(name, "keep the container", e))?;
    Ok(Prepared { exec: Some(exec), name: name.to_owned(), program: program(spec), init })
}

impl Prepared {
    /// Lets the program run. The call returns when it does.
    ///
    /// # Errors
    /// [`Error::ProgramNotFound`], [`Error::ProgramNotExecutable`], [`Error::NotRunning`]; else [`Error::Exec`]
    /// names the step.
    pub fn run(mut self) -> Result<Exec> {
        let exec = self.exec.take().ok_or_else(|| odd(&self.name))?;
        let started = self.start(&exec);
        started.map(|()| exec).map_err(|why| overtaken(&self.name, self.init.as_fd(), why))
    }

    fn start(&self, exec: &Exec) -> Result<()> {
        let go = |source| failed(&self.name, "talk to the session's helper", source);
        wire::send(&exec.socket, &SessionOrder::Go, &[]).map_err(go)?;
        match next(&exec.socket, &self.name, &self.program)? {
            (SessionProgress::Started, _) => Ok(()),
            _ => Err(odd(&self.name)),
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let Some(exec) = &self.exec else { return };
        // The helper sees the end of its orders, ends the process and says so: then the leaf is empty and can go.
        if rustix::net::shutdown(&exec.socket, rustix::net::Shutdown::Write).is_ok() {
            let _ = wire::receive_within::<SessionProgress>(&exec.socket, ENDING);
        }
    }
}

/// How long is waited for the end of a process that did not run.
const ENDING: Duration = Duration::from_secs(1);

/// Whatever step a stop overtook: it is the stop that ended it.
fn overtaken(name: &str, init: BorrowedFd<'_>, why: Error) -> Error {
    let code = match &why {
        Error::Exec { source, .. } => source.raw_os_error(),
        Error::Cgroup { .. } => None,
        _ => return why,
    };
    if supervisor::is_ending(init, code) { Error::NotRunning { name: name.to_owned() } } else { why }
}

fn program(spec: &ExecSpec) -> String {
    spec.argv.first().cloned().unwrap_or_default()
}

fn enter(
    runtime: &Runtime,
    supervisor: &Supervisor,
    spec: &ExecSpec,
    given: Option<[OwnedFd; 3]>,
) -> Result<Exec> {
    let name = supervisor.name();
    let broken = |source| failed(name, "talk to the session's helper", source);
    let serial = format!("{}-{}", std::process::id(), runtime.inner.serial.fetch_add(1, Ordering::Relaxed));
    let cgroup = |source| Error::Cgroup { name: name.to_owned(), source };
    let leaf = Leaf(Some(runtime.cgroups().exec_leaf(name, &serial).map_err(cgroup)?));
    let entry = leaf.get().map(ExecLeaf::entry).transpose().map_err(cgroup)?.unwrap_or_default();
    let socket = runtime.inner.session_helper()?;
    let mut fds = vec![supervisor.pidfd()];
    fds.extend(entry.fds());
    if spec.streams == Streams::Given {
        let Some(given) = &given else {
            return Err(broken(io::Error::new(io::ErrorKind::InvalidInput, "no streams were given")));
        };
        fds.extend(given.iter().map(AsFd::as_fd));
    }
    let run = SessionOrder::Run {
        spec: spec.clone(),
        standing: supervisor.standing().clone(),
        unified: entry.unified.is_some(),
        cgroups: entry.fds().len(),
    };
    wire::send(&socket, &run, &fds).map_err(broken)?;
    // What only this process still holds would keep a pipe from ending.
    drop((given, entry));

    let (progress, ends) = next(&socket, name, &program(spec))?;
    let SessionProgress::Here { pid, placed } = progress else { return Err(odd(name)) };
    let mut exec = Exec { terminal: None, stdin: None, stdout: None, stderr: None, pid, socket, leaf };
    exec.take_ends(spec.streams, ends, name)?;
    if !placed {
        exec.leaf.get().map_or(Ok(()), |leaf| leaf.attach(pid)).map_err(cgroup)?;
    }
    Ok(exec)
}

/// The next thing the helper says, if it is not a failure.
fn next(socket: &OwnedFd, name: &str, program: &str) -> Result<(SessionProgress, Vec<OwnedFd>)> {
    let program = || program.to_owned();
    let said = wire::receive_within(socket, PATIENCE)
        .map_err(|e| failed(name, "talk to the session's helper", e))?
        .ok_or_else(|| failed(name, "talk to the session's helper", io::ErrorKind::UnexpectedEof.into()))?;
    match said.0 {
        SessionProgress::NotFound => {
            Err(Error::ProgramNotFound { name: name.to_owned(), program: program() })
        }
        SessionProgress::NotExecutable(why) => Err(Error::ProgramNotExecutable {
            name: name.to_owned(),
            program: program(),
            source: why.source(),
        }),
        SessionProgress::Failed(why) => Err(failed(name, &why.step, why.source())),
        _ => Ok(said),
    }
}

fn odd(name: &str) -> Error {
    failed(name, "talk to the session's helper", io::Error::from(io::ErrorKind::InvalidData))
}

fn failed(name: &str, step: &str, source: io::Error) -> Error {
    Error::Exec { name: name.to_owned(), step: step.to_owned(), source }
}

impl Exec {
    fn take_ends(&mut self, streams: Streams, ends: Vec<OwnedFd>, name: &str) -> Result<()> {
        let mut ends = ends.into_iter();
        match streams {
            Streams::Terminal { .. } => self.terminal = Some(ends.next().ok_or_else(|| odd(name))?),
            Streams::Pipes => {
                let Some((stdin, (stdout, stderr))) = ends.next().zip(ends.next().zip(ends.next())) else {
                    return Err(odd(name));
                };
                (self.stdin, self.stdout, self.stderr) = (Some(stdin), Some(stdout), Some(stderr));
            }
            Streams::Given => {}
        }
        Ok(())
    }

    /// The command's process, by the host's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A handle for signals and window sizes that another thread may hold while this one waits.
    ///
    /// # Errors
    /// As dup(2).
    pub fn control(&self) -> io::Result<ExecControl> {
        let terminal = self.terminal.as_ref().map(OwnedFd::try_clone).transpose()?;
        Ok(ExecControl { socket: self.socket.try_clone()?, terminal })
    }

    /// Sends the command a signal.
    ///
    /// # Errors
    /// `BrokenPipe` when it has ended.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        wire::send(&self.socket, &SessionOrder::Signal(number), &[])
    }

    /// Waits until the command has ended. Processes it left behind go on.
    #[must_use]
    pub fn wait(self) -> ExecStatus {
        loop {
            match wire::receive(&self.socket) {
                Ok(Some((SessionProgress::Exited(code), _))) => return ExecStatus::Exited(code),
                Ok(Some((SessionProgress::Killed(signal), _))) => return ExecStatus::Killed(signal),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return ExecStatus::Lost,
            }
        }
    }
}

impl AsFd for Exec {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        if let Some(leaf) = self.0.take() {
            // One that is not empty stays until the container's cgroup is destroyed; nobody waits for it.
            let _ = leaf.remove();
        }
    }
}

impl ExecControl {
    /// Sends the command a signal.
    ///
    /// # Errors
    /// `BrokenPipe` when it has ended.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        wire::send(&self.socket, &SessionOrder::Signal(number), &[])
    }

    /// Tells the command's terminal its size in characters; without a terminal this does nothing.
    ///
    /// # Errors
    /// As ioctl_tty(2).
    pub fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        self.terminal.as_ref().map_or(Ok(()), |terminal| pty::set_size(terminal, width, height))
    }
}
