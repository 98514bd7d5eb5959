//! Volumes as whole trees: copied from the image, by reflink where the filesystem can.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cabin_sys::dir::HostDir;

use crate::attributes::Role;
use crate::copy::{self, Ahead, Earlier};
use crate::error::{Error, Result};

use super::{Driver, Layers, ROOTFS};

pub(crate) struct Dir;

/// The tree of a volume, and the empty one of a new volume.
pub(super) fn roots(from: &HostDir, to: &HostDir) -> Result<(HostDir, HostDir)> {
    let copying = |source| Error::Copy { path: ROOTFS.to_owned(), source };
    Ok((from.open_dir(ROOTFS).map_err(copying)?, to.create_dir(ROOTFS, 0o700).map_err(copying)?))
}

impl Driver for Dir {
    fn fits(&self, _source: &HostDir) -> io::Result<Option<&'static str>> {
        Ok(None)
    }

    fn create_from_image(&self, image: &HostDir, volume: &HostDir) -> Result<()> {
        let copying = |source| Error::Copy { path: ROOTFS.to_owned(), source };
        let root = volume.create_dir(ROOTFS, 0o700).map_err(copying)?;
        copy::tree(image.as_fd(), root.as_fd(), Role::Whole)?;
        // A whole tree is much data: flushing the filesystem once is cheaper than each file.
        root.sync_filesystem().map_err(copying)
    }

    fn copy(&self, from: &HostDir, to: &HostDir) -> Result<()> {
        let (old, new) = roots(from, to)?;
        copy::tree(old.as_fd(), new.as_fd(), Role::Whole)
    }

    fn copy_ahead(&self, from: &HostDir, to: &HostDir, earlier: Option<&HostDir>) -> Result<Option<Ahead>> {
        let (old, new) = roots(from, to)?;
        let earlier = earlier.and_then(|volume| Earlier::open(volume, ROOTFS));
        Ahead::begin(old.as_fd(), new.as_fd(), Role::Whole, earlier).map(Some)
    }

    fn stands_on_image(&self) -> bool {
        false
    }

    fn layers(&self, _trees: Vec<PathBuf>, state: &Path) -> Layers {
        Layers::Dir { path: state.join(ROOTFS) }
    }

    fn own(&self, _volume: &HostDir) -> &'static str {
        ROOTFS
    }
}
