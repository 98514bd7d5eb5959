//! The verbs that work on the daemon and the client themselves.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;

use super::{PlainList, ProjectsList};
use crate::complete;

/// `operation`.
#[derive(Debug, Subcommand)]
pub enum Operation {
    /// Cancel an operation
    #[command(visible_aliases = ["cancel", "rm"])]
    Delete {
        /// The operation's id
        #[arg(add = ArgValueCompleter::new(complete::operations))]
        id: String,
    },
    /// List operations
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns [default: itdscC]:
  i  id                   d  description          c  cancelable
  t  type                 s  status               C  created at
  L  cluster member"
    )]
    List(ProjectsList),
    /// Show an operation
    Show {
        /// The operation's id
        #[arg(add = ArgValueCompleter::new(complete::operations))]
        id: String,
    },
}

/// `warning`.
#[derive(Debug, Subcommand)]
pub enum Warning {
    /// Say that a warning is known; it is listed only with --all then
    #[command(visible_alias = "ack")]
    Acknowledge {
        /// Its id
        #[arg(add = ArgValueCompleter::new(complete::warnings))]
        id: String,
    },
    /// Delete a warning; it comes back when its cause is seen again
    #[command(visible_alias = "rm")]
    Delete {
        /// Its id
        #[arg(add = ArgValueCompleter::new(complete::warnings), required_unless_present = "all")]
        id: Option<String>,
        /// Delete all of them
        #[arg(short, long, conflicts_with = "id")]
        all: bool,
    },
    /// List warnings
    #[command(visible_alias = "ls")]
    List {
        /// How
        #[command(flatten)]
        list: PlainList,
        /// Acknowledged and resolved ones too
        #[arg(short, long)]
        all: bool,
    },
    /// Show a warning
    Show {
        /// Its id
        #[arg(add = ArgValueCompleter::new(complete::warnings))]
        id: String,
    },
}

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventFormat {
    /// One YAML document each
    Yaml,
    /// One line of JSON each
    Json,
    /// One line for people each
    Pretty,
}

/// `monitor`.
#[derive(Debug, Args)]
pub struct Monitor {
    /// lifecycle, logging, operation; can be given again
    #[arg(short = 't', long = "type", value_name = "TYPE", add = ArgValueCompleter::new(complete::events))]
    pub kinds: Vec<String>,
    /// The lowest level of log lines: error, warning, info or debug
    #[arg(long, value_name = "LEVEL", add = ArgValueCompleter::new(complete::levels))]
    pub loglevel: Option<String>,
    /// One line for people each
    #[arg(long)]
    pub pretty: bool,
    /// How events are shown
    #[arg(short, long, value_enum, default_value = "yaml")]
    pub format: EventFormat,
    /// Events of every project
    #[arg(long)]
    pub all_projects: bool,
}

/// `query`.
#[derive(Debug, Args)]
pub struct Query {
    /// The address, such as /1.0/instances
    pub address: String,
    /// The method
    #[arg(short = 'X', long = "request", default_value = "GET")]
    pub method: String,
    /// The body, as JSON; `@FILE` and `-` read it
    #[arg(short, long)]
    pub data: Option<String>,
    /// Wait for the operation it begins
    #[arg(long)]
    pub wait: bool,
    /// Show the whole reply
    #[arg(long)]
    pub raw: bool,
}

/// `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Show it as JSON
    #[arg(long)]
    pub json: bool,
    /// Raise the kernel's limits that are too low for many containers, now and for every boot
    #[arg(long)]
    pub raise: bool,
}

/// `admin`.
#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Set up storage, network and the default profile
    Init(Init),
    /// Wait until the daemon has started
    Waitready {
        /// Seconds to wait; 0 for ever
        #[arg(short, long, default_value_t = 0, value_name = "SECONDS")]
        timeout: u64,
    },
    /// Look for what is left over on this host, or missing; fails when something is found
    Audit {
        #[command(flatten)]
        list: PlainList,
    },
    /// Ask the daemon to end
    Shutdown {
        /// Stop the instances even if they are busy
        #[arg(short, long)]
        force: bool,
        /// Seconds to wait; 0 for ever
        #[arg(short, long, default_value_t = 0, value_name = "SECONDS")]
        timeout: u64,
    },
}

/// `admin init`.
#[derive(Debug, Args)]
#[group(id = "how", multiple = false)]
pub struct Init {
    /// Pool, network and profile with good values, where they are missing
    #[arg(long, group = "how")]
    pub auto: bool,
    /// As --auto
    #[arg(long, group = "how")]
    pub minimal: bool,
    /// Read the whole config as YAML from standard input, and apply it
    #[arg(long, group = "how")]
    pub preseed: bool,
    /// Write the whole config as YAML
    #[arg(long, group = "how")]
    pub dump: bool,
    /// The driver of the default pool
    #[arg(long, value_name = "DRIVER", add = ArgValueCompleter::new(complete::drivers))]
    pub storage_backend: Option<String>,
    /// The name of the default pool
    #[arg(long, value_name = "POOL")]
    pub storage_pool: Option<String>,
}

/// `version`.
#[derive(Debug, Args)]
pub struct Version {}

/// `completion`.
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell
    #[arg(value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    pub shell: String,
}

/// `manpage`.
#[derive(Debug, Args)]
pub struct Manpage {
    /// The directory to write to
    pub directory: PathBuf,
    /// Write one page of Markdown, cli.md, instead
    #[arg(long)]
    pub markdown: bool,
}
