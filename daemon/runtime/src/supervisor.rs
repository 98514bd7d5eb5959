//! The daemon's side of a running container: what its supervisor answers and how it ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use cabin_sys::dir::HostDir;
use cabin_sys::process;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::disk;
use crate::error::{Error, Result};
use crate::init_kind::{self, InitKind};
use crate::runtime::{Exit, PATIENCE, Runtime, socket_name};
use crate::spec::DiskSpec;
use crate::wire::{self, Answer, Ask, Standing};

/// How long the end of an init may take to be seen.
const ENDING: Duration = Duration::from_millis(100);

/// A running container's supervisor. Each call is a connection of its own, so the value stays good over any
/// pause and can be used from several threads.
#[derive(Debug)]
pub struct Supervisor {
    runtime: Runtime,
    name: String,
    standing: Standing,
    pidfd: OwnedFd,
    netlink: OwnedFd,
}

/// A connection over which the end of a container is told. Readable (as a descriptor) when it has ended.
#[derive(Debug)]
pub struct Watch {
    runtime: Runtime,
    name: String,
    socket: OwnedFd,
}

pub(crate) fn connect(runtime: &Runtime, name: &str) -> Result<Option<Supervisor>> {
    let failed = |source| Error::Supervisor { name: name.to_owned(), act: "ask for the standing", source };
    let Some((answer, fds)) = ask(runtime, name, &Ask::Standing).map_err(failed)? else { return Ok(None) };
    let (Answer::Standing(standing), Ok([pidfd, netlink])) = (answer, <[OwnedFd; 2]>::try_from(fds)) else {
        return Err(failed(io::Error::from(io::ErrorKind::InvalidData)));
    };
    Ok(Some(Supervisor { runtime: runtime.clone(), name: name.to_owned(), standing, pidfd, netlink }))
}

/// Whether a step failed (with that error of the kernel) because the container is ending. A process on its way out
/// has left its namespaces already and can still be signalled; with many processes to end, for seconds.
pub(crate) fn is_ending(init: BorrowedFd<'_>, code: Option<i32>) -> bool {
    code == Some(Errno::SRCH.raw_os_error()) || wire::readable_within(init, ENDING).unwrap_or(false)
}

/// One question and its answer; `None` when no supervisor listens.
fn ask(runtime: &Runtime, name: &str, question: &Ask) -> io::Result<Option<(Answer, Vec<OwnedFd>)>> {
    let Some(socket) = dial(&runtime.inner.run_dir(), name)? else { return Ok(None) };
    match wire::send(&socket, question, &[]) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
        other => other?,
    }
    match wire::receive_within(&socket, PATIENCE)? {
        Some((Answer::Refused(failure), _)) => Err(failure.source()),
        answer => Ok(answer),
    }
}

/// Connects to the control socket; one left by a supervisor that was killed is removed.
fn dial(run_dir: &HostDir, name: &str) -> io::Result<Option<OwnedFd>> {
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // Through the descriptor: a path in an address has at most 107 bytes.
    let path = format!("/proc/self/fd/{}/{}", run_dir.as_fd().as_raw_fd(), socket_name(name));
    match net::connect(&socket, &SocketAddrUnix::new(path.as_str())?) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::CONNREFUSED) => {
            run_dir.remove_file(&socket_name(name))?;
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

/// Listens at a container's place in the run directory. Whatever is there is of a supervisor long dead, or cut
/// off.
///
/// # Errors
/// As bind(2) and listen(2).
pub fn listen(run_dir: &HostDir, name: &str) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    run_dir.remove_file(&socket_name(name))?;
    // Through the descriptor: a path in an address has at most 107 bytes.
    let path = format!("/proc/self/fd/{}/{}", run_dir.as_fd().as_raw_fd(), socket_name(name));
    net::bind(&listener, &SocketAddrUnix::new(path.as_str())?)?;
    net::listen(&listener, 16)?;
    Ok(listener)
}

impl Supervisor {
    /// The container's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The container's init, by the host's number. Only [`Supervisor::pidfd`] is sure to mean it.
    #[must_use]
    pub fn init_pid(&self) -> u32 {
        self.standing.init_pid
    }

    /// The handle of the container's init.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// What the supervisor knows of the container.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// A `NETLINK_ROUTE` socket inside the container's network namespace, for reading addresses and counters
    /// without entering it. There is one for all callers: whoever asks over it must keep others out until
    /// the answer is read.
    ///
    /// # Errors
    /// As fcntl(2).
    pub fn netns_socket(&self) -> Result<OwnedFd> {
        self.netlink.try_clone().map_err(|e| self.failed("take the netlink socket", e))
    }

    /// The container's network namespace, to move an interface into.
    ///
    /// # Errors
    /// When init has ended.
    pub fn netns(&self) -> Result<OwnedFd> {
        self.proc_file("ns/net", OFlags::RDONLY).map_err(|e| self.failed("open the network namespace", e))
    }

    /// Opens a file of init in /proc, and makes sure it was init's.
    fn proc_file(&self, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let path = format!("/proc/{}/{file}", self.init_pid());
        let fd = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?;
        process::signal(&self.pidfd, 0)?;
        Ok(fd)
    }

    /// Which init runs, by the program it is.
    ///
    /// # Errors
    /// When init has ended.
    pub fn init_kind(&self) -> Result<InitKind> {
        let act = "find out the init";
        let read = || -> io::Result<InitKind> {
            let exe = rustix::fs::readlink(format!("/proc/{}/exe", self.init_pid()), Vec::new())?;
            process::signal(&self.pidfd, 0)?;
            Ok(InitKind::of_program(&exe.to_string_lossy()))
        };
        read().map_err(|e| self.failed(act, e))
    }

    /// Whether init is sure to hear that signal: it catches it, or has it kept until it looks. Any other that comes
    /// from outside the kernel throws away (pid_namespaces(7)), which is what befalls a signal that comes before init
    /// has set itself up. An init that waits in sigtimedwait(2), as busybox's does, hears it and does not look so; that of
    /// sysvinit heeds none while it boots.
    ///
    /// # Errors
    /// When init has ended.
    pub fn hears(&self, number: i32) -> Result<bool> {
        let read = || -> io::Result<bool> {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.init_pid()))?;
            let title = std::fs::read(format!("/proc/{}/cmdline", self.init_pid()))?;
            process::signal(&self.pidfd, 0)?;
            Ok(is_in_a_mask(&status, number) && !init_kind::is_booting(&title))
        };
        read().map_err(|e| self.failed("look at the init's signals", e))
    }

    /// The kept console output: the last 128 KiB.
    ///
    /// # Errors
    /// When the container has ended, or its supervisor does not answer.
    pub fn console_log(&self) -> Result<Vec<u8>> {
        match self.ask(&Ask::ConsoleLog, "read the console log")? {
            (Answer::Log(log), _) => Ok(log),
            _ => Err(self.failed("read the console log", io::Error::from(io::ErrorKind::InvalidData))),
        }
    }

    /// Forgets the kept console output.
    ///
    /// # Errors
    /// As [`Supervisor::console_log`].
    pub fn clear_console_log(&self) -> Result<()> {
        self.ask(&Ask::ClearConsoleLog, "clear the console log").map(|_| ())
    }

    /// A stream of the console: what the guest writes can be read, what is written the guest reads. Several
    /// may be attached; output a slow one does not take is lost for it.
    ///
    /// # Errors
    /// As [`Supervisor::console_log`]; also when too many are attached.
    pub fn attach_console(&self) -> Result<OwnedFd> {
        let act = "attach to the console";
        let (_, fds) = self.ask(&Ask::AttachConsole, act)?;
        fds.into_iter().next().ok_or_else(|| self.failed(act, io::Error::from(io::ErrorKind::InvalidData)))
    }

    /// Tells the console its size in characters.
    ///
    /// # Errors
    /// As [`Supervisor::console_log`].
    pub fn resize_console(&self, width: u16, height: u16) -> Result<()> {
        self.ask(&Ask::Resize(width, height), "resize the console").map(|_| ())
    }

    /// Takes the mounts at these paths inside away, then puts disks in place. What is not mounted is passed
    /// over, and so is a disk that is in its place already. When one fails, none of them stays.
    ///
    /// # Errors
    /// [`Error::Disk`] names the step.
    pub fn change_disks(&self, detach: &[String], attach: &[DiskSpec]) -> Result<()> {
        disk::change(&self.runtime, &self.name, self.pidfd(), &self.standing, detach, attach)
    }

    /// Sends init a signal by number.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it has ended.
    pub fn signal(&self, number: i32) -> Result<()> {
        match process::signal(&self.pidfd, number) {
            Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Err(self.gone()),
            other => other.map_err(|e| self.failed("signal the init", e)),
        }
    }

    /// A connection that tells the container's end.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it has ended; the exit record then says how.
    pub fn watch(&self) -> Result<Watch> {
        let failed = |e| self.failed("watch the end", e);
        let socket = dial(&self.runtime.inner.run_dir(), &self.name).map_err(failed)?.ok_or(self.gone())?;
        wire::send(&socket, &Ask::Watch, &[]).map_err(failed)?;
        match wire::receive_within(&socket, PATIENCE).map_err(failed)? {
            Some((Answer::Done, _)) => {
                Ok(Watch { runtime: self.runtime.clone(), name: self.name.clone(), socket })
            }
            _ => Err(self.gone()),
        }
    }

    fn ask(&self, question: &Ask, act: &'static str) -> Result<(Answer, Vec<OwnedFd>)> {
        ask(&self.runtime, &self.name, question).map_err(|e| self.failed(act, e))?.ok_or_else(|| self.gone())
    }

    fn gone(&self) -> Error {
        Error::NotRunning { name: self.name.clone() }
    }

    fn failed(&self, act: &'static str, source: io::Error) -> Error {
        Error::Supervisor { name: self.name.clone(), act, source }
    }
}

impl Watch {
    /// Gives the supervisor another control socket, where its own was: somebody removed that.
    ///
    /// # Errors
    /// When the socket cannot be made, or the supervisor has ended.
    pub fn give_socket(&self) -> Result<()> {
        let failed = |source| Error::Supervisor {
            name: self.name.clone(),
            act: "give another control socket to",
            source,
        };
        let socket = listen(&self.runtime.inner.run_dir(), &self.name).map_err(failed)?;
        wire::send(&self.socket, &Ask::Listen, &[socket.as_fd()]).map_err(failed)
    }

    /// Waits until the container has ended. Everything of it is gone then, but its cgroups and its record.
    #[must_use]
    pub fn wait(self) -> Exit {
        match wire::receive(&self.socket) {
            Ok(Some((Answer::Ended(exit), _))) => {
                // The supervisor's own end follows; after it nothing holds the root filesystem.
                let _ = wire::receive_within::<Answer>(&self.socket, PATIENCE);
                exit
            }
            _ => self.runtime.exit_record(&self.name).ok().flatten().unwrap_or(Exit::SupervisorDied),
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a process with that status (proc_pid_status(5)) blocks or catches the signal.
fn is_in_a_mask(status: &str, number: i32) -> bool {
    let bit = u32::try_from(number - 1).ok().and_then(|place| 1u64.checked_shl(place)).unwrap_or(0);
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
    };
    (mask("SigBlk:") | mask("SigCgt:")) & bit != 0
}

#[cfg(test)]
mod tests {
    use super::is_in_a_mask;

    #[test]
    fn a_signal_is_heard_when_it_is_blocked_or_caught() {
        let status = "SigPnd:\t0000001000000000\nSigBlk:\t0000001000000000\nSigIgn:\t0000000000001000\n\
                      SigCgt:\t0000000020000800\n";
        for (number, heard) in [(37, true), (12, true), (30, true), (13, false), (38, false), (15, false)] {
            assert_eq!(is_in_a_mask(status, number), heard, "{number}");
        }
    }
}
