//! How much a volume may hold.

use cabin_sys::dir::HostDir;

use crate::error::{Error, Result};
use crate::name::VolumeName;
use crate::quota::UNCOUNTED;

use super::Pool;

impl Pool {
    /// Why volumes of this pool can have no limit; `None` when they can.
    #[must_use]
    pub fn lacks_limits(&self) -> Option<&'static str> {
        self.inner.kind.driver().lacks_limits(&self.inner.root)
    }

    /// Sets how many bytes a volume may hold, or lifts that. What it holds already stays. On btrfs what it shares with
    /// others is counted too, and the first limit in a pool makes the filesystem count, which takes a while once.
    ///
    /// # Errors
    /// No such volume, a pool or volume that can have no limits, or a failure of the disk.
    pub fn limit(&self, volume: &VolumeName, bytes: Option<u64>) -> Result<()> {
        if let (Some(_), Some(why)) = (bytes, self.lacks_limits()) {
            return Err(Error::NoLimits { pool: self.name().to_owned(), why });
        }
        let limited = self.inner.kind.driver().limit(&self.open_volume(volume)?, bytes);
        limited.map_err(|source| match source.kind() {
            std::io::ErrorKind::Unsupported => {
                Error::Uncounted { pool: self.name().to_owned(), volume: volume.to_string(), why: UNCOUNTED }
            }
            _ => self.volume_error("limit", volume, source),
        })
    }

    /// The most bytes a volume may hold, if that is limited.
    ///
    /// # Errors
    /// No such volume, or a failure of the disk.
    pub fn limit_of(&self, volume: &VolumeName) -> Result<Option<u64>> {
        let found = self.inner.kind.driver().limit_of(&self.open_volume(volume)?);
        found.map_err(|source| self.volume_error("read the limit of", volume, source))
    }

    fn open_volume(&self, volume: &VolumeName) -> Result<HostDir> {
        self.alive()?;
        match self.inner.root.open_dir(&volume.path()) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(self.no_volume(volume)),
            other => other.map_err(|source| self.volume_error("open", volume, source)),
        }
    }
}
