//! What only custom volumes have: a root of their own whose owner and mode a guest sees.

use std::os::fd::AsFd;

use cabin_undo::Undo;
use rustix::fs::{Gid, Mode, Uid};

use crate::error::{Error, Result};
use crate::name::{VolumeKind, VolumeName};

use super::Pool;

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
        self.create_empty(volume, undo)?;
        let wrong = |source| self.volume_error("create", volume, source);
        let dir = self.inner.root.open_dir(&volume.path()).map_err(wrong)?;
        let owned = rustix::fs::fchown(dir.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .and_then(|()| rustix::fs::fchmod(dir.as_fd(), Mode::from_raw_mode(mode)));
        owned.map_err(|source| wrong(source.into()))?;
        dir.sync().map_err(wrong)
    }
}
