//! The place in a pool of an instance that is about to be there: whatever lies in it goes first.

use std::sync::Arc;

use cabin_storage::{Pool, VolumeName};
use cabin_store::rows::{self, Intent};

use super::snapshot::row_name;
use crate::{Error, Host, storage};

/// The volume of an instance that is not in that pool yet; the caller has the turn of its name. A tree that lies there
/// already belongs to nobody when no row leads to it: it could not be removed when an instance was deleted or moved away,
/// or came by a move that was taken back.
///
/// # Errors
/// When the name is none of a volume, or what lies there cannot be removed.
pub(super) fn clear(host: &Host, project: &str, pool: &Pool, name: &str) -> Result<VolumeName, Error> {
    let volume = VolumeName::container(name)?;
    let row = || host.store().rows::<rows::Instance>().get(project, name);
    let cleared = storage::clear(host, pool, &volume, || {
        let found = row()?;
        let going_on = host.store().rows::<Intent>().list(project)?;
        // Of a rename that could not be taken back it is the only one.
        let is_coming = |intent: &Intent| matches!(intent, Intent::Rename { to } if to == name);
        Ok(found.is_some_and(|found| found.row.pool == pool.name())
            || going_on.iter().any(|found| is_coming(&found.row)))
    })?;
    // They were kept as long as there were files of theirs.
    if cleared && row()?.is_none() {
        host.ids().release_all(name)?;
    }
    Ok(volume)
}

/// Clears the place of a snapshot that is about to be, as [`clear`] does that of an instance; the caller has the turn of the
/// instance, and what was left undone with it is finished.
///
/// # Errors
/// As [`clear`].
pub(super) fn clear_snapshot(
    host: &Host,
    project: &str,
    pool: &Pool,
    (instance, snapshot): (&VolumeName, &str),
) -> Result<(), Error> {
    storage::clear_snapshot(host, pool, (instance, snapshot), || {
        let row = row_name(instance.name(), snapshot);
        Ok(host.store().rows::<rows::Snapshot>().get(project, &row)?.is_some())
    })
}

/// Clears the place in every pool that a move which was taken back may have come to. Whoever has the turn of the name does
/// it for the place that he needs.
pub(super) fn clear_all(host: &Arc<Host>, project: &str, name: &str) {
    let Some(_turn) = host.busy().take_free(name, "clear") else { return };
    for pool in host.store().rows::<rows::Pool>().list(project).unwrap_or_default() {
        let cleared = storage::pool(host, &pool.name).and_then(|pool| clear(host, project, &pool, name));
        if let Err(error) = cleared {
            tracing::warn!(name, pool = pool.name, error = %error.report(), "what a move left cannot be removed");
        }
    }
}
