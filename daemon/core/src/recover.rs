//! What the daemon does by itself: take up what still runs, start what should run, clean up what ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cabin_runtime::Exit;
use cabin_store::Versioned;
use cabin_store::rows::{self, Config, Power};

use crate::instance;
use crate::live::Live;
use crate::{DEFAULT_PROJECT, Error, Host, resolve};

/// Takes up running containers, removes strays, and starts what should run.
pub(crate) fn instances(host: &Arc<Host>) {
    let found = match host.store().rows::<rows::Instance>().list(DEFAULT_PROJECT) {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(error = %Error::from(error).report(), "instances cannot be read");
            return;
        }
    };
    sweep_strays(host, &found);
    let ids: Vec<_> = found.iter().map(|instance| (instance.name.clone(), instance.row.ids)).collect();
    if let Err(error) = host.ids().reconcile(&ids) {
        tracing::error!(error = %error.report(), "the registry of host ids cannot be put right");
    }
    let mut waiting = Vec::new();
    for instance in found {
        match adopt(host, &instance) {
            Ok(true) => {}
            Ok(false) => waiting.push(instance),
            Err(error) => {
                tracing::error!(instance = instance.name, error = %error.report(), "a running instance cannot be taken up");
            }
        }
    }
    let again = host.clone();
    let spawned =
        std::thread::Builder::new().name("autostart".into()).spawn(move || autostart(&again, waiting));
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread for autostart");
    }
}

/// A supervisor that still lives is watched again; of one that ended meanwhile the rest is cleaned up.
fn adopt(host: &Arc<Host>, found: &Versioned<rows::Instance>) -> Result<bool, Error> {
    let Some(supervisor) = host.runtime().connect(&found.name)? else {
        if host.runtime().cgroups().list().is_ok_and(|names| names.contains(&found.name)) {
            host.runtime().cgroups().kill(&found.name)?;
            host.runtime().cgroups().destroy(&found.name)?;
        }
        for plugged in instance::plugged_nics(host, DEFAULT_PROJECT, &found.name, &found.row)? {
            host.network().unplug(&resolve::interface(&plugged.network)?, &plugged.nic)?;
        }
        return Ok(false);
    };
    let nics = instance::ensured_nics(host, DEFAULT_PROJECT, &found.name, &found.row)?;
    // The row was last touched by its start.
    let started_at = found.row.last_used_at.clone();
    let live = Arc::new(Live::new(&found.name, supervisor, started_at, nics));
    let frozen = host.runtime().cgroups().is_frozen(&found.name)?;
    live.frozen.store(frozen, Ordering::Relaxed);
    host.live().add(live)?;
    Ok(true)
}

/// Trees, cgroups and links that no row owns: what a crash between two steps left.
fn sweep_strays(host: &Arc<Host>, found: &[Versioned<rows::Instance>]) {
    let known = |name: &str| found.iter().any(|instance| instance.name == name);
    let tell = |what: &str, name: &str, result: Result<(), Error>| match result {
        Ok(()) => tracing::info!(what, name, "a stray was removed"),
        Err(error) => tracing::warn!(what, name, error = %error.report(), "a stray cannot be removed"),
    };
    for pool in host.store().rows::<rows::Pool>().list(DEFAULT_PROJECT).unwrap_or_default() {
        let Ok(pool) = crate::storage::pool(host, &pool.name) else { continue };
        for volume in pool.list().unwrap_or_default() {
            if !known(volume.name()) {
                tell("volume", volume.name(), pool.delete(&volume).map_err(Error::from));
            }
        }
    }
    for name in host.runtime().cgroups().list().unwrap_or_default() {
        if !known(&name) {
            let cgroups = host.runtime().cgroups();
            let gone = cgroups.kill(&name).and_then(|()| cgroups.destroy(&name));
            tell("cgroup", &name, gone.map_err(Error::from));
        }
    }
    let links = host.dir().open_dir("containers").and_then(|dir| dir.list()).unwrap_or_default();
    for link in links.iter().filter(|link| !known(&link.name)) {
        let removed = host.dir().remove_file(&format!("containers/{}", link.name));
        tell("link", &link.name, removed.map_err(Error::io("remove a stray link")));
    }
}

/// Starts what ran before or is to run always, by priority, with delays. One that fails does not hold up
/// the others.
fn autostart(host: &Arc<Host>, stopped: Vec<Versioned<rows::Instance>>) {
    let mut due = Vec::new();
    for instance in stopped {
        let config = match expanded(host, &instance.row) {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(instance = instance.name, error = %error.report(), "config cannot be read");
                continue;
            }
        };
        let ran = instance.row.power == Power::Running;
        let wanted = match config.get("boot.autostart").map(String::as_str) {
            None | Some("" | "last-state") => ran,
            Some(_) => resolve::is_true(&config, "boot.autostart"),
        };
        if wanted {
            let priority = resolve::integer(&config, "boot.autostart.priority").unwrap_or(0);
            let delay = resolve::integer(&config, "boot.autostart.delay").unwrap_or(0).max(0);
            due.push((-priority, instance.name.clone(), delay.unsigned_abs()));
        } else if ran {
            write_stopped(host, &instance);
        }
    }
    due.sort();
    for (_, name, delay) in due {
        if let Err(error) = instance::start_one(host, DEFAULT_PROJECT, &name) {
            tracing::error!(instance = name, error = %error.report(), "autostart failed");
        }
        // The delay is part of the order the user asked for; nothing is waited for that could be seen.
        std::thread::sleep(Duration::from_secs(delay));
    }
}

fn expanded(host: &Host, row: &rows::Instance) -> Result<Config, Error> {
    Ok(instance::expand(row, &instance::profiles_of(host, DEFAULT_PROJECT, &row.profiles)?).config)
}

fn write_stopped(host: &Host, found: &Versioned<rows::Instance>) {
    let row = rows::Instance { power: Power::Stopped, ..found.row.clone() };
    let stored = host
        .store()
        .begin()
        .update(DEFAULT_PROJECT, &found.name, found.revision, &row)
        .and_then(cabin_store::Transaction::commit);
    if let Err(error) = stored {
        tracing::error!(instance = found.name, error = %Error::from(error).report(), "cannot store that it is stopped");
    }
}

/// A container ended. If a stop is waiting for it, that one cleans up; otherwise it is done here, and the
/// container is started again when it rebooted.
pub(crate) fn ended(host: Arc<Host>, live: Arc<Live>) {
    if live.stopping.load(Ordering::SeqCst) {
        return;
    }
    // The watching thread must go on watching.
    let spawned = std::thread::Builder::new().name("ended".into()).spawn(move || {
        if let Err(error) = tidy_up(&host, &live) {
            tracing::error!(instance = live.name, error = %error.report(), "cleaning up after its end failed");
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to clean up after a container's end");
    }
}

fn tidy_up(host: &Arc<Host>, live: &Arc<Live>) -> Result<(), Error> {
    let _turn = host.busy().take(&live.name, "clean up")?;
    if !host.live().get(&live.name).is_some_and(|present| Arc::ptr_eq(&present, live)) {
        return Ok(());
    }
    let exit = live.exit().unwrap_or(Exit::SupervisorDied);
    let row = host.store().rows::<rows::Instance>().get(DEFAULT_PROJECT, &live.name)?;
    let Some(found) = row else { return Ok(()) };
    let again = match exit {
        Exit::Reboot => !found.row.ephemeral,
        // A power-off from inside is a wish; anything else is an accident.
        Exit::Stopped { status: 0 } => false,
        Exit::SupervisorDied | Exit::Stopped { .. } => {
            instance::restarts_by_itself(host, DEFAULT_PROJECT, &found.row)? && live.may_restart()
        }
    };
    if matches!(exit, Exit::SupervisorDied) {
        tracing::warn!(instance = live.name, "the supervisor died, and the container with it");
        host.runtime().cgroups().kill(&live.name)?;
    }
    let power = if again { Power::Running } else { Power::Stopped };
    instance::clean_up(host, DEFAULT_PROJECT, live, power)?;
    let address = format!("/1.0/instances/{}", live.name);
    if again {
        instance::start_again(host, DEFAULT_PROJECT, &live.name)?;
        host.events().lifecycle(
            DEFAULT_PROJECT,
            "instance-restarted",
            &address,
            &live.name,
            serde_json::Value::Null,
            None,
        );
        return Ok(());
    }
    let action = if matches!(exit, Exit::SupervisorDied) { "instance-stopped" } else { "instance-shutdown" };
    host.events().lifecycle(DEFAULT_PROJECT, action, &address, &live.name, serde_json::Value::Null, None);
    instance::delete_if_ephemeral(host, DEFAULT_PROJECT, &live.name)
}

/// Stops every running instance: groups of one `boot.stop.priority` together, the highest first.
pub(crate) fn stop_all(host: &Arc<Host>) {
    let mut running = Vec::new();
    for live in host.live().list() {
        let row = host.store().rows::<rows::Instance>().get(DEFAULT_PROJECT, &live.name).ok().flatten();
        let config = row.and_then(|found| expanded(host, &found.row).ok()).unwrap_or_default();
        let priority = resolve::integer(&config, "boot.stop.priority").unwrap_or(0);
        let timeout = resolve::integer(&config, "boot.host_shutdown_timeout").unwrap_or(30).max(1);
        let force = config.get("boot.host_shutdown_action").is_some_and(|action| action == "force-stop");
        running.push((priority, live.name.clone(), Duration::from_secs(timeout.unsigned_abs()), force));
    }
    running.sort_by_key(|found| std::cmp::Reverse(found.0));
    for group in running.chunk_by(|a, b| a.0 == b.0) {
        std::thread::scope(|scope| {
            for (_, name, timeout, force) in group {
                scope.spawn(move || {
                    let stopped = instance::stop_one(host, DEFAULT_PROJECT, name, *timeout, *force);
                    match stopped {
                        Ok(()) => remember_running(host, name),
                        Err(error) => {
                            tracing::error!(instance = name, error = %error.report(), "stopping failed");
                        }
                    }
                });
            }
        });
    }
}

/// What the daemon stopped because it ends itself runs again when it comes back.
fn remember_running(host: &Host, name: &str) {
    let Ok(Some(found)) = host.store().rows::<rows::Instance>().get(DEFAULT_PROJECT, name) else { return };
    let row = rows::Instance { power: Power::Running, ..found.row };
    let stored = host
        .store()
        .begin()
        .update(DEFAULT_PROJECT, name, found.revision, &row)
        .and_then(cabin_store::Transaction::commit);
    if let Err(error) = stored {
        tracing::error!(instance = name, error = %Error::from(error).report(), "cannot store that it ran");
    }
}
