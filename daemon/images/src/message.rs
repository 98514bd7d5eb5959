//! What the daemon and the unpacking process say to each other (postcard over a sequenced-packet socket).
//!
//! One [`Job`] goes in with its descriptors; [`Answer`]s come back until `Done`, `Failed` or the end.

use serde::{Deserialize, Serialize};

/// A run of host ids that stands for `0..size` on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first host id.
    pub base: u32,
    /// How many ids.
    pub size: u32,
}

/// What an image may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The most bytes that may come out of the decompressor, and the largest single file.
    pub expanded: u64,
    /// The most files.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { expanded: 64 << 30, entries: 10_000_000 }
    }
}

/// What the unpacking process is to do. The descriptors that come along: the metadata file (or unified
/// tarball), then the rootfs file if there is one, then for [`Task::Unpack`] the target directory. A
/// backup's trees have theirs in messages of their own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub task: Task,
    pub split: bool,
    pub ids: IdRange,
    pub limits: Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Task {
    /// What an image says about itself.
    Inspect,
    /// The root filesystem of an image.
    Unpack,
    /// The index of a backup, from a file with the beginning of it.
    Index,
    /// The trees of a backup, from a stream. Messages with so many places and their directories follow.
    Restore { places: u32 },
    /// The same for a backup in the own form of btrfs.
    Receive { places: u32 },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Bytes of input read so far, and in all.
    Progress { done: u64, total: u64 },
    /// A piece of the metadata (postcard), in order.
    Piece(Vec<u8>),
    /// The subvolume of a place is needed, from that of another one if one is named. A message says that it is there.
    Make { place: u32, from: Option<u32> },
    /// The end of a successful job.
    Done(UnpackReport),
    /// The end of a failed one: whether the image is at fault, the chain of reasons, and the system's number (errno(3))
    /// of the last when that is what it was.
    Failed { invalid: bool, chain: Vec<String>, number: Option<i32> },
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackReport {
    /// Files, directories and links made.
    pub entries: u64,
    /// Bytes written into files.
    pub bytes: u64,
    /// Device nodes and sockets left out.
    pub devices_skipped: u64,
    /// Extended attributes left out: those an image has no say in, and those the filesystem cannot keep.
    pub xattrs_skipped: u64,
    /// Members outside `rootfs/` that were passed over.
    pub ignored: u64,
}

impl UnpackReport {
    pub(crate) fn add(&mut self, other: &UnpackReport) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.devices_skipped += other.devices_skipped;
        self.xattrs_skipped += other.xattrs_skipped;
        self.ignored += other.ignored;
    }
}
