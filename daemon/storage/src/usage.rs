//! How much room things take.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self as rfs, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// What the filesystem of a pool has and what of it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Bytes in all.
    pub space_total: u64,
    /// Bytes taken.
    pub space_used: u64,
    /// Inodes in all; 0 where the filesystem does not count them.
    pub inodes_total: u64,
    /// Inodes taken.
    pub inodes_used: u64,
}

pub(crate) fn resources(dir: impl AsFd) -> io::Result<Resources> {
    let seen = rfs::fstatvfs(dir)?;
    Ok(Resources {
        space_total: seen.f_blocks * seen.f_frsize,
        space_used: seen.f_blocks.saturating_sub(seen.f_bfree) * seen.f_frsize,
        inodes_total: seen.f_files,
        inodes_used: seen.f_files.saturating_sub(seen.f_ffree),
    })
}

/// Bytes on disk of everything beneath a directory, files with several names counted once. What disappears
/// meanwhile is not counted; other filesystems are not entered.
pub(crate) fn bytes(dir: impl AsFd) -> io::Result<u64> {
    let mut total = 0;
    each(dir, |bytes| {
        total += bytes;
        ControlFlow::Continue(())
    })?;
    Ok(total)
}

/// Whether there are at most so many names beneath a directory, and so many bytes on disk. Looks no further than it must.
pub(crate) fn is_within(dir: impl AsFd, names: usize, most: u64) -> io::Result<bool> {
    let (mut seen, mut total) = (0, 0);
    each(dir, |bytes| {
        seen += 1;
        total += bytes;
        if seen > names || total > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(seen <= names && total <= most)
}

/// Tells the bytes on disk of each name beneath a directory, other names of the same file left out, for as long as `tell`
/// wants to know more.
fn each(dir: impl AsFd, mut tell: impl FnMut(u64) -> ControlFlow<()>) -> io::Result<()> {
    const BENEATH: ResolveFlags =
        ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);
    let mut counted = HashSet::new();
    let mut open = vec![b".".to_vec()];
    while let Some(path) = open.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inner = match rfs::openat2(&dir, OsStr::from_bytes(&path), flags, Mode::empty(), BENEATH) {
            Ok(inner) => inner,
            // Deeper than a path can say: a guest's trick, and not worth an error here.
            Err(Errno::NOENT | Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG | Errno::NOTDIR) => continue,
            Err(e) => return Err(e.into()),
        };
        for entry in rfs::Dir::read_from(&inner)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let stat = match rfs::statat(&inner, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::Directory {
                open.push([&path, b"/".as_slice(), name].concat());
            } else if stat.st_nlink > 1 && !counted.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            if tell(u64::try_from(stat.st_blocks).unwrap_or(0) * 512).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}
