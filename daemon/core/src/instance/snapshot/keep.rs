//! What is done with snapshots by the clock: once a minute those are taken that are due, and those deleted that
//! are to go.

use std::sync::{Arc, Weak};
use std::time::Duration;

use cabin_store::rows;
use cabin_undo::fault;
use jiff::Span;

use super::alter::delete_snapshot_if;
use super::schedule;
use crate::clock::Stretch;
use crate::fence::again_after_panics;
use crate::warning::Trouble;
use crate::{DEFAULT_PROJECT, Error, Host, clock};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(60);

/// Looks once a minute for as long as the daemon is there, on a thread of its own.
pub(crate) fn watch(host: &Arc<Host>) {
    let host = Arc::downgrade(host);
    let spawned = std::thread::Builder::new()
        .name("snapshots".into())
        .stack_size(512 * 1024)
        .spawn(move || again_after_panics("snapshots by the clock", || keep_looking(&host)));
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to take and delete snapshots by the clock");
    }
}

fn keep_looking(host: &Weak<Host>) {
    // The minute in which the daemon starts belongs to it too.
    let mut last = clock::here().saturating_sub(Span::new().minutes(1));
    while let Some(host) = host.upgrade() {
        look_at_clock(&host);
        let stretch = Stretch::from(last);
        go_through(&host, &stretch);
        last = stretch.until;
        drop(host);
        // A clock, not a wait for something.
        std::thread::sleep(EVERY);
    }
}

/// Takes what fell due and deletes what is over.
pub(crate) fn go_through(host: &Arc<Host>, stretch: &Stretch) {
    crate::volume::go_through(host, stretch);
    schedule::take_due(host, stretch);
    delete_expired(host, stretch);
}

/// Tells that the host's clock was set.
pub(crate) fn look_at_clock(host: &Host) {
    let trusted = clock::now_to_delete().is_some();
    if let Some(by) = clock::was_set_by() {
        let message = format!("it was set by {by} s; nothing is deleted by date for ten minutes");
        tracing::warn!(by, "the host's clock was set; nothing is deleted by date for ten minutes");
        host.warnings().raise(Trouble::Clock, "/1.0", &message);
    } else if trusted {
        host.warnings().resolve(Trouble::Clock, "/1.0");
    }
}

/// Deletes backups and snapshots whose time is over.
fn delete_expired(host: &Arc<Host>, stretch: &Stretch) {
    crate::instance::backup::delete_expired(host, stretch);
    match expired(host, stretch) {
        Ok(due) => due.iter().for_each(|name| delete(host, name, stretch)),
        Err(error) => tracing::error!(error = %error.report(), "snapshots cannot be read"),
    }
}

fn expired(host: &Host, stretch: &Stretch) -> Result<Vec<String>, Error> {
    let found = host.store().rows::<rows::Snapshot>().list(DEFAULT_PROJECT)?;
    let over = found.into_iter().filter(|found| stretch.is_over(&found.row.expires_at));
    Ok(over.map(|found| found.name).collect())
}

fn delete(host: &Arc<Host>, name: &str, stretch: &Stretch) {
    let Some((instance, snapshot)) = name.split_once('/') else { return };
    fault::moment(&format!("snapshot `{name}` was found to be over"));
    let is_over = |row: &rows::Snapshot| stretch.is_over(&row.expires_at);
    match delete_snapshot_if(host, None, DEFAULT_PROJECT, (instance, snapshot), is_over) {
        // Its time was changed while others were deleted.
        Ok(false) => {}
        Ok(true) => tracing::info!(snapshot = name, "an expired snapshot was deleted"),
        Err(error) => {
            tracing::warn!(snapshot = name, error = %error.report(), "an expired snapshot cannot be deleted");
        }
    }
}
