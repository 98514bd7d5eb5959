//! The place of a custom volume that is about to be there: whatever lies in it goes first.

use cabin_storage::{Pool, VolumeName};
use cabin_store::rows::{self, VolumeIntent};

use super::row_name;
use super::snapshot::snapshot_row;
use crate::{Error, Host, storage};

/// The volume of a name that no row has yet; the caller has its turn. A tree that lies there already belongs to nobody: it
/// could not be removed when a volume was deleted or moved away.
///
/// # Errors
/// When the name is none of a volume, or what lies there cannot be removed.
pub(super) fn clear(host: &Host, project: &str, pool: &Pool, name: &str) -> Result<VolumeName, Error> {
    let volume = VolumeName::custom(name)?;
    storage::clear(host, pool, &volume, || {
        let found = host.store().rows::<rows::Volume>().get(project, &row_name(pool.name(), name))?;
        let going_on = host.store().rows::<VolumeIntent>().list_from(project, &row_name(pool.name(), ""))?;
        // Of a rename that could not be taken back it is the only one.
        let is_coming = |intent: &VolumeIntent| matches!(intent, VolumeIntent::Rename { to } if to == name);
        Ok(found.is_some() || going_on.iter().any(|found| is_coming(&found.row)))
    })?;
    Ok(volume)
}

/// Clears the place of a snapshot that is about to be, as [`clear`] does that of a volume; the caller has the turn of the
/// volume, and what was left undone with it is finished.
///
/// # Errors
/// As [`clear`].
pub(super) fn clear_snapshot(
    host: &Host,
    project: &str,
    pool: &Pool,
    (volume, snapshot): (&VolumeName, &str),
) -> Result<(), Error> {
    storage::clear_snapshot(host, pool, (volume, snapshot), || {
        let row = snapshot_row(pool.name(), volume.name(), snapshot);
        Ok(host.store().rows::<rows::VolumeSnapshot>().get(project, &row)?.is_some())
    })
}
