//! Snapshots of the volumes that are attached to an instance, taken with its own: of the same moment, by the same
//! name, and shown together with it or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use cabin_storage::Staged;
use cabin_store::{Transaction, rows};
use cabin_undo::Undo;

use super::returning::named;
use super::snapshot::{WHAT, load_snapshot, row_of, rows_of, snapshot_row, stage};
use super::{load, row_name, turn};
use crate::busy::Turn;
use crate::{Error, Host, instance, limits};

/// The volumes of an instance, held against other changes.
#[derive(Default)]
pub(crate) struct Attached {
    volumes: BTreeMap<(String, String), rows::Volume>,
    _turns: Vec<Turn>,
}

impl Attached {
    /// Those of an instance whose turn the caller holds, for a snapshot of that name.
    ///
    /// # Errors
    /// When one has such a snapshot, or is being changed.
    pub fn of(host: &Arc<Host>, project: &str, instance: &str, snapshot: &str) -> Result<Attached, Error> {
        let row = instance::load(host, project, instance)?.row;
        let expanded = instance::expand(&row, &instance::profiles_of(host, project, &row.profiles)?);
        let (mut volumes, mut turns) = (BTreeMap::new(), Vec::new());
        for (pool, volume) in named(&expanded.devices) {
            turns.push(turn(host, project, &pool, &volume, "snapshot")?);
            if load_snapshot(host, project, (&pool, &volume, snapshot)).is_ok() {
                return Err(Error::Exists { what: WHAT, name: row_name(&volume, snapshot) });
            }
            let present = rows_of(host, project, &pool, &volume)?.len();
            limits::one_more("snapshots of a volume", present, limits::SNAPSHOTS)?;
            let row = load(host, project, &pool, &volume)?.row;
            volumes.insert((pool, volume), row);
        }
        Ok(Attached { volumes, _turns: turns })
    }

    /// Copies what they hold.
    ///
    /// # Errors
    /// When a disk fails.
    pub fn stage(&self, host: &Arc<Host>, snapshot: &str, undo: &mut Undo) -> Result<Vec<Staged>, Error> {
        self.volumes.keys().map(|(pool, volume)| stage(host, pool, volume, snapshot, undo)).collect()
    }

    /// Adds their rows to what is to be committed.
    ///
    /// # Errors
    /// When a row cannot be written.
    pub fn insert<'a>(
        &self,
        project: &str,
        snapshot: &str,
        expires_at: &str,
        mut txn: Transaction<'a>,
    ) -> Result<Transaction<'a>, Error> {
        for ((pool, volume), row) in &self.volumes {
            let row = row_of(row, "", expires_at.to_owned());
            txn = txn.insert(project, &snapshot_row(pool, volume, snapshot), &row)?;
        }
        Ok(txn)
    }
}
