//! Another name for a volume, or another pool: its tree, its snapshots, its rows, and the devices that name it.

use std::sync::Arc;

use cabin_storage::{Origin, VolumeName};
use cabin_store::Transaction;
use cabin_store::rows::{self, Devices, VolumeIntent};
use cabin_undo::{atomically, fault};
use serde_json::json;

use super::create::{check_name, limit_of, refuse_size, tell};
use super::kept::{backup_row, backup_rows};
use super::snapshot::{commit, refuse_mounted, rows_of, snapshot_row};
use super::{MOVING, WHAT, alone_with_files, busy_name, load, place, row_name, turn};
use crate::{Error, Host, resolve, storage};

/// Refuses at once what can be seen to fail.
///
/// # Errors
/// When there is no such volume, or the new name is bad or taken.
pub fn check_rename(
    host: &Host,
    project: &str,
    (pool, old): (&str, &str),
    (new_pool, new): (&str, &str),
) -> Result<(), Error> {
    let found = load(host, project, pool, old)?;
    check_name(new)?;
    storage::look_up(host, new_pool)?;
    refuse_size(host, new_pool, &found.row.config)?;
    match host.store().rows::<rows::Volume>().get(project, &row_name(new_pool, new))? {
        None => Ok(()),
        Some(_) => Err(Error::Exists { what: WHAT, name: new.to_owned() }),
    }
}

/// Gives a volume another name in its pool; who uses it goes on doing so, running or not.
///
/// # Errors
/// As [`check_rename`], or when the host refuses.
pub fn rename(host: &Arc<Host>, project: &str, pool: &str, old: &str, new: &str) -> Result<(), Error> {
    check_rename(host, project, (pool, old), (pool, new))?;
    let _turn = turn(host, project, pool, old, "rename")?;
    let _new_turn = host.busy().take(&busy_name(pool, new), "rename")?;
    let _files = alone_with_files(host, pool, old, "rename")?;
    let _alone = host.change_layout();
    check_rename(host, project, (pool, old), (pool, new))?;
    let disk = storage::pool(host, pool)?;
    let (from, to) = (VolumeName::custom(old)?, place::clear(host, project, &disk, new)?);
    let row = row_name(pool, old);
    atomically(|undo| -> Result<(), Error> {
        // A tree of the new name without a row would be a stray to the next start, and be removed.
        let going_on = VolumeIntent::Rename { to: new.to_owned() };
        super::intent::note(host, project, &row, &going_on, undo)?;
        disk.rename(&from, &to, undo)?;
        let txn = host.store().begin().remove::<VolumeIntent>(project, &row);
        let txn = moved_rows(host, project, txn, (pool, old), (pool, new))?;
        commit(txn, || Error::Changed { what: WHAT, name: old.to_owned() })
    })?;
    tell(host, project, "storage-volume-renamed", pool, new, json!({ "old_name": old }));
    Ok(())
}

/// Moves a volume that no running instance has mounted to another pool.
///
/// # Errors
/// As [`check_rename`], when a running instance has it mounted, or the host refuses. When the old tree cannot be
/// removed the volume is moved, and the next start of the daemon removes the rest.
pub fn move_to(
    host: &Arc<Host>,
    project: &str,
    (pool, old): (&str, &str),
    (new_pool, new): (&str, &str),
) -> Result<(), Error> {
    check_rename(host, project, (pool, old), (new_pool, new))?;
    // From here on nobody mounts it.
    let _turn = turn(host, project, pool, old, MOVING)?;
    let _new_turn = host.busy().take(&busy_name(new_pool, new), MOVING)?;
    let _files = alone_with_files(host, pool, old, MOVING)?;
    {
        let _alone = host.change_layout();
        refuse_mounted(host, project, pool, old, None)?;
    }
    let (disk, target) = (storage::pool(host, pool)?, storage::pool(host, new_pool)?);
    let (from, to) = (VolumeName::custom(old)?, place::clear(host, project, &target, new)?);
    let snapshots = rows_of(host, project, pool, old)?;
    atomically(|undo| -> Result<(), Error> {
        // The volume shares with them what it has in common with them.
        for snapshot in &snapshots {
            target.stage_custom_snapshot_from(&disk, (&from, &snapshot.name), &to, undo)?.show(undo)?;
        }
        super::copy::trees(
            &disk,
            &target,
            Origin::Volume(&from, cabin_storage::Activity::Stopped),
            &to,
            undo,
        )?;
        if let Some(bytes) = limit_of(&load(host, project, pool, old)?.row.config)? {
            target.limit(&to, Some(bytes))?;
        }
        let _alone = host.change_layout();
        check_rename(host, project, (pool, old), (new_pool, new))?;
        let txn = moved_rows(host, project, host.store().begin(), (pool, old), (new_pool, new))?;
        commit(txn, || Error::Changed { what: WHAT, name: old.to_owned() })
    })?;
    let context = json!({ "old_name": old, "old_pool": pool });
    tell(host, project, "storage-volume-renamed", new_pool, new, context);
    fault::reach("volume moved");
    disk.delete_with_snapshots(&from).map_err(|source| Error::LeftBehind {
        left: format!("the files in pool `{pool}` of storage volume `{old}`, which is moved"),
        source: Box::new(source.into()),
    })
}

/// The rows of a volume under its new name, and those of who uses it.
fn moved_rows<'a>(
    host: &Host,
    project: &str,
    mut txn: Transaction<'a>,
    (pool, old): (&str, &str),
    (new_pool, new): (&str, &str),
) -> Result<Transaction<'a>, Error> {
    let found = load(host, project, pool, old)?;
    for snapshot in rows_of(host, project, pool, old)? {
        txn = txn.remove::<rows::VolumeSnapshot>(project, &snapshot_row(pool, old, &snapshot.name)).insert(
            project,
            &snapshot_row(new_pool, new, &snapshot.name),
            &snapshot.row,
        )?;
    }
    for backup in backup_rows(host, project, pool, old)? {
        let row = backup_row(pool, old, &backup.name);
        txn = txn.check::<rows::VolumeBackup>(project, &row, Some(backup.revision));
        txn = txn.remove::<rows::VolumeBackup>(project, &row);
        txn = txn.insert(project, &backup_row(new_pool, new, &backup.name), &backup.row)?;
    }
    for mut user in host.store().rows::<rows::Instance>().list(project)? {
        if renamed(&mut user.row.devices, (pool, old), (new_pool, new)) {
            txn = txn.update(project, &user.name, user.revision, &user.row)?;
        }
    }
    // What a snapshot brings back names the volume too.
    for mut kept in host.store().rows::<rows::Snapshot>().list(project)? {
        if renamed(&mut kept.row.devices, (pool, old), (new_pool, new)) {
            txn = txn.update(project, &kept.name, kept.revision, &kept.row)?;
        }
    }
    for mut user in host.store().rows::<rows::Profile>().list(project)? {
        if renamed(&mut user.row.devices, (pool, old), (new_pool, new)) {
            txn = txn.update(project, &user.name, user.revision, &user.row)?;
        }
    }
    Ok(txn
        .check::<rows::Volume>(project, &row_name(pool, old), Some(found.revision))
        .remove::<rows::Volume>(project, &row_name(pool, old))
        .insert(project, &row_name(new_pool, new), &found.row)?)
}

/// Makes devices that name a volume name it anew; whether there are any.
fn renamed(devices: &mut Devices, old: (&str, &str), (new_pool, new): (&str, &str)) -> bool {
    let mut any = false;
    for device in devices.values_mut() {
        if resolve::volume_of(device) != Some(old) {
            continue;
        }
        let source = device.get("source").cloned().unwrap_or_default();
        let beneath = source.split_once('/').map(|(_, beneath)| format!("/{beneath}")).unwrap_or_default();
        device.insert("source".to_owned(), format!("{new}{beneath}"));
        device.insert("pool".to_owned(), new_pool.to_owned());
        any = true;
    }
    any
}
