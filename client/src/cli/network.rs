//! `network`.

use clap::Subcommand;
use clap_complete::ArgValueCompleter;

use super::{Filters, ListFormat, ProjectsList};
use crate::complete;

/// `network`.
#[derive(Debug, Subcommand)]
pub enum Network {
    /// Attach an instance to a network
    Attach {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: String,
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
        /// The new device's name [default: the network's], then the interface's name inside
        #[arg(value_name = "DEVICE INTERFACE", num_args = 0..=2)]
        device: Vec<String>,
    },
    /// Attach the instances of a profile to a network
    AttachProfile {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: String,
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        profile: String,
        /// The new device's name [default: the network's], then the interface's name inside
        #[arg(value_name = "DEVICE INTERFACE", num_args = 0..=2)]
        device: Vec<String>,
    },
    /// Create a network, from YAML when standard input gives some
    Create {
        /// Its name
        name: String,
        /// Config to set
        #[arg(value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::object_pairs))]
        config: Vec<String>,
        /// The type
        #[arg(short = 't', long = "type", default_value = "bridge", add = ArgValueCompleter::new(complete::network_types))]
        kind: String,
        /// Words for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete networks
    #[command(visible_alias = "rm")]
    Delete {
        /// The networks
        #[arg(required = true, add = ArgValueCompleter::new(complete::networks))]
        names: Vec<String>,
    },
    /// Detach an instance from a network
    Detach {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: String,
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
        /// The device, when there are several on that network
        #[arg(add = ArgValueCompleter::new(complete::attached))]
        device: Option<String>,
    },
    /// Detach the instances of a profile from a network
    DetachProfile {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: String,
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        profile: String,
        /// The device, when there are several on that network
        #[arg(add = ArgValueCompleter::new(complete::attached))]
        device: Option<String>,
    },
    /// Edit a network as YAML with $EDITOR, or from standard input
    Edit {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        name: String,
    },
    /// Show the value of a key
    Get {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        name: String,
        /// The key
        #[arg(add = ArgValueCompleter::new(complete::object_keys))]
        key: String,
        /// The key is a property, such as description
        #[arg(short, long)]
        property: bool,
    },
    /// Show what a network's interface does
    Info {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        name: String,
    },
    /// List networks
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns [default: ntm46dus]:
  n  name                 4  IPv4 address         u  used by
  t  type                 6  IPv6 address         s  state
  m  managed              d  description          e  project"
    )]
    List {
        /// Which
        #[command(flatten)]
        filters: Filters,
        /// How
        #[command(flatten)]
        list: ProjectsList,
    },
    /// List the addresses that networks and instances have
    ListAllocations {
        /// Of all projects
        #[arg(long)]
        all_projects: bool,
        /// How it is shown
        #[command(flatten)]
        format: ListFormat,
    },
    /// List the addresses given out on a network
    ListLeases {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        name: String,
        /// How it is shown
        #[command(flatten)]
        format: ListFormat,
    },
    /// Give a network a new name
    #[command(visible_alias = "mv")]
    Rename {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        name: String,
        /// Its new name
        new: String,
    },
    /// Set keys of a network
    Set {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        name: String,
        /// The keys; the value `-` is read from standard input
        #[arg(required = true, value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::object_pairs))]
        words: Vec<String>,
        /// The keys are properties, such as description
        #[arg(short, long)]
        property: bool,
    },
    /// Show a network
    Show {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        name: String,
    },
    /// Take keys away from a network
    Unset {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        name: String,
        /// The keys
        #[arg(required = true, value_name = "KEY", add = ArgValueCompleter::new(complete::object_keys))]
        keys: Vec<String>,
        /// The keys are properties, such as description
        #[arg(short, long)]
        property: bool,
    },
}
