//! Subvolumes that lie in other ones: finding them, taking them along in snapshots, removing them.
//!
//! A snapshot of a subvolume has an empty directory, of an inode number that nothing else has, in the place of each
//! subvolume that lay in it. That is where the snapshot of that one is put.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use rustix::fs::{self as rfs, AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::{
    Access, ROOT_INODE, SearchHead, TREE_ROOTS, destroy_subvolume, destroy_subvolume_by_id, info, search,
    set_access, snapshot, subvolumes_in, word,
};

const KEY_INODE_REF: u32 = 12;
const KEY_ROOT_REF: u32 = 156;

/// The inode number of what shows in the place of a subvolume.
const PLACEHOLDER: u64 = 2;

/// The deepest directory in which a subvolume is looked for.
const MAX_DEPTH: usize = 1 << 16;
/// How often somebody may move a subvolume away from under our hands.
const TRIES: usize = 8;

const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// A subvolume that lies directly in another one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Child {
    id: u64,
    /// The inode number of the directory that it lies in.
    directory: u64,
    name: OsString,
}

/// The ids of all subvolumes that lie in the subvolume `of` is in, however deep.
///
/// # Errors
/// As the ioctls.
pub fn within(of: impl AsFd) -> io::Result<Vec<u64>> {
    let mut ids = subvolumes_in(&of)?;
    let mut next = 0;
    while let Some(id) = ids.get(next).copied() {
        ids.extend(children(of.as_fd(), id)?.into_iter().map(|child| child.id));
        next += 1;
    }
    Ok(ids)
}

/// The subvolumes directly in the one with this id, as the tree of roots says.
fn children(on: BorrowedFd<'_>, id: u64) -> io::Result<Vec<Child>> {
    let head = SearchHead {
        tree: TREE_ROOTS,
        objects: [id, id],
        offsets: [0, u64::MAX],
        transactions: [0, u64::MAX],
        kinds: [KEY_ROOT_REF, KEY_ROOT_REF],
        ..SearchHead::default()
    };
    let mut found = Vec::new();
    search(on, head, |key, item| {
        // The directory, a number that does not matter here, and the name with its length.
        if key.kind == KEY_ROOT_REF
            && let Some(name) = name_at(item, 16)
        {
            found.push(Child { id: key.offset, directory: word(item, 0), name });
        }
    })?;
    Ok(found)
}

/// A name with its length in front.
pub(super) fn name_at(item: &[u8], at: usize) -> Option<OsString> {
    let length = item.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes)?;
    let name = item.get(at + 2..at + 2 + usize::from(length))?;
    Some(OsStr::from_bytes(name).to_owned())
}

/// The names that lead from the root of the subvolume `tree` to the directory with this inode number, the last one
/// first; `None` when there is no such directory.
pub(super) fn names_to(on: BorrowedFd<'_>, tree: u64, directory: u64) -> io::Result<Option<Vec<OsString>>> {
    let (mut names, mut inode) = (Vec::new(), directory);
    while inode != ROOT_INODE {
        let head = SearchHead {
            tree,
            objects: [inode, inode],
            offsets: [0, u64::MAX],
            transactions: [0, u64::MAX],
            kinds: [KEY_INODE_REF, KEY_INODE_REF],
            ..SearchHead::default()
        };
        let mut above = None;
        search(on, head, |key, item| {
            if key.kind == KEY_INODE_REF {
                above = name_at(item, 8).map(|name| (key.offset, name));
            }
        })?;
        let Some((parent, name)) = above else { return Ok(None) };
        if names.len() == MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        names.push(name);
        inode = parent;
    }
    Ok(Some(names))
}

fn enter(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rfs::openat2(dir, name, flags, Mode::empty(), BENEATH)?)
}

/// The directory with this inode number in the subvolume whose root is `root`; `None` when there is none.
fn directory(root: BorrowedFd<'_>, tree: u64, inode: u64) -> io::Result<Option<OwnedFd>> {
    let Some(names) = names_to(root, tree, inode)? else { return Ok(None) };
    let mut at = root.try_clone_to_owned()?;
    for name in names.iter().rev() {
        at = match enter(at.as_fd(), name) {
            Err(e) if is_passing(&e) => return Ok(None),
            other => other?,
        };
    }
    Ok((rfs::fstat(&at)?.st_ino == inode).then_some(at))
}

/// Whether an error says that something is not there, or is something else by now.
fn is_passing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE))
}

/// A subvolume and its snapshot.
struct Pair {
    from: OwnedFd,
    to: OwnedFd,
    /// Their ids.
    ids: (u64, u64),
}

enum Step {
    /// To take a subvolume along that lies in one of which there is a snapshot by now.
    Take(Rc<Pair>, Child),
    /// To forbid writing in a snapshot that is whole.
    Seal(Rc<Pair>),
}

/// Makes `name` in `dir` a snapshot of the subvolume whose root is `of`, and in it, at their places, snapshots of those
/// that lie in it, however deep; they can be written in as the originals can. When this returns, all of it is on disk
/// with all that was written before.
///
/// Each subvolume is of one moment by itself; they are of the same one only if nobody writes. What is removed or moved
/// meanwhile may show as an empty directory. After a failure, parts may be there.
///
/// # Errors
/// As [`snapshot`]; `ResourceBusy` when somebody keeps on moving one.
pub fn snapshot_tree(
    of: impl AsFd,
    dir: impl AsFd,
    name: impl AsRef<OsStr>,
    access: Access,
) -> io::Result<()> {
    if subvolumes_in(&of)?.is_empty() {
        return snapshot(of, dir, name, access);
    }
    snapshot(&of, &dir, &name, Access::Writable)?;
    let (from, to) = (of.as_fd().try_clone_to_owned()?, enter(dir.as_fd(), name.as_ref())?);
    let mut open = Vec::new();
    begin(from, to, access, &mut open)?;
    while let Some(step) = open.pop() {
        match step {
            Step::Take(pair, child) => take(&pair, child, &mut open)?,
            Step::Seal(pair) => set_access(&pair.to, Access::ReadOnly)?,
        }
    }
    // The directories that the last ones were put in have their times again since then.
    Ok(rfs::syncfs(dir)?)
}

/// Begins with what lies in a subvolume of which there is a snapshot.
fn begin(from: OwnedFd, to: OwnedFd, access: Access, open: &mut Vec<Step>) -> io::Result<()> {
    let ids = (info(&from)?.id, info(&to)?.id);
    let pair = Rc::new(Pair { from, to, ids });
    if access == Access::ReadOnly {
        // After all that is put in it.
        open.push(Step::Seal(pair.clone()));
    }
    let inside = children(pair.from.as_fd(), pair.ids.0)?;
    open.extend(inside.into_iter().map(|child| Step::Take(pair.clone(), child)));
    Ok(())
}

/// Puts the snapshot of one subvolume in its place in the snapshot of the one that it lies in.
fn take(pair: &Pair, child: Child, open: &mut Vec<Step>) -> io::Result<()> {
    // What has no place there came, or was moved there, after that snapshot.
    let Some(place) = directory(pair.to.as_fd(), pair.ids.1, child.directory)? else { return Ok(()) };
    match rfs::statat(&place, &child.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if stat.st_ino == PLACEHOLDER => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
    }
    let name = child.name.clone();
    let Some(from) = original(pair, child)? else { return Ok(()) };
    let before = rfs::fstat(&place)?;
    rfs::unlinkat(&place, &name, AtFlags::REMOVEDIR)?;
    snapshot(&from, &place, &name, Access::Writable)?;
    let at = |tv_sec, nanoseconds| Timespec { tv_sec, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    let times = Timestamps {
        last_access: at(before.st_atime, before.st_atime_nsec),
        last_modification: at(before.st_mtime, before.st_mtime_nsec),
    };
    rfs::futimens(&place, &times)?;
    let access = if info(&from)?.read_only { Access::ReadOnly } else { Access::Writable };
    let to = enter(place.as_fd(), &name)?;
    begin(from, to, access, open)
}

/// The root of a subvolume, wherever it lies by now; `None` when it is gone from the one that it lay in.
fn original(pair: &Pair, child: Child) -> io::Result<Option<OwnedFd>> {
    let mut child = child;
    for _ in 0..TRIES {
        if let Some(above) = directory(pair.from.as_fd(), pair.ids.0, child.directory)? {
            match enter(above.as_fd(), &child.name) {
                Ok(root) if info(&root)?.id == child.id => return Ok(Some(root)),
                Err(e) if !is_passing(&e) => return Err(e),
                Ok(_) | Err(_) => {}
            }
        }
        let mut inside = children(pair.from.as_fd(), pair.ids.0)?.into_iter();
        match inside.find(|found| found.id == child.id) {
            Some(found) => child = found,
            None => return Ok(None),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Removes the subvolume `name` in `dir`, whose root is `root`, with all subvolumes in it.
///
/// # Errors
/// As the ioctls; `ENAMETOOLONG` when one of those inside lies too deep.
pub fn destroy_tree(dir: impl AsFd, name: impl AsRef<OsStr>, root: impl AsFd) -> io::Result<()> {
    match destroy_subvolume(&dir, &name) {
        Err(e) if e.raw_os_error() == Some(libc::ENOTEMPTY) => {}
        other => return other,
    }
    destroy_inside(root.as_fd())?;
    destroy_subvolume(&dir, name)
}

/// Removes the subvolumes in a subvolume, those deepest inside first.
fn destroy_inside(root: BorrowedFd<'_>) -> io::Result<()> {
    let mut open = subvolumes_in(root)?;
    while let Some(id) = open.last().copied() {
        match destroy_subvolume_by_id(root, id) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.raw_os_error() == Some(libc::ENOTEMPTY) => {
                let inside = children(root, id)?;
                if inside.is_empty() {
                    return Err(e);
                }
                open.extend(inside.into_iter().map(|child| child.id));
                continue;
            }
            Err(e) => return Err(e),
        }
        open.pop();
    }
    Ok(())
}
