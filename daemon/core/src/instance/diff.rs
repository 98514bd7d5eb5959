//! What differs between two states of an instance's files: its image, its snapshots, and what is now.

use std::sync::Arc;

use cabin_api::diff::{InstanceDiff, InstanceDiffEntry};
use cabin_storage::{Change, Depth, Difference, FileKind, Moment, VolumeName};
use cabin_undo::atomically;

use super::snapshot::load_snapshot;
use super::{load, turn};
use crate::{Error, Host, limits, storage};

/// Tells what differs between the snapshot `from` (or the image, when empty) and the snapshot `to` (or what is now).
///
/// # Errors
/// When there is no such instance or snapshot, its image is not in the pool any more, or the disk fails.
pub fn diff(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    from: &str,
    to: &str,
) -> Result<InstanceDiff, Error> {
    // Nothing is to be deleted or put in another's place under the comparing eye.
    let _turn = turn(host, project, name, "diff")?;
    for snapshot in [from, to].into_iter().filter(|snapshot| !snapshot.is_empty()) {
        load_snapshot(host, project, name, snapshot)?;
    }
    let pool = storage::pool(host, &load(host, project, name)?.row.pool)?;
    let before = if from.is_empty() { Moment::Image } else { Moment::Snapshot(from) };
    let after = if to.is_empty() { Moment::Now } else { Moment::Snapshot(to) };
    let mut told =
        InstanceDiff { from: from.to_owned(), to: to.to_owned(), complete: true, ..InstanceDiff::default() };
    let mut give = |found: Difference| {
        *match found.change {
            Change::Added => &mut told.added,
            Change::Changed => &mut told.changed,
            Change::Removed => &mut told.removed,
        } += 1;
        match told.entries.len() < limits::DIFFERENCES {
            true => told.entries.push(entry(&found)),
            false => told.complete = false,
        }
    };
    let volume = VolumeName::container(name)?;
    let depth = atomically(|undo| -> Result<Depth, Error> {
        Ok(pool.diff(&volume, before, after, &mut give, undo)?)
    })?;
    told.complete &= depth == Depth::Whole;
    Ok(told)
}

fn entry(found: &Difference) -> InstanceDiffEntry {
    let change = match found.change {
        Change::Added => "added",
        Change::Changed => "changed",
        Change::Removed => "removed",
    };
    let kind = match found.after.or(found.before).map(|shape| shape.kind) {
        Some(FileKind::File) => "file",
        Some(FileKind::Directory) => "directory",
        Some(FileKind::Link) => "symlink",
        Some(FileKind::Special) | None => "special",
    };
    InstanceDiffEntry {
        change: change.to_owned(),
        path: format!("/{}", String::from_utf8_lossy(&found.path)),
        kind: kind.to_owned(),
        size_before: found.before.map_or(0, |shape| shape.size),
        size_after: found.after.map_or(0, |shape| shape.size),
    }
}
