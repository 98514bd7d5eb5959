//! Custom volumes: one file per verb, and here what all verbs share: names, loading, who uses one, rendering.
//!
//! Files in a volume carry the plain ids `0…`; every instance it is attached to sees them through a mount of its
//! own that shows its ids, so they look right in all of them at once.

mod attached;
mod backup;
mod copy;
mod create;
mod delete;
mod files;
mod import;
mod intent;
mod keep;
mod kept;
mod own;
mod place;
mod refresh;
mod rename;
mod returning;
mod snapshot;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;

use cabin_api::storage as api;
use cabin_api::volume::{VolumeFull, VolumeState};
use cabin_api::{ConfigMap, ZERO_TIME};
use cabin_store::{Versioned, rows};

use crate::busy::Turn;
use crate::{Error, Host, etag, instance, resolve, storage};

pub(crate) use attached::Attached;
pub use backup::{Export, export};
pub use copy::{check_copy, copy};
pub use create::{check_new, create};
pub use delete::delete;
pub use files::files;
pub use import::{Planned, import, look as look_at_backup};
pub use kept::{
    backup, backups, check_new_backup, check_rename_backup, create_backup, delete_backup, open_backup,
    rename_backup,
};
pub use own::{own, patch_own, update_own, update_own_snapshot};
pub use rename::{check_rename, move_to, rename};
pub use snapshot::{
    check_new_snapshot, check_rename_snapshot, create_snapshot, delete_snapshot, rename_snapshot, restore,
    snapshot, snapshot_in, snapshot_tag, snapshots, snapshots_in, update_snapshot,
};
pub use update::{patch, update};

pub(crate) use intent::{finish, refuse_undecided, settle_named, sweep, with_old_trees};
pub(crate) use keep::go_through;
pub(crate) use own::render as render_own;
use returning::undecided;
pub(crate) use returning::{
    Returning, carried_over, check as check_return, forget_returned, give_back, held, take_back,
};

pub(crate) const WHAT: &str = "storage volume";

/// What a volume's row is named.
pub(crate) fn row_name(pool: &str, volume: &str) -> String {
    format!("{pool}/{volume}")
}

fn address(pool: &str, volume: &str) -> String {
    format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}")
}

/// Its row.
///
/// # Errors
/// When there is none of that name, or no such pool.
pub(crate) fn load(
    host: &Host,
    project: &str,
    pool: &str,
    volume: &str,
) -> Result<Versioned<rows::Volume>, Error> {
    let found = host.store().rows::<rows::Volume>().get(project, &row_name(pool, volume))?;
    match found {
        Some(found) => Ok(found),
        None => {
            // A pool that is not there is the first that is wrong.
            storage::look_up(host, pool)?;
            Err(Error::not_found(WHAT, volume))
        }
    }
}

/// By what name the table of turns knows a volume; no instance can have it.
fn busy_name(pool: &str, volume: &str) -> String {
    format!("storage volume `{pool}/{volume}`")
}

/// The turn to change a volume, which must exist. What an earlier daemon left undone with it is finished first.
fn turn(
    host: &Arc<Host>,
    project: &str,
    pool: &str,
    volume: &str,
    doing: &'static str,
) -> Result<Turn, Error> {
    load(host, project, pool, volume)?;
    let turn = host.busy().take(&busy_name(pool, volume), doing)?;
    intent::settle(host, project, pool, volume)?;
    Ok(turn)
}

/// By what name the table of turns knows the open files of a volume.
fn files_name(pool: &str, volume: &str) -> String {
    format!("the files of storage volume `{pool}/{volume}`")
}

/// Waits until nobody reads or writes a volume's files through the API, and keeps it so: its tree is to be exchanged or
/// goes, and what would be written in it then is lost.
fn alone_with_files(host: &Host, pool: &str, volume: &str, doing: &'static str) -> Result<Turn, Error> {
    host.busy().take(&files_name(pool, volume), doing)
}

/// What is going on with a volume that takes its tree away from under those who would mount it.
const MOVING: &str = "move";

/// Refuses to mount a volume whose tree is on its way to another place.
///
/// # Errors
/// [`Error::Busy`].
pub(crate) fn refuse_moving(host: &Host, pool: &str, volume: &str) -> Result<(), Error> {
    let name = busy_name(pool, volume);
    match host.busy().doing(&name) {
        Some(MOVING) => Err(Error::Busy { name, doing: MOVING }),
        _ => Ok(()),
    }
}

/// Who uses which volume, by the rows' names: instances by their expanded devices, profiles by their own.
#[derive(Default)]
pub(crate) struct Users(BTreeMap<String, Vec<String>>);

impl Users {
    /// Looks at every instance and profile.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub fn of(host: &Host, project: &str) -> Result<Users, Error> {
        let profiles = instance::profiles(host, project)?;
        let mut users = Users::default();
        for found in host.store().rows::<rows::Instance>().list(project)? {
            let devices = instance::expand(&found.row, &profiles).devices;
            users.note(&devices, &format!("/1.0/instances/{}", found.name));
        }
        for (name, profile) in &profiles {
            users.note(&profile.devices, &format!("/1.0/profiles/{name}"));
        }
        Ok(users)
    }

    fn note(&mut self, devices: &rows::Devices, user: &str) {
        for (pool, volume) in devices.values().filter_map(resolve::volume_of) {
            let users = self.0.entry(row_name(pool, volume)).or_default();
            if users.iter().all(|known| known != user) {
                users.push(user.to_owned());
            }
        }
    }

    /// The addresses of those that use one.
    pub fn get(&self, row: &str) -> Vec<String> {
        self.0.get(row).cloned().unwrap_or_default()
    }
}

/// The running instances that have a volume mounted by their config.
fn running_users(host: &Host, users: &Users, row: &str) -> Vec<String> {
    let names = users.0.get(row).into_iter().flatten();
    names
        .filter_map(|user| user.strip_prefix("/1.0/instances/"))
        .filter(|name| host.live().get(name).is_some_and(|live| live.exit().is_none()))
        .map(str::to_owned)
        .collect()
}

fn render(name: String, row: rows::Volume, project: &str, used_by: Vec<String>) -> api::Volume {
    api::Volume {
        config: ConfigMap(row.config),
        description: row.description,
        name,
        kind: "custom".to_owned(),
        used_by,
        location: "none".to_owned(),
        content_type: "filesystem".to_owned(),
        project: project.to_owned(),
        created_at: if row.created_at.is_empty() { ZERO_TIME.to_owned() } else { row.created_at },
    }
}

/// The custom volumes of a pool.
///
/// # Errors
/// When the rows cannot be read.
pub fn list(host: &Host, project: &str, pool: &str) -> Result<Vec<api::Volume>, Error> {
    storage::look_up(host, pool)?;
    let users = Users::of(host, project)?;
    let mut volumes = Vec::new();
    for found in host.store().rows::<rows::Volume>().list_from(project, &row_name(pool, ""))? {
        let used_by = users.get(&found.name);
        let name = found.name.split_once('/').map_or_else(|| found.name.clone(), |(_, name)| name.to_owned());
        volumes.push(render(name, found.row, project, used_by));
    }
    Ok(volumes)
}

/// One custom volume.
///
/// # Errors
/// When there is none of that name.
pub fn get(host: &Host, project: &str, pool: &str, volume: &str) -> Result<api::Volume, Error> {
    storage::look_up(host, pool)?;
    let found = load(host, project, pool, volume)?;
    let users = Users::of(host, project)?;
    Ok(render(volume.to_owned(), found.row, project, users.get(&row_name(pool, volume))))
}

/// The tag of what PUT changes.
#[must_use]
pub fn tag(volume: &api::Volume) -> String {
    etag::etag(&(&volume.name, &volume.kind, &volume.description, &volume.config))
}

/// Bytes it takes on disk.
///
/// # Errors
/// When there is none of that name, or its pool is unavailable.
pub fn usage(host: &Arc<Host>, project: &str, pool: &str, volume: &str) -> Result<api::Usage, Error> {
    let found = load(host, project, pool, volume)?;
    // After a change of its row, as a restore is one, it is another.
    let place = format!("custom/{}/{:?}", row_name(pool, volume), found.revision);
    let (pool, volume) = (storage::pool(host, pool)?, cabin_storage::VolumeName::custom(volume)?);
    let used = host.measured().bytes(&place, || Ok(pool.usage(&volume)?))?;
    Ok(api::Usage { used, total: pool.limit_of(&volume)?.unwrap_or(0) })
}

/// A volume with its snapshots and what it uses; what cannot be read is left out.
#[must_use]
pub fn full(host: &Arc<Host>, project: &str, pool: &str, volume: api::Volume) -> VolumeFull {
    let (mut backups_of, mut state) = (Vec::new(), None);
    if volume.kind == "custom" {
        backups_of = backups(host, project, pool, &volume.name).unwrap_or_default();
        state = Some(VolumeState { usage: usage(host, project, pool, &volume.name).ok() });
    }
    let mut snapshots_of =
        snapshots_in(host, project, (pool, &volume.kind, &volume.name)).unwrap_or_default();
    // Here, as Incus has them, by their own names.
    for snapshot in &mut snapshots_of {
        if let Some((_, name)) = snapshot.name.split_once('/') {
            snapshot.name = name.to_owned();
        }
    }
    VolumeFull { volume, backups: Some(backups_of), snapshots: Some(snapshots_of), state }
}
