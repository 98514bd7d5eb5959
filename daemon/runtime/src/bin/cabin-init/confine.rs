//! Giving up rights, the same way for init and for every command.

use cabin_runtime::confine;
use cabin_runtime::spec::{IdMap, Rlimit};
use cabin_runtime::wire::Failure;
use cabin_sys::{caps, keyring, process, seccomp};

use crate::step::Step;

/// Limits set when the configuration names none, so that nothing of the daemon's own is inherited: name,
/// soft, hard.
const DEFAULTS: &[(&str, Option<u64>, Option<u64>)] =
    &[("nofile", Some(1024), Some(1_048_576)), ("core", Some(0), None)];

/// Sets the resource limits of process `pid`: the defaults, and over them what is configured.
pub fn set_rlimits(pid: u32, configured: &[Rlimit]) -> Result<(), Failure> {
    for (name, soft, hard) in DEFAULTS {
        process::set_rlimit_of(pid, name, *soft, *hard).step(format!("set limit `{name}`"))?;
    }
    for limit in configured {
        process::set_rlimit_of(pid, &limit.name, limit.soft, limit.hard)
            .step(format!("set limit `{}`", limit.name))?;
    }
    Ok(())
}

/// Leaves the daemon's keyring, and the capabilities no container gets.
pub fn shed(ids: IdMap) -> Result<(), Failure> {
    match keyring::join_new_session() {
        // A kernel without keys has none to hide; nested in another container, the call may be barred.
        Err(e) if matches!(e.raw_os_error(), Some(38 | 1)) => {}
        other => other.step("join a new keyring")?,
    }
    caps::drop_for_good(confine::withheld(ids)).step("drop capabilities")?;
    caps::clear_inherited().step("clear inherited capabilities")
}

/// Loads the system call filter. The last thing before the guest's program but a change of user.
pub fn filter_calls() -> Result<(), Failure> {
    seccomp::load(&confine::filter()).step("load the system call filter")
}
