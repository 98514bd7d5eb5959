//! What becomes of changes with snapshots that the daemon did not live to finish: before anything is taken up.

use std::collections::BTreeSet;
use std::sync::Arc;

use cabin_storage::{Pool, VolumeKind, VolumeName};
use cabin_store::rows::{self, Intent};
use cabin_undo::{atomically, fault};

use super::{restore, row_name};
use crate::instance::{WHAT, intent, is_of_a_run, is_stopped, load, refresh, take_back};
use crate::{DEFAULT_PROJECT, Error, Host, Kind, recover, storage, volume};

/// Finishes or takes back what was going on, then removes trees that no row has.
pub(crate) fn finish(host: &Arc<Host>) {
    for found in host.store().rows::<Intent>().list(DEFAULT_PROJECT).unwrap_or_default() {
        let done = finish_one(host, &found.name, &found.row)
            .and_then(|()| forget_old_tree(host, &found.name, &found.row));
        if let Err(error) = done {
            tracing::error!(instance = found.name, error = %error.report(), "an unfinished change stays so");
        }
        fault::reach("change with snapshots finished");
    }
    for pool in host.store().rows::<rows::Pool>().list(DEFAULT_PROJECT).unwrap_or_default() {
        if let Err(error) = storage::pool(host, &pool.name).and_then(|pool| sweep(host, &pool)) {
            tracing::warn!(pool = pool.name, error = %error.report(), "strays among snapshots cannot be removed");
        }
    }
}

/// Finishes or takes back what an earlier daemon left undone with an instance, because a pool was not there or a disk
/// failed: whoever has its turn now does that first.
///
/// # Errors
/// [`Error::Unavailable`] when it still cannot be.
pub(crate) fn settle(host: &Arc<Host>, project: &str, name: &str) -> Result<(), Error> {
    let Some(found) = host.store().rows::<Intent>().get(project, name)? else { return Ok(()) };
    let Some(instance) = host.store().rows::<rows::Instance>().get(project, name)? else {
        // Its instance was deleted; whoever takes the name now has no part in it.
        return intent::forget(host, project, name);
    };
    let done = match &found.row {
        Intent::Rename { to } => {
            finish_rename(host, name, to).inspect(|()| crate::instance::place::clear_all(host, project, to))
        }
        Intent::Disks { mounted } => return recover::finish_disks(host, &instance, mounted),
        going_on if is_of_a_run(going_on) => return Ok(()),
        going_on => finish_one(host, name, going_on),
    };
    done.map_err(|source| Error::Unavailable {
        what: WHAT,
        name: name.to_owned(),
        source: Box::new(source),
    })?;
    forget_old_tree(host, name, &found.row)?;
    // Snapshots that came or were to go: what this start of the daemon has not swept.
    let pool = storage::pool(host, &load(host, project, name)?.row.pool)?;
    sweep_one(&pool, &VolumeName::container(name)?, &names(host)?)
}

/// The tree that was replaced, or was to take its place: no sweep of its pool has removed it while it might have had to
/// come back.
fn forget_old_tree(host: &Host, name: &str, done: &Intent) -> Result<(), Error> {
    match done {
        Intent::Restore { .. } | Intent::Refresh { .. } | Intent::Rebuild { .. } => {
            let pool = storage::pool(host, &load(host, DEFAULT_PROJECT, name)?.row.pool)?;
            Ok(pool.forget_replaced(&VolumeName::container(name)?)?)
        }
        _ => Ok(()),
    }
}

/// Takes back a rename that was not committed: the tree may lie under a name that no row has.
pub(crate) fn finish_rename(host: &Arc<Host>, old: &str, new: &str) -> Result<(), Error> {
    if let Some(found) = host.store().rows::<rows::Instance>().get(DEFAULT_PROJECT, old)? {
        take_back(host, old, new, &found.row.pool)?;
    }
    intent::forget(host, DEFAULT_PROJECT, old)
}

fn finish_one(host: &Arc<Host>, name: &str, going_on: &Intent) -> Result<(), Error> {
    match going_on {
        Intent::Hold => {
            if host.runtime().cgroups().list()?.iter().any(|present| present == name) {
                host.runtime().cgroups().thaw(name)?;
            }
            intent::forget(host, DEFAULT_PROJECT, name)
        }
        Intent::Rebuild { mark, .. } => {
            let pool = storage::pool(host, &load(host, DEFAULT_PROJECT, name)?.row.pool)?;
            match pool.restored(&VolumeName::container(name)?)?.as_ref() == Some(mark) {
                true => crate::instance::rebuild::commit(host, DEFAULT_PROJECT, name, going_on),
                false => intent::forget(host, DEFAULT_PROJECT, name),
            }
        }
        Intent::RenameSnapshot { from, to } => {
            let pool = storage::pool(host, &load(host, DEFAULT_PROJECT, name)?.row.pool)?;
            let volume = VolumeName::container(name)?;
            let present = pool.list_snapshots(&volume)?;
            if present.contains(to) && !present.contains(from) {
                atomically(|undo| pool.rename_snapshot(&volume, to, from, undo).map_err(Error::from))?;
            }
            intent::forget(host, DEFAULT_PROJECT, name)
        }
        Intent::Restore { snapshot, mark, disk_only, again, volumes } => {
            let wanted = (snapshot.as_str(), *disk_only);
            finish_restore(host, name, wanted, *again, (mark, volumes))
        }
        Intent::Refresh { .. } => refresh::finish(host, DEFAULT_PROJECT, name, going_on),
        Intent::Rename { .. } | Intent::Update | Intent::Disks { .. } | Intent::Restart => Ok(()),
    }
}

/// The tree itself says whether it came to that; those of volumes were in place before it.
fn finish_restore(
    host: &Arc<Host>,
    name: &str,
    wanted: (&str, bool),
    again: bool,
    (mark, volumes): (&String, &[String]),
) -> Result<(), Error> {
    let pool = storage::pool(host, &load(host, DEFAULT_PROJECT, name)?.row.pool)?;
    let own = VolumeName::container(name)?;
    let _held = volume::held(host, volumes)?;
    if pool.restored(&own)?.as_ref() == Some(mark) {
        let done = {
            let _kept = host.keep_layout();
            atomically(|undo| restore::commit(host, DEFAULT_PROJECT, name, wanted, again, undo))
                .map_err(Error::from)
        };
        match done {
            // Nobody swept the old ones away while it was not decided.
            Ok(()) => return volume::forget_returned(host, volumes),
            // The pool may have been away for long, and what the snapshot names have gone meanwhile.
            Err(error) if !matches!(error.kind(), Kind::Internal | Kind::Unavailable) => {
                tracing::warn!(instance = name, error = %error.report(), "a restoring is taken back");
                pool.take_back_restored(&own, mark)?;
            }
            Err(error) => return Err(error),
        }
    }
    volume::take_back(host, volumes, mark)?;
    // One that is taken back late may never have been stopped. At a start of the daemon nothing is known to run yet.
    match again && is_stopped(host, name) {
        true => {
            host.store().begin().write(DEFAULT_PROJECT, name, &Intent::Restart)?.commit()?;
            Ok(())
        }
        false => intent::forget(host, DEFAULT_PROJECT, name),
    }
}

/// Removes the snapshots in a pool that no row has.
///
/// # Errors
/// When the rows or the disk cannot be read, or one cannot be removed.
pub(crate) fn sweep(host: &Host, pool: &Pool) -> Result<(), Error> {
    let (rows, none) = (names(host)?, BTreeSet::new());
    // What could not be taken back is somebody's only one.
    let going_on = host.store().rows::<Intent>().list(DEFAULT_PROJECT)?;
    let moving = |volume: &VolumeName| {
        going_on.iter().any(|found| match &found.row {
            Intent::Rename { to } => to == volume.name() || found.name == volume.name(),
            Intent::RenameSnapshot { .. } | Intent::Refresh { .. } => found.name == volume.name(),
            _ => false,
        })
    };
    let instances = host.store().rows::<rows::Instance>().list(DEFAULT_PROJECT)?;
    // What an instance has left behind in another pool, or not yet moved to, is not its own.
    let elsewhere = |volume: &VolumeName| {
        instances.iter().any(|found| found.name == volume.name() && found.row.pool != pool.name())
    };
    for volume in pool.owners_of_snapshots()? {
        if volume.kind() != VolumeKind::Container || moving(&volume) {
            continue;
        }
        sweep_one(pool, &volume, if elsewhere(&volume) { &none } else { &rows })?;
    }
    Ok(())
}

/// The snapshots that there are, each with the name of its instance.
fn names(host: &Host) -> Result<BTreeSet<String>, Error> {
    let rows = host.store().rows::<rows::Snapshot>().list(DEFAULT_PROJECT)?;
    Ok(rows.into_iter().map(|found| found.name).collect())
}

/// Removes the trees of a volume's snapshots that are none of these.
fn sweep_one(pool: &Pool, volume: &VolumeName, rows: &BTreeSet<String>) -> Result<(), Error> {
    for snapshot in pool.list_snapshots(volume)? {
        let name = row_name(volume.name(), &snapshot);
        if !rows.contains(&name) {
            pool.delete_snapshot(volume, &snapshot)?;
            tracing::info!(what = "snapshot", name, "a stray was removed");
            fault::reach("stray snapshot removed");
        }
    }
    Ok(())
}
