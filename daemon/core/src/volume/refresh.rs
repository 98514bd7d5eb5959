//! Bringing a copy of a volume up to date: its files, and its snapshots, become those of the source.

use std::sync::Arc;

use cabin_api::volume::VolumesPost;
use cabin_storage::{Activity, Origin, VolumeName};
use cabin_store::rows::VolumeIntent;
use cabin_store::{Versioned, rows};
use cabin_undo::{atomically, fault};
use jiff::Timestamp;
use serde_json::json;

use super::create::limit_of;
use super::snapshot::{commit, refuse_mounted, rows_of, snapshot_row};
use super::{MOVING, WHAT, alone_with_files, intent, load, place, row_name, turn};
use crate::{Error, Host, Op, limits, storage};

type Snapshot = Versioned<rows::VolumeSnapshot>;

/// Refuses at once what can be seen to fail.
///
/// # Errors
/// When a running instance has the copy mounted, or it is its own source.
pub(super) fn check(
    host: &Host,
    project: &str,
    (from, source): (&str, &str),
    (pool, copy): (&str, &str),
) -> Result<(), Error> {
    if (from, source) == (pool, copy) {
        return Err(Error::invalid(format!("storage volume `{copy}` is no copy of itself")));
    }
    load(host, project, from, source)?;
    load(host, project, pool, copy)?;
    refuse_mounted(host, project, pool, copy, None)
}

/// Brings the copy up to date. A crash leaves files and snapshots as they were, or all as they are at the source.
///
/// # Errors
/// As [`check`]; when a snapshot of the copy is another one of the same name; or when the host refuses.
pub(super) fn refresh(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    (from, source): (&str, &str),
    pool: &str,
    post: &VolumesPost,
) -> Result<(), Error> {
    let copy = post.name.as_str();
    // In the order of names, so that two of these cannot wait for each other. Nobody mounts the copy meanwhile.
    let take = |pool: &str, name: &str, doing| turn(host, project, pool, name, doing);
    let _turns = match (from, source) < (pool, copy) {
        true => [take(from, source, "copy")?, take(pool, copy, MOVING)?],
        false => [take(pool, copy, MOVING)?, take(from, source, "copy")?],
    };
    let _files = alone_with_files(host, pool, copy, MOVING)?;
    {
        let _alone = host.change_layout();
        check(host, project, (from, source), (pool, copy))?;
    }
    let (origin, target) = (storage::pool(host, from)?, storage::pool(host, pool)?);
    let (old, new) = (VolumeName::custom(source)?, VolumeName::custom(copy)?);
    let (missing, gone) = match post.source.volume_only {
        true => (Vec::new(), Vec::new()),
        false => planned(host, project, (from, source), (pool, copy), post.source.refresh_exclude_older)?,
    };
    let limit = limit_of(&load(host, project, pool, copy)?.row.config)?;
    let (row, mark) = (row_name(pool, copy), uuid::Uuid::new_v4().to_string());
    atomically(|undo| -> Result<(), Error> {
        let mut txn = host.store().begin();
        for snapshot in &missing {
            place::clear_snapshot(host, project, &target, (&new, &snapshot.name))?;
            target.stage_custom_snapshot_from(&origin, (&old, &snapshot.name), &new, undo)?.show(undo)?;
            txn = txn.insert(project, &snapshot_row(pool, copy, &snapshot.name), &snapshot.row)?;
        }
        for snapshot in &gone {
            txn = txn.remove::<rows::VolumeSnapshot>(project, &snapshot_row(pool, copy, snapshot));
        }
        let tree = Origin::Volume(&old, Activity::Running);
        let staged = target.stage_custom_replacing(&origin, tree, &new, &mark, undo)?;
        intent::note(host, project, &row, &VolumeIntent::Refresh { mark }, undo)?;
        staged.show(undo)?;
        if let Some(bytes) = limit {
            target.limit(&new, Some(bytes))?;
        }
        let txn = txn.remove::<VolumeIntent>(project, &row);
        commit(txn, || Error::Changed { what: WHAT, name: copy.to_owned() })
    })?;
    fault::reach("copy of a volume brought up to date");
    let each = gone.iter().map(|snapshot| target.delete_snapshot(&new, snapshot));
    let removed = each.fold(Ok(()), Result::and).and(target.forget_replaced(&new));
    let context = json!({ "source": post.source.name });
    let address = super::address(pool, copy);
    host.events().lifecycle(project, "storage-volume-updated", &address, copy, context, op.requestor());
    removed.map_err(|source| Error::LeftBehind {
        left: format!("the old files of storage volume `{copy}`, which is up to date"),
        source: Box::new(source.into()),
    })
}

/// The snapshots that the copy lacks, and the names of those that the source does not have (any more).
fn planned(
    host: &Host,
    project: &str,
    (from, source): (&str, &str),
    (pool, copy): (&str, &str),
    exclude_older: bool,
) -> Result<(Vec<Snapshot>, Vec<String>), Error> {
    let (theirs, mine) = (rows_of(host, project, from, source)?, rows_of(host, project, pool, copy)?);
    let (missing, gone) = compared(theirs, &mine, exclude_older);
    if let Some(clash) = missing.iter().find(|found| gone.contains(&found.name)) {
        return Err(Error::invalid(format!(
            "snapshot `{}` of storage volume `{copy}` is another one than the source's of that name: delete it first",
            clash.name
        )));
    }
    let stay = mine.len().saturating_sub(gone.len()) + missing.len();
    limits::one_more("snapshots of a volume", stay.saturating_sub(1), limits::SNAPSHOTS)?;
    Ok((missing, gone))
}

fn compared(theirs: Vec<Snapshot>, mine: &[Snapshot], exclude_older: bool) -> (Vec<Snapshot>, Vec<String>) {
    let time = |found: &Snapshot| found.row.created_at.parse::<Timestamp>().ok();
    let same = |a: &Snapshot, b: &Snapshot| a.name == b.name && time(a) == time(b);
    let gone = mine.iter().filter(|mine| !theirs.iter().any(|theirs| same(mine, theirs)));
    let gone = gone.map(|found| found.name.clone()).collect();
    let newest = theirs.iter().filter(|theirs| mine.iter().any(|mine| same(mine, theirs))).map(time).max();
    let missing = theirs
        .into_iter()
        .filter(|theirs| !mine.iter().any(|mine| same(mine, theirs)))
        .filter(|theirs| !exclude_older || newest.is_none_or(|newest| time(theirs) > newest))
        .collect();
    (missing, gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_the_same_when_name_and_time_are() {
        let of = |names: &[(&str, u32)]| -> Vec<Snapshot> {
            let one = |(name, day): &(&str, u32)| Versioned {
                name: (*name).to_owned(),
                row: rows::VolumeSnapshot {
                    created_at: format!("2026-01-{day:02}T00:00:00Z"),
                    ..rows::VolumeSnapshot::default()
                },
                revision: cabin_store::Revision::default(),
            };
            names.iter().map(one).collect()
        };
        let check = |theirs: &[(&str, u32)], mine: &[(&str, u32)], older, lacks: &[&str], many: &[&str]| {
            let (missing, gone) = compared(of(theirs), &of(mine), older);
            let missing: Vec<&str> = missing.iter().map(|found| found.name.as_str()).collect();
            assert_eq!(
                (missing.as_slice(), gone.iter().map(String::as_str).collect::<Vec<_>>().as_slice()),
                (lacks, many)
            );
        };
        check(&[("a", 1), ("b", 2)], &[("a", 1)], false, &["b"], &[]);
        check(&[("a", 1), ("b", 2), ("c", 3)], &[("b", 2)], true, &["c"], &[]);
        check(&[("b", 2)], &[("a", 1)], false, &["b"], &["a"]);
        check(&[("a", 2)], &[("a", 1)], false, &["a"], &["a"]);
    }
}
