//! What differs between two states of a volume, from the layers that the two do not have in common.
//!
//! A file counts as the same when it is the same inode, or when kind, size, owner, mode and time of modification
//! are equal: contents are not read. Which names are looked at, somebody else may know.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use cabin_sys::dir::HostDir;
use rustix::fs::{self as rfs, FileType, Stat};
use rustix::io::Errno;

use crate::changed::{Changed, Known};
use crate::stack::{self, Found, Part, Stack, find, is_gone, kind};

/// How deep directories are compared; what lies deeper is not.
pub(crate) const MAX_DEPTH: usize = 256;

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is only in the later state.
    Added,
    /// It is in both, and not the same.
    Changed,
    /// It is only in the earlier state.
    Removed,
}

/// What kind of file a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, fifo or socket.
    Special,
}

/// A path that is not the same in two states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path from the root, without a slash in front; empty for the root itself. Any bytes.
    pub path: Vec<u8>,
    /// What became of it.
    pub change: Change,
    /// What it was, if it was.
    pub before: Option<Shape>,
    /// What it is now, if it is.
    pub after: Option<Shape>,
}

/// What a path is in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Its kind.
    pub kind: FileKind,
    /// Bytes in it, if it is a regular file.
    pub size: u64,
}

/// How a comparison ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// All was compared.
    Whole,
    /// Some directories lie too deep.
    Cut,
}

/// Compares two states, each given by its trees, topmost first; the last `common` of them are the same ones.
/// Of what is `known` to be all that may have changed, nothing else is looked at; with it each state has one tree.
/// Differences are given in the order of their paths, directories before what is in them.
pub(crate) fn compare(
    before: &[HostDir],
    after: &[HostDir],
    common: usize,
    known: Option<&Changed>,
    give: &mut dyn FnMut(Difference),
) -> io::Result<Depth> {
    let stack = |trees: &[HostDir]| -> io::Result<Stack> {
        let own = trees.len().saturating_sub(common);
        let part = |(at, tree): (usize, &HostDir)| -> io::Result<Part> {
            let dir = tree.as_fd().try_clone_to_owned()?;
            Ok(Part { dir, common: at >= own, layered: trees.len() > 1 })
        };
        trees.iter().enumerate().map(part).collect()
    };
    let (before, after) = (stack(before)?, stack(after)?);
    let mut walk = Walk { give, path: Vec::new(), cut: false };
    if let (Some(old), Some(new)) = (before.first(), after.first()) {
        let (old, new) = (rfs::fstat(&old.dir)?, rfs::fstat(&new.dir)?);
        if !is_same(&old, &new, || Ok(true))? {
            walk.tell(Some(&old), Some(&new));
        }
    }
    walk.directory(&before, &after, known.map(Changed::root), 0)?;
    Ok(if walk.cut { Depth::Cut } else { Depth::Whole })
}

struct Walk<'a> {
    give: &'a mut dyn FnMut(Difference),
    path: Vec<u8>,
    cut: bool,
}

fn shape(stat: &Stat) -> Shape {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    match kind(stat) {
        FileType::RegularFile => Shape { kind: FileKind::File, size },
        FileType::Directory => Shape { kind: FileKind::Directory, size: 0 },
        FileType::Symlink => Shape { kind: FileKind::Link, size: 0 },
        _ => Shape { kind: FileKind::Special, size: 0 },
    }
}

/// Whether two files count as the same; `links` says whether two symbolic links say the same.
fn is_same(old: &Stat, new: &Stat, links: impl FnOnce() -> io::Result<bool>) -> io::Result<bool> {
    if (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino) {
        return Ok(true);
    }
    if (old.st_mode, old.st_uid, old.st_gid) != (new.st_mode, new.st_uid, new.st_gid) {
        return Ok(false);
    }
    Ok(match kind(old) {
        // What is in it is told by itself.
        FileType::Directory => true,
        FileType::Symlink => links()?,
        FileType::RegularFile => {
            old.st_size == new.st_size
                && (old.st_mtime, old.st_mtime_nsec) == (new.st_mtime, new.st_mtime_nsec)
        }
        _ => old.st_rdev == new.st_rdev,
    })
}

/// Names in those parts that the two states do not have in common, or in all when one of them does not see
/// the common ones.
fn names(before: &Stack, after: &Stack) -> io::Result<BTreeSet<CString>> {
    let common = |stack: &Stack| stack.iter().filter(|part| part.common).count();
    let all = common(before) != common(after);
    let mut names = BTreeSet::new();
    for part in before.iter().chain(after).filter(|part| all || !part.common) {
        stack::names(&part.dir, &mut names)?;
    }
    Ok(names)
}

/// Whether the link of a name says the same in both states.
fn same_target(before: &Stack, after: &Stack, name: &CStr) -> io::Result<bool> {
    let target = |stack: &Stack| -> io::Result<Option<CString>> {
        for part in stack {
            match rfs::readlinkat(&part.dir, name, Vec::new()) {
                // The later state may be in use: what was a link a moment ago need not be one now.
                Err(Errno::NOENT | Errno::INVAL) => {}
                other => return Ok(Some(other?)),
            }
        }
        Ok(None)
    };
    Ok(target(before)? == target(after)?)
}

impl Walk<'_> {
    fn tell(&mut self, before: Option<&Stat>, after: Option<&Stat>) {
        let change = match (before, after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        };
        (self.give)(Difference {
            path: self.path.clone(),
            change,
            before: before.map(shape),
            after: after.map(shape),
        });
    }

    fn directory(
        &mut self,
        before: &Stack,
        after: &Stack,
        known: Option<Known<'_>>,
        depth: usize,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            self.cut = true;
            return Ok(());
        }
        let names = match known {
            Some(known) => known.names(),
            None => names(before, after)?,
        };
        for name in names {
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(OsStr::from_bytes(name.to_bytes()).as_bytes());
            match self.name(before, after, &name, known, depth) {
                Err(e) if is_gone(&e) => {}
                other => other?,
            }
            self.path.truncate(length);
        }
        Ok(())
    }

    fn name(
        &mut self,
        before: &Stack,
        after: &Stack,
        name: &CStr,
        known: Option<Known<'_>>,
        depth: usize,
    ) -> io::Result<()> {
        let (old, new) = (find(before, name)?, find(after, name)?);
        match (&old, &new) {
            (None, None) => return Ok(()),
            (Some(old), Some(new)) => {
                if old.common && new.common && old.stack.len() == new.stack.len() {
                    return Ok(());
                }
                if !is_same(&old.stat, &new.stat, || same_target(before, after, name))? {
                    self.tell(Some(&old.stat), Some(&new.stat));
                }
            }
            (old, new) => {
                self.tell(old.as_ref().map(|old| &old.stat), new.as_ref().map(|new| &new.stat));
            }
        }
        let known = match (&old, &new) {
            // The kernel tells only of what is in a directory that both have; another one is other in all.
            (Some(old), Some(new))
                if old.stat.st_ino == new.stat.st_ino && kind(&old.stat) == kind(&new.stat) =>
            {
                known.map(|known| known.below(name))
            }
            _ => None,
        };
        let stack = |found: Option<Found>| found.map(|found| found.stack).unwrap_or_default();
        let (old, new) = (stack(old), stack(new));
        if old.is_empty() && new.is_empty() {
            return Ok(());
        }
        self.directory(&old, &new, known, depth + 1)
    }
}
