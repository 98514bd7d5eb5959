//! New trees for volumes that are there, copied from other volumes of the pool.
//!
//! They are staged and shown as restorings are, and like those leave a mark by which [`Pool::restored`] tells whether
//! they did.

use std::path::Path;

use cabin_undo::Undo;

use crate::driver::RESTORED;
use crate::error::Result;
use crate::name::{VolumeName, check};

use super::snapshots::{Pending, Place, replaced};
use super::{Origin, Pool, Staged};

impl Pool {
    /// Copies a volume or snapshot of this pool, to become the tree of `target`, which is another volume that is
    /// there and that nobody uses. `mark` is a plain word.
    ///
    /// # Errors
    /// No such origin or target, or a failure of the disk.
    pub fn stage_replacing_copy(
        &self,
        origin: Origin<'_>,
        target: &VolumeName,
        mark: &str,
        undo: &mut Undo,
    ) -> Result<Staged> {
        self.make_way(target, mark)?;
        let place = Place::Replaces(target.clone());
        let staged = self.stage(origin, format!("refresh {target}"), replaced(target), place, undo)?;
        self.marked(staged, target, mark)
    }

    /// Leaves the mark in a copy that is to become the tree of `target`.
    pub(super) fn marked(&self, mut staged: Staged, target: &VolumeName, mark: &str) -> Result<Staged> {
        let root = self.inner.root.open_dir(&staged.staging);
        root.and_then(|dir| dir.symlink(Path::new(mark), RESTORED))
            .map_err(|source| self.volume_error("refresh", target, source))?;
        if matches!(staged.pending, Pending::Landed) {
            staged.pending = Pending::Nothing;
        }
        Ok(staged)
    }

    pub(super) fn make_way(&self, target: &VolumeName, mark: &str) -> Result<()> {
        self.alive()?;
        check(mark)?;
        self.must_exist(target)?;
        // What an earlier change of this kind could not remove.
        self.forget_replaced(target)
    }
}
