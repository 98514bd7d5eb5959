//! A hidden directory in the root of a copy while it is made: another name for each file that has several, by
//! which the others are linked to it, and what an earlier pass copied and is not wanted any more.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use cabin_sys::dir::HostDir;
use rustix::fs::{self as rfs, AtFlags, Mode};
use rustix::io::Errno;

use super::Inode;
use super::place::open_dir;

impl Inode {
    fn name(self) -> String {
        format!("{}-{}", self.device, self.number)
    }
}

#[derive(Debug)]
pub(super) struct Aside {
    root: OwnedFd,
    name: String,
    dir: OnceLock<OwnedFd>,
    discarded: AtomicU64,
}

impl Aside {
    /// Nothing is made until it is needed.
    pub(super) fn new(root: BorrowedFd<'_>) -> io::Result<Aside> {
        Ok(Aside {
            root: root.try_clone_to_owned()?,
            name: format!(".copying-{}", uuid::Uuid::new_v4()),
            dir: OnceLock::new(),
            discarded: AtomicU64::new(0),
        })
    }

    /// Whether this is its name.
    pub(super) fn is(&self, name: &CStr) -> bool {
        name.to_bytes() == self.name.as_bytes()
    }

    fn dir(&self) -> io::Result<&OwnedFd> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir);
        }
        match rfs::mkdirat(&self.root, &self.name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let opened = open_dir(std::os::fd::AsFd::as_fd(&self.root), self.name.as_bytes())?;
        Ok(self.dir.get_or_init(|| opened))
    }

    /// Takes a name away; none is success. What was a directory is removed with all of this.
    pub(super) fn discard(&self, dir: &OwnedFd, name: &CStr) -> io::Result<()> {
        match rfs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
        let number = self.discarded.fetch_add(1, Ordering::Relaxed);
        Ok(rfs::renameat(dir, name, self.dir()?, format!("gone-{number}"))?)
    }

    /// Keeps another name for the copy of a file, in place of an older copy.
    pub(super) fn keep(&self, dir: &OwnedFd, name: &CStr, inode: Inode) -> io::Result<()> {
        let aside = self.dir()?;
        match rfs::unlinkat(aside, inode.name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(rfs::linkat(dir, name, aside, inode.name(), AtFlags::empty())?)
    }

    /// The inode of the copy that is kept.
    pub(super) fn first(&self, inode: Inode) -> io::Result<u64> {
        Ok(rfs::statat(self.dir()?, inode.name(), AtFlags::SYMLINK_NOFOLLOW)?.st_ino)
    }

    /// Gives the copy that is kept another name; false when it has as many as the filesystem lets it have. A file may
    /// have fewer than where it comes from: ext4 says 65,000, and of an overlay all that says that something is gone
    /// may be one file.
    pub(super) fn link(&self, inode: Inode, dir: &OwnedFd, name: &CStr) -> io::Result<bool> {
        match rfs::linkat(self.dir()?, inode.name(), dir, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::MLINK) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        match self.dir.get() {
            Some(_) => HostDir::of(self.root.try_clone()?, PathBuf::new()).remove_tree(&self.name),
            None => Ok(()),
        }
    }
}
