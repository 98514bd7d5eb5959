//! What of a tree was copied when, so that a later pass copies only what changed since.
//!
//! A file counts as unchanged only if the kernel must have noted any change: it is the same inode, with the same
//! time of change, which lies before everything that was dirty was last written out. From that moment on even
//! a write through a mapping is noted, and before it no clock tick can hide one.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{self as rfs, FileType, Stat};
use rustix::time::{ClockId, clock_gettime};

use super::Inode;
use super::earlier::{Entry, LARGE};

/// Filesystems whose notes of changes are known to be kept so (ext4, xfs, btrfs, f2fs, bcachefs). Of any other,
/// all is copied again.
const TRUSTED: &[i64] = &[0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0xCA45_1A4E];

/// Nanoseconds by which a note may lag behind: the kernel's coarse clock, at the slowest tick there is, twice.
const LAG: i128 = 50_000_000;
/// The same for a filesystem that notes whole seconds only.
const LAG_OF_SECONDS: i128 = 2_000_000_000;

/// A copied file or directory.
#[derive(Debug)]
struct Copied {
    /// When it last changed, if a change from then on would show.
    changed: Option<(i64, u64)>,
    /// The inode of its copy.
    copy: u64,
    /// Whether it is a large regular file with one name.
    large: bool,
}

/// What was copied so far, by inode.
#[derive(Debug, Default)]
pub(super) struct Known {
    copied: HashMap<Inode, Copied>,
    /// Nanoseconds since 1970 before which a change would have been noted.
    since: i128,
}

impl Known {
    /// Begins a pass over a tree in use: writes out what is dirty in its filesystem.
    pub(super) fn begin(&mut self, tree: impl AsFd) -> io::Result<()> {
        let now = clock_gettime(ClockId::Realtime);
        let trusted = TRUSTED.contains(&rfs::fstatfs(&tree)?.f_type);
        self.since =
            if trusted { i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec) } else { 0 };
        Ok(rfs::syncfs(tree)?)
    }

    /// Notes that a file, as `stat` told of it before it was read, was copied into the inode `copy`.
    pub(super) fn note(&mut self, stat: &Stat, copy: u64) {
        let at = i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec);
        let lag = if stat.st_ctime_nsec == 0 { LAG_OF_SECONDS } else { LAG };
        let changed = (at + lag < self.since).then_some((stat.st_ctime, stat.st_ctime_nsec));
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let large = regular && stat.st_nlink == 1 && stat.st_size >= LARGE;
        self.copied.insert(Inode::of(stat), Copied { changed, copy, large });
    }

    /// Notes that a directory was made in the copy, and not filled yet.
    pub(super) fn note_made(&mut self, inode: Inode, copy: u64) {
        self.copied.insert(inode, Copied { changed: None, copy, large: false });
    }

    /// The inode of a file's copy, if there is one and the file did not change since.
    pub(super) fn unchanged(&self, stat: &Stat) -> Option<u64> {
        let copied = self.copied.get(&Inode::of(stat))?;
        (copied.changed == Some((stat.st_ctime, stat.st_ctime_nsec))).then_some(copied.copy)
    }

    /// The large files of which a change would show.
    pub(super) fn large(&self) -> Vec<Entry> {
        let large = self.copied.iter().filter(|(_, copied)| copied.large);
        large
            .filter_map(|(inode, copied)| {
                Some(Entry { inode: inode.number, changed: copied.changed?, copy: copied.copy })
            })
            .collect()
    }

    /// The inode of the copy, if there is one.
    pub(super) fn copy_of(&self, inode: Inode) -> Option<u64> {
        self.copied.get(&inode).map(|copied| copied.copy)
    }
}
