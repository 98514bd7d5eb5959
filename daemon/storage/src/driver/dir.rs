//! Volumes as whole trees: copied from the image, by reflink where the filesystem can.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cabin_sys::dir::HostDir;

use crate::attributes::Role;
use crate::copy::{self, Ahead, Earlier};
use crate::error::{Error, Result};

use super::{Driver, Layers, Purpose, ROOTFS};
use crate::quota;

pub(crate) struct Dir;

/// Makes the empty tree of a new volume or snapshot. Snapshots are not counted: they share files with one another.
fn make_root(volume: &HostDir, purpose: Purpose) -> io::Result<HostDir> {
    let root = volume.create_dir(ROOTFS, 0o700)?;
    if purpose == Purpose::Volume {
        quota::claim(&[&root])?;
    }
    Ok(root)
}

/// The tree of a volume, and the empty one of a new volume or snapshot.
pub(super) fn roots(from: &HostDir, to: &HostDir, purpose: Purpose) -> Result<(HostDir, HostDir)> {
    let make = || Ok((from.open_dir(ROOTFS)?, make_root(to, purpose)?));
    make().map_err(|source| Error::Copy { path: ROOTFS.to_owned(), source })
}

impl Driver for Dir {
    fn fits(&self, _source: &HostDir) -> io::Result<Option<&'static str>> {
        Ok(None)
    }

    fn create_from_image(&self, image: &HostDir, volume: &HostDir) -> Result<()> {
        let copying = |source| Error::Copy { path: ROOTFS.to_owned(), source };
        let root = make_root(volume, Purpose::Volume).map_err(copying)?;
        copy::tree(image.as_fd(), root.as_fd(), Role::Whole)?;
        // A whole tree is much data: flushing the filesystem once is cheaper than each file.
        root.sync_filesystem().map_err(copying)
    }

    fn copy(&self, from: &HostDir, to: &HostDir, purpose: Purpose) -> Result<()> {
        let (old, new) = roots(from, to, purpose)?;
        copy::tree(old.as_fd(), new.as_fd(), Role::Whole)
    }

    fn copy_ahead(
        &self,
        from: &HostDir,
        to: &HostDir,
        purpose: Purpose,
        earlier: Option<&HostDir>,
    ) -> Result<Option<Ahead>> {
        let (old, new) = roots(from, to, purpose)?;
        let earlier = earlier.and_then(|volume| Earlier::open(volume, ROOTFS));
        Ahead::begin(old.as_fd(), new.as_fd(), Role::Whole, earlier).map(Some)
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
