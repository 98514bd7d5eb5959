//! What the daemon does by itself: take up what still runs, start what should run, clean up what ended.
//!
//! `boot` tells whether the host started anew, `adopt` what became of each instance while no daemon looked,
//! `strays` removes what nothing accounts for, `order` starts and stops many, `keep` and `emptied` put right what
//! others break meanwhile.

mod adopt;
mod boot;
mod emptied;
mod groups;
mod keep;
mod order;
mod strays;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cabin_runtime::Exit;
use cabin_store::rows::{self, Power};
use cabin_undo::fault;

use crate::fence::fenced;
use crate::live::Live;
use crate::{DEFAULT_PROJECT, Error, Host, instance};

use adopt::Found;
pub(crate) use adopt::finish_disks;
pub(crate) use emptied::watch as keep_run_dir;
pub(crate) use groups::{
    announce as look_after, begin as watch_groups, mend_for as mend_groups, watch as keep_groups,
};
pub(crate) use keep::watch as keep;
pub(crate) use order::stop_all;
pub(crate) use strays::in_late_pool;

/// Takes up running containers, removes strays, and starts what should run.
pub(crate) fn instances(host: &Arc<Host>) {
    if let Err(error) = boot::forget_stale(host) {
        tracing::error!(error = %error.report(), "what an earlier boot of the host left cannot be removed");
    }
    // Those that were there are open, and swept here when what was going on in them is finished.
    host.pools_come_late();
    part("recovery of renames", || strays::finish_renames(host));
    part("recovery of trees", || instance::finish_snapshots(host));
    part("recovery of volumes", || crate::volume::finish(host));
    let found = match host.store().rows::<rows::Instance>().list(DEFAULT_PROJECT) {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(error = %Error::from(error).report(), "instances cannot be read");
            return;
        }
    };
    part("recovery from strays", || strays::before(host, &found));
    let ids: Vec<_> = found.iter().map(|instance| (instance.name.clone(), instance.row.ids)).collect();
    if let Err(error) = host.ids().reconcile(&ids) {
        tracing::error!(error = %error.report(), "the registry of host ids cannot be put right");
    }
    // Before anybody connects: a socket that nobody listens on any more goes with the first try.
    let sockets: BTreeSet<String> = host.runtime().list().unwrap_or_default().into_iter().collect();
    let mut due = Vec::new();
    for instance in &found {
        match fenced(|| adopt::take_up(host, instance, sockets.contains(&instance.name))) {
            Ok(Found::Running | Found::Ended) => {}
            Ok(Found::AsConfigured) => due.push((instance.clone(), order::Wish::AsConfigured)),
            Ok(Found::Due) => due.push((instance.clone(), order::Wish::Start)),
            Err(error) => {
                tracing::error!(instance = instance.name, error = %error.report(), "an instance cannot be taken up");
            }
        }
    }
    part("recovery from strays", || strays::after(host));
    let again = host.clone();
    let spawned =
        std::thread::Builder::new().name("autostart".into()).spawn(move || order::autostart(&again, due));
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread for autostart");
    }
}

/// One part of what is done at a start; a test that wants to see it missed has it left out.
fn part(what: &str, work: impl FnOnce()) {
    if !fault::leaves_out(what) {
        work();
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
        if let Err(error) = fenced(|| tidy_up(&host, &live)) {
            tracing::error!(instance = live.name, error = %error.report(), "cleaning up after its end failed");
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to clean up after a container's end");
    }
}

fn tidy_up(host: &Arc<Host>, live: &Arc<Live>) -> Result<(), Error> {
    let is_present = || host.live().get(&live.name).is_some_and(|present| Arc::ptr_eq(&present, live));
    // A backup to a slow client may take hours; nobody else is going to see to this end.
    let _turn = loop {
        match host.busy().take(&live.name, "clean up") {
            Err(Error::Busy { .. }) if is_present() && !host.is_closing() => {}
            turn => break turn?,
        }
    };
    if !is_present() {
        return Ok(());
    }
    let exit = live.exit().unwrap_or(Exit::SupervisorDied);
    let row = host.store().rows::<rows::Instance>().get(DEFAULT_PROJECT, &live.name)?;
    let Some(found) = row else { return Ok(()) };
    let again = match exit {
        // Somebody ended it by force while it was to be restarted.
        _ if live.stays_down.load(Ordering::SeqCst) => false,
        Exit::Reboot => true,
        // A power-off from inside is a wish; anything else is an accident.
        Exit::Stopped { status: 0 } => false,
        Exit::SupervisorDied | Exit::Stopped { .. } => {
            instance::restarts_by_itself(host, DEFAULT_PROJECT, &found.row)?
                && host.live().may_restart(&live.name)
        }
    };
    if matches!(exit, Exit::SupervisorDied) {
        tracing::warn!(instance = live.name, "the supervisor died, and the container with it");
        host.runtime().cgroups().kill(&live.name)?;
    }
    let power = if again { Power::Running } else { Power::Stopped };
    // What is left behind of the run is no reason not to begin the next.
    let ended = instance::clean_up(host, DEFAULT_PROJECT, live, power);
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
        return ended;
    }
    let action = if matches!(exit, Exit::SupervisorDied) { "instance-stopped" } else { "instance-shutdown" };
    host.events().lifecycle(DEFAULT_PROJECT, action, &address, &live.name, serde_json::Value::Null, None);
    instance::delete_if_ephemeral(host, DEFAULT_PROJECT, &live.name).and(ended)
}
