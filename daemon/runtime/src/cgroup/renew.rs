//! Cgroups of a running container that somebody took away, emptied or wrote to: noticed, and made right again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::PoisonError;

use super::group::{self, Group};
use super::{Cgroups, Error, check_name, unified};
use crate::spec::CgroupLimits;

/// The files that limits are written to, of both versions. What they hold is compared with what they held when the
/// limits were set: the kernel rounds and rewrites what it is given.
const LIMITS: &[&str] = &[
    "cpuset.cpus",
    "cpu.max",
    "cpu.weight",
    "memory.high",
    "memory.swap.max",
    "memory.max",
    "pids.max",
    "cpu.shares",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.swappiness",
];

/// How often is looked for processes that were born outside while others were moved in.
const PASSES: usize = 20;

/// The leaf for processes that the container's own cgroup does not take any more, because the container hands
/// controllers on from it. It is named as those of commands that found no place inside.
const LEAF: &str = "exec-moved";

/// What the files of limits hold.
pub(super) type Values = Vec<(PathBuf, &'static str, String)>;

/// Whether a file holds a limit.
pub(super) fn is_limit(file: &str) -> bool {
    LIMITS.contains(&file)
}

impl Cgroups {
    /// What is wrong with the cgroups of a running container, whose first process is `init`.
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub fn broken(&self, name: &str, init: u32) -> Result<Option<&'static str>, Error> {
        let relative = self.relative(name)?;
        for mount in self.mounts() {
            if Group::find(mount, &relative)?.is_none() {
                return Ok(Some("its cgroups were removed"));
            }
        }
        if let Some(mount) = &self.inner.mounts.unified
            && Group::find(mount, &format!("{relative}/{}", unified::DELEGATED))?.is_none()
        {
            return Ok(Some("its cgroups were removed"));
        }
        if !self.is_in(&relative, init) {
            return Ok(Some("its processes were moved out of its cgroups"));
        }
        let now = self.values(&relative)?;
        let set = self.inner.set.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(set.get(name).is_some_and(|set| *set != now).then_some("its limits were changed"))
    }

    /// Makes the cgroups of a running container again where they are missing, sets its limits, and moves in whatever
    /// of it is outside. `owner` is as in [`Cgroups::create`], `init` its first process.
    ///
    /// A container whose own tree was removed does not see the new one: its cgroup namespace still has the old.
    ///
    /// # Errors
    /// When the kernel refuses a step, or the container starts processes faster than they are moved.
    pub fn renew(
        &self,
        name: &str,
        limits: &CgroupLimits,
        owner: (u32, u32),
        init: u32,
    ) -> Result<(), Error> {
        let relative = self.relative(name)?;
        self.lay_out(name, limits, owner, Group::ensure)?;
        self.set(name, limits)?;
        for _ in 0..PASSES {
            let outside: Vec<u32> =
                processes(init).into_iter().filter(|pid| !self.is_in(&relative, *pid)).collect();
            if outside.is_empty() {
                return Ok(());
            }
            for pid in outside {
                self.bring_in(name, &relative, pid)?;
            }
        }
        Err(Error::Escaping { name: name.to_owned() })
    }

    /// Moves a process in; one that has ended is success.
    fn bring_in(&self, name: &str, relative: &str, pid: u32) -> Result<(), Error> {
        let ended = |error: &Error| matches!(error, Error::Attach { source, .. } if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()));
        match self.attach(name, pid) {
            Err(error) if ended(&error) => Ok(()),
            Err(Error::Attach { .. }) => {
                let Some(mount) = &self.inner.mounts.unified else { return self.attach(name, pid) };
                match Group::open(mount, relative)?.ensure(LEAF)?.attach(pid) {
                    Err(error) if ended(&error) => Ok(()),
                    other => other,
                }
            }
            other => other,
        }
    }

    /// Whether a process is in the container's cgroup of every hierarchy. One that has ended is.
    fn is_in(&self, relative: &str, pid: u32) -> bool {
        let Ok(table) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return true };
        let wanted = format!("/{relative}/");
        let inside = |controllers: &str| {
            let line = table.lines().find_map(|line| {
                let (_, line) = line.split_once(':')?;
                let (held, path) = line.split_once(':')?;
                same(held, controllers).then_some(path)
            });
            line.is_none_or(|path| format!("{path}/").contains(&wanted))
        };
        let mounts = &self.inner.mounts;
        (mounts.unified.is_none() || inside(""))
            && mounts.v1.iter().all(|mount| inside(&mount.controllers.join(",")))
    }

    fn values(&self, relative: &str) -> Result<Values, Error> {
        let mut values = Vec::new();
        for mount in self.mounts() {
            let Some(group) = Group::find(mount, relative)? else { continue };
            for file in LIMITS.iter().filter(|file| group.has(file)) {
                match group.read(file) {
                    Ok(text) => values.push((mount.to_owned(), *file, text)),
                    Err(Error::Read { source, .. }) if group::gone(&source) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(values)
    }

    /// Remembers what the limits look like that were just set.
    pub(super) fn remember(&self, name: &str, relative: &str) -> Result<(), Error> {
        let values = self.values(relative)?;
        self.inner.set.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), values);
        Ok(())
    }

    pub(super) fn forget(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        self.inner.set.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }
}

/// Whether two lists of controllers name the same ones; the kernel has its own order.
fn same(one: &str, other: &str) -> bool {
    let set = |list: &str| list.split(',').map(str::to_owned).collect::<BTreeSet<_>>();
    set(one) == set(other)
}

/// Every process of the container of which `init` is the first: what descends from it, and what was put beside it, as
/// commands are. One that is only waited for is none.
fn processes(init: u32) -> BTreeSet<u32> {
    let world = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = world(init);
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut left = vec![init];
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let mut words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, parent) = (words.next(), words.next().and_then(|text| text.parse().ok()));
        if matches!(state, Some("Z" | "X")) {
            continue;
        }
        children.entry(parent.unwrap_or_default()).or_default().push(pid);
        if own.is_some() && world(pid) == own {
            left.push(pid);
        }
    }
    let mut found = BTreeSet::new();
    while let Some(pid) = left.pop() {
        if found.insert(pid) {
            left.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_the_same_in_any_order() {
        assert!(same("cpu,cpuacct", "cpuacct,cpu") && same("", "") && !same("cpu", "cpuacct"));
    }

    #[test]
    fn a_process_and_what_descends_from_it_are_found() {
        let found = processes(std::process::id());
        assert!(found.contains(&std::process::id()));
    }
}
