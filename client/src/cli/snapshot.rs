//! The verbs that work on snapshots, and `copy`.

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use super::ListFormat;
use crate::complete;

/// `snapshot`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Snapshot {
    /// What to do
    #[command(subcommand)]
    pub command: Option<Verb>,
    /// Without a command: take a snapshot
    #[command(flatten)]
    pub take: Option<Take>,
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Take a snapshot of an instance, whether it runs or not
    Create(Take),
    /// List the snapshots of an instance
    #[command(visible_alias = "ls")]
    List {
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
        /// How it is shown
        #[command(flatten)]
        format: ListFormat,
    },
    /// Show a snapshot as YAML
    Show(One),
    /// Give a snapshot a new name
    Rename {
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
        /// The snapshot
        #[arg(add = ArgValueCompleter::new(complete::snapshots))]
        name: String,
        /// Its new name
        new: String,
    },
    /// Delete snapshots, in any order
    #[command(visible_alias = "rm")]
    Delete {
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
        /// The snapshots
        #[arg(required = true, add = ArgValueCompleter::new(complete::snapshots))]
        names: Vec<String>,
        /// Ask before each
        #[arg(short, long)]
        interactive: bool,
    },
    /// Bring back what a snapshot holds; a running instance is stopped and started again
    Restore(Restore),
}

/// `snapshot create`.
#[derive(Debug, Args)]
pub struct Take {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub instance: String,
    /// The snapshot's name; made up by `snapshots.pattern` when left out
    pub name: Option<String>,
    /// When it is deleted: a time span such as `1d 12H` (units S M H d w m y), or a time
    #[arg(long, value_name = "WHEN", conflicts_with = "no_expiry")]
    pub expiry: Option<String>,
    /// Keep it whatever the config says
    #[arg(long)]
    pub no_expiry: bool,
    /// Delete an older one of the same name first
    #[arg(long)]
    pub reuse: bool,
    /// Take one of each custom volume attached to it too, all of the same moment
    #[arg(long)]
    pub volumes: bool,
    /// Memory is not kept in snapshots yet
    #[arg(long, hide = true)]
    pub stateful: bool,
}

/// One snapshot, in one word or two.
#[derive(Debug, Args)]
pub struct One {
    /// The instance, or INSTANCE/SNAPSHOT
    #[arg(add = ArgValueCompleter::new(complete::instances_and_snapshots))]
    pub instance: String,
    /// The snapshot
    #[arg(add = ArgValueCompleter::new(complete::snapshots))]
    pub name: Option<String>,
}

/// `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// The instance, for what changed since its image; or INSTANCE/SNAPSHOT, for what changed since that
    #[arg(add = ArgValueCompleter::new(complete::instances_and_snapshots))]
    pub instance: String,
    /// Up to this snapshot, and not up to now
    #[arg(value_name = "SNAPSHOT", add = ArgValueCompleter::new(complete::snapshots))]
    pub to: Option<String>,
    /// How it is shown
    #[command(flatten)]
    pub format: ListFormat,
}

/// `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// Which
    #[command(flatten)]
    pub one: One,
    /// The files alone; the config stays as it is
    #[arg(long, visible_alias = "disk-only")]
    pub diskonly: bool,
    /// The attached custom volumes too, each from its snapshot of that name: all, or nothing
    #[arg(long)]
    pub volumes: bool,
    /// Memory is not kept in snapshots yet
    #[arg(long, hide = true)]
    pub stateful: bool,
}

/// `copy`.
#[derive(Debug, Args)]
pub struct Copy {
    /// The instance, or INSTANCE/SNAPSHOT
    #[arg(add = ArgValueCompleter::new(complete::instances_and_snapshots))]
    pub source: String,
    /// The new instance's name; made up when left out
    pub name: Option<String>,
    /// Config to set, above the source's
    #[arg(short, long, value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::config_options))]
    pub config: Vec<String>,
    /// A device's properties, above the source's
    #[arg(short, long, value_name = "DEVICE,KEY=VALUE…", add = ArgValueCompleter::new(complete::device_options))]
    pub device: Vec<String>,
    /// Delete the new instance when it stops
    #[arg(short, long)]
    pub ephemeral: bool,
    /// A profile to apply instead of the source's; can be given again
    #[arg(short, long, value_name = "PROFILE", add = ArgValueCompleter::new(complete::profiles))]
    pub profile: Vec<String>,
    /// Apply no profile
    #[arg(long, conflicts_with = "profile")]
    pub no_profiles: bool,
    /// The storage pool of the new instance [default: the source's]
    #[arg(short, long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pub storage: Option<String>,
    /// Leave the snapshots out
    #[arg(long)]
    pub instance_only: bool,
    /// Bring a copy that is there up to date
    #[arg(long)]
    pub refresh: bool,
    /// Bringing it up to date, leave out snapshots older than the newest that both have
    #[arg(long, requires = "refresh")]
    pub refresh_exclude_older: bool,
    /// Do not hold a running instance still for the moment of the copy
    #[arg(long)]
    pub allow_inconsistent: bool,
    /// Taken for Incus's sake
    #[arg(long, hide = true)]
    pub stateless: bool,
    /// Clusters are not supported
    #[arg(long, hide = true)]
    pub target: Option<String>,
}
