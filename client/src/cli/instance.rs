//! The verbs that work on instances.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;

use super::ListFormat;
use crate::complete;

/// `create` and `launch`.
#[derive(Debug, Args)]
pub struct Create {
    /// The image: an alias such as debian/12, or a fingerprint
    #[arg(add = ArgValueCompleter::new(complete::usable_images), required_unless_present = "empty")]
    pub image: Option<String>,
    /// The new instance's name; made up when left out
    pub name: Option<String>,
    /// Config to set, above the profiles
    #[arg(short, long, value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::config_options))]
    pub config: Vec<String>,
    /// A device's properties, above those from the profiles
    #[arg(short, long, value_name = "DEVICE,KEY=VALUE…", add = ArgValueCompleter::new(complete::device_options))]
    pub device: Vec<String>,
    /// Delete the instance when it stops
    #[arg(short, long)]
    pub ephemeral: bool,
    /// A profile to apply; can be given again [default: default]
    #[arg(short, long, value_name = "PROFILE", add = ArgValueCompleter::new(complete::profiles))]
    pub profile: Vec<String>,
    /// Apply no profile
    #[arg(long, conflicts_with = "profile")]
    pub no_profiles: bool,
    /// The network of its first interface
    #[arg(short, long, value_name = "NETWORK", add = ArgValueCompleter::new(complete::networks))]
    pub network: Option<String>,
    /// The pool its root lies in
    #[arg(short, long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pub storage: Option<String>,
    /// A size such as c2-m4
    #[arg(short = 't', long = "type", value_name = "SIZE")]
    pub size: Option<String>,
    /// Words for people
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// A file of KEY=VALUE lines for the instance's environment; can be given again
    #[arg(long, value_name = "FILE")]
    pub environment_file: Vec<PathBuf>,
    /// Make it without a root file system; the only word is its name
    #[arg(long)]
    pub empty: bool,
    /// Virtual machines are not supported
    #[arg(long, hide = true)]
    pub vm: bool,
    /// Clusters are not supported
    #[arg(long, hide = true)]
    pub target: Option<String>,
}

/// `launch`.
#[derive(Debug, Args)]
pub struct Launch {
    /// As for `create`
    #[command(flatten)]
    pub create: Create,
    /// Attach to the console at once
    #[arg(long, value_name = "TYPE", num_args = 0..=1, require_equals = true, default_missing_value = "console")]
    pub console: Option<String>,
}

/// `list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Columns:
  4  IPv4 addresses       m  memory used          S  snapshots
  6  IPv6 addresses       M  memory used, %       t  type
  a  architecture         n  name                 u  processor time
  b  storage pool         N  processes            U  started at
  c  created at           p  pid of init          f  image, shortened
  d  description          P  profiles             F  image
  D  disk used            s  state                e  project
  l  last used at         L  cluster member
  KEY:HEADER:WIDTH        a config key, or config:KEY, devices:DEVICE.KEY

Filters:
  web                     names that begin so; regular expressions are taken
  status=running          a property; commas mean either
  user.owner=me           a config key
  ipv4=10.0.0.0/8         an address range")]
pub struct List {
    /// What must hold for an instance to be shown; all of them must
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub filter: Vec<String>,
    /// The columns, one letter each
    #[arg(short, long, default_value = "ns46tS")]
    pub columns: String,
    /// How it is shown
    #[command(flatten)]
    pub format: ListFormat,
    /// Only columns that need no look into the instances: nsacPt
    #[arg(long)]
    pub fast: bool,
    /// Instances of every project
    #[arg(long)]
    pub all_projects: bool,
}

/// `info`.
#[derive(Debug, Args)]
pub struct Info {
    /// The instance; the server when left out
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub name: Option<String>,
    /// Show the last lines of the instance's log too
    #[arg(long)]
    pub show_log: bool,
    /// Show the host's hardware
    #[arg(long)]
    pub resources: bool,
}

/// Names, or all.
#[derive(Debug, Args)]
pub struct Names {
    /// The instances
    #[arg(add = ArgValueCompleter::new(complete::instances), required_unless_present = "all")]
    pub names: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
}

/// `start`, `stop`, `restart`.
#[derive(Debug, Args)]
pub struct StateChange {
    /// Which
    #[command(flatten)]
    pub names: Names,
    /// Do not ask the guest, end it
    #[arg(short, long)]
    pub force: bool,
    /// Seconds to wait for the guest; -1 for ever, 0 is as --force
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_name = "SECONDS")]
    pub timeout: i64,
    /// Keep memory on disk, or bring it back
    #[arg(long, hide = true)]
    pub stateful: bool,
    /// Taken for Incus's sake
    #[arg(long, hide = true)]
    pub stateless: bool,
    /// Attach to the console at once
    #[arg(long, value_name = "TYPE", num_args = 0..=1, require_equals = true, default_missing_value = "console")]
    pub console: Option<String>,
}

/// `wait`.
#[derive(Debug, Args)]
#[command(after_help = "\
Conditions:
  ip                      an address that others can reach
  ipv4, ipv6              one of that family
  status=STATUS           a status, such as running")]
pub struct Wait {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub name: String,
    /// What must come true
    #[arg(add = ArgValueCompleter::new(complete::conditions))]
    pub condition: String,
    /// Seconds between two looks
    #[arg(long, default_value_t = 1, value_name = "SECONDS")]
    pub interval: u64,
    /// Seconds to wait; -1 for ever
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_name = "SECONDS")]
    pub timeout: i64,
}

/// `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// The instances
    #[arg(add = ArgValueCompleter::new(complete::instances), required = true)]
    pub names: Vec<String>,
    /// Stop running ones first
    #[arg(short, long)]
    pub force: bool,
    /// Ask before each
    #[arg(short, long)]
    pub interactive: bool,
}

/// `move`.
#[derive(Debug, Args)]
pub struct Move {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub name: String,
    /// Its new name [default: as it is]
    #[arg(required_unless_present = "storage")]
    pub new: Option<String>,
    /// The storage pool it goes to; it must be stopped
    #[arg(short, long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pub storage: Option<String>,
    /// Config to set, with --storage
    #[arg(short, long, value_name = "KEY=VALUE", requires = "storage", add = ArgValueCompleter::new(complete::config_options))]
    pub config: Vec<String>,
    /// A device's properties, with --storage
    #[arg(short, long, value_name = "DEVICE,KEY=VALUE…", requires = "storage", add = ArgValueCompleter::new(complete::device_options))]
    pub device: Vec<String>,
    /// A profile to apply instead of its own, with --storage; can be given again
    #[arg(short, long, value_name = "PROFILE", requires = "storage", add = ArgValueCompleter::new(complete::profiles))]
    pub profile: Vec<String>,
    /// Apply no profile, with --storage
    #[arg(long, conflicts_with = "profile", requires = "storage")]
    pub no_profiles: bool,
    /// Delete the snapshots, with --storage
    #[arg(long, requires = "storage")]
    pub instance_only: bool,
    /// Taken for Incus's sake
    #[arg(long, hide = true)]
    pub stateless: bool,
    /// Clusters are not supported
    #[arg(long, hide = true)]
    pub target: Option<String>,
}

/// `rename`.
#[derive(Debug, Args)]
pub struct Rename {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub name: String,
    /// Its new name
    pub new: String,
}

/// Whether a command gets a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// When stdin and stdout are terminals
    Auto,
    /// Always
    Interactive,
    /// Never
    NonInteractive,
}

/// `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub name: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Environment to set
    #[arg(long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// The directory to run in
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// The user id to run as
    #[arg(long, default_value_t = 0, value_name = "UID")]
    pub user: u32,
    /// The group id to run as
    #[arg(long, default_value_t = 0, value_name = "GID")]
    pub group: u32,
    /// Whether it gets a terminal
    #[arg(long, value_enum, default_value = "auto")]
    pub mode: Mode,
    /// It gets a terminal
    #[arg(short = 't', long, conflicts_with = "force_noninteractive")]
    pub force_interactive: bool,
    /// It gets no terminal
    #[arg(short = 'T', long)]
    pub force_noninteractive: bool,
    /// It gets no input
    #[arg(short = 'n', long)]
    pub disable_stdin: bool,
}

/// `shell`.
#[derive(Debug, Args)]
pub struct Shell {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub name: String,
    /// The user whose login shell it is, by name [default: root]
    #[arg(short, long, value_name = "NAME")]
    pub user: Option<String>,
}

/// `console`.
#[derive(Debug, Args)]
pub struct Console {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub name: String,
    /// Show what the console said, and end
    #[arg(long)]
    pub show_log: bool,
    /// Take the console from who has it
    #[arg(short, long)]
    pub force: bool,
    /// The kind of console
    #[arg(short = 't', long = "type", default_value = "console", hide = true)]
    pub kind: String,
}

/// Owner and permissions of a file inside.
#[derive(Debug, Args)]
pub struct Ownership {
    /// The owner inside [default: as here]
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// The group inside [default: as here]
    #[arg(long, value_name = "GID")]
    pub gid: Option<u32>,
    /// The permissions, in octal [default: as here]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// Make missing directories on the way
    #[arg(short = 'p', long)]
    pub create_dirs: bool,
}

/// `file`.
#[derive(Debug, Subcommand)]
pub enum File {
    /// Copy files from here into an instance
    Push {
        /// Files here, then INSTANCE/PATH; `-` is standard input
        #[arg(num_args = 2.., required = true, value_name = "SOURCE… INSTANCE/PATH", add = ArgValueCompleter::new(complete::local_then_instance_places))]
        paths: Vec<String>,
        /// Whole directories
        #[arg(short, long)]
        recursive: bool,
        /// Owner and permissions
        #[command(flatten)]
        ownership: Ownership,
    },
    /// Copy files from an instance to here
    Pull {
        /// INSTANCE/PATH…, then a place here; `-` is standard output
        #[arg(num_args = 2.., required = true, value_name = "INSTANCE/PATH… TARGET", add = ArgValueCompleter::new(complete::instance_places))]
        paths: Vec<String>,
        /// Whole directories
        #[arg(short, long)]
        recursive: bool,
        /// Make missing directories on the way
        #[arg(short = 'p', long)]
        create_dirs: bool,
    },
    /// Make a file, directory or link in an instance
    Create {
        /// INSTANCE/PATH
        #[arg(add = ArgValueCompleter::new(complete::instance_places))]
        path: String,
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
    /// Delete files in an instance
    #[command(visible_alias = "rm")]
    Delete {
        /// INSTANCE/PATH…
        #[arg(required = true, add = ArgValueCompleter::new(complete::instance_places))]
        paths: Vec<String>,
        /// Directories with all that is in them
        #[arg(short, long)]
        force: bool,
    },
    /// Mount a directory of an instance here, until Ctrl-C (with sshfs)
    Mount {
        /// INSTANCE[/PATH]
        #[arg(value_name = "INSTANCE[/PATH]", add = ArgValueCompleter::new(complete::instance_places))]
        path: String,
        /// An empty directory here
        #[arg(add = ArgValueCompleter::new(complete::locals))]
        target: String,
    },
    /// Edit a file of an instance with $EDITOR
    Edit {
        /// INSTANCE/PATH
        #[arg(add = ArgValueCompleter::new(complete::instance_places))]
        path: String,
    },
}
