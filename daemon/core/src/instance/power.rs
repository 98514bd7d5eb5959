//! What may follow what: start, stop, restart, freeze and unfreeze, asked for one instance or all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cabin_api::StatusCode;
use cabin_api::instance::InstanceStatePut;
use cabin_store::rows::{Intent, Power};
use cabin_undo::atomically;
use parking_lot::Mutex;
use serde_json::Value;

use super::{address, load, snapshot, start, status, stop, turn};
use crate::{Error, Host, Op};

/// How many instances are changed at once when all of them are.
const AT_ONCE: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Start,
    Stop,
    Restart,
    Freeze,
    Unfreeze,
}

impl Action {
    fn parse(text: &str) -> Result<Action, Error> {
        match text {
            "start" => Ok(Action::Start),
            "stop" => Ok(Action::Stop),
            "restart" => Ok(Action::Restart),
            "freeze" => Ok(Action::Freeze),
            "unfreeze" => Ok(Action::Unfreeze),
            other => Err(Error::invalid(format!("unknown action `{other}`"))),
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Restart => "restart",
            Action::Freeze => "freeze",
            Action::Unfreeze => "unfreeze",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Action::Start => "Starting instance",
            Action::Stop => "Stopping instance",
            Action::Restart => "Restarting instance",
            Action::Freeze => "Freezing instance",
            Action::Unfreeze => "Unfreezing instance",
        }
    }

    /// The statuses each action may begin in: the only place that says so.
    fn may_begin(self, status: StatusCode) -> bool {
        match self {
            Action::Start => status == StatusCode::Stopped,
            Action::Stop | Action::Restart => matches!(status, StatusCode::Running | StatusCode::Frozen),
            Action::Freeze => status == StatusCode::Running,
            Action::Unfreeze => status == StatusCode::Frozen,
        }
    }
}

fn allowed(host: &Host, name: &str, action: Action) -> Result<(), Error> {
    let present = status(host, name);
    if action.may_begin(present) {
        return Ok(());
    }
    let status = match (present, action) {
        (StatusCode::Running, Action::Start) => "already running",
        (StatusCode::Stopped, Action::Stop) => "already stopped",
        (StatusCode::Stopped, _) => "not running",
        (StatusCode::Frozen, Action::Freeze) => "already frozen",
        (StatusCode::Frozen, _) => "frozen",
        _ => "running",
    };
    Err(Error::WrongStatus { name: name.to_owned(), action: action.verb(), status })
}

/// Refuses at once what can be seen to fail; gives the operation's description.
///
/// # Errors
/// For an unknown action, or no such instance.
pub fn check_state_change(
    host: &Host,
    project: &str,
    name: &str,
    put: &InstanceStatePut,
) -> Result<&'static str, Error> {
    load(host, project, name)?;
    if put.stateful {
        let reason = "this version does not keep memory on disk";
        return Err(Error::Unsupported { what: "a stateful stop or start".to_owned(), reason });
    }
    Ok(Action::parse(&put.action)?.description())
}

/// Changes what an instance does.
///
/// # Errors
/// When it is not in a status that allows it, a clean stop takes too long, or the host refuses.
pub fn change_state(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    name: &str,
    put: &InstanceStatePut,
) -> Result<(), Error> {
    let action = Action::parse(&put.action)?;
    let timeout = (put.timeout >= 0).then(|| Duration::from_secs(put.timeout.unsigned_abs()));
    // Who gives the guest no time does not ask it (as Incus).
    let force = put.force || put.timeout == 0;
    // A clean stop may hold the turn for minutes, that of a restart too; force must not wait for it.
    if action == Action::Stop && force && matches!(host.busy().doing(name), Some("stop" | "restart")) {
        allowed(host, name, action)?;
        return stop::force_ahead(host, project, name);
    }
    let _turn = turn(host, project, name, action.verb())?;
    allowed(host, name, action)?;
    let requestor = op.requestor();
    let tell = |what: &str| {
        host.events().lifecycle(project, what, &address(name), name, Value::Null, requestor);
    };
    match action {
        Action::Start => {
            snapshot::at_startup(host, project, name);
            start::start(host, project, name)?;
            tell("instance-started");
        }
        Action::Stop => {
            let ended = stop::stop(host, project, name, force, timeout, Power::Stopped)?;
            tell(if force { "instance-stopped" } else { "instance-shutdown" });
            stop::delete_if_ephemeral(host, project, name)?;
            ended?;
        }
        Action::Restart => {
            let ended = restart(host, project, name, force, timeout)?;
            tell("instance-restarted");
            ended?;
        }
        Action::Freeze => {
            freeze(host, name)?;
            tell("instance-paused");
        }
        Action::Unfreeze => {
            thaw(host, name)?;
            tell("instance-resumed");
        }
    }
    Ok(())
}

/// Stops and starts. When the start fails the instance stays stopped, and the error says why.
fn restart(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    force: bool,
    timeout: Option<Duration>,
) -> Result<stop::Ended, Error> {
    let ended = atomically(|undo| -> Result<stop::Ended, Error> {
        // A daemon that dies in between starts it when it comes back.
        super::intent::note(host, project, name, &Intent::Restart, undo)?;
        let run = host.live().get(name);
        let ended = stop::stop(host, project, name, force, timeout, Power::Stopped)?;
        if run.is_some_and(|run| run.stays_down.load(Ordering::SeqCst)) {
            return Err(Error::invalid(format!("instance `{name}` was stopped by force meanwhile")));
        }
        snapshot::at_startup(host, project, name);
        start::start(host, project, name)?;
        Ok(ended)
    })?;
    Ok(ended)
}

/// Changes what every instance of a project does, those that can; all failures are told together.
///
/// # Errors
/// When one or more failed.
pub fn change_all(host: &Arc<Host>, op: &Op, project: &str, put: &InstanceStatePut) -> Result<(), Error> {
    let action = Action::parse(&put.action)?;
    let mut names = super::names(host, project)?;
    names.retain(|name| action.may_begin(status(host, name)));
    let failures = Mutex::new(Vec::new());
    let left = Mutex::new(names.iter());
    let work = || {
        while let Some(name) = { left.lock().next() } {
            if let Err(error) = change_state(host, op, project, name, put) {
                failures.lock().push(error.report());
            }
        }
    };
    std::thread::scope(|scope| {
        // This thread is one of them: when no other can be had, it does all of it.
        for _ in 1..AT_ONCE.min(names.len()) {
            let more = std::thread::Builder::new().name("change".to_owned()).spawn_scoped(scope, work);
            if more.is_err() {
                break;
            }
        }
        work();
    });
    let mut failures = failures.into_inner();
    failures.sort();
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid(failures.join("; "))),
    }
}

/// Starts an instance for the daemon itself (autostart), unless somebody has started it since its row said
/// `used_at`: then what it does now is what somebody wants.
pub(crate) fn start_one(host: &Arc<Host>, project: &str, name: &str, used_at: &str) -> Result<(), Error> {
    let _turn = turn(host, project, name, "start")?;
    if status(host, name) != StatusCode::Stopped || load(host, project, name)?.row.last_used_at != used_at {
        return Ok(());
    }
    snapshot::at_startup(host, project, name);
    start_again(host, project, name)?;
    host.events().lifecycle(project, "instance-started", &address(name), name, Value::Null, None);
    Ok(())
}

/// Starts an instance whose turn the caller holds already.
pub(crate) fn start_again(host: &Arc<Host>, project: &str, name: &str) -> Result<(), Error> {
    atomically(|undo| -> Result<(), Error> {
        // Nobody waits for this start who could ask again: the next daemon has to know of it.
        super::intent::note(host, project, name, &Intent::Restart, undo)?;
        start::start(host, project, name)
    })?;
    Ok(())
}

/// Stops an instance for the daemon itself (shutdown): cleanly, then by force. It runs again when the daemon
/// comes back.
pub(crate) fn stop_one(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    timeout: Duration,
    force: bool,
) -> Result<(), Error> {
    let _turn = turn(host, project, name, "stop")?;
    if status(host, name) == StatusCode::Stopped {
        return Ok(());
    }
    let ended = match stop::stop(host, project, name, force, Some(timeout), Power::Running) {
        Err(Error::StopTimedOut { .. }) => stop::stop(host, project, name, true, None, Power::Running)?,
        clean => clean?,
    };
    host.events().lifecycle(project, "instance-shutdown", &address(name), name, Value::Null, None);
    ended
}

pub(super) fn freeze(host: &Host, name: &str) -> Result<(), Error> {
    host.runtime().cgroups().freeze(name)?;
    if let Some(live) = host.live().get(name) {
        live.frozen.store(true, Ordering::Relaxed);
    }
    Ok(())
}

pub(super) fn thaw(host: &Host, name: &str) -> Result<(), Error> {
    host.runtime().cgroups().thaw(name)?;
    if let Some(live) = host.live().get(name) {
        live.frozen.store(false, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_table_says_what_may_follow_what() {
        use StatusCode::{Frozen, Running, Stopped};
        let cases = [
            (Action::Start, [true, false, false]),
            (Action::Stop, [false, true, true]),
            (Action::Restart, [false, true, true]),
            (Action::Freeze, [false, true, false]),
            (Action::Unfreeze, [false, false, true]),
        ];
        for (action, expected) in cases {
            let found = [Stopped, Running, Frozen].map(|status| action.may_begin(status));
            assert_eq!(found, expected, "{}", action.verb());
        }
    }
}
