//! Cgroups of running containers: when somebody takes them away, moves processes out of them or writes to their
//! limits, they are made again as they should be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cabin_runtime::cgroup::{CgroupWatch, News};

use crate::fence::again_after_panics;
use crate::live::Live;
use crate::warning::Trouble;
use crate::{DEFAULT_PROJECT, Error, Host, instance, resolve};

/// How long is waited for the rest of what is done together.
const TOGETHER: Duration = Duration::from_millis(100);

/// How often is looked at all of them in any case: of processes that are moved out nobody tells.
const EVERY: Duration = Duration::from_secs(60);

/// How often in a row what cannot be put right is tried again so soon; later only as often as all are looked at.
const TRIES: u32 = 10;

/// How soon is looked again at one that is being changed by somebody else.
const AGAIN: Duration = Duration::from_secs(1);

/// Begins to watch; without it only is looked now and then.
pub(crate) fn begin(cgroups: &cabin_runtime::cgroup::Cgroups) -> Option<Arc<CgroupWatch>> {
    match cgroups.watch() {
        Ok(watch) => Some(Arc::new(watch)),
        Err(error) => {
            tracing::warn!(error = %Error::from(error).report(), "what others do to cgroups is noticed late");
            None
        }
    }
}

/// The cgroups of a container are looked after from now on.
pub(crate) fn announce(host: &Host, name: &str) {
    if let Some(watch) = host.groups() {
        watch.announce(name);
    }
}

/// Watches what cgroups a container has now.
fn look_after(host: &Host, name: &str) {
    if let Some(watch) = host.groups()
        && let Err(error) = watch.look_after(name)
    {
        tracing::warn!(instance = name, error = %Error::from(error).report(), "what others do to its cgroups is noticed late");
    }
}

/// Looks for as long as the daemon is there, on a thread of its own.
pub(crate) fn watch(host: &Arc<Host>) {
    let host = Arc::downgrade(host);
    let spawned = std::thread::Builder::new()
        .name("cgroups".into())
        .stack_size(512 * 1024)
        .spawn(move || again_after_panics("looking after cgroups", || keep_looking(&host)));
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to look after cgroups");
    }
}

fn keep_looking(host: &Weak<Host>) {
    let watch = host.upgrade().and_then(|host| host.groups().cloned());
    let mut later = BTreeSet::new();
    let mut failures: BTreeMap<String, u32> = BTreeMap::new();
    loop {
        // Nobody waits with the host in his hand.
        let news = wait(watch.as_deref(), if later.is_empty() { EVERY } else { AGAIN });
        let Some(host) = host.upgrade().filter(|host| !host.is_closing()) else { return };
        news.announced.iter().for_each(|name| look_after(&host, name));
        let all = news.is_nothing() && later.is_empty();
        let mut names = news.changed;
        names.append(&mut later);
        // Of what was done before they were watched nobody tells.
        names.extend(news.announced);
        let found = if all {
            host.live().list()
        } else {
            names.iter().filter_map(|name| host.live().get(name)).collect()
        };
        for live in found {
            if host.busy().doing(&live.name).is_some() {
                later.insert(live.name.clone());
            } else if look(&host, &live) {
                failures.remove(&live.name);
            } else {
                // Whoever is at it may take away more while some of it is made again.
                let times = failures.entry(live.name.clone()).or_default();
                *times += 1;
                if *times < TRIES {
                    later.insert(live.name.clone());
                }
            }
        }
        // Of those that have ended nothing is watched any more.
        names.iter().filter(|name| host.live().get(name).is_none()).for_each(|name| look_after(&host, name));
    }
}

/// What happens within that time, with what belongs together.
fn wait(watch: Option<&CgroupWatch>, within: Duration) -> News {
    let Some(watch) = watch else {
        std::thread::sleep(within);
        return News::default();
    };
    let mut news = watch.wait(within);
    if !news.is_nothing() {
        std::thread::sleep(TOGETHER);
        let more = watch.wait(Duration::ZERO);
        news.announced.extend(more.announced);
        news.changed.extend(more.changed);
    }
    news
}

/// Looks, and puts right what is wrong. Whether nothing is wrong any more.
fn look(host: &Host, live: &Live) -> bool {
    let entity = format!("/1.0/instances/{}", live.name);
    match mend(host, live) {
        Ok(None) => true,
        Ok(Some(why)) => {
            tracing::warn!(
                instance = live.name,
                why,
                "somebody changed what is the daemon's; it is put right"
            );
            host.warnings().raise(Trouble::Tampered, &entity, why);
            host.warnings().resolve(Trouble::Tampered, &entity);
            host.warnings().resolve(Trouble::Cgroups, &entity);
            true
        }
        Err(_) if !runs(live) => true,
        Err(error) => {
            tracing::error!(instance = live.name, error = %error.report(), "its cgroups cannot be put right");
            host.warnings().raise(Trouble::Cgroups, &entity, &error.report());
            false
        }
    }
}

/// Puts right what a command found missing. Whether it is worth another try.
pub(crate) fn mend_for(host: &Host, live: &Live) -> bool {
    look(host, live) && runs(live)
}

fn runs(live: &Live) -> bool {
    live.exit().is_none() && !live.stopping.load(Ordering::SeqCst)
}

/// What was wrong and is right again, if anything.
fn mend(host: &Host, live: &Live) -> Result<Option<&'static str>, Error> {
    let (name, init) = (&live.name, live.supervisor.init_pid());
    let cgroups = host.runtime().cgroups();
    if !runs(live) || cgroups.broken(name, init)?.is_none() {
        return Ok(None);
    }
    let _turn = host.busy().take(name, "mend its cgroups")?;
    // Somebody who had the turn may have changed the limits, or ended it.
    let Some(why) = cgroups.broken(name, init)?.filter(|_| runs(live)) else { return Ok(None) };
    let row = instance::load(host, DEFAULT_PROJECT, name)?.row;
    let expanded = instance::expand(&row, &instance::profiles_of(host, DEFAULT_PROJECT, &row.profiles)?);
    host.runtime().renew_cgroups(&live.supervisor, &resolve::limits(host, &expanded.config)?)?;
    if live.is_frozen() {
        // Outside they ran again.
        cgroups.freeze(name)?;
    }
    look_after(host, name);
    Ok(Some(why))
}
