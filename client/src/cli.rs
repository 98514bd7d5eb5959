//! The command tree, nothing else: every verb, flag and word of help. What they do is in `commands`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::ArgValueCompleter;

pub mod backup;
pub mod config;
pub mod image;
pub mod instance;
pub mod lazy;
pub mod network;
pub mod profile;
pub mod publish;
pub mod snapshot;
pub mod storage;
pub mod system;
pub mod volume;

use self::lazy::Lazy;
use crate::complete;
use crate::output::Format;

/// System containers: whole Linux systems that boot their own init and are kept for years
#[derive(Debug, Parser)]
#[command(name = "cabin", version, propagate_version = false, max_term_width = 100)]
#[command(disable_help_subcommand = false, arg_required_else_help = true)]
pub struct Cli {
    /// What holds for every command
    #[command(flatten)]
    pub global: Global,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The daemon's socket [default: found by CABIN_SOCKET, CABIN_DIR, INCUS_SOCKET, INCUS_DIR, /run/cabin]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    pub socket: Option<PathBuf>,
    /// The project to work in
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options", add = ArgValueCompleter::new(complete::projects))]
    pub project: Option<String>,
    /// Show no progress
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Tell how long each step of an operation took in the daemon
    #[arg(long, global = true, help_heading = "Global options")]
    pub timings: bool,
    /// As --timings
    #[arg(long, global = true, hide = true)]
    pub debug: bool,
    /// Taken for Incus's sake; what there is to tell is told
    #[arg(short, long, global = true, hide = true)]
    pub verbose: bool,
    /// Taken for Incus's sake; the local daemon is the only one
    #[arg(long, global = true, hide = true)]
    pub force_local: bool,
}

/// A verb.
#[derive(Debug, Subcommand)]
#[command(subcommand_value_name = "COMMAND", disable_help_subcommand = true)]
pub enum Command {
    /// Create an instance from an image and start it
    Launch(Lazy<instance::Launch>),
    /// Create an instance from an image
    #[command(visible_alias = "init")]
    Create(Lazy<instance::Create>),
    /// List instances
    #[command(visible_alias = "ls")]
    List(Lazy<instance::List>),
    /// Show what an instance is and does, or the server without a name
    Info(Lazy<instance::Info>),
    /// Start instances
    Start(Lazy<instance::StateChange>),
    /// Stop instances
    Stop(Lazy<instance::StateChange>),
    /// Restart instances
    Restart(Lazy<instance::StateChange>),
    /// Freeze all processes of instances
    #[command(visible_alias = "freeze")]
    Pause(Lazy<instance::Names>),
    /// Let frozen instances go on
    #[command(visible_alias = "unfreeze")]
    Resume(Lazy<instance::Names>),
    /// Wait until an instance has a status or an address
    Wait(Lazy<instance::Wait>),
    /// Delete instances
    #[command(visible_alias = "rm", alias = "remove")]
    Delete(Lazy<instance::Delete>),
    /// Give an instance a new name
    Rename(Lazy<instance::Rename>),
    /// Give an instance another storage pool, or a new name
    #[command(visible_alias = "mv")]
    Move(Lazy<instance::Move>),
    /// Make a new instance from another one or from a snapshot
    #[command(visible_alias = "cp")]
    Copy(Lazy<snapshot::Copy>),
    /// Take, list, restore and delete snapshots of instances
    Snapshot(Lazy<snapshot::Snapshot>),
    /// Tell which files differ from the image, or from a snapshot
    Diff(Lazy<snapshot::Diff>),
    /// Bring back what a snapshot holds
    Restore(Lazy<snapshot::Restore>),
    /// Write an instance with its snapshots into a file that Cabin, Incus and LXD can read
    Export(Lazy<backup::Export>),
    /// Make an instance from a file that `export` of Cabin, Incus or LXD wrote
    Import(Lazy<backup::Import>),
    /// Make an image from an instance or a snapshot
    Publish(Lazy<publish::Publish>),
    /// Give an instance a new root filesystem; name, config and snapshots stay
    Rebuild(Lazy<publish::Rebuild>),
    /// Run a command in an instance; its exit code is passed on
    Exec(Lazy<instance::Exec>),
    /// Open a login shell in an instance
    Shell(Lazy<instance::Shell>),
    /// Attach to an instance's console; ctrl-a q lets go
    Console(Lazy<instance::Console>),
    /// Copy files into and out of instances
    #[command(subcommand)]
    File(Lazy<instance::File>),
    /// Show and change the config of instances and the server
    #[command(subcommand)]
    Config(Lazy<config::Config>),
    /// Manage profiles
    #[command(subcommand)]
    Profile(Lazy<profile::Profile>),
    /// Manage images
    #[command(subcommand)]
    Image(Lazy<image::Image>),
    /// Manage networks
    #[command(subcommand)]
    Network(Lazy<network::Network>),
    /// Manage storage pools
    #[command(subcommand)]
    Storage(Lazy<storage::Storage>),
    /// Look at projects
    #[command(subcommand)]
    Project(Lazy<profile::Project>),
    /// Look at work in progress, and cancel it
    #[command(subcommand)]
    Operation(Lazy<system::Operation>),
    /// Look at what the daemon warns of
    #[command(subcommand)]
    Warning(Lazy<system::Warning>),
    /// Show what happens, as it happens
    Monitor(Lazy<system::Monitor>),
    /// Send a raw request to the daemon
    Query(Lazy<system::Query>),
    /// Check this host: kernel, cgroups, id ranges, programs, firewall
    Doctor(Lazy<system::Doctor>),
    /// Set up and control the daemon
    #[command(subcommand)]
    Admin(Lazy<system::Admin>),
    /// Show the versions of client and daemon
    Version(Lazy<system::Version>),
    /// Print the lines that make a shell complete commands and names
    Completion(Lazy<system::Completion>),
    /// Write manual pages
    Manpage(Lazy<system::Manpage>),
}

/// How a list is shown.
#[derive(Debug, Clone, Args)]
pub struct ListFormat {
    /// table, compact, csv, json, yaml or markdown; `,header` and `,noheader` can follow
    #[arg(short, long, default_value = "table", value_name = "FORMAT", add = ArgValueCompleter::new(complete::formats))]
    pub format: Format,
}

/// A list that is shown as it is.
#[derive(Debug, Clone, Args)]
pub struct PlainList {
    /// How
    #[command(flatten)]
    pub format: ListFormat,
}

/// A list whose columns can be chosen.
#[derive(Debug, Clone, Args)]
pub struct ColumnList {
    /// The columns, one letter each
    #[arg(short, long, value_name = "LETTERS")]
    pub columns: Option<String>,
    /// How
    #[command(flatten)]
    pub format: ListFormat,
}

/// What must hold for an object to be listed.
#[derive(Debug, Clone, Default, Args)]
pub struct Filters {
    /// The beginning of a name, or KEY=VALUE of a property; all of them must hold
    #[arg(value_name = "FILTER")]
    pub words: Vec<String>,
}

/// A list of what belongs to projects.
#[derive(Debug, Clone, Args)]
pub struct ProjectsList {
    /// Which columns
    #[command(flatten)]
    pub list: ColumnList,
    /// Those of every project
    #[arg(long)]
    pub all_projects: bool,
}
