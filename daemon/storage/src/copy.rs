//! Copying a tree: by reflink where the filesystem can, otherwise by several threads, with hard links, holes,
//! extended attributes, devices and times kept.
//!
//! Both trees are reached through open directories only, and no link in them is followed. A tree that is in use is
//! copied ahead, and what changed meanwhile once more when it stands still.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cabin_sys::dir::HostDir;
use rustix::fs::{self as rfs, AtFlags, FileType, Mode, Stat, Timestamps};
use rustix::io::Errno;

use crate::attributes::{Role, carry, strip, times};
use crate::error::{Error, Result};
use crate::usage;

mod aside;
mod content;
mod earlier;
mod known;
mod place;

use aside::Aside;
pub(crate) use earlier::{Earlier, noted};
use known::Known;
use place::{Place, release};

/// A pass that takes no longer is not worth another one before the writers stand still.
const SHORT: Duration = Duration::from_millis(30);

/// A tree of no more names and bytes than these is copied as a whole while the writers stand still: that takes a few
/// milliseconds, and going ahead would cost a writing out of the filesystem.
const FEW: usize = 256;
const LITTLE: u64 = 16 << 20;

/// The most threads of one copy.
const MAX_THREADS: usize = 4;

/// Copies what is in `from`, and its own attributes, into the empty directory `to`. Nothing is synced.
pub(crate) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>, role: Role) -> Result<()> {
    let mut copy = Copy::new(from, to, role, None).map_err(begun)?;
    copy.pass(Manner::Once)?;
    copy.clean()
}

/// A copy of a tree in use that is not whole yet.
#[derive(Debug)]
pub(crate) struct Ahead(Copy);

impl Ahead {
    /// Copies what is in `from` into the empty directory `to` while somebody may be writing there; nothing yet, if it is
    /// little. What an earlier copy has already need not be copied.
    pub(crate) fn begin(
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        role: Role,
        earlier: Option<Earlier>,
    ) -> Result<Ahead> {
        let mut ahead = Ahead(Copy::new(from, to, role, earlier).map_err(begun)?);
        if !usage::is_within(from, FEW, LITTLE).map_err(begun)? {
            ahead.go_ahead()?;
        }
        Ok(ahead)
    }

    /// Copies all there is, and then, if that took long, what changed while it went on.
    fn go_ahead(&mut self) -> Result<()> {
        let begin = Instant::now();
        self.0.pass(Manner::Ahead)?;
        // In a short time little can have changed, and looking for it costs another writing out of the filesystem.
        if begin.elapsed() > SHORT {
            self.0.pass(Manner::Ahead)?;
        }
        Ok(())
    }

    /// Copies what changed since. It is the state of one moment if nobody writes now.
    pub(crate) fn catch_up(&mut self) -> Result<()> {
        self.0.pass(Manner::Last)
    }

    /// Keeps in the directory beside the copy what was copied when, for a later one, if blocks cannot be shared.
    pub(crate) fn remember(&self, beside: &HostDir) -> Result<()> {
        let large = lock(&self.0.known).large();
        if large.is_empty() || self.0.reflinks.load(Ordering::Relaxed) {
            return Ok(());
        }
        earlier::write(beside, &large).map_err(begun)
    }

    /// Removes what was only needed for the copying. Nothing is synced.
    pub(crate) fn clean(self) -> Result<()> {
        self.0.clean()
    }
}

/// Copies of single files, of which some may be one file with several names.
#[derive(Debug)]
pub(crate) struct Files {
    aside: Aside,
    copied: HashSet<Inode>,
    reflinks: AtomicBool,
}

impl Files {
    /// `root` is the root of the tree they are copied into.
    pub(crate) fn new(root: BorrowedFd<'_>) -> io::Result<Files> {
        Ok(Files { aside: Aside::new(root)?, copied: HashSet::new(), reflinks: AtomicBool::new(true) })
    }

    /// Copies what is not a directory to the same name in another one.
    pub(crate) fn copy(&mut self, from: &OwnedFd, name: &CStr, to: &OwnedFd) -> io::Result<()> {
        let stat = look(from, name)?;
        let inode = Inode::of(&stat);
        if self.copied.contains(&inode) && self.aside.link(inode, to, name)? {
            return Ok(());
        }
        if let Some(made) = content::make(to, name, from, &stat)? {
            let file = content::open(from, name)?;
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            content::copy(&file, &made, size, &self.reflinks)?;
            carry(&file, &made, &stat, Role::Upper)?;
            rfs::futimens(&made, &times(&stat))?;
        }
        if stat.st_nlink > 1 {
            self.aside.keep(to, name, inode)?;
            self.copied.insert(inode);
        }
        Ok(())
    }

    /// Takes away what was only needed for the copying.
    pub(crate) fn end(self) -> io::Result<()> {
        self.aside.remove()
    }
}

/// Which file a name is of. Each subvolume of btrfs numbers its own, and is a device of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    fn of(stat: &Stat) -> Inode {
        Inode { device: stat.st_dev, number: stat.st_ino }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// The tree stands still, and is copied once.
    Once,
    /// The tree is in use. What cannot be copied now will be later.
    Ahead,
    /// The tree was copied ahead. If somebody goes on writing in it all the same, what is gone by now is not copied.
    Last,
}

#[derive(Debug)]
struct Work {
    /// Directories still to be copied.
    open: Vec<Arc<Place>>,
    /// Threads at work, who may still find more.
    busy: usize,
    failed: Option<Error>,
}

#[derive(Debug)]
struct Copy {
    from: OwnedFd,
    to: OwnedFd,
    role: Role,
    manner: Manner,
    /// Whether a pass was made before.
    again: bool,
    work: Mutex<Work>,
    changed: Condvar,
    known: Mutex<Known>,
    /// Files with several names that were copied in this pass.
    renewed: Mutex<HashSet<Inode>>,
    aside: Aside,
    earlier: Option<Earlier>,
    root_times: Mutex<Option<Timestamps>>,
    /// Whether the filesystem can share blocks, as far as is known.
    reflinks: AtomicBool,
}

/// What became of one name.
enum Outcome {
    Kept,
    Made,
    Dir(Arc<Place>, bool),
}

/// A directory on both sides.
struct Pair<'a> {
    place: &'a Arc<Place>,
    from: OwnedFd,
    to: OwnedFd,
    /// Whether its names are the same, for the same files, as when it was copied.
    same: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begun(source: io::Error) -> Error {
    Error::Copy { path: String::new(), source }
}

fn failed(place: &Place, name: Option<&CStr>, source: io::Error) -> Error {
    let name = name.map(CStr::to_string_lossy).unwrap_or_default();
    Error::Copy { path: format!("{}/{name}", place.path()).trim_matches('/').to_owned(), source }
}

/// The names in a directory.
fn names(dir: impl AsFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in rfs::Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn look(dir: impl AsFd, name: &CStr) -> io::Result<Stat> {
    Ok(rfs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Whether an error is the host's, and would come again.
fn is_lasting(error: &io::Error) -> bool {
    const LASTING: [Errno; 7] =
        [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ROFS];
    LASTING.iter().any(|lasting| error.raw_os_error() == Some(lasting.raw_os_error()))
}

/// Whether an error is that of a file that is gone, or is another one by now.
fn is_passing(error: &io::Error) -> bool {
    const PASSING: [Errno; 6] =
        [Errno::NOENT, Errno::STALE, Errno::NOTDIR, Errno::LOOP, Errno::ISDIR, Errno::NXIO];
    PASSING.iter().any(|passing| error.raw_os_error() == Some(passing.raw_os_error()))
}

impl Copy {
    fn new(
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        role: Role,
        earlier: Option<Earlier>,
    ) -> io::Result<Copy> {
        Ok(Copy {
            earlier,
            from: from.try_clone_to_owned()?,
            to: to.try_clone_to_owned()?,
            role,
            manner: Manner::Once,
            again: false,
            work: Mutex::new(Work { open: Vec::new(), busy: 0, failed: None }),
            changed: Condvar::new(),
            known: Mutex::default(),
            renewed: Mutex::default(),
            aside: Aside::new(to)?,
            root_times: Mutex::new(None),
            reflinks: AtomicBool::new(true),
        })
    }

    fn pass(&mut self, manner: Manner) -> Result<()> {
        self.manner = manner;
        lock(&self.renewed).clear();
        if manner == Manner::Ahead {
            lock(&self.known).begin(&self.from).map_err(begun)?;
        }
        let root = Place::root(self.from.as_fd(), self.to.as_fd()).map_err(begun)?;
        lock(&self.work).open.push(root);
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // Where the host gives no more threads, those that there are do it.
                let labour = || self.labour();
                let _ = std::thread::Builder::new().name("copy".to_owned()).spawn_scoped(scope, labour);
            }
            self.labour();
        });
        let mut work = lock(&self.work);
        for left in work.open.drain(..) {
            // After a failure: their times do not matter, but they must not fall all at once.
            let _ = release(left);
        }
        let failed = work.failed.take();
        drop(work);
        self.again = true;
        failed.map_or(Ok(()), Err)
    }

    /// Takes away what was only needed for the copying, and sets the root's times after that.
    fn clean(self) -> Result<()> {
        self.aside.remove().map_err(begun)?;
        if let Some(times) = lock(&self.root_times).take() {
            rfs::futimens(&self.to, &times).map_err(|e| begun(e.into()))?;
        }
        Ok(())
    }

    fn labour(&self) {
        let mut work = lock(&self.work);
        loop {
            if work.failed.is_some() {
                break;
            }
            let Some(place) = work.open.pop() else {
                if work.busy == 0 {
                    break;
                }
                work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            work.busy += 1;
            drop(work);
            let outcome = self.directory(&place);
            work = lock(&self.work);
            match outcome {
                Ok(found) => work.open.extend(found),
                Err(error) => work.failed = work.failed.take().or(Some(error)),
            }
            drop(work);
            // Only now: what was found below keeps it.
            let released = release(place);
            work = lock(&self.work);
            work.busy -= 1;
            if let Err(source) = released
                && !self.forgives(&source)
            {
                work.failed = work.failed.take().or(Some(begun(source)));
            }
            self.changed.notify_all();
        }
        self.changed.notify_all();
    }

    /// Whether a failure is to be expected of a tree in use: the last pass does it again.
    fn forgives(&self, error: &io::Error) -> bool {
        match self.manner {
            Manner::Once => false,
            Manner::Ahead => !is_lasting(error),
            Manner::Last => is_passing(error),
        }
    }

    /// Copies one directory and its files; gives back the directories in it, which are made by then.
    fn directory(&self, place: &Arc<Place>) -> Result<Vec<Arc<Place>>> {
        let mut found = Vec::new();
        match self.fill_directory(place, &mut found) {
            Err(Error::Copy { source, .. }) if self.forgives(&source) => Ok(found),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    fn fill_directory(&self, place: &Arc<Place>, found: &mut Vec<Arc<Place>>) -> Result<()> {
        let own = |source| failed(place, None, source);
        let (from, to) = place.open().map_err(own)?;
        let stat = rfs::fstat(&from).map_err(|e| own(e.into()))?;
        let copy = rfs::fstat(&to).map_err(|e| own(e.into()))?.st_ino;
        let tracked = self.manner != Manner::Once;
        if tracked && !place.is_root() && lock(&self.known).copy_of(Inode::of(&stat)) != Some(copy) {
            // Another directory has its name by now.
            return Err(own(Errno::STALE.into()));
        }
        let same = self.again && lock(&self.known).unchanged(&stat) == Some(copy);
        let mut left: HashSet<CString> = match self.again && !same {
            true => names(&to).map_err(own)?.into_iter().collect(),
            false => HashSet::new(),
        };
        let pair = Pair { place, from, to, same };
        let mut touched = !same;
        for name in names(&pair.from).map_err(own)? {
            let there = same && self.again || left.remove(&name);
            match self.entry(&pair, &name, there) {
                Ok(Outcome::Kept) => {}
                Ok(Outcome::Made) => touched = true,
                Ok(Outcome::Dir(child, made)) => {
                    touched |= made;
                    found.push(child);
                }
                Err(source) if self.forgives(&source) => {
                    touched = true;
                    self.aside.discard(&pair.to, &name).map_err(|e| failed(place, Some(&name), e))?;
                }
                Err(source) => return Err(failed(place, Some(&name), source)),
            }
        }
        for name in left.iter().filter(|name| !(place.is_root() && self.aside.is(name))) {
            self.aside.discard(&pair.to, name).map_err(|e| failed(place, Some(name), e))?;
        }
        if !same {
            if self.again {
                strip(&pair.from, &pair.to).map_err(own)?;
            }
            carry(&pair.from, &pair.to, &stat, self.role).map_err(own)?;
            if tracked {
                lock(&self.known).note(&stat, copy);
            }
        }
        if place.is_root() {
            *lock(&self.root_times) = Some(times(&stat));
        } else if touched {
            let _ = place.times.set(times(&stat));
        }
        Ok(())
    }

    /// Copies one name, which may be `there` from an earlier pass. A directory is only made.
    fn entry(&self, pair: &Pair<'_>, name: &CStr, there: bool) -> io::Result<Outcome> {
        let stat = look(&pair.from, name)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.child(pair, name, &stat, there);
        }
        if stat.st_nlink > 1 {
            return self.linked(pair, name, &stat, there);
        }
        if there {
            let unchanged = lock(&self.known).unchanged(&stat);
            if let Some(copy) = unchanged
                && (pair.same || self.copied_to(pair, name)? == Some(copy))
            {
                return Ok(Outcome::Kept);
            }
            self.aside.discard(&pair.to, name)?;
        }
        if let Some(earlier) = &self.earlier
            && let Some(path) = pair.place.whole_path()
            && let Some(copy) = earlier.link(&stat, &path, &pair.to, name)
        {
            lock(&self.known).note(&stat, copy);
            return Ok(Outcome::Made);
        }
        let made = content::make(&pair.to, name, &pair.from, &stat)?;
        self.fill(pair, name, &stat, made)?;
        Ok(Outcome::Made)
    }

    /// The inode that has a name in the copy.
    fn copied_to(&self, pair: &Pair<'_>, name: &CStr) -> io::Result<Option<u64>> {
        match look(&pair.to, name) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn child(&self, pair: &Pair<'_>, name: &CStr, stat: &Stat, there: bool) -> io::Result<Outcome> {
        let child = || Place::child(pair.place, name.to_owned());
        if there {
            // The number may have been a file's before.
            let is_dir = |copy: &Stat| FileType::from_raw_mode(copy.st_mode) == FileType::Directory;
            let copy = look(&pair.to, name).ok().filter(is_dir).map(|copy| copy.st_ino);
            if copy.is_some() && copy == lock(&self.known).copy_of(Inode::of(stat)) {
                return Ok(Outcome::Dir(child(), false));
            }
            self.aside.discard(&pair.to, name)?;
        }
        rfs::mkdirat(&pair.to, name, Mode::from_raw_mode(0o700))?;
        if self.manner != Manner::Once {
            let copy = look(&pair.to, name)?.st_ino;
            lock(&self.known).note_made(Inode::of(stat), copy);
        }
        Ok(Outcome::Dir(child(), true))
    }

    /// Copies a file with several names, or gives its copy another one.
    fn linked(&self, pair: &Pair<'_>, name: &CStr, stat: &Stat, there: bool) -> io::Result<Outcome> {
        // The lock is held until the name is there, so that whoever finds it can link to it.
        let (inode, mut renewed) = (Inode::of(stat), lock(&self.renewed));
        let right = renewed.contains(&inode) || (self.again && lock(&self.known).unchanged(stat).is_some());
        if right {
            let copy = self.aside.first(inode)?;
            if there {
                if self.copied_to(pair, name)? == Some(copy) {
                    return Ok(Outcome::Kept);
                }
                self.aside.discard(&pair.to, name)?;
            }
            if self.aside.link(inode, &pair.to, name)? {
                return Ok(Outcome::Made);
            }
        } else if there {
            self.aside.discard(&pair.to, name)?;
        }
        let made = content::make(&pair.to, name, &pair.from, stat)?;
        self.aside.keep(&pair.to, name, inode)?;
        renewed.insert(inode);
        drop(renewed);
        self.fill(pair, name, stat, made).inspect_err(|_| {
            // Whoever linked to it meanwhile is found not to be known in the next pass.
            lock(&self.renewed).remove(&inode);
        })?;
        Ok(Outcome::Made)
    }

    /// Gives a regular file its content and attributes; the others have theirs by now.
    fn fill(&self, pair: &Pair<'_>, name: &CStr, stat: &Stat, made: Option<OwnedFd>) -> io::Result<()> {
        let Some(to) = made else {
            if self.manner != Manner::Once {
                let copy = look(&pair.to, name)?.st_ino;
                lock(&self.known).note(stat, copy);
            }
            return Ok(());
        };
        let from = content::open(&pair.from, name)?;
        // Of what was opened, and before it is read.
        let stat = rfs::fstat(&from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::STALE.into());
        }
        if stat.st_size > 0 {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            content::copy(&from, &to, size, &self.reflinks)?;
        }
        carry(&from, &to, &stat, self.role)?;
        rfs::futimens(&to, &times(&stat))?;
        if self.manner != Manner::Once {
            let copy = rfs::fstat(&to)?.st_ino;
            lock(&self.known).note(&stat, copy);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "copy/tests.rs"]
mod tests;
