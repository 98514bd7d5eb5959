//! Changing snapshots that are there: their name, when they go, and their end.

use std::sync::Arc;

use cabin_api::snapshot::InstanceSnapshotPut;
use cabin_storage::VolumeName;
use cabin_store::rows::{self, Intent};
use cabin_undo::{atomically, fault};
use serde_json::{Value, json};

use super::create::{check_name, expiry};
use super::{WHAT, address, load_snapshot, row_name, snapshot, snapshot_tag};
use crate::instance::{intent, load, place, turn};
use crate::{Error, Host, Op, etag, storage};

/// Refuses at once what can be seen to fail.
///
/// # Errors
/// When there is no such snapshot, or the new name is bad or taken.
pub fn check_rename_snapshot(
    host: &Host,
    project: &str,
    instance: &str,
    old: &str,
    new: &str,
) -> Result<(), Error> {
    load_snapshot(host, project, instance, old)?;
    check_name(new)?;
    let taken = host.store().rows::<rows::Snapshot>().get(project, &row_name(instance, new))?.is_some();
    if taken { Err(Error::Exists { what: WHAT, name: row_name(instance, new) }) } else { Ok(()) }
}

/// Gives a snapshot another name.
///
/// # Errors
/// As [`check_rename_snapshot`], or when the host refuses.
pub fn rename_snapshot(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    instance: &str,
    old: &str,
    new: &str,
) -> Result<(), Error> {
    let _turn = turn(host, project, instance, "snapshot")?;
    check_rename_snapshot(host, project, instance, old, new)?;
    let found = load_snapshot(host, project, instance, old)?;
    let pool = storage::pool(host, &load(host, project, instance)?.row.pool)?;
    let volume = VolumeName::container(instance)?;
    place::clear_snapshot(host, project, &pool, (&volume, new))?;
    atomically(|undo| -> Result<(), Error> {
        // A tree of the new name without a row would be a stray to the next start, and be removed.
        let going_on = Intent::RenameSnapshot { from: old.to_owned(), to: new.to_owned() };
        intent::note(host, project, instance, &going_on, undo)?;
        pool.rename_snapshot(&volume, old, new, undo)?;
        let txn = host
            .store()
            .begin()
            .check::<rows::Snapshot>(project, &row_name(instance, old), Some(found.revision))
            .remove::<rows::Snapshot>(project, &row_name(instance, old))
            .remove::<Intent>(project, instance)
            .insert(project, &row_name(instance, new), &found.row)?;
        match txn.commit() {
            Err(cabin_store::Error::Changed { .. }) => {
                Err(Error::Changed { what: WHAT, name: row_name(instance, old) })
            }
            other => Ok(other.map(drop)?),
        }
    })?;
    tell(host, op, project, ("instance-snapshot-renamed", instance, new), json!({ "old_name": old }));
    Ok(())
}

/// Changes when a snapshot is to go.
///
/// # Errors
/// When there is none, somebody else changed it, or the time is none.
pub fn update_snapshot(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    instance: &str,
    name: &str,
    put: &InstanceSnapshotPut,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let _turn = turn(host, project, instance, "snapshot")?;
    let shown = snapshot(host, project, instance, name)?;
    etag::check(WHAT, name, &snapshot_tag(&shown), if_match)?;
    let found = load_snapshot(host, project, instance, name)?;
    let row = rows::Snapshot { expires_at: expiry(&put.expires_at)?, ..found.row };
    host.store().begin().update(project, &row_name(instance, name), found.revision, &row)?.commit()?;
    tell(host, op, project, ("instance-snapshot-updated", instance, name), Value::Null);
    Ok(())
}

/// Deletes a snapshot. The others are as before.
///
/// # Errors
/// When there is none. When its tree cannot be removed the snapshot is gone, and the next start of the daemon
/// removes the rest.
pub fn delete_snapshot(
    host: &Arc<Host>,
    op: Option<&Op>,
    project: &str,
    instance: &str,
    name: &str,
) -> Result<(), Error> {
    delete_snapshot_if(host, op, project, (instance, name), |_| true).map(drop)
}

/// Deletes a snapshot if it is to be, as its row says once nobody else changes it. Whether it was deleted.
///
/// # Errors
/// As [`delete_snapshot`].
pub(super) fn delete_snapshot_if(
    host: &Arc<Host>,
    op: Option<&Op>,
    project: &str,
    (instance, name): (&str, &str),
    is_to_be: impl FnOnce(&rows::Snapshot) -> bool,
) -> Result<bool, Error> {
    let _turn = turn(host, project, instance, "snapshot")?;
    if !is_to_be(&load_snapshot(host, project, instance, name)?.row) {
        return Ok(false);
    }
    let pool = storage::pool(host, &load(host, project, instance)?.row.pool)?;
    // The row first: a tree without a row is a stray, a row without a tree a lie.
    host.store().begin().remove::<rows::Snapshot>(project, &row_name(instance, name)).commit()?;
    let requestor = op.and_then(Op::requestor);
    host.events().lifecycle(
        project,
        "instance-snapshot-deleted",
        &address(instance, name),
        &row_name(instance, name),
        Value::Null,
        requestor,
    );
    let removed = pool.delete_snapshot(&VolumeName::container(instance)?, name);
    fault::reach("snapshot's tree removed");
    removed.map_err(|source| Error::LeftBehind {
        left: format!("the files of snapshot `{}`, which is deleted", row_name(instance, name)),
        source: Box::new(source.into()),
    })?;
    Ok(true)
}

fn tell(host: &Host, op: &Op, project: &str, (action, instance, name): (&str, &str, &str), context: Value) {
    let (address, name) = (address(instance, name), row_name(instance, name));
    host.events().lifecycle(project, action, &address, &name, context, op.requestor());
}
