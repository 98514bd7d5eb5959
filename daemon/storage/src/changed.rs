//! Which names may differ between two subvolumes: all that a stream of the kernel from the one to the other names.
//!
//! A stream does things one after the other, and what is in the way lies under a passing name for a while. So its
//! renames are done here too, in a tree of names alone: in the end each name that was said is where the later state has
//! it. A name that leads to something else than before, in a directory that both states have, is always said; a file
//! that is the same but changed is said by one of its names, and the kernel is asked for the others.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use cabin_sys::btrfs::links;
use cabin_sys::btrfs::stream::Content;
use cabin_sys::btrfs::stream::commands::{Command, attribute, kind};
use cabin_sys::dir::HostDir;
use rustix::fs::{self as rfs, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::diff::MAX_DEPTH;
use crate::kernel_stream::{Stream, broken, follow};
use crate::stack::{BENEATH, is_gone, kind as kind_of};

/// The most names that are kept. With more it is as good to look at everything, which needs no room.
const MAX_NAMES: usize = 1 << 18;

/// A tree of names; the first is the root.
pub(crate) struct Changed {
    names: Vec<BTreeMap<CString, usize>>,
}

/// A directory in a tree of names; none when nothing is known to have changed in it.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    all: &'a Changed,
    at: Option<usize>,
}

impl Known<'_> {
    /// The names in it that may differ.
    pub(crate) fn names(&self) -> BTreeSet<CString> {
        self.at.map(|at| self.all.names[at].keys().cloned().collect()).unwrap_or_default()
    }

    /// What is known of a directory in it.
    pub(crate) fn below(self, name: &CStr) -> Self {
        Known { at: self.at.and_then(|at| self.all.names[at].get(name).copied()), ..self }
    }
}

/// The directory and the last name of a path; none of the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    })
}

impl Changed {
    /// What the kernel says of two subvolumes that nobody can write in.
    ///
    /// # Errors
    /// When it does not say it all.
    pub(crate) fn between(before: &HostDir, after: &HostDir) -> io::Result<Changed> {
        let mut changed = follow(after, Some(before), Content::Told, Changed::read)?;
        changed.add_links(after)?;
        Ok(changed)
    }

    /// All of it, to be looked at from the root.
    pub(crate) fn root(&self) -> Known<'_> {
        Known { all: self, at: Some(0) }
    }

    fn read(stream: &mut Stream) -> io::Result<Changed> {
        let mut changed = Changed { names: vec![BTreeMap::new()] };
        while let Some(command) = stream.next().map_err(broken)? {
            changed.said(&command)?;
        }
        Ok(changed)
    }

    fn said(&mut self, command: &Command<'_>) -> io::Result<()> {
        // That is the name of the whole.
        if matches!(command.kind, kind::SUBVOL | kind::SNAPSHOT) {
            return Ok(());
        }
        let node = self.named(command.bytes(attribute::PATH).map_err(broken)?)?;
        if command.kind != kind::RENAME {
            return Ok(());
        }
        let from = command.bytes(attribute::PATH).map_err(broken)?;
        let to = command.bytes(attribute::PATH_TO).map_err(broken)?;
        let empty = self.new_node()?;
        self.put(from, empty)?;
        self.put(to, node)
    }

    fn new_node(&mut self) -> io::Result<usize> {
        if self.names.len() == MAX_NAMES {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.names.push(BTreeMap::new());
        Ok(self.names.len() - 1)
    }

    /// The node of a path.
    fn named(&mut self, path: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        for (depth, name) in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).enumerate() {
            if depth > MAX_DEPTH {
                return Err(Errno::NAMETOOLONG.into());
            }
            let name = CString::new(name)?;
            at = match self.names[at].get(&name) {
                Some(below) => *below,
                None => {
                    let made = self.new_node()?;
                    self.names[at].insert(name, made);
                    made
                }
            };
        }
        Ok(at)
    }

    fn put(&mut self, path: &[u8], node: usize) -> io::Result<()> {
        let (above, name) = split(path).ok_or(io::ErrorKind::InvalidData)?;
        let above = self.named(above)?;
        self.names[above].insert(CString::new(name)?, node);
        Ok(())
    }

    /// Adds the other names of files that have several.
    fn add_links(&mut self, after: &HostDir) -> io::Result<()> {
        let mut seen = HashSet::new();
        let mut more = Vec::new();
        let mut open = vec![(0, Vec::new())];
        while let Some((node, path)) = open.pop() {
            for (name, below) in &self.names[node] {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                open.push((*below, [path.as_slice(), slash, name.to_bytes()].concat()));
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = match rfs::openat2(after, OsStr::from_bytes(&path), flags, Mode::empty(), BENEATH) {
                Ok(found) => rfs::fstat(&found)?,
                Err(e) if path.is_empty() || is_gone(&e.into()) => continue,
                Err(e) => return Err(e.into()),
            };
            let linked = kind_of(&found) != FileType::Directory && found.st_nlink > 1;
            if linked && seen.insert(found.st_ino) {
                more.extend(links::paths(after.as_fd(), found.st_ino)?);
            }
        }
        more.iter().try_for_each(|path| self.named(path).map(drop))
    }
}
