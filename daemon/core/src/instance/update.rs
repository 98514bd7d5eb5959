//! `update`: config, devices and profiles of an instance, applied at once to a running one.

use std::collections::BTreeSet;
use std::sync::Arc;

use cabin_api::instance::InstancePut;
use cabin_api::{ConfigMap, DevicesMap};
use cabin_store::rows;
use cabin_undo::atomically;
use serde_json::Value;

use super::checked::Checked;
use super::create::check_expanded;
use super::{Change, Expanded, WHAT, address, expand, load, mac, profiles_of, render, tag, turn};
use crate::{Error, Host, etag, resolve};

/// Replaces what PUT may change. What the server keeps for itself (`volatile.*`) stays as it is,
/// but for the addresses of nics.
///
/// # Errors
/// When there is none, somebody else changed it, the result makes no sense, or a running container cannot
/// be changed so (then nothing is).
pub fn update(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    put: InstancePut,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let _turn = turn(host, project, name, "update")?;
    let _kept = host.keep_layout();
    change(host, project, name, put, if_match)
}

/// Merges a body into what PUT may change.
///
/// # Errors
/// As [`update`].
pub fn patch(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    body: Value,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let _turn = turn(host, project, name, "update")?;
    let _kept = host.keep_layout();
    let old = load(host, project, name)?.row;
    let sent: InstancePut = serde_json::from_value(body.clone()).map_err(|source| Error::Body { source })?;
    let named = |field: &str| body.get(field).is_some();
    let mut config = old.config;
    config.extend(sent.config.0);
    let mut devices = old.devices;
    devices.extend(sent.devices.0);
    let put = InstancePut {
        architecture: old.architecture,
        config: ConfigMap(config),
        devices: DevicesMap(devices),
        ephemeral: if named("ephemeral") { sent.ephemeral } else { old.ephemeral },
        profiles: sent.profiles.or(Some(old.profiles)),
        description: if named("description") { sent.description } else { old.description },
        ..InstancePut::default()
    };
    change(host, project, name, put, if_match)
}

/// The caller holds the instance's turn and the layout.
fn change(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    put: InstancePut,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let old = load(host, project, name)?;
    let known = profiles_of(host, project, &old.row.profiles)?;
    etag::check(WHAT, name, &tag(&render(host, project, old.clone(), &known)), if_match)?;
    let before = expand(&old.row, &known);
    let mut row = old.row.clone();
    row.description = put.description;
    row.ephemeral = put.ephemeral;
    row.profiles = put.profiles.unwrap_or_default();
    row.devices = put.devices.given();
    let sent = put.config.given();
    row.config = sent.clone();
    row.config.retain(|key, _| !key.starts_with("volatile."));
    row.config.extend(
        old.row
            .config
            .iter()
            .filter(|(key, _)| key.starts_with("volatile."))
            .map(|(k, v)| (k.clone(), v.clone())),
    );
    mac::pin(&mut row, &sent)?;
    let mut new = Checked::of(host, project, row)?;
    refuse_fixed(name, &new.row.pool, &before, &new.expanded)?;
    resolve::check_paths(host, &before.devices, &new.expanded.devices)?;
    let change = Change::of(host, name, (&old.row, &before), (&new.row, &new.expanded))?;
    change.note(&mut new.row);
    atomically(|undo| -> Result<(), Error> {
        change.make(host, project, undo)?;
        if host.live().get(name).is_none() {
            resolve::move_fixed(host, (name, &old.row, &before), (name, &new.row, &new.expanded), undo)?;
        }
        let txn = new.update(host.store().begin(), project, name, old.revision)?;
        match change.forget(project, txn).commit() {
            Err(cabin_store::Error::Changed { .. }) => {
                Err(Error::Changed { what: WHAT, name: name.to_owned() })
            }
            other => Ok(other.map(drop)?),
        }
    })?;
    change.done();
    host.events().lifecycle(project, "instance-updated", &address(name), name, Value::Null, None);
    Ok(())
}

/// Where the root lies cannot be changed by an update.
fn refuse_fixed(name: &str, pool: &str, before: &Expanded, after: &Expanded) -> Result<(), Error> {
    let moved = super::root_pool(&after.devices)? != pool;
    if moved && super::root_pool(&before.devices).is_ok_and(|old| old == pool) {
        return Err(Error::invalid(format!(
            "the root disk of instance `{name}` cannot move to another pool by an update"
        )));
    }
    Ok(())
}

/// The instances that use a profile.
pub(crate) fn using_profile(host: &Host, project: &str, profile: &str) -> Result<BTreeSet<String>, Error> {
    let found = host.store().rows::<rows::Instance>().list(project)?;
    Ok(found
        .into_iter()
        .filter(|instance| instance.row.profiles.iter().any(|name| name == profile))
        .map(|instance| instance.name)
        .collect())
}

/// Whether an instance would still make sense with a changed profile.
pub(crate) fn check_with_profile(
    host: &Host,
    project: &str,
    name: &str,
    profile: &str,
    changed: &rows::Profile,
) -> Result<(), Error> {
    let row = load(host, project, name)?.row;
    let mut profiles = profiles_of(host, project, &row.profiles)?;
    profiles.insert(profile.to_owned(), changed.clone());
    let expanded = expand(&row, &profiles);
    let checked = check_expanded(host, &expanded).and_then(|()| {
        match super::root_pool(&expanded.devices)? == row.pool {
            true => Ok(()),
            false => Err(Error::invalid("its root disk would be in another pool")),
        }
    });
    checked.map_err(|error| {
        Error::invalid(format!("profile `{profile}` does not fit instance `{name}`: {}", error.report()))
    })
}
