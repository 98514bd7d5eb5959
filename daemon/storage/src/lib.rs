//! Storage pools and what lies in them: images unpacked once, volumes made from them or empty.
//!
//! Owns the directories of pools and their durability. What an image file looks like, who mounts a volume,
//! and what a volume means to a user belong to others. On disk, files carry plain ids from 0.

#![forbid(unsafe_code)]

mod attributes;
mod changed;
mod copy;
mod diff;
mod disk;
mod driver;
mod error;
mod kernel_stream;
mod merge;
mod name;
mod pool;
mod quota;
mod receive;
mod stack;
mod storage;
mod usage;

pub use diff::{Change, Depth, Difference, FileKind, Shape};
pub use disk::{DiskSpec, MIN_DISK};
pub use driver::{DriverKind, Layers};
pub use error::{Error, Kind, Result};
pub use name::{VolumeKind, VolumeName, check_snapshot as check_snapshot_name};
pub use pool::{Activity, Destination, ImageGone, Moment, Origin, Pool, Staged, make_coming};
pub use storage::{PoolSpec, Storage};
pub use usage::Resources;
