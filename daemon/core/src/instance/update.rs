//! `update`: config, devices and profiles of an instance, applied at once to a running one.

use std::collections::BTreeMap;
use std::sync::Arc;

use cabin_api::instance::InstancePut;
use cabin_api::{ConfigMap, DevicesMap};
use cabin_store::rows;
use cabin_undo::atomically;
use serde_json::Value;

use super::create::{check_config, check_expanded, give_macs};
use super::{Expanded, WHAT, address, expand, load, profiles_of, render, tag, turn};
use crate::live::Live;
use crate::{Error, Host, etag, resolve};

/// Replaces what PUT may change. What the server keeps for itself (`volatile.*`) stays as it is.
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
    if !put.restore.is_empty() {
        let reason = "this version has no snapshots";
        return Err(Error::Unsupported { what: format!("restoring `{}`", put.restore), reason });
    }
    let _turn = turn(host, project, name, "update")?;
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
    row.devices = put.devices.0;
    row.config = put
        .config
        .0
        .into_iter()
        .filter(|(key, value)| !key.starts_with("volatile.") && !value.is_empty())
        .collect();
    row.config.extend(
        old.row
            .config
            .iter()
            .filter(|(key, _)| key.starts_with("volatile."))
            .map(|(k, v)| (k.clone(), v.clone())),
    );
    let profiles = row.profiles.clone();
    check_config(host, project, &row, &profiles)?;
    let after_profiles = profiles_of(host, project, &row.profiles)?;
    let expanded = expand(&row, &after_profiles);
    give_macs(&mut row, &expanded);
    let after = expand(&row, &after_profiles);
    refuse_fixed(name, &row.pool, &before, &after)?;
    let stored = || -> Result<(), Error> {
        match host.store().begin().update(project, name, old.revision, &row)?.commit() {
            Err(cabin_store::Error::Changed { .. }) => {
                Err(Error::Changed { what: WHAT, name: name.to_owned() })
            }
            other => Ok(other.map(drop)?),
        }
    };
    match host.live().get(name).filter(|live| live.exit().is_none()) {
        Some(live) => apply(host, &live, (&old.row, &before), (&row, &after), stored)?,
        None => stored()?,
    }
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

/// Changes a running container, then stores; if storing fails, the container is as before.
fn apply(
    host: &Arc<Host>,
    live: &Arc<Live>,
    before: (&rows::Instance, &Expanded),
    after: (&rows::Instance, &Expanded),
    stored: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let (old_limits, limits) =
        (resolve::limits(host, &before.1.config)?, resolve::limits(host, &after.1.config)?);
    let old_nics = by_device(resolve::nics(host, &live.name, before.0, before.1)?);
    let new_nics = by_device(resolve::nics(host, &live.name, after.0, after.1)?);
    atomically(|undo| -> Result<(), Error> {
        if limits_differ(&before.1.config, &after.1.config) {
            let cgroups = host.runtime().cgroups();
            // A limit that cannot be set may have followed some that could.
            cgroups.set(&live.name, &limits).inspect_err(|_| drop(cgroups.set(&live.name, &old_limits)))?;
            let (host, name) = (host.clone(), live.name.clone());
            undo.push("limits", move || host.runtime().cgroups().set(&name, &old_limits))?;
        }
        for (device, (_, plugged)) in &old_nics {
            if new_nics
                .get(device)
                .is_none_or(|(_, new)| new.nic != plugged.nic || new.network != plugged.network)
            {
                unplug(host, live, &old_nics[device], undo)?;
            }
        }
        for (device, (bridge, plugged)) in &new_nics {
            if old_nics
                .get(device)
                .is_none_or(|(_, old)| old.nic != plugged.nic || old.network != plugged.network)
            {
                let netns = live.netns()?;
                host.network().plug(bridge, &plugged.nic, std::os::fd::AsFd::as_fd(&netns), undo)?;
            }
        }
        stored()
    })?;
    *live.nics.lock() = new_nics.into_values().map(|(_, plugged)| plugged).collect();
    Ok(())
}

/// Counts of processors are spread by chance: only a changed text is a changed limit.
fn limits_differ(before: &rows::Config, after: &rows::Config) -> bool {
    let limits = |config: &rows::Config| -> Vec<(String, String)> {
        let wanted = config.iter().filter(|(key, _)| key.starts_with("limits."));
        wanted.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    limits(before) != limits(after)
}

type Nic = (cabin_network::BridgeSpec, crate::live::Plugged);

fn by_device(nics: Vec<Nic>) -> BTreeMap<String, Nic> {
    nics.into_iter().map(|nic| (nic.1.device.clone(), nic)).collect()
}

fn unplug(host: &Arc<Host>, live: &Arc<Live>, old: &Nic, undo: &mut cabin_undo::Undo) -> Result<(), Error> {
    super::stop::unplug(host, &old.1)?;
    let (host, live, old) = (host.clone(), live.clone(), old.clone());
    undo.push(format!("unplugged `{}`", old.1.device), move || -> Result<(), Error> {
        let netns = live.netns()?;
        atomically(|undo| {
            host.network()
                .plug(&old.0, &old.1.nic, std::os::fd::AsFd::as_fd(&netns), undo)
                .map_err(Error::from)
        })?;
        Ok(())
    })?;
    Ok(())
}

/// The instances that use a profile.
pub(crate) fn using_profile(host: &Host, project: &str, profile: &str) -> Result<Vec<String>, Error> {
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

/// Applies a stored profile to the running instances that use it; every failure is told.
pub(crate) fn apply_profile_change(
    host: &Arc<Host>,
    project: &str,
    before: &[(String, Expanded)],
) -> Result<(), Error> {
    let mut failures = Vec::new();
    for (name, old) in before {
        if let Err(error) = apply_one(host, project, name, old) {
            failures.push(format!("`{name}`: {}", error.report()));
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "the profile is stored, but running instances could not be changed: {}",
            failures.join("; ")
        ))),
    }
}

fn apply_one(host: &Arc<Host>, project: &str, name: &str, old: &Expanded) -> Result<(), Error> {
    let _turn = turn(host, project, name, "update")?;
    let found = load(host, project, name)?;
    let profiles = profiles_of(host, project, &found.row.profiles)?;
    let mut row = found.row.clone();
    let expanded = expand(&row, &profiles);
    give_macs(&mut row, &expanded);
    let after = expand(&row, &profiles);
    let stored = || -> Result<(), Error> {
        if row != found.row {
            host.store().begin().update(project, name, found.revision, &row)?.commit()?;
        }
        Ok(())
    };
    match host.live().get(name).filter(|live| live.exit().is_none()) {
        Some(live) => apply(host, &live, (&row, old), (&row, &after), stored),
        None => stored(),
    }
}

/// The expanded state of instances, to be compared after a profile changed.
pub(crate) fn expanded_of(
    host: &Host,
    project: &str,
    names: &[String],
) -> Result<Vec<(String, Expanded)>, Error> {
    names
        .iter()
        .map(|name| {
            let row = load(host, project, name)?.row;
            Ok((name.clone(), expand(&row, &profiles_of(host, project, &row.profiles)?)))
        })
        .collect()
}
