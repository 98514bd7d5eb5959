//! `delete`: the row first, then the tree. A tree without a row is a stray that start-up removes.

use std::sync::Arc;

use cabin_storage::VolumeName;
use cabin_store::rows;
use cabin_undo::fault;
use serde_json::Value;

use super::{WHAT, address, expand, load, profiles_of};
use crate::{Error, Host, storage, volume};

/// What to do with an instance that runs when it is to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenRunning {
    /// Leave it alone and say so.
    Refuse,
    /// Stop it without asking the guest.
    Kill,
}

/// Deletes an instance.
///
/// # Errors
/// When there is none, it is protected, or it runs and is not to be killed. When its tree cannot be removed the instance is gone and
/// the error names the tree.
pub fn delete(host: &Arc<Host>, project: &str, name: &str, running: WhenRunning) -> Result<(), Error> {
    load(host, project, name)?;
    let _turn = host.busy().take(name, "delete")?;
    if let Err(error) = super::snapshot::settle(host, project, name) {
        // Nobody needs it whole any more; its volumes are given back by `remove`.
        tracing::warn!(instance = name, error = %error.report(), "it goes with an unfinished change");
    }
    let mut found = load(host, project, name)?;
    let runs = super::status(host, name) != cabin_api::StatusCode::Stopped;
    if runs && running == WhenRunning::Refuse {
        return Err(Error::WrongStatus { name: name.to_owned(), action: "delete", status: "running" });
    }
    let expanded = expand(&found.row, &profiles_of(host, project, &found.row.profiles)?);
    if crate::resolve::is_true(&expanded.config, "security.protection.delete") {
        return Err(Error::Protected { name: name.to_owned(), key: "security.protection.delete" });
    }
    let mut ended = Ok(());
    if runs {
        ended = super::stop::stop(host, project, name, true, None, rows::Power::Stopped)?;
        found = load(host, project, name)?;
    }
    remove(host, project, name, &found).and(ended)
}

/// Removes an instance that is known to be stopped; the caller holds its turn.
pub(crate) fn remove(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    found: &cabin_store::Versioned<rows::Instance>,
) -> Result<(), Error> {
    let mut txn = host.store().begin();
    for snapshot in super::snapshot::rows_of(host, project, name)? {
        txn = txn.remove::<rows::Snapshot>(project, &super::snapshot::row_name(name, &snapshot.name));
    }
    let backups = super::backup::rows_of(host, project, name)?;
    for backup in &backups {
        txn = txn.remove::<rows::Backup>(project, &super::snapshot::row_name(name, &backup.name));
    }
    let (txn, returning) = volume::carried_over(host, project, name, txn)?;
    let committed = txn
        .check::<rows::Instance>(project, name, Some(found.revision))
        .remove::<rows::Instance>(project, name)
        .remove::<rows::Templates>(project, name)
        .remove::<rows::Intent>(project, name)
        .commit();
    match committed {
        Err(cabin_store::Error::Changed { .. }) => {
            return Err(Error::Changed { what: WHAT, name: name.to_owned() });
        }
        other => other?,
    };
    fault::reach("instance's rows removed");
    volume::give_back(host, project, &returning);
    host.warnings().forget(&address(name));
    host.events().lifecycle(project, "instance-deleted", &address(name), name, Value::Null, None);
    let mut failures = Vec::new();
    let mut keep = |what: &str, result: Result<(), Error>| {
        if let Err(error) = result {
            failures.push(format!("{what}: {}", error.report()));
        }
    };
    // The ids are somebody else's only once no file has them any more.
    let left = |what: &str| fault::behind(what).map_err(Error::from);
    match remove_tree(host, name, &found.row.pool) {
        Ok(()) => keep("ids", left("ids").and_then(|()| host.ids().release(found.row.ids))),
        gone => keep("tree", gone),
    }
    keep("link", super::rename::unlink(host, name));
    let logs = format!("logs/{name}");
    let remove = || host.dir().remove_tree(&logs).map_err(Error::io(format!("remove `{logs}`")));
    keep("logs", left("logs").and_then(|()| remove()));
    for backup in &backups {
        keep("backup", super::backup::remove_file(host, &backup.row));
    }
    let release = || release_addresses(host, project, name, &found.row);
    keep("addresses", left("addresses").and_then(|()| release()));
    let forget = || host.runtime().forget(name).map_err(Error::from);
    keep("records", left("records").and_then(|()| forget()));
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Error::LeftBehind {
            left: failures.join("; "),
            source: Box::new(Error::invalid(format!(
                "instance `{name}` is deleted, but not all of it could be removed"
            ))),
        }),
    }
}

fn release_addresses(host: &Host, project: &str, name: &str, row: &rows::Instance) -> Result<(), Error> {
    let expanded = expand(row, &profiles_of(host, project, &row.profiles)?);
    crate::resolve::release_fixed(host, name, row, &expanded)
}

pub(super) fn remove_tree(host: &Host, name: &str, pool: &str) -> Result<(), Error> {
    let (pool, volume) = (storage::pool(host, pool)?, VolumeName::container(name)?);
    Ok(pool.delete_with_snapshots(&volume)?)
}
