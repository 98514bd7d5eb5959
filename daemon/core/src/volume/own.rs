//! The volume of an instance itself: what users keep with it. Its tree, its size and its snapshots are the
//! instance's, and so is its row.

use std::sync::Arc;

use cabin_api::storage as api;
use cabin_api::volume::{VolumePut, VolumeSnapshot, VolumeSnapshotPut};
use cabin_api::{ConfigMap, ZERO_TIME};
use cabin_store::{Versioned, rows};
use serde_json::Value;

use super::snapshot::{self, commit, snapshot_tag};
use super::{WHAT, tag};
use crate::instance::snapshot::{row_name, rows_of};
use crate::instance::{self, load_snapshot};
use crate::{DEFAULT_PROJECT, Error, Host, etag, storage};

fn address(pool: &str, instance: &str) -> String {
    format!("/1.0/storage-pools/{pool}/volumes/container/{instance}")
}

/// The row of the instance, which must lie in that pool.
fn load(host: &Host, project: &str, pool: &str, name: &str) -> Result<Versioned<rows::Instance>, Error> {
    match host.store().rows::<rows::Instance>().get(project, name)? {
        Some(found) if found.row.pool == pool => Ok(found),
        _ => {
            // A pool that is not there is the first that is wrong.
            storage::look_up(host, pool)?;
            Err(Error::not_found(WHAT, name))
        }
    }
}

/// The volume of an instance with this row.
pub(crate) fn render(name: String, row: &rows::Instance) -> api::Volume {
    api::Volume {
        config: ConfigMap(row.volume.config.clone()),
        description: row.volume.description.clone(),
        used_by: vec![instance::address(&name)],
        name,
        kind: "container".to_owned(),
        location: "none".to_owned(),
        content_type: "filesystem".to_owned(),
        project: DEFAULT_PROJECT.to_owned(),
        created_at: row.created_at.clone(),
    }
}

/// The volume of an instance.
///
/// # Errors
/// When no instance of that name lies in the pool.
pub fn own(host: &Host, project: &str, pool: &str, name: &str) -> Result<api::Volume, Error> {
    Ok(render(name.to_owned(), &load(host, project, pool, name)?.row))
}

/// Replaces description and config.
///
/// # Errors
/// When there is none, somebody else changed it or is changing the instance, or the config makes no sense.
pub fn update_own(
    host: &Arc<Host>,
    project: &str,
    pool: &str,
    name: &str,
    put: VolumePut,
    if_match: Option<&str>,
) -> Result<(), Error> {
    load(host, project, pool, name)?;
    let _turn = instance::turn(host, project, name, "update")?;
    change(host, project, pool, name, put, if_match)
}

/// Merges a body into description and config.
///
/// # Errors
/// As [`update_own`].
pub fn patch_own(
    host: &Arc<Host>,
    project: &str,
    pool: &str,
    name: &str,
    body: Value,
    if_match: Option<&str>,
) -> Result<(), Error> {
    load(host, project, pool, name)?;
    let _turn = instance::turn(host, project, name, "update")?;
    let old = load(host, project, pool, name)?.row.volume;
    let put = super::update::merged(old.config, old.description, body)?;
    change(host, project, pool, name, put, if_match)
}

/// The caller holds the instance's turn.
fn change(
    host: &Host,
    project: &str,
    pool: &str,
    name: &str,
    put: VolumePut,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let old = load(host, project, pool, name)?;
    etag::check(WHAT, name, &tag(&render(name.to_owned(), &old.row)), if_match)?;
    if !put.restore.is_empty() {
        return Err(Error::invalid(format!("the volume of instance `{name}` is restored with the instance")));
    }
    let config = put.config.given();
    cabin_profiles::validate_own_volume(&config)?;
    let volume = rows::OwnVolume { description: put.description, config };
    let row = rows::Instance { volume, ..old.row };
    let txn = host.store().begin().update(project, name, old.revision, &row)?;
    commit(txn, || Error::Changed { what: WHAT, name: name.to_owned() })?;
    host.events().lifecycle(project, "storage-volume-updated", &address(pool, name), name, Value::Null, None);
    Ok(())
}

fn render_snapshot(name: String, row: rows::Snapshot) -> VolumeSnapshot {
    VolumeSnapshot {
        config: ConfigMap(row.volume.config),
        description: row.volume.description,
        expires_at: Some(row.expires_at).filter(|at| !at.is_empty()),
        name,
        content_type: "filesystem".to_owned(),
        created_at: row.created_at,
    }
}

/// The snapshots of an instance's volume, the oldest first, by their whole names. They go with the instance's.
///
/// # Errors
/// As [`own`].
pub(super) fn own_snapshots(
    host: &Host,
    project: &str,
    pool: &str,
    name: &str,
) -> Result<Vec<VolumeSnapshot>, Error> {
    load(host, project, pool, name)?;
    let found = rows_of(host, project, name)?;
    Ok(found.into_iter().map(|found| render_snapshot(row_name(name, &found.name), found.row)).collect())
}

/// One snapshot of an instance's volume, by its own name.
///
/// # Errors
/// When there is none of that name.
pub(super) fn own_snapshot(
    host: &Host,
    project: &str,
    (pool, name, snapshot): (&str, &str, &str),
) -> Result<VolumeSnapshot, Error> {
    load(host, project, pool, name)?;
    let mut found = render_snapshot(snapshot.to_owned(), load_snapshot(host, project, name, snapshot)?.row);
    found.expires_at.get_or_insert_with(|| ZERO_TIME.to_owned());
    Ok(found)
}

/// Changes the description of a snapshot of an instance's volume.
///
/// # Errors
/// When there is none, somebody else changed it, or it is to go at another time: that is said by the instance's snapshot.
pub fn update_own_snapshot(
    host: &Arc<Host>,
    project: &str,
    named: (&str, &str, &str),
    put: &VolumeSnapshotPut,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let (pool, name, snapshot) = named;
    load(host, project, pool, name)?;
    let _turn = instance::turn(host, project, name, "snapshot")?;
    let now = own_snapshot(host, project, named)?;
    etag::check(snapshot::WHAT, snapshot, &snapshot_tag(&now), if_match)?;
    let never = |at: &str| matches!(at, "" | ZERO_TIME);
    let goes = now.expires_at.unwrap_or_default();
    if put.expires_at != goes && !(never(&put.expires_at) && never(&goes)) {
        return Err(Error::invalid(format!(
            "`{name}/{snapshot}` goes with the instance's snapshot: set `expires_at` there"
        )));
    }
    let found = load_snapshot(host, project, name, snapshot)?;
    let volume = rows::OwnVolume { description: put.description.clone(), ..found.row.volume };
    let row = rows::Snapshot { volume, ..found.row };
    let full = row_name(name, snapshot);
    let txn = host.store().begin().update(project, &full, found.revision, &row)?;
    commit(txn, || Error::Changed { what: snapshot::WHAT, name: full.clone() })?;
    let address = format!("{}/snapshots/{snapshot}", address(pool, name));
    host.events().lifecycle(project, "storage-volume-snapshot-updated", &address, &full, Value::Null, None);
    Ok(())
}
