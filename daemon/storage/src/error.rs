//! What can go wrong with pools and volumes.

use std::io;
use std::path::PathBuf;

/// The result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it is, for those who answer requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such thing.
    NotFound,
    /// There is one already, or it is still used.
    Conflict,
    /// What was asked for makes no sense.
    Invalid,
    /// The host or its filesystem lacks something.
    Unsupported,
    /// What lies behind a pool is not there now.
    Unavailable,
    /// Anything else.
    Internal,
}

/// A failure of this crate, named for what was being done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a name for a pool, volume or image.
    #[error("`{name}` is not a name: letters, digits, `-`, `_` and `.`, at most 200, no `-` or `.` in front")]
    Name {
        /// What was given, shortened.
        name: String,
    },
    /// Not a name for a snapshot.
    #[error(
        "`{name}` is not a snapshot name: letters, digits and `-_.:+@=,~`, at most 200, no `-` or `.` in front"
    )]
    SnapshotName {
        /// What was given, shortened.
        name: String,
    },
    /// No pool of that name is open.
    #[error("there is no storage pool `{pool}`")]
    NoPool {
        /// The pool.
        pool: String,
    },
    /// There is a pool of that name, or of another daemon, already.
    #[error("there is a storage pool in `{path}` already")]
    PoolExists {
        /// Where.
        path: PathBuf,
    },
    /// The directory behind a pool is missing or is not the pool's.
    #[error("storage pool `{pool}` is unavailable: `{path}` is missing, not mounted, or holds no pool")]
    Unavailable {
        /// The pool.
        pool: String,
        /// Its directory.
        path: PathBuf,
    },
    /// The pool on disk was made by another driver.
    #[error("storage pool `{pool}` is of driver `{found}`, not `{wanted}`")]
    WrongDriver {
        /// The pool.
        pool: String,
        /// What its mark says.
        found: String,
        /// What was expected.
        wanted: &'static str,
    },
    /// A pool's directory that is given must be absolute and empty.
    #[error("`{path}` cannot become a storage pool: {why}")]
    Source {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The filesystem cannot carry this driver.
    #[error("`{path}` lies on a filesystem that cannot carry driver `{driver}`: {why}")]
    Filesystem {
        /// The directory.
        path: PathBuf,
        /// The driver.
        driver: &'static str,
        /// What it lacks.
        why: &'static str,
    },
    /// A pool with volumes in it cannot be deleted.
    #[error("storage pool `{pool}` still holds volume `{volume}`")]
    PoolInUse {
        /// The pool.
        pool: String,
        /// One of its volumes.
        volume: String,
    },
    /// There is no such volume.
    #[error("there is no volume `{volume}` in storage pool `{pool}`")]
    NoVolume {
        /// The pool.
        pool: String,
        /// The volume.
        volume: String,
    },
    /// There is such a volume already.
    #[error("there is a volume `{volume}` in storage pool `{pool}` already")]
    VolumeExists {
        /// The pool.
        pool: String,
        /// The volume.
        volume: String,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot `{snapshot}` of volume `{volume}` in storage pool `{pool}`")]
    NoSnapshot {
        /// The pool.
        pool: String,
        /// The volume.
        volume: String,
        /// The snapshot.
        snapshot: String,
    },
    /// There is such a snapshot already.
    #[error("there is a snapshot `{snapshot}` of volume `{volume}` in storage pool `{pool}` already")]
    SnapshotExists {
        /// The pool.
        pool: String,
        /// The volume.
        volume: String,
        /// The snapshot.
        snapshot: String,
    },
    /// There is no such image in the pool.
    #[error("there is no image `{image}` in storage pool `{pool}`")]
    NoImage {
        /// The pool.
        pool: String,
        /// The image.
        image: String,
    },
    /// There is such an image in the pool already, or it is being made.
    #[error("there is an image `{image}` in storage pool `{pool}` already")]
    ImageExists {
        /// The pool.
        pool: String,
        /// The image.
        image: String,
    },
    /// Something about a pool as a whole failed.
    #[error("cannot {act} storage pool `{pool}`")]
    Pool {
        /// What was being done.
        act: &'static str,
        /// The pool.
        pool: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something about a volume failed.
    #[error("cannot {act} volume `{volume}` of storage pool `{pool}`")]
    Volume {
        /// What was being done.
        act: &'static str,
        /// The pool.
        pool: String,
        /// The volume.
        volume: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something about an unpacked image failed.
    #[error("cannot {act} image `{image}` of storage pool `{pool}`")]
    Image {
        /// What was being done.
        act: &'static str,
        /// The pool.
        pool: String,
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something about a frozen layer failed.
    #[error("cannot {act} layer `{layer}` of storage pool `{pool}`")]
    Layer {
        /// What was being done.
        act: &'static str,
        /// The pool.
        pool: String,
        /// The layer, or what is to become one.
        layer: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something about the disk of a pool failed.
    #[error("cannot {act} the disk `{path}`")]
    Disk {
        /// What was being done.
        act: &'static str,
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk of a pool cannot have that size.
    #[error("the disk of a storage pool cannot have {size} bytes: {least} are the least")]
    DiskSize {
        /// What was asked for, in bytes.
        size: u64,
        /// The least it can have, in bytes.
        least: u64,
    },
    /// Volumes of the pool can have no limit.
    #[error("storage pool `{pool}` keeps no limits: {why}")]
    NoLimits {
        /// The pool.
        pool: String,
        /// Why, and what does.
        why: &'static str,
    },
    /// This volume of the pool can have no limit.
    #[error("volume `{volume}` of storage pool `{pool}` can have no limit: {why}")]
    Uncounted {
        /// The pool.
        pool: String,
        /// The volume.
        volume: String,
        /// Why, and what to do.
        why: &'static str,
    },
    /// A stream holds one subvolume, and there are more.
    #[error(
        "{what} of storage pool `{pool}` holds subvolumes of its own, which its stream would leave out; a plain backup (without `--optimized-storage`) has them"
    )]
    Nested {
        /// The pool.
        pool: String,
        /// The volume or snapshot.
        what: String,
    },
    /// A file of a tree could not be copied.
    #[error("cannot copy `{path}`")]
    Copy {
        /// Its path in the tree.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A step was made to fail on purpose.
    #[error(transparent)]
    Injected(#[from] cabin_undo::Injected),
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Error::Name { .. }
            | Error::SnapshotName { .. }
            | Error::Source { .. }
            | Error::DiskSize { .. } => Kind::Invalid,
            Error::NoPool { .. }
            | Error::NoVolume { .. }
            | Error::NoSnapshot { .. }
            | Error::NoImage { .. } => Kind::NotFound,
            Error::PoolExists { .. }
            | Error::PoolInUse { .. }
            | Error::VolumeExists { .. }
            | Error::SnapshotExists { .. }
            | Error::WrongDriver { .. }
            | Error::ImageExists { .. } => Kind::Conflict,
            Error::Unavailable { .. } => Kind::Unavailable,
            Error::Filesystem { .. }
            | Error::NoLimits { .. }
            | Error::Uncounted { .. }
            | Error::Nested { .. } => Kind::Unsupported,
            _ => Kind::Internal,
        }
    }
}
