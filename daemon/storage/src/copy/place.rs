//! A directory in both trees at once, however deep it lies: a guest can nest directories deeper than a path can
//! say, and than there are descriptors.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};

use rustix::fs::{self as rfs, AtFlags, Mode, OFlags, ResolveFlags, Timestamps};

pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Every so many directories deep one is kept open while there is work below it.
const HELD_EVERY: u32 = 64;
/// The longest path given to the kernel at once.
const LONGEST: usize = 3500;

/// A directory in both trees.
#[derive(Debug)]
pub(super) struct Place {
    parent: Option<Arc<Place>>,
    name: CString,
    depth: u32,
    held: OnceLock<(OwnedFd, OwnedFd)>,
    /// What its copy's times are to be when nothing changes in it any more.
    pub(super) times: OnceLock<Timestamps>,
}

impl Place {
    pub(super) fn root(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<Arc<Place>> {
        let both = (from.try_clone_to_owned()?, to.try_clone_to_owned()?);
        Ok(Arc::new(Place {
            parent: None,
            name: CString::default(),
            depth: 0,
            held: OnceLock::from(both),
            times: OnceLock::new(),
        }))
    }

    pub(super) fn child(parent: &Arc<Place>, name: CString) -> Arc<Place> {
        Arc::new(Place {
            parent: Some(parent.clone()),
            name,
            depth: parent.depth + 1,
            held: OnceLock::new(),
            times: OnceLock::new(),
        })
    }

    pub(super) fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// Opens it in both trees.
    pub(super) fn open(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let both = (self.enter(|held| held.0.as_fd())?, self.enter(|held| held.1.as_fd())?);
        if self.depth.is_multiple_of(HELD_EVERY) && self.parent.is_some() {
            // Another thread never has the same place.
            let _ = self.held.set((both.0.try_clone()?, both.1.try_clone()?));
        }
        Ok(both)
    }

    /// Opens it from the nearest directory above that is kept open.
    fn enter(&self, side: impl Fn(&(OwnedFd, OwnedFd)) -> BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let mut names = Vec::new();
        let mut above = self;
        let base = loop {
            match (above.held.get(), &above.parent) {
                (Some(held), _) => break side(held),
                (None, Some(parent)) => {
                    names.push(above.name.to_bytes());
                    above = parent;
                }
                // The root always is.
                (None, None) => return Err(io::ErrorKind::NotFound.into()),
            }
        };
        let mut at = None;
        let mut path: Vec<u8> = Vec::new();
        while let Some(name) = names.pop() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            if path.len() > LONGEST {
                at = Some(open_dir(at.as_ref().map_or(base, OwnedFd::as_fd), &path)?);
                path.clear();
            }
        }
        match (at, path.is_empty()) {
            (Some(at), true) => Ok(at),
            (None, true) => open_dir(base, b"."),
            (at, false) => open_dir(at.as_ref().map_or(base, OwnedFd::as_fd), &path),
        }
    }

    /// Its path from the root, when the kernel takes one as long at once.
    pub(super) fn whole_path(&self) -> Option<Vec<u8>> {
        let (mut names, mut length) = (Vec::new(), 0);
        let mut above = self;
        while let Some(parent) = &above.parent {
            names.push(above.name.to_bytes());
            length += above.name.to_bytes().len() + 1;
            if length > LONGEST {
                return None;
            }
            above = parent;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }

    /// Its path from the root, shortened, for messages.
    pub(super) fn path(&self) -> String {
        let mut names = Vec::new();
        let mut above = Some(self);
        while let Some(place) = above {
            if names.len() < 30 {
                names.push(place.name.to_string_lossy());
            }
            above = place.parent.as_deref();
        }
        names.reverse();
        names.join("/").trim_start_matches('/').chars().take(300).collect()
    }
}

/// Lets go of a place and of those above it that nobody else has. Their times are set then: nothing changes in them
/// any more. By a loop, for there may be more of them than the stack can take.
pub(super) fn release(place: Arc<Place>) -> io::Result<()> {
    let mut outcome = Ok(());
    let mut next = Some(place);
    while let Some(mut own) = next.take().and_then(Arc::into_inner) {
        if let Some(times) = own.times.take() {
            let set = match (own.held.get(), &own.parent) {
                (Some((_, to)), _) => rfs::futimens(to, &times).map_err(io::Error::from),
                (None, Some(parent)) => parent.enter(|held| held.1.as_fd()).and_then(|to| {
                    Ok(rfs::utimensat(to, own.name.as_c_str(), &times, AtFlags::SYMLINK_NOFOLLOW)?)
                }),
                (None, None) => Ok(()),
            };
            outcome = outcome.and(set);
        }
        next = own.parent.take();
    }
    outcome
}

pub(super) fn open_dir(at: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rfs::openat2(at, OsStr::from_bytes(path), flags, Mode::empty(), BENEATH)?)
}
