//! Names that are safe as the name of one directory.

use std::fmt;

use crate::error::{Error, Result};

/// What a volume is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VolumeKind {
    /// The root filesystem of an instance.
    Container,
    /// A volume to be attached to instances.
    Custom,
}

impl VolumeKind {
    /// The directory of a pool that holds volumes of this kind.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            VolumeKind::Container => "containers",
            VolumeKind::Custom => "custom",
        }
    }

    /// The directory of a pool that holds their snapshots, one directory for each volume.
    pub(crate) fn snapshots(self) -> &'static str {
        match self {
            VolumeKind::Container => "containers-snapshots",
            VolumeKind::Custom => "custom-snapshots",
        }
    }
}

/// A volume of a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName {
    kind: VolumeKind,
    name: String,
}

impl VolumeName {
    /// A checked name.
    ///
    /// # Errors
    /// When it could not be the name of one directory.
    pub fn new(kind: VolumeKind, name: &str) -> Result<VolumeName> {
        check(name)?;
        Ok(VolumeName { kind, name: name.to_owned() })
    }

    /// The volume of an instance.
    ///
    /// # Errors
    /// As [`VolumeName::new`].
    pub fn container(name: &str) -> Result<VolumeName> {
        VolumeName::new(VolumeKind::Container, name)
    }

    /// A custom volume.
    ///
    /// # Errors
    /// As [`VolumeName::new`].
    pub fn custom(name: &str) -> Result<VolumeName> {
        VolumeName::new(VolumeKind::Custom, name)
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> VolumeKind {
        self.kind
    }

    /// Its name among those of its kind.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path in the pool.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.kind.directory(), self.name)
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// Refuses what is not the plain name of one directory.
pub(crate) fn check(name: &str) -> Result<()> {
    let plain = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if plain { Ok(()) } else { Err(Error::Name { name: name.chars().take(80).collect() }) }
}

/// Refuses what is not the plain name of one directory. Times are liked in names of snapshots, so `:` may be
/// in these, and a few more.
///
/// # Errors
/// When it is not.
pub fn check_snapshot(name: &str) -> Result<()> {
    let plain = name.len() <= 200 && check(&name.replace([':', '+', '@', '=', ',', '~'], "_")).is_ok();
    if plain { Ok(()) } else { Err(Error::SnapshotName { name: name.chars().take(80).collect() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_names() {
        for good in ["web", "default_web-1", "a.b", "9"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "x".repeat(201);
        for bad in ["", ".", "..", ".staging-x", "-rf", "a/b", "a\0", "a\n", "ä", &long] {
            assert!(check(bad).is_err(), "{bad:?}");
            assert!(check_snapshot(bad).is_err(), "{bad:?}");
        }
        for good in ["snap0", "2026-01-02_15:04:05+01:00", "a@b"] {
            assert!(check_snapshot(good).is_ok(), "{good}");
        }
        for bad in ["a b", "a%", "../x", ".deleting-x"] {
            assert!(check_snapshot(bad).is_err(), "{bad:?}");
        }
    }
}
