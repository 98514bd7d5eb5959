//! The leaf in which a command runs that is started inside a running container.
//!
//! A guest's systemd enables controllers on the cgroup it was given, and from then on the kernel refuses
//! that cgroup processes of its own. A command therefore gets a child.

use std::time::{Duration, Instant};

use super::group::Group;
use super::{Cgroups, Entry, Error, unified};

/// How long the removal of an empty leaf may take.
const REMOVE: Duration = Duration::from_secs(1);

/// A leaf for one command. It is left by [`ExecLeaf::remove`].
#[derive(Debug)]
pub struct ExecLeaf {
    cgroups: Cgroups,
    name: String,
    serial: String,
}

impl Cgroups {
    /// Removes leaves of a running container in which nothing is left, of commands whose daemon has gone.
    ///
    /// # Errors
    /// When the kernel refuses to remove an empty cgroup.
    pub fn sweep_leaves(&self, name: &str) -> Result<(), Error> {
        let Some(mount) = &self.inner.mounts.unified else { return Ok(()) };
        let relative = self.relative(name)?;
        let inner = format!("{relative}/{}", unified::DELEGATED);
        for (place, mark) in [(inner, ".cabin-"), (relative, "exec-")] {
            let Some(parent) = Group::find(mount, &place)? else { continue };
            for leaf in parent.children()?.iter().filter(|child| child.starts_with(mark)) {
                let Some(group) = parent.child(leaf)? else { continue };
                if group.read_keyed("cgroup.events", "populated")? == Some(0) {
                    parent.remove(leaf, Instant::now() + REMOVE)?;
                }
            }
        }
        Ok(())
    }
}

impl ExecLeaf {
    /// Makes the leaf where it belongs: beneath the delegated cgroup, owned by its owner.
    pub(super) fn create(cgroups: &Cgroups, name: &str, serial: &str) -> Result<ExecLeaf, Error> {
        cgroups.relative(serial)?;
        let leaf = ExecLeaf { cgroups: cgroups.clone(), name: name.to_owned(), serial: serial.to_owned() };
        match leaf.make_inner() {
            // The container has used up the cgroups it may make, or made the place unfit: its own doing
            // must not keep the host's owner out.
            Err(Error::Create { .. } | Error::Delegate { .. }) => leaf.make_outer().map(|_| leaf),
            other => other.map(|()| leaf),
        }
    }

    fn inner_name(&self) -> String {
        format!(".cabin-{}", self.serial)
    }

    fn outer_name(&self) -> String {
        format!("exec-{}", self.serial)
    }

    fn parent(&self, below: &str) -> Result<Option<Group>, Error> {
        let Some(mount) = &self.cgroups.inner.mounts.unified else { return Ok(None) };
        let relative = format!("{}{below}", self.cgroups.relative(&self.name)?);
        Group::open(mount, &relative).map(Some)
    }

    fn delegated(&self) -> Result<Option<Group>, Error> {
        self.parent(&format!("/{}", unified::DELEGATED))
    }

    fn make_inner(&self) -> Result<(), Error> {
        let Some(parent) = self.delegated()? else { return Ok(()) };
        parent.create(&self.inner_name())?.chown(&unified::delegatable(), parent.owner()?)
    }

    /// The leaf beside the delegated cgroup: the same limits, but the container's tools see it as outside.
    fn make_outer(&self) -> Result<Option<Group>, Error> {
        self.parent("")?.map(|parent| parent.ensure(&self.outer_name())).transpose()
    }

    /// Opens the leaf, and the container's cgroup of every version 1 hierarchy, for the command's process.
    ///
    /// # Errors
    /// When a cgroup is gone.
    pub fn entry(&self) -> Result<Entry, Error> {
        let inner = match self.delegated()? {
            Some(delegated) => delegated.child(&self.inner_name())?,
            None => None,
        };
        let leaf = match inner {
            Some(inner) => Some(inner),
            None => self
                .parent("")?
                .and_then(|parent| parent.child(&self.outer_name()).transpose())
                .transpose()?,
        };
        let unified = leaf.map(|leaf| leaf.handle()).transpose()?;
        Ok(Entry { unified, tasks: self.cgroups.tasks(&self.name)? })
    }

    /// Moves a process into the container's cgroup of every version 1 hierarchy, and into the leaf.
    ///
    /// # Errors
    /// When a cgroup is gone or the kernel refuses the process.
    pub fn attach(&self, pid: u32) -> Result<(), Error> {
        self.cgroups.attach_v1(&self.name, pid)?;
        let Some(delegated) = self.delegated()? else { return Ok(()) };
        let inner = delegated.child(&self.inner_name())?.map(|leaf| leaf.attach(pid));
        match inner {
            Some(Ok(())) => Ok(()),
            // Removed, or made unfit (threaded, with controllers of its own) by the container.
            _ => match self.make_outer()? {
                Some(outer) => outer.attach(pid),
                None => Ok(()),
            },
        }
    }

    /// Removes the leaf. One in which processes stayed behind is kept until the container's cgroup is
    /// destroyed; one already gone is success.
    ///
    /// # Errors
    /// When the kernel refuses to remove an empty cgroup.
    pub fn remove(self) -> Result<(), Error> {
        for (below, name) in
            [(format!("/{}", unified::DELEGATED), self.inner_name()), (String::new(), self.outer_name())]
        {
            let parent = match self.parent(&below) {
                Ok(Some(parent)) => parent,
                Ok(None) => return Ok(()),
                Err(Error::Open { source, .. }) if super::group::gone(&source) => continue,
                Err(e) => return Err(e),
            };
            let Some(leaf) = parent.child(&name)? else { continue };
            if leaf.read_keyed("cgroup.events", "populated")? == Some(0) {
                parent.remove(&name, Instant::now() + REMOVE)?;
            }
        }
        Ok(())
    }
}
