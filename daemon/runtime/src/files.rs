//! Access to a container's files: starts `cabin-files`, which speaks SFTP version 3 on a socket and is
//! confined to the container's root.
//!
//! The daemon itself never opens a path a guest can influence. The helper does, after the kernel has made
//! the container's root its own root directory and the container's root user its own user.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use cabin_sys::command::own_helper;
use cabin_sys::socket;
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::{Deserialize, Serialize};

use crate::spec::{IdMap, RootSpec};

/// How long the helper may take until it serves.
const READY: Duration = Duration::from_secs(30);

/// Whose files.
#[derive(Debug)]
pub enum FilesTarget<'a> {
    /// Those of a running container, as its processes see them.
    Running {
        /// Its init.
        pidfd: BorrowedFd<'a>,
    },
    /// Those of a container that does not run. The caller sees to it that it is not started meanwhile: two
    /// overlays must not share one upper directory.
    Stopped {
        /// The root filesystem.
        root: RootSpec,
        /// The ids it is shown in.
        ids: IdMap,
    },
}

/// What the helper is told, with the stream socket (and for a running container, init's pidfd) beside it.
#[derive(Debug, Serialize, Deserialize)]
pub enum FilesRequest {
    /// Enter the container of the second descriptor.
    Running,
    /// Mount this root.
    Stopped {
        /// The root filesystem.
        root: RootSpec,
        /// The ids it is shown in.
        ids: IdMap,
    },
}

/// What the helper answers once.
#[derive(Debug, Serialize, Deserialize)]
pub enum FilesReply {
    /// It serves now.
    Ready,
    /// It could not, and has ended.
    Failed {
        /// At what.
        step: FilesStep,
        /// The system's error number; 0 when there was none.
        code: i32,
    },
}

/// What the helper does before it serves, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilesStep {
    /// Understanding the request.
    Request,
    /// Mounting a stopped container's root.
    Mount,
    /// Entering the container's namespaces.
    Enter,
    /// Giving up every other right.
    Confine,
    /// Starting to serve.
    Serve,
}

impl std::fmt::Display for FilesStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FilesStep::Request => "understand its request",
            FilesStep::Mount => "mount the container's root",
            FilesStep::Enter => "enter the container",
            FilesStep::Confine => "give up its rights",
            FilesStep::Serve => "start to serve",
        })
    }
}

/// Why a container's files cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The helper could not be started.
    #[error("cannot start `{}`", helper.display())]
    Start {
        /// The program.
        helper: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The helper could not be talked to.
    #[error("cannot talk to the file server")]
    Talk {
        /// Why.
        source: io::Error,
    },
    /// The helper said something else than was agreed.
    #[error("the file server's answer makes no sense")]
    Answer {
        /// Why.
        source: postcard::Error,
    },
    /// The helper failed at a step.
    #[error("the file server could not {step}")]
    Refused {
        /// The step.
        step: FilesStep,
        /// Why.
        source: io::Error,
    },
    /// The helper said nothing in time.
    #[error("the file server was not ready within {seconds} s")]
    Late {
        /// How long it was waited for.
        seconds: u64,
    },
}

/// A file server for one container. Dropped, it ends the server.
#[derive(Debug)]
pub struct FilesSession {
    stream: OwnedFd,
    helper: Reaped,
}

/// A child that does not outlive its owner.
#[derive(Debug)]
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail only for a child that is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl FilesSession {
    /// The stream socket that speaks SFTP. The session must be kept as long as it is used.
    #[must_use]
    pub fn stream(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Another descriptor of the same socket, for code that wants to own one.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.stream.try_clone()
    }

    /// The helper's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.helper.0.id()
    }
}

/// Starts the file server `helper` (the `cabin-files` program) for a container. It serves when this
/// returns.
///
/// # Errors
/// When the helper cannot be started, or cannot get into the container.
pub fn open(helper: &Path, target: FilesTarget<'_>) -> Result<FilesSession, Error> {
    let talk = |source| Error::Talk { source };
    let (ours, theirs) = socket::pair().map_err(talk)?;
    let (stream, served) = socket::stream_pair().map_err(talk)?;
    let mut command = own_helper(helper);
    command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    let child = command.spawn().map_err(|source| Error::Start { helper: helper.to_owned(), source })?;
    let session = FilesSession { stream, helper: Reaped(child) };
    // The command still holds the helper's end; while it is open, the helper's end of life goes unseen.
    drop(command);

    let mut fds = vec![served.as_fd()];
    let request = match target {
        FilesTarget::Running { pidfd } => {
            fds.push(pidfd);
            FilesRequest::Running
        }
        FilesTarget::Stopped { root, ids } => FilesRequest::Stopped { root, ids },
    };
    let message = postcard::to_stdvec(&request).map_err(|source| Error::Answer { source })?;
    socket::send(&ours, &message, &fds).map_err(talk)?;
    match answer(&ours)? {
        FilesReply::Ready => Ok(session),
        FilesReply::Failed { step, code } => {
            Err(Error::Refused { step, source: io::Error::from_raw_os_error(code) })
        }
    }
}

fn answer(control: &OwnedFd) -> Result<FilesReply, Error> {
    let talk = |source| Error::Talk { source };
    let limit = Timespec { tv_sec: READY.as_secs().cast_signed(), tv_nsec: 0 };
    let ready = rustix::event::poll(&mut [PollFd::new(control, PollFlags::IN)], Some(&limit));
    if ready.map_err(|e| talk(e.into()))? == 0 {
        return Err(Error::Late { seconds: READY.as_secs() });
    }
    let (message, _) = socket::recv(control).map_err(talk)?;
    if message.is_empty() {
        return Err(talk(io::Error::from(io::ErrorKind::UnexpectedEof)));
    }
    postcard::from_bytes(&message).map_err(|source| Error::Answer { source })
}
