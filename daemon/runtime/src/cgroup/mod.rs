//! Cgroups of containers: made, limited, entered, frozen, killed, removed. The only code of Cabin that
//! touches `/sys/fs/cgroup`.
//!
//! Everything lies at `<hierarchy>/<prefix>/<name>`, so that what a daemon left behind can be found by
//! name. Limits sit there, owned by the host's root. On cgroup2 the container itself lives one level
//! deeper, in `<prefix>/<name>/init`, which belongs to its own root: it can make groups below but cannot
//! reach its limits. Version 1 controllers are written through cgroups-rs ([`v1`]), cgroup2 by file
//! ([`unified`]).

mod devices;
mod entry;
mod error;
mod group;
mod layout;
mod leaf;
mod renew;
mod room;
mod tree;
mod unified;
mod usage;
mod v1;
mod watch;

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cabin_sys::mount;
use cabin_undo::{Undo, fault};
use rustix::process::{Pid, Signal};

pub use entry::Entry;
pub use error::Error;
pub use layout::Layout;
pub use leaf::ExecLeaf;
pub use usage::Usage;
pub use watch::{CgroupWatch, News};

use crate::spec::CgroupLimits;
use group::Group;
use layout::Mounts;

/// How long freezing or thawing may take. A process in an uninterruptible wait holds it up.
const FREEZE: Duration = Duration::from_secs(10);

/// How long it may take until every killed process has left.
const KILL: Duration = Duration::from_secs(30);

/// How long a removed cgroup may still be busy: the kernel lets go of the last process a moment late.
const REMOVE: Duration = Duration::from_secs(5);

/// How often version 1, which reports no events, is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// How a directory is made: one that must not be there yet, or one that may.
type Make = fn(&Group, &str) -> Result<Group, Error>;

/// The cgroups of one daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cgroups {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    prefix: String,
    mounts: Mounts,
    layout: Layout,
    /// The mount of cgroup2 that `mounts` leads to, when it is not the host's.
    _own: Option<OwnedFd>,
    /// What the files of limits held when they were set, by container.
    set: Mutex<HashMap<String, renew::Values>>,
}

impl Cgroups {
    /// Finds the host's hierarchies, and mounts cgroup2 for itself where the host has not. `prefix` names the
    /// directory below each that this daemon owns; the directory is made with the first container.
    ///
    /// # Errors
    /// When the mount table cannot be read or names no cgroup hierarchy, or `prefix` is no name.
    pub fn new(prefix: &str) -> Result<Cgroups, Error> {
        Cgroups::completed(prefix, Mounts::of_this_host().map_err(|source| Error::Mounts { source })?)
    }

    /// As [`Cgroups::new`], on a host with that mount table.
    ///
    /// # Errors
    /// As [`Cgroups::new`].
    pub fn on_host_with(prefix: &str, table: &str) -> Result<Cgroups, Error> {
        Cgroups::completed(prefix, Mounts::parse(table))
    }

    /// The kernel has the tree of cgroup2 whether it is mounted or not, and systemd 256 and later boots on nothing
    /// else. A mount that is attached nowhere ends with the daemon; the cgroups stay.
    fn completed(prefix: &str, mut mounts: Mounts) -> Result<Cgroups, Error> {
        let is_wanted = mounts.layout() == Some(Layout::Legacy);
        // Where it is not to be had, version 1 has to do.
        let own = if is_wanted { mount::filesystem("cgroup2", &[], mount::INERT).ok() } else { None };
        if let Some(own) = &own {
            mounts.unified = Some(format!("/proc/self/fd/{}", own.as_raw_fd()).into());
        }
        Cgroups::of(prefix, mounts, own)
    }

    /// As [`Cgroups::new`], with the hierarchies that a mount table in the form of proc_pid_mountinfo(5)
    /// names and no other.
    ///
    /// # Errors
    /// As [`Cgroups::new`].
    pub fn with_mount_table(prefix: &str, table: &str) -> Result<Cgroups, Error> {
        Cgroups::of(prefix, Mounts::parse(table), None)
    }

    fn of(prefix: &str, mounts: Mounts, own: Option<OwnedFd>) -> Result<Cgroups, Error> {
        check_name(prefix)?;
        let layout = mounts.layout().ok_or(Error::NoHierarchy)?;
        let (prefix, set) = (prefix.to_owned(), Mutex::default());
        Ok(Cgroups { inner: Arc::new(Inner { prefix, mounts, layout, _own: own, set }) })
    }

    /// How the host's hierarchies are arranged.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.inner.layout
    }

    fn relative(&self, name: &str) -> Result<String, Error> {
        check_name(name)?;
        Ok(format!("{}/{name}", self.inner.prefix))
    }

    /// The mount points of every hierarchy, cgroup2 first.
    fn mounts(&self) -> impl Iterator<Item = &Path> {
        let mounts = &self.inner.mounts;
        mounts.unified.as_deref().into_iter().chain(mounts.v1.iter().map(|m| m.path.as_path()))
    }

    /// The container's cgroup in the hierarchy that knows best who is in it: cgroup2, or else the freezer's
    /// or the first.
    fn main_group(&self, name: &str) -> Result<Group, Error> {
        let mounts = &self.inner.mounts;
        let mount = mounts.unified.as_deref().or(mounts.v1_of("freezer")).or(self.mounts().next());
        Group::open(mount.ok_or(Error::NoHierarchy)?, &self.relative(name)?)
    }

    /// Makes the container's cgroup in every hierarchy and sets its limits. `owner` is the host's id of the
    /// container's root user and group. A cgroup of that name without processes is replaced.
    ///
    /// # Errors
    /// [`Error::Busy`] when there is one with processes; else when the kernel refuses a step.
    pub fn create(
        &self,
        name: &str,
        limits: &CgroupLimits,
        owner: (u32, u32),
        undo: &mut Undo,
    ) -> Result<(), Error> {
        let relative = self.relative(name)?;
        for mount in self.mounts() {
            if let Some(old) = Group::find(mount, &relative)? {
                if !old.pids()?.is_empty() {
                    return Err(Error::Busy { name: name.to_owned() });
                }
                self.destroy(name)?;
            }
        }
        // Recorded before the first directory: removing what was never made is success, so one inverse
        // serves a creation that stops anywhere.
        let (cgroups, stray) = (self.clone(), name.to_owned());
        undo.push(format!("cgroup {name}"), move || cgroups.destroy(&stray))?;
        self.lay_out(name, limits, owner, Group::create)?;
        fault::pass("cgroup in every hierarchy")?;
        self.set(name, limits)
    }

    /// The directories of a container, made by `make`, with all but their limits.
    fn lay_out(&self, name: &str, limits: &CgroupLimits, owner: (u32, u32), make: Make) -> Result<(), Error> {
        for mount in &self.inner.mounts.v1 {
            let root = Group::open(&mount.path, "")?;
            let prefix = root.ensure(&self.inner.prefix)?;
            let cpuset = mount.controllers.iter().any(|c| c == "cpuset");
            if cpuset {
                v1::fill_cpuset(&root, &prefix)?;
            }
            v1::bound(&prefix)?;
            if self.inner.layout == Layout::Legacy && mount.controllers.iter().any(|c| c == "devices") {
                devices::bar_v1(&prefix)?;
            }
            let group = make(&prefix, name)?;
            if cpuset {
                v1::fill_cpuset(&prefix, &group)?;
            }
            // Without cgroup2, the hierarchy without controllers is the only one a guest's systemd can have
            // for its own. No limit is there.
            if self.inner.layout == Layout::Legacy && mount.controllers == ["name=systemd"] {
                group.chown(&["cgroup.procs".to_owned(), "tasks".to_owned()], owner)?;
            }
        }
        if let Some(mount) = &self.inner.mounts.unified {
            let root = Group::open(mount, "")?;
            unified::lay_out(&root, (&self.inner.prefix, name), limits, owner, make)?;
        }
        Ok(())
    }

    /// Changes the limits to exactly these, while the container runs or not; a limit that is not given is
    /// lifted.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the kernel has no such limit; [`Error::Write`] when it refuses one (EBUSY:
    /// less memory than is used, on version 1). Limits set before stay as set.
    pub fn set(&self, name: &str, limits: &CgroupLimits) -> Result<(), Error> {
        let relative = self.relative(name)?;
        let mounts = &self.inner.mounts;
        v1::apply(mounts, &self.inner.prefix, &relative, limits)?;
        let on_v1 = |controller: &str| mounts.v1_of(controller).is_some();
        if let Some(mount) = &mounts.unified {
            unified::apply(&Group::open(mount, &relative)?, limits, on_v1)?;
        }
        // At once: what others write before somebody looks after the container is not taken for ours.
        self.remember(name, &relative)
    }

    /// Moves a process into the container's cgroup of every hierarchy; on cgroup2, into the delegated one.
    ///
    /// # Errors
    /// When a cgroup is missing or the kernel refuses the process.
    pub fn attach(&self, name: &str, pid: u32) -> Result<(), Error> {
        self.attach_v1(name, pid)?;
        if let Some(mount) = &self.inner.mounts.unified {
            Group::open(mount, &format!("{}/{}", self.relative(name)?, unified::DELEGATED))?.attach(pid)?;
        }
        Ok(())
    }

    fn attach_v1(&self, name: &str, pid: u32) -> Result<(), Error> {
        let relative = self.relative(name)?;
        for mount in &self.inner.mounts.v1 {
            Group::open(&mount.path, &relative)?.attach(pid)?;
        }
        Ok(())
    }

    /// A place of its own for a command started inside the running container. `serial` tells the commands
    /// of one container apart.
    ///
    /// # Errors
    /// When the container's cgroup is missing or the kernel refuses another.
    pub fn exec_leaf(&self, name: &str, serial: &str) -> Result<ExecLeaf, Error> {
        ExecLeaf::create(self, name, serial)
    }

    /// Freezes every process of the container and waits until all stand still.
    ///
    /// # Errors
    /// [`Error::Deadline`] when one does not; they all run again then.
    pub fn freeze(&self, name: &str) -> Result<(), Error> {
        let group = self.main_group(name)?;
        self.tell_frozen(&group, true)?;
        if self.wait_frozen(&group, true)? {
            return Ok(());
        }
        self.tell_frozen(&group, false)?;
        Err(Error::Deadline { name: name.to_owned(), what: "frozen", seconds: FREEZE.as_secs() })
    }

    /// Lets the processes of the container run again.
    ///
    /// # Errors
    /// When the cgroup is missing or does not thaw in time.
    pub fn thaw(&self, name: &str) -> Result<(), Error> {
        let group = self.main_group(name)?;
        self.tell_frozen(&group, false)?;
        if self.wait_frozen(&group, false)? {
            return Ok(());
        }
        Err(Error::Deadline { name: name.to_owned(), what: "thawed", seconds: FREEZE.as_secs() })
    }

    /// Whether every process of the container stands still.
    ///
    /// # Errors
    /// When the cgroup is missing.
    pub fn is_frozen(&self, name: &str) -> Result<bool, Error> {
        self.frozen(&self.main_group(name)?)
    }

    fn tell_frozen(&self, group: &Group, frozen: bool) -> Result<(), Error> {
        match self.inner.layout {
            Layout::Legacy => v1::tell_freezer(group, frozen),
            Layout::Unified | Layout::Hybrid => group.write("cgroup.freeze", if frozen { "1" } else { "0" }),
        }
    }

    fn frozen(&self, group: &Group) -> Result<bool, Error> {
        match self.inner.layout {
            Layout::Legacy => v1::is_frozen(group),
            Layout::Unified | Layout::Hybrid => Ok(group.read_keyed("cgroup.events", "frozen")? == Some(1)),
        }
    }

    fn wait_frozen(&self, group: &Group, frozen: bool) -> Result<bool, Error> {
        let deadline = Instant::now() + FREEZE;
        if self.inner.layout != Layout::Legacy {
            return group.wait_for_event("frozen", u64::from(frozen), deadline);
        }
        loop {
            if v1::is_frozen(group)? == frozen {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
            // A process forked while the freezer passed may have escaped it.
            v1::tell_freezer(group, frozen)?;
        }
    }

    /// Kills every process of the container and waits until the last has left. A missing cgroup is success.
    ///
    /// # Errors
    /// [`Error::Deadline`] when a process stays.
    pub fn kill(&self, name: &str) -> Result<(), Error> {
        let relative = self.relative(name)?;
        let deadline = Instant::now() + KILL;
        if let Some(mount) = &self.inner.mounts.unified
            && let Some(group) = Group::find(mount, &relative)?
            && group.has("cgroup.kill")
        {
            group.write("cgroup.kill", "1")?;
            if !group.wait_for_event("populated", 0, deadline)? {
                return Err(late(name));
            }
        }
        // What is still in some hierarchy: everything where there is no cgroup.kill (before Linux 5.14, or
        // without cgroup2), else only what never got into the cgroup2 tree.
        while !self.kill_rest(&relative)? {
            if Instant::now() >= deadline {
                return Err(late(name));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// One round of signals; whether nothing was left to be signalled.
    fn kill_rest(&self, relative: &str) -> Result<bool, Error> {
        let mut groups = Vec::new();
        for mount in self.mounts() {
            groups.extend(Group::find(mount, relative)?);
        }
        if all_pids(&groups)?.is_empty() {
            return Ok(true);
        }
        let freezer = match self.inner.mounts.v1_of("freezer") {
            Some(mount) => Group::find(mount, relative)?,
            None => None,
        };
        // Frozen, none can fork away from the list; a signal is acted on only once thawed.
        if let Some(freezer) = &freezer {
            v1::tell_freezer(freezer, true)?;
        }
        let signalled = all_pids(&groups).and_then(|pids| pids.into_iter().try_for_each(signal));
        if let Some(freezer) = &freezer {
            v1::tell_freezer(freezer, false)?;
        }
        signalled.map(|()| false)
    }

    /// Removes the container's cgroup from every hierarchy, with everything the container made below. One
    /// already gone is success. It goes through all hierarchies even when one refuses.
    ///
    /// # Errors
    /// [`Error::Remove`] when a cgroup still has processes.
    pub fn destroy(&self, name: &str) -> Result<(), Error> {
        self.forget(name)?;
        let deadline = Instant::now() + REMOVE;
        let mut first = Ok(());
        for mount in self.mounts() {
            let removed = Group::find(mount, &self.inner.prefix)
                .and_then(|prefix| prefix.map_or(Ok(()), |prefix| prefix.remove(name, deadline)));
            first = first.and(removed);
        }
        first
    }

    /// Removes the daemon's own directory from every hierarchy where it holds no container.
    ///
    /// # Errors
    /// When the kernel refuses for another reason.
    pub fn close(&self) -> Result<(), Error> {
        for mount in self.mounts() {
            Group::open(mount, "")?.remove_if_empty(&self.inner.prefix)?;
        }
        Ok(())
    }

    /// The names of all cgroups this daemon has in any hierarchy, sorted.
    ///
    /// # Errors
    /// When a hierarchy cannot be read.
    pub fn list(&self) -> Result<Vec<String>, Error> {
        let mut names = BTreeSet::new();
        for mount in self.mounts() {
            if let Some(prefix) = Group::find(mount, &self.inner.prefix)? {
                names.extend(prefix.children()?);
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Every process of the container, by the host's ids.
    ///
    /// # Errors
    /// When the cgroup is missing.
    pub fn pids(&self, name: &str) -> Result<Vec<u32>, Error> {
        self.main_group(name)?.pids()
    }

    /// Whether the container's cgroup exists and has a process.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn populated(&self, name: &str) -> Result<bool, Error> {
        match self.main_group(name) {
            Ok(group) if self.inner.layout == Layout::Legacy => Ok(!group.pids()?.is_empty()),
            Ok(group) => Ok(group.read_keyed("cgroup.events", "populated")? == Some(1)),
            Err(Error::Open { source, .. }) if group::gone(&source) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// What the container uses now.
    ///
    /// # Errors
    /// When its cgroup is missing.
    pub fn usage(&self, name: &str) -> Result<Usage, Error> {
        usage::of(&self.inner.mounts, &self.relative(name)?)
    }
}

fn late(name: &str) -> Error {
    Error::Deadline { name: name.to_owned(), what: "empty", seconds: KILL.as_secs() }
}

fn all_pids(groups: &[Group]) -> Result<BTreeSet<u32>, Error> {
    let mut pids = BTreeSet::new();
    for group in groups {
        pids.extend(group.pids()?);
    }
    Ok(pids)
}

/// Sends SIGKILL; a process already gone is success.
fn signal(pid: u32) -> Result<(), Error> {
    let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    match rustix::process::kill_process(target, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(Error::Signal { pid, source: e.into() }),
    }
}

/// A name must not look like a file of the kernel's (they have a dot) nor lead elsewhere.
fn check_name(name: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 200 || !name.chars().all(fine) || matches!(name, "tasks") {
        return Err(Error::Name { name: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_or_looks_like_a_kernel_file_is_refused() {
        for bad in ["", "a/b", "..", "cgroup.procs", "notify on", "tasks", "é", &"x".repeat(201)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["web", "default_web-1", "a"] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
        let table = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(Cgroups::with_mount_table("cabin", table).unwrap().layout(), Layout::Unified);
        assert!(Cgroups::with_mount_table("../x", table).is_err());
        assert!(matches!(Cgroups::with_mount_table("cabin", ""), Err(Error::NoHierarchy)));
    }
}
