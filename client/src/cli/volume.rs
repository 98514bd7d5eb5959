//! `storage volume`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use super::ListFormat;
use super::instance::Ownership;
use crate::complete;

/// A volume: its pool and its name.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The storage pool
    #[arg(add = ArgValueCompleter::new(complete::pools))]
    pub pool: String,
    /// The volume; `container/NAME` and `image/NAME` are those of instances and images
    #[arg(add = ArgValueCompleter::new(complete::volumes))]
    pub volume: String,
}

/// A file in a volume.
#[derive(Debug, Clone, Args)]
pub struct FilePlace {
    /// The storage pool
    #[arg(add = ArgValueCompleter::new(complete::pools))]
    pub pool: String,
    /// VOLUME/PATH
    #[arg(add = ArgValueCompleter::new(complete::volume_places))]
    pub path: String,
}

/// `storage volume`.
#[derive(Debug, Subcommand)]
pub enum Volume {
    /// Attach a custom volume to an instance, running or not
    Attach {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
        /// The new device's name, then the path inside; one word alone is the path
        #[arg(value_name = "DEVICE PATH", num_args = 1..=2, required = true)]
        device: Vec<String>,
        /// Create the volume if there is none of that name
        #[arg(long)]
        create: bool,
    },
    /// Attach a custom volume to a profile
    AttachProfile {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        profile: String,
        /// The new device's name, then the path inside; one word alone is the path
        #[arg(value_name = "DEVICE PATH", num_args = 1..=2, required = true)]
        device: Vec<String>,
    },
    /// Make a new custom volume from another one or from a snapshot
    #[command(visible_alias = "cp")]
    Copy {
        /// POOL/VOLUME or POOL/VOLUME/SNAPSHOT
        #[arg(add = ArgValueCompleter::new(complete::pools_and_volumes))]
        source: String,
        /// POOL/VOLUME
        #[arg(add = ArgValueCompleter::new(complete::pools_and_volumes))]
        target: String,
        /// Leave the snapshots out
        #[arg(long)]
        volume_only: bool,
        /// Bring a copy that is there up to date
        #[arg(long)]
        refresh: bool,
        /// Bringing it up to date, leave out snapshots older than the newest that both have
        #[arg(long, requires = "refresh")]
        refresh_exclude_older: bool,
    },
    /// Create a custom volume, from YAML when standard input gives some
    Create {
        /// The storage pool
        #[arg(add = ArgValueCompleter::new(complete::pools))]
        pool: String,
        /// The new volume's name
        volume: String,
        /// Config to set
        #[arg(value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::object_pairs))]
        config: Vec<String>,
        /// Words for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// What is in it: filesystem
        #[arg(short = 't', long = "type", default_value = "filesystem", value_name = "TYPE")]
        kind: String,
    },
    /// Delete a custom volume with its snapshots
    #[command(visible_alias = "rm")]
    Delete(Place),
    /// Detach a custom volume from an instance
    Detach {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
        /// The device, when there are several of that volume
        #[arg(add = ArgValueCompleter::new(complete::attached))]
        device: Option<String>,
    },
    /// Detach a custom volume from a profile
    DetachProfile {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        profile: String,
        /// The device, when there are several of that volume
        #[arg(add = ArgValueCompleter::new(complete::attached))]
        device: Option<String>,
    },
    /// Edit a volume (or a snapshot, as VOLUME/SNAPSHOT) as YAML with $EDITOR, or from standard input
    Edit(Place),
    /// Write a custom volume with its snapshots into a file
    Export {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The file, or a directory for it; `-` is standard output
        target: Option<PathBuf>,
        /// Leave the snapshots out
        #[arg(long)]
        volume_only: bool,
        /// none, gzip, bzip2, xz or zstd; when not given as the file's name ends, else zstd
        #[arg(long, value_name = "NAME")]
        compression: Option<String>,
        /// Write streams of btrfs instead of files, from a pool of driver `btrfs`
        #[arg(long)]
        optimized_storage: bool,
    },
    /// Make a custom volume from a file that `export` wrote
    Import {
        /// The storage pool
        #[arg(add = ArgValueCompleter::new(complete::pools))]
        pool: String,
        /// The file; `-` is standard input
        file: PathBuf,
        /// The new volume's name; the one in the file when left out
        name: Option<String>,
    },
    /// Read, write and delete files in custom volumes
    #[command(subcommand)]
    File(VolumeFile),
    /// Show the value of a key
    Get {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The key
        #[arg(add = ArgValueCompleter::new(complete::object_keys))]
        key: String,
        /// The key is a property, such as description
        #[arg(short, long)]
        property: bool,
    },
    /// Show what a volume uses
    Info(Place),
    /// List the volumes of a storage pool
    #[command(visible_alias = "ls")]
    List {
        /// The storage pool
        #[arg(add = ArgValueCompleter::new(complete::pools))]
        pool: String,
        /// How it is shown
        #[command(flatten)]
        format: ListFormat,
    },
    /// Move a custom volume to another pool or name
    #[command(visible_alias = "mv")]
    Move {
        /// POOL/VOLUME
        #[arg(add = ArgValueCompleter::new(complete::pools_and_volumes))]
        source: String,
        /// POOL/VOLUME
        #[arg(add = ArgValueCompleter::new(complete::pools_and_volumes))]
        target: String,
    },
    /// Give a custom volume a new name
    Rename {
        /// Which
        #[command(flatten)]
        place: Place,
        /// Its new name
        new: String,
    },
    /// Set keys of a volume
    Set {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The keys; the value `-` is read from standard input
        #[arg(required = true, value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::object_pairs))]
        words: Vec<String>,
        /// The keys are properties, such as description
        #[arg(short, long)]
        property: bool,
    },
    /// Show a volume
    Show(Place),
    /// Take, list, restore and delete snapshots of custom volumes
    #[command(subcommand)]
    Snapshot(VolumeSnapshot),
    /// Take keys away from a volume
    Unset {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The keys
        #[arg(required = true, value_name = "KEY", add = ArgValueCompleter::new(complete::object_keys))]
        keys: Vec<String>,
        /// The keys are properties, such as description
        #[arg(short, long)]
        property: bool,
    },
}

/// `storage volume snapshot`.
#[derive(Debug, Subcommand)]
pub enum VolumeSnapshot {
    /// Take a snapshot of a custom volume
    Create {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The snapshot's name; made up by `snapshots.pattern` when left out
        name: Option<String>,
        /// Words for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// When it is deleted: a time span such as `1d 12H` (units S M H d w m y), or a time
        #[arg(long, value_name = "WHEN", conflicts_with = "no_expiry")]
        expiry: Option<String>,
        /// Keep it whatever the config says
        #[arg(long)]
        no_expiry: bool,
        /// Delete an older one of the same name first
        #[arg(long)]
        reuse: bool,
    },
    /// Delete a snapshot
    #[command(visible_alias = "rm")]
    Delete {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The snapshot
        #[arg(add = ArgValueCompleter::new(complete::volume_snapshots))]
        name: String,
    },
    /// List the snapshots of a custom volume
    #[command(visible_alias = "ls")]
    List {
        /// Which
        #[command(flatten)]
        place: Place,
        /// How it is shown
        #[command(flatten)]
        format: ListFormat,
    },
    /// Give a snapshot a new name
    Rename {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The snapshot
        #[arg(add = ArgValueCompleter::new(complete::volume_snapshots))]
        name: String,
        /// Its new name
        new: String,
    },
    /// Bring back what a snapshot holds; no running instance may have the volume
    Restore {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The snapshot
        #[arg(add = ArgValueCompleter::new(complete::volume_snapshots))]
        name: String,
    },
    /// Show a snapshot as YAML
    Show {
        /// Which
        #[command(flatten)]
        place: Place,
        /// The snapshot
        #[arg(add = ArgValueCompleter::new(complete::volume_snapshots))]
        name: String,
    },
}

/// `storage volume file`.
#[derive(Debug, Subcommand)]
pub enum VolumeFile {
    /// Make a file, directory or link in a custom volume
    Create {
        /// Where
        #[command(flatten)]
        place: FilePlace,
        /// What a link points to
        target: Option<String>,
        /// What to make: file, directory or symlink
        #[arg(long = "type", default_value = "file", value_parser = ["file", "directory", "symlink"])]
        kind: String,
        /// Whether an old file is replaced
        #[arg(short, long)]
        force: bool,
        /// Owner and permissions
        #[command(flatten)]
        ownership: Ownership,
    },
    /// Delete a file in a custom volume
    #[command(visible_alias = "rm")]
    Delete {
        /// Where
        #[command(flatten)]
        place: FilePlace,
        /// Directories with all that is in them
        #[arg(short, long)]
        force: bool,
    },
    /// Edit a file of a custom volume with $EDITOR
    Edit(FilePlace),
    /// Mount a directory of a custom volume here, until Ctrl-C (with sshfs)
    Mount {
        /// Where
        #[command(flatten)]
        place: FilePlace,
        /// An empty directory here
        #[arg(add = ArgValueCompleter::new(complete::locals))]
        target: String,
    },
    /// Copy a file from a custom volume to here
    Pull {
        /// Where
        #[command(flatten)]
        place: FilePlace,
        /// A place here; `-` is standard output
        #[arg(add = ArgValueCompleter::new(complete::locals))]
        target: String,
        /// Whole directories
        #[arg(short, long)]
        recursive: bool,
        /// Make missing directories on the way
        #[arg(short = 'p', long)]
        create_dirs: bool,
    },
    /// Copy a file from here into a custom volume
    Push {
        /// The file here; `-` is standard input
        #[arg(add = ArgValueCompleter::new(complete::locals))]
        source: String,
        /// Where
        #[command(flatten)]
        place: FilePlace,
        /// Whole directories
        #[arg(short, long)]
        recursive: bool,
        /// Owner and permissions
        #[command(flatten)]
        ownership: Ownership,
    },
}
