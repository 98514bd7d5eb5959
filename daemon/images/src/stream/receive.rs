//! Doing what a stream of btrfs says, in the confined process: to one directory, by descriptor, following no link.
//!
//! Of an instance other servers send the subvolume above the root filesystem: `rootfs` in it is the tree's own root here,
//! and all that is beside `rootfs` or has no place yet lies in a directory of the tree that goes at the end. The subvolume
//! of a custom volume is the tree itself.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::fs::{self as rfs, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Command, Uuid, attribute, kind};
use crate::backup::{ShiftRun, shift};
use crate::error::{Error, Result};
use crate::message::{Limits, UnpackReport};
use crate::tarball::MAX_PATH;
use crate::tree::{Attributes, BENEATH, may_have, split};

/// The directory for what is beside the root filesystem.
const ASIDE: &[u8] = b".cabin-aside";

/// What the subvolume that is sent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    /// The tree in `rootfs`, and something beside it.
    InRootfs,
    /// The tree itself.
    Bare,
}

/// A subvolume that streams make.
pub(crate) struct Received {
    root: OwnedFd,
    form: Tree,
    ids: u32,
    limits: Limits,
    shift: Vec<ShiftRun>,
    /// What it was sent as.
    pub uuid: Uuid,
    /// Whether there is a `rootfs` yet.
    rooted: bool,
    /// Names of device nodes and sockets, which are not made.
    absent: BTreeSet<Vec<u8>>,
    /// The file written last.
    open: Option<(Vec<u8>, File)>,
    pub report: UnpackReport,
}

fn refused(path: &[u8], why: &'static str) -> Error {
    Error::Member { path: String::from_utf8_lossy(path).chars().take(300).collect(), why }
}

fn making(path: &[u8]) -> impl Fn(Errno) -> Error {
    let path: String = String::from_utf8_lossy(path).chars().take(300).collect();
    move |errno| match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => {
            Error::Member { path: path.clone(), why: "its path leads through a link or file" }
        }
        Errno::NOENT | Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY | Errno::INVAL => {
            Error::Member { path: path.clone(), why: "its stream does not fit what was there before" }
        }
        _ => Error::Make { path: path.clone(), source: errno.into() },
    }
}

impl Received {
    /// An empty subvolume.
    pub fn new(
        root: OwnedFd,
        form: Tree,
        (ids, limits): (u32, Limits),
        shift: Vec<ShiftRun>,
        uuid: Uuid,
    ) -> Result<Received> {
        if form == Tree::InRootfs {
            rfs::mkdirat(&root, OsStr::from_bytes(ASIDE), Mode::RWXU).map_err(making(ASIDE))?;
        }
        let (absent, open) = (BTreeSet::new(), None);
        let (report, rooted) = (UnpackReport::default(), form == Tree::Bare);
        Ok(Received { root, form, ids, limits, shift, uuid, rooted, absent, open, report })
    }

    /// A snapshot of `base`, which streams go on from.
    pub fn on(base: &Received, root: OwnedFd, shift: Vec<ShiftRun>, uuid: Uuid) -> Received {
        let (absent, report) = (base.absent.clone(), UnpackReport::default());
        let (form, ids, limits, rooted) = (base.form, base.ids, base.limits, base.rooted);
        Received { root, form, ids, limits, shift, uuid, rooted, absent, open: None, report }
    }

    /// Where a path of the stream lies in the tree; the root is empty.
    fn place(&self, path: &[u8]) -> Result<Vec<u8>> {
        let plain = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
        if path.len() > MAX_PATH || !(path.is_empty() || path.split(|byte| *byte == b'/').all(plain)) {
            return Err(refused(path, "it is no plain path"));
        }
        if self.form == Tree::Bare {
            return Ok(path.to_vec());
        }
        let inside = match path.strip_prefix(b"rootfs") {
            Some([]) => Some(&b""[..]),
            Some([b'/', rest @ ..]) => Some(rest),
            _ => None,
        };
        match inside {
            Some(rest) if self.rooted && rest.split(|byte| *byte == b'/').next() != Some(ASIDE) => {
                Ok(rest.to_vec())
            }
            Some(_) => Err(refused(path, "its stream has no root filesystem by then")),
            None if path.is_empty() => Ok(ASIDE.to_vec()),
            None => Ok([ASIDE, b"/", path].concat()),
        }
    }

    /// The directory a path lies in, and its last name. The root itself has none.
    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p OsStr)> {
        if path.is_empty() || path == ASIDE && self.is_beside(path) {
            return Err(refused(path, "the root cannot be moved, made or removed"));
        }
        let (above, name) = split(path);
        Ok((self.directory(above).map_err(making(path))?, name))
    }

    /// Whether a path leads to what lies beside the tree.
    fn is_beside(&self, path: &[u8]) -> bool {
        self.form == Tree::InRootfs && path.split(|byte| *byte == b'/').next() == Some(ASIDE)
    }

    fn directory(&self, path: &[u8]) -> std::result::Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rfs::openat2(&self.root, OsStr::from_bytes(path), flags, Mode::empty(), BENEATH)
    }

    /// Opens a file or directory; `None` for what cannot be opened, a link.
    fn file(&self, path: &[u8], access: OFlags) -> Result<Option<OwnedFd>> {
        let name = if path.is_empty() { b"." } else { path };
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rfs::openat2(&self.root, OsStr::from_bytes(name), flags, Mode::empty(), BENEATH) {
            Ok(fd) => Ok(Some(fd)),
            // A link above it is not the same as its being one.
            Err(Errno::LOOP) if self.is_symlink(path)? => Ok(None),
            Err(errno) => Err(making(path)(errno)),
        }
    }

    fn is_symlink(&self, path: &[u8]) -> Result<bool> {
        let (parent, name) = self.parent(path)?;
        let stat = rfs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(making(path))?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    }

    /// A regular file to be written or read.
    fn regular(&mut self, path: &[u8]) -> Result<&File> {
        if self.open.as_ref().is_none_or(|(known, _)| known != path) {
            self.open = None;
            let fd = self.file(path, OFlags::RDWR)?.ok_or_else(|| refused(path, "it is no file"))?;
            let stat = rfs::fstat(&fd).map_err(making(path))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(refused(path, "it is no file"));
            }
            self.open = Some((path.to_vec(), File::from(fd)));
        }
        match &self.open {
            Some((_, file)) => Ok(file),
            None => Err(refused(path, "it is no file")),
        }
    }

    /// Does one command. `sources` are the other subvolumes, from which content may be shared.
    pub fn apply(&mut self, command: &Command<'_>, sources: &[(usize, Received)]) -> Result<()> {
        let said = command.bytes(attribute::PATH)?;
        if command.kind == kind::RENAME {
            return self.rename(said, command.bytes(attribute::PATH_TO)?);
        }
        if command.kind == kind::MKDIR && said == b"rootfs" && !self.rooted {
            self.rooted = true;
            return Ok(());
        }
        let path = self.place(said)?;
        if self.absent.contains(&path) {
            if command.kind == kind::UNLINK {
                self.absent.remove(&path);
            }
            return Ok(());
        }
        match command.kind {
            kind::MKFILE
            | kind::MKDIR
            | kind::MKFIFO
            | kind::MKNOD
            | kind::MKSOCK
            | kind::SYMLINK
            | kind::LINK => self.make(command, &path),
            kind::UNLINK | kind::RMDIR => {
                self.open = None;
                let flags = if command.kind == kind::RMDIR { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                let (parent, name) = self.parent(&path)?;
                rfs::unlinkat(&parent, name, flags).map_err(making(&path))
            }
            kind::SET_XATTR | kind::REMOVE_XATTR => self.attribute(command, &path),
            kind::WRITE => {
                let (offset, data) = (command.number(attribute::OFFSET)?, command.bytes(attribute::DATA)?);
                self.report.bytes += data.len() as u64;
                let written = self.regular(&path)?.write_all_at(data, offset);
                written.map_err(|source| making(&path)(Errno::from_io_error(&source).unwrap_or(Errno::IO)))
            }
            kind::CLONE => self.share(command, &path, sources),
            kind::TRUNCATE => {
                let size = command.number(attribute::SIZE)?;
                rfs::ftruncate(self.regular(&path)?, size).map_err(making(&path))
            }
            kind::CHMOD | kind::CHOWN | kind::UTIMES => self.look(command, &path),
            _ => Err(refused(said, "its stream has a command that is not known")),
        }
    }

    fn make(&mut self, command: &Command<'_>, path: &[u8]) -> Result<()> {
        self.report.entries += 1;
        if self.report.entries > self.limits.entries {
            return Err(Error::TooMany { limit: self.limits.entries });
        }
        if matches!(command.kind, kind::MKNOD | kind::MKSOCK) {
            self.report.devices_skipped += 1;
            self.absent.insert(path.to_vec());
            return Ok(());
        }
        let (parent, name) = self.parent(path)?;
        match command.kind {
            kind::MKDIR => rfs::mkdirat(&parent, name, Mode::RWXU),
            kind::MKFIFO => rfs::mknodat(&parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0),
            kind::SYMLINK => {
                let target = command.bytes(attribute::PATH_LINK)?;
                if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
                    return Err(refused(path, "its target is no path"));
                }
                rfs::symlinkat(OsStr::from_bytes(target), &parent, name)
            }
            kind::LINK => {
                let source = self.place(command.bytes(attribute::PATH_LINK)?)?;
                if self.absent.contains(&source) {
                    self.absent.insert(path.to_vec());
                    return Ok(());
                }
                let (from, base) = self.parent(&source)?;
                rfs::linkat(&from, base, &parent, name, AtFlags::empty())
            }
            _ => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rfs::openat2(&parent, name, flags, Mode::RUSR | Mode::WUSR, BENEATH).map(drop)
            }
        }
        .map_err(making(path))
    }

    fn rename(&mut self, said: &[u8], to: &[u8]) -> Result<()> {
        self.open = None;
        let from = self.place(said)?;
        if to == b"rootfs" && !self.rooted {
            // A new directory that becomes the root filesystem: it is there already.
            let (parent, name) = self.parent(&from)?;
            rfs::unlinkat(&parent, name, AtFlags::REMOVEDIR).map_err(making(&from))?;
            self.rooted = true;
            return Ok(());
        }
        let to = self.place(to)?;
        if self.absent.remove(&from) {
            self.absent.insert(to);
            return Ok(());
        }
        let ((old, name), (new, other)) = (self.parent(&from)?, self.parent(&to)?);
        rfs::renameat(&old, name, &new, other).map_err(making(&from))?;
        let below = [from.as_slice(), b"/"].concat();
        let moved: Vec<Vec<u8>> = self.absent.iter().filter(|it| it.starts_with(&below)).cloned().collect();
        for path in moved {
            self.absent.insert([to.as_slice(), &path[from.len()..]].concat());
            self.absent.remove(&path);
        }
        Ok(())
    }

    fn attribute(&mut self, command: &Command<'_>, path: &[u8]) -> Result<()> {
        let name = command.bytes(attribute::XATTR_NAME)?;
        let Some(file) = self.file(path, OFlags::RDONLY)?.filter(|_| may_have(name)) else {
            self.report.xattrs_skipped += 1;
            return Ok(());
        };
        if command.kind == kind::REMOVE_XATTR {
            return match rfs::fremovexattr(&file, OsStr::from_bytes(name)) {
                Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
                Err(errno) => Err(making(path)(errno)),
            };
        }
        let xattr = (name.to_vec(), command.bytes(attribute::XATTR_DATA)?.to_vec());
        let mut attributes = Attributes { xattrs: vec![xattr], ..Attributes::default() };
        shift::take_back(&mut attributes, &self.shift);
        for (name, value) in &attributes.xattrs {
            match rfs::fsetxattr(&file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL | Errno::TOOBIG | Errno::RANGE) => {
                    self.report.xattrs_skipped += 1;
                }
                Err(errno) => return Err(making(path)(errno)),
            }
        }
        Ok(())
    }

    /// Mode, owner, times.
    fn look(&mut self, command: &Command<'_>, path: &[u8]) -> Result<()> {
        match command.kind {
            kind::CHMOD => {
                let mode = u32::try_from(command.number(attribute::MODE)? & 0o7777).unwrap_or(0);
                match self.file(path, OFlags::RDONLY)? {
                    Some(file) => rfs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(making(path)),
                    None => Ok(()),
                }
            }
            kind::CHOWN => {
                let id =
                    |which| -> Result<u32> { Ok(u32::try_from(command.number(which)?).unwrap_or(u32::MAX)) };
                let mut attributes = Attributes {
                    uid: id(attribute::UID)?,
                    gid: id(attribute::GID)?,
                    ..Attributes::default()
                };
                // What lies beside the tree goes away again.
                if self.is_beside(path) {
                    return Ok(());
                }
                shift::take_back(&mut attributes, &self.shift);
                if attributes.uid >= self.ids || attributes.gid >= self.ids {
                    return Err(refused(path, "its owner is beyond the ids an image may use"));
                }
                let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
                self.by_name(path, |dir, name| {
                    rfs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                })
            }
            _ => {
                let times = Timestamps {
                    last_access: time(command.bytes(attribute::ATIME)?)?,
                    last_modification: time(command.bytes(attribute::MTIME)?)?,
                };
                self.by_name(path, |dir, name| rfs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW))
            }
        }
    }

    fn by_name(&self, path: &[u8], act: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<()>) -> Result<()> {
        let done = match path.is_empty() {
            true => act(&self.root, OsStr::from_bytes(b".")),
            false if path == ASIDE && self.is_beside(path) => return Ok(()),
            false => {
                let (parent, name) = self.parent(path)?;
                act(&parent, name)
            }
        };
        done.map_err(making(path))
    }

    /// Gives a part of a file the content of a part of another one, by sharing it where the filesystem can.
    fn share(&mut self, command: &Command<'_>, path: &[u8], sources: &[(usize, Received)]) -> Result<()> {
        let uuid = command.uuid(attribute::CLONE_UUID)?;
        let of = command.bytes(attribute::CLONE_PATH)?;
        let (mut to, length) = (command.number(attribute::OFFSET)?, command.number(attribute::CLONE_LENGTH)?);
        let mut from = command.number(attribute::CLONE_OFFSET)?;
        let base = match uuid == self.uuid {
            true => &*self,
            false => sources
                .iter()
                .map(|(_, it)| it)
                .find(|it| it.uuid == uuid)
                .ok_or_else(|| refused(of, "it is a part of a subvolume that was not sent"))?,
        };
        let place = base.place(of)?;
        let source = base.file(&place, OFlags::RDONLY)?.map(File::from);
        let source = source.ok_or_else(|| refused(of, "it is no file"))?;
        let target = self.regular(path)?;
        let failed = |source: io::Error| making(path)(Errno::from_io_error(&source).unwrap_or(Errno::IO));
        if cabin_sys::btrfs::stream::share_range(&source, from, length, target, to).is_ok() {
            return Ok(());
        }
        let end = from.checked_add(length).ok_or_else(|| refused(of, "it has no such part"))?;
        let mut buffer = vec![0u8; 64 * 1024];
        while from < end {
            let most = usize::try_from(end - from).unwrap_or(usize::MAX).min(buffer.len());
            let got = source.read_at(&mut buffer[..most], from).map_err(failed)?;
            if got == 0 {
                return Err(refused(of, "it has no such part"));
            }
            target.write_all_at(&buffer[..got], to).map_err(failed)?;
            (from, to) = (from + got as u64, to + got as u64);
        }
        Ok(())
    }

    /// What lies beside the root filesystem by this name, if it is a plain file; at most so many bytes of it.
    pub fn beside(&self, name: &str, limit: u64, why: &'static str) -> Result<Option<Vec<u8>>> {
        let path = [ASIDE, b"/", name.as_bytes()].concat();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rfs::openat2(&self.root, OsStr::from_bytes(&path), flags, Mode::empty(), BENEATH) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(making(&path)(errno)),
        };
        let stat = rfs::fstat(&file).map_err(making(&path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refused(name.as_bytes(), "it must be a plain file"));
        }
        let mut content = Vec::new();
        file.take(limit + 1).read_to_end(&mut content).map_err(Error::reading)?;
        if content.len() as u64 > limit {
            return Err(Error::Archive { why });
        }
        Ok(Some(content))
    }

    /// The names in a directory beside the root filesystem.
    pub fn names_beside(&self, directory: &str) -> Result<Vec<Vec<u8>>> {
        let path = [ASIDE, b"/", directory.as_bytes()].concat();
        match self.directory(&path) {
            Ok(dir) => Ok(entries(dir)?.into_iter().map(|(name, _)| name).collect()),
            Err(Errno::NOENT) => Ok(Vec::new()),
            Err(errno) => Err(making(&path)(errno)),
        }
    }

    /// The streams are through: takes away what is no part of the tree.
    pub fn finish(mut self) -> Result<UnpackReport> {
        self.open = None;
        if !self.rooted {
            return Err(Error::Archive { why: "a root filesystem that the index names is not in it" });
        }
        let before = rfs::fstat(&self.root).map_err(making(b""))?;
        // Bounded by what is there: each round removes what has nothing in it.
        let mut open = if self.form == Tree::InRootfs { vec![ASIDE.to_vec()] } else { Vec::new() };
        while let Some(path) = open.last().cloned() {
            let dir = self.directory(&path).map_err(making(&path))?;
            let mut deeper = None;
            for (name, is_directory) in entries(self.directory(&path).map_err(making(&path))?)? {
                if is_directory {
                    deeper = Some([path.as_slice(), b"/", &name].concat());
                    break;
                }
                rfs::unlinkat(&dir, OsStr::from_bytes(&name), AtFlags::empty()).map_err(making(&name))?;
            }
            match deeper {
                Some(deeper) => open.push(deeper),
                None => {
                    open.pop();
                    let (above, name) = split(&path);
                    let above = self.directory(above).map_err(making(&path))?;
                    rfs::unlinkat(&above, name, AtFlags::REMOVEDIR).map_err(making(&path))?;
                }
            }
        }
        let at = |tv_sec, nanoseconds| Timespec { tv_sec, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
        let times = Timestamps {
            last_access: at(before.st_atime, before.st_atime_nsec),
            last_modification: at(before.st_mtime, before.st_mtime_nsec),
        };
        rfs::futimens(self.root.as_fd(), &times).map_err(making(b""))?;
        Ok(self.report)
    }
}

/// The names in a directory, and whether each is one itself.
fn entries(dir: OwnedFd) -> Result<Vec<(Vec<u8>, bool)>> {
    let mut found = Vec::new();
    for entry in rfs::Dir::new(dir).map_err(making(b""))? {
        let entry = entry.map_err(making(b""))?;
        let name = entry.file_name().to_bytes().to_vec();
        // btrfs tells the kind of each.
        if name != b"." && name != b".." {
            found.push((name, entry.file_type() == FileType::Directory));
        }
    }
    Ok(found)
}

/// Seconds since 1970 and nanoseconds.
fn time(bytes: &[u8]) -> Result<Timespec> {
    let bad = Error::Archive { why: "a time in its stream is none" };
    match bytes.split_first_chunk::<8>() {
        Some((seconds, rest)) if rest.len() == 4 => {
            let nanoseconds = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
            if nanoseconds >= 1_000_000_000 {
                return Err(bad);
            }
            Ok(Timespec { tv_sec: i64::from_le_bytes(*seconds), tv_nsec: nanoseconds.into() })
        }
        _ => Err(bad),
    }
}
