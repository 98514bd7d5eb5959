//! What an earlier copy of the same tree has already: large files that did not change since get another name for the
//! copy that is there, where the filesystem cannot share blocks.
//!
//! Neither copy is ever written in. What was copied when is kept beside the earlier copy, and believed as `known` says,
//! and only as long as the host runs: what a power cut leaves of a change need not be what was noted of it.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use cabin_sys::dir::HostDir;
use rustix::fs::{self as rfs, AtFlags, FileType, Stat};

use super::look;
use super::place::open_dir;

/// The file beside a copy that says what was copied when.
const RECORD: &str = "copied";
/// The fewest bytes of a file that is worth it: a guest can see that such a file has several names, and programs that
/// mind look at small ones.
pub(super) const LARGE: i64 = 1 << 20;
/// The most names of one file; ext4 has room for 65000.
const MAX_NAMES: u64 = 50_000;
/// Bytes of the id of a boot.
const BOOT: usize = 36;
/// Bytes of one entry: inode, seconds, nanoseconds, inode of the copy.
const ENTRY: usize = 28;
/// The most entries that are kept.
const MAX_ENTRIES: usize = 100_000;

/// A large file that was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub inode: u64,
    pub changed: (i64, u64),
    pub copy: u64,
}

/// An earlier copy.
#[derive(Debug)]
pub(crate) struct Earlier {
    root: OwnedFd,
    copied: HashMap<u64, Entry>,
}

fn boot() -> io::Result<Vec<u8>> {
    let mut id = std::fs::read("/proc/sys/kernel/random/boot_id")?;
    id.truncate(BOOT);
    Ok(id)
}

impl Earlier {
    /// The copy in the directory `tree` of `volume`, if it is known what was copied into it since the host booted.
    pub(crate) fn open(volume: &HostDir, tree: &str) -> Option<Earlier> {
        let mut bytes = Vec::new();
        volume.open_file(RECORD).ok()?.read_to_end(&mut bytes).ok()?;
        let (id, entries) = bytes.split_at_checked(BOOT)?;
        if id != boot().ok()? {
            return None;
        }
        let word =
            |entry: &[u8], at: usize| entry[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or(0);
        let copied = entries.chunks_exact(ENTRY).map(|entry| {
            let nanoseconds = u32::from_le_bytes([entry[16], entry[17], entry[18], entry[19]]);
            let changed = (word(entry, 8).cast_signed(), u64::from(nanoseconds));
            let inode = word(entry, 0);
            (inode, Entry { inode, changed, copy: word(entry, 20) })
        });
        let copied = copied.collect();
        let root = open_dir(std::os::fd::AsFd::as_fd(volume), tree.as_bytes()).ok()?;
        Some(Earlier { root, copied })
    }

    /// Gives the earlier copy of a large file another name, when it lies at the same path as the file and that did not
    /// change since; the inode of the copy then.
    pub(super) fn link(&self, stat: &Stat, directory: &[u8], to: &OwnedFd, name: &CStr) -> Option<u64> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size < LARGE {
            return None;
        }
        let entry = self.copied.get(&stat.st_ino)?;
        if entry.changed != (stat.st_ctime, stat.st_ctime_nsec) {
            return None;
        }
        let directory = if directory.is_empty() { b"." } else { directory };
        let from = open_dir(std::os::fd::AsFd::as_fd(&self.root), directory).ok()?;
        let copy = look(&from, name).ok()?;
        let same = copy.st_ino == entry.copy && copy.st_size == stat.st_size && copy.st_nlink < MAX_NAMES;
        if !same || FileType::from_raw_mode(copy.st_mode) != FileType::RegularFile {
            return None;
        }
        rfs::linkat(&from, name, to, name, AtFlags::empty()).ok()?;
        Some(entry.copy)
    }
}

/// Keeps beside a copy what was copied when.
pub(super) fn write(volume: &HostDir, entries: &[Entry]) -> io::Result<()> {
    let mut bytes = boot()?;
    for entry in entries.iter().take(MAX_ENTRIES) {
        bytes.extend(entry.inode.to_le_bytes());
        bytes.extend(entry.changed.0.to_le_bytes());
        bytes.extend(u32::try_from(entry.changed.1).unwrap_or(0).to_le_bytes());
        bytes.extend(entry.copy.to_le_bytes());
    }
    volume.create_file(RECORD, 0o600)?.write_all(&bytes)
}

/// When what was copied into a volume was noted, if it was.
pub(crate) fn noted(volume: &HostDir) -> Option<(i64, u64)> {
    let stat = rfs::statat(volume, OsStr::from_bytes(RECORD.as_bytes()), AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some((stat.st_mtime, stat.st_mtime_nsec))
}
