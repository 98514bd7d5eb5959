//! Removing a whole tree, as deep as a guest made it, subvolumes inside it too.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self as rfs, AtFlags, Mode, OFlags, ResolveFlags};

use super::BENEATH;
use crate::btrfs;

/// How deep a removal goes before it brings what lies deeper up. A guest can nest directories deeper than
/// there are descriptors, stack or path to reach them by.
const MAX_DEPTH: usize = 64;

/// How many names are gathered before the first of them is removed: a directory read while it shrinks may skip some,
/// and a guest's may hold more than there is memory to gather.
const NAMES: usize = if cfg!(test) { 64 } else { 65_536 };

/// Removes what has that name in a directory, whatever it is; nothing is success.
pub(super) fn tree(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rfs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let top = enter(dir, name)?;
    if vanishes(dir, name, &top)? {
        return Ok(());
    }
    Removal { pen: top.as_fd(), raised: 0 }.drain(dir, name, top.as_fd(), Within::Pen)
}

fn enter(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(rfs::openat2(
        dir,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        BENEATH | ResolveFlags::NO_XDEV,
    )?)
}

/// Some of the names in a directory; none when it is empty.
fn some_names(dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rfs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
        if names.len() == NAMES {
            break;
        }
    }
    Ok(names)
}

/// Removes a subvolume as a whole, where there is one. What cannot go that way can be emptied afterwards.
fn vanishes(dir: BorrowedFd<'_>, name: &OsStr, inner: &OwnedFd) -> io::Result<bool> {
    if !btrfs::is_subvolume(inner)? {
        return Ok(false);
    }
    if btrfs::nested::destroy_tree(dir, name, inner).is_ok() {
        return Ok(true);
    }
    // A guest may make subvolumes too, and read-only ones.
    btrfs::set_access(inner, btrfs::Access::Writable)?;
    Ok(false)
}

/// Which subvolume a directory that is emptied lies in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// The one the removal began in.
    Pen,
    /// One that lies directly in the directory the removal began with.
    Subvolume,
}

/// The removal of one tree.
struct Removal<'a> {
    /// The directory it began with. Subvolumes inside that cannot go as a whole are brought up to here.
    pen: BorrowedFd<'a>,
    /// How much was brought up so far: numbers the names.
    raised: u64,
}

impl Removal<'_> {
    /// Empties `top`, which is `name` in `dir`, and removes it.
    fn drain(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        top: BorrowedFd<'_>,
        within: Within,
    ) -> io::Result<()> {
        loop {
            let before = self.raised;
            self.empty(top, top, 0, within)?;
            match rfs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
                // What was brought up from below; each round has less to do, or fails.
                Err(rustix::io::Errno::NOTEMPTY) if self.raised > before => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Removes all in `dir`, except that directories too deep are moved into `top`, which is in the same
    /// subvolume, and subvolumes that do not go as a whole into the pen, under new names.
    fn empty(
        &mut self,
        dir: BorrowedFd<'_>,
        top: BorrowedFd<'_>,
        depth: usize,
        within: Within,
    ) -> io::Result<()> {
        loop {
            let names = some_names(dir)?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                match rfs::unlinkat(dir, &name, AtFlags::empty()) {
                    Ok(()) | Err(rustix::io::Errno::NOENT) => continue,
                    Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
                    Err(e) => return Err(e.into()),
                }
                let inner = enter(dir, &name)?;
                if btrfs::is_subvolume(&inner)? {
                    match vanishes(dir, &name, &inner)? {
                        true => {}
                        // Nested no deeper than this, however many there are in one another.
                        false if within == Within::Pen && depth == 0 => {
                            self.drain(dir, &name, inner.as_fd(), Within::Subvolume)?;
                        }
                        false => self.raise(dir, &name, self.pen)?,
                    }
                    continue;
                }
                if depth >= MAX_DEPTH {
                    self.raise(dir, &name, top)?;
                    continue;
                }
                self.empty(inner.as_fd(), top, depth + 1, within)?;
                match rfs::unlinkat(dir, &name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }

    fn raise(&mut self, dir: BorrowedFd<'_>, name: &OsStr, to: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            self.raised += 1;
            let free = format!(".deep-{}", self.raised);
            match rfs::renameat_with(dir, name, to, &free, rfs::RenameFlags::NOREPLACE) {
                // Something of that name was there before.
                Err(rustix::io::Errno::EXIST) => {}
                other => return Ok(other?),
            }
        }
    }
}
