//! Keeping networks and nics as they should be while the daemon runs: what somebody else took away is noticed,
//! put right, and shown as a warning.
//!
//! The kernel tells what happens to links, filters and name servers; here is looked whether it matters and
//! done what helps. What breaks again and again is put right less and less often, so that nothing spins.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use cabin_network::{Happened, Watch};
use cabin_store::rows;

use super::adopt;
use crate::fence::again_after_panics;
use crate::live::{Live, Plugged};
use crate::warning::Trouble;
use crate::{DEFAULT_PROJECT, Error, Host, network, resolve};

/// What is done together comes together: so long is waited for the rest of it.
const TOGETHER: Duration = Duration::from_millis(100);

/// How long at most it is waited for more, and how long without any news.
const AT_MOST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The pause before something that broke again is put right: the second time, and at most. It doubles.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// After how long without trouble it counts as the first time again.
const QUIET: Duration = Duration::from_secs(120);

/// What can break.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Thing {
    Network(String),
    Nic { instance: String, device: String },
}

/// How a thing has been doing.
struct History {
    times: u32,
    last: Instant,
    /// When it is to be put right, if it is not.
    due: Option<Instant>,
    /// What is known to have been done to it, though it may look right.
    done: Option<&'static str>,
}

/// Keeps for as long as the daemon is there, on a thread of its own.
pub(crate) fn watch(host: &Arc<Host>) {
    let watch = match host.network().watch() {
        Ok(watch) => watch,
        Err(error) => {
            let error = Error::from(error);
            tracing::error!(error = %error.report(), "what others do to the networks is not noticed");
            return;
        }
    };
    let host = Arc::downgrade(host);
    let spawned = std::thread::Builder::new()
        .name("keeper".into())
        .stack_size(1024 * 1024)
        .spawn(move || again_after_panics("looking after the networks", || keep(&host, &watch)));
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to keep the networks");
    }
}

fn keep(host: &Weak<Host>, watch: &Watch) {
    let mut histories = HashMap::new();
    if let Some(host) = host.upgrade() {
        broken_at_start(&host, &mut histories);
    }
    loop {
        let due = histories.values().filter_map(|history: &History| history.due).min();
        let pause = due.map_or(AT_MOST.1, |due| due.saturating_duration_since(Instant::now()));
        let happened = match gather(watch, pause.min(AT_MOST.1)) {
            Ok(happened) => happened,
            Err(error) => {
                let error = Error::from(error);
                tracing::error!(error = %error.report(), "what others do to the networks is not noticed any more");
                return;
            }
        };
        let Some(host) = host.upgrade() else { return };
        if host.is_closing() {
            return;
        }
        for (thing, done) in concerned(&host, &happened) {
            note(&mut histories, thing, done);
        }
        let now = Instant::now();
        let ready: Vec<Thing> = histories
            .iter()
            .filter(|(_, history)| history.due.is_some_and(|due| due <= now))
            .map(|(thing, _)| thing.clone())
            .collect();
        for thing in ready {
            let changed = histories.get(&thing).is_some_and(|history| history.done.is_some());
            let outcome = mend(&host, &thing, changed);
            settle(&host, &mut histories, &thing, outcome);
        }
        histories.retain(|_, history| history.due.is_some() || history.last.elapsed() < QUIET);
    }
}

/// Networks that could not be made usable before are tried again as if they had just broken.
fn broken_at_start(host: &Host, histories: &mut HashMap<Thing, History>) {
    for found in host.store().rows::<rows::Network>().list(DEFAULT_PROJECT).unwrap_or_default() {
        let spec = resolve::bridge(&found.name, &found.row);
        let whole = spec.is_ok_and(|spec| host.network().broken(&spec).is_ok_and(|broken| broken.is_none()));
        if !whole {
            note(histories, Thing::Network(found.name), None);
        }
    }
}

/// Waits for something to happen, and a moment for what belongs to it.
fn gather(watch: &Watch, within: Duration) -> Result<Happened, cabin_network::Error> {
    let mut all = watch.wait(within)?;
    let since = Instant::now();
    while !all.is_nothing() && since.elapsed() < AT_MOST.0 {
        let more = watch.wait(TOGETHER)?;
        if more.is_nothing() {
            break;
        }
        all.add(more);
    }
    Ok(all)
}

/// What may be broken by what happened, and what was done to it for certain.
fn concerned(host: &Host, happened: &Happened) -> Vec<(Thing, Option<&'static str>)> {
    let mut found = Vec::new();
    if happened.is_nothing() {
        return found;
    }
    let everything = happened.filter || happened.anything;
    for network in host.store().rows::<rows::Network>().list(DEFAULT_PROJECT).unwrap_or_default() {
        let named = happened.links.contains(&network.name)
            || happened.servers.iter().any(|server| server.as_str() == network.name);
        if named || everything || (happened.address && !is_whole(host, &network.name, &network.row)) {
            let done = happened.filter.then_some("the packet filter was changed");
            found.push((Thing::Network(network.name), done));
        }
    }
    for live in host.live().list().into_iter().filter(|live| runs(live)) {
        for plugged in live.nics.lock().iter() {
            // A change of the filter is put right with the whole network.
            if happened.anything || happened.links.contains(plugged.nic.host_name.as_str()) {
                let (instance, device) = (live.name.clone(), plugged.device.clone());
                found.push((Thing::Nic { instance, device }, None));
            }
        }
    }
    found
}

/// A container that is not on its way out: then its ports go with it.
fn runs(live: &Live) -> bool {
    live.exit().is_none() && !live.stopping.load(std::sync::atomic::Ordering::SeqCst)
}

/// Whether the bridge has its addresses.
fn is_whole(host: &Host, name: &str, row: &rows::Network) -> bool {
    resolve::bridge(name, row).is_ok_and(|spec| host.network().has_addresses(&spec).unwrap_or(false))
}

fn note(histories: &mut HashMap<Thing, History>, thing: Thing, done: Option<&'static str>) {
    let now = Instant::now();
    let fresh = || History { times: 0, last: now, due: None, done: None };
    let history = histories.entry(thing).or_insert_with(fresh);
    if history.last.elapsed() >= QUIET {
        history.times = 0;
    }
    if history.due.is_none() {
        history.due = Some(now + pause(history.times));
    }
    history.done = history.done.or(done);
}

/// Nothing the first time.
fn pause(times: u32) -> Duration {
    match times.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => (PAUSE.0 * 2u32.saturating_pow(doublings.min(10))).min(PAUSE.1),
    }
}

/// What was found when a thing was looked at.
enum Outcome {
    /// It is gone, or was right all the time.
    Nothing,
    /// Somebody else is at it; other things are not to wait for that.
    Later,
    /// It was broken and is right again.
    Mended(&'static str),
}

/// `changed`: something was done to it for certain. What only may be broken is looked at first: the daemon's own
/// changes are told of too.
fn mend(host: &Arc<Host>, thing: &Thing, changed: bool) -> Result<Outcome, Error> {
    match thing {
        Thing::Network(name) => mend_network(host, name, changed),
        Thing::Nic { instance, device } => mend_nic(host, instance, device),
    }
}

fn mend_network(host: &Arc<Host>, name: &str, changed: bool) -> Result<Outcome, Error> {
    let _alone = host.change_layout();
    if host.is_closing() {
        return Ok(Outcome::Nothing);
    }
    let Some(found) = host.store().rows::<rows::Network>().get(DEFAULT_PROJECT, name)? else {
        return Ok(Outcome::Nothing);
    };
    let spec = resolve::bridge(name, &found.row)?;
    let broken = host.network().broken(&spec)?;
    if broken.is_none() && !changed {
        return Ok(Outcome::Nothing);
    }
    host.network().ensure_bridge(&spec)?;
    network::ensure_ports(host, &spec)?;
    Ok(broken.map_or(Outcome::Nothing, Outcome::Mended))
}

fn mend_nic(host: &Arc<Host>, name: &str, device: &str) -> Result<Outcome, Error> {
    let Some(live) = host.live().get(name).filter(|live| runs(live)) else { return Ok(Outcome::Nothing) };
    if host.busy().doing(name).is_some() {
        return Ok(Outcome::Later);
    }
    let _turn = host.busy().take(name, "mend a nic")?;
    let _layout = host.keep_layout();
    let plugged: Option<Plugged> = live.nics.lock().iter().find(|it| it.device == device).cloned();
    let (Some(plugged), true) = (plugged, runs(&live)) else { return Ok(Outcome::Nothing) };
    let bridge = plugged.network.as_ref().map(|network| resolve::bridge_of(host, network)).transpose()?;
    let port = host.network().host_state(&plugged.nic.host_name)?;
    if port.as_ref().is_some_and(|port| port.up && (port.controller.is_some() || bridge.is_none())) {
        return Ok(Outcome::Nothing);
    }
    let gone = port.is_none();
    match adopt::put_right(host, &live.supervisor, bridge.as_ref(), &plugged, None) {
        // It ended in the very moment.
        Err(_) if !runs(&live) => Ok(Outcome::Nothing),
        Err(error) => Err(error),
        Ok(()) if gone => Ok(Outcome::Mended("its nic was gone; the guest has to set up the new one")),
        Ok(()) => Ok(Outcome::Mended("its port was switched off or taken from the bridge")),
    }
}

/// Writes down what came of it, and when it is tried again.
fn settle(
    host: &Host,
    histories: &mut HashMap<Thing, History>,
    thing: &Thing,
    outcome: Result<Outcome, Error>,
) {
    let (entity, trouble) = match thing {
        Thing::Network(name) => (format!("/1.0/networks/{name}"), Trouble::Network),
        Thing::Nic { instance, .. } => (format!("/1.0/instances/{instance}"), Trouble::Nic),
    };
    let Some(history) = histories.get_mut(thing) else { return };
    history.due = None;
    let outcome = match (outcome, history.done.take()) {
        (Ok(Outcome::Nothing), Some(done)) => Ok(Outcome::Mended(done)),
        (outcome, _) => outcome,
    };
    match outcome {
        Ok(Outcome::Nothing) => {
            host.warnings().resolve(trouble, &entity);
            return;
        }
        Ok(Outcome::Later) => {
            history.due = Some(Instant::now() + PAUSE.0);
            return;
        }
        Ok(Outcome::Mended(why)) => {
            tracing::warn!(entity, why, "somebody changed what is the daemon's; it is put right");
            host.warnings().resolve(trouble, &entity);
            host.warnings().raise(Trouble::Tampered, &entity, why);
            host.warnings().resolve(Trouble::Tampered, &entity);
        }
        Err(error) => {
            tracing::error!(entity, error = %error.report(), "cannot be put right; it is tried again");
            host.warnings().raise(trouble, &entity, &error.report());
            history.due = Some(Instant::now() + pause(history.times + 1));
        }
    }
    history.times += 1;
    history.last = Instant::now();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_again_and_again_is_put_right_less_and_less_often() {
        let seconds: Vec<u64> = (0..10).map(|times| pause(times).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let mut histories = HashMap::new();
        let thing = Thing::Network("br0".into());
        note(&mut histories, thing.clone(), None);
        assert!(histories[&thing].due.is_some_and(|due| due <= Instant::now()));
    }
}
