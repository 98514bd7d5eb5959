//! `profile` and `project`.

use clap::Subcommand;
use clap_complete::ArgValueCompleter;

use super::config::Device;
use super::{Filters, PlainList, ProjectsList};
use crate::complete;

/// `profile`.
#[derive(Debug, Subcommand)]
pub enum Profile {
    /// Add a profile to an instance
    Add {
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        profile: String,
    },
    /// Replace the profiles of an instance
    #[command(visible_alias = "apply")]
    Assign {
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
        /// The profiles, as words or with commas between
        #[arg(required_unless_present = "no_profiles", add = ArgValueCompleter::new(complete::profiles))]
        profiles: Vec<String>,
        /// None
        #[arg(long, conflicts_with = "profiles")]
        no_profiles: bool,
    },
    /// Copy a profile
    #[command(visible_alias = "cp")]
    Copy {
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        name: String,
        /// The name of the copy
        new: String,
    },
    /// Create a profile, from YAML when standard input gives some
    Create {
        /// Its name
        name: String,
        /// Words for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete profiles
    #[command(visible_alias = "rm")]
    Delete {
        /// The profiles
        #[arg(required = true, add = ArgValueCompleter::new(complete::profiles))]
        names: Vec<String>,
    },
    /// Manage the devices of a profile
    #[command(subcommand)]
    Device(Device),
    /// Edit a profile as YAML with $EDITOR, or from standard input
    Edit {
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        name: String,
    },
    /// Show the value of a key
    Get {
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        name: String,
        /// The key
        #[arg(add = ArgValueCompleter::new(complete::object_keys))]
        key: String,
        /// The key is a property, such as description
        #[arg(short, long)]
        property: bool,
    },
    /// List profiles
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns [default: ndu]:
  n  name                 d  description          u  used by
  e  project"
    )]
    List {
        /// Which
        #[command(flatten)]
        filters: Filters,
        /// How
        #[command(flatten)]
        list: ProjectsList,
    },
    /// Take a profile away from an instance
    Remove {
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        profile: String,
    },
    /// Give a profile a new name
    #[command(visible_alias = "mv")]
    Rename {
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        name: String,
        /// Its new name
        new: String,
    },
    /// Set keys of a profile
    Set {
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        name: String,
        /// The keys; the value `-` is read from standard input
        #[arg(required = true, value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::object_pairs))]
        words: Vec<String>,
        /// The keys are properties, such as description
        #[arg(short, long)]
        property: bool,
    },
    /// Show a profile
    Show {
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        name: String,
    },
    /// Take keys away from a profile
    Unset {
        /// The profile
        #[arg(add = ArgValueCompleter::new(complete::profiles))]
        name: String,
        /// The keys
        #[arg(required = true, value_name = "KEY", add = ArgValueCompleter::new(complete::object_keys))]
        keys: Vec<String>,
        /// The keys are properties, such as description
        #[arg(short, long)]
        property: bool,
    },
}

/// `project`.
#[derive(Debug, Subcommand)]
pub enum Project {
    /// List projects
    #[command(visible_alias = "ls")]
    List(PlainList),
    /// Show a project
    Show {
        /// The project
        #[arg(add = ArgValueCompleter::new(complete::projects))]
        name: String,
    },
}
