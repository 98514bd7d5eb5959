//! What is done with snapshots of volumes by the clock: those that are due are taken, those that are to go deleted.

use std::sync::Arc;

use cabin_api::volume::VolumeSnapshotsPost;
use cabin_profiles::value::schedule;
use cabin_store::rows;

use super::snapshot::{check_new_snapshot, create_snapshot, delete_snapshot_if, goes_at, rows_of};
use crate::clock::Stretch;
use crate::{DEFAULT_PROJECT, Error, Host};

/// Takes what fell due and deletes what is over.
pub(crate) fn go_through(host: &Arc<Host>, stretch: &Stretch) {
    super::kept::delete_expired(host, stretch);
    match due(host, stretch) {
        Ok(due) => due.iter().for_each(|(pool, volume)| take(host, pool, volume)),
        Err(error) => tracing::error!(error = %error.report(), "schedules of volumes cannot be read"),
    }
    match expired(host, stretch) {
        Ok(expired) => expired.iter().for_each(|name| delete(host, name, stretch)),
        Err(error) => tracing::error!(error = %error.report(), "snapshots of volumes cannot be read"),
    }
}

fn due(host: &Host, stretch: &Stretch) -> Result<Vec<(String, String)>, Error> {
    let mut due = Vec::new();
    for found in host.store().rows::<rows::Volume>().list(DEFAULT_PROJECT)? {
        let Some(text) = found.row.config.get("snapshots.schedule").filter(|text| !text.is_empty()) else {
            continue;
        };
        let spread =
            found.name.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let Some((pool, volume)) = found.name.split_once('/') else { continue };
        let is_due = schedule::parse(text, spread).is_ok_and(|it| it.is_due(&stretch.since, &stretch.until));
        let taken = |found: &rows::VolumeSnapshot| stretch.holds(&found.created_at);
        if is_due && !rows_of(host, DEFAULT_PROJECT, pool, volume)?.iter().any(|found| taken(&found.row)) {
            due.push((pool.to_owned(), volume.to_owned()));
        }
    }
    Ok(due)
}

fn take(host: &Arc<Host>, pool: &str, volume: &str) {
    let taken = || -> Result<(), Error> {
        let row = super::load(host, DEFAULT_PROJECT, pool, volume)?.row;
        let expires_at = goes_at(&row, None, &["snapshots.expiry"])?;
        let mut post = VolumeSnapshotsPost { expires_at: Some(expires_at), ..VolumeSnapshotsPost::default() };
        check_new_snapshot(host, DEFAULT_PROJECT, pool, volume, &mut post)?;
        create_snapshot(host, None, DEFAULT_PROJECT, pool, volume, &post)
    };
    match taken() {
        Ok(()) => tracing::info!(pool, volume, "a snapshot was taken by schedule"),
        Err(error) => {
            tracing::warn!(pool, volume, error = %error.report(), "a snapshot cannot be taken by schedule");
        }
    }
}

fn expired(host: &Host, stretch: &Stretch) -> Result<Vec<String>, Error> {
    let found = host.store().rows::<rows::VolumeSnapshot>().list(DEFAULT_PROJECT)?;
    let over = found.into_iter().filter(|found| stretch.is_over(&found.row.expires_at));
    Ok(over.map(|found| found.name).collect())
}

fn delete(host: &Arc<Host>, name: &str, stretch: &Stretch) {
    let mut parts = name.splitn(3, '/');
    let (Some(pool), Some(volume), Some(snapshot)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let is_over = |row: &rows::VolumeSnapshot| stretch.is_over(&row.expires_at);
    match delete_snapshot_if(host, None, DEFAULT_PROJECT, (pool, volume, snapshot), is_over) {
        // Its time was changed while others were deleted.
        Ok(false) => {}
        Ok(true) => tracing::info!(snapshot = name, "an expired snapshot was deleted"),
        Err(error) => {
            tracing::warn!(snapshot = name, error = %error.report(), "an expired snapshot cannot be deleted");
        }
    }
}
