//! Trees carried from one place of this host to another: packed into a pipe at one end, made at its other end by the
//! confined process. What can be said of backups is true of them: a tree may be a hostile guest's own.

use std::error::Error as _;
use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;

use super::{BackupWriter, Place, RestoreTo};
use crate::error::{Error, Result};
use crate::format::Compression;
use crate::message::{Limits, UnpackReport};
use crate::pack::{Manner, TreeSource, Walk};
use crate::unpacker::Unpacker;

/// What of this host is carried on it is not bounded.
const UNBOUNDED: Limits = Limits { expanded: u64::MAX, entries: u64::MAX };

impl Unpacker {
    /// Makes trees like those at `sources` in the empty directories of `targets`, each with the source of its own
    /// place. Nobody may be writing in the sources. `progress` hears how many bytes went through. Nothing is synced;
    /// after a failure the directories may hold parts.
    ///
    /// # Errors
    /// When a tree cannot be read or made, or the two lists do not name the same places.
    pub fn carry(
        &self,
        sources: &[(Place, TreeSource)],
        targets: &[RestoreTo],
        progress: &mut dyn FnMut(u64),
    ) -> Result<UnpackReport> {
        let (reading, writing) = io::pipe().map_err(|source| Error::Talk { source })?;
        let unbounded = Unpacker { limits: UNBOUNDED, ..self.clone() };
        std::thread::scope(|scope| {
            let packing = scope.spawn(|| pack(writing, sources));
            let made = unbounded.restore(File::from(OwnedFd::from(reading)), targets, progress);
            match (made, packing.join()) {
                // The reader was gone: it says why.
                (Err(error), Ok(Err(closed))) if is_closed(&closed) => Err(error),
                // What could not be read is why the archive ended early.
                (_, Ok(Err(error))) => Err(error),
                (made, Ok(Ok(()))) => Ok(made?.0),
                (_, Err(panic)) => std::panic::resume_unwind(panic),
            }
        })
    }
}

fn pack(pipe: PipeWriter, sources: &[(Place, TreeSource)]) -> Result<()> {
    let mut archive = BackupWriter::new(pipe, Compression::None, "", 0)?;
    let manner = Manner { latest: None, devices: true, sparse: true };
    for (place, source) in sources {
        Walk::open(source, manner)?.write(&mut archive.tar, &format!("{}/rootfs", place.directory()))?;
    }
    archive.finish()
}

fn is_closed(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
}
