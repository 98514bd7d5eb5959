//! Profiles: config and devices that many instances share.

use std::collections::BTreeSet;
use std::sync::Arc;

use cabin_api::profile as api;
use cabin_api::{ConfigMap, DevicesMap};
use cabin_profiles::Who;
use cabin_store::{Versioned, rows};
use cabin_undo::atomically;
use parking_lot::RwLockWriteGuard;
use serde_json::{Value, json};

use crate::busy::Turn;
use crate::resolve::{self, FixedMove};
use crate::{Error, Host, etag, instance, limits};

const WHAT: &str = "profile";

/// Every profile.
///
/// # Errors
/// When the rows cannot be read.
pub fn list(host: &Host, project: &str) -> Result<Vec<api::Profile>, Error> {
    let users = users(host, project)?;
    let found = host.store().rows::<rows::Profile>().list(project)?;
    Ok(found.into_iter().map(|profile| render(profile, project, &users)).collect())
}

/// One profile.
///
/// # Errors
/// When there is none of that name.
pub fn get(host: &Host, project: &str, name: &str) -> Result<api::Profile, Error> {
    Ok(render(load(host, project, name)?, project, &users(host, project)?))
}

/// The tag of what PUT changes.
#[must_use]
pub fn tag(profile: &api::Profile) -> String {
    etag::etag(&(&profile.config, &profile.description, &profile.devices))
}

pub(crate) fn load(host: &Host, project: &str, name: &str) -> Result<Versioned<rows::Profile>, Error> {
    let found = host.store().rows::<rows::Profile>().get(project, name)?;
    found.ok_or_else(|| Error::not_found(WHAT, name))
}

/// Which instances use which profiles, as (profile, instance).
fn users(host: &Host, project: &str) -> Result<Vec<(String, String)>, Error> {
    let instances = host.store().rows::<rows::Instance>().list(project)?;
    Ok(instances
        .into_iter()
        .flat_map(|found| found.row.profiles.into_iter().map(move |profile| (profile, found.name.clone())))
        .collect())
}

fn render(found: Versioned<rows::Profile>, project: &str, users: &[(String, String)]) -> api::Profile {
    api::Profile {
        config: ConfigMap(found.row.config),
        description: found.row.description,
        devices: DevicesMap(found.row.devices),
        used_by: users
            .iter()
            .filter(|(profile, _)| *profile == found.name)
            .map(|(_, instance)| format!("/1.0/instances/{instance}"))
            .collect(),
        name: found.name,
        project: project.to_owned(),
    }
}

fn address(name: &str) -> String {
    format!("/1.0/profiles/{name}")
}

fn checked(put: api::ProfilePut) -> Result<rows::Profile, Error> {
    let (config, devices) = (put.config.given(), put.devices.given());
    cabin_profiles::validate_instance_config(&config, Who::Profile)?;
    cabin_profiles::validate_devices(&devices, Who::Profile)?;
    Ok(rows::Profile { description: put.description, config, devices })
}

/// Makes a profile.
///
/// # Errors
/// For a bad name, a name that is taken, or config that makes no sense.
pub fn create(host: &Host, project: &str, post: api::ProfilesPost) -> Result<(), Error> {
    cabin_profiles::value::name::object(&post.name)?;
    let present = host.store().rows::<rows::Profile>().list(project)?;
    if present.iter().any(|profile| profile.name == post.name) {
        return Err(Error::Exists { what: WHAT, name: post.name });
    }
    limits::one_more("profiles", present.len(), limits::PROFILES)?;
    let put = api::ProfilePut { config: post.config, description: post.description, devices: post.devices };
    let row = checked(put)?;
    host.store().begin().insert(project, &post.name, &row)?.commit()?;
    host.events().lifecycle(project, "profile-created", &address(&post.name), &post.name, Value::Null, None);
    Ok(())
}

/// Replaces a profile, and applies what changes to every running instance that uses it, and to the addresses that
/// are kept for the others: to all, or nothing is changed.
///
/// # Errors
/// When there is none, somebody else changed it, the config makes no sense for it or for an instance that
/// uses it, or an instance is busy or cannot be changed live.
pub fn update(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    put: api::ProfilePut,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let row = checked(put)?;
    replace(host, project, name, if_match, move |_| Ok(row))
}

/// The instances that use a profile, and what keeps it so: nobody begins to use it, and none of them gets another
/// name, while this is held.
struct Users<'host> {
    names: BTreeSet<String>,
    _alone: RwLockWriteGuard<'host, ()>,
    _turns: Vec<Turn>,
}

fn hold_users<'host>(host: &'host Host, project: &str, name: &str) -> Result<Users<'host>, Error> {
    loop {
        let listed = instance::using_profile(host, project, name)?;
        let turns = host.busy().take_all(&listed.iter().map(String::as_str).collect::<Vec<_>>(), "update")?;
        let alone = host.change_layout();
        let names = instance::using_profile(host, project, name)?;
        // Others may have come while the turns were waited for.
        if names.is_subset(&listed) {
            return Ok(Users { names, _alone: alone, _turns: turns });
        }
    }
}

fn replace(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    if_match: Option<&str>,
    new: impl FnOnce(rows::Profile) -> Result<rows::Profile, Error>,
) -> Result<(), Error> {
    let users = hold_users(host, project, name)?;
    let old = load(host, project, name)?;
    let (revision, row) = (old.revision, new(old.row.clone())?);
    etag::check(WHAT, name, &tag(&render(old, project, &[])), if_match)?;
    let (mut changes, mut moves) = (Vec::new(), Vec::new());
    for user in &users.names {
        instance::check_with_profile(host, project, user, name, &row)?;
        let (change, moved) = change_of(host, project, user, (name, &row))?;
        changes.push(change);
        moves.extend(moved);
    }
    atomically(|undo| -> Result<(), Error> {
        let mut txn = host.store().begin().update(project, name, revision, &row)?;
        resolve::move_all_fixed(host, moves, undo)?;
        for (user, revision, changed, change) in &changes {
            change.make(host, project, undo)?;
            // Each is compared even if its row stays: it must be what the change was made from.
            txn = match changed {
                Some(row) => txn.update(project, user, *revision, row)?,
                None => txn.check::<rows::Instance>(project, user, Some(*revision)),
            };
            txn = change.forget(project, txn);
        }
        match txn.commit() {
            Err(cabin_store::Error::Changed { .. }) => {
                Err(Error::Changed { what: WHAT, name: name.to_owned() })
            }
            other => Ok(other.map(drop)?),
        }
    })?;
    for (_, _, _, change) in changes {
        change.done();
    }
    host.events().lifecycle(project, "profile-updated", &address(name), name, Value::Null, None);
    Ok(())
}

/// An instance that a changed profile changes: its revision, its new row when that differs, and what must be
/// done to it while it runs.
type Affected = (String, cabin_store::Revision, Option<rows::Instance>, instance::Change);

/// With the addresses that move with it, when it does not run.
fn change_of(
    host: &Host,
    project: &str,
    user: &str,
    (name, changed): (&str, &rows::Profile),
) -> Result<(Affected, Option<FixedMove>), Error> {
    let found = instance::load(host, project, user)?;
    let mut profiles = instance::profiles_of(host, project, &found.row.profiles)?;
    let before = instance::expand(&found.row, &profiles);
    profiles.insert(name.to_owned(), changed.clone());
    let mut row = found.row.clone();
    let expanded = instance::expand(&row, &profiles);
    instance::give_macs(host, &mut row, &expanded)?;
    let after = instance::expand(&row, &profiles);
    let moved = match host.live().get(user) {
        None => FixedMove::of(host, (user, &found.row, &before), (user, &row, &after))?,
        Some(_) => None,
    };
    let change = instance::Change::of(host, user, (&found.row, &before), (&row, &after))?;
    change.note(&mut row);
    Ok(((user.to_owned(), found.revision, (row != found.row).then_some(row), change), moved))
}

/// Merges into a profile.
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
    let sent: api::ProfilePut =
        serde_json::from_value(body.clone()).map_err(|source| Error::Body { source })?;
    replace(host, project, name, if_match, move |old| {
        let mut config = old.config;
        config.extend(sent.config.0);
        let mut devices = old.devices;
        devices.extend(sent.devices.0);
        let description = if body.get("description").is_some() { sent.description } else { old.description };
        checked(api::ProfilePut { config: ConfigMap(config), description, devices: DevicesMap(devices) })
    })
}

/// Gives a profile another name, in every instance that uses it too.
///
/// # Errors
/// When there is none, or the new name is bad or taken, or for `default`.
pub fn rename(host: &Host, project: &str, name: &str, new: &str) -> Result<(), Error> {
    refuse_default(name, "renamed")?;
    // Nobody may begin to use it by its old name meanwhile.
    let _alone = host.change_layout();
    cabin_profiles::value::name::object(new)?;
    let old = load(host, project, name)?;
    if host.store().rows::<rows::Profile>().get(project, new)?.is_some() {
        return Err(Error::Exists { what: WHAT, name: new.to_owned() });
    }
    let mut txn = host
        .store()
        .begin()
        .check::<rows::Profile>(project, name, Some(old.revision))
        .insert(project, new, &old.row)?
        .remove::<rows::Profile>(project, name);
    for mut user in host.store().rows::<rows::Instance>().list(project)? {
        if user.row.profiles.iter().any(|profile| profile == name) {
            for profile in user.row.profiles.iter_mut().filter(|profile| *profile == name) {
                *profile = new.to_owned();
            }
            txn = txn.update(project, &user.name, user.revision, &user.row)?;
        }
    }
    // What a snapshot brings back names its profiles too.
    for mut kept in host.store().rows::<rows::Snapshot>().list(project)? {
        if kept.row.profiles.iter().any(|profile| profile == name) {
            for profile in kept.row.profiles.iter_mut().filter(|profile| *profile == name) {
                *profile = new.to_owned();
            }
            txn = txn.update(project, &kept.name, kept.revision, &kept.row)?;
        }
    }
    txn.commit()?;
    let context = json!({ "old_name": name });
    host.events().lifecycle(project, "profile-renamed", &address(new), new, context, None);
    Ok(())
}

/// Deletes a profile that nothing uses.
///
/// # Errors
/// When there is none, it is in use, or for `default`.
pub fn delete(host: &Host, project: &str, name: &str) -> Result<(), Error> {
    refuse_default(name, "deleted")?;
    // Nobody may begin to use it meanwhile.
    let _alone = host.change_layout();
    let old = load(host, project, name)?;
    if let Some((_, user)) = users(host, project)?.into_iter().find(|(profile, _)| profile == name) {
        let by = format!("instance `{user}`");
        return Err(Error::InUse { what: WHAT, name: name.to_owned(), by });
    }
    host.store()
        .begin()
        .check::<rows::Profile>(project, name, Some(old.revision))
        .remove::<rows::Profile>(project, name)
        .commit()?;
    host.events().lifecycle(project, "profile-deleted", &address(name), name, Value::Null, None);
    Ok(())
}

fn refuse_default(name: &str, act: &str) -> Result<(), Error> {
    if name == "default" {
        return Err(Error::invalid(format!("profile `default` cannot be {act}")));
    }
    Ok(())
}
