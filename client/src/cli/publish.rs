//! `publish` and `rebuild`: images from instances, and instances anew from images.

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::complete;

/// `publish`.
#[derive(Debug, Args)]
pub struct Publish {
    /// The instance, or INSTANCE/SNAPSHOT
    #[arg(add = ArgValueCompleter::new(complete::instances_and_snapshots))]
    pub source: String,
    /// The image's properties
    #[arg(value_name = "KEY=VALUE")]
    pub properties: Vec<String>,
    /// A name for the image; can be given again
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// Take the names from the image that has them
    #[arg(long)]
    pub reuse: bool,
    /// Let anybody read the image
    #[arg(long)]
    pub public: bool,
    /// Stop the instance if it runs, and start it again
    #[arg(short, long)]
    pub force: bool,
    /// When the image should no longer be used, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub expire: Option<String>,
    /// How it is compressed: none, gzip, bzip2, xz or zstd (the default)
    #[arg(long, value_name = "ALGORITHM")]
    pub compression: Option<String>,
    /// unified for one file, or split for two
    #[arg(long, value_name = "FORM", default_value = "unified")]
    pub format: String,
}

/// `rebuild`.
#[derive(Debug, Args)]
pub struct Rebuild {
    /// The image, and the instance; with --empty the instance alone
    #[arg(required = true, num_args = 1..=2, value_names = ["IMAGE", "INSTANCE"], add = ArgValueCompleter::new(complete::image_then_instance))]
    pub words: Vec<String>,
    /// Give it an empty root filesystem
    #[arg(long)]
    pub empty: bool,
    /// Stop the instance if it runs, and start it again
    #[arg(short, long)]
    pub force: bool,
}
