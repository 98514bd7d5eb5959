//! Limits by project quotas, where ext4 or xfs keeps them: the tree of a volume has a project id of its own, which all
//! that is made in it inherits.
//!
//! The id is given while the tree is empty. What has another id cannot be renamed or linked into a tree that has one, and
//! no kernel before 6.17 changes that of links and devices, so a tree that was filled without one never gets one. Only
//! the trees themselves have ids, not what they lie in: volumes are renamed, and layers linked, as ever.
//!
//! An id is drawn by lot from a range above all that people give by hand or by counting. What has been given away is
//! seen in the filesystem's own count, so neither other pools nor other daemons on it need to be asked: an id of which
//! it counts more than was just given is drawn anew.

use std::io;

use cabin_sys::dir::HostDir;
use cabin_sys::project::{self, Keeping};
use rustix::fs as rfs;
use rustix::io::Errno;

/// The lowest of the ids that are drawn, and how many there are.
const FIRST: u32 = 1 << 30;
/// How often an id that somebody has may be drawn.
const TRIES: usize = 64;

const EXT4: i64 = 0xef53;
const XFS: i64 = 0x5846_5342;

/// Why a volume has none, when others of its pool have.
pub(crate) const UNCOUNTED: &str = "it was made before its filesystem counted what it holds; \
    take a snapshot of it and restore that, or make a copy";

fn no_quotas(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOSYS | Errno::SRCH | Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOENT)
    )
}

/// What the filesystem of a directory does about projects, where it is one of those that are known to do it well.
fn keeping(dir: &HostDir) -> io::Result<Keeping> {
    match rfs::fstatfs(dir)?.f_type {
        EXT4 | XFS => project::keeping(dir),
        _ => Ok(Keeping::Nothing),
    }
}

/// Gives new, empty directories of one volume an id that nobody else has, where the filesystem counts by it.
pub(crate) fn claim(trees: &[&HostDir]) -> io::Result<()> {
    let Some(first) = trees.first() else { return Ok(()) };
    if keeping(first)? == Keeping::Nothing {
        return Ok(());
    }
    for _ in 0..TRIES {
        let drawn = uuid::Uuid::new_v4().as_fields().0;
        let id = FIRST | (drawn & (FIRST - 1));
        for tree in trees {
            project::set_id(tree, id)?;
        }
        let quota = project::quota(first, id)?;
        if quota.files == trees.len() as u64 && quota.most.is_none() {
            return Ok(());
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// The id of a tree, if it has one of those that are drawn here.
fn id_of(tree: &HostDir) -> io::Result<Option<u32>> {
    Ok(project::id_of(tree)?.filter(|id| (FIRST..2 * FIRST).contains(id)))
}

/// Why no limits are kept where `root` lies, and what to do; `None` when they are.
pub(crate) fn lacks(root: &HostDir) -> Option<&'static str> {
    let magic = rfs::fstatfs(root).map_or(0, |seen| seen.f_type);
    let there = |path: &str| rfs::stat(path).is_ok();
    match (magic, keeping(root).unwrap_or(Keeping::Nothing)) {
        (EXT4 | XFS, Keeping::Held) => None,
        (EXT4, _) if !there("/proc/sys/fs/quota") => Some(
            "the kernel keeps no project quotas on ext4 (CONFIG_QUOTA); a pool of driver `btrfs` keeps limits",
        ),
        (XFS, _) if !there("/proc/fs/xfs/xqmstat") => Some(
            "the kernel keeps no project quotas on xfs (CONFIG_XFS_QUOTA); a pool of driver `btrfs` keeps limits",
        ),
        (EXT4, Keeping::Nothing) => Some(
            "its filesystem was made without project quotas (`mkfs.ext4 -O project,quota`, or `tune2fs` with that \
             while it is not mounted; mount it with `prjquota` then); a pool of driver `btrfs` keeps limits",
        ),
        (EXT4 | XFS, _) => Some(
            "its filesystem is not mounted with `prjquota`, without which it keeps no project quotas; \
             a pool of driver `btrfs` keeps limits",
        ),
        (_, _) => Some(
            "its filesystem keeps no project quotas, as ext4 and xfs do; a pool of driver `btrfs` keeps limits",
        ),
    }
}

/// Sets the most bytes that a tree may hold, or lifts that. `Unsupported` for one that is not counted.
pub(crate) fn limit(tree: &HostDir, most: Option<u64>) -> io::Result<()> {
    match id_of(tree)? {
        Some(id) if limit_of(tree)? != most => project::limit(tree, id, most),
        None if most.is_some() => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(()),
    }
}

/// The most bytes that a tree may hold, if that is limited.
pub(crate) fn limit_of(tree: &HostDir) -> io::Result<Option<u64>> {
    let Some(id) = id_of(tree)? else { return Ok(None) };
    match project::quota(tree, id) {
        Err(e) if no_quotas(&e) => Ok(None),
        other => Ok(other?.most),
    }
}

/// Bytes on disk of a tree that is counted.
pub(crate) fn used(tree: &HostDir) -> io::Result<Option<u64>> {
    match id_of(tree)? {
        Some(id) if keeping(tree)? != Keeping::Nothing => Ok(Some(project::quota(tree, id)?.bytes)),
        _ => Ok(None),
    }
}
