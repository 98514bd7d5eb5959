//! Going back to a snapshot: its tree takes the place of the instance's in one act, and its config comes with it.

use std::sync::Arc;

use cabin_api::StatusCode;
use cabin_storage::{Pool, VolumeName};
use cabin_store::rows::{self, Config, Intent, Power};
use cabin_undo::{Undo, atomically};
use serde_json::json;

use super::load_snapshot;
use crate::instance::create::{check_config, give_macs};
use crate::instance::{address, expand, intent, load, profiles_of, root_pool, start, status, stop, turn};
use crate::{Error, Host, Op, resolve, storage};

/// What is to be brought back.
struct Wanted<'a> {
    project: &'a str,
    instance: &'a str,
    snapshot: &'a str,
    disk_only: bool,
    /// Says later whether the tree was put in place.
    mark: String,
    /// Whether it runs, and is to run again.
    again: bool,
}

/// Refuses at once what can be seen to fail.
///
/// # Errors
/// When there is no such instance or snapshot, or the instance cannot have the snapshot's config any more.
pub fn check_restore(
    host: &Host,
    project: &str,
    instance: &str,
    snapshot: &str,
    disk_only: bool,
) -> Result<(), Error> {
    let now = load(host, project, instance)?;
    let found = load_snapshot(host, project, instance, snapshot)?;
    if disk_only {
        return Ok(());
    }
    let row = restored(&now.row, &found.row);
    check_config(host, project, &row, &row.profiles.clone())?;
    let expanded = expand(&row, &profiles_of(host, project, &row.profiles)?);
    if root_pool(&expanded.devices)? != row.pool {
        return Err(Error::invalid(format!(
            "the root disk of instance `{instance}` would be in another pool; the files alone can be restored"
        )));
    }
    Ok(())
}

/// Brings back what a snapshot holds: the files, and the config too unless only the files are wanted. A
/// running instance is stopped for it and started again.
///
/// # Errors
/// As [`check_restore`], or when the host refuses; then everything is as before.
pub fn restore(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    instance: &str,
    snapshot: &str,
    disk_only: bool,
) -> Result<(), Error> {
    let _turn = turn(host, project, instance, "restore")?;
    check_restore(host, project, instance, snapshot, disk_only)?;
    let again = status(host, instance) != StatusCode::Stopped;
    let mark = uuid::Uuid::new_v4().to_string();
    let wanted = Wanted { project, instance, snapshot, disk_only, mark, again };
    let pool = storage::pool(host, &load(host, project, instance)?.row.pool)?;
    let volume = VolumeName::container(instance)?;
    atomically(|undo| put_in_place(host, &wanted, &pool, &volume, undo))?;
    let forgotten = pool.forget_replaced(&volume);
    if again {
        start::start(host, project, instance).inspect_err(|_| {
            // It stays stopped, and the error says why; a failure here is met again by the next start.
            let _ = stop::store_power(host, project, instance, Power::Stopped);
            let _ = intent::forget(host, project, instance);
        })?;
    }
    let context = json!({ "snapshot": snapshot });
    let address = address(instance);
    host.events().lifecycle(project, "instance-restored", &address, instance, context, op.requestor());
    Ok(forgotten?)
}

fn put_in_place(
    host: &Arc<Host>,
    wanted: &Wanted<'_>,
    pool: &Pool,
    volume: &VolumeName,
    undo: &mut Undo,
) -> Result<(), Error> {
    let Wanted { project, instance, snapshot, disk_only, mark, again } = wanted;
    let going_on = Intent::Restore {
        snapshot: (*snapshot).to_owned(),
        mark: mark.clone(),
        disk_only: *disk_only,
        again: *again,
    };
    intent::note(host, project, instance, &going_on, undo)?;
    // While it still runs: only the exchange itself needs it stopped.
    let staged = pool.stage_restore(volume, snapshot, mark, undo)?;
    if *again {
        stop::stop(host, project, instance, true, None, Power::Running)?;
        let (host, project, name) = (host.clone(), (*project).to_owned(), (*instance).to_owned());
        undo.push(format!("stop `{name}`"), move || start::start(&host, &project, &name))?;
    }
    let _kept = host.keep_layout();
    staged.show(undo)?;
    commit(host, project, instance, (snapshot, *disk_only), *again)
}

/// The rows after a restoring whose tree is in place.
pub(super) fn commit(
    host: &Host,
    project: &str,
    instance: &str,
    (snapshot, disk_only): (&str, bool),
    again: bool,
) -> Result<(), Error> {
    let now = load(host, project, instance)?;
    let mut txn = host.store().begin();
    if !disk_only {
        let mut row = restored(&now.row, &load_snapshot(host, project, instance, snapshot)?.row);
        let expanded = expand(&row, &profiles_of(host, project, &row.profiles)?);
        resolve::check_disks(host, &expanded.devices)?;
        resolve::check_nics(host, &expanded.devices)?;
        give_macs(&mut row, &expanded);
        txn = txn.update(project, instance, now.revision, &row)?;
    }
    txn = match again {
        true => txn.write(project, instance, &Intent::Restart)?,
        false => txn.remove::<Intent>(project, instance),
    };
    match txn.commit() {
        Err(cabin_store::Error::Changed { .. }) => {
            Err(Error::Changed { what: super::super::WHAT, name: instance.to_owned() })
        }
        other => Ok(other.map(drop)?),
    }
}

/// What the daemon remembers of the instance itself, and not of its tree or config.
fn is_its_own(key: &str) -> bool {
    matches!(key, "volatile.uuid" | "volatile.last_state.power" | "volatile.last_state.ready")
        || key.starts_with("volatile.") && key.ends_with(".host_name")
}

fn restored(now: &rows::Instance, snapshot: &rows::Snapshot) -> rows::Instance {
    let snapshot = snapshot.clone();
    let mut config: Config = snapshot.config.into_iter().filter(|(key, _)| !is_its_own(key)).collect();
    config.extend(now.config.iter().filter(|(key, _)| is_its_own(key)).map(|(k, v)| (k.clone(), v.clone())));
    // Guests learn by this that their time was turned back.
    config.insert("volatile.uuid.generation".into(), uuid::Uuid::new_v4().to_string());
    rows::Instance {
        description: snapshot.description,
        architecture: snapshot.architecture,
        ephemeral: snapshot.ephemeral,
        profiles: snapshot.profiles,
        config,
        devices: snapshot.devices,
        ..now.clone()
    }
}
