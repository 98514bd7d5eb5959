//! `stop`: the mirror of start. Cleaning up goes on after a failure and tells all of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cabin_runtime::Exit;
use cabin_store::rows::{self, Power};
use cabin_undo::{Undo, atomically, fault};

use super::change::{host_name, is_host_name};
use super::{alter, expand, load, plug, profiles_of};
use crate::live::Live;
use crate::{Error, Host};

/// `SIGKILL`.
const KILL: i32 = 9;

/// Says in the row of an ephemeral instance that its run is over, so that it is to be deleted, whoever comes to do it.
pub(crate) const ENDING: &str = "volatile.last_state.ending";

/// How long the kernel may take to tear a killed container down.
const TEARDOWN: Duration = Duration::from_secs(60);

/// How soon an init that may not have heard is told again: at first, and at the most.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(10);

/// How long the end of an instance whose init is gone may take to be known.
const GONE: Duration = Duration::from_secs(5);

/// An instance has ended; or it has, and what is left behind of its run is the error. Whoever goes on from there does so
/// in either case.
pub(super) type Ended = Result<(), Error>;

/// Stops a running instance; the caller holds its turn. No timeout waits for ever. `then` is what it is to do
/// when the daemon comes back.
pub(super) fn stop(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    force: bool,
    timeout: Option<Duration>,
    then: Power,
) -> Result<Ended, Error> {
    let Some(live) = host.live().get(name) else { return Ok(Ok(())) };
    live.stopping.store(true, Ordering::SeqCst);
    let ended = atomically(|undo| -> Result<(), Error> {
        if then == Power::Stopped {
            // Written first: a daemon that dies during the stop must not start again what was to be stopped.
            let before = write_power(host, project, name, then)?;
            let (again, project, name) = (host.clone(), project.to_owned(), name.to_owned());
            undo.push("intent to stop", move || put_back(&again, &project, &name, &before))?;
        }
        if force { kill(host, &live) } else { ask(host, &live, timeout, undo) }
    });
    if let Err(failed) = ended {
        live.stopping.store(false, Ordering::SeqCst);
        // One that ended in the very last moment was left to us.
        if live.exit().is_none() {
            return Err(failed.into());
        }
    }
    fault::reach(&format!("`{name}` has ended"));
    Ok(clean_up(host, project, &live, then))
}

/// Stores what an instance is to be doing, and nothing else.
pub(crate) fn store_power(host: &Host, project: &str, name: &str, power: Power) -> Result<(), Error> {
    alter(host, project, name, |row| row.power = power).map(drop)
}

/// Ends a container while somebody else waits for its clean stop; the other one cleans up, and does not start it again.
pub(super) fn force_ahead(host: &Arc<Host>, project: &str, name: &str) -> Result<(), Error> {
    // Nor does a daemon that comes after this one.
    let going_on = host.store().rows::<rows::Intent>().get(project, name)?;
    if going_on.is_some_and(|found| found.row == rows::Intent::Restart) {
        super::intent::forget(host, project, name)?;
    }
    match host.live().get(name) {
        Some(live) => {
            live.stays_down.store(true, Ordering::SeqCst);
            kill(host, &live)
        }
        None => Ok(()),
    }
}

fn ask(host: &Arc<Host>, live: &Arc<Live>, timeout: Option<Duration>, undo: &mut Undo) -> Result<(), Error> {
    if live.is_frozen() {
        let (again, frozen) = (host.clone(), live.clone());
        undo.push(format!("thaw `{}`", live.name), move || match frozen.exit() {
            None => super::power::freeze(&again, &frozen.name),
            Some(_) => Ok(()),
        })?;
        super::power::thaw(host, &live.name)?;
    }
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut pause = FIRST_LOOK;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let told = match tell(live) {
            // It ended while it was looked at.
            Err(_) if live.wait(Some(GONE)).is_some() => return Ok(()),
            told => told?,
        };
        let patience = match told {
            Told::Heard => left,
            Told::Maybe => Some(left.map_or(pause, |left| left.min(pause))),
        };
        // A guest that reboots when it is told to stop has stopped all the same.
        if live.wait(patience).is_some() {
            return Ok(());
        }
        if told == Told::Heard || left.is_some_and(|left| left <= pause) {
            return Err(Error::StopTimedOut {
                name: live.name.clone(),
                seconds: timeout.map_or(0, |timeout| timeout.as_secs()),
            });
        }
        pause = (pause * 2).min(LAST_LOOK);
    }
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Init had set itself up for it.
    Heard,
    /// It may have come before that, and be lost: it is sent again.
    Maybe,
}

/// Tells init to shut down.
fn tell(live: &Live) -> Result<Told, Error> {
    let signal = live.supervisor.init_kind()?.poweroff_signal();
    let told = if live.supervisor.hears(signal)? { Told::Heard } else { Told::Maybe };
    live.supervisor.signal(signal)?;
    Ok(told)
}

fn kill(host: &Arc<Host>, live: &Arc<Live>) -> Result<(), Error> {
    let emptied = host.runtime().cgroups().kill(&live.name);
    // With init the kernel ends all that is in its process namespace, whatever became of the cgroups.
    let ended = live.supervisor.signal(KILL);
    if let (Err(error), Err(_)) = (emptied, ended) {
        return Err(error.into());
    }
    match live.wait(Some(TEARDOWN)) {
        Some(_) => Ok(()),
        None => Err(Error::StopTimedOut { name: live.name.clone(), seconds: TEARDOWN.as_secs() }),
    }
}

/// Takes away what start made for a container that ended, bottom up, and writes down that it is stopped.
pub(crate) fn clean_up(host: &Arc<Host>, project: &str, live: &Arc<Live>, power: Power) -> Result<(), Error> {
    let name = &live.name;
    let how = match live.exit() {
        Some(Exit::Stopped { status }) => format!("ended with status {status}"),
        Some(Exit::Reboot) => "asked for a reboot".to_owned(),
        Some(Exit::SupervisorDied) | None => "its supervisor was killed".to_owned(),
    };
    super::logs::note(host, name, &how);
    let mut failures = Vec::new();
    let mut keep = |what: &str, result: Result<(), Error>| {
        if let Err(error) = result {
            failures.push(format!("{what}: {}", error.report()));
        }
    };
    if let Err(error) = keep_console_log(host, live) {
        // It is for people: a disk without room is no reason not to stop.
        tracing::warn!(instance = name, error = %error.report(), "what the console said is lost");
    }
    for plugged in live.nics.lock().drain(..) {
        keep(&plugged.device, plug::unplug(host, &plugged));
        fault::reach(&format!("unplugged `{}`", plugged.device));
    }
    let left = |what: &str| fault::behind(what).map_err(Error::from);
    keep("fixed addresses", left("fixed addresses").and_then(|()| keep_addresses(host, project, name)));
    let destroy = || host.runtime().cgroups().destroy(name).map_err(Error::from);
    keep("cgroup", left("cgroup").and_then(|()| destroy()));
    fault::reach("cgroup removed");
    let forget = || host.runtime().forget(name).map_err(Error::from);
    keep("records", left("records").and_then(|()| forget()));
    host.live().remove(live);
    keep("row", write_power(host, project, name, power).map(drop));
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Error::LeftBehind {
            left: failures.join("; "),
            source: Box::new(Error::invalid(format!(
                "instance `{name}` is stopped, but not all of it could be removed"
            ))),
        }),
    }
}

/// A reservation ends with its port; that of a fixed address outlives it.
fn keep_addresses(host: &Arc<Host>, project: &str, name: &str) -> Result<(), Error> {
    let row = load(host, project, name)?.row;
    let expanded = expand(&row, &profiles_of(host, project, &row.profiles)?);
    Ok(cabin_undo::atomically(|undo| crate::resolve::reserve_fixed(host, name, &row, &expanded, undo))?)
}

fn keep_console_log(host: &Host, live: &Live) -> Result<(), Error> {
    match live.exit() {
        Some(Exit::SupervisorDied) | None => Ok(()),
        Some(_) => keep_last_console(host, &live.name),
    }
}

/// Keeps what the console said in a run that has ended.
pub(crate) fn keep_last_console(host: &Host, name: &str) -> Result<(), Error> {
    let kept = host.runtime().last_console_log(name)?;
    super::logs::log_dir(host, name)?
        .replace("console.log", &kept, 0o600)
        .map_err(Error::io(format!("keep the console log of `{name}`")))
}

/// Writes down that a run is over (or about to be), and what is to be next; gives the row as it was. A row
/// that says so already is not written again.
pub(crate) fn write_power(
    host: &Host,
    project: &str,
    name: &str,
    power: Power,
) -> Result<rows::Instance, Error> {
    alter(host, project, name, |row| {
        row.power = power;
        row.config.insert("volatile.last_state.power".into(), "STOPPED".into());
        row.config.retain(|key, _| !is_host_name(key));
        if row.ephemeral && power == Power::Stopped {
            row.config.insert(ENDING.into(), "true".into());
        }
    })
}

/// Writes down that a container runs, as its start did.
pub(crate) fn write_running(host: &Host, project: &str, name: &str, live: &Live) -> Result<(), Error> {
    let written = alter(host, project, name, |row| {
        row.power = Power::Running;
        // A stop that a daemon did not live to see has not come about.
        row.config.remove(ENDING);
        row.config.insert("volatile.last_state.power".into(), "RUNNING".into());
        row.config.retain(|key, _| !is_host_name(key));
        row.config.extend(live.nics.lock().iter().map(host_name));
    });
    written.map(drop)
}

/// The stop did not come about: the row says again what it said of the run.
fn put_back(host: &Host, project: &str, name: &str, before: &rows::Instance) -> Result<(), Error> {
    let of_the_run = |key: &str| is_host_name(key) || key == "volatile.last_state.power";
    let kept = before.config.iter().filter(|(key, _)| of_the_run(key));
    let kept: Vec<_> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    let written = alter(host, project, name, |row| {
        row.power = before.power;
        row.config.remove(ENDING);
        row.config.extend(kept.iter().cloned());
    });
    written.map(drop)
}

/// Removes cgroups and records of a run that nobody cleaned up after. Gone is success.
pub(super) fn sweep(host: &Host, name: &str) -> Result<(), Error> {
    host.runtime().forget(name)?;
    host.runtime().cgroups().destroy(name)?;
    Ok(())
}

/// An ephemeral instance is deleted when it stops; the caller holds its turn.
pub(crate) fn delete_if_ephemeral(host: &Arc<Host>, project: &str, name: &str) -> Result<(), Error> {
    let found = load(host, project, name)?;
    if !found.row.ephemeral {
        return Ok(());
    }
    super::delete::remove(host, project, name, &found)
}

/// Whether an instance that ended by itself is to be started again.
pub(crate) fn restarts_by_itself(host: &Host, project: &str, row: &rows::Instance) -> Result<bool, Error> {
    let expanded = expand(row, &profiles_of(host, project, &row.profiles)?);
    Ok(crate::resolve::is_true(&expanded.config, "boot.autorestart"))
}
