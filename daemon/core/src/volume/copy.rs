//! A new volume from another one or from a snapshot of one, in the same pool or another, with its snapshots unless
//! they are not wanted.

use std::sync::Arc;

use cabin_api::volume::VolumesPost;
use cabin_storage::{Activity, Origin, Pool, VolumeName};
use cabin_store::rows;
use cabin_undo::{Undo, atomically};
use serde_json::json;

use super::create::{check_new, config_of, limit_of, refuse_size};
use super::snapshot::{commit, load_snapshot, rows_of, snapshot_row};
use super::{WHAT, address, busy_name, load, place, row_name, turn};
use crate::{Error, Host, Op, clock, storage};

/// The source that a request names: pool, volume, and a snapshot when it is one.
fn named<'a>(pool: &'a str, post: &'a VolumesPost) -> (&'a str, &'a str, Option<&'a str>) {
    let from = if post.source.pool.is_empty() { pool } else { &post.source.pool };
    match post.source.name.split_once('/') {
        Some((volume, snapshot)) => (from, volume, Some(snapshot)),
        None => (from, &post.source.name, None),
    }
}

/// Whether it is a copy that is there, and to be brought up to date.
fn refreshes(host: &Host, project: &str, pool: &str, post: &VolumesPost) -> Result<bool, Error> {
    let there = host.store().rows::<rows::Volume>().get(project, &row_name(pool, &post.name))?.is_some();
    Ok(post.source.refresh && there)
}

/// Refuses at once what can be seen to fail.
///
/// # Errors
/// When there is no such source, the new name is bad or taken, or what is asked is not supported.
pub fn check_copy(host: &Host, project: &str, pool: &str, post: &VolumesPost) -> Result<(), Error> {
    if !matches!(post.source.kind.as_str(), "" | "copy") {
        let reason = "this version copies volumes on this server";
        return Err(Error::Unsupported { what: format!("source type `{}`", post.source.kind), reason });
    }
    if !matches!(post.source.project.as_str(), "" | crate::DEFAULT_PROJECT) {
        return Err(Error::not_found("project", post.source.project.clone()));
    }
    let (from, volume, snapshot) = named(pool, post);
    if refreshes(host, project, pool, post)? {
        return match snapshot {
            None => super::refresh::check(host, project, (from, volume), (pool, &post.name)),
            Some(_) => Err(Error::invalid("a copy is brought up to date from a volume, not from a snapshot")),
        };
    }
    let row = load(host, project, from, volume)?.row;
    if let Some(snapshot) = snapshot {
        load_snapshot(host, project, (from, volume, snapshot))?;
    }
    check_new(host, project, pool, post)?;
    refuse_size(host, pool, &row.config)
}

/// Makes the copy.
///
/// # Errors
/// As [`check_copy`], or when the host refuses.
pub fn copy(host: &Arc<Host>, op: &Op, project: &str, pool: &str, post: &VolumesPost) -> Result<(), Error> {
    let (from, volume, snapshot) = named(pool, post);
    if refreshes(host, project, pool, post)? {
        return super::refresh::refresh(host, op, project, (from, volume), pool, post);
    }
    let _source_turn = turn(host, project, from, volume, "copy")?;
    let _turn = host.busy().take(&busy_name(pool, &post.name), "create")?;
    {
        let _kept = host.keep_layout();
        check_copy(host, project, pool, post)?;
    }
    let (source, target) = (storage::pool(host, from)?, storage::pool(host, pool)?);
    let (old, new) = (VolumeName::custom(volume)?, place::clear(host, project, &target, &post.name)?);
    let row = row_of(host, project, (from, volume, snapshot), post)?;
    let snapshots = match snapshot.is_none() && !post.source.volume_only {
        true => rows_of(host, project, from, volume)?,
        false => Vec::new(),
    };
    atomically(|undo| -> Result<(), Error> {
        let origin = match snapshot {
            Some(snapshot) => Origin::Snapshot(&old, snapshot),
            None => Origin::Volume(&old, Activity::Running),
        };
        // Nobody who changes other things waits for what takes its time. What the volume has in common with its snapshots
        // can be shared with them when they are there.
        for snapshot in &snapshots {
            target.stage_custom_snapshot_from(&source, (&old, &snapshot.name), &new, undo)?.show(undo)?;
        }
        trees(&source, &target, origin, &new, undo)?;
        let _kept = host.keep_layout();
        storage::pool(host, pool)?;
        if let Some(bytes) = limit_of(&row.config)? {
            target.limit(&new, Some(bytes))?;
        }
        let mut txn = host.store().begin().insert(project, &row_name(pool, &post.name), &row)?;
        for snapshot in &snapshots {
            txn = txn.insert(project, &snapshot_row(pool, &post.name, &snapshot.name), &snapshot.row)?;
        }
        commit(txn, || Error::Exists { what: WHAT, name: post.name.clone() })
    })?;
    let context = json!({ "source": post.source.name });
    let address = address(pool, &post.name);
    host.events().lifecycle(project, "storage-volume-created", &address, &post.name, context, op.requestor());
    Ok(())
}

/// Copies one tree, and shows it.
pub(super) fn trees(
    source: &Pool,
    target: &Pool,
    origin: Origin<'_>,
    new: &VolumeName,
    undo: &mut Undo,
) -> Result<(), Error> {
    Ok(target.stage_custom_from(source, origin, new, undo)?.show(undo)?)
}

fn row_of(
    host: &Host,
    project: &str,
    (pool, volume, snapshot): (&str, &str, Option<&str>),
    post: &VolumesPost,
) -> Result<rows::Volume, Error> {
    let (description, mut config) = match snapshot {
        Some(snapshot) => {
            let row = load_snapshot(host, project, (pool, volume, snapshot))?.row;
            (row.description, row.config)
        }
        None => {
            let row = load(host, project, pool, volume)?.row;
            (row.description, row.config)
        }
    };
    config.retain(|key, _| !key.starts_with("volatile."));
    config.extend(config_of(post));
    let description = if post.description.is_empty() { description } else { post.description.clone() };
    Ok(rows::Volume { description, config, created_at: clock::now() })
}
