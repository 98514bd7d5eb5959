//! What is written down before a change of a volume of which a crash would leave traces that do not say where
//! they lead, and what becomes of it at the next start.

use std::collections::BTreeSet;
use std::sync::Arc;

use cabin_storage::{Pool, VolumeKind, VolumeName};
use cabin_store::rows::{self, Devices, Intent, VolumeIntent};
use cabin_undo::{Undo, atomically, fault};

use super::returning::named;
use super::snapshot::snapshot_row;
use super::{WHAT, busy_name, row_name, turn, undecided};
use crate::{DEFAULT_PROJECT, Error, Host, storage};

/// Notes what is going to happen to a volume whose turn the caller holds.
///
/// # Errors
/// When it cannot be stored.
pub(super) fn note(
    host: &Arc<Host>,
    project: &str,
    row: &str,
    intent: &VolumeIntent,
    undo: &mut Undo,
) -> Result<(), Error> {
    host.store().begin().write(project, row, intent)?.commit()?;
    let (host, project, row) = (host.clone(), project.to_owned(), row.to_owned());
    undo.push(format!("intent for storage volume `{row}`"), move || -> Result<(), Error> {
        host.store().begin().remove::<VolumeIntent>(&project, &row).commit()?;
        Ok(())
    })?;
    Ok(())
}

/// Takes back what was going on with volumes when the daemon died, then removes trees that no row has.
pub(crate) fn finish(host: &Arc<Host>) {
    for found in host.store().rows::<VolumeIntent>().list(DEFAULT_PROJECT).unwrap_or_default() {
        if let Err(error) = take_back(host, &found.name, &found.row) {
            tracing::error!(volume = found.name, error = %error.report(), "an unfinished change stays so");
        }
        fault::reach("change of a volume taken back");
    }
    for pool in host.store().rows::<rows::Pool>().list(DEFAULT_PROJECT).unwrap_or_default() {
        if let Err(error) = storage::pool(host, &pool.name).and_then(|pool| sweep(host, &pool)) {
            tracing::warn!(pool = pool.name, error = %error.report(), "strays among volumes cannot be removed");
        }
    }
}

/// Takes back what an earlier daemon left undone with a volume. One whose tree an instance's unfinished restoring may
/// have exchanged is that instance's to settle.
///
/// # Errors
/// [`Error::Unavailable`] when it still cannot be; [`Error::InUse`].
pub(super) fn settle(host: &Arc<Host>, project: &str, pool: &str, volume: &str) -> Result<(), Error> {
    let row = row_name(pool, volume);
    if let Some(found) = host.store().rows::<VolumeIntent>().get(project, &row)? {
        let unavailable =
            |source| Error::Unavailable { what: WHAT, name: volume.to_owned(), source: Box::new(source) };
        take_back(host, &row, &found.row).map_err(unavailable)?;
    }
    refuse_restored(host, (pool, volume), None)
}

/// Finishes what is left undone with the volumes among these devices, which the caller is about to mount. It holds no
/// lock of the layout yet.
///
/// # Errors
/// As [`settle`].
pub(crate) fn settle_named(host: &Arc<Host>, project: &str, devices: &Devices) -> Result<(), Error> {
    for (pool, volume) in named(devices) {
        let left = host.store().rows::<VolumeIntent>().get(project, &row_name(&pool, &volume))?.is_some();
        // Whoever has its turn is at it.
        if left && host.busy().doing(&busy_name(&pool, &volume)).is_none() {
            turn(host, project, &pool, &volume, "mount")?;
        }
    }
    Ok(())
}

/// Refuses to let anybody at the tree of a volume of which it is not decided whether it keeps it: what is written then
/// would go with the one that goes. `but` is an instance that may, since its own restoring is what goes on.
///
/// # Errors
/// [`Error::InUse`].
pub(crate) fn refuse_undecided(
    host: &Host,
    (pool, volume): (&str, &str),
    but: Option<&str>,
) -> Result<(), Error> {
    let going_on = host.store().rows::<VolumeIntent>().get(DEFAULT_PROJECT, &row_name(pool, volume))?;
    if let Some(VolumeIntent::Rename { .. } | VolumeIntent::Refresh { .. }) = going_on.map(|found| found.row)
    {
        let by = "a change of it that is not finished: any other one, as a snapshot, finishes it";
        return Err(Error::InUse { what: WHAT, name: volume.to_owned(), by: by.to_owned() });
    }
    refuse_restored(host, (pool, volume), but)
}

/// Only what is under way has a row among those that are read here.
fn refuse_restored(host: &Host, (pool, volume): (&str, &str), but: Option<&str>) -> Result<(), Error> {
    let row = row_name(pool, volume);
    for found in host.store().rows::<Intent>().list(DEFAULT_PROJECT)? {
        let Intent::Restore { volumes, .. } = found.row else { continue };
        if volumes.contains(&row) && but != Some(found.name.as_str()) {
            let by = format!(
                "the restoring of instance `{}`, which is not finished: starting that one, once its pool is there, finishes it",
                found.name
            );
            return Err(Error::InUse { what: WHAT, name: volume.to_owned(), by });
        }
    }
    Ok(())
}

/// The volumes of a pool, those of instances too, whose old tree lies aside as long as it may have to come back.
///
/// # Errors
/// When the rows cannot be read.
pub(crate) fn with_old_trees(host: &Host, pool: &str) -> Result<Vec<VolumeName>, Error> {
    let mut found = undecided(host, pool)?;
    for intent in host.store().rows::<VolumeIntent>().list_from(DEFAULT_PROJECT, &row_name(pool, ""))? {
        if let (VolumeIntent::Refresh { .. }, Some((_, volume))) = (&intent.row, intent.name.split_once('/'))
        {
            found.push(VolumeName::custom(volume)?);
        }
    }
    for intent in host.store().rows::<Intent>().list(DEFAULT_PROJECT)? {
        if matches!(intent.row, Intent::Restore { .. } | Intent::Refresh { .. }) {
            found.push(VolumeName::container(&intent.name)?);
        }
    }
    Ok(found)
}

/// The rows are the old ones.
fn take_back(host: &Arc<Host>, row: &str, going_on: &VolumeIntent) -> Result<(), Error> {
    let (pool, volume) = row.split_once('/').unwrap_or_default();
    let (disk, old) = (storage::pool(host, pool)?, VolumeName::custom(volume)?);
    match going_on {
        VolumeIntent::Rename { to } => {
            disk.take_back_rename(&old, &VolumeName::custom(to)?)?;
        }
        VolumeIntent::RenameSnapshot { from, to } => {
            let present = disk.list_snapshots(&old)?;
            if present.contains(to) && !present.contains(from) {
                atomically(|undo| disk.rename_snapshot(&old, to, from, undo).map_err(Error::from))?;
            }
        }
        VolumeIntent::Refresh { mark } => {
            disk.take_back_restored(&old, mark)?;
            // Those that came for it: a sweep leaves them alone as long as this goes on.
            sweep_snapshots(&disk, &old, &rows_of_snapshots(host, pool)?)?;
        }
    }
    host.store().begin().remove::<VolumeIntent>(DEFAULT_PROJECT, row).commit()?;
    Ok(())
}

/// A tree that took another one's place just before the daemon died has not its limit yet.
fn limit(host: &Host, disk: &Pool) -> Result<(), Error> {
    let pool = disk.name();
    for found in host.store().rows::<rows::Volume>().list_from(DEFAULT_PROJECT, &row_name(pool, ""))? {
        let Some(bytes) = super::create::limit_of(&found.row.config)? else { continue };
        let volume = VolumeName::custom(found.name.split_once('/').map_or("", |(_, name)| name))?;
        if disk.limit_of(&volume)? != Some(bytes) {
            disk.limit(&volume, Some(bytes))?;
            tracing::info!(volume = found.name, "the limit of a volume was put right");
        }
    }
    Ok(())
}

/// The names of the rows of all snapshots of volumes in a pool.
fn rows_of_snapshots(host: &Host, pool: &str) -> Result<BTreeSet<String>, Error> {
    let rows = host.store().rows::<rows::VolumeSnapshot>();
    let found = rows.list_from(DEFAULT_PROJECT, &row_name(pool, ""))?;
    Ok(found.into_iter().map(|found| found.name).collect())
}

/// Removes the snapshots of a volume that none of these rows is of.
fn sweep_snapshots(disk: &Pool, volume: &VolumeName, rows: &BTreeSet<String>) -> Result<(), Error> {
    for snapshot in disk.list_snapshots(volume)? {
        if !rows.contains(&snapshot_row(disk.name(), volume.name(), &snapshot)) {
            disk.delete_snapshot(volume, &snapshot)?;
            tracing::info!(
                pool = disk.name(),
                volume = volume.name(),
                snapshot,
                "a stray snapshot was removed"
            );
            fault::reach("stray snapshot of a volume removed");
        }
    }
    Ok(())
}

/// Removes volumes and their snapshots in a pool that no row has, and puts the limits of the others right.
///
/// # Errors
/// When the rows or the disk cannot be read, or one cannot be removed.
pub(crate) fn sweep(host: &Host, disk: &Pool) -> Result<(), Error> {
    let pool = disk.name();
    let volumes = host.store().rows::<rows::Volume>().list_from(DEFAULT_PROJECT, &row_name(pool, ""))?;
    let volumes: BTreeSet<String> = volumes.into_iter().map(|found| found.name).collect();
    let snapshots = rows_of_snapshots(host, pool)?;
    // What could not be taken back is somebody's only one.
    let going_on = host.store().rows::<VolumeIntent>().list_from(DEFAULT_PROJECT, &row_name(pool, ""))?;
    let moving = |volume: &VolumeName| {
        going_on.iter().any(|found| {
            let own = found.name == row_name(pool, volume.name());
            own || matches!(&found.row, VolumeIntent::Rename { to } if to == volume.name())
        })
    };
    for volume in disk.owners_of_snapshots()? {
        if volume.kind() != VolumeKind::Custom || moving(&volume) {
            continue;
        }
        sweep_snapshots(disk, &volume, &snapshots)?;
    }
    for volume in disk.list()? {
        let known = volumes.contains(&row_name(pool, volume.name()));
        if volume.kind() == VolumeKind::Custom && !known && !moving(&volume) {
            disk.delete(&volume)?;
            tracing::info!(pool, volume = volume.name(), "a stray volume was removed");
            fault::reach("stray volume removed");
        }
    }
    limit(host, disk)
}
