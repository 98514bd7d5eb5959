//! Holding a running instance still for the moment in which its files are copied.

use std::sync::Arc;
use std::time::Instant;

use cabin_storage::{Activity, Staged};
use cabin_store::rows::Intent;
use cabin_undo::{Undo, fault};

use crate::instance::intent;
use crate::{Error, Host};

/// Whether the files of an instance are in use. The caller holds its turn.
pub(in crate::instance) fn activity(host: &Host, name: &str) -> Activity {
    match host.live().get(name) {
        Some(_) => Activity::Running,
        None => Activity::Stopped,
    }
}

/// Stages a copy of an instance's files, and holds the instance still, if it runs, while what changed meanwhile is
/// copied too; gives how many microseconds that took. The caller holds its turn, and removes the intent in its
/// last commit.
///
/// What the guest wrote is in the host's page cache from the moment its write returns, so a copy made now
/// has every record it ever synced.
pub(in crate::instance) fn held(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    undo: &mut Undo,
    stage: impl FnOnce(&mut Undo) -> Result<Staged, Error>,
) -> Result<(Staged, u64), Error> {
    let (mut staged, frozen) = held_all(host, project, name, undo, |undo| Ok(vec![stage(undo)?]))?;
    let staged = staged.pop().ok_or_else(|| Error::invalid("nothing was staged"))?;
    Ok((staged, frozen))
}

/// The same for several copies: all of them are of one moment.
pub(in crate::instance) fn held_all(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    undo: &mut Undo,
    stage: impl FnOnce(&mut Undo) -> Result<Vec<Staged>, Error>,
) -> Result<(Vec<Staged>, u64), Error> {
    let mut staged = stage(undo)?;
    if let [one] = staged.as_mut_slice()
        && one.is_of_one_moment()
    {
        one.catch_up()?;
        return Ok((staged, 0));
    }
    let live = host.live().get(name).filter(|live| live.exit().is_none() && !live.is_frozen());
    let Some(live) = live else {
        staged.iter_mut().try_for_each(Staged::catch_up)?;
        return Ok((staged, 0));
    };
    staged.iter().try_for_each(Staged::settle)?;
    fault::pass("copied ahead")?;
    // A daemon that dies in between thaws it when it comes back.
    intent::note(host, project, name, &Intent::Hold, undo)?;
    let thaw = {
        let (host, live) = (host.clone(), live.clone());
        move || match host.runtime().cgroups().thaw(&live.name) {
            // It was killed meanwhile, and its cgroup is gone.
            Err(_) if live.exit().is_some() => Ok(()),
            other => other,
        }
    };
    let since = Instant::now();
    // Recorded first: a freeze that fails halfway is taken back too.
    undo.push(format!("freeze `{name}`"), thaw.clone())?;
    match host.runtime().cgroups().freeze(name) {
        Err(_) if live.exit().is_some() => {}
        other => other?,
    }
    let done = staged.iter_mut().try_for_each(Staged::catch_up);
    thaw()?;
    let frozen = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    done?;
    Ok((staged, frozen))
}
