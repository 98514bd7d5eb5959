//! Attributes of files, between the system's and SFTP's form.

use std::os::fd::BorrowedFd;

use russh_sftp::protocol::{File, FileAttributes};
use rustix::fs::{self as rfs, AtFlags, CWD, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

/// The bits of a mode that can be set.
const MODE: u32 = 0o7777;

/// What SFTP says of a file.
pub fn of(stat: &Stat) -> FileAttributes {
    // Version 3 has 32 bits of seconds. Times beyond are shown at the end of what it can say.
    let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
    FileAttributes {
        size: Some(stat.st_size.cast_unsigned()),
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
        permissions: Some(stat.st_mode),
        atime: Some(seconds(stat.st_atime)),
        mtime: Some(seconds(stat.st_mtime)),
        ..FileAttributes::default()
    }
}

/// A name in a listing, with the line `ls -l` would show.
pub fn entry(name: &str, attributes: FileAttributes) -> File {
    let mut file = File::new(name, attributes);
    // The crate's line tells directories from files and nothing else.
    if file.attrs.is_symlink() {
        file.longname.replace_range(..1, "l");
    }
    file
}

/// The mode a new file or directory is to have.
pub fn mode(attributes: &FileAttributes, otherwise: u32) -> Mode {
    Mode::from_raw_mode(attributes.permissions.unwrap_or(otherwise) & MODE)
}

/// What attributes are set on.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A path; a link at its end is followed.
    Path(&'a str),
    /// A path; a link at its end is meant itself.
    Link(&'a str),
    /// An open file.
    File(BorrowedFd<'a>),
}

/// Sets what is given. The owner comes before the mode, because a change of owner takes setuid bits away.
pub fn set(target: Target<'_>, attributes: &FileAttributes) -> Result<(), Errno> {
    if let Some(size) = attributes.size {
        resize(target, size)?;
    }
    if attributes.uid.is_some() || attributes.gid.is_some() {
        let (uid, gid) = (attributes.uid.map(Uid::from_raw), attributes.gid.map(Gid::from_raw));
        match target {
            Target::Path(path) => rfs::chownat(CWD, path, uid, gid, AtFlags::empty())?,
            Target::Link(path) => rfs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?,
            Target::File(file) => rfs::fchown(file, uid, gid)?,
        }
    }
    if let Some(mode) = attributes.permissions {
        let mode = Mode::from_raw_mode(mode & MODE);
        match target {
            Target::Path(path) => rfs::chmodat(CWD, path, mode, AtFlags::empty())?,
            Target::Link(path) => rfs::chmodat(CWD, path, mode, AtFlags::SYMLINK_NOFOLLOW)?,
            Target::File(file) => rfs::fchmod(file, mode)?,
        }
    }
    if attributes.atime.is_some() || attributes.mtime.is_some() {
        let time = |seconds: Option<u32>| Timespec {
            tv_sec: seconds.map_or(0, i64::from),
            tv_nsec: if seconds.is_some() { 0 } else { rfs::UTIME_OMIT },
        };
        let times =
            Timestamps { last_access: time(attributes.atime), last_modification: time(attributes.mtime) };
        match target {
            Target::Path(path) => rfs::utimensat(CWD, path, &times, AtFlags::empty())?,
            Target::Link(path) => rfs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?,
            Target::File(file) => rfs::futimens(file, &times)?,
        }
    }
    Ok(())
}

fn resize(target: Target<'_>, size: u64) -> Result<(), Errno> {
    match target {
        // Nothing that is a link has a size that can be set.
        Target::Link(_) => Err(Errno::INVAL),
        Target::File(file) => rfs::ftruncate(file, size),
        Target::Path(path) => {
            let flags =
                rfs::OFlags::WRONLY | rfs::OFlags::CLOEXEC | rfs::OFlags::NONBLOCK | rfs::OFlags::NOCTTY;
            rfs::ftruncate(rfs::open(path, flags, Mode::empty())?, size)
        }
    }
}
