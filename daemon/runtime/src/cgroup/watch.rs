//! Learns when somebody takes away or writes to the cgroups of containers.
//!
//! cgroup filesystems tell inotify(7) of a directory that is removed to who watches its parent, not to who watches
//! itself, and of a write through any mount to who watches the directory of the file (seen on Linux 6.1 and 6.18).
//! A watch also outlives the directory it is on, so it is taken off by us.

use std::collections::{BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use super::group::Group;
use super::renew::is_limit;
use super::{Cgroups, Error, unified};

/// Who is told when a container's cgroups are changed by somebody.
#[derive(Debug)]
pub struct CgroupWatch {
    cgroups: Cgroups,
    events: OwnedFd,
    /// Wakes who waits, for what is in `new`.
    bell: OwnedFd,
    new: Mutex<Vec<String>>,
    watched: Mutex<Watched>,
}

/// What one who waits is told.
#[derive(Debug, Default)]
pub struct News {
    /// Containers that were announced.
    pub announced: Vec<String>,
    /// Containers to whose cgroups something happened.
    pub changed: BTreeSet<String>,
}

impl News {
    /// Whether nothing happened.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.announced.is_empty() && self.changed.is_empty()
    }
}

/// What is watched, by the kernel's numbers.
#[derive(Debug, Default)]
struct Watched {
    /// The directory that holds all containers, in each hierarchy.
    tops: HashMap<PathBuf, i32>,
    /// Those of each container.
    of: HashMap<String, BTreeSet<i32>>,
}

impl Cgroups {
    /// Begins to watch, at first nothing.
    ///
    /// # Errors
    /// As inotify_init(2) and eventfd(2).
    pub fn watch(&self) -> Result<CgroupWatch, Error> {
        let failed = |e: rustix::io::Errno| Error::Watch { source: e.into() };
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
        Ok(CgroupWatch {
            cgroups: self.clone(),
            events,
            bell,
            new: Mutex::default(),
            watched: Mutex::default(),
        })
    }
}

impl CgroupWatch {
    /// Says that there is a container to look after. Who starts one does not wait until that is done.
    pub fn announce(&self, name: &str) {
        self.new.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
        // Full, it rings anyway.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Watches the cgroups that a container has now. Of one that has none, nothing is watched any more.
    ///
    /// # Errors
    /// As inotify_add_watch(2): ENOSPC when `fs.inotify.max_user_watches` are used up.
    pub fn look_after(&self, name: &str) -> Result<(), Error> {
        let relative = self.cgroups.relative(name)?;
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = BTreeSet::new();
        let done = self.cgroups.mounts().try_for_each(|mount| {
            let Some(group) = Group::find(mount, &relative)? else { return Ok(()) };
            now.insert(self.add(&group, WatchFlags::CLOSE_WRITE | WatchFlags::DELETE)?);
            let top = Group::open(mount, &self.cgroups.inner.prefix)?;
            let number = self.add(&top, WatchFlags::DELETE)?;
            match watched.tops.insert(mount.to_owned(), number) {
                Some(old) if old != number => self.forget(old),
                _ => {}
            }
            Ok(())
        });
        let old = match now.is_empty() {
            true => watched.of.remove(name),
            false => watched.of.insert(name.to_owned(), now.clone()),
        };
        old.iter().flatten().filter(|number| !now.contains(number)).for_each(|number| self.forget(*number));
        done
    }

    fn add(&self, group: &Group, what: WatchFlags) -> Result<i32, Error> {
        inotify::add_watch(&self.events, group.handle_path(), what | WatchFlags::ONLYDIR)
            .map_err(|e| Error::Watch { source: e.into() })
    }

    /// One that the kernel took off already is forgotten all the same.
    fn forget(&self, number: i32) {
        let _ = inotify::remove_watch(&self.events, number);
    }

    /// Waits until something happens, at most so long. The daemon's own changes are among it.
    #[must_use]
    pub fn wait(&self, within: Duration) -> News {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(time) = Timespec::try_from(left) else { return News::default() };
            let mut two = [&self.events, &self.bell].map(|fd| PollFd::new(fd, PollFlags::IN));
            let _ = poll(&mut two, Some(&time));
            let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
            let announced = std::mem::take(&mut *self.new.lock().unwrap_or_else(PoisonError::into_inner));
            let news = News { announced, changed: self.happened() };
            // Each command that enters writes there too, to no limit.
            if !news.is_nothing() || left.is_zero() {
                return news;
            }
        }
    }

    fn happened(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(self.events.as_fd(), &mut buffer);
        while let Ok(event) = reader.next() {
            let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                names.extend(watched.of.keys().cloned());
                continue;
            }
            let file = event.file_name().and_then(|name| name.to_str().ok()).unwrap_or_default();
            if watched.tops.values().any(|number| *number == event.wd()) {
                names.extend(watched.of.contains_key(file).then(|| file.to_owned()));
            } else if file == unified::DELEGATED || is_limit(file) {
                let owner = watched.of.iter().find(|(_, numbers)| numbers.contains(&event.wd()));
                names.extend(owner.map(|(name, _)| name.clone()));
            }
        }
        names
    }
}
