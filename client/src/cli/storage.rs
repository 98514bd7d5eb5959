//! `storage`.

use clap::Subcommand;
use clap_complete::ArgValueCompleter;

use super::{ColumnList, Filters};
use crate::complete;

/// `storage`.
#[derive(Debug, Subcommand)]
pub enum Storage {
    /// Create a storage pool, from YAML when standard input gives some
    Create {
        /// Its name
        name: String,
        /// The driver: overlay, dir …
        #[arg(add = ArgValueCompleter::new(complete::drivers))]
        driver: String,
        /// Config to set
        #[arg(value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::object_pairs))]
        config: Vec<String>,
        /// Words for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete storage pools
    #[command(visible_alias = "rm")]
    Delete {
        /// The pools
        #[arg(required = true, add = ArgValueCompleter::new(complete::pools))]
        names: Vec<String>,
    },
    /// Edit a storage pool as YAML with $EDITOR, or from standard input
    Edit {
        /// The pool
        #[arg(add = ArgValueCompleter::new(complete::pools))]
        name: String,
    },
    /// Show the value of a key
    Get {
        /// The pool
        #[arg(add = ArgValueCompleter::new(complete::pools))]
        name: String,
        /// The key
        #[arg(add = ArgValueCompleter::new(complete::object_keys))]
        key: String,
        /// The key is a property, such as description
        #[arg(short, long)]
        property: bool,
    },
    /// Show what a storage pool holds and has left
    Info {
        /// The pool
        #[arg(add = ArgValueCompleter::new(complete::pools))]
        name: String,
        /// Sizes in bytes
        #[arg(long)]
        bytes: bool,
    },
    /// List storage pools
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns [default: nDSdus]:
  n  name                 S  source               u  used by
  D  driver               d  description          s  state"
    )]
    List {
        /// Which
        #[command(flatten)]
        filters: Filters,
        /// How
        #[command(flatten)]
        list: ColumnList,
    },
    /// Set keys of a storage pool
    Set {
        /// The pool
        #[arg(add = ArgValueCompleter::new(complete::pools))]
        name: String,
        /// The keys; the value `-` is read from standard input
        #[arg(required = true, value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::object_pairs))]
        words: Vec<String>,
        /// The keys are properties, such as description
        #[arg(short, long)]
        property: bool,
    },
    /// Show a storage pool
    Show {
        /// The pool
        #[arg(add = ArgValueCompleter::new(complete::pools))]
        name: String,
    },
    /// Take keys away from a storage pool
    Unset {
        /// The pool
        #[arg(add = ArgValueCompleter::new(complete::pools))]
        name: String,
        /// The keys
        #[arg(required = true, value_name = "KEY", add = ArgValueCompleter::new(complete::object_keys))]
        keys: Vec<String>,
        /// The keys are properties, such as description
        #[arg(short, long)]
        property: bool,
    },
    /// Manage storage volumes
    #[command(subcommand)]
    Volume(super::volume::Volume),
}
