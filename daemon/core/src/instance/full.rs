//! Instances with all that belongs to them: what they do now, their snapshots, their backups.
//!
//! A list of a thousand is a thousand looks at cgroups and into network namespaces. They are spread over the
//! processors, rows are read for all instances at once, and what nobody asked for is not looked up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use cabin_api::instance as api;
use cabin_store::{Versioned, rows};

use super::{Profiles, backup, load, profiles, profiles_of, render, snapshot, state};
use crate::{Error, Host};

/// Fewer instances than this are looked at by one thread.
const FEW: usize = 16;

/// What of a state is looked up, of what takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looks {
    /// How much the root disk holds: a walk through all of its files.
    pub disk: bool,
    /// Interfaces, their addresses and counters.
    pub network: bool,
    /// Processor time, memory and processes.
    pub usage: bool,
}

impl Looks {
    /// Everything.
    pub const ALL: Looks = Looks { disk: true, network: true, usage: true };
}

/// What belongs to an instance beside its row.
type Kept = (Vec<Versioned<rows::Snapshot>>, Vec<Versioned<rows::Backup>>);

/// Every instance with all that belongs to it.
///
/// # Errors
/// When the rows cannot be read. A state that cannot be read is left out.
pub fn list_full(host: &Host, project: &str, looks: Looks) -> Result<Vec<api::InstanceFull>, Error> {
    let profiles = profiles(host, project)?;
    let found = host.store().rows::<rows::Instance>().list(project)?;
    let mut kept: HashMap<String, Kept> = HashMap::new();
    for (instance, snapshot) in snapshot::all_rows(host, project)? {
        kept.entry(instance).or_default().0.push(snapshot);
    }
    for (instance, backup) in backup::all_rows(host, project)? {
        kept.entry(instance).or_default().1.push(backup);
    }
    let none = Kept::default();
    Ok(spread(&found, |instance| {
        let kept = kept.get(&instance.name).unwrap_or(&none);
        full(host, project, instance, &profiles, kept, looks)
    }))
}

/// One instance with all that belongs to it.
///
/// # Errors
/// When there is none of that name.
pub fn get_full(host: &Host, project: &str, name: &str) -> Result<api::InstanceFull, Error> {
    let found = load(host, project, name)?;
    let kept = (snapshot::rows_of(host, project, name)?, backup::rows_of(host, project, name)?);
    // Snapshots may name other profiles than their instance does now.
    let profiles = match kept.0.is_empty() {
        true => profiles_of(host, project, &found.row.profiles)?,
        false => profiles(host, project)?,
    };
    Ok(full(host, project, &found, &profiles, &kept, Looks::ALL))
}

fn full(
    host: &Host,
    project: &str,
    found: &Versioned<rows::Instance>,
    profiles: &Profiles,
    (snapshots, backups): &Kept,
    looks: Looks,
) -> api::InstanceFull {
    let instance = render(host, project, found.clone(), profiles);
    let (config, devices) = (&instance.expanded_config.0, &instance.expanded_devices.0);
    let state = state::of(host, &instance.name, config, devices, looks).ok();
    let snapshots = snapshot::rendered(host, project, &instance.name, snapshots.clone(), profiles);
    let backups: Vec<_> =
        backup::rendered(backups.clone()).iter().filter_map(|one| serde_json::to_value(one).ok()).collect();
    api::InstanceFull { instance, backups: Some(backups), state, snapshots: Some(snapshots) }
}

/// Does `work` for each, on as many threads as there are processors; the results in the same order.
fn spread<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < FEW {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let share = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item)));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let more = std::thread::available_parallelism().map_or(1, usize::from) - 1;
        let spawn = || std::thread::Builder::new().name("look".to_owned()).spawn_scoped(scope, share);
        // Where no thread can be had this one does all of it.
        let helpers: Vec<_> = std::iter::repeat_with(spawn).take(more).map_while(Result::ok).collect();
        let mut done = share();
        for helper in helpers {
            match helper.join() {
                Ok(some) => done.extend(some),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spread_comes_back_in_order() {
        for count in [0, 1, FEW, 10 * FEW + 1] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(spread(&items, |item| item * 2), (0..count).map(|item| item * 2).collect::<Vec<_>>());
        }
    }
}
