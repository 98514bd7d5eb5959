//! Snapshots of instances: what they are and how they are shown. One file per verb.

mod alter;
pub(crate) mod create;
mod finish;
mod hold;
mod keep;
mod restore;
mod schedule;

use cabin_api::snapshot::InstanceSnapshot;
use cabin_api::{ConfigMap, DevicesMap, ZERO_TIME};
use cabin_storage::VolumeName;
use cabin_store::{Versioned, rows};

use super::{Profiles, expand_parts, load, profiles};
use crate::{Error, Host, etag, storage};

pub use alter::{check_rename_snapshot, delete_snapshot, rename_snapshot, update_snapshot};
pub(crate) use create::expiry;
pub use create::{check_expiry, check_new_snapshot, create_snapshot};
pub use restore::{Extent, check_restore, restore};

pub(crate) use finish::{finish as finish_snapshots, finish_rename, settle, sweep};
pub(super) use hold::{activity, held, held_all};
pub(crate) use keep::{go_through, look_at_clock, watch as watch_snapshots};
pub(super) use schedule::at_startup;

pub(super) const WHAT: &str = "snapshot";

/// What a snapshot's row is named.
pub(crate) fn row_name(instance: &str, snapshot: &str) -> String {
    format!("{instance}/{snapshot}")
}

fn address(instance: &str, snapshot: &str) -> String {
    format!("/1.0/instances/{instance}/snapshots/{snapshot}")
}

/// The rows of an instance's snapshots, the oldest first. Their names are the snapshots' own.
pub(crate) fn rows_of(
    host: &Host,
    project: &str,
    instance: &str,
) -> Result<Vec<Versioned<rows::Snapshot>>, Error> {
    let mut found = host.store().rows::<rows::Snapshot>().list_from(project, &row_name(instance, ""))?;
    for snapshot in &mut found {
        if let Some((_, name)) = snapshot.name.split_once('/') {
            snapshot.name = name.to_owned();
        }
    }
    in_order(&mut found);
    Ok(found)
}

fn in_order(found: &mut [Versioned<rows::Snapshot>]) {
    found.sort_by(|a, b| (&a.row.created_at, &a.name).cmp(&(&b.row.created_at, &b.name)));
}

/// The rows of every instance's snapshots, each with its instance's name; those of one instance the oldest first.
pub(super) fn all_rows(
    host: &Host,
    project: &str,
) -> Result<Vec<(String, Versioned<rows::Snapshot>)>, Error> {
    let mut found = host.store().rows::<rows::Snapshot>().list(project)?;
    in_order(&mut found);
    Ok(found.into_iter().filter_map(of_instance).collect())
}

/// A row whose name is `INSTANCE/NAME`, as that instance's row of that name.
pub(super) fn of_instance<T>(mut found: Versioned<T>) -> Option<(String, Versioned<T>)> {
    let (instance, name) = found.name.split_once('/')?;
    let (instance, name) = (instance.to_owned(), name.to_owned());
    found.name = name;
    Some((instance, found))
}

pub(crate) fn load_snapshot(
    host: &Host,
    project: &str,
    instance: &str,
    snapshot: &str,
) -> Result<Versioned<rows::Snapshot>, Error> {
    load(host, project, instance)?;
    let found = host.store().rows::<rows::Snapshot>().get(project, &row_name(instance, snapshot))?;
    found.ok_or_else(|| Error::not_found(WHAT, row_name(instance, snapshot)))
}

fn render(name: String, row: rows::Snapshot, profiles: &Profiles) -> InstanceSnapshot {
    let expanded = expand_parts((&row.profiles, &row.config, &row.devices), profiles);
    let time = |time: String| if time.is_empty() { ZERO_TIME.to_owned() } else { time };
    InstanceSnapshot {
        name,
        architecture: row.architecture,
        config: ConfigMap(row.config),
        created_at: row.created_at,
        description: row.description,
        devices: DevicesMap(row.devices),
        ephemeral: row.ephemeral,
        expanded_config: ConfigMap(expanded.config),
        expanded_devices: DevicesMap(expanded.devices),
        expires_at: time(row.expires_at),
        last_used_at: time(row.last_used_at),
        profiles: row.profiles,
        size: i64::try_from(row.size).unwrap_or(i64::MAX),
        stateful: false,
    }
}

/// Fills in how much a snapshot takes, when that was not counted as it was taken. The pool counts it once.
fn measure(host: &Host, project: &str, instance: &str, found: &mut Versioned<rows::Snapshot>) {
    if found.row.size != 0 {
        return;
    }
    let counted = load(host, project, instance)
        .and_then(|row| storage::pool(host, &row.row.pool))
        .and_then(|pool| Ok(pool.snapshot_usage(&VolumeName::container(instance)?, &found.name)?));
    // One that cannot be counted now is no reason to show none.
    found.row.size = counted.unwrap_or(0);
}

/// The snapshots of an instance, the oldest first.
///
/// # Errors
/// When there is no such instance.
pub fn snapshots(host: &Host, project: &str, instance: &str) -> Result<Vec<InstanceSnapshot>, Error> {
    load(host, project, instance)?;
    of(host, project, instance, &profiles(host, project)?)
}

/// The same for an instance that is known to be there.
fn of(
    host: &Host,
    project: &str,
    instance: &str,
    profiles: &Profiles,
) -> Result<Vec<InstanceSnapshot>, Error> {
    Ok(rendered(host, project, instance, rows_of(host, project, instance)?, profiles))
}

/// Rows of an instance's snapshots as they are shown.
pub(super) fn rendered(
    host: &Host,
    project: &str,
    instance: &str,
    mut found: Vec<Versioned<rows::Snapshot>>,
    profiles: &Profiles,
) -> Vec<InstanceSnapshot> {
    for snapshot in &mut found {
        measure(host, project, instance, snapshot);
    }
    found.into_iter().map(|found| render(found.name, found.row, profiles)).collect()
}

/// One snapshot.
///
/// # Errors
/// When there is none of that name.
pub fn snapshot(host: &Host, project: &str, instance: &str, name: &str) -> Result<InstanceSnapshot, Error> {
    let mut found = load_snapshot(host, project, instance, name)?;
    found.name = name.to_owned();
    measure(host, project, instance, &mut found);
    Ok(render(name.to_owned(), found.row, &profiles(host, project)?))
}

/// The tag of what PUT changes of a snapshot.
#[must_use]
pub fn snapshot_tag(snapshot: &InstanceSnapshot) -> String {
    etag::etag(&snapshot.expires_at)
}
