//! Bringing an existing copy up to date: the snapshots it lacks are copied, those that the source has no more are
//! deleted, and the source's tree takes the place of the copy's. The copy's config stays its own.
//!
//! Everything new is staged first. Of old snapshots whose names are needed the trees step aside; what takes the place
//! of the copy's tree is shown last, and its mark tells the next start whether it did.

use std::collections::BTreeSet;
use std::sync::Arc;

use cabin_api::StatusCode;
use cabin_api::instance::InstancesPost;
use cabin_storage::{Pool, VolumeName};
use cabin_store::rows::{self, Intent};
use cabin_store::{Transaction, Versioned};
use cabin_undo::{atomically, fault};
use jiff::Timestamp;
use serde_json::json;

use super::carry::{self, Load, Target, root_in};
use super::copy::still_there;
use super::snapshot::{row_name, rows_of};
use super::{WHAT, address, intent, load, place, profiles, status};
use crate::{Error, Host, Op, limits, storage};

/// What a refreshing does to the snapshots of a copy.
#[derive(Debug, Default)]
struct Plan {
    /// The source's that the copy lacks, the oldest first.
    missing: Vec<Versioned<rows::Snapshot>>,
    /// The copy's that the source does not have.
    gone: Vec<String>,
}

impl Plan {
    /// The names that new snapshots need and old ones have.
    fn clashes(&self) -> Vec<&str> {
        let needed: BTreeSet<&str> = self.missing.iter().map(|found| found.name.as_str()).collect();
        self.gone.iter().map(String::as_str).filter(|name| needed.contains(name)).collect()
    }
}

/// Which snapshots are missing and which are too many. They are the same when name and time are.
fn plan(
    source: Vec<Versioned<rows::Snapshot>>,
    target: &[Versioned<rows::Snapshot>],
    exclude_older: bool,
) -> Plan {
    let time = |found: &Versioned<rows::Snapshot>| found.row.created_at.parse::<Timestamp>().ok();
    let same = |a: &Versioned<rows::Snapshot>, b: &Versioned<rows::Snapshot>| {
        a.name == b.name && (a.row.created_at == b.row.created_at || time(a).is_some() && time(a) == time(b))
    };
    let gone = target.iter().filter(|mine| !source.iter().any(|theirs| same(mine, theirs)));
    let gone = gone.map(|found| found.name.clone()).collect();
    let newest = source.iter().filter(|theirs| target.iter().any(|mine| same(mine, theirs))).map(time).max();
    let missing = source
        .into_iter()
        .filter(|theirs| !target.iter().any(|mine| same(mine, theirs)))
        .filter(|theirs| !exclude_older || newest.is_none_or(|newest| time(theirs) > newest))
        .collect();
    Plan { missing, gone }
}

/// Where the tree of an old snapshot is while a new one of its name may still fail to come.
fn aside(snapshot: &str, mark: &str) -> String {
    // Whole, so that no two are one: a name of a snapshot and a mark are together no longer than a name in a pool may be.
    format!("{snapshot}~{mark}")
}

/// Refuses at once what can be seen to fail.
///
/// # Errors
/// When the copy runs.
pub(super) fn check(host: &Host, project: &str, post: &InstancesPost) -> Result<(), Error> {
    let name = &post.name;
    load(host, project, name)?;
    if post.source.source == *name {
        return Err(Error::invalid(format!("instance `{name}` is no copy of itself")));
    }
    match status(host, name) {
        StatusCode::Stopped => Ok(()),
        _ => Err(Error::WrongStatus { name: name.clone(), action: "refresh", status: "running" }),
    }
}

/// Brings the copy up to date; the caller holds its turn and that of the source.
pub(super) fn refresh(host: &Arc<Host>, op: &Op, project: &str, post: &InstancesPost) -> Result<(), Error> {
    check(host, project, post)?;
    let (name, source) = (&post.name, &post.source.source);
    let (copy, origin) = (load(host, project, name)?.row, load(host, project, source)?.row);
    let (from, to) = (storage::pool(host, &origin.pool)?, storage::pool(host, &copy.pool)?);
    let volume = VolumeName::container(name)?;
    let (only, older) = (post.source.instance_only, post.source.refresh_exclude_older);
    let mark = uuid::Uuid::new_v4().to_string();
    let plan = planned(host, project, (source, name), only, older)?;
    let present = rows_of(host, project, name)?.len();
    let stay = present.saturating_sub(plan.gone.len());
    limits::one_more(
        "snapshots of an instance",
        (stay + plan.missing.len()).saturating_sub(1),
        limits::SNAPSHOTS,
    )?;
    let names: Vec<String> = plan.missing.iter().map(|snapshot| snapshot.name.clone()).collect();
    let load = Load {
        project,
        instance: source,
        pool: &from,
        snapshot: None,
        snapshots: &names,
        inconsistent: post.source.allow_inconsistent,
    };
    for snapshot in &names {
        place::clear_snapshot(host, project, &to, (&volume, snapshot))?;
    }
    let target = Target { pool: &to, volume: &volume, replaces: Some(&mark) };
    let going_on = Intent::Refresh {
        source: source.clone(),
        mark: mark.clone(),
        missing: plan.missing.iter().map(|one| (one.name.clone(), one.row.created_at.clone())).collect(),
        gone: plan.gone.clone(),
    };
    atomically(|undo| -> Result<(), Error> {
        intent::note(host, project, name, &going_on, undo)?;
        let staged = carry::stage(host, op, &load, &target, undo)?;
        let _kept = host.keep_layout();
        still_there(host, project, &copy)?;
        for snapshot in plan.clashes() {
            to.rename_snapshot(&volume, snapshot, &aside(snapshot, &mark), undo)?;
        }
        for one in staged {
            one.show(undo)?;
        }
        let txn = intent::end_hold(host, project, source, host.store().begin())?;
        commit(host, txn, project, (source, name), &plan)
    })?;
    fault::reach("refreshed");
    let removed = remove_gone(&to, &volume, &plan, &mark);
    let removed = removed.and(to.forget_replaced(&volume).map_err(Error::from));
    let context = json!({ "source": source });
    host.events().lifecycle(project, "instance-updated", &address(name), name, context, op.requestor());
    removed.map_err(|error| Error::LeftBehind {
        left: format!("the old files of instance `{name}`, which is up to date"),
        source: Box::new(error),
    })
}

fn planned(
    host: &Host,
    project: &str,
    (source, name): (&str, &str),
    instance_only: bool,
    exclude_older: bool,
) -> Result<Plan, Error> {
    match instance_only {
        true => Ok(Plan::default()),
        false => Ok(plan(rows_of(host, project, source)?, &rows_of(host, project, name)?, exclude_older)),
    }
}

/// The rows after a refreshing whose trees are in place, with what else `txn` changes.
fn commit(
    host: &Host,
    mut txn: Transaction<'_>,
    project: &str,
    (source, name): (&str, &str),
    plan: &Plan,
) -> Result<(), Error> {
    let now = load(host, project, name)?;
    let origin = load(host, project, source)?.row;
    let templates = host.store().rows::<rows::Templates>().get(project, source)?;
    let templates = templates.map(|found| found.row).unwrap_or_default();
    let mut row = now.row.clone();
    let pending = origin.config.get("volatile.apply_template").filter(|pending| *pending == "create");
    row.config.insert("volatile.apply_template".into(), pending.map_or("copy", String::as_str).into());
    row.config.insert("volatile.uuid.generation".into(), uuid::Uuid::new_v4().to_string());
    match origin.config.get("volatile.base_image") {
        Some(image) => row.config.insert("volatile.base_image".into(), image.clone()),
        None => row.config.remove("volatile.base_image"),
    };
    for snapshot in &plan.gone {
        txn = txn.remove::<rows::Snapshot>(project, &row_name(name, snapshot));
    }
    let profiles = profiles(host, project)?;
    for snapshot in &plan.missing {
        let mut kept = snapshot.row.clone();
        root_in(&row.pool, &kept.profiles, &profiles, &mut kept.devices);
        txn = txn.write(project, &row_name(name, &snapshot.name), &kept)?;
    }
    let txn = txn
        .update(project, name, now.revision, &row)?
        .write(project, name, &templates)?
        .remove::<Intent>(project, name);
    match txn.commit() {
        Err(cabin_store::Error::Changed { .. }) => Err(Error::Changed { what: WHAT, name: name.to_owned() }),
        other => Ok(other.map(drop)?),
    }
}

fn remove_gone(pool: &Pool, volume: &VolumeName, plan: &Plan, mark: &str) -> Result<(), Error> {
    let (clashes, mut first) = (plan.clashes(), Ok(()));
    for snapshot in &plan.gone {
        first = first.and(match clashes.contains(&snapshot.as_str()) {
            true => pool.delete_snapshot(volume, &aside(snapshot, mark)),
            false => pool.delete_snapshot(volume, snapshot),
        });
    }
    Ok(first?)
}

/// Finishes what the daemon did not live to finish, or takes it back. What then no row has is removed by others.
///
/// # Errors
/// When the pool is unavailable, or the disk refuses.
pub(super) fn finish(host: &Host, project: &str, name: &str, going_on: &Intent) -> Result<(), Error> {
    let Intent::Refresh { source, mark, missing, gone } = going_on else { return Ok(()) };
    let pool = storage::pool(host, &load(host, project, name)?.row.pool)?;
    let volume = VolumeName::container(name)?;
    let present = pool.list_snapshots(&volume)?;
    let came = pool.restored(&volume)?.as_ref() == Some(mark);
    // The pool may have been away for long, and the source have gone on meanwhile, or have gone.
    if came && host.store().rows::<rows::Instance>().get(project, source)?.is_some() {
        let came = |one: &Versioned<rows::Snapshot>| {
            missing.get(&one.name) == Some(&one.row.created_at) && present.contains(&one.name)
        };
        let missing = rows_of(host, project, source)?.into_iter().filter(came).collect();
        let plan = Plan { missing, gone: gone.clone() };
        return commit(host, host.store().begin(), project, (source, name), &plan);
    }
    pool.take_back_restored(&volume, mark)?;
    for Versioned { name: snapshot, .. } in rows_of(host, project, name)? {
        let away = aside(&snapshot, mark);
        if present.contains(&away) {
            // A new one in its place is nobody's.
            pool.delete_snapshot(&volume, &snapshot)?;
            atomically(|undo| pool.rename_snapshot(&volume, &away, &snapshot, undo).map_err(Error::from))?;
        }
    }
    intent::forget(host, project, name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn some(named: &[(&str, &str)]) -> Vec<Versioned<rows::Snapshot>> {
        let one = |(name, day): &(&str, &str)| Versioned {
            name: (*name).to_owned(),
            revision: cabin_store::Revision::default(),
            row: rows::Snapshot { created_at: format!("2026-01-{day}T00:00:00Z"), ..Default::default() },
        };
        named.iter().map(one).collect()
    }

    #[test]
    fn the_newest_common_snapshot_decides_what_is_old() {
        let check =
            |source: &[(&str, &str)], target: &[(&str, &str)], older, missing: &[&str], gone: &[&str]| {
                let plan = plan(some(source), &some(target), older);
                let names: Vec<_> = plan.missing.iter().map(|found| found.name.as_str()).collect();
                let too_many: Vec<_> = plan.gone.iter().map(String::as_str).collect();
                assert_eq!((names.as_slice(), too_many.as_slice()), (missing, gone));
            };
        check(&[("a", "01"), ("b", "02")], &[("a", "01")], false, &["b"], &[]);
        check(&[("a", "01"), ("b", "02"), ("c", "03")], &[("b", "02")], false, &["a", "c"], &[]);
        check(&[("a", "01"), ("b", "02"), ("c", "03")], &[("b", "02")], true, &["c"], &[]);
        check(&[("a", "01"), ("b", "02")], &[], true, &["a", "b"], &[]);
        // The same name of another time is another snapshot.
        check(&[("a", "02")], &[("a", "01"), ("x", "01")], false, &["a"], &["a", "x"]);
    }
}
