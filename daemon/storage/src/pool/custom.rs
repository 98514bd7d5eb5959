//! What only custom volumes have: a root of their own whose owner and mode a guest sees, and copies between pools.

use std::os::fd::AsFd;

use cabin_undo::Undo;
use rustix::fs::{Gid, Mode, Uid};

use crate::attributes::Role;
use crate::copy;
use crate::driver::ROOTFS;
use crate::error::{Error, Result};
use crate::name::{VolumeKind, VolumeName, check_snapshot};

use super::{Destination, Origin, Pool, Staged};

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
        self.stage_from((source, origin), Destination::New(target), undo)
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
        let origin = Origin::Snapshot(volume, snapshot);
        self.stage_from((source, origin), Destination::Snapshot(target, snapshot), undo)
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
        self.stage_from((source, origin), Destination::Replaces(target, mark), undo)
    }

    fn stage_from(
        &self,
        (source, origin): (&Pool, Origin<'_>),
        to: Destination<'_>,
        undo: &mut Undo,
    ) -> Result<Staged> {
        source.alive()?;
        if self.takes_streams_of(source, &[origin])? {
            return self.stage_sent(to, (source, origin, origin.volume()), &mut |_| {}, undo);
        }
        let theirs = |e| source.volume_error("open", origin.volume(), e);
        let from = source.inner.root.open_dir(&source.path_of(origin)?).map_err(theirs)?;
        let old = from.open_dir(ROOTFS).map_err(theirs)?;
        let (staged, place) = self.stage_bare(to, undo)?;
        let wrong = |e| self.volume_error("copy", to.volume(), e);
        self.inner.kind.driver().create_empty(&place).map_err(wrong)?;
        copy::tree(old.as_fd(), place.open_dir(ROOTFS).map_err(wrong)?.as_fd(), Role::Whole)?;
        Ok(staged)
    }
}
