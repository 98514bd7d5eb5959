//! Instances: one file per verb, and here what all verbs share: loading, expanding, rendering.

mod backup;
mod carry;
mod change;
mod checked;
mod console;
mod copy;
mod create;
mod delete;
mod diff;
mod exec;
mod files;
mod full;
mod image_metadata;
pub(crate) mod import;
mod intent;
mod logs;
mod mac;
mod place;
pub(crate) mod plug;
mod power;
mod rebuild;
mod refresh;
mod relocate;
mod rename;
pub(crate) mod snapshot;
mod start;
mod state;
mod stop;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;

use cabin_api::instance as api;
use cabin_api::{ConfigMap, DevicesMap, StatusCode, UNIX_ZERO};
use cabin_store::Versioned;
use cabin_store::rows::{self, Config, Devices};

use crate::busy::Turn;
use crate::{Error, Host, etag};

pub use backup::{
    Export, backup, backups, check_export, check_new_backup, check_rename_backup, create_backup,
    delete_backup, export, open_backup, rename_backup,
};
pub use console::{Console, attach_console, clear_console_log, console_log};
pub use create::{check_new, create};
pub use delete::{WhenRunning, delete};
pub use diff::diff;
pub use exec::{ExecStreams, Prepared, Session, exec, keep_exec_helper, prepare_exec, run_prepared};
pub use files::{Files, files};
pub use full::{Looks, get_full, list_full};
pub use image_metadata::{
    delete_template, image_metadata, metadata_tag, patch_metadata, template, templates, update_metadata,
    write_template,
};
pub use import::{Planned, Wishes, import, look};
pub use logs::{
    create_exec_output, delete_exec_output, delete_log, forget_exec_output, list_exec_output, logs,
    read_exec_output, read_log,
};
pub use power::{change_all, change_state, check_state_change};
pub use rebuild::{check_rebuild, rebuild};
pub use relocate::{check_relocate, relocate};
pub use rename::{check_rename, rename};
pub use snapshot::{
    Extent, check_expiry, check_new_snapshot, check_rename_snapshot, check_restore, create_snapshot,
    delete_snapshot, rename_snapshot, restore, snapshot, snapshot_tag, snapshots, update_snapshot,
};
pub use state::state;
pub use update::{patch, update};

pub(crate) use backup::{metadata, sweep as sweep_backups};
pub(crate) use change::Change;
pub(crate) use create::relink;
pub(crate) use intent::{forget as forget_intent, intend_restart, is_of_a_run};
pub(crate) use mac::{Claimed, give_macs};
pub(crate) use power::{start_again, start_one, stop_one};
use rename::take_back;
pub(crate) use snapshot::{expiry, load_snapshot};
pub(crate) use snapshot::{
    finish_rename, finish_snapshots, go_through, look_at_clock, sweep as sweep_snapshots, watch_snapshots,
};
pub(crate) use state::rendered_interface;
pub(crate) use stop::{
    ENDING, clean_up, delete_if_ephemeral, keep_last_console, restarts_by_itself, store_power, write_power,
    write_running,
};
pub(crate) use update::{check_with_profile, using_profile};

const WHAT: &str = "instance";

/// The config and devices of an instance with its profiles under them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub config: Config,
    pub devices: Devices,
}

/// The profiles of a project, read once for many instances.
pub(crate) type Profiles = BTreeMap<String, rows::Profile>;

pub(crate) fn profiles(host: &Host, project: &str) -> Result<Profiles, Error> {
    let found = host.store().rows::<rows::Profile>().list(project)?;
    Ok(found.into_iter().map(|profile| (profile.name, profile.row)).collect())
}

/// The profiles that some instances name, and no others.
pub(crate) fn profiles_of(host: &Host, project: &str, names: &[String]) -> Result<Profiles, Error> {
    names.iter().map(|name| Ok((name.clone(), crate::profile::load(host, project, name)?.row))).collect()
}

pub(crate) fn expand(row: &rows::Instance, profiles: &Profiles) -> Expanded {
    expand_parts((&row.profiles, &row.config, &row.devices), profiles)
}

/// Profiles, config and devices of an instance or snapshot.
type Parts<'a> = (&'a [String], &'a Config, &'a Devices);

fn expand_parts((names, config, devices): Parts<'_>, profiles: &Profiles) -> Expanded {
    let under: Vec<_> = names
        .iter()
        .filter_map(|name| profiles.get(name))
        .map(|profile| (&profile.config, &profile.devices))
        .collect();
    let (config, devices) = cabin_profiles::expand(&under, (config, devices));
    Expanded { config, devices }
}

pub(crate) fn load(host: &Host, project: &str, name: &str) -> Result<Versioned<rows::Instance>, Error> {
    let found = host.store().rows::<rows::Instance>().get(project, name)?;
    found.ok_or_else(|| Error::not_found(WHAT, name))
}

/// Changes the row of an instance whose turn the caller holds, whatever others change in it meanwhile (a volume or
/// network it names gets another name); gives it as it was. A row that stays the same is not written.
pub(crate) fn alter(
    host: &Host,
    project: &str,
    name: &str,
    change: impl Fn(&mut rows::Instance),
) -> Result<rows::Instance, Error> {
    loop {
        let found = load(host, project, name)?;
        let mut row = found.row.clone();
        change(&mut row);
        if row == found.row {
            return Ok(row);
        }
        match host.store().begin().update(project, name, found.revision, &row)?.commit() {
            Err(cabin_store::Error::Changed { .. }) => {}
            other => return Ok(other.map(|_| found.row)?),
        }
    }
}

/// The turn to change an instance, which must exist. What an earlier daemon left undone with it is finished first.
pub(crate) fn turn(host: &Arc<Host>, project: &str, name: &str, doing: &'static str) -> Result<Turn, Error> {
    load(host, project, name)?;
    let turn = host.busy().take(name, doing)?;
    snapshot::settle(host, project, name)?;
    Ok(turn)
}

pub(crate) fn address(name: &str) -> String {
    format!("/1.0/instances/{name}")
}

/// What an instance does now.
pub(crate) fn status(host: &Host, name: &str) -> StatusCode {
    match host.live().get(name) {
        None => StatusCode::Stopped,
        Some(live) if live.exit().is_some() => StatusCode::Stopped,
        Some(live) if live.is_frozen() => StatusCode::Frozen,
        Some(_) => StatusCode::Running,
    }
}

/// Whether nothing of an instance runs.
pub(crate) fn is_stopped(host: &Host, name: &str) -> bool {
    status(host, name) == StatusCode::Stopped
}

/// Every instance's name.
///
/// # Errors
/// When the rows cannot be read.
pub fn names(host: &Host, project: &str) -> Result<Vec<String>, Error> {
    Ok(host.store().rows::<rows::Instance>().names(project)?)
}

/// Every instance.
///
/// # Errors
/// When the rows cannot be read.
pub fn list(host: &Host, project: &str) -> Result<Vec<api::Instance>, Error> {
    let profiles = profiles(host, project)?;
    let found = host.store().rows::<rows::Instance>().list(project)?;
    Ok(found.into_iter().map(|instance| render(host, project, instance, &profiles)).collect())
}

/// One instance.
///
/// # Errors
/// When there is none of that name.
pub fn get(host: &Host, project: &str, name: &str) -> Result<api::Instance, Error> {
    let found = load(host, project, name)?;
    let profiles = profiles_of(host, project, &found.row.profiles)?;
    Ok(render(host, project, found, &profiles))
}

/// The tag of what PUT changes.
#[must_use]
pub fn tag(instance: &api::Instance) -> String {
    let put = (
        &instance.architecture,
        &instance.config,
        &instance.devices,
        instance.ephemeral,
        &instance.profiles,
        &instance.description,
    );
    etag::etag(&put)
}

fn render(
    host: &Host,
    project: &str,
    found: Versioned<rows::Instance>,
    profiles: &Profiles,
) -> api::Instance {
    let expanded = expand(&found.row, profiles);
    let status_code = status(host, &found.name);
    let row = found.row;
    api::Instance {
        architecture: row.architecture,
        config: ConfigMap(row.config),
        devices: DevicesMap(row.devices),
        ephemeral: row.ephemeral,
        profiles: row.profiles,
        stateful: false,
        description: row.description,
        created_at: row.created_at,
        expanded_config: ConfigMap(expanded.config),
        expanded_devices: DevicesMap(expanded.devices),
        name: found.name,
        status: status_code.text().to_owned(),
        status_code,
        last_used_at: if row.last_used_at.is_empty() { UNIX_ZERO.to_owned() } else { row.last_used_at },
        location: "none".to_owned(),
        kind: "container".to_owned(),
        project: project.to_owned(),
    }
}

/// The running container of an instance.
pub(crate) fn running(host: &Host, project: &str, name: &str) -> Result<Arc<crate::live::Live>, Error> {
    load(host, project, name)?;
    match host.live().get(name) {
        Some(live) if live.exit().is_none() => Ok(live),
        _ => Err(Error::invalid(format!("instance `{name}` is not running"))),
    }
}

fn is_root(device: &Config) -> bool {
    device.get("type").is_some_and(|kind| kind == "disk")
        && device.get("path").is_some_and(|path| path == "/")
}

/// The pool an instance's root disk lies in, by its devices.
pub(crate) fn root_pool(devices: &Devices) -> Result<String, Error> {
    devices
        .values()
        .find(|device| is_root(device))
        .and_then(|device| device.get("pool").cloned())
        .ok_or_else(|| {
            Error::invalid(
                "no root device could be found: give a disk device with path=/ and a pool, or use a profile that has one",
            )
        })
}
