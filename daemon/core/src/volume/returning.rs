//! Volumes that go back to a snapshot together with the instance they are attached to: all of them and it, or none.
//!
//! They are put in place before the instance's own tree, whose mark then says that all are. Until the rows are
//! committed the old trees lie beside the new ones, and can be taken back, also by the next daemon.

use std::sync::Arc;

use cabin_storage::{Staged, VolumeName};
use cabin_store::Transaction;
use cabin_store::rows::{self, Devices, Intent, VolumeIntent};
use cabin_undo::Undo;
use serde_json::json;

use super::create::{limit_of, tell};
use super::snapshot::{load_snapshot, refuse_mounted};
use super::{alone_with_files, busy_name, load, row_name, turn};
use crate::busy::Turn;
use crate::{DEFAULT_PROJECT, Error, Host, resolve, storage};

/// One of them.
struct One {
    pool: String,
    volume: String,
    limit: Option<u64>,
}

/// The volumes that are restored with an instance, held against other changes.
#[derive(Default)]
pub(crate) struct Returning {
    volumes: Vec<One>,
    _turns: Vec<Turn>,
}

/// Pool and name of each volume among these devices, in the order of names, so that two who take their turns cannot
/// wait for each other.
pub(super) fn named(devices: &Devices) -> Vec<(String, String)> {
    let found = devices.values().filter_map(resolve::volume_of);
    let mut names: Vec<_> = found.map(|(pool, volume)| (pool.to_owned(), volume.to_owned())).collect();
    names.sort();
    names.dedup();
    names
}

/// Refuses at once what can be seen to fail: `devices` are those of the instance when it is restored.
///
/// # Errors
/// When a volume has no such snapshot, or runs in another instance.
pub(crate) fn check(
    host: &Host,
    project: &str,
    devices: &Devices,
    (instance, snapshot): (&str, &str),
) -> Result<(), Error> {
    for (pool, volume) in named(devices) {
        has_snapshot(host, project, (&pool, &volume, snapshot))?;
        refuse_mounted(host, project, &pool, &volume, Some(instance))?;
    }
    Ok(())
}

fn has_snapshot(host: &Host, project: &str, named: (&str, &str, &str)) -> Result<(), Error> {
    load_snapshot(host, project, named).map(drop).map_err(|error| match error {
        Error::NotFound { .. } => Error::invalid(format!(
            "storage volume `{}` in pool `{}` has no snapshot `{}`: restore the instance without its volumes",
            named.1, named.0, named.2
        )),
        other => other,
    })
}

impl Returning {
    /// Those of an instance whose turn the caller holds.
    ///
    /// # Errors
    /// As [`check`], or when one is being changed.
    pub fn of(
        host: &Arc<Host>,
        project: &str,
        devices: &Devices,
        (instance, snapshot): (&str, &str),
    ) -> Result<Returning, Error> {
        let (mut volumes, mut turns) = (Vec::new(), Vec::new());
        for (pool, volume) in named(devices) {
            turns.push(turn(host, project, &pool, &volume, "restore")?);
            turns.push(alone_with_files(host, &pool, &volume, "restore")?);
            let limit = limit_of(&load(host, project, &pool, &volume)?.row.config)?;
            volumes.push(One { pool, volume, limit });
        }
        check(host, project, devices, (instance, snapshot))?;
        Ok(Returning { volumes, _turns: turns })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty()
    }

    /// The names of their rows.
    pub fn rows(&self) -> Vec<String> {
        self.volumes.iter().map(|one| row_name(&one.pool, &one.volume)).collect()
    }

    /// Copies what the snapshots hold.
    ///
    /// # Errors
    /// When a disk fails.
    pub fn stage(
        &self,
        host: &Arc<Host>,
        snapshot: &str,
        mark: &str,
        undo: &mut Undo,
    ) -> Result<Vec<Staged>, Error> {
        let mut staged = Vec::new();
        for One { pool, volume, .. } in &self.volumes {
            let pool = storage::pool(host, pool)?;
            staged.push(pool.stage_restore(&VolumeName::custom(volume)?, snapshot, mark, undo)?);
        }
        Ok(staged)
    }

    /// Puts the copies in their places. The caller holds the right to change the layout, and the instance does not run.
    ///
    /// # Errors
    /// When somebody else has one mounted by now, or a disk fails.
    pub fn show(
        &self,
        host: &Host,
        project: &str,
        staged: Vec<Staged>,
        undo: &mut Undo,
    ) -> Result<(), Error> {
        for One { pool, volume, .. } in &self.volumes {
            refuse_mounted(host, project, pool, volume, None)?;
        }
        for (one, staged) in self.volumes.iter().zip(staged) {
            staged.show(undo)?;
            if let Some(bytes) = one.limit {
                storage::pool(host, &one.pool)?.limit(&VolumeName::custom(&one.volume)?, Some(bytes))?;
            }
        }
        Ok(())
    }

    /// All is committed: removes the old trees, and tells.
    ///
    /// # Errors
    /// When one cannot be removed; the next start of the daemon does it.
    pub fn done(&self, host: &Host, project: &str, snapshot: &str) -> Result<(), Error> {
        let mut first = Ok(());
        for One { pool, volume, .. } in &self.volumes {
            let context = json!({ "snapshot": snapshot });
            tell(host, project, "storage-volume-restored", pool, volume, context);
            let forgotten = forget(host, pool, volume);
            first = first.and(forgotten);
        }
        first
    }
}

fn forget(host: &Host, pool: &str, volume: &str) -> Result<(), Error> {
    Ok(storage::pool(host, pool)?.forget_replaced(&VolumeName::custom(volume)?)?)
}

/// Holds the volumes of these rows, whose restoring an earlier daemon did not finish, against other changes and whoever
/// is at their files.
///
/// # Errors
/// When one is being changed.
pub(crate) fn held(host: &Arc<Host>, volumes: &[String]) -> Result<Vec<Turn>, Error> {
    let mut turns = Vec::new();
    for row in volumes {
        let (pool, volume) = row.split_once('/').unwrap_or_default();
        // Not by `turn`: that this is undecided is known.
        turns.push(host.busy().take(&busy_name(pool, volume), "restore")?);
        turns.push(alone_with_files(host, pool, volume, "restore")?);
    }
    Ok(turns)
}

/// Takes back what a restoring with this mark brought the volumes of these rows, which are held; what it put aside is
/// where it was.
///
/// # Errors
/// When a pool is unavailable or its disk fails, or somebody has mounted what would go: then the next start of the daemon
/// tries again.
pub(crate) fn take_back(host: &Host, volumes: &[String], mark: &str) -> Result<(), Error> {
    for row in volumes {
        let (pool, volume) = row.split_once('/').unwrap_or_default();
        let (disk, name) = (storage::pool(host, pool)?, VolumeName::custom(volume)?);
        if disk.restored(&name)?.as_deref() == Some(mark) {
            refuse_mounted(host, DEFAULT_PROJECT, pool, volume, None)?;
        }
        disk.take_back_restored(&name, mark)?;
    }
    Ok(())
}

/// What goes with the rows of an instance, whose turn the caller holds: if a restoring of it is not finished, its volumes
/// are taken back each for itself, as soon as their pools are there. Gives the names of their rows.
///
/// # Errors
/// When the rows cannot be read or written.
pub(crate) fn carried_over<'a>(
    host: &Host,
    project: &str,
    instance: &str,
    mut txn: Transaction<'a>,
) -> Result<(Transaction<'a>, Vec<String>), Error> {
    let going_on = host.store().rows::<Intent>().get(project, instance)?.map(|found| found.row);
    let Some(Intent::Restore { mark, volumes, .. }) = going_on else { return Ok((txn, Vec::new())) };
    for row in &volumes {
        // To the volume it is the same: another tree took the place of its own, and was not meant to.
        txn = txn.write(project, row, &VolumeIntent::Refresh { mark: mark.clone() })?;
    }
    Ok((txn, volumes))
}

/// Takes back the volumes of [`carried_over`] whose pools are there; whoever wants to change another one tries again.
pub(crate) fn give_back(host: &Arc<Host>, project: &str, volumes: &[String]) {
    for row in volumes {
        let (pool, volume) = row.split_once('/').unwrap_or_default();
        if let Err(error) = turn(host, project, pool, volume, "restore") {
            tracing::warn!(volume = row, error = %error.report(), "an unfinished change stays so");
        }
    }
}

/// Removes the old trees of the volumes of these rows, whose restoring is committed.
///
/// # Errors
/// As [`take_back`].
pub(crate) fn forget_returned(host: &Host, volumes: &[String]) -> Result<(), Error> {
    for row in volumes {
        let (pool, volume) = row.split_once('/').unwrap_or_default();
        forget(host, pool, volume)?;
    }
    Ok(())
}

/// The volumes of a pool of which it is not decided yet whether a restoring is to be taken back.
///
/// # Errors
/// When the rows cannot be read.
pub(crate) fn undecided(host: &Host, pool: &str) -> Result<Vec<VolumeName>, Error> {
    let mut found = Vec::new();
    for intent in host.store().rows::<Intent>().list(DEFAULT_PROJECT)? {
        let rows::Intent::Restore { volumes, .. } = intent.row else { continue };
        let here = volumes.iter().filter_map(|row| row.split_once('/')).filter(|(of, _)| *of == pool);
        for (_, volume) in here {
            found.push(VolumeName::custom(volume)?);
        }
    }
    Ok(found)
}
