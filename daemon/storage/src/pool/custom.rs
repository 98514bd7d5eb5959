//! What only custom volumes have: a root of their own whose owner and mode a guest sees, and copies between pools.

use std::os::fd::AsFd;

use cabin_undo::Undo;
use rustix::fs::{Gid, Mode, Uid};

use crate::attributes::Role;
use crate::copy;
use crate::driver::ROOTFS;
use crate::error::{Error, Result};
use crate::name::{VolumeKind, VolumeName, check_snapshot};

use super::snapshots::{Pending, Place, replaced, snapshot_path, snapshots_of};
use super::{Origin, Pool, STAGING, Staged};

impl Pool {
    /// Makes an empty custom volume whose root has this owner, group and mode. When this returns, it is on disk.
    ///
    /// # Errors
    /// A volume of that name, or a failure of the disk.
    pub fn create_custom(
        &self,
        volume: &VolumeName,
        (uid, gid, mode): (u32, u32, u32),
        undo: &mut Undo,
    ) -> Result<()> {
        if volume.kind() != VolumeKind::Custom {
            return Err(Error::Name { name: volume.to_string() });
        }
        self.alive()?;
        let wrong = |source| self.volume_error("create", volume, source);
        self.create(volume, undo, |staged| {
            self.inner.kind.driver().create_empty(staged).map_err(wrong)?;
            let tree = staged.open_dir(ROOTFS).map_err(wrong)?;
            let owned = rustix::fs::fchown(tree.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .and_then(|()| rustix::fs::fchmod(tree.as_fd(), Mode::from_raw_mode(mode)));
            owned.map_err(|source| wrong(source.into()))?;
            tree.sync().and_then(|()| staged.sync()).map_err(wrong)
        })
    }

    /// Copies a custom volume or a snapshot of one, of this pool or another, to become a new volume of this.
    ///
    /// # Errors
    /// No such origin, a volume of that name, or a failure of a disk.
    pub fn stage_custom_from(
        &self,
        source: &Pool,
        origin: Origin<'_>,
        target: &VolumeName,
        undo: &mut Undo,
    ) -> Result<Staged> {
        if source.name() == self.name() {
            return self.stage_copy(origin, target, undo);
        }
        self.alive()?;
        if self.inner.root.exists(&target.path()) {
            return Err(self.exists_already(target));
        }
        let staging = format!("{}/{STAGING}{}", target.kind().directory(), target.name());
        let path = match origin {
            Origin::Volume(volume, _) => volume.path(),
            Origin::Snapshot(volume, snapshot) => snapshot_path(volume, snapshot),
        };
        self.stage_from(source, &path, staging, Place::New(target.clone()), undo)
    }

    /// Copies a snapshot of a custom volume, of this pool or another, to become one of `target` by the same name.
    ///
    /// # Errors
    /// No such snapshot, one of that name, or a failure of a disk.
    pub fn stage_custom_snapshot_from(
        &self,
        source: &Pool,
        (volume, snapshot): (&VolumeName, &str),
        target: &VolumeName,
        undo: &mut Undo,
    ) -> Result<Staged> {
        check_snapshot(snapshot)?;
        if source.name() == self.name() {
            return self.stage_snapshot_copy((volume, snapshot), target, undo);
        }
        self.alive()?;
        let (pool, owner) = (self.clone(), target.clone());
        self.inner
            .root
            .ensure_dir(&snapshots_of(target), 0o700)
            .map_err(|source| self.volume_error("snapshot", target, source))?;
        undo.push(format!("directory of the snapshots of {target}"), move || pool.tidy(&owner))?;
        let staging = format!("{}/{STAGING}{snapshot}", snapshots_of(target));
        let place = Place::Snapshot(target.clone(), snapshot.to_owned());
        self.stage_from(source, &snapshot_path(volume, snapshot), staging, place, undo)
    }

    /// Copies a custom volume, of this pool or another, to become the tree of `target`, which is there and that nobody
    /// has mounted. `mark` is a plain word by which [`Pool::restored`] tells later whether it did.
    ///
    /// # Errors
    /// No such origin or target, or a failure of a disk.
    pub fn stage_custom_replacing(
        &self,
        source: &Pool,
        origin: Origin<'_>,
        target: &VolumeName,
        mark: &str,
        undo: &mut Undo,
    ) -> Result<Staged> {
        if source.name() == self.name() {
            return self.stage_replacing_copy(origin, target, mark, undo);
        }
        self.make_way(target, mark)?;
        let path = match origin {
            Origin::Volume(volume, _) => volume.path(),
            Origin::Snapshot(volume, snapshot) => snapshot_path(volume, snapshot),
        };
        let place = Place::Replaces(target.clone());
        let staged = self.stage_from(source, &path, replaced(target), place, undo)?;
        self.marked(staged, target, mark)
    }

    fn stage_from(
        &self,
        source: &Pool,
        path: &str,
        staging: String,
        place: Place,
        undo: &mut Undo,
    ) -> Result<Staged> {
        source.alive()?;
        let volume = match &place {
            Place::New(volume) | Place::Snapshot(volume, _) | Place::Replaces(volume) => volume.clone(),
        };
        let volume = &volume;
        let from = source.inner.root.open_dir(path).map_err(|e| source.volume_error("open", volume, e))?;
        let what = place.to_string();
        let to = self.stage_place(&place, &staging, &what, undo)?;
        let wrong = |e| self.volume_error("copy", volume, e);
        self.inner.kind.driver().create_empty(&to).map_err(wrong)?;
        let old = from.open_dir(ROOTFS).map_err(|e| source.volume_error("open", volume, e))?;
        copy::tree(old.as_fd(), to.open_dir(ROOTFS).map_err(wrong)?.as_fd(), Role::Whole)?;
        Ok(Staged { pool: self.clone(), what, staging, place, pending: Pending::Nothing })
    }
}
