//! What the daemon, `cabin-init` and the supervisor say to each other: postcard over sequenced packets.
//!
//! Both ends are of one build for a start and for a session. The supervisor's socket outlives an update of
//! the daemon, so [`Ask`] and [`Answer`] only ever grow at their ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cabin_sys::socket;
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::{DiskSpec, ExecSpec, IdMap, InitSpec, Rlimit};

/// The first argument that makes `cabin-init` run a command instead of an init.
pub const EXEC_MODE: &str = "exec";

/// The first argument that makes `cabin-init` mount disks in a running container.
pub const DISK_MODE: &str = "disk";

/// A step that failed on the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done.
    pub step: String,
    /// The kernel's number for why, if it has one.
    pub errno: Option<i32>,
    /// Why, in words.
    pub text: String,
}

impl Failure {
    /// The failure of `step`.
    #[must_use]
    pub fn new(step: impl Into<String>, source: &io::Error) -> Failure {
        Failure { step: step.into(), errno: source.raw_os_error(), text: source.to_string() }
    }

    /// The failure as this process would have seen it.
    #[must_use]
    pub fn source(&self) -> io::Error {
        match self.errno {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::other(self.text.clone()),
        }
    }
}

/// Which cgroup filesystem the container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestCgroups {
    /// cgroup2.
    Unified,
    /// A version 1 hierarchy without controllers, named `systemd`, if the host has one.
    Named,
}

/// From the daemon to `cabin-init`, which becomes the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// The first message. Descriptors: the container's cgroups ([`crate::cgroup::Entry`]).
    Start {
        /// What to start.
        spec: Box<InitSpec>,
        /// Where the control socket and the exit record go.
        run_dir: PathBuf,
        /// Which cgroup filesystem the container gets.
        guest: GuestCgroups,
        /// Whether the first descriptor is a cgroup2 directory.
        unified: bool,
    },
    /// Let init run.
    Release,
}

/// From `cabin-init` to the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub enum Progress {
    /// The namespaces are there. Descriptors: pidfd of the first process, its network namespace, pidfd of
    /// the supervisor.
    Born {
        /// The first process of the container.
        init_pid: u32,
    },
    /// Everything is in place, init waits for [`Order::Release`].
    Ready,
    /// Init runs.
    Running,
    /// The start failed; everything made is gone when the socket closes.
    Failed(Failure),
}

/// From anybody to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Who runs; answered by [`Answer::Standing`] with the descriptors pidfd of init and netlink socket.
    Standing,
    /// The kept console output.
    ConsoleLog,
    /// Forget the kept console output.
    ClearConsoleLog,
    /// A stream of the console, both ways.
    AttachConsole,
    /// The console's size in characters.
    Resize(u16, u16),
    /// Tell over this connection how it ends.
    Watch,
    /// Listen on the descriptor that comes along instead: only over a connection that watches, and not answered.
    Listen,
}

/// What the supervisor answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// See [`Ask::Standing`].
    Standing(Standing),
    /// The kept console output.
    Log(Vec<u8>),
    /// The console stream is the descriptor.
    Console,
    /// Done.
    Done,
    /// The container has ended.
    Ended(crate::Exit),
    /// It could not be done.
    Refused(Failure),
}

/// What the supervisor knows of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The first process, by the host's number.
    pub init_pid: u32,
    /// Its ids.
    pub ids: IdMap,
    /// The resource limits it was started with.
    pub rlimits: Vec<Rlimit>,
}

/// From the daemon to `cabin-init exec`.
#[derive(Debug, Serialize, Deserialize)]
pub enum SessionOrder {
    /// The first message. Descriptors: pidfd of the container's init, then the command's cgroups
    /// ([`crate::cgroup::Entry`]), then the given standard streams.
    Run {
        /// The command.
        spec: ExecSpec,
        /// What it is run in.
        standing: Standing,
        /// Whether the first of its cgroups is a cgroup2 directory.
        unified: bool,
        /// How many descriptors of cgroups there are.
        cgroups: usize,
    },
    /// The command's process is in its cgroups, and its program may run.
    Go,
    /// Send the command a signal.
    Signal(i32),
}

/// From `cabin-init exec` to the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub enum SessionProgress {
    /// The command's process is there and waits for [`SessionOrder::Go`]. Descriptors: the terminal, or the daemon's
    /// ends of three pipes.
    Here {
        /// Its number on the host.
        pid: u32,
        /// Whether it is in its cgroups. It is not where the container made its leaf unfit, or may not have another
        /// process by its limit: moving one there is never refused.
        placed: bool,
    },
    /// The command runs.
    Started,
    /// There is no such program.
    NotFound,
    /// The program is there and cannot be executed.
    NotExecutable(Failure),
    /// A step before it failed.
    Failed(Failure),
    /// The command exited.
    Exited(i32),
    /// A signal ended the command.
    Killed(i32),
}

/// From the daemon to `cabin-init disk`; the descriptor is a pidfd of the container's init.
#[derive(Debug, Serialize, Deserialize)]
pub struct DiskOrder {
    /// The container's first process, by the host's number.
    pub init_pid: u32,
    /// Its ids.
    pub ids: IdMap,
    /// What is taken away first: paths inside.
    pub detach: Vec<String>,
    /// What is put in place then, in this order.
    pub attach: Vec<DiskSpec>,
}

/// What `cabin-init disk` answers once.
#[derive(Debug, Serialize, Deserialize)]
pub enum DiskReply {
    /// All of it is done.
    Done,
    /// A step failed; what was attached before it is detached again.
    Failed(Failure),
}

/// Packs a message.
///
/// # Errors
/// When it cannot be packed.
pub fn pack(message: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(message).map_err(io::Error::other)
}

/// Unpacks a message; bytes left over are an error.
///
/// # Errors
/// `InvalidData` when the bytes are not such a message.
pub fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(io::Error::from(io::ErrorKind::InvalidData)),
        Err(e) => Err(io::Error::new(io::ErrorKind::InvalidData, e)),
    }
}

/// Sends a message with descriptors.
///
/// # Errors
/// As sendmsg(2).
pub fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    socket::send(socket, &pack(message)?, fds)
}

/// Receives a message with its descriptors; `None` is the end.
///
/// # Errors
/// As recvmsg(2), and `InvalidData`.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let reset = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionReset;
    let (bytes, fds) = match socket::recv(&socket) {
        // A peer that died with messages of ours unread is seen like this once; what it said before is behind it.
        Err(e) if reset(&e) => match socket::recv(&socket) {
            Err(e) if reset(&e) => return Ok(None),
            other => other?,
        },
        other => other?,
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some((unpack(&bytes)?, fds)))
}

/// Like [`receive`], but gives up after `patience`.
///
/// # Errors
/// `TimedOut`; else as [`receive`].
pub fn receive_within<T: DeserializeOwned>(
    socket: impl AsFd,
    patience: Duration,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    if !readable_within(socket.as_fd(), patience)? {
        return Err(io::Error::from(io::ErrorKind::TimedOut));
    }
    receive(socket)
}

/// Waits until `fd` can be read or has ended; `false` when `patience` is over first.
///
/// # Errors
/// As poll(2).
pub fn readable_within(fd: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_peer_that_read_nothing_are_heard() {
        let (ours, theirs) = socket::pair().unwrap();
        send(&ours, &SessionOrder::Go, &[]).unwrap();
        send(&theirs, &SessionProgress::NotFound, &[]).unwrap();
        drop(theirs);
        assert!(matches!(receive(&ours).unwrap(), Some((SessionProgress::NotFound, _))));
        assert!(receive::<SessionProgress>(&ours).unwrap().is_none());
    }
}
