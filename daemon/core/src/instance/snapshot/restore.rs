//! Going back to a snapshot: its tree takes the place of the instance's in one act, and its config comes with it.

use std::sync::Arc;

use cabin_api::StatusCode;
use cabin_storage::{Pool, VolumeName};
use cabin_store::rows::{self, Config, Intent, Power};
use cabin_undo::{Undo, atomically};
use serde_json::json;

use super::load_snapshot;
use crate::instance::checked::Checked;
use crate::instance::create::check_config;
use crate::instance::{address, expand, intent, load, profiles_of, root_pool, start, status, stop, turn};
use crate::volume::{self, Returning};
use crate::{Error, Host, Op, resolve, storage};

/// How much is brought back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// The files alone, and not the config.
    pub disk_only: bool,
    /// The attached custom volumes too, each from its own snapshot of the same name.
    pub volumes: bool,
}

/// What is to be brought back.
struct Wanted<'a> {
    project: &'a str,
    instance: &'a str,
    snapshot: &'a str,
    disk_only: bool,
    /// Volumes that are brought back with it.
    volumes: Returning,
    /// Says later whether the tree was put in place.
    mark: String,
    /// Whether it runs, and is to run again.
    again: bool,
}

/// Refuses at once what can be seen to fail.
///
/// # Errors
/// When there is no such instance or snapshot, or the instance cannot have the snapshot's config any more, or one of
/// its volumes, when they are wanted too, cannot be restored.
pub fn check_restore(
    host: &Host,
    project: &str,
    instance: &str,
    snapshot: &str,
    what: Extent,
) -> Result<(), Error> {
    let now = load(host, project, instance)?;
    let found = load_snapshot(host, project, instance, snapshot)?;
    if what.volumes {
        let devices = devices(host, project, &now.row, &found.row, what.disk_only)?;
        volume::check_return(host, project, &devices, (instance, snapshot))?;
    }
    if what.disk_only {
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

/// The devices it has when it is restored.
fn devices(
    host: &Host,
    project: &str,
    now: &rows::Instance,
    snapshot: &rows::Snapshot,
    disk_only: bool,
) -> Result<rows::Devices, Error> {
    let row = if disk_only { now.clone() } else { restored(now, snapshot) };
    Ok(expand(&row, &profiles_of(host, project, &row.profiles)?).devices)
}

/// Brings back what a snapshot holds: the files, the config too unless only the files are wanted, and the attached
/// custom volumes when they are wanted too: then all of it comes back or nothing. A
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
    what: Extent,
) -> Result<(), Error> {
    let _turn = turn(host, project, instance, "restore")?;
    check_restore(host, project, instance, snapshot, what)?;
    let disk_only = what.disk_only;
    let volumes = match what.volumes {
        true => {
            let (now, then) =
                (load(host, project, instance)?.row, load_snapshot(host, project, instance, snapshot)?.row);
            let devices = devices(host, project, &now, &then, disk_only)?;
            Returning::of(host, project, &devices, (instance, snapshot))?
        }
        false => Returning::default(),
    };
    let again = status(host, instance) != StatusCode::Stopped;
    let mark = uuid::Uuid::new_v4().to_string();
    let wanted = Wanted { project, instance, snapshot, disk_only, volumes, mark, again };
    let pool = storage::pool(host, &load(host, project, instance)?.row.pool)?;
    let volume = VolumeName::container(instance)?;
    let ended = atomically(|undo| put_in_place(host, &wanted, &pool, &volume, undo))?;
    let forgotten = pool.forget_replaced(&volume).map_err(Error::from);
    let forgotten = forgotten.and(wanted.volumes.done(host, project, snapshot));
    let context = json!({ "snapshot": snapshot });
    let address = address(instance);
    host.events().lifecycle(project, "instance-restored", &address, instance, context, op.requestor());
    if again {
        start::start(host, project, instance).map_err(|source| {
            // It stays stopped, and the error says why; a failure here is met again by the next start.
            let _ = stop::store_power(host, project, instance, Power::Stopped);
            let _ = intent::forget(host, project, instance);
            let left = format!("the start of instance `{instance}`, which is restored");
            Error::LeftBehind { left, source: Box::new(source) }
        })?;
    }
    forgotten.map_err(|source| Error::LeftBehind {
        left: format!("old files of instance `{instance}` or its volumes, which are restored"),
        source: Box::new(source),
    })?;
    ended
}

fn put_in_place(
    host: &Arc<Host>,
    wanted: &Wanted<'_>,
    pool: &Pool,
    volume: &VolumeName,
    undo: &mut Undo,
) -> Result<stop::Ended, Error> {
    let Wanted { project, instance, snapshot, disk_only, volumes, mark, again } = wanted;
    let going_on = Intent::Restore {
        snapshot: (*snapshot).to_owned(),
        mark: mark.clone(),
        disk_only: *disk_only,
        again: *again,
        volumes: volumes.rows(),
    };
    intent::note(host, project, instance, &going_on, undo)?;
    // While it still runs: only the exchange itself needs it stopped.
    let others = volumes.stage(host, snapshot, mark, undo)?;
    let staged = pool.stage_restore(volume, snapshot, mark, undo)?;
    let mut ended = Ok(());
    if *again {
        ended = stop::stop(host, project, instance, true, None, Power::Running)?;
        let (host, project, name) = (host.clone(), (*project).to_owned(), (*instance).to_owned());
        undo.push(format!("stop `{name}`"), move || start::start(&host, &project, &name))?;
    }
    let (_alone, _kept) = match volumes.is_empty() {
        false => (Some(host.change_layout()), None),
        true => (None, Some(host.keep_layout())),
    };
    // What fails is taken back before anybody else can mount it; the instance itself starts again without the lock.
    undo.part(|undo| {
        volumes.show(host, project, others, undo)?;
        // Last: its mark says that all are in place.
        staged.show(undo)?;
        commit(host, project, instance, (snapshot, *disk_only), *again, undo)
    })?;
    Ok(ended)
}

/// The rows after a restoring whose tree is in place, and the addresses that are kept for what does not run.
pub(super) fn commit(
    host: &Arc<Host>,
    project: &str,
    instance: &str,
    (snapshot, disk_only): (&str, bool),
    again: bool,
    undo: &mut Undo,
) -> Result<(), Error> {
    let now = load(host, project, instance)?;
    let mut txn = host.store().begin();
    if !disk_only {
        let row = restored(&now.row, &load_snapshot(host, project, instance, snapshot)?.row);
        let new = Checked::in_its_pool(host, project, row)?;
        let before = expand(&now.row, &profiles_of(host, project, &now.row.profiles)?);
        let (old, then) = ((instance, &now.row, &before), (instance, &new.row, &new.expanded));
        resolve::move_fixed(host, old, then, undo)?;
        txn = new.update(txn, project, instance, now.revision)?;
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
        volume: snapshot.volume,
        ..now.clone()
    }
}
