//! Trees carried from one place of this host to another: packed into a pipe at one end, made at its other end by the
//! confined process. What can be said of backups is true of them: a tree may be a hostile guest's own.

use std::error::Error as _;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use cabin_sys::dir::HostDir;
use rustix::fs::{
    self as rfs, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
};

use super::{BackupWriter, Place, RestoreTo};
use crate::error::{Error, Result};
use crate::format::Compression;
use crate::message::{Limits, UnpackReport};
use crate::pack::{Devices, Manner, Node, TreeSource, Walk};
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
            let packing = std::thread::Builder::new()
                .name("pack".to_owned())
                .spawn_scoped(scope, || pack(writing, sources))
                .map_err(|source| Error::Talk { source })?;
            let made = unbounded.restore(File::from(OwnedFd::from(reading)), targets, progress);
            let packed = packing.join();
            if let (Ok(_), Ok(Ok(nodes))) = (&made, &packed) {
                for (place, node) in nodes {
                    let target = targets.iter().find(|target| target.place == *place);
                    target.map_or(Ok(()), |target| make(&target.tree, node))?;
                }
            }
            match (made, packed) {
                // The reader was gone: it says why.
                (Err(error), Ok(Err(closed))) if is_closed(&closed) => Err(error),
                // What could not be read is why the archive ended early.
                (_, Ok(Err(error))) => Err(error),
                (made, Ok(Ok(_))) => Ok(made?.0),
                (_, Err(panic)) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// Gives the device nodes, which the confined process may not make.
fn pack(pipe: PipeWriter, sources: &[(Place, TreeSource)]) -> Result<Vec<(Place, Node)>> {
    let mut archive = BackupWriter::new(pipe, Compression::None, "", 0)?;
    let manner = Manner { latest: None, devices: Devices::Told, sparse: true };
    let mut nodes = Vec::new();
    for (place, source) in sources {
        let mut walk = Walk::open(source, manner)?;
        walk.write(&mut archive.tar, &format!("{}/rootfs", place.directory()))?;
        nodes.extend(walk.nodes().into_iter().map(|node| (place.clone(), node)));
    }
    archive.finish()?;
    Ok(nodes)
}

/// Makes a device node like the one in the source. Only a privileged guest can have made that one; what it is good
/// for is decided where a container is started.
fn make(tree: &HostDir, node: &Node) -> Result<()> {
    let made = || -> io::Result<()> {
        let (above, name) = match node.path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&node.path[..at], &node.path[at + 1..]),
            None => (&b"."[..], &node.path[..]),
        };
        let (above, name) = (OsStr::from_bytes(above), OsStr::from_bytes(name));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let dir = rfs::openat2(tree, above, flags, Mode::empty(), inside)?;
        let (before, stat) = (rfs::fstat(&dir)?, &node.stat);
        let mode = Mode::from_raw_mode(stat.st_mode);
        rfs::mknodat(&dir, name, FileType::from_raw_mode(stat.st_mode), mode, stat.st_rdev)?;
        let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rfs::chownat(&dir, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        rfs::chmodat(&dir, name, mode, AtFlags::empty())?;
        rfs::utimensat(&dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(rfs::futimens(&dir, &times(&before))?)
    };
    let path = String::from_utf8_lossy(&node.path).into_owned();
    made().map_err(|source| Error::Make { path, source })
}

fn times(stat: &Stat) -> Timestamps {
    let at = |tv_sec, nanoseconds| Timespec { tv_sec, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn is_closed(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
}
