//! Making the files of a hostile image beneath one directory.
//!
//! Every name is made by descriptor: the parent is opened with openat2(2) beneath the root, following no
//! link, and the last component is made fresh in it. What is in the way is unlinked, never followed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::fs::{
    self as rfs, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::message::{Limits, UnpackReport};

/// What a file has besides its content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A run of data in a file; what no run covers is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub offset: u64,
    pub length: u64,
}

pub(crate) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A directory being filled. Paths are relative, cut into plain components (`a/b`); empty is the root itself.
pub(crate) struct Tree {
    root: OwnedFd,
    /// The directory opened last: most members lie in the same one as the member before.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, set at the end: filling one changes them.
    times: HashMap<Vec<u8>, (i64, u32)>,
    /// How many ids there are to own files.
    ids: u32,
    limits: Limits,
    pub report: UnpackReport,
}

impl Tree {
    pub fn new(root: OwnedFd, ids: u32, limits: Limits) -> Tree {
        Tree { root, parent: None, times: HashMap::new(), ids, limits, report: UnpackReport::default() }
    }

    /// Makes a directory, or gives one that is there these attributes.
    pub fn directory(&mut self, path: &[u8], attributes: &Attributes) -> Result<()> {
        self.count(path)?;
        let fd = if path.is_empty() { self.open_dir(path) } else { self.make_dir(path) };
        let fd = fd.map_err(making(path))?;
        self.finish_file(&fd, path, attributes)?;
        self.times.insert(path.to_vec(), attributes.mtime);
        Ok(())
    }

    /// Makes an empty file of this size, to be written at any place and closed with [`Tree::close`].
    pub fn file(&mut self, path: &[u8], size: u64) -> Result<File> {
        self.count(path)?;
        if size > self.limits.expanded {
            return Err(Error::TooLarge { limit: self.limits.expanded });
        }
        self.clear(path)?;
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rfs::openat2(parent, name, flags, Mode::from_raw_mode(0o600), BENEATH)
            .map_err(|e| making(path)(e.into()))?;
        if size > 0 {
            rfs::ftruncate(&fd, size).map_err(|e| making(path)(e.into()))?;
        }
        Ok(File::from(fd))
    }

    /// Writes into a file of [`Tree::file`].
    pub fn write(&mut self, file: &File, path: &[u8], offset: u64, bytes: &[u8]) -> Result<()> {
        self.report.bytes += bytes.len() as u64;
        file.write_all_at(bytes, offset).map_err(making(path))
    }

    /// Gives a written file its attributes.
    pub fn close(&mut self, file: &File, path: &[u8], attributes: &Attributes) -> Result<()> {
        self.finish_file(file, path, attributes)?;
        rfs::futimens(file, &timestamps(attributes.mtime)).map_err(|e| making(path)(e.into()))
    }

    /// Makes a symbolic link. Where it leads does not matter: nothing here follows it.
    pub fn symlink(&mut self, path: &[u8], target: &[u8], attributes: &Attributes) -> Result<()> {
        self.count(path)?;
        if target.is_empty() || target.len() > crate::tarball::MAX_PATH || target.contains(&0) {
            return Err(refused(path, "its target is no path"));
        }
        self.clear(path)?;
        let (parent, name) = self.parent(path)?;
        rfs::symlinkat(OsStr::from_bytes(target), parent, name).map_err(|e| making(path)(e.into()))?;
        self.finish_name(path, attributes)
    }

    /// Makes a pipe.
    pub fn fifo(&mut self, path: &[u8], attributes: &Attributes) -> Result<()> {
        self.count(path)?;
        self.clear(path)?;
        let (parent, name) = self.parent(path)?;
        // The name is new and ours, so a mode by name cannot reach another file; the umask is 0 here.
        rfs::mknodat(parent, name, FileType::Fifo, Mode::from_raw_mode(attributes.mode & 0o777), 0)
            .map_err(|e| making(path)(e.into()))?;
        self.finish_name(path, attributes)
    }

    /// Gives a file of this tree a second name.
    pub fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        self.count(path)?;
        if path == target {
            return Err(refused(path, "it is a link to itself"));
        }
        let (dir, base) = split(target);
        let missing = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => refused(path, "it is a hard link to what is not there"),
            _ => making(target)(e),
        };
        let source = self.open_dir(dir).map_err(missing)?;
        let kind = rfs::statat(&source, base, AtFlags::SYMLINK_NOFOLLOW)
            .map(|stat| FileType::from_raw_mode(stat.st_mode))
            .map_err(|e| missing(e.into()))?;
        if kind == FileType::Directory {
            return Err(refused(path, "it is a hard link to a directory"));
        }
        self.clear(path)?;
        let (parent, name) = self.parent(path)?;
        rfs::linkat(&source, base, parent, name, AtFlags::empty()).map_err(|e| making(path)(e.into()))
    }

    /// Gives directories their times, now that nothing changes in them any more.
    pub fn finish(mut self) -> Result<UnpackReport> {
        for (path, mtime) in std::mem::take(&mut self.times) {
            let fd = self.open_dir(&path).map_err(making(&path))?;
            rfs::futimens(fd, &timestamps(mtime)).map_err(|e| making(&path)(e.into()))?;
        }
        Ok(self.report)
    }

    fn count(&mut self, path: &[u8]) -> Result<()> {
        self.report.entries += 1;
        if self.report.entries > self.limits.entries {
            return Err(Error::TooMany { limit: self.limits.entries });
        }
        if path.len() > crate::tarball::MAX_PATH {
            return Err(refused(path, "its path is too long"));
        }
        Ok(())
    }

    fn open_dir(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rfs::openat2(&self.root, OsStr::from_bytes(path), flags, Mode::empty(), BENEATH)?)
    }

    /// Opens a directory, making those that are missing on the way.
    fn make_dir(&self, path: &[u8]) -> io::Result<OwnedFd> {
        match self.open_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            // A link or file in the way of a directory of the same name is replaced, not followed.
            Err(e) if is_not_a_directory(&e) => {
                let (dir, name) = split(path);
                rfs::unlinkat(self.parents(dir)?, name, AtFlags::empty())?;
            }
            other => return other,
        }
        let (dir, name) = split(path);
        rfs::mkdirat(self.parents(dir)?, name, Mode::from_raw_mode(0o755))?;
        self.open_dir(path)
    }

    /// The same for the directories above a member; here something else in the way is an error.
    fn parents(&self, path: &[u8]) -> io::Result<OwnedFd> {
        match self.open_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        // From the top, so that depth costs no stack.
        let mut dir = self.open_dir(b"")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for name in path.split(|byte| *byte == b'/').map(OsStr::from_bytes) {
            match rfs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            dir = rfs::openat2(&dir, name, flags, Mode::empty(), BENEATH)?;
        }
        Ok(dir)
    }

    /// The open directory a member lies in, and its last name.
    fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(&OwnedFd, &'p OsStr)> {
        let (dir, name) = split(path);
        if self.parent.as_ref().is_none_or(|(known, _)| known != dir) {
            let fd = self.parents(dir).map_err(making(path))?;
            self.parent = None;
            self.parent = Some((dir.to_vec(), fd));
        }
        match &self.parent {
            Some((_, fd)) => Ok((fd, name)),
            None => Err(refused(path, "it has no directory")),
        }
    }

    /// Takes away what has the name of a new member, unless it is a directory.
    fn clear(&mut self, path: &[u8]) -> Result<()> {
        if path.is_empty() {
            return Err(refused(path, "the root must be a directory"));
        }
        let (parent, name) = self.parent(path)?;
        match rfs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => Err(refused(path, "it would replace a directory")),
            Err(e) => Err(making(path)(e.into())),
        }
    }

    fn owner(&self, path: &[u8], attributes: &Attributes) -> Result<(Uid, Gid)> {
        if attributes.uid >= self.ids || attributes.gid >= self.ids {
            return Err(refused(path, "its owner is beyond the ids an image may use"));
        }
        Ok((Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid)))
    }

    /// Owner, then attributes, then mode: a change of owner takes capabilities and setuid away.
    fn finish_file(&mut self, fd: impl AsFd, path: &[u8], attributes: &Attributes) -> Result<()> {
        let (uid, gid) = self.owner(path, attributes)?;
        rfs::fchown(&fd, Some(uid), Some(gid)).map_err(|e| making(path)(e.into()))?;
        for (name, value) in &attributes.xattrs {
            if !may_have(name) {
                self.report.xattrs_skipped += 1;
                continue;
            }
            match rfs::fsetxattr(&fd, OsStr::from_bytes(name), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL | Errno::TOOBIG | Errno::RANGE) => {
                    self.report.xattrs_skipped += 1;
                }
                Err(e) => return Err(making(path)(e.into())),
            }
        }
        rfs::fchmod(&fd, Mode::from_raw_mode(attributes.mode & 0o7777)).map_err(|e| making(path)(e.into()))
    }

    /// For what cannot be opened without following or waiting.
    fn finish_name(&mut self, path: &[u8], attributes: &Attributes) -> Result<()> {
        let (uid, gid) = self.owner(path, attributes)?;
        self.report.xattrs_skipped += attributes.xattrs.len() as u64;
        let (parent, name) = self.parent(path)?;
        rfs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .and_then(|()| {
                rfs::utimensat(parent, name, &timestamps(attributes.mtime), AtFlags::SYMLINK_NOFOLLOW)
            })
            .map_err(|e| making(path)(e.into()))
    }
}

/// Attributes an image has a say in. `trusted.*` steers overlays, the rest of `security.*` the host's own
/// security modules; `user.overlay.*` steers overlays mounted inside containers.
pub(crate) fn may_have(name: &[u8]) -> bool {
    name == b"security.capability"
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.contains(&0))
}

fn is_not_a_directory(e: &io::Error) -> bool {
    matches!(Errno::from_io_error(e), Some(Errno::NOTDIR | Errno::LOOP))
}

pub(crate) fn split(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], OsStr::from_bytes(&path[at + 1..])),
        None => (b"", OsStr::from_bytes(path)),
    }
}

fn timestamps((tv_sec, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(300).collect()
}

fn making(path: &[u8]) -> impl FnOnce(io::Error) -> Error {
    let path = shown(path);
    move |source| match Errno::from_io_error(&source) {
        Some(Errno::LOOP | Errno::NOTDIR) => {
            Error::Member { path, why: "its path leads through a link or file" }
        }
        Some(Errno::XDEV) => Error::Member { path, why: "its path leads outside" },
        Some(Errno::NAMETOOLONG) => Error::Member { path, why: "a name in its path is too long" },
        _ => Error::Make { path, source },
    }
}

fn refused(path: &[u8], why: &'static str) -> Error {
    Error::Member { path: shown(path), why }
}
