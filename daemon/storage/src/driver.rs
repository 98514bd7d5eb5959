//! What differs between drivers: how a volume comes from an image, and where its files then are.
//!
//! Names, staging, renames, removal and syncing are the same for all and belong to the pool. A driver only
//! ever sees one open directory at a time: the new volume's, which nobody else can see yet, or an existing one.

use std::io;
use std::path::{Path, PathBuf};

use cabin_sys::dir::HostDir;

use crate::copy::Ahead;
use crate::error::Result;
use crate::{quota, usage};

mod btrfs;
mod dir;
mod overlay;

pub(crate) use btrfs::Btrfs;
pub(crate) use dir::Dir;
pub(crate) use overlay::Overlay;

/// Which driver a pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverKind {
    /// Images are shared layers; a volume holds only what differs.
    Overlay,
    /// A volume is a whole tree.
    Dir,
    /// A volume is a subvolume of btrfs, and shares what is the same with others.
    Btrfs,
}

/// Every driver.
const ALL: [DriverKind; 3] = [DriverKind::Overlay, DriverKind::Dir, DriverKind::Btrfs];

impl DriverKind {
    /// The name users give.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DriverKind::Overlay => "overlay",
            DriverKind::Dir => "dir",
            DriverKind::Btrfs => "btrfs",
        }
    }

    /// The driver of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<DriverKind> {
        ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(crate) fn driver(self) -> &'static dyn Driver {
        match self {
            DriverKind::Overlay => &Overlay,
            DriverKind::Dir => &Dir,
            DriverKind::Btrfs => &Btrfs,
        }
    }
}

/// Where the files of a volume are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layers {
    /// To be mounted as an overlay.
    Overlay {
        /// Shared read-only trees, topmost first.
        lowers: Vec<PathBuf>,
        /// The directory that holds the writable layer `u` and the work directory `w`.
        state: PathBuf,
    },
    /// A plain directory.
    Dir {
        /// The tree.
        path: PathBuf,
    },
}

/// The directory in a volume or image that holds its tree, and where scripts look for it.
pub(crate) const ROOTFS: &str = "rootfs";

/// The link in a volume that says which restoring brought its tree.
pub(crate) const RESTORED: &str = "restored";

/// The link in a volume that names the image it was made from: it outlives any database.
pub(crate) const IMAGE: &str = "image";

/// The link in a volume to the name of the layer it stands on.
pub(crate) const BELOW: &str = "below";

/// What a copy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Somebody will write in it.
    Volume,
    /// It is kept as it is.
    Snapshot,
}

/// One way of keeping volumes: open directories in, a filled new one out. A snapshot has the form of a volume.
pub(crate) trait Driver: Send + Sync {
    /// Whether `source` lies on a filesystem that can carry this driver; why not, if not.
    fn fits(&self, source: &HostDir) -> io::Result<Option<&'static str>>;

    /// Fills the new directory `volume` from the tree of an image.
    fn create_from_image(&self, image: &HostDir, volume: &HostDir) -> Result<()>;

    /// Fills the new directory `volume` so that it holds an empty tree.
    fn create_empty(&self, volume: &HostDir) -> io::Result<()> {
        let tree = volume.create_dir(ROOTFS, 0o755)?;
        quota::claim(&[&tree])?;
        tree.sync()
    }

    /// Fills the new directory `volume` so that it holds an empty tree for somebody else to fill, and gives that.
    fn create_to_fill(&self, volume: &HostDir) -> io::Result<HostDir> {
        self.create_empty(volume)?;
        volume.open_dir(ROOTFS)
    }

    /// Fills the new directory `to` with what the volume or snapshot in `from` holds. Nothing is synced.
    fn copy(&self, from: &HostDir, to: &HostDir, purpose: Purpose) -> Result<()>;

    /// Makes the empty tree of an image (root's, 0755) in its new directory.
    fn create_image(&self, image: &HostDir) -> io::Result<HostDir> {
        image.create_dir(ROOTFS, 0o755)
    }

    /// Bytes a volume, snapshot or layer takes beyond what it shares.
    fn used(&self, volume: &HostDir) -> io::Result<u64> {
        let tree = volume.open_dir(self.own(volume)?)?;
        match quota::used(&tree)? {
            Some(bytes) => Ok(bytes),
            None => usage::bytes(tree),
        }
    }

    /// As [`Driver::copy`], while somebody is writing in `from`; what changes until it stands still is copied then.
    /// `None` when a copy of all takes no time, and is made when it stands still. What the `earlier` snapshot of the same
    /// volume has may be shared with it.
    fn copy_ahead(
        &self,
        _from: &HostDir,
        _to: &HostDir,
        _purpose: Purpose,
        _earlier: Option<&HostDir>,
    ) -> Result<Option<Ahead>> {
        Ok(None)
    }

    /// Whether a copy that takes no time is of one moment, though somebody may be writing in `from`.
    fn is_of_one_moment(&self, _from: &HostDir) -> bool {
        false
    }

    /// Why volumes of the pool at `root` can have no limit; `None` when they can.
    fn lacks_limits(&self, root: &HostDir) -> Option<&'static str> {
        quota::lacks(root)
    }

    /// Sets how many bytes a volume may hold, or lifts that. `Unsupported` for one that can have no limit, though
    /// others of its pool can.
    fn limit(&self, volume: &HostDir, bytes: Option<u64>) -> io::Result<()> {
        quota::limit(&volume.open_dir(self.own(volume)?)?, bytes)
    }

    /// The most bytes a volume may hold, if that is limited.
    fn limit_of(&self, volume: &HostDir) -> io::Result<Option<u64>> {
        quota::limit_of(&volume.open_dir(self.own(volume)?)?)
    }

    /// Lifts the limit of a volume, snapshot or layer that is going to be removed, so that the filesystem remembers
    /// nothing of it afterwards. It may be half made or half removed.
    fn forget(&self, volume: &HostDir) -> io::Result<()> {
        match self.limit(volume, None) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes what the filesystem remembers of volumes that are gone. `root` is a filesystem of the pool's own.
    fn sweep(&self, _root: &HostDir) -> io::Result<()> {
        Ok(())
    }

    /// Whether a copy is on disk as soon as it is made, with all that was made before it.
    fn lands(&self) -> bool {
        false
    }

    /// Whether volumes go on needing the image they were made from.
    fn stands_on_image(&self) -> bool;

    /// Whether what this volume holds can become a layer that others stand on.
    fn shares(&self, _volume: &HostDir) -> io::Result<bool> {
        Ok(false)
    }

    /// Whether a volume that stands on layers has nothing of its own.
    fn is_bare(&self, _volume: &HostDir) -> io::Result<bool> {
        Ok(false)
    }

    /// Fills the new directory `to` so that it has nothing of its own, and will stand on what `from` stands on.
    /// What was made is on disk.
    fn branch(&self, _from: &HostDir, _to: &HostDir) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Where the files of the volume at `state` are; below them lie `trees`, topmost first.
    fn layers(&self, trees: Vec<PathBuf>, state: &Path) -> Layers;

    /// The directory of a volume whose content is its own.
    fn own(&self, volume: &HostDir) -> io::Result<&'static str>;
}
