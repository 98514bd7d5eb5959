//! Limits on version 1 hierarchies, through cgroups-rs; each controller is handed a directory handle, so
//! that it never sees a name.

use std::error::Error as _;
use std::io;

use cgroups_rs::MaxValue;
use cgroups_rs::cpu::CpuController;
use cgroups_rs::cpuset::CpuSetController;
use cgroups_rs::freezer::{FreezerController, FreezerState};
use cgroups_rs::memory::MemController;
use cgroups_rs::pid::PidController;

use super::group::Group;
use super::layout::Mounts;
use super::{Error, room, unified};
use crate::spec::CgroupLimits;

/// The kernel's own share of a group without limits.
const FULL_SHARES: u64 = 1024;

/// The kernel's own period of a CPU quota, in microseconds.
const PERIOD: u64 = 100_000;

/// Gives a new cpuset group the processors and memory nodes of its parent: until it has some, the kernel
/// refuses it every process.
pub(super) fn fill_cpuset(parent: &Group, child: &Group) -> Result<(), Error> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if child.read(file)?.trim().is_empty() {
            child.write(file, parent.read(file)?.trim())?;
        }
    }
    Ok(())
}

/// Applies the limits whose controllers sit on version 1, to the group `relative`.
pub(super) fn apply(
    mounts: &Mounts,
    prefix: &str,
    relative: &str,
    limits: &CgroupLimits,
) -> Result<(), Error> {
    if let Some(mount) = mounts.v1_of("cpuset") {
        let group = Group::open(mount, relative)?;
        let cpus = match &limits.cpus {
            Some(cpus) => cpus.clone(),
            None => Group::open(mount, prefix)?.read("cpuset.cpus")?.trim().to_owned(),
        };
        let set = CpuSetController::new(group.handle_path(), false);
        set.set_cpus(&cpus).map_err(|e| failed(&group, "cpuset.cpus", &cpus, &e))?;
    }
    if let Some(mount) = mounts.v1_of("cpu") {
        cpu(&Group::open(mount, relative)?, limits)?;
    }
    if let Some(mount) = mounts.v1_of("memory") {
        memory(&Group::open(mount, relative)?, limits)?;
    }
    if let Some(mount) = mounts.v1_of("pids") {
        let group = Group::open(mount, relative)?;
        set_pids(&group, limits.processes.unwrap_or_else(room::of_one))?;
    }
    Ok(())
}

/// Bounds what all containers together may have, in the group `prefix` that they lie in.
pub(super) fn bound(prefix: &Group) -> Result<(), Error> {
    if prefix.has("pids.max") { set_pids(prefix, room::of_all()) } else { Ok(()) }
}

fn set_pids(group: &Group, most: u64) -> Result<(), Error> {
    let pids = PidController::new(group.handle_path(), false);
    let max = MaxValue::Value(signed(most));
    pids.set_pid_max(max).map_err(|e| failed(group, "pids.max", &most.to_string(), &e))
}

fn cpu(group: &Group, limits: &CgroupLimits) -> Result<(), Error> {
    let cpu = CpuController::new(group.handle_path(), false);
    let shares = limits.cpu_weight.map_or(FULL_SHARES, |percent| (FULL_SHARES * percent / 100).max(2));
    cpu.set_shares(shares).map_err(|e| failed(group, "cpu.shares", &shares.to_string(), &e))?;
    if limits.cpu_quota.is_some() && !group.has("cpu.cfs_quota_us") {
        return Err(Error::Unsupported { what: "CPU time", file: "cpu.cfs_quota_us" });
    }
    if !group.has("cpu.cfs_quota_us") {
        return Ok(());
    }
    let (quota, period) = limits.cpu_quota.map_or((-1, PERIOD), |(quota, period)| (signed(quota), period));
    // Without a quota in force any period is accepted.
    cpu.set_cfs_quota(-1).map_err(|e| failed(group, "cpu.cfs_quota_us", "-1", &e))?;
    cpu.set_cfs_period(period).map_err(|e| failed(group, "cpu.cfs_period_us", &period.to_string(), &e))?;
    cpu.set_cfs_quota(quota).map_err(|e| failed(group, "cpu.cfs_quota_us", &quota.to_string(), &e))
}

/// The kernel keeps `memory.limit_in_bytes` at or below `memory.memsw.limit_in_bytes` at every moment, so
/// the order of the two writes depends on the direction.
fn memory(group: &Group, limits: &CgroupLimits) -> Result<(), Error> {
    let memory = MemController::new(group.handle_path(), false);
    let soft = limits.memory_high.map_or(-1, signed);
    memory
        .set_soft_limit(soft)
        .map_err(|e| failed(group, "memory.soft_limit_in_bytes", &soft.to_string(), &e))?;

    let plain = limits.memory.unwrap_or(u64::MAX);
    let both = match (limits.memory, limits.swap) {
        (Some(memory), Some(swap)) => memory.saturating_add(swap),
        (None, Some(swap)) if swap > 0 => return Err(Error::SwapAlone),
        _ => u64::MAX,
    };
    let set_plain = || {
        let value = unlimited_is_minus_one(plain);
        memory.set_limit(value).map_err(|e| failed(group, "memory.limit_in_bytes", &value.to_string(), &e))
    };
    let set_both = || {
        let value = unlimited_is_minus_one(both);
        memory
            .set_memswap_limit(value)
            .map_err(|e| failed(group, "memory.memsw.limit_in_bytes", &value.to_string(), &e))
    };
    match group.read_number_if_there("memory.memsw.limit_in_bytes")? {
        Some(now) if plain <= now => {
            set_plain()?;
            set_both()?;
        }
        Some(_) => {
            set_both()?;
            set_plain()?;
        }
        None if limits.swap.is_some_and(|swap| swap > 0 || unified::host_has_swap()) => {
            return Err(Error::Unsupported { what: "swap", file: "memory.memsw.limit_in_bytes" });
        }
        None => set_plain()?,
    }
    // No swap at all is also told to reclaim, and is the only way to say it without a limit of memory.
    let swappiness = if limits.swap == Some(0) { "0" } else { "60" };
    if limits.swap == Some(0) || group.read("memory.swappiness")?.trim() == "0" {
        group.write("memory.swappiness", swappiness)?;
    }
    Ok(())
}

/// Tells the freezer to freeze or thaw.
pub(super) fn tell_freezer(group: &Group, frozen: bool) -> Result<(), Error> {
    let freezer = FreezerController::new(group.handle_path(), false);
    let (told, text) = if frozen { (freezer.freeze(), "FROZEN") } else { (freezer.thaw(), "THAWED") };
    told.map_err(|e| failed(group, "freezer.state", text, &e))
}

/// Whether every process is frozen.
pub(super) fn is_frozen(group: &Group) -> Result<bool, Error> {
    match FreezerController::new(group.handle_path(), false).state() {
        Ok(state) => Ok(matches!(state, FreezerState::Frozen)),
        Err(e) => {
            Err(Error::Read { path: group.path().to_owned(), file: "freezer.state", source: cause(&e) })
        }
    }
}

fn failed(group: &Group, file: &'static str, value: &str, error: &cgroups_rs::error::Error) -> Error {
    Error::Write { path: group.path().to_owned(), file, value: value.to_owned(), source: cause(error) }
}

/// What the kernel said, out of the crate's error.
fn cause(error: &cgroups_rs::error::Error) -> io::Error {
    let code = error.source().and_then(|s| s.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error);
    code.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unlimited_is_minus_one(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(-1)
}
