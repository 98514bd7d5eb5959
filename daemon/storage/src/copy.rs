//! Copying a tree: by reflink where the filesystem can, otherwise by several threads, with hard links, holes,
//! extended attributes, devices and times kept.
//!
//! Both trees are reached through open directories only, and no link in them is followed.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::io;
use std::num::NonZero;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    self as rfs, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, SeekFrom, Stat, Timestamps, Uid,
};
use rustix::io::Errno;

use crate::attributes::{Role, carry, times};
use crate::error::{Error, Result};

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The most threads of one copy.
const MAX_THREADS: usize = 4;

/// Copies what is in `from`, and its own attributes, into the empty directory `to`. Nothing is synced.
pub(crate) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>, role: Role) -> Result<()> {
    let copy = Copy {
        from,
        to,
        role,
        work: Mutex::new(Work { open: vec![Vec::new()], busy: 0, failed: None }),
        changed: Condvar::new(),
        linked: Mutex::new(HashMap::new()),
        times: Mutex::new(Vec::new()),
        reflinks: AtomicBool::new(true),
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| copy.labour());
        }
    });
    if let Some(error) = lock(&copy.work).failed.take() {
        return Err(error);
    }
    // Now that nothing changes in a directory any more.
    for (path, times) in lock(&copy.times).drain(..) {
        let set = || -> io::Result<()> { Ok(rfs::futimens(open_dir(to, &path)?, &times)?) };
        set().map_err(|source| failed(&path, source))?;
    }
    Ok(())
}

struct Work {
    /// Directories still to be copied, as paths from the root.
    open: Vec<Vec<u8>>,
    /// Threads at work, who may still find more.
    busy: usize,
    failed: Option<Error>,
}

struct Copy<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    role: Role,
    work: Mutex<Work>,
    changed: Condvar,
    /// The first name of files that have several.
    linked: Mutex<HashMap<(u64, u64), Vec<u8>>>,
    times: Mutex<Vec<(Vec<u8>, Timestamps)>>,
    /// Whether the filesystem can share blocks, as far as is known.
    reflinks: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(path: &[u8], source: io::Error) -> Error {
    Error::Copy { path: String::from_utf8_lossy(path).chars().take(300).collect(), source }
}

fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rfs::openat2(root, OsStr::from_bytes(path), flags, Mode::empty(), BENEATH)?)
}

impl Copy<'_> {
    fn labour(&self) {
        let mut work = lock(&self.work);
        loop {
            if work.failed.is_some() {
                break;
            }
            let Some(path) = work.open.pop() else {
                if work.busy == 0 {
                    break;
                }
                work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            work.busy += 1;
            drop(work);
            let outcome = self.directory(&path);
            work = lock(&self.work);
            work.busy -= 1;
            match outcome {
                Ok(found) => work.open.extend(found),
                Err(error) => work.failed = work.failed.take().or(Some(error)),
            }
            self.changed.notify_all();
        }
        self.changed.notify_all();
    }

    /// Copies one directory and its files; gives back the directories in it, which are made by then.
    fn directory(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let own = |source| failed(path, source);
        let from = open_dir(self.from, path).map_err(own)?;
        let to = open_dir(self.to, path).map_err(own)?;
        let stat = rfs::fstat(&from).map_err(|e| own(e.into()))?;
        carry(&from, &to, &stat, self.role).map_err(own)?;
        lock(&self.times).push((path.to_vec(), times(&stat)));
        let mut found = Vec::new();
        for entry in rfs::Dir::read_from(&from).map_err(|e| own(e.into()))? {
            let entry = entry.map_err(|e| own(e.into()))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let below = match path {
                b"" => name.to_bytes().to_vec(),
                path => [path, b"/", name.to_bytes()].concat(),
            };
            if self.entry(&from, &to, name, &below).map_err(|source| failed(&below, source))? {
                found.push(below);
            }
        }
        Ok(found)
    }

    /// Copies one name; true when it is a directory, which is then only made.
    fn entry(&self, from: &OwnedFd, to: &OwnedFd, name: &CStr, path: &[u8]) -> io::Result<bool> {
        let stat = rfs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            rfs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            return Ok(true);
        }
        // A socket is worth nothing without the process that made it.
        if kind == FileType::Socket {
            return Ok(false);
        }
        if stat.st_nlink > 1 {
            // The lock is held until the name is there, so that whoever finds it can link to it.
            let mut linked = lock(&self.linked);
            if let Some(first) = linked.get(&(stat.st_dev, stat.st_ino)) {
                let (dir, base) = match first.iter().rposition(|b| *b == b'/') {
                    Some(at) => (&first[..at], &first[at + 1..]),
                    None => (&b""[..], first.as_slice()),
                };
                let dir = open_dir(self.to, dir)?;
                rfs::linkat(dir, OsStr::from_bytes(base), to, name, AtFlags::empty())?;
                return Ok(false);
            }
            let made = make(to, name, from, &stat)?;
            linked.insert((stat.st_dev, stat.st_ino), path.to_vec());
            drop(linked);
            self.fill(from, name, &stat, made)?;
        } else {
            let made = make(to, name, from, &stat)?;
            self.fill(from, name, &stat, made)?;
        }
        Ok(false)
    }

    /// Gives a regular file its content and attributes; the others have theirs by now.
    fn fill(&self, dir: &OwnedFd, name: &CStr, stat: &Stat, made: Option<OwnedFd>) -> io::Result<()> {
        let Some(to) = made else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = rfs::openat2(dir, name, flags, Mode::empty(), BENEATH)?;
        if stat.st_size > 0 {
            self.content(&from, &to, u64::try_from(stat.st_size).unwrap_or(0))?;
        }
        carry(&from, &to, stat, self.role)?;
        Ok(rfs::futimens(&to, &times(stat))?)
    }

    fn content(&self, from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
        if self.reflinks.load(Ordering::Relaxed) {
            match rfs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => {
                    self.reflinks.store(false, Ordering::Relaxed);
                }
                Err(e) => return Err(e.into()),
            }
        }
        rfs::ftruncate(to, size)?;
        let mut at = 0;
        while at < size {
            let start = match rfs::seek(from, SeekFrom::Data(at)) {
                Ok(start) => start,
                // Nothing but a hole up to the end.
                Err(Errno::NXIO) => break,
                Err(e) => return Err(e.into()),
            };
            let end = rfs::seek(from, SeekFrom::Hole(start))?.min(size);
            run(from, to, start, end)?;
            at = end;
        }
        Ok(())
    }
}

/// Copies one run of data inside the kernel.
fn run(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> io::Result<()> {
    let (mut source, mut target) = (start, start);
    while source < end {
        let left = usize::try_from(end - source).unwrap_or(usize::MAX).min(1 << 30);
        // The kernel moves both positions on.
        let copied = rustix::io::retry_on_intr(|| {
            rfs::copy_file_range(from, Some(&mut source), to, Some(&mut target), left)
        })?;
        if copied == 0 {
            // It was cut shorter meanwhile; the rest stays a hole.
            break;
        }
    }
    Ok(())
}

/// Makes an empty regular file, or the whole of anything else that is not a directory.
fn make(to: &OwnedFd, name: &CStr, from: &OwnedFd, stat: &Stat) -> io::Result<Option<OwnedFd>> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return Ok(Some(rfs::openat2(to, name, flags, Mode::from_raw_mode(0o600), BENEATH)?));
        }
        FileType::Symlink => {
            let target = rfs::readlinkat(from, name, Vec::new())?;
            rfs::symlinkat(target.as_c_str(), to, name)?;
        }
        kind => {
            rfs::mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
            // The name is new and nobody else's, so this reaches what was just made; the umask cut the mode.
            rfs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
        }
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rfs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rfs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn holes_links_and_times_survive_a_copy() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir_all(a.join("x/y")).unwrap();
        fs::create_dir(&b).unwrap();
        let sparse = fs::File::create(a.join("x/sparse")).unwrap();
        sparse.set_len(10 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 9 << 20).unwrap();
        fs::hard_link(a.join("x/sparse"), a.join("x/y/again")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", a.join("link")).unwrap();
        let (from, to) = (fs::File::open(&a).unwrap(), fs::File::open(&b).unwrap());
        tree(from.as_fd(), to.as_fd(), Role::Whole).unwrap();
        let (old, new) = (a.join("x/sparse").metadata().unwrap(), b.join("x/y/again").metadata().unwrap());
        assert_eq!((new.size(), new.nlink(), new.mtime_nsec()), (old.size(), 2, old.mtime_nsec()));
        assert!(new.blocks() * 512 < 1 << 20);
        assert_eq!(fs::read(a.join("x/sparse")).unwrap(), fs::read(b.join("x/sparse")).unwrap());
        assert_eq!(fs::read_link(b.join("link")).unwrap().to_str(), Some("/etc/passwd"));
        assert_eq!(
            a.join("x").metadata().unwrap().mtime_nsec(),
            b.join("x").metadata().unwrap().mtime_nsec()
        );
    }
}
