//! The one handle for host directories that names, images or guests can influence.
//!
//! Paths given to a [`HostDir`] are relative, may not leave it, and never follow a symbolic link
//! (openat2(2) with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`), but with
//! [`HostDir::open_dir_by_links`], where links may not leave it either. What comes back is a descriptor. Only [`HostDir::open`] and [`HostDir::ensure`] take an absolute path, and that one comes
//! from the daemon's own settings, never from a request.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self as rfs, AtFlags, FileType, Mode, OFlags, ResolveFlags};

use crate::btrfs;

mod removal;

/// An open directory of the host, and the path it was opened by (for messages and for programs that take
/// only paths).
#[derive(Debug)]
pub struct HostDir {
    fd: OwnedFd,
    path: PathBuf,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, without a path.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A device, socket or fifo.
    Other,
}

/// Whether directories are not flushed, see [`leave_unsynced`].
static NAMES_UNSYNCED: AtomicBool = AtomicBool::new(false);
/// Whether filesystems are not flushed, see [`leave_unsynced`].
static TREES_UNSYNCED: AtomicBool = AtomicBool::new(false);

/// From now on the names in directories, or whole filesystems, are not sent to disk when they should be: a
/// test of power loss that does not notice is worth nothing.
pub fn leave_unsynced(names: bool, trees: bool) {
    NAMES_UNSYNCED.store(names, Ordering::Relaxed);
    TREES_UNSYNCED.store(trees, Ordering::Relaxed);
}

thread_local! {
    static SYNC_FAILS: Cell<bool> = const { Cell::new(false) };
}

/// The next flush of a directory by this thread fails, as on a disk that breaks: a test looks what is left then.
pub fn fail_next_sync() {
    SYNC_FAILS.set(true);
}

fn sync_names(dir: impl AsFd) -> io::Result<()> {
    if SYNC_FAILS.take() {
        return Err(rustix::io::Errno::IO.into());
    }
    if NAMES_UNSYNCED.load(Ordering::Relaxed) {
        return Ok(());
    }
    // btrfs keeps single directories that are synced in a log beside its trees. After a power cut a log that has
    // exchanged or linked names in it may not fit the trees any more, and then the whole filesystem cannot be
    // mounted (Linux 6.18). A commit leaves no log behind.
    if btrfs::is_btrfs(&dir)? {
        return Ok(rfs::syncfs(dir)?);
    }
    Ok(rfs::fsync(dir)?)
}

const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

impl HostDir {
    /// Opens a directory the daemon's own settings name.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<HostDir> {
        let fd = rfs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(HostDir { fd, path: path.to_owned() })
    }

    /// A directory that was opened elsewhere; `path` is for messages.
    #[must_use]
    pub fn of(fd: OwnedFd, path: PathBuf) -> HostDir {
        HostDir { fd, path }
    }

    /// Opens a directory the daemon's own settings name, making it and its parents when missing.
    /// `mode` is set on the last one even when it was there. What was made is on disk when this returns.
    ///
    /// # Errors
    /// As mkdir(2), open(2), fchmod(2), fsync(2).
    pub fn ensure(path: &Path, mode: u32) -> io::Result<HostDir> {
        let mut built = PathBuf::new();
        for part in path.components() {
            built.push(part);
            match rfs::mkdir(&built, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    if let Some(parent) = built.parent() {
                        HostDir::open(parent)?.sync()?;
                    }
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(rustix::io::Errno::ROFS | rustix::io::Errno::ISDIR) if rfs::stat(&built).is_ok() => {}
                Err(e) => return Err(e.into()),
            }
        }
        let dir = HostDir::open(path)?;
        rfs::fchmod(&dir.fd, Mode::from_raw_mode(mode))?;
        Ok(dir)
    }

    /// The path this handle was opened by. It is for messages and for programs that take only paths.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The filesystem it is on, as statvfs(3) names it: the same after the disk was away, for filesystems that have an
    /// id of their own (ext4, btrfs); that of the block device for XFS.
    ///
    /// # Errors
    /// As fstatvfs(3).
    pub fn filesystem(&self) -> io::Result<u64> {
        Ok(rfs::fstatvfs(&self.fd)?.f_fsid)
    }

    fn at(&self, relative: &str, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
        Ok(rfs::openat2(&self.fd, relative, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode), BENEATH)?)
    }

    /// The directory that holds `relative`, and its last name.
    fn parent<'a>(&self, relative: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let relative = relative.trim_end_matches('/');
        let (dir, name) = relative.rsplit_once('/').unwrap_or((".", relative));
        if name.is_empty() || name == "." || name == ".." {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok((self.at(dir, OFlags::RDONLY | OFlags::DIRECTORY, 0)?, name))
    }

    /// Opens a directory beneath this one.
    ///
    /// # Errors
    /// As openat2(2); ELOOP for a symbolic link, EXDEV for a path that leaves.
    pub fn open_dir(&self, relative: &str) -> io::Result<HostDir> {
        let fd = self.at(relative, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        Ok(HostDir { fd, path: self.path.join(relative) })
    }

    /// Opens a directory beneath this one, through symbolic links that stay beneath it too.
    ///
    /// # Errors
    /// As openat2(2); EXDEV for a path or link that leaves.
    pub fn open_dir_by_links(&self, relative: &str) -> io::Result<HostDir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let fd = rfs::openat2(&self.fd, relative, flags, Mode::empty(), beneath)?;
        Ok(HostDir { fd, path: self.path.join(relative) })
    }

    /// Opens a directory beneath this one, making it (and only it) with `mode` when missing.
    ///
    /// # Errors
    /// As mkdirat(2) and openat2(2).
    pub fn ensure_dir(&self, relative: &str, mode: u32) -> io::Result<HostDir> {
        match self.create_dir(relative, mode) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.open_dir(relative),
            other => other,
        }
    }

    /// Makes a directory that must not exist yet, whatever the umask is.
    ///
    /// # Errors
    /// As mkdirat(2); `AlreadyExists` when there is something of that name.
    pub fn create_dir(&self, relative: &str, mode: u32) -> io::Result<HostDir> {
        let (dir, name) = self.parent(relative)?;
        rfs::mkdirat(&dir, name, Mode::from_raw_mode(mode))?;
        let made = self.open_dir(relative)?;
        rfs::fchmod(&made.fd, Mode::from_raw_mode(mode))?;
        Ok(made)
    }

    /// Opens a file beneath this directory for reading.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn open_file(&self, relative: &str) -> io::Result<File> {
        Ok(File::from(self.at(relative, OFlags::RDONLY | OFlags::NOFOLLOW, 0)?))
    }

    /// Opens a file beneath this directory for reading and writing.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn open_file_writable(&self, relative: &str) -> io::Result<File> {
        Ok(File::from(self.at(relative, OFlags::RDWR | OFlags::NOFOLLOW, 0)?))
    }

    /// Opens a file beneath this directory for appending, making it when missing.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn append_file(&self, relative: &str, mode: u32) -> io::Result<File> {
        Ok(File::from(self.at(relative, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND, mode)?))
    }

    /// Makes a file that must not exist yet and opens it for writing and reading.
    ///
    /// # Errors
    /// As openat2(2); `AlreadyExists`.
    pub fn create_file(&self, relative: &str, mode: u32) -> io::Result<File> {
        Ok(File::from(self.at(relative, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, mode)?))
    }

    /// The whole content of a file, refused when it is longer than `limit` bytes.
    ///
    /// # Errors
    /// As openat2(2) and read(2); `FileTooLarge` beyond the limit.
    pub fn read(&self, relative: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open_file(relative)?.take(limit + 1).read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        Ok(content)
    }

    /// Replaces a file so that a crash leaves the old content or the new one: a temporary file beside it
    /// is written, synced, renamed over it, and the directory synced.
    ///
    /// # Errors
    /// As openat2(2), write(2), fsync(2), renameat(2).
    pub fn replace(&self, relative: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let (dir, name) = self.parent(relative)?;
        let temporary = format!(".{name}.new");
        write_synced(&dir, &temporary, content, mode)?;
        rfs::renameat(&dir, &temporary, &dir, name)?;
        sync_names(&dir)
    }

    /// Replaces a file for everybody who opens it at once, and on disk whenever: a crash of the host may leave the
    /// old content, the new one or none. For files that say what is so now and that are made again.
    ///
    /// # Errors
    /// As openat2(2), write(2), renameat(2).
    pub fn put(&self, relative: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let (dir, name) = self.parent(relative)?;
        let temporary = format!(".{name}.new");
        write_new(&dir, &temporary, content, mode, |_| Ok(()))?;
        Ok(rfs::renameat(&dir, &temporary, &dir, name)?)
    }

    /// Makes a file that must not exist yet so that a crash leaves all of it or nothing. It has the name
    /// `temporary` first, which no two may use at a time; what a crash left of that name is replaced.
    ///
    /// # Errors
    /// As openat2(2), write(2), fsync(2), renameat2(2); `AlreadyExists`.
    pub fn create_whole(&self, relative: &str, temporary: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let (dir, name) = self.parent(relative)?;
        write_synced(&dir, temporary, content, mode)?;
        if let Err(e) = rfs::renameat_with(&dir, temporary, &dir, name, rfs::RenameFlags::NOREPLACE) {
            let _ = rfs::unlinkat(&dir, temporary, AtFlags::empty());
            return Err(e.into());
        }
        sync_names(&dir)
    }

    /// Renames within this directory; both names may have directories in front. An existing target is
    /// refused. The directories are synced; when they cannot be, the old name is back.
    ///
    /// # Errors
    /// As renameat2(2) with `RENAME_NOREPLACE`, fsync(2).
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        rfs::renameat_with(&from_dir, from_name, &to_dir, to_name, rfs::RenameFlags::NOREPLACE)?;
        sync_names(&to_dir).and_then(|()| sync_names(&from_dir)).inspect_err(|_| {
            let _ = rfs::renameat_with(&to_dir, to_name, &from_dir, from_name, rfs::RenameFlags::NOREPLACE);
        })
    }

    /// Renames within this directory over whatever file has the new name. The directory is synced.
    ///
    /// # Errors
    /// As renameat(2).
    pub fn rename_over(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        rfs::renameat(&from_dir, from_name, &to_dir, to_name)?;
        sync_names(&to_dir)
    }

    /// Exchanges two names beneath this directory in one act; both must be there. The directories are synced; when
    /// they cannot be, the names are as before.
    ///
    /// # Errors
    /// As renameat2(2) with `RENAME_EXCHANGE`, fsync(2).
    pub fn exchange(&self, one: &str, other: &str) -> io::Result<()> {
        let (one_dir, one_name) = self.parent(one)?;
        let (other_dir, other_name) = self.parent(other)?;
        let swap =
            || rfs::renameat_with(&one_dir, one_name, &other_dir, other_name, rfs::RenameFlags::EXCHANGE);
        swap()?;
        sync_names(&other_dir).and_then(|()| sync_names(&one_dir)).inspect_err(|_| {
            let _ = swap();
        })
    }

    /// Removes a directory that is empty; false when it is not. One already gone is success.
    ///
    /// # Errors
    /// As unlinkat(2) with `AT_REMOVEDIR`.
    pub fn remove_empty(&self, relative: &str) -> io::Result<bool> {
        let (dir, name) = self.parent(relative)?;
        match rfs::unlinkat(&dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(true),
            Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes a symbolic link named `relative` that says `target`.
    ///
    /// # Errors
    /// As symlinkat(2).
    pub fn symlink(&self, target: &Path, relative: &str) -> io::Result<()> {
        let (dir, name) = self.parent(relative)?;
        Ok(rfs::symlinkat(target, &dir, name)?)
    }

    /// Whether something of that name is there (a dangling link counts). A disk that cannot tell is no "no".
    ///
    /// # Errors
    /// As fstatat(2).
    pub fn exists(&self, relative: &str) -> io::Result<bool> {
        let found = self.parent(relative).and_then(|(dir, name)| {
            rfs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(true)
        });
        match found {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            other => other,
        }
    }

    /// Removes a file or link. One already gone is success.
    ///
    /// # Errors
    /// As unlinkat(2).
    pub fn remove_file(&self, relative: &str) -> io::Result<()> {
        let parent = match self.parent(relative) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        match rfs::unlinkat(&parent.0, parent.1, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes a whole tree, subvolumes with it, without following a link or crossing a mount. One already gone is
    /// success.
    ///
    /// # Errors
    /// As unlinkat(2) and getdents64(2); EXDEV when something is mounted inside.
    pub fn remove_tree(&self, relative: &str) -> io::Result<()> {
        let (dir, name) = match self.parent(relative) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        removal::tree(dir.as_fd(), OsStr::new(name))
    }

    /// What the directory holds, sorted by name; names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// As getdents64(2).
    pub fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        // A handle of its own, so that two listings at once do not share one position.
        let fd =
            rfs::openat(&self.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for entry in rfs::Dir::new(fd)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            entries.push(Entry { name: name.to_owned(), kind: kind(entry.file_type()) });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Flushes the directory itself (its names) to disk.
    ///
    /// # Errors
    /// As fsync(2).
    pub fn sync(&self) -> io::Result<()> {
        sync_names(&self.fd)
    }

    /// Flushes the whole filesystem the directory lies on (syncfs(2)).
    ///
    /// # Errors
    /// As syncfs(2).
    pub fn sync_filesystem(&self) -> io::Result<()> {
        if TREES_UNSYNCED.load(Ordering::Relaxed) {
            return Ok(());
        }
        Ok(rfs::syncfs(&self.fd)?)
    }
}

impl AsFd for HostDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn kind(file_type: FileType) -> EntryKind {
    match file_type {
        FileType::Directory => EntryKind::Dir,
        FileType::RegularFile => EntryKind::File,
        FileType::Symlink => EntryKind::Link,
        _ => EntryKind::Other,
    }
}

/// Writes a new file and flushes its content; one of that name is removed first.
fn write_synced(dir: &OwnedFd, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
    write_new(dir, name, content, mode, File::sync_all)
}

fn write_new(
    dir: &OwnedFd,
    name: &str,
    content: &[u8],
    mode: u32,
    settle: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    match rfs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(rfs::openat(dir, name, flags, Mode::from_raw_mode(mode))?);
    let written = file.write_all(content).and_then(|()| settle(&file));
    if written.is_err() {
        // A full disk is to be no fuller for it. One that cannot be removed goes with the next try.
        let _ = rfs::unlinkat(dir, name, AtFlags::empty());
    }
    written
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> HostDir {
        let path = std::env::temp_dir().join(format!("cabin-dir-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        HostDir::ensure(&path, 0o700).unwrap()
    }

    #[test]
    fn a_path_that_leaves_or_follows_a_link_is_refused() {
        let dir = scratch("leave");
        dir.symlink(Path::new("/etc"), "link").unwrap();
        for bad in ["../x", "/etc/passwd", "link/passwd", "link"] {
            assert!(dir.open_file(bad).is_err(), "{bad}");
        }
        assert!(dir.exists("link/passwd").is_err(), "what cannot be looked at is not missing");
        assert!(dir.create_dir("..", 0o700).is_err());
        dir.remove_tree("link").unwrap();
        assert!(Path::new("/etc/passwd").exists());
        std::fs::remove_dir_all(dir.path()).unwrap();
    }

    #[test]
    fn names_are_as_before_when_they_cannot_be_flushed() {
        let dir = scratch("unflushed");
        dir.replace("one", b"1", 0o600).unwrap();
        dir.replace("other", b"2", 0o600).unwrap();
        fail_next_sync();
        assert!(dir.exchange("one", "other").is_err());
        assert_eq!(dir.read("one", 9).unwrap(), b"1");
        fail_next_sync();
        assert!(dir.rename("one", "new").is_err());
        assert!(dir.exists("one").unwrap() && !dir.exists("new").unwrap());
        dir.exchange("one", "other").unwrap();
        dir.rename("one", "new").unwrap();
        assert_eq!(dir.read("new", 9).unwrap(), b"2");
        std::fs::remove_dir_all(dir.path()).unwrap();
    }

    #[test]
    fn a_tree_is_removed_and_a_missing_one_is_success() {
        let dir = scratch("tree");
        dir.create_dir("a", 0o700).unwrap().create_dir("b", 0o700).unwrap();
        dir.replace("a/b/c", b"x", 0o600).unwrap();
        dir.symlink(Path::new("/"), "a/root").unwrap();
        dir.remove_tree("a").unwrap();
        dir.remove_tree("a").unwrap();
        dir.remove_tree("never/was").unwrap();
        assert!(dir.list().unwrap().is_empty());
        std::fs::remove_dir_all(dir.path()).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_any_path_and_wider_than_is_gathered_is_removed() {
        let dir = scratch("deep");
        let mut at = dir.create_dir("top", 0o700).unwrap();
        at.replace(".deep-1", b"in the way", 0o600).unwrap();
        for number in 0..1000 {
            at.create_file(&format!("wide-{number}"), 0o600).unwrap();
        }
        for _ in 0..5000 {
            at = at.create_dir("d", 0o700).unwrap();
        }
        drop(at);
        dir.remove_tree("top").unwrap();
        assert!(dir.list().unwrap().is_empty());
        std::fs::remove_dir_all(dir.path()).unwrap();
    }

    #[test]
    fn a_whole_file_takes_nobodys_place_and_a_crashed_one_is_no_hindrance() {
        let dir = scratch("whole");
        dir.replace(".new", b"left by a crash", 0o600).unwrap();
        dir.create_whole("f", ".new", b"one", 0o600).unwrap();
        let again = dir.create_whole("f", ".new", b"two", 0o600);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(dir.read("f", 9).unwrap(), b"one");
        assert_eq!(dir.list().unwrap().len(), 1);
        std::fs::remove_dir_all(dir.path()).unwrap();
    }

    #[test]
    fn a_replaced_file_is_read_back_and_a_long_one_is_refused() {
        let dir = scratch("replace");
        dir.replace("f", b"one", 0o600).unwrap();
        dir.replace("f", b"two", 0o600).unwrap();
        assert_eq!(dir.read("f", 3).unwrap(), b"two");
        assert!(dir.read("f", 2).is_err());
        assert!(dir.rename("f", "g").is_ok());
        dir.replace("f", b"", 0o600).unwrap();
        assert!(dir.rename("f", "g").is_err(), "an existing target is refused");
        std::fs::remove_dir_all(dir.path()).unwrap();
    }
}
