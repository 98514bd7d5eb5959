//! Owner, mode, times and extended attributes, carried from one open file to another.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self as rfs, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// What a tree is, when it is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Files that stand for themselves.
    Whole,
    /// The writable layer of an overlay: some of its attributes speak about the layers below it, which the
    /// copy will have too.
    Upper,
}

/// Gives `to` what `from` has: owner, extended attributes (ACLs and file capabilities are among them), mode.
/// A change of owner takes capabilities and setuid away, so it comes first. Times are not set.
pub(crate) fn carry(from: impl AsFd, to: impl AsFd, stat: &Stat, role: Role) -> io::Result<()> {
    rfs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    carry_xattrs(from, &to, role)?;
    rfs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(())
}

/// Access and modification time of a file.
pub(crate) fn times(stat: &Stat) -> Timestamps {
    let time =
        |tv_sec, nanoseconds: u64| Timespec { tv_sec, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Takes the extended attributes of `to` away that `from` does not have.
pub(crate) fn strip(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let list = |file: &dyn AsFd| -> io::Result<Vec<u8>> {
        let length = match rfs::flistxattr_query(file.as_fd()) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = vec![0u8; length + 1024];
        let length = rfs::flistxattr(file.as_fd(), names.as_mut_slice())?;
        names.truncate(length);
        Ok(names)
    };
    let wanted = list(&from)?;
    for name in list(&to)?.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if wanted.split(|b| *b == 0).any(|wanted| wanted == name) {
            continue;
        }
        match rfs::fremovexattr(&to, OsStr::from_bytes(name)) {
            Ok(()) | Err(Errno::NODATA) => {}
            // A security module's own label is not ours to take.
            Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS) if name.starts_with(b"security.") => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn carry_xattrs(from: impl AsFd, to: impl AsFd, role: Role) -> io::Result<()> {
    let length = match rfs::flistxattr_query(&from) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
        other => other?,
    };
    let mut names = vec![0u8; length + 1024];
    let length = rfs::flistxattr(&from, names.as_mut_slice())?;
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        // These steer an overlay; a copied one would be taken for a statement about another lower layer.
        if role == Role::Whole && name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let name = OsStr::from_bytes(name);
        let mut value = vec![0u8; 65536];
        let length = match rfs::fgetxattr(&from, name, value.as_mut_slice()) {
            Err(Errno::NODATA) => continue,
            other => other?,
        };
        match rfs::fsetxattr(&to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) => {}
            // A security module's own label: the target's module sets its own.
            Err(Errno::NOTSUP) if name.as_bytes().starts_with(b"security.") => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
