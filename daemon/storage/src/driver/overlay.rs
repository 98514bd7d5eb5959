//! Volumes as the difference to an image that is shared read-only.
//!
//! A volume holds `u` (the writable layer), `w` (the kernel's work directory) and an empty `rootfs` whose
//! name scripts rely on. One made empty has its tree in `rootfs` and needs no overlay. Between the writable layer
//! and the image there may be frozen layers, which were once writable ones: the pool knows which.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cabin_sys::dir::HostDir;
use rustix::fs as rfs;

use crate::attributes::{Role, carry, times};
use crate::copy::{self, Ahead, Earlier};
use crate::error::{Error, Result};
use crate::quota;

use super::{Driver, Layers, Purpose, ROOTFS, dir};

/// The writable layer.
const UPPER: &str = "u";
/// The kernel's work directory, on the same filesystem as the writable layer.
const WORK: &str = "w";

/// Magic of filesystems that cannot be the upper layer of an overlay: an overlay itself, NFS, FUSE.
const UNFIT: &[(i64, &str)] =
    &[(0x794c_7630, "it is an overlay itself"), (0x6969, "it is NFS"), (0x6573_5546, "it is FUSE")];

pub(crate) struct Overlay;

/// Makes the directories of a volume whose writable layer has this mode, and gives that layer.
fn make_dirs(volume: &HostDir, mode: u32, purpose: Purpose) -> io::Result<HostDir> {
    let upper = volume.create_dir(UPPER, mode)?;
    let work = volume.create_dir(WORK, 0o700)?;
    // Snapshots are not counted: they share files with one another.
    if purpose == Purpose::Volume {
        // What the kernel makes in the one it renames into the other.
        quota::claim(&[&upper, &work])?;
    }
    volume.create_dir(ROOTFS, 0o700)?;
    Ok(upper)
}

/// Makes an empty writable layer over the tree whose root is `below`.
fn make_upper(below: &HostDir, volume: &HostDir) -> io::Result<()> {
    let upper = make_dirs(volume, 0o700, Purpose::Volume)?;
    // The root of a mounted overlay looks like the upper layer's, not like those below.
    let stat = rfs::fstat(below)?;
    carry(below, &upper, &stat, Role::Whole)?;
    rfs::futimens(&upper, &times(&stat))?;
    upper.sync()
}

impl Overlay {
    /// What a volume holds itself, and where that goes in a new one, with all else a new one has.
    fn uppers(&self, from: &HostDir, to: &HostDir, purpose: Purpose) -> Result<(HostDir, HostDir, Role)> {
        let failed = |source| Error::Copy { path: UPPER.to_owned(), source };
        if self.own(from).map_err(failed)? == ROOTFS {
            let (old, new) = dir::roots(from, to, purpose)?;
            return Ok((old, new, Role::Whole));
        }
        let make = || -> io::Result<(HostDir, HostDir, Role)> {
            // What the kernel keeps in its work directory is of no use to another mount.
            Ok((from.open_dir(UPPER)?, make_dirs(to, 0o700, purpose)?, Role::Upper))
        };
        make().map_err(failed)
    }
}

impl Driver for Overlay {
    fn fits(&self, source: &HostDir) -> io::Result<Option<&'static str>> {
        let magic = rfs::fstatfs(source)?.f_type;
        Ok(UNFIT.iter().find(|(unfit, _)| *unfit == magic).map(|(_, why)| *why))
    }

    fn create_from_image(&self, image: &HostDir, volume: &HostDir) -> Result<()> {
        make_upper(image, volume).map_err(|source| Error::Copy { path: UPPER.to_owned(), source })
    }

    /// It is to become a layer, so that it need not be copied again.
    fn create_to_fill(&self, volume: &HostDir) -> io::Result<HostDir> {
        make_dirs(volume, 0o755, Purpose::Volume)
    }

    fn copy(&self, from: &HostDir, to: &HostDir, purpose: Purpose) -> Result<()> {
        let (old, new, role) = self.uppers(from, to, purpose)?;
        copy::tree(old.as_fd(), new.as_fd(), role)
    }

    fn copy_ahead(
        &self,
        from: &HostDir,
        to: &HostDir,
        purpose: Purpose,
        earlier: Option<&HostDir>,
    ) -> Result<Option<Ahead>> {
        let (old, new, role) = self.uppers(from, to, purpose)?;
        let earlier = earlier.and_then(|volume| Earlier::open(volume, self.own(from).ok()?));
        Ahead::begin(old.as_fd(), new.as_fd(), role, earlier).map(Some)
    }

    fn stands_on_image(&self) -> bool {
        true
    }

    fn shares(&self, volume: &HostDir) -> io::Result<bool> {
        volume.exists(UPPER)
    }

    fn is_bare(&self, volume: &HostDir) -> io::Result<bool> {
        let upper = volume.open_dir(UPPER)?;
        for entry in rfs::Dir::read_from(&upper)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn branch(&self, from: &HostDir, to: &HostDir) -> io::Result<()> {
        make_upper(&from.open_dir(UPPER)?, to)
    }

    fn layers(&self, trees: Vec<PathBuf>, state: &Path) -> Layers {
        if trees.is_empty() {
            return Layers::Dir { path: state.join(ROOTFS) };
        }
        Layers::Overlay { lowers: trees, state: state.to_owned() }
    }

    fn own(&self, volume: &HostDir) -> io::Result<&'static str> {
        Ok(if volume.exists(UPPER)? { UPPER } else { ROOTFS })
    }
}
