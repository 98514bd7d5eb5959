//! Giving up rights, the same way for init and for every command.

use cabin_runtime::confine;
use cabin_runtime::spec::{IdMap, Rlimit};
use cabin_runtime::wire::Failure;

use cabin_sys::{caps, keyring, process, seccomp};

use crate::step::Step;

/// What every resource limit is unless it is configured, soft and hard, `None` for no limit: about what the kernel
/// gives the first process of a host, so that a guest does as it would on a machine of its own. What is without
/// limit here is bounded by the container's cgroups.
const LIMITS: &[(&str, Option<u64>, Option<u64>)] = &[
    ("as", None, None),
    ("core", Some(0), None),
    ("cpu", None, None),
    ("data", None, None),
    ("fsize", None, None),
    ("locks", None, None),
    ("memlock", Some(8 << 20), None),
    ("msgqueue", Some(819_200), Some(819_200)),
    ("nice", Some(0), Some(0)),
    // Programs that use select(2) break beyond the soft limit, those that want more raise it to the hard one.
    ("nofile", Some(1024), Some(1 << 20)),
    ("nproc", None, None),
    ("rss", None, None),
    ("rtprio", Some(0), Some(0)),
    ("rttime", None, None),
    ("sigpending", Some(1 << 16), Some(1 << 16)),
    ("stack", Some(8 << 20), None),
];

/// What the kernel counts for a user namespace as a whole.
const COUNTED: &[&str] = &["memlock", "msgqueue", "nproc", "sigpending"];

/// Sets the resource limits of process `pid` (0: the caller): all of them, so that nothing of the daemon's own is
/// inherited, each as configured or as in the table.
pub fn set_rlimits(pid: u32, configured: &[Rlimit]) -> Result<(), Failure> {
    for (name, soft, hard) in LIMITS {
        let what = || format!("set limit `{name}`");
        if let Some(limit) = configured.iter().find(|limit| limit.name == *name) {
            process::set_rlimit_of(pid, name, limit.soft, limit.hard).step(what())?;
            continue;
        }
        if process::set_rlimit_of(pid, name, *soft, *hard).is_err() {
            // A daemon that may not raise its own limits (itself in a container) hands on what it has.
            let most = process::hard_rlimit(name).step(what())?;
            let (soft, hard) = (lesser(*soft, most), lesser(*hard, most));
            process::set_rlimit_of(pid, name, soft, hard).step(what())?;
        }
    }
    Ok(())
}

/// Gives the caller, which is about to make a user namespace, the hard limits of those in it: with what its maker
/// may use the kernel bounds all of the namespace.
pub fn make_room(configured: &[Rlimit]) -> Result<(), Failure> {
    for (name, _, hard) in LIMITS.iter().filter(|(name, ..)| COUNTED.contains(name)) {
        let configured = configured.iter().find(|limit| limit.name == *name);
        let wanted = configured.map_or(*hard, |limit| limit.hard);
        if process::set_rlimit(name, wanted, wanted).is_err() {
            let what = || format!("make room for limit `{name}`");
            let most = process::hard_rlimit(name).step(what())?;
            process::set_rlimit(name, most, most).step(what())?;
        }
    }
    Ok(())
}

/// The lesser of two limits.
fn lesser(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_limit_there_is() {
        let names: Vec<_> = LIMITS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, process::RLIMITS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
