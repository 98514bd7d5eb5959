//! The daemon's side of unpacking: starts the confined process, gives it open files, hears its answers.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use cabin_sys::command;
use cabin_sys::dir::HostDir;
use cabin_sys::socket;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::backup::{RestoreTo, Wanted};
use crate::error::{Error, Kind, Reported, Result};
use crate::message::{Answer, IdRange, Job, Limits, Task, UnpackReport};
use crate::metadata::Metadata;

/// How long the process may be silent before it counts as stuck.
const SILENCE: Duration = Duration::from_secs(300);
/// The most bytes of metadata taken from the process: what the limits of its parts allow, and some more.
const MAX_ANSWER: usize = 16 << 20;

/// The files of an image.
#[derive(Debug)]
pub struct ImageFiles {
    /// The unified tarball, or the metadata tarball of a split image.
    pub meta: File,
    /// The rootfs of a split image: squashfs or tarball.
    pub rootfs: Option<File>,
}

/// Reads images in a confined process, one process for each call.
#[derive(Debug, Clone)]
pub struct Unpacker {
    /// The absolute path of `cabin-unpack`.
    pub helper: PathBuf,
    /// The range of host ids the process runs under. Nothing else may use it.
    pub ids: IdRange,
    /// What an image may cost.
    pub limits: Limits,
}

impl Unpacker {
    /// What an image says about itself. `meta` is the unified tarball or the metadata tarball.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the image is at fault, [`Kind::Internal`] otherwise.
    pub fn inspect(&self, meta: &File) -> Result<Metadata> {
        let job = Job { task: Task::Inspect, split: false, ids: self.ids, limits: self.limits };
        let mut bytes = Vec::new();
        self.run(&job, &[meta.as_fd()], &mut |_, _| {}, &mut bytes)?;
        postcard::from_bytes(&bytes).map_err(|source| Error::Message { source })
    }

    /// Makes the root filesystem of an image in the empty directory `target`, with plain ids from 0 on disk.
    /// `progress` hears bytes read and bytes in all. Nothing is synced; after a failure `target` may hold a
    /// part of the tree.
    ///
    /// # Errors
    /// As [`Unpacker::inspect`].
    pub fn unpack(
        &self,
        files: &ImageFiles,
        target: &HostDir,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<UnpackReport> {
        let job =
            Job { task: Task::Unpack, split: files.rootfs.is_some(), ids: self.ids, limits: self.limits };
        let mut fds = vec![files.meta.as_fd()];
        fds.extend(files.rootfs.as_ref().map(AsFd::as_fd));
        fds.push(target.as_fd());
        self.run(&job, &fds, progress, &mut Vec::new())
    }

    /// The index of a backup as JSON text, from a file with the first bytes of it; `None` when more of them are
    /// needed. Nothing in it is checked but that it is YAML of a bearable size.
    ///
    /// # Errors
    /// As [`Unpacker::inspect`].
    pub fn index(&self, head: &File) -> Result<Option<String>> {
        let job = Job { task: Task::Index, split: false, ids: self.ids, limits: self.limits };
        let mut bytes = Vec::new();
        self.run(&job, &[head.as_fd()], &mut |_, _| {}, &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        postcard::from_bytes(&bytes).map(Some).map_err(|source| Error::Message { source })
    }

    /// Makes the trees of a backup, which is read from `input` to its end, in the empty directories given for
    /// them; gives the instance's metadata too, if there is any. `progress` hears bytes read. Nothing is
    /// synced; after a failure the directories may hold parts.
    ///
    /// # Errors
    /// As [`Unpacker::inspect`]; also when the places are not exactly those in the backup.
    pub fn restore(
        &self,
        input: File,
        places: &[RestoreTo],
        progress: &mut dyn FnMut(u64),
    ) -> Result<(UnpackReport, Option<Metadata>)> {
        let count = u32::try_from(places.len()).unwrap_or(u32::MAX);
        self.take_in(Task::Restore { places: count }, input, places, progress, &mut |_, _| {
            Err(io::ErrorKind::Unsupported.into())
        })
    }

    /// Makes the subvolumes of a backup in the own form of btrfs. The directories of `places` are those in which
    /// subvolumes named `rootfs` are to be made: `make` does that, with the number of the place, and of the one it is to
    /// be a snapshot of.
    ///
    /// # Errors
    /// As [`Unpacker::restore`], or when one cannot be made.
    pub fn receive(
        &self,
        input: File,
        places: &[RestoreTo],
        progress: &mut dyn FnMut(u64),
        make: &mut dyn FnMut(usize, Option<usize>) -> io::Result<()>,
    ) -> Result<(UnpackReport, Option<Metadata>)> {
        let count = u32::try_from(places.len()).unwrap_or(u32::MAX);
        self.take_in(Task::Receive { places: count }, input, places, progress, make)
    }

    fn take_in(
        &self,
        task: Task,
        input: File,
        places: &[RestoreTo],
        progress: &mut dyn FnMut(u64),
        make: &mut dyn FnMut(usize, Option<usize>) -> io::Result<()>,
    ) -> Result<(UnpackReport, Option<Metadata>)> {
        let job = Job { task, split: false, ids: self.ids, limits: self.limits };
        let mut bytes = Vec::new();
        let mut hearing = Hearing { progress: &mut |done, _| progress(done), pieces: &mut bytes, make };
        let report = self.talk(&job, places, &mut hearing, move |ours, job| {
            // From then on the child alone holds the stream, so that its writer learns when nobody reads.
            let sent = socket::send(ours, job, &[input.as_fd()]);
            drop(input);
            sent
        })?;
        let metadata = match bytes.is_empty() {
            true => None,
            false => Some(postcard::from_bytes(&bytes).map_err(|source| Error::Message { source })?),
        };
        Ok((report, metadata))
    }

    fn run(
        &self,
        job: &Job,
        fds: &[BorrowedFd<'_>],
        progress: &mut dyn FnMut(u64, u64),
        pieces: &mut Vec<u8>,
    ) -> Result<UnpackReport> {
        let mut hearing =
            Hearing { progress, pieces, make: &mut |_, _| Err(io::ErrorKind::Unsupported.into()) };
        self.talk(job, &[], &mut hearing, |ours, job| socket::send(ours, job, fds))
    }

    /// Starts the process and hears it to its end. `hand` sends the job with its descriptors.
    fn talk(
        &self,
        job: &Job,
        places: &[RestoreTo],
        hearing: &mut Hearing<'_>,
        hand: impl FnOnce(&OwnedFd, &[u8]) -> io::Result<()>,
    ) -> Result<UnpackReport> {
        let talk = |source| Error::Talk { source };
        let (ours, theirs) = socket::pair().map_err(talk)?;
        let mut child = self.start(theirs)?;
        let job = postcard::to_stdvec(job).map_err(|source| Error::Message { source });
        let outcome = job.and_then(|job| {
            set_socket_timeout(&ours, Timeout::Recv, Some(SILENCE)).map_err(|e| talk(e.into()))?;
            hand(&ours, &job).map_err(talk)?;
            for some in places.chunks(socket::MAX_FDS) {
                let wanted: Vec<Wanted> = some
                    .iter()
                    .map(|to| Wanted { place: to.place.clone(), shift: to.shift.clone() })
                    .collect();
                let names = postcard::to_stdvec(&wanted).map_err(|source| Error::Message { source })?;
                let fds: Vec<_> = some.iter().map(|to| to.tree.as_fd()).collect();
                socket::send(&ours, &names, &fds).map_err(talk)?;
            }
            listen(&ours, hearing)
        });
        // Whatever it still does, nobody waits for it any more.
        let _ = child.kill();
        let ended = child.wait();
        match outcome {
            Ok(Some(report)) => Ok(report),
            Ok(None) => {
                Err(Error::Died { status: ended.map_or_else(|e| e.to_string(), |status| status.to_string()) })
            }
            Err(error) => Err(error),
        }
    }

    fn start(&self, socket: OwnedFd) -> Result<Child> {
        command::own_helper(&self.helper)
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| Error::Start { helper: self.helper.display().to_string(), source })
    }
}

/// What becomes of the answers of the process.
struct Hearing<'a> {
    progress: &'a mut dyn FnMut(u64, u64),
    pieces: &'a mut Vec<u8>,
    make: &'a mut dyn FnMut(usize, Option<usize>) -> io::Result<()>,
}

/// Hears answers until the last one; `None` when the process ended without one.
fn listen(socket: &OwnedFd, hearing: &mut Hearing<'_>) -> Result<Option<UnpackReport>> {
    let Hearing { progress, pieces, make } = hearing;
    loop {
        let (bytes, _fds) = socket::recv(socket).map_err(|source| Error::Talk { source })?;
        if bytes.is_empty() {
            return Ok(None);
        }
        match postcard::from_bytes(&bytes).map_err(|source| Error::Message { source })? {
            Answer::Progress { done, total } => progress(done, total),
            Answer::Piece(piece) => {
                pieces.extend_from_slice(&piece);
                if pieces.len() > MAX_ANSWER {
                    return Err(Error::Archive { why: "its metadata is beyond all measure" });
                }
            }
            Answer::Make { place, from } => {
                make(place as usize, from.map(|from| from as usize))
                    .map_err(|source| Error::Make { path: "subvolume".to_owned(), source })?;
                socket::send(socket, b"made", &[]).map_err(|source| Error::Talk { source })?;
            }
            Answer::Done(report) => return Ok(Some(report)),
            Answer::Failed { invalid, chain, number } => {
                let kind = if invalid { Kind::Invalid } else { Kind::Internal };
                return Err(Error::Unpack { kind, source: Reported::from_chain(chain, number) });
            }
        }
    }
}
