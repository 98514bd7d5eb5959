//! Subvolumes that are sent and received whole, in pools of driver `btrfs`.
//!
//! Those that come are made in a directory of their own beside all else that belongs to a volume, which is the only one
//! that the process that fills them can see.

use std::io;

use cabin_sys::btrfs::{self, Access};
use cabin_sys::dir::HostDir;
use cabin_undo::Undo;
use rustix::fs::Mode;

use crate::driver::{DriverKind, ROOTFS};
use crate::error::{Error, Result};
use crate::name::VolumeName;

use super::snapshots::{Place, Staged};
use super::{Destination, Origin, Pool};

/// The directory in a staged volume in which its subvolume comes.
const COMING: &str = "coming";

impl Pool {
    /// Whether its volumes are subvolumes, which can be sent and received.
    #[must_use]
    pub fn has_subvolumes(&self) -> bool {
        self.inner.kind == DriverKind::Btrfs
    }

    /// The root of a volume or snapshot that is to be sent. From now on nobody writes in it.
    ///
    /// # Errors
    /// As [`Pool::check_sending`].
    pub fn to_send(&self, volume: &VolumeName, snapshot: Option<&str>) -> Result<HostDir> {
        let tree = self.check_sending(volume, snapshot)?;
        let sealed = btrfs::set_access(&tree, Access::ReadOnly);
        sealed.map(|()| tree).map_err(|source| self.volume_error("send", volume, source))
    }

    /// Looks whether a stream would have all of a volume or snapshot; gives its root.
    ///
    /// # Errors
    /// No such volume or snapshot, subvolumes in it, or a failure of the disk.
    pub fn check_sending(&self, volume: &VolumeName, snapshot: Option<&str>) -> Result<HostDir> {
        self.alive()?;
        let path = self.path_of(match snapshot {
            Some(snapshot) => Origin::Snapshot(volume, snapshot),
            None => Origin::Volume(volume, super::Activity::Stopped),
        })?;
        let wrong = |source| self.volume_error("send", volume, source);
        let tree = self.inner.root.open_dir(&format!("{path}/{ROOTFS}")).map_err(wrong)?;
        if btrfs::subvolumes_in(&tree).map_err(wrong)?.is_empty() {
            return Ok(tree);
        }
        let what = match snapshot {
            Some(snapshot) => format!("snapshot `{volume}/{snapshot}`"),
            None => format!("volume `{volume}`"),
        };
        Err(Error::Nested { pool: self.name().to_owned(), what })
    }

    /// The directory in which the subvolume is to come that is to become `to`.
    ///
    /// # Errors
    /// As [`Pool::stage_tree`].
    pub fn stage_received(&self, to: Destination<'_>, undo: &mut Undo) -> Result<(Staged, HostDir)> {
        let (staged, place) = self.stage_bare(to, undo)?;
        let coming = place.create_dir(COMING, 0o700);
        Ok((staged, coming.map_err(|source| self.volume_error("receive", to.volume(), source))?))
    }
}

/// Makes the subvolume that comes in a directory of [`Pool::stage_received`]: empty, or a snapshot of the one that came
/// in another.
///
/// # Errors
/// As the ioctls.
pub fn make_coming(place: &HostDir, from: Option<&HostDir>) -> io::Result<()> {
    match from {
        Some(from) => btrfs::snapshot(from.open_dir(ROOTFS)?, place, ROOTFS, Access::Writable),
        None => {
            btrfs::create_subvolume(place, ROOTFS)?;
            Ok(rustix::fs::fchmod(place.open_dir(ROOTFS)?, Mode::from_raw_mode(0o755))?)
        }
    }
}

impl Staged {
    /// The subvolume has come: it takes its place in what is staged. That of a snapshot is written by nobody any more.
    ///
    /// # Errors
    /// When none came, or the disk fails.
    pub fn came(&self) -> Result<()> {
        let root = &self.pool.inner.root;
        let (from, to) =
            (format!("{}/{COMING}/{ROOTFS}", self.staging), format!("{}/{ROOTFS}", self.staging));
        let came = || -> io::Result<()> {
            root.rename(&from, &to)?;
            root.remove_empty(&format!("{}/{COMING}", self.staging))?;
            match self.place {
                Place::Snapshot(..) => btrfs::set_access(root.open_dir(&to)?, Access::ReadOnly),
                Place::New(_) | Place::Replaces(_) => Ok(()),
            }
        };
        came().map_err(|source| Error::Copy { path: self.what.clone(), source })
    }
}
