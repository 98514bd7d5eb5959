//! What became of an instance while no daemon looked: it runs on and is taken up, or it ended and is cleaned up.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cabin_runtime::{Exit, Supervisor};
use cabin_store::Versioned;
use cabin_store::rows::{self, Intent, Power};
use cabin_undo::{atomically, fault};

use crate::instance::{self, plug};
use crate::live::{Live, Plugged};
use crate::{DEFAULT_PROJECT, Error, Host, resolve};

/// What a start of the daemon found of an instance.
pub(super) enum Found {
    /// It runs, and is watched again.
    Running,
    /// It ended, and is to stay so.
    Ended,
    /// It was on its way up: a restart or reboot that nobody was there to finish.
    Due,
    /// It did not run; its config says what is to become of it.
    AsConfigured,
}

/// Takes up one instance. `socket` says whether there was a control socket for it when the daemon started.
pub(super) fn take_up(
    host: &Arc<Host>,
    found: &Versioned<rows::Instance>,
    socket: bool,
) -> Result<Found, Error> {
    let intent = host.store().rows::<Intent>().get(DEFAULT_PROJECT, &found.name)?.map(|found| found.row);
    match host.runtime().connect(&found.name)? {
        Some(supervisor) => adopt(host, found, supervisor, intent.as_ref()).map(|()| Found::Running),
        None => ended(host, found, socket, intent.as_ref()),
    }
}

fn adopt(
    host: &Arc<Host>,
    found: &Versioned<rows::Instance>,
    supervisor: Supervisor,
    intent: Option<&Intent>,
) -> Result<(), Error> {
    let name = &found.name;
    let nics = match wanted(host, found) {
        Ok(nics) => nics,
        Err(error) => {
            // Better watched without its nics than not watched at all.
            tracing::error!(instance = name, error = %error.report(), "its nics cannot be made out");
            Vec::new()
        }
    };
    for (bridge, plugged) in &nics {
        if let Err(error) = put_right(host, &supervisor, bridge.as_ref(), plugged, intent) {
            tracing::warn!(instance = name, device = plugged.device, error = %error.report(), "nic could not be put right");
        }
        fault::reach("nic put right");
    }
    // Whatever cannot be put right now, as where a pool is away, it runs: it is watched, and has its nics.
    let mut is_settled = true;
    if let Some(Intent::Disks { mounted }) = intent
        && let Err(error) = put_disks_right(host, found, &supervisor, mounted)
    {
        tracing::error!(instance = name, error = %error.report(), "its disks cannot be put right yet");
        is_settled = false;
    }
    limits_as_told(host, found, &supervisor);
    let kept = host.runtime().cgroups().sweep_leaves(name);
    if let Err(error) = kept {
        tracing::warn!(instance = name, error = %Error::from(error).report(), "cgroups of ended commands stay");
    }
    let nics = nics.into_iter().map(|(_, plugged)| plugged).collect();
    // The row was last touched by its start.
    let live = Arc::new(Live::new(name, supervisor, found.row.last_used_at.clone(), nics));
    match host.runtime().cgroups().is_frozen(name) {
        Ok(frozen) => live.frozen.store(frozen, Ordering::Relaxed),
        Err(error) => {
            tracing::warn!(instance = name, error = %Error::from(error).report(), "whether it is frozen is not known");
        }
    }
    host.live().add(live.clone())?;
    super::groups::announce(host, name);
    // A stop or restart that the daemon did not live to do is as if it had not been asked for.
    instance::write_running(host, DEFAULT_PROJECT, name, &live)?;
    if is_settled && intent.is_some_and(instance::is_of_a_run) {
        instance::forget_intent(host, DEFAULT_PROJECT, name)?;
    }
    Ok(())
}

/// The disks as the row says, after a change of them that was cut off. Which of them were mounted then nobody knows; none is
/// mounted twice.
fn put_disks_right(
    host: &Host,
    found: &Versioned<rows::Instance>,
    supervisor: &Supervisor,
    mounted: &[String],
) -> Result<(), Error> {
    let disks = resolve::disks(host, &found.name, &expanded(host, &found.row)?.devices)?;
    let disks: Vec<_> = disks.into_iter().map(|disk| disk.spec).collect();
    let gone: Vec<_> = mounted.iter().rev().cloned().collect();
    supervisor.change_disks(&gone, &disks)?;
    fault::reach("disks put right");
    Ok(())
}

/// The same for one that runs and was taken up while a pool was away, whose turn the caller has. One that cannot have its
/// disks yet goes on without: it can be changed and stopped.
///
/// # Errors
/// When what is noted cannot be changed.
pub(crate) fn finish_disks(
    host: &Host,
    found: &Versioned<rows::Instance>,
    mounted: &[String],
) -> Result<(), Error> {
    if let Some(live) = host.live().get(&found.name).filter(|live| live.exit().is_none())
        && let Err(error) = put_disks_right(host, found, &live.supervisor, mounted)
    {
        tracing::warn!(instance = found.name, error = %error.report(), "its disks cannot be put right yet");
        return Ok(());
    }
    instance::forget_intent(host, DEFAULT_PROJECT, &found.name)
}

/// Sets the limits again: what somebody did to them while no daemon was there is not known, nor how far a change
/// came that was cut off.
fn limits_as_told(host: &Host, found: &Versioned<rows::Instance>, supervisor: &Supervisor) {
    let name = &found.name;
    let renew = || -> Result<(), Error> {
        let limits = resolve::limits(host, &expanded(host, &found.row)?.config)?;
        match host.runtime().cgroups().broken(name, supervisor.init_pid())? {
            Some(_) => host.runtime().renew_cgroups(supervisor, &limits)?,
            None => host.runtime().cgroups().set(name, &limits)?,
        }
        Ok(())
    };
    if let Err(error) = renew() {
        tracing::error!(instance = name, error = %error.report(), "its cgroups cannot be put right");
    }
}

fn wanted(host: &Host, found: &Versioned<rows::Instance>) -> Result<Vec<resolve::Nic>, Error> {
    resolve::nics(host, &found.name, &found.row, &expanded(host, &found.row)?)
}

fn expanded(host: &Host, row: &rows::Instance) -> Result<instance::Expanded, Error> {
    Ok(instance::expand(row, &instance::profiles_of(host, DEFAULT_PROJECT, &row.profiles)?))
}

/// The port and filter of a nic as the row says, whoever took them away or left them half changed.
pub(super) fn put_right(
    host: &Host,
    supervisor: &Supervisor,
    bridge: Option<&cabin_network::BridgeSpec>,
    plugged: &Plugged,
    intent: Option<&Intent>,
) -> Result<(), Error> {
    let port = host.network().host_state(&plugged.nic.host_name)?;
    // Only after a change that was cut off may the guest's end be of another nic; a guest may also have
    // changed it itself, which is its own affair.
    let half_changed = match (intent, &port) {
        (Some(Intent::Update | Intent::Disks { .. }), Some(port)) => {
            let socket = supervisor.netns_socket()?;
            let inside = cabin_network::guest_state(socket.as_fd())?;
            !inside.iter().any(|interface| {
                Some(interface.index) == port.peer
                    && interface.mac == Some(plugged.nic.mac)
                    && interface.name == plugged.nic.guest_name.as_str()
            })
        }
        _ => false,
    };
    if port.is_some() && !half_changed {
        return plug::ensure(host, bridge, plugged);
    }
    plug::unplug(host, plugged)?;
    let netns = supervisor.netns()?;
    Ok(atomically(|undo| plug::plug(host, bridge, plugged, netns.as_fd(), undo))?)
}

/// Cleans up what is left of a run, and says what is to follow.
fn ended(
    host: &Arc<Host>,
    found: &Versioned<rows::Instance>,
    socket: bool,
    intent: Option<&Intent>,
) -> Result<Found, Error> {
    let name = &found.name;
    let exit = host.runtime().exit_record(name)?;
    if exit.is_some() {
        instance::keep_last_console(host, name)?;
        fault::reach("console log kept");
    }
    let cgroup = host.runtime().cgroups().list()?.contains(name);
    if cgroup {
        host.runtime().cgroups().kill(name)?;
        host.runtime().cgroups().destroy(name)?;
        fault::reach("cgroup removed");
    }
    match wanted(host, found) {
        Ok(nics) => {
            for (_, plugged) in nics {
                plug::unplug(host, &plugged)?;
            }
        }
        Err(error) => {
            tracing::error!(instance = name, error = %error.report(), "its nics cannot be made out");
        }
    }
    let traces = socket || cgroup || exit.is_some();
    let what = what_follows(host, &found.row, exit, traces, intent)?;
    // The row before the record: the record is all that says how it ended.
    let power = match what {
        Found::Due => Power::Running,
        Found::Ended => Power::Stopped,
        Found::Running | Found::AsConfigured => found.row.power,
    };
    if traces || power != found.row.power {
        instance::write_power(host, DEFAULT_PROJECT, name, power)?;
    }
    // What could not be finished with its tree stays noted until it is.
    if intent.is_none_or(instance::is_of_a_run) {
        match what {
            // Its start removes the note: a daemon that dies before that begins with it again.
            Found::Due => instance::intend_restart(host, DEFAULT_PROJECT, name)?,
            _ if intent.is_some() => instance::forget_intent(host, DEFAULT_PROJECT, name)?,
            _ => {}
        }
    }
    host.runtime().forget(name)?;
    fault::reach("records removed");
    if matches!(what, Found::Ended) {
        instance::delete_if_ephemeral(host, DEFAULT_PROJECT, name)?;
    }
    Ok(what)
}

/// `traces`: something of a run was there, so it did not end with the host.
fn what_follows(
    host: &Host,
    row: &rows::Instance,
    exit: Option<Exit>,
    traces: bool,
    intent: Option<&Intent>,
) -> Result<Found, Error> {
    let ran = row.power == Power::Running;
    let accident = || match instance::restarts_by_itself(host, DEFAULT_PROJECT, row)? {
        true => Ok(Found::Due),
        false => Ok(Found::Ended),
    };
    match exit {
        _ if intent == Some(&Intent::Restart) => Ok(Found::Due),
        // Stopped for it, whether or not its tree is there by now; one that ended by itself is noted as stopped.
        _ if ran && matches!(intent, Some(Intent::Restore { again: true, .. })) => Ok(Found::Due),
        // Its stop was asked for, and now is done. One of which nothing ran is nobody's to delete.
        _ if !ran && row.ephemeral && (traces || row.config.contains_key(instance::ENDING)) => {
            Ok(Found::Ended)
        }
        _ if !ran => Ok(Found::AsConfigured),
        Some(Exit::Reboot) => Ok(Found::Due),
        Some(Exit::Stopped { status: 0 }) => Ok(Found::Ended),
        Some(Exit::Stopped { .. } | Exit::SupervisorDied) => accident(),
        None if traces => accident(),
        None => Ok(Found::AsConfigured),
    }
}
