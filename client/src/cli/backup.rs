//! The verbs that take instances out and in as files.

use std::path::PathBuf;

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::complete;

/// `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub instance: String,
    /// The file to write, a directory for it, or - for standard output; INSTANCE.tar.zst and the like when left
    /// out
    pub target: Option<PathBuf>,
    /// Leave the snapshots out
    #[arg(long)]
    pub instance_only: bool,
    /// none, gzip, bzip2, xz or zstd; when not given as the file's name ends, else zstd
    #[arg(long, value_name = "ALGORITHM")]
    pub compression: Option<String>,
    /// Write streams of btrfs instead of files, from a pool of driver `btrfs`
    #[arg(long)]
    pub optimized_storage: bool,
}

/// `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The backup, as `export` of this program, Incus or LXD wrote it; - for standard input
    pub file: PathBuf,
    /// The instance's name; the one in the backup when left out
    pub name: Option<String>,
    /// The storage pool
    #[arg(short, long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pub storage: Option<String>,
    /// Config to set over the backup's; an empty value leaves the key out
    #[arg(short, long, value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::config_options))]
    pub config: Vec<String>,
    /// A device's properties, over the backup's
    #[arg(short, long, value_name = "DEVICE,KEY=VALUE…", add = ArgValueCompleter::new(complete::device_options))]
    pub device: Vec<String>,
}
