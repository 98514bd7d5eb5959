//! The tree below one cgroup, gone through and taken away: as deep as a container made it. Version 1 bounds no depth.
//!
//! One directory is open at a time, with the names that are left on the way to it. The way up is `..`: a cgroup does
//! not change its parent.

use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

use cabin_sys::dir::HostDir;
use rustix::fs::{self as rfs, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::Error;
use super::group::{Group, gone};

/// How much longer than a busy cgroup is waited for a removal may take in all. Somebody may make cgroups meanwhile.
const WORK: Duration = Duration::from_secs(60);

impl Group {
    /// Every process of this cgroup and of those below.
    pub(super) fn pids(&self) -> Result<Vec<u32>, Error> {
        let mut pids = Vec::new();
        self.gather(&mut pids)?;
        let (mut here, mut left, mut above) = (self.reached(".")?, self.all_children()?, Vec::new());
        loop {
            let Some(name) = left.pop() else {
                let Some(rest) = above.pop() else { break };
                (here, left) = (here.reached("..")?, rest);
                continue;
            };
            // One that vanished meanwhile has no processes.
            if let Some(child) = here.child_of(&name)? {
                child.gather(&mut pids)?;
                above.push(std::mem::replace(&mut left, child.all_children()?));
                here = child;
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Removes the child `name` and all below it, bottom-up; one already gone is success. A busy one is
    /// waited for until `deadline`.
    pub(super) fn remove(&self, name: &str, deadline: Instant) -> Result<(), Error> {
        let (mut here, mut left, mut above) = (self.reached(".")?, vec![OsString::from(name)], Vec::new());
        loop {
            let Some(name) = left.pop() else {
                let Some(rest) = above.pop() else { return Ok(()) };
                (here, left) = (here.reached("..")?, rest);
                continue;
            };
            let refused = match rfs::unlinkat(&here, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(e) => e,
            };
            let failed = || Error::Remove { path: self.path().join(&name), source: refused.into() };
            if !matches!(refused, Errno::BUSY | Errno::NOTEMPTY) || Instant::now() >= deadline + WORK {
                return Err(failed());
            }
            let Some(child) = here.child_of(&name)? else { continue };
            let children = child.all_children()?;
            if children.is_empty() && Instant::now() >= deadline {
                return Err(failed());
            }
            // Once more when those below are gone.
            left.push(name);
            if children.is_empty() {
                child.wait_for_change(Duration::from_millis(5));
            } else {
                above.push(std::mem::replace(&mut left, children));
                here = child;
            }
        }
    }

    /// The directory at `name` from here. For messages it keeps this one's path: its own may be of any length.
    fn reached(&self, name: impl rustix::path::Arg) -> Result<Group, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rfs::openat(self, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Group::of(HostDir::of(fd, self.path().to_owned()))),
            Err(e) => Err(Error::Open { path: self.path().to_owned(), source: e.into() }),
        }
    }

    fn child_of(&self, name: &OsStr) -> Result<Option<Group>, Error> {
        match self.reached(name) {
            Ok(child) => Ok(Some(child)),
            Err(Error::Open { source, .. }) if gone(&source) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
