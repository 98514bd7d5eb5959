//! The way into a container's cgroups for a process that goes there by itself.
//!
//! Moving another process makes the kernel wait until no process anywhere is in the middle of a fork or an exec:
//! 5 to 15 ms on a quiet host (`cgroup_threadgroup_rwsem` in kernel/cgroup/cgroup.c). A process that is born
//! into a cgroup2 directory (clone3(2), `CLONE_INTO_CGROUP`), or whose one thread moves itself by writing 0
//! to a version 1 `tasks` file, waits for nobody: about 0.2 ms for eight hierarchies.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;

use super::group::Group;
use super::{Cgroups, Error};

/// A container's cgroups, open. It goes over the wire as descriptors, the cgroup2 directory first.
#[derive(Debug, Default)]
pub struct Entry {
    /// The cgroup2 directory to be born into, on hosts that have that hierarchy.
    pub unified: Option<OwnedFd>,
    /// The `tasks` file of each version 1 hierarchy, for writing.
    pub tasks: Vec<OwnedFd>,
}

impl Entry {
    /// What came over the wire.
    #[must_use]
    pub fn received(unified: bool, fds: Vec<OwnedFd>) -> Entry {
        let mut fds = fds.into_iter();
        let unified = if unified { fds.next() } else { None };
        Entry { unified, tasks: fds.collect() }
    }

    /// What goes over the wire.
    #[must_use]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.unified.iter().chain(&self.tasks).map(AsFd::as_fd).collect()
    }

    /// Moves the calling process, which has one thread, into the version 1 cgroups.
    ///
    /// # Errors
    /// As write(2) on `tasks` (cgroups(7)).
    pub fn walk_in(&self) -> io::Result<()> {
        for tasks in &self.tasks {
            rustix::io::retry_on_intr(|| rustix::io::write(tasks, b"0"))?;
        }
        Ok(())
    }
}

impl Cgroups {
    /// Opens the container's cgroups for its first process.
    ///
    /// # Errors
    /// When one is missing.
    pub fn entry(&self, name: &str) -> Result<Entry, Error> {
        let unified = match &self.inner.mounts.unified {
            Some(mount) => {
                let delegated = format!("{}/{}", self.relative(name)?, super::unified::DELEGATED);
                Some(Group::open(mount, &delegated)?.handle()?)
            }
            None => None,
        };
        Ok(Entry { unified, tasks: self.tasks(name)? })
    }

    pub(super) fn tasks(&self, name: &str) -> Result<Vec<OwnedFd>, Error> {
        let relative = self.relative(name)?;
        let open = |mount: &super::layout::V1Mount| {
            let group = Group::open(&mount.path, &relative)?;
            let failed = |source| Error::Open { path: group.path().join("tasks"), source };
            group.open_control("tasks", OFlags::WRONLY).map_err(failed)
        };
        self.inner.mounts.v1.iter().map(open).collect()
    }
}
