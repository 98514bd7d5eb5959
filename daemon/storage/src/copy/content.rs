//! One file: its content by reflink where the filesystem can, or its runs of data; devices, links and the like.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self as rfs, AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Uid};
use rustix::io::Errno;

use crate::attributes::times;

use super::place::BENEATH;

/// How much is read at once where the kernel does not copy by itself.
const BUFFER: usize = 256 * 1024;

/// Copies the content of a file. `reflinks` says whether the filesystem can share blocks, as far as is known.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd, size: u64, reflinks: &AtomicBool) -> io::Result<()> {
    if reflinks.load(Ordering::Relaxed) {
        match rfs::ioctl_ficlone(to, from) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => {
                reflinks.store(false, Ordering::Relaxed);
            }
            Err(e) => return Err(e.into()),
        }
    }
    rfs::ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let start = match rfs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let end = rfs::seek(from, SeekFrom::Hole(start))?.min(size);
        run(from, to, start, end)?;
        at = end.max(at + 1);
    }
    Ok(())
}

/// Copies one run of data inside the kernel; between filesystems that it does not do it for, through here.
fn run(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> io::Result<()> {
    let (mut source, mut target) = (start, start);
    while source < end {
        let left = usize::try_from(end - source).unwrap_or(usize::MAX).min(1 << 30);
        // The kernel moves both positions on.
        let copied = rustix::io::retry_on_intr(|| {
            rfs::copy_file_range(from, Some(&mut source), to, Some(&mut target), left)
        });
        match copied {
            // It was cut shorter meanwhile; the rest stays a hole.
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                return through(from, to, source, end);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Copies one run of data by reading and writing it.
fn through(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0u8; BUFFER];
    let mut at = start;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
        let read = rustix::io::retry_on_intr(|| rustix::io::pread(from, &mut buffer[..most], at))?;
        if read == 0 {
            break;
        }
        let mut written = 0;
        while written < read {
            let place = at + written as u64;
            written += rustix::io::retry_on_intr(|| rustix::io::pwrite(to, &buffer[written..read], place))?;
        }
        at += read as u64;
    }
    Ok(())
}

/// Opens a regular file to be copied.
pub(super) fn open(dir: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rfs::openat2(dir, name, flags, Mode::empty(), BENEATH)?)
}

/// Makes an empty regular file, or the whole of anything else that is not a directory.
pub(super) fn make(to: &OwnedFd, name: &CStr, from: &OwnedFd, stat: &Stat) -> io::Result<Option<OwnedFd>> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return Ok(Some(rfs::openat2(to, name, flags, Mode::from_raw_mode(0o600), BENEATH)?));
        }
        FileType::Symlink => {
            let target = match rfs::readlinkat(from, name, Vec::new()) {
                // It is no link any more.
                Err(Errno::INVAL) => return Err(Errno::STALE.into()),
                other => other?,
            };
            rfs::symlinkat(target.as_c_str(), to, name)?;
        }
        kind => {
            rfs::mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
            // The name is new and nobody else's, so this reaches what was just made; the umask cut the mode.
            rfs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
        }
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rfs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rfs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(None)
}
