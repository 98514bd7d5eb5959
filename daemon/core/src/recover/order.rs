//! Many instances in their order: started with the daemon, stopped before it ends.

use std::sync::Arc;
use std::time::Duration;

use cabin_store::Versioned;
use cabin_store::rows::{self, Config, Power};

use crate::{DEFAULT_PROJECT, Error, Host, instance, resolve};

/// Whether an instance that does not run is to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// As `boot.autostart` says.
    AsConfigured,
    /// In any case: it was on its way.
    Start,
}

/// Starts what ran before or is to run always, by priority, with delays. One that fails does not hold up
/// the others.
pub(super) fn autostart(host: &Arc<Host>, stopped: Vec<(Versioned<rows::Instance>, Wish)>) {
    let mut due = Vec::new();
    for (instance, wish) in stopped {
        let config = match expanded(host, &instance.row) {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(instance = instance.name, error = %error.report(), "config cannot be read");
                continue;
            }
        };
        let ran = instance.row.power == Power::Running;
        let wanted = match config.get("boot.autostart").map(String::as_str) {
            _ if wish == Wish::Start => true,
            None | Some("" | "last-state") => ran,
            Some(_) => resolve::is_true(&config, "boot.autostart"),
        };
        if wanted {
            let priority = resolve::integer(&config, "boot.autostart.priority").unwrap_or(0);
            let delay = resolve::integer(&config, "boot.autostart.delay").unwrap_or(0).max(0);
            due.push((-priority, instance.name.clone(), delay.unsigned_abs()));
        } else if ran
            && let Err(error) = instance::store_power(host, DEFAULT_PROJECT, &instance.name, Power::Stopped)
        {
            tracing::error!(instance = instance.name, error = %error.report(), "cannot store that it is stopped");
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

/// Stops every running instance: groups of one `boot.stop.priority` together, the highest first. What the
/// daemon stopped because it ends itself runs again when it comes back.
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
                    if let Err(error) = stopped {
                        tracing::error!(instance = name, error = %error.report(), "stopping failed");
                    }
                });
            }
        });
    }
}
