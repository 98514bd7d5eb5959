//! One cgroup directory: its files, its processes, its removal. Every access goes through a directory
//! handle, because a container makes names below its own cgroup as it likes.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cabin_sys::dir::{EntryKind, HostDir};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{self as rfs, AtFlags, Gid, Mode, OFlags, Uid};

use super::Error;

/// Longest content of a file that is read whole. The list of processes of a big container is the longest.
const MAX_CONTENT: u64 = 16 * 1024 * 1024;

/// An open cgroup directory.
#[derive(Debug)]
pub(super) struct Group {
    dir: HostDir,
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Group {
    /// One whose directory was opened elsewhere.
    pub(super) fn of(dir: HostDir) -> Group {
        Group { dir }
    }

    /// Opens `relative` below a hierarchy's mount point; an empty one is the root.
    pub(super) fn open(mount: &Path, relative: &str) -> Result<Group, Error> {
        let fail = |source| Error::Open { path: mount.join(relative), source };
        // There are no links in a hierarchy.
        let path = if relative.is_empty() { mount.to_owned() } else { mount.join(relative) };
        Ok(Group { dir: HostDir::open(&path).map_err(fail)? })
    }

    /// As [`Group::open`], with `None` when there is no such cgroup.
    pub(super) fn find(mount: &Path, relative: &str) -> Result<Option<Group>, Error> {
        match Group::open(mount, relative) {
            Ok(group) => Ok(Some(group)),
            Err(Error::Open { source, .. }) if gone(&source) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes a child that must not exist.
    pub(super) fn create(&self, name: &str) -> Result<Group, Error> {
        let fail = |source| Error::Create { path: self.path().join(name), source };
        Ok(Group { dir: self.dir.create_dir(name, 0o755).map_err(fail)? })
    }

    /// Opens a child, making it when missing.
    pub(super) fn ensure(&self, name: &str) -> Result<Group, Error> {
        let fail = |source| Error::Create { path: self.path().join(name), source };
        Ok(Group { dir: self.dir.ensure_dir(name, 0o755).map_err(fail)? })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path that names this directory through its handle, for code that takes only paths.
    pub(super) fn handle_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.dir.as_fd().as_raw_fd()))
    }

    /// The open directory, for who is to be born into it.
    pub(super) fn handle(&self) -> Result<OwnedFd, Error> {
        let failed = |source| Error::Open { path: self.path().to_owned(), source };
        self.dir.as_fd().try_clone_to_owned().map_err(failed)
    }

    pub(super) fn has(&self, file: &str) -> bool {
        matches!(self.dir.exists(file), Ok(true))
    }

    pub(super) fn open_control(&self, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(rfs::openat(&self.dir, file, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?)
    }

    pub(super) fn read(&self, file: &'static str) -> Result<String, Error> {
        self.read_raw(file).map_err(|source| Error::Read { path: self.path().to_owned(), file, source })
    }

    fn read_raw(&self, file: &str) -> io::Result<String> {
        let fd = self.open_control(file, OFlags::RDONLY)?;
        let mut text = String::new();
        std::fs::File::from(fd).take(MAX_CONTENT).read_to_string(&mut text)?;
        Ok(text)
    }

    /// A number; `max` is the greatest.
    pub(super) fn read_number(&self, file: &'static str) -> Result<u64, Error> {
        let fail = |source| Error::Read { path: self.path().to_owned(), file, source };
        let fd = self.open_control(file, OFlags::RDONLY).map_err(fail)?;
        let text = read_from_start(&fd).map_err(fail)?;
        match text.trim() {
            "max" => Ok(u64::MAX),
            number => number.parse().map_err(|_| fail(io::Error::from(io::ErrorKind::InvalidData))),
        }
    }

    /// A number, or `None` when the kernel does not have the file.
    pub(super) fn read_number_if_there(&self, file: &'static str) -> Result<Option<u64>, Error> {
        match self.read_number(file) {
            Ok(number) => Ok(Some(number)),
            Err(Error::Read { source, .. }) if gone(&source) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The value of `key` in a file of `key value` lines.
    pub(super) fn read_keyed(&self, file: &'static str, key: &str) -> Result<Option<u64>, Error> {
        Ok(keyed(&self.read(file)?, key))
    }

    pub(super) fn write(&self, file: &'static str, value: &str) -> Result<(), Error> {
        self.write_raw(file, value).map_err(|source| Error::Write {
            path: self.path().to_owned(),
            file,
            value: value.to_owned(),
            source,
        })
    }

    fn write_raw(&self, file: &str, value: &str) -> io::Result<()> {
        let fd = self.open_control(file, OFlags::WRONLY)?;
        // One call: the kernel takes each write as a command of its own.
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes()))?;
        if written == value.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
    }

    pub(super) fn attach(&self, pid: u32) -> Result<(), Error> {
        self.write_raw("cgroup.procs", &pid.to_string()).map_err(|source| Error::Attach {
            pid,
            path: self.path().to_owned(),
            source,
        })
    }

    /// Gives the directory and those of `files` that exist to another owner.
    pub(super) fn chown(&self, files: &[String], (uid, gid): (u32, u32)) -> Result<(), Error> {
        let fail = |source| Error::Delegate { path: self.path().to_owned(), uid, source };
        let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        for file in files {
            match rfs::chownat(&self.dir, file.as_str(), owner, group, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(e) => return Err(fail(e.into())),
            }
        }
        rfs::fchown(&self.dir, owner, group).map_err(|e| fail(e.into()))
    }

    /// The names of the children.
    pub(super) fn children(&self) -> Result<Vec<String>, Error> {
        let entries =
            self.dir.list().map_err(|source| Error::Open { path: self.path().to_owned(), source })?;
        Ok(entries.into_iter().filter(|e| e.kind == EntryKind::Dir).map(|e| e.name).collect())
    }

    /// The names of the children, those among them that are no text: inside anybody may give any.
    pub(super) fn all_children(&self) -> Result<Vec<OsString>, Error> {
        let list = || -> io::Result<Vec<OsString>> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let mut names = Vec::new();
            for entry in rfs::Dir::new(rfs::openat(&self.dir, ".", flags, Mode::empty())?)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if entry.file_type() == rfs::FileType::Directory && !matches!(name, b"." | b"..") {
                    names.push(OsStr::from_bytes(name).to_owned());
                }
            }
            Ok(names)
        };
        match list() {
            // One that vanished has none.
            Err(e) if gone(&e) => Ok(Vec::new()),
            other => other.map_err(|source| Error::Open { path: self.path().to_owned(), source }),
        }
    }

    /// Adds this cgroup's own processes.
    pub(super) fn gather(&self, pids: &mut Vec<u32>) -> Result<(), Error> {
        match self.read_raw("cgroup.procs") {
            // A process of another pid namespace reads as 0.
            Ok(text) => {
                pids.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()).filter(|pid| *pid != 0))
            }
            // A threaded cgroup has no list of processes; they are listed by its domain, higher up.
            Err(e) if gone(&e) || e.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {}
            Err(source) => {
                return Err(Error::Read { path: self.path().to_owned(), file: "cgroup.procs", source });
            }
        }
        Ok(())
    }

    pub(super) fn child(&self, name: &str) -> Result<Option<Group>, Error> {
        match self.dir.open_dir(name) {
            Ok(dir) => Ok(Some(Group { dir })),
            Err(e) if gone(&e) => Ok(None),
            Err(source) => Err(Error::Open { path: self.path().join(name), source }),
        }
    }

    /// Removes the child `name` if nothing is in it.
    pub(super) fn remove_if_empty(&self, name: &str) -> Result<(), Error> {
        match rfs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR) {
            Ok(())
            | Err(rustix::io::Errno::NOENT | rustix::io::Errno::BUSY | rustix::io::Errno::NOTEMPTY) => Ok(()),
            Err(e) => Err(Error::Remove { path: self.path().join(name), source: e.into() }),
        }
    }

    /// Waits until `key` of `cgroup.events` is `value`; whether that came before `deadline`. Version 2 only.
    pub(super) fn wait_for_event(&self, key: &str, value: u64, deadline: Instant) -> Result<bool, Error> {
        let file = "cgroup.events";
        let fail = |source: io::Error| Error::Read { path: self.path().to_owned(), file, source };
        let fd = self.open_control(file, OFlags::RDONLY).map_err(fail)?;
        loop {
            // Reading arms the poll that follows: a change in between is reported by it.
            let text = match read_from_start(&fd) {
                Ok(text) => text,
                Err(e) if gone(&e) && (key, value) == ("populated", 0) => return Ok(true),
                Err(e) => return Err(fail(e)),
            };
            if keyed(&text, key) == Some(value) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            poll_event(&fd, left);
        }
    }

    /// Waits for a change of `cgroup.events`, at most `limit`; on version 1, which has no events, `limit`.
    pub(super) fn wait_for_change(&self, limit: Duration) {
        match self.open_control("cgroup.events", OFlags::RDONLY) {
            Ok(fd) if read_from_start(&fd).is_ok() => poll_event(&fd, limit),
            _ => std::thread::sleep(limit),
        }
    }

    /// Who owns the directory.
    pub(super) fn owner(&self) -> Result<(u32, u32), Error> {
        let stat = rfs::fstat(&self.dir)
            .map_err(|e| Error::Open { path: self.path().to_owned(), source: e.into() })?;
        Ok((stat.st_uid, stat.st_gid))
    }
}

fn read_from_start(fd: &OwnedFd) -> io::Result<String> {
    let mut buffer = [0u8; 1024];
    let got = rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut buffer, 0))?;
    Ok(String::from_utf8_lossy(&buffer[..got]).into_owned())
}

fn poll_event(fd: &OwnedFd, limit: Duration) {
    let timeout = rustix::event::Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    // Woken early or by a signal, the caller looks again in any case.
    let _ = rustix::event::poll(&mut [PollFd::new(fd, PollFlags::PRI)], Some(&timeout));
}

/// Whether the error says that the cgroup is not there: ENODEV is what its open files answer once it is gone.
pub(super) fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::keyed;

    #[test]
    fn a_key_is_found_whole() {
        let text = "usage_usec 12\nuser_usec 7\nuser 3\n";
        assert_eq!(keyed(text, "user"), Some(3));
        assert_eq!(keyed(text, "usage_usec"), Some(12));
        assert_eq!(keyed(text, "usage"), None);
    }
}
