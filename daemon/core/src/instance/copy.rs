//! A new instance from another one or from a snapshot, in the same pool or another: the files, the config, and the
//! snapshots unless they are not wanted.

use std::sync::Arc;

use cabin_api::instance::InstancesPost;
use cabin_store::rows::{self, Config, Devices};
use cabin_undo::atomically;
use serde_json::json;

use super::carry::{self, Load, Target, root_in};
use super::checked::Checked;
use super::create::{link, row_of, volatile};
use super::snapshot::{load_snapshot, row_name, rows_of};
use super::{WHAT, address, expand, load, profiles, profiles_of, root_pool};
use super::{intent, place};
use crate::{Error, Host, Op, ids, resolve, storage};

/// What is to be copied.
struct Source {
    instance: String,
    snapshot: Option<String>,
    pool: String,
    description: String,
    profiles: Vec<String>,
    config: Config,
    devices: Devices,
    volume: rows::OwnVolume,
}

fn source(host: &Host, project: &str, named: &str) -> Result<Source, Error> {
    match named.split_once('/') {
        None => {
            let row = load(host, project, named)?.row;
            Ok(Source {
                instance: named.to_owned(),
                snapshot: None,
                pool: row.pool,
                description: row.description,
                profiles: row.profiles,
                config: row.config,
                devices: row.devices,
                volume: row.volume,
            })
        }
        Some((instance, snapshot)) => {
            let pool = load(host, project, instance)?.row.pool;
            let row = load_snapshot(host, project, instance, snapshot)?.row;
            Ok(Source {
                instance: instance.to_owned(),
                snapshot: Some(snapshot.to_owned()),
                pool,
                description: row.description,
                profiles: row.profiles,
                config: row.config,
                devices: row.devices,
                volume: row.volume,
            })
        }
    }
}

/// Fills in from the source what the request leaves out, and refuses what cannot be copied.
///
/// # Errors
/// When there is no such source, or what is asked is not supported.
pub(super) fn check(host: &Host, project: &str, post: &mut InstancesPost) -> Result<(), Error> {
    if !matches!(post.source.project.as_str(), "" | crate::DEFAULT_PROJECT) {
        return Err(Error::not_found("project", post.source.project.clone()));
    }
    let source = source(host, project, &post.source.source)?;
    if post.source.refresh && source.snapshot.is_some() {
        return Err(Error::invalid("a copy is brought up to date from an instance, not from a snapshot"));
    }
    let mut config = source.config;
    // What the request says goes over it. The new instance has a memory of its own.
    config.extend(std::mem::take(&mut post.put.config.0));
    config.retain(|key, value| !key.starts_with("volatile.") && !value.is_empty());
    post.put.config.0 = config;
    for (name, device) in source.devices {
        post.put.devices.0.entry(name).or_insert(device);
    }
    post.put.profiles.get_or_insert(source.profiles);
    if post.put.description.is_empty() {
        post.put.description = source.description;
    }
    Ok(())
}

/// The instance that a copy is of, or of a snapshot of.
pub(super) fn origin(post: &InstancesPost) -> &str {
    post.source.source.split('/').next().unwrap_or_default()
}

/// Makes the copy; the caller holds the turns of the new name and of the origin.
pub(super) fn create(host: &Arc<Host>, op: &Op, project: &str, post: &InstancesPost) -> Result<(), Error> {
    let name = &post.name;
    let named = post.source.source.clone();
    let source = source(host, project, &named)?;
    let mut row = row_of(post, volatile(None));
    row.volume = source.volume;
    // One that never ran has its first files still to be written.
    let pending = source.config.get("volatile.apply_template").filter(|pending| *pending == "create");
    row.config.insert("volatile.apply_template".into(), pending.map_or("copy", String::as_str).into());
    if let Some(image) = source.config.get("volatile.base_image") {
        row.config.insert("volatile.base_image".into(), image.clone());
    }
    row.pool = root_pool(&expand(&row, &profiles_of(host, project, &row.profiles)?).devices)?;
    let templates = host.store().rows::<rows::Templates>().get(project, &source.instance)?;
    let templates = templates.map(|found| found.row).unwrap_or_default();
    let whole = source.snapshot.is_none() && !post.source.instance_only;
    let snapshots = if whole { rows_of(host, project, &source.instance)? } else { Vec::new() };
    let names: Vec<String> = snapshots.iter().map(|snapshot| snapshot.name.clone()).collect();
    let (from, to) = (storage::pool(host, &source.pool)?, storage::pool(host, &row.pool)?);
    let volume = place::clear(host, project, &to, name)?;
    let load = Load {
        project,
        instance: &source.instance,
        pool: &from,
        snapshot: source.snapshot.as_deref(),
        snapshots: &names,
        inconsistent: post.source.allow_inconsistent,
    };
    let target = Target { pool: &to, volume: &volume, replaces: None };
    still_there(host, project, &row)?;
    atomically(|undo| -> Result<(), Error> {
        row.ids = ids::claim(host, name, undo)?;
        let staged = carry::stage(host, op, &load, &target, undo)?;
        // That may have taken long; only what is made now needs all to stay.
        let _kept = host.keep_layout();
        let new = Checked::in_its_pool(host, project, row.clone())?;
        for one in staged {
            one.show(undo)?;
        }
        let mut txn = new.insert(host.store().begin(), project, name)?.write(project, name, &templates)?;
        let profiles = profiles(host, project)?;
        for snapshot in snapshots {
            let mut kept = snapshot.row;
            root_in(&row.pool, &kept.profiles, &profiles, &mut kept.devices);
            txn = txn.insert(project, &row_name(name, &snapshot.name), &kept)?;
        }
        link(host, name, &row.pool, undo)?;
        resolve::reserve_fixed(host, name, &new.row, &new.expanded, undo)?;
        match intent::end_hold(host, project, &source.instance, txn)?.commit() {
            Err(cabin_store::Error::Changed { .. }) => Err(Error::Exists { what: WHAT, name: name.clone() }),
            other => Ok(other.map(drop)?),
        }
    })?;
    let context = json!({ "source": named });
    host.events().lifecycle(project, "instance-created", &address(name), name, context, op.requestor());
    Ok(())
}

/// Refuses when something that the row names has gone meanwhile.
pub(super) fn still_there(host: &Host, project: &str, row: &rows::Instance) -> Result<(), Error> {
    let expanded = expand(row, &profiles_of(host, project, &row.profiles)?);
    storage::pool(host, &row.pool)?;
    resolve::check_disks(host, &expanded.devices)?;
    resolve::check_nics(host, &expanded.devices)
}
