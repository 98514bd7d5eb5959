//! Snapshots that are taken of subvolumes only to be read, and removed when that is done; the sweep at the start finds
//! those that a crash left.

use std::io;

use cabin_sys::btrfs::{self, Access};
use cabin_sys::dir::HostDir;
use cabin_undo::Undo;

use crate::error::Result;
use crate::name::VolumeName;

use super::{Pool, STAGING};

impl Pool {
    /// The name of a directory for snapshots that are only to be read, to be removed by who asked.
    pub(super) fn place_to_hold(&self, volume: &VolumeName, undo: &mut Undo) -> Result<String> {
        let place = format!("{}/{STAGING}{}", volume.kind().directory(), uuid::Uuid::new_v4());
        let (inner, stray) = (self.inner.clone(), place.clone());
        undo.push(format!("hold {volume}"), move || inner.discard(&stray))?;
        Ok(place)
    }

    /// A subvolume in which nobody can write: this one, or a snapshot of it.
    pub(super) fn hold(&self, tree: &HostDir, place: &str, name: &str) -> io::Result<HostDir> {
        if btrfs::info(tree)?.read_only {
            return tree.open_dir(".");
        }
        let place = self.inner.root.ensure_dir(place, 0o700)?;
        btrfs::snapshot(tree, &place, name, Access::ReadOnly)?;
        place.open_dir(name)
    }
}
