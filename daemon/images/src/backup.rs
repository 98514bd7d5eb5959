//! Backups of whole instances, in the form Incus and LXD write: one tarball, `backup/index.yaml` first, then a
//! directory for each snapshot and one for the instance itself.
//!
//! ```text
//! backup/index.yaml                    name, pool, snapshots, and `config` with everything the server knew
//! backup/snapshots/NAME/backup.yaml    the same `config` again, for readers of one directory alone
//! backup/snapshots/NAME/metadata.yaml  as in an image
//! backup/snapshots/NAME/rootfs/…
//! backup/snapshots/NAME/templates/…    as in an image
//! backup/container/…                   likewise
//! ```
//!
//! In the own form of btrfs there is a stream for each subvolume instead, `backup/snapshots/NAME.bin` and
//! `backup/container.bin`, each saying what it has otherwise than the one before, and `backup/optimized_header.yaml` in
//! front of them.
//!
//! The backup of a custom volume has `backup/volume/…` and `backup/volume-snapshots/NAME/…` instead, each the tree itself, or
//! `backup/volume.bin` and `backup/volume-snapshots/NAME.bin`.
//!
//! Here the index is text to be passed on. What it says is checked by who knows what instances are.

use std::io::{self, Write};

use cabin_sys::dir::HostDir;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::Compression;
use crate::metadata::Metadata;
use crate::pack::{Devices, Head, Manner, Packing, TreeSource, Walk, begin, finish, write_metadata};

mod carry;
pub(crate) mod read;
pub(crate) mod received;
pub(crate) mod shift;
mod streams;

pub use shift::ShiftRun;
pub use streams::StreamSource;

/// The longest `index.yaml`, in bytes.
pub(crate) const MAX_INDEX: u64 = 8 * 1024 * 1024;

/// Whose tree something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// The instance's own.
    Container,
    /// That of the snapshot of this name.
    Snapshot(String),
    /// A custom volume's own.
    Volume,
    /// That of the snapshot of this name of a custom volume.
    VolumeSnapshot(String),
}

/// A tree that a backup must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub place: Place,
    pub shift: Vec<ShiftRun>,
}

/// A tree that a backup must hold, and where it is to be made.
#[derive(Debug)]
pub struct RestoreTo {
    /// Whose it is.
    pub place: Place,
    /// The shift of ids to be taken back; empty when the archive has those inside.
    pub shift: Vec<ShiftRun>,
    /// The empty directory for it.
    pub tree: HostDir,
}

impl Place {
    /// Whether the tree lies in its directory itself, with nothing beside it.
    pub(crate) fn is_bare(&self) -> bool {
        matches!(self, Place::Volume | Place::VolumeSnapshot(_))
    }

    fn directory(&self) -> String {
        match self {
            Place::Container => "backup/container".to_owned(),
            Place::Snapshot(name) => format!("backup/snapshots/{name}"),
            Place::Volume => "backup/volume".to_owned(),
            Place::VolumeSnapshot(name) => format!("backup/volume-snapshots/{name}"),
        }
    }
}

/// A backup on its way out.
pub struct BackupWriter<W: Write> {
    tar: Packing<W>,
    made_at: i64,
}

impl<W: Write> BackupWriter<W> {
    /// Begins a backup with its index. `made_at`, in seconds since 1970, is the time of the files that are made up for it.
    ///
    /// # Errors
    /// When `out` takes nothing.
    pub fn new(out: W, compression: Compression, index: &str, made_at: i64) -> Result<BackupWriter<W>> {
        let mut writer = BackupWriter { tar: begin(out, compression)?, made_at };
        writer.file("backup/index.yaml", 0o644, index)?;
        Ok(writer)
    }

    /// Adds one tree: `config` is its `backup.yaml`.
    ///
    /// # Errors
    /// When the tree cannot be read or `out` takes no more.
    pub fn tree(
        &mut self,
        place: &Place,
        config: &str,
        metadata: &Metadata,
        tree: &TreeSource,
    ) -> Result<()> {
        let directory = place.directory();
        let head = Head { mode: 0o100, mtime: (self.made_at, 0), ..Head::default() };
        self.tar.member(format!("{directory}/").as_bytes(), b'5', &head, 0).map_err(sending)?;
        self.file(&format!("{directory}/backup.yaml"), 0o400, config)?;
        write_metadata(&mut self.tar, metadata, &format!("{directory}/"))?;
        let manner = Manner { latest: None, devices: Devices::Written, sparse: true };
        Walk::open(tree, manner)?.write(&mut self.tar, &format!("{directory}/rootfs"))
    }

    /// Adds the tree of a custom volume.
    ///
    /// # Errors
    /// When the tree cannot be read or `out` takes no more.
    pub fn volume(&mut self, place: &Place, tree: &TreeSource) -> Result<()> {
        let manner = Manner { latest: None, devices: Devices::Written, sparse: true };
        Walk::open(tree, manner)?.write(&mut self.tar, &place.directory())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn finish(self) -> Result<()> {
        finish(self.tar)
    }

    fn file(&mut self, path: &str, mode: u32, content: &str) -> Result<()> {
        let head = Head { mode, mtime: (self.made_at, 0), ..Head::default() };
        let tar = &mut self.tar;
        tar.member(path.as_bytes(), b'0', &head, content.len() as u64)
            .and_then(|()| tar.data(content.as_bytes()))
            .and_then(|()| tar.end())
            .map_err(sending)
    }
}

pub(super) fn sending(source: io::Error) -> Error {
    Error::Pack { path: "output".to_owned(), source }
}
