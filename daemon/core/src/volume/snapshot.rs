//! Snapshots of volumes: taking, listing, renaming, changing and deleting them, and going back to one.

use std::sync::Arc;

use cabin_api::ZERO_TIME;
use cabin_api::volume as api;
use cabin_storage::{Activity, VolumeName};
use cabin_store::rows::{self, VolumeIntent};
use cabin_store::{Transaction, Versioned};
use cabin_undo::{Undo, atomically, fault};
use serde_json::{Value, json};

use super::own::{own_snapshot, own_snapshots};
use super::{Users, alone_with_files, load, place, row_name, running_users, turn};
use crate::instance::snapshot::create::{after, check_name, expiry, made_up_name};
use crate::{DEFAULT_PROJECT, Error, Host, Op, etag, limits, storage};

pub(super) const WHAT: &str = "snapshot of a storage volume";

/// How snapshots are named when nothing is said.
const PATTERN: &str = "snap%d";

/// What a snapshot's row is named.
pub(super) fn snapshot_row(pool: &str, volume: &str, snapshot: &str) -> String {
    format!("{pool}/{volume}/{snapshot}")
}

fn address(pool: &str, volume: &str, snapshot: &str) -> String {
    format!("{}/snapshots/{snapshot}", super::address(pool, volume))
}

/// The rows of a volume's snapshots, the oldest first. Their names are the snapshots' own.
pub(super) fn rows_of(
    host: &Host,
    project: &str,
    pool: &str,
    volume: &str,
) -> Result<Vec<Versioned<rows::VolumeSnapshot>>, Error> {
    let beginning = snapshot_row(pool, volume, "");
    let mut found = host.store().rows::<rows::VolumeSnapshot>().list_from(project, &beginning)?;
    for snapshot in &mut found {
        snapshot.name = snapshot.name.strip_prefix(&beginning).unwrap_or_default().to_owned();
    }
    found.sort_by(|a, b| (&a.row.created_at, &a.name).cmp(&(&b.row.created_at, &b.name)));
    Ok(found)
}

pub(super) fn load_snapshot(
    host: &Host,
    project: &str,
    (pool, volume, snapshot): (&str, &str, &str),
) -> Result<Versioned<rows::VolumeSnapshot>, Error> {
    load(host, project, pool, volume)?;
    let found =
        host.store().rows::<rows::VolumeSnapshot>().get(project, &snapshot_row(pool, volume, snapshot))?;
    found.ok_or_else(|| Error::not_found(WHAT, row_name(volume, snapshot)))
}

fn render(name: String, row: rows::VolumeSnapshot) -> api::VolumeSnapshot {
    api::VolumeSnapshot {
        config: cabin_api::ConfigMap(row.config),
        description: row.description,
        expires_at: Some(row.expires_at).filter(|at| !at.is_empty()),
        name,
        content_type: "filesystem".to_owned(),
        created_at: row.created_at,
    }
}

/// The snapshots of a volume, the oldest first, by their whole names.
///
/// # Errors
/// When there is no such volume.
pub fn snapshots(
    host: &Host,
    project: &str,
    pool: &str,
    volume: &str,
) -> Result<Vec<api::VolumeSnapshot>, Error> {
    load(host, project, pool, volume)?;
    let found = rows_of(host, project, pool, volume)?;
    Ok(found.into_iter().map(|found| render(row_name(volume, &found.name), found.row)).collect())
}

/// The snapshots of a volume of any kind, by their whole names, the oldest first. Images have none.
///
/// # Errors
/// When there is no such volume.
pub fn snapshots_in(
    host: &Host,
    project: &str,
    (pool, kind, volume): (&str, &str, &str),
) -> Result<Vec<api::VolumeSnapshot>, Error> {
    match kind {
        "custom" => snapshots(host, project, pool, volume),
        "container" => own_snapshots(host, project, pool, volume),
        _ => Ok(Vec::new()),
    }
}

/// One snapshot of a volume of any kind, by its own name.
///
/// # Errors
/// When there is none of that name.
pub fn snapshot_in(
    host: &Host,
    project: &str,
    (pool, kind, volume): (&str, &str, &str),
    name: &str,
) -> Result<api::VolumeSnapshot, Error> {
    match kind {
        "custom" => snapshot(host, project, (pool, volume, name)),
        "container" => own_snapshot(host, project, (pool, volume, name)),
        _ => Err(Error::not_found(WHAT, row_name(volume, name))),
    }
}

/// One snapshot, by its own name.
///
/// # Errors
/// When there is none of that name.
pub fn snapshot(host: &Host, project: &str, named: (&str, &str, &str)) -> Result<api::VolumeSnapshot, Error> {
    let mut found = render(named.2.to_owned(), load_snapshot(host, project, named)?.row);
    found.expires_at.get_or_insert_with(|| ZERO_TIME.to_owned());
    Ok(found)
}

/// The tag of what PUT changes of a snapshot.
#[must_use]
pub fn snapshot_tag(snapshot: &api::VolumeSnapshot) -> String {
    etag::etag(&(&snapshot.description, &snapshot.expires_at))
}

/// Refuses at once what can be seen to fail, and makes up a name when there is none.
///
/// # Errors
/// When there is no such volume, or the name is bad or taken.
pub fn check_new_snapshot(
    host: &Host,
    project: &str,
    pool: &str,
    volume: &str,
    post: &mut api::VolumeSnapshotsPost,
) -> Result<(), Error> {
    let found = load(host, project, pool, volume)?;
    if let Some(at) = &post.expires_at {
        expiry(at)?;
    }
    let present = rows_of(host, project, pool, volume)?;
    if post.name.is_empty() {
        let pattern = found.row.config.get("snapshots.pattern").filter(|pattern| !pattern.is_empty());
        let names: Vec<&str> = present.iter().map(|found| found.name.as_str()).collect();
        post.name = made_up_name(pattern.map_or(PATTERN, String::as_str), &names)?;
    }
    check_name(&post.name)?;
    if present.iter().any(|found| found.name == post.name) {
        return Err(Error::Exists { what: WHAT, name: row_name(volume, &post.name) });
    }
    limits::one_more("snapshots of a volume", present.len(), limits::SNAPSHOTS)
}

/// When a snapshot taken now is to go, by what was asked and the volume's config.
pub(super) fn goes_at(row: &rows::Volume, asked: Option<&str>, keys: &[&str]) -> Result<String, Error> {
    let said = |key: &&&str| row.config.get(**key).is_some_and(|span| !span.is_empty());
    match (asked, keys.iter().find(said)) {
        (Some(at), _) => expiry(at),
        (None, Some(key)) => after(row.config.get(*key).map_or("", String::as_str)),
        (None, None) => Ok(String::new()),
    }
}

/// Takes a snapshot of a volume. Instances that write in it meanwhile are not held still.
///
/// # Errors
/// As [`check_new_snapshot`], or when the host refuses.
pub fn create_snapshot(
    host: &Arc<Host>,
    op: Option<&Op>,
    project: &str,
    pool: &str,
    volume: &str,
    post: &api::VolumeSnapshotsPost,
) -> Result<(), Error> {
    let _turn = turn(host, project, pool, volume, "snapshot")?;
    let found = load(host, project, pool, volume)?;
    check_new_snapshot(host, project, pool, volume, &mut post.clone())?;
    let expires_at =
        goes_at(&found.row, post.expires_at.as_deref(), &["snapshots.expiry.manual", "snapshots.expiry"])?;
    atomically(|undo| -> Result<(), Error> {
        let staged = stage(host, pool, volume, &post.name, undo)?;
        staged.show(undo)?;
        let row = row_of(&found.row, &post.description, expires_at.clone());
        let txn = host.store().begin().insert(project, &snapshot_row(pool, volume, &post.name), &row)?;
        commit(txn, || Error::Exists { what: WHAT, name: row_name(volume, &post.name) })
    })?;
    tell(host, op, project, ("storage-volume-snapshot-created", pool, volume, &post.name), Value::Null);
    Ok(())
}

/// Copies what a volume holds now.
pub(super) fn stage(
    host: &Host,
    pool: &str,
    volume: &str,
    snapshot: &str,
    undo: &mut Undo,
) -> Result<cabin_storage::Staged, Error> {
    let (pool, volume) = (storage::pool(host, pool)?, VolumeName::custom(volume)?);
    place::clear_snapshot(host, DEFAULT_PROJECT, &pool, (&volume, snapshot))?;
    Ok(pool.stage_snapshot(&volume, Activity::Running, snapshot, undo)?)
}

pub(super) fn row_of(now: &rows::Volume, description: &str, expires_at: String) -> rows::VolumeSnapshot {
    rows::VolumeSnapshot {
        description: if description.is_empty() { now.description.clone() } else { description.to_owned() },
        config: now.config.clone(),
        created_at: crate::clock::now(),
        expires_at,
    }
}

/// Commits, and says in words of its own that somebody was faster.
pub(super) fn commit(txn: Transaction<'_>, faster: impl FnOnce() -> Error) -> Result<(), Error> {
    match txn.commit() {
        Err(cabin_store::Error::Changed { .. }) => Err(faster()),
        other => Ok(other.map(drop)?),
    }
}

/// Gives a snapshot another name.
///
/// # Errors
/// When there is none, or the new name is bad or taken.
pub fn rename_snapshot(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    (pool, volume, old): (&str, &str, &str),
    new: &str,
) -> Result<(), Error> {
    let _turn = turn(host, project, pool, volume, "snapshot")?;
    check_rename_snapshot(host, project, (pool, volume, old), new)?;
    let found = load_snapshot(host, project, (pool, volume, old))?;
    let (disk, name) = (storage::pool(host, pool)?, VolumeName::custom(volume)?);
    let row = row_name(pool, volume);
    place::clear_snapshot(host, project, &disk, (&name, new))?;
    atomically(|undo| -> Result<(), Error> {
        // A tree of the new name without a row would be a stray to the next start, and be removed.
        let going_on = VolumeIntent::RenameSnapshot { from: old.to_owned(), to: new.to_owned() };
        super::intent::note(host, project, &row, &going_on, undo)?;
        disk.rename_snapshot(&name, old, new, undo)?;
        let txn = host
            .store()
            .begin()
            .check::<rows::VolumeSnapshot>(project, &snapshot_row(pool, volume, old), Some(found.revision))
            .remove::<rows::VolumeSnapshot>(project, &snapshot_row(pool, volume, old))
            .remove::<VolumeIntent>(project, &row)
            .insert(project, &snapshot_row(pool, volume, new), &found.row)?;
        commit(txn, || Error::Changed { what: WHAT, name: row_name(volume, old) })
    })?;
    let context = json!({ "old_name": old });
    tell(host, Some(op), project, ("storage-volume-snapshot-renamed", pool, volume, new), context);
    Ok(())
}

/// Refuses at once what can be seen to fail.
///
/// # Errors
/// As [`rename_snapshot`].
pub fn check_rename_snapshot(
    host: &Host,
    project: &str,
    named: (&str, &str, &str),
    new: &str,
) -> Result<(), Error> {
    load_snapshot(host, project, named)?;
    check_name(new)?;
    match load_snapshot(host, project, (named.0, named.1, new)) {
        Ok(_) => Err(Error::Exists { what: WHAT, name: row_name(named.1, new) }),
        Err(_) => Ok(()),
    }
}

/// Changes what a snapshot is described by and when it is to go.
///
/// # Errors
/// When there is none, somebody else changed it, or the time is none.
pub fn update_snapshot(
    host: &Arc<Host>,
    project: &str,
    named: (&str, &str, &str),
    put: &api::VolumeSnapshotPut,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let (pool, volume, name) = named;
    let _turn = turn(host, project, pool, volume, "snapshot")?;
    etag::check(WHAT, name, &snapshot_tag(&snapshot(host, project, named)?), if_match)?;
    let found = load_snapshot(host, project, named)?;
    let row = rows::VolumeSnapshot {
        description: put.description.clone(),
        expires_at: expiry(&put.expires_at)?,
        ..found.row
    };
    let txn =
        host.store().begin().update(project, &snapshot_row(pool, volume, name), found.revision, &row)?;
    commit(txn, || Error::Changed { what: WHAT, name: row_name(volume, name) })?;
    tell(host, None, project, ("storage-volume-snapshot-updated", pool, volume, name), Value::Null);
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
    snapshot: (&str, &str, &str),
) -> Result<(), Error> {
    delete_snapshot_if(host, op, project, snapshot, |_| true).map(drop)
}

/// Deletes a snapshot if it is to be, as its row says once nobody else changes it. Whether it was deleted.
///
/// # Errors
/// As [`delete_snapshot`].
pub(super) fn delete_snapshot_if(
    host: &Arc<Host>,
    op: Option<&Op>,
    project: &str,
    (pool, volume, name): (&str, &str, &str),
    is_to_be: impl FnOnce(&rows::VolumeSnapshot) -> bool,
) -> Result<bool, Error> {
    let _turn = turn(host, project, pool, volume, "snapshot")?;
    if !is_to_be(&load_snapshot(host, project, (pool, volume, name))?.row) {
        return Ok(false);
    }
    let disk = storage::pool(host, pool)?;
    // The row first: a tree without a row is a stray, a row without a tree a lie.
    let row = snapshot_row(pool, volume, name);
    host.store().begin().remove::<rows::VolumeSnapshot>(project, &row).commit()?;
    tell(host, op, project, ("storage-volume-snapshot-deleted", pool, volume, name), Value::Null);
    let removed = disk.delete_snapshot(&VolumeName::custom(volume)?, name);
    fault::reach("volume snapshot's tree removed");
    removed.map_err(|source| Error::LeftBehind {
        left: format!("the files of snapshot `{}`, which is deleted", row_name(volume, name)),
        source: Box::new(source.into()),
    })?;
    Ok(true)
}

/// Brings back what a snapshot holds. What a crash cuts off is taken back.
///
/// # Errors
/// When there is none, or a running instance has the volume mounted; then all is as before.
pub fn restore(
    host: &Arc<Host>,
    project: &str,
    (pool, volume, snapshot): (&str, &str, &str),
) -> Result<(), Error> {
    let _turn = turn(host, project, pool, volume, "restore")?;
    let _files = alone_with_files(host, pool, volume, "restore")?;
    load_snapshot(host, project, (pool, volume, snapshot))?;
    refuse_mounted(host, project, pool, volume, None)?;
    let limit = super::create::limit_of(&load(host, project, pool, volume)?.row.config)?;
    let (disk, name) = (storage::pool(host, pool)?, VolumeName::custom(volume)?);
    let (row, mark) = (row_name(pool, volume), uuid::Uuid::new_v4().to_string());
    atomically(|undo| -> Result<(), Error> {
        let staged = disk.stage_restore(&name, snapshot, &mark, undo)?;
        let _alone = host.change_layout();
        refuse_mounted(host, project, pool, volume, None)?;
        // What fails is taken back before anybody else can mount it.
        undo.part(|undo| {
            super::intent::note(host, project, &row, &VolumeIntent::Refresh { mark }, undo)?;
            staged.show(undo)?;
            if let Some(bytes) = limit {
                disk.limit(&name, Some(bytes))?;
            }
            host.store().begin().remove::<VolumeIntent>(project, &row).commit()?;
            Ok(())
        })
    })?;
    fault::reach("volume restored");
    let forgotten = disk.forget_replaced(&name);
    let context = json!({ "snapshot": snapshot });
    super::create::tell(host, project, "storage-volume-restored", pool, volume, context);
    forgotten.map_err(|source| Error::LeftBehind {
        left: format!("the old files of storage volume `{volume}`, which is restored"),
        source: Box::new(source.into()),
    })
}

/// Whoever has the old tree mounted would go on writing in it; `but` may, for it is going to be stopped.
pub(super) fn refuse_mounted(
    host: &Host,
    project: &str,
    pool: &str,
    volume: &str,
    but: Option<&str>,
) -> Result<(), Error> {
    let users = Users::of(host, project)?;
    let mut running = running_users(host, &users, &row_name(pool, volume)).into_iter();
    match running.find(|name| Some(name.as_str()) != but) {
        None => Ok(()),
        Some(name) => {
            let by = format!("instance `{name}`, which runs");
            Err(Error::InUse { what: super::WHAT, name: volume.to_owned(), by })
        }
    }
}

pub(super) fn tell(
    host: &Host,
    op: Option<&Op>,
    project: &str,
    (action, pool, volume, snapshot): (&str, &str, &str, &str),
    context: Value,
) {
    let (address, name) = (address(pool, volume, snapshot), row_name(volume, snapshot));
    host.events().lifecycle(project, action, &address, &name, context, op.and_then(Op::requestor));
}
