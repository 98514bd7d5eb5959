//! `start`: everything is resolved first, then done in order, and taken back if one step fails.

use std::sync::Arc;

use cabin_storage::VolumeName;
use cabin_store::rows::{self, Power};
use cabin_undo::{Undo, atomically};

use super::mac::{self, Claim};
use super::{Expanded, WHAT, expand, load, plug, profiles_of};
use crate::live::{Live, Plugged};
use crate::resolve::{self, Start};
use crate::{Error, Host, Kind, clock, quota, recover, volume};

/// How often another address is made up for a nic when somebody else gets it at the same moment.
const TRIES: u32 = 3;

/// Starts a stopped instance; the caller holds its turn.
pub(super) fn start(host: &Arc<Host>, project: &str, name: &str) -> Result<(), Error> {
    let started = begin(host, project, name);
    match &started {
        Ok(pid) => super::logs::note(host, name, &format!("started: init is process {pid}")),
        // Of one that was deleted meanwhile nothing is written down.
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => super::logs::note(host, name, &format!("could not be started: {}", error.report())),
    }
    started.map(drop)
}

fn begin(host: &Arc<Host>, project: &str, name: &str) -> Result<u32, Error> {
    let found = load(host, project, name)?;
    host.ids().assign(found.row.ids, name)?;
    let expanded = expand(&found.row, &profiles_of(host, project, &found.row.profiles)?);
    volume::settle_named(host, project, &expanded.devices)?;
    // Volumes and networks stay as they are until the container is known to have them.
    let _kept = host.keep_layout();
    if host.is_closing() {
        return Err(Error::Busy { name: name.to_owned(), doing: "shutdown of the host's instances" });
    }
    let mut row = found.row.clone();
    let (spec, _claim) = resolved(host, project, name, &mut row, &expanded)?;
    // What an earlier run may have left (the daemon died between its end and the cleaning up).
    super::stop::sweep(host, name)?;
    let size = quota::of_root(&expanded)?;
    quota::set(host, &found.row.pool, &VolumeName::container(name)?, size)?;
    row.power = Power::Running;
    row.last_used_at = clock::now();
    row.config.remove("volatile.apply_template");
    row.config.remove(super::stop::ENDING);
    row.config.insert("volatile.last_state.power".into(), "RUNNING".into());
    let nics: Vec<Plugged> = spec.nics.iter().map(|(_, plugged)| plugged.clone()).collect();
    row.config.extend(nics.iter().map(super::change::host_name));
    let pid = atomically(|undo| -> Result<u32, Error> {
        // A nic whose address was made up again has its fixed ones by the new one.
        resolve::move_fixed(host, (name, &found.row, &expanded), (name, &row, &expanded), undo)?;
        let mut starting = host.runtime().spawn(&spec.init, &spec.limits, undo)?;
        for (bridge, plugged) in &spec.nics {
            plug::plug(host, bridge.as_ref(), plugged, starting.netns(), undo)?;
        }
        starting.attach(&spec.disks)?;
        let supervisor = starting.release()?;
        let pid = supervisor.init_pid();
        let live = Arc::new(Live::new(name, supervisor, clock::now(), nics));
        running(host, &live, undo)?;
        let txn = host.store().begin().update(project, name, found.revision, &row)?;
        let txn = txn.remove::<rows::Intent>(project, name);
        match txn.commit() {
            Err(cabin_store::Error::Changed { .. }) => {
                Err(Error::Changed { what: WHAT, name: name.to_owned() })
            }
            other => Ok(other.map(|_| pid)?),
        }
    })?;
    Ok(pid)
}

/// All that is to be made, with addresses that nobody else has. One that was made up may be claimed by another between
/// the look and the claim.
fn resolved(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    row: &mut rows::Instance,
    expanded: &Expanded,
) -> Result<(Start, Claim), Error> {
    let mut tried = 0;
    loop {
        tried += 1;
        mac::avoid_taken(host, name, row, expanded)?;
        let spec = Start::resolve(host, project, name, row, expanded)?;
        match mac::claim(host, name, spec.nics.iter().map(|(_, plugged)| plugged)) {
            Err(Error::InUse { .. }) if tried < TRIES => {}
            claim => return claim.map(|claim| (spec, claim)),
        }
    }
}

/// Enters the container into the table of running ones.
fn running(host: &Arc<Host>, live: &Arc<Live>, undo: &mut Undo) -> Result<(), Error> {
    host.live().add(live.clone())?;
    recover::look_after(host, &live.name);
    let (host, live) = (host.clone(), live.clone());
    undo.push(format!("running container `{}`", live.name), move || -> Result<(), Error> {
        live.stopping.store(true, std::sync::atomic::Ordering::SeqCst);
        host.live().remove(&live);
        Ok(())
    })?;
    Ok(())
}
