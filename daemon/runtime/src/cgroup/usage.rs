//! What a container uses now, by a few reads.

use std::path::Path;

use super::Error;
use super::group::Group;
use super::layout::Mounts;

/// What a container uses. `None` where the kernel does not count it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since the cgroup was made, in nanoseconds.
    pub cpu: Option<u64>,
    /// Memory, page cache included, in bytes.
    pub memory: Option<u64>,
    /// The most memory so far, in bytes.
    pub memory_peak: Option<u64>,
    /// Swap, in bytes.
    pub swap: Option<u64>,
    /// The most swap so far, in bytes; version 1 does not count it.
    pub swap_peak: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// Reads the usage of the cgroup `relative`, each figure where its controller sits.
pub(super) fn of(mounts: &Mounts, relative: &str) -> Result<Usage, Error> {
    let open = |mount: Option<&Path>| mount.map(|mount| Group::open(mount, relative)).transpose();
    let (cpu, memory, pids) = (mounts.v1_of("cpuacct"), mounts.v1_of("memory"), mounts.v1_of("pids"));
    let v2 = match cpu.is_none() || memory.is_none() || pids.is_none() {
        true => open(mounts.unified.as_deref())?,
        false => None,
    };
    let mut usage = Usage::default();
    match (open(cpu)?, &v2) {
        (Some(group), _) => usage.cpu = group.read_number_if_there("cpuacct.usage")?,
        (None, Some(group)) => {
            usage.cpu = group.read_keyed("cpu.stat", "usage_usec")?.map(|micro| micro.saturating_mul(1000));
        }
        (None, None) => {}
    }
    match (open(memory)?, &v2) {
        (Some(group), _) => {
            usage.memory = group.read_number_if_there("memory.usage_in_bytes")?;
            usage.memory_peak = group.read_number_if_there("memory.max_usage_in_bytes")?;
            // The kernel adds up all of memory.stat for one line of it.
            usage.swap = match rustix::system::sysinfo().totalswap {
                0 => Some(0),
                _ => group.read_keyed("memory.stat", "total_swap")?,
            };
        }
        (None, Some(group)) => {
            usage.memory = group.read_number_if_there("memory.current")?;
            usage.memory_peak = group.read_number_if_there("memory.peak")?;
            usage.swap = group.read_number_if_there("memory.swap.current")?;
            usage.swap_peak = group.read_number_if_there("memory.swap.peak")?;
        }
        (None, None) => {}
    }
    if let Some(group) = open(pids)?.or(v2) {
        usage.processes = match group.read_number_if_there("pids.current")? {
            Some(count) => Some(count),
            None => Some(group.pids()?.len() as u64),
        };
    }
    Ok(usage)
}
