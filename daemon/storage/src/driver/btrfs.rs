//! Volumes as subvolumes: each is a snapshot of another, and shares with it what neither has changed.
//!
//! A volume holds the subvolume `rootfs` and the link `born`, which says in which transaction of the filesystem
//! it parted from its image. What was written later is the volume's own, and copies carry the link along.
//! Subvolumes that somebody made inside belong to the volume: snapshots and copies have them too, and they are removed
//! with it.

use std::io;
use std::path::{Path, PathBuf};

use cabin_sys::btrfs::{self, Access, nested};
use cabin_sys::dir::HostDir;
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::error::{Error, Result};

use super::{Driver, Layers, Purpose, ROOTFS};

/// The link that says when a volume parted from its image.
const BORN: &str = "born";

pub(crate) struct Btrfs;

fn failed(source: io::Error) -> Error {
    Error::Copy { path: ROOTFS.to_owned(), source }
}

fn make_tree(volume: &HostDir, mode: u32) -> io::Result<HostDir> {
    btrfs::create_subvolume(volume, ROOTFS)?;
    let tree = volume.open_dir(ROOTFS)?;
    rustix::fs::fchmod(&tree, Mode::from_raw_mode(mode))?;
    Ok(tree)
}

/// The transaction in which a volume parted from its image; 0 when it had none.
fn born(volume: &HostDir) -> io::Result<u64> {
    match rustix::fs::readlinkat(volume, BORN, Vec::new()) {
        Ok(said) => said.to_string_lossy().parse().map_err(|_| io::ErrorKind::InvalidData.into()),
        Err(Errno::NOENT) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

fn copy(from: &HostDir, to: &HostDir, access: Access) -> io::Result<()> {
    match born(from)? {
        0 => {}
        born => to.symlink(Path::new(&born.to_string()), BORN)?,
    }
    nested::snapshot_tree(from.open_dir(ROOTFS)?, to, ROOTFS, access)
}

/// Whether a failure says that no quotas are kept.
fn is_uncounted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error())
}

impl Driver for Btrfs {
    fn fits(&self, source: &HostDir) -> io::Result<Option<&'static str>> {
        Ok((!btrfs::is_btrfs(source)?).then_some("it is not btrfs"))
    }

    fn create_image(&self, image: &HostDir) -> io::Result<HostDir> {
        make_tree(image, 0o755)
    }

    fn create_from_image(&self, image: &HostDir, volume: &HostDir) -> Result<()> {
        let make = || -> io::Result<()> {
            // Nothing is written in an image any more, so what is newer is the volume's. The snapshot comes last: it
            // takes all that was made before it to disk.
            let image_changed = btrfs::info(image)?.changed_in;
            volume.symlink(Path::new(&image_changed.to_string()), BORN)?;
            btrfs::snapshot(image, volume, ROOTFS, Access::Writable)
        };
        make().map_err(failed)
    }

    fn create_empty(&self, volume: &HostDir) -> io::Result<()> {
        // An older kernel's log of names does not know new subvolumes: flushing the directory would not do.
        make_tree(volume, 0o755)?.sync_filesystem()
    }

    fn copy(&self, from: &HostDir, to: &HostDir, purpose: Purpose) -> Result<()> {
        let access = match purpose {
            Purpose::Volume => Access::Writable,
            Purpose::Snapshot => Access::ReadOnly,
        };
        copy(from, to, access).map_err(failed)
    }

    /// Several subvolumes are copied one after the other. Whoever cannot tell lets nobody write.
    fn is_of_one_moment(&self, from: &HostDir) -> bool {
        let inside = from.open_dir(ROOTFS).and_then(btrfs::subvolumes_in);
        inside.is_ok_and(|inside| inside.is_empty())
    }

    fn used(&self, volume: &HostDir) -> io::Result<u64> {
        btrfs::written_since(volume.open_dir(ROOTFS)?, born(volume)?)
    }

    fn lacks_limits(&self, _root: &HostDir) -> Option<&'static str> {
        None
    }

    fn limit(&self, volume: &HostDir, bytes: Option<u64>) -> io::Result<()> {
        let tree = volume.open_dir(ROOTFS)?;
        // Quotas make every change of what is shared dearer, so none are kept until somebody needs them.
        match (btrfs::limit(&tree, bytes), bytes) {
            (Err(e), None) if is_uncounted(&e) => Ok(()),
            (Err(e), Some(_)) if is_uncounted(&e) => {
                btrfs::start_quotas(&tree)?;
                btrfs::limit(&tree, bytes)
            }
            (done, _) => done,
        }
    }

    fn limit_of(&self, volume: &HostDir) -> io::Result<Option<u64>> {
        let tree = volume.open_dir(ROOTFS)?;
        let quota = btrfs::quota(&tree, btrfs::info(&tree)?.id)?;
        Ok(quota.and_then(|(_, most)| most).filter(|most| *most != u64::MAX))
    }

    /// A quota group is found by its subvolume's absence, see `sweep`.
    fn forget(&self, _volume: &HostDir) -> io::Result<()> {
        Ok(())
    }

    fn sweep(&self, root: &HostDir) -> io::Result<()> {
        let there = btrfs::subvolumes(root)?;
        for id in btrfs::quota_groups(root)?.into_iter().filter(|id| !there.contains(id)) {
            match btrfs::remove_quota_group(root, id) {
                // Newer kernels do it themselves.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn lands(&self) -> bool {
        true
    }

    fn stands_on_image(&self) -> bool {
        false
    }

    fn layers(&self, _trees: Vec<PathBuf>, state: &Path) -> Layers {
        Layers::Dir { path: state.join(ROOTFS) }
    }

    fn own(&self, _volume: &HostDir) -> io::Result<&'static str> {
        Ok(ROOTFS)
    }
}
