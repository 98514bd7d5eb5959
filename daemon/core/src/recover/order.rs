//! Many instances in their order: started with the daemon, stopped before it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cabin_store::Versioned;
use cabin_store::rows::{self, Config, Power};

use crate::fence::fenced;
use crate::live::Live;
use crate::warning::Trouble;
use crate::{DEFAULT_PROJECT, Error, Host, instance, resolve};

/// How long is waited before a start that failed is tried again: the first time, and at most. It doubles.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Whether an instance that does not run is to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// As `boot.autostart` says.
    AsConfigured,
    /// In any case: it was on its way.
    Start,
}

/// An instance that could not be started yet.
struct Failed {
    name: String,
    wish: Wish,
    /// When it was last started, by then.
    used_at: String,
    pause: Duration,
    next: Instant,
}

impl Failed {
    fn new(instance: Versioned<rows::Instance>, wish: Wish) -> Failed {
        let (name, used_at) = (instance.name, instance.row.last_used_at);
        Failed { name, wish, used_at, pause: AGAIN.0, next: Instant::now() + AGAIN.0 }
    }
}

/// Starts what ran before or is to run always, by priority, with delays. One that fails does not hold up
/// the others: it is shown as a warning, and tried again until it runs or is not wanted any more.
pub(super) fn autostart(host: &Arc<Host>, stopped: Vec<(Versioned<rows::Instance>, Wish)>) {
    let mut due = Vec::new();
    let mut failed = Vec::new();
    for (instance, wish) in stopped {
        match place(host, &instance, wish) {
            Ok(Some((priority, delay))) => due.push((-priority, instance, delay, wish)),
            Ok(None) => {}
            Err(error) => {
                complain(host, &instance.name, &error);
                failed.push(Failed::new(instance, wish));
            }
        }
    }
    due.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
    for (_, found, delay, wish) in due {
        if host.is_closing() {
            return;
        }
        let used_at = &found.row.last_used_at;
        let started = fenced(|| instance::start_one(host, DEFAULT_PROJECT, &found.name, used_at));
        if let Err(error) = started {
            complain(host, &found.name, &error);
            failed.push(Failed::new(found, wish));
        }
        // The delay is part of the order the user asked for; nothing is waited for that could be seen.
        std::thread::sleep(delay);
    }
    while let Some(next) = failed.iter().map(|failed| failed.next).min() {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if host.is_closing() {
            return;
        }
        failed.retain_mut(|failed| failed.next > Instant::now() || !again(host, failed));
    }
}

/// The priority and the delay of an instance that is to be started; none for one that is not.
fn place(
    host: &Host,
    instance: &Versioned<rows::Instance>,
    wish: Wish,
) -> Result<Option<(i64, Duration)>, Error> {
    let config = expanded(host, &instance.row)?;
    let ran = instance.row.power == Power::Running;
    let wanted = match config.get("boot.autostart").map(String::as_str) {
        _ if wish == Wish::Start => true,
        None | Some("" | "last-state") => ran,
        Some(_) => resolve::is_true(&config, "boot.autostart"),
    };
    if !wanted {
        if ran {
            instance::store_power(host, DEFAULT_PROJECT, &instance.name, Power::Stopped)?;
        }
        return Ok(None);
    }
    let priority = resolve::integer(&config, "boot.autostart.priority").unwrap_or(0);
    let delay = resolve::integer(&config, "boot.autostart.delay").unwrap_or(0).max(0);
    Ok(Some((priority, Duration::from_secs(delay.unsigned_abs()))))
}

fn entity(name: &str) -> String {
    format!("/1.0/instances/{name}")
}

fn complain(host: &Host, name: &str, error: &Error) {
    tracing::error!(instance = name, error = %error.report(), "autostart failed; it is tried again");
    host.warnings().raise(Trouble::Autostart, &entity(name), &error.report());
}

/// One more try; whether nothing is left to try.
fn again(host: &Arc<Host>, failed: &mut Failed) -> bool {
    let name = &failed.name;
    let tried = || -> Result<(), Error> {
        let row = host.store().rows::<rows::Instance>().get(DEFAULT_PROJECT, name)?;
        let Some(found) = row else {
            host.warnings().forget(&entity(name));
            return Ok(());
        };
        let untouched = instance::is_stopped(host, name) && found.row.last_used_at == failed.used_at;
        if untouched && place(host, &found, failed.wish)?.is_some() {
            instance::start_one(host, DEFAULT_PROJECT, name, &failed.used_at)?;
            tracing::info!(instance = name, "started after all");
        }
        host.warnings().resolve(Trouble::Autostart, &entity(name));
        Ok(())
    };
    let Err(error) = fenced(tried) else { return true };
    complain(host, name, &error);
    failed.pause = (failed.pause * 2).min(AGAIN.1);
    failed.next = Instant::now() + failed.pause;
    false
}

fn expanded(host: &Host, row: &rows::Instance) -> Result<Config, Error> {
    Ok(instance::expand(row, &instance::profiles_of(host, DEFAULT_PROJECT, &row.profiles)?).config)
}

/// Stops every running instance: groups of one `boot.stop.priority` together, the highest first. What the
/// daemon stopped because it ends itself runs again when it comes back.
pub(crate) fn stop_all(host: &Arc<Host>) {
    // One that was just starting when the first were listed is there for the second time.
    for _ in 0..2 {
        stop_listed(host, host.live().list());
    }
}

fn stop_listed(host: &Arc<Host>, all: Vec<Arc<Live>>) {
    let mut running = Vec::new();
    for live in all {
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
                    let stopped =
                        fenced(|| instance::stop_one(host, DEFAULT_PROJECT, name, *timeout, *force));
                    if let Err(error) = stopped {
                        tracing::error!(instance = name, error = %error.report(), "stopping failed");
                    }
                });
            }
        });
    }
}
