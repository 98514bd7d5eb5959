//! `network`.

use clap::Subcommand;
use clap_complete::ArgValueCompleter;

use super::{ListFormat, PlainList};
use crate::complete;

/// `network`.
#[derive(Debug, Subcommand)]
pub enum Network {
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
    #[command(visible_alias = "ls")]
    List(PlainList),
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
    /// Take a key away from a network
    Unset {
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
}
