//! Access to a container's files: starts `cabin-files`, which speaks SFTP version 3 on a socket and is
//! confined to the container's root.
//!
//! The daemon itself never opens a path a guest can influence. The helper does, after the kernel has made
//! the container's root its own root directory and the container's root user its own user.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use cabin_sys::command::own_helper;
use cabin_sys::socket;
use serde::{Deserialize, Serialize};

use crate::runtime::PATIENCE;
use crate::spec::{IdMap, RootSpec};
use crate::supervisor;
use crate::wire::{self, Failure};

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
    Failed(Failure),
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
    /// The container has ended meanwhile.
    #[error("the container whose files were asked for has ended")]
    Ended,
    /// The helper failed at a step.
    #[error("the file server could not {step}")]
    Refused {
        /// The step.
        step: String,
        /// Why.
        source: io::Error,
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
    let init = match &target {
        FilesTarget::Running { pidfd } => Some(*pidfd),
        FilesTarget::Stopped { .. } => None,
    };
    let request = match target {
        FilesTarget::Running { pidfd } => {
            fds.push(pidfd);
            FilesRequest::Running
        }
        FilesTarget::Stopped { root, ids } => FilesRequest::Stopped { root, ids },
    };
    match wire::send(&ours, &request, &fds) {
        // It has already ended, and said why if it could.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.map_err(talk)?,
    }
    match answer(&ours).map_err(talk)? {
        FilesReply::Ready => Ok(session),
        FilesReply::Failed(failure) => {
            let source = failure.source();
            match init {
                Some(init) if supervisor::is_ending(init, source.raw_os_error()) => Err(Error::Ended),
                _ => Err(Error::Refused { step: failure.step, source }),
            }
        }
    }
}

fn answer(control: &OwnedFd) -> io::Result<FilesReply> {
    match wire::receive_within(control, PATIENCE)? {
        Some((reply, _)) => Ok(reply),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}
