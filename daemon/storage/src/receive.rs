//! Doing what a stream of the kernel says to a subvolume of another filesystem: by descriptor, following no link.
//!
//! The stream is of a subvolume of this host, so all that it says is made, as copying makes it: owners, devices,
//! attributes of whatever kind. Names, and what is behind them, are a guest's own.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use cabin_sys::btrfs::stream::commands::{Command, Uuid, attribute, kind};
use cabin_sys::btrfs::stream::share_range;
use cabin_sys::dir::HostDir;
use rustix::fs::{self as rfs, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::kernel_stream::{Stream, broken};
use crate::stack::BENEATH;

/// How much is read at once of what cannot be shared.
const BUFFER: usize = 256 * 1024;

/// A subvolume that a stream is done to.
struct Receiver<'a> {
    root: &'a HostDir,
    /// What it is a snapshot of.
    base: Option<&'a HostDir>,
    /// What the stream calls the subvolume that it is of.
    uuid: Uuid,
    /// The file written last.
    open: Option<(Vec<u8>, File)>,
}

/// Does all that a stream says to the subvolume with this root, which is empty, or like the subvolume `base` that is like
/// the one that the stream goes on from. `progress` hears how many bytes of content came.
///
/// # Errors
/// When something cannot be made.
pub(crate) fn receive(
    stream: &mut Stream,
    root: &HostDir,
    base: Option<&HostDir>,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let first = stream.next().map_err(broken)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let uuid = first.uuid(attribute::UUID).map_err(broken)?;
    let mut receiver = Receiver { root, base, uuid, open: None };
    while let Some(command) = stream.next().map_err(broken)? {
        receiver.apply(&command)?;
        if command.kind == kind::WRITE {
            progress(command.bytes(attribute::DATA).map_err(broken)?.len() as u64);
        }
    }
    Ok(())
}

fn bytes<'a>(command: &Command<'a>, which: u16) -> io::Result<&'a [u8]> {
    command.bytes(which).map_err(broken)
}

fn number(command: &Command<'_>, which: u16) -> io::Result<u64> {
    command.number(which).map_err(broken)
}

/// An id or mode.
fn word(command: &Command<'_>, which: u16) -> io::Result<u32> {
    u32::try_from(number(command, which)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn opened(root: &HostDir, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rfs::openat2(root, OsStr::from_bytes(path), flags, Mode::empty(), BENEATH)?)
}

/// Opens a regular file, and nothing else: opening a device would do something.
fn regular(root: &HostDir, path: &[u8], access: OFlags) -> io::Result<File> {
    let found = rfs::fstat(opened(root, path, OFlags::PATH)?)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(File::from(opened(root, path, access | OFlags::NONBLOCK)?))
}

/// The directory that a path lies in, and its last name; the root lies in itself.
fn parent<'p>(root: &HostDir, path: &'p [u8]) -> io::Result<(OwnedFd, &'p OsStr)> {
    let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b""[..], if path.is_empty() { &b"."[..] } else { path }),
    };
    Ok((opened(root, above, OFlags::RDONLY | OFlags::DIRECTORY)?, OsStr::from_bytes(name)))
}

/// A name of an open file that calls can be made by which take none.
fn by_descriptor(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Seconds since 1970 and nanoseconds.
fn time(command: &Command<'_>, which: u16) -> io::Result<Timespec> {
    let said = bytes(command, which)?;
    let parts = said.split_first_chunk::<8>().map(|(seconds, rest)| (*seconds, <[u8; 4]>::try_from(rest)));
    match parts {
        Some((seconds, Ok(rest))) => {
            Ok(Timespec { tv_sec: i64::from_le_bytes(seconds), tv_nsec: u32::from_le_bytes(rest).into() })
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Receiver<'_> {
    fn apply(&mut self, command: &Command<'_>) -> io::Result<()> {
        let path = bytes(command, attribute::PATH)?;
        match command.kind {
            kind::WRITE => {
                let at = number(command, attribute::OFFSET)?;
                self.writable(path)?.write_all_at(bytes(command, attribute::DATA)?, at)
            }
            kind::CLONE => self.share(command, path),
            kind::TRUNCATE => Ok(rfs::ftruncate(self.writable(path)?, number(command, attribute::SIZE)?)?),
            kind::CHMOD | kind::CHOWN | kind::UTIMES | kind::SET_XATTR | kind::REMOVE_XATTR => {
                self.look(command, path)
            }
            _ => {
                // What was open may have another name now.
                self.open = None;
                self.name(command, path)
            }
        }
    }

    fn writable(&mut self, path: &[u8]) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(known, _)| known != path) {
            self.open = Some((path.to_vec(), regular(self.root, path, OFlags::RDWR)?));
        }
        self.open.as_ref().map(|(_, file)| file).ok_or(io::ErrorKind::NotFound.into())
    }

    /// Makes, moves and removes names.
    fn name(&self, command: &Command<'_>, path: &[u8]) -> io::Result<()> {
        let (dir, name) = parent(self.root, path)?;
        match command.kind {
            kind::MKDIR => rfs::mkdirat(&dir, name, Mode::RWXU)?,
            kind::MKFILE => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                drop(rfs::openat2(&dir, name, flags, Mode::RUSR | Mode::WUSR, BENEATH)?);
            }
            kind::MKNOD | kind::MKFIFO | kind::MKSOCK => {
                let mode = word(command, attribute::MODE)?;
                let rights = Mode::from_raw_mode(mode & 0o7777);
                let device = number(command, attribute::RDEV)?;
                rfs::mknodat(&dir, name, FileType::from_raw_mode(mode), rights, device)?;
            }
            kind::SYMLINK => {
                rfs::symlinkat(OsStr::from_bytes(bytes(command, attribute::PATH_LINK)?), &dir, name)?;
            }
            kind::LINK => {
                let (from, base) = parent(self.root, bytes(command, attribute::PATH_LINK)?)?;
                rfs::linkat(&from, base, &dir, name, AtFlags::empty())?;
            }
            kind::RENAME => {
                let (to, new) = parent(self.root, bytes(command, attribute::PATH_TO)?)?;
                rfs::renameat(&dir, name, &to, new)?;
            }
            kind::UNLINK => rfs::unlinkat(&dir, name, AtFlags::empty())?,
            kind::RMDIR => rfs::unlinkat(&dir, name, AtFlags::REMOVEDIR)?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(())
    }

    /// Mode, owner, times, attributes.
    fn look(&self, command: &Command<'_>, path: &[u8]) -> io::Result<()> {
        match command.kind {
            kind::CHOWN => {
                let (dir, name) = parent(self.root, path)?;
                let user = Uid::from_raw(word(command, attribute::UID)?);
                let group = Gid::from_raw(word(command, attribute::GID)?);
                return Ok(rfs::chownat(&dir, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?);
            }
            kind::UTIMES => {
                let (dir, name) = parent(self.root, path)?;
                let times = Timestamps {
                    last_access: time(command, attribute::ATIME)?,
                    last_modification: time(command, attribute::MTIME)?,
                };
                return Ok(rfs::utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?);
            }
            _ => {}
        }
        let file = opened(self.root, path, OFlags::PATH)?;
        let file = by_descriptor(&file);
        if command.kind == kind::CHMOD {
            let mode = Mode::from_raw_mode(word(command, attribute::MODE)? & 0o7777);
            return Ok(rfs::chmod(file, mode)?);
        }
        let name = bytes(command, attribute::XATTR_NAME)?;
        let done = match command.kind {
            kind::SET_XATTR => {
                let value = bytes(command, attribute::XATTR_DATA)?;
                rfs::setxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty())
            }
            _ => rfs::removexattr(file, OsStr::from_bytes(name)),
        };
        match done {
            // Taken away with what the kernel drops at a change of owner.
            Err(Errno::NODATA) if command.kind == kind::REMOVE_XATTR => Ok(()),
            // A security module's own label: this filesystem's module sets its own.
            Err(Errno::NOTSUP) if name.starts_with(b"security.") => Ok(()),
            other => Ok(other?),
        }
    }

    /// Gives a part of a file the content of a part of another one, by sharing it where that can be.
    fn share(&mut self, command: &Command<'_>, path: &[u8]) -> io::Result<()> {
        let of = bytes(command, attribute::CLONE_PATH)?;
        let length = number(command, attribute::CLONE_LENGTH)?;
        let (mut from, mut to) =
            (number(command, attribute::CLONE_OFFSET)?, number(command, attribute::OFFSET)?);
        let own = command.uuid(attribute::CLONE_UUID).map_err(broken)? == self.uuid;
        let root = if own { self.root } else { self.base.ok_or(io::ErrorKind::InvalidData)? };
        let source = regular(root, of, OFlags::RDONLY)?;
        let target = self.writable(path)?;
        if share_range(&source, from, length, target, to).is_ok() {
            return Ok(());
        }
        let end = from.checked_add(length).ok_or(io::ErrorKind::InvalidData)?;
        let mut buffer = vec![0u8; BUFFER];
        while from < end {
            let most = usize::try_from(end - from).unwrap_or(BUFFER).min(BUFFER);
            source.read_exact_at(&mut buffer[..most], from)?;
            target.write_all_at(&buffer[..most], to)?;
            (from, to) = (from + most as u64, to + most as u64);
        }
        Ok(())
    }
}
