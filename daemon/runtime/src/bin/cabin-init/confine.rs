//! Giving up rights, the same way for init and for every command.

use cabin_runtime::confine;
use cabin_runtime::spec::{IdMap, Rlimit};
use cabin_runtime::wire::Failure;
use rustix::process::{Resource, getrlimit};

use cabin_sys::{caps, keyring, process, seccomp};

use crate::step::Step;

/// How many files a process may open by default: programs that use select(2) break beyond the soft limit,
/// those that want more raise it to the hard one.
const FILES: (u64, u64) = (1024, 1_048_576);

/// Sets the resource limits of process `pid` (0: the caller): the defaults, so that nothing of the daemon's
/// own is inherited, and over them what is configured.
pub fn set_rlimits(pid: u32, configured: &[Rlimit]) -> Result<(), Failure> {
    process::set_rlimit_of(pid, "core", Some(0), None)
        .or_else(|_| process::set_rlimit_of(pid, "core", Some(0), getrlimit(Resource::Core).maximum))
        .step("set limit `core`")?;
    // A daemon that may not raise its own limits (itself in a container) hands on what it has.
    let (soft, most) = (Some(FILES.0), getrlimit(Resource::Nofile).maximum.unwrap_or(FILES.1));
    process::set_rlimit_of(pid, "nofile", soft, Some(FILES.1))
        .or_else(|_| process::set_rlimit_of(pid, "nofile", soft, Some(most.min(FILES.1))))
        .step("set limit `nofile`")?;
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
