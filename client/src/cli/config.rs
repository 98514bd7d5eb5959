//! `config` and the `device` verbs it shares with `profile`.

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use super::ListFormat;
use crate::complete;

/// `config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Manage the devices of an instance
    #[command(subcommand)]
    Device(Device),
    /// Edit the config as YAML with $EDITOR, or from standard input
    Edit {
        /// The instance; the server when left out
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        name: Option<String>,
    },
    /// Show the value of a key
    Get {
        /// The instance (the server when left out) and the key
        #[arg(num_args = 1..=2, required = true, value_name = "[INSTANCE] KEY", add = ArgValueCompleter::new(complete::config_keys))]
        words: Vec<String>,
        /// The value with the profiles under it
        #[arg(short, long)]
        expanded: bool,
        /// The key is a property of the instance, such as description
        #[arg(short, long)]
        property: bool,
    },
    /// Show and edit what the image of an instance says about itself
    #[command(subcommand)]
    Metadata(Metadata),
    /// Set keys
    Set {
        /// The instance (the server when left out) and the keys; the value `-` is read from standard input
        #[arg(num_args = 1.., required = true, value_name = "[INSTANCE] KEY=VALUE…", add = ArgValueCompleter::new(complete::config_pairs))]
        words: Vec<String>,
        /// The keys are properties of the instance, such as description
        #[arg(short, long)]
        property: bool,
    },
    /// Show the config
    Show {
        /// The instance; the server when left out
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        name: Option<String>,
        /// With the profiles under it
        #[arg(short, long)]
        expanded: bool,
    },
    /// Manage the templates that become files in an instance
    #[command(subcommand)]
    Template(Template),
    /// Take keys away
    Unset {
        /// The instance (the server when left out) and the keys
        #[arg(num_args = 1.., required = true, value_name = "[INSTANCE] KEY…", add = ArgValueCompleter::new(complete::config_keys))]
        words: Vec<String>,
        /// The keys are properties of the instance, such as description
        #[arg(short, long)]
        property: bool,
    },
}

/// `config metadata`.
#[derive(Debug, Subcommand)]
pub enum Metadata {
    /// Edit it as YAML with $EDITOR, or from standard input
    Edit {
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
    },
    /// Show it
    Show {
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
    },
}

/// An instance and one of its templates.
#[derive(Debug, Clone, Args)]
pub struct OneTemplate {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub instance: String,
    /// The template's name
    #[arg(add = ArgValueCompleter::new(complete::templates))]
    pub template: String,
}

/// `config template`.
#[derive(Debug, Subcommand)]
pub enum Template {
    /// Make a template, of what standard input gives; the metadata says which file it becomes
    #[command(visible_alias = "add")]
    Create(OneTemplate),
    /// Delete a template that the metadata does not name
    #[command(visible_alias = "rm", alias = "remove")]
    Delete(OneTemplate),
    /// Edit a template with $EDITOR, or replace it by standard input
    Edit(OneTemplate),
    /// List the templates
    #[command(visible_alias = "ls")]
    List {
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        instance: String,
        /// How to print
        #[command(flatten)]
        format: ListFormat,
    },
    /// Show a template
    Show(OneTemplate),
}

/// `config device` and `profile device`.
#[derive(Debug, Subcommand)]
pub enum Device {
    /// Add a device
    #[command(visible_alias = "create")]
    Add {
        /// The instance or profile
        #[arg(add = ArgValueCompleter::new(complete::device_owners))]
        owner: String,
        /// The device's name
        device: String,
        /// Its type: disk, nic, unix-char …
        #[arg(add = ArgValueCompleter::new(complete::device_types))]
        kind: String,
        /// Its properties
        #[arg(value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::device_pairs))]
        properties: Vec<String>,
    },
    /// Show a property of a device
    Get {
        /// The instance or profile
        #[arg(add = ArgValueCompleter::new(complete::device_owners))]
        owner: String,
        /// The device's name
        #[arg(add = ArgValueCompleter::new(complete::devices))]
        device: String,
        /// The property
        #[arg(add = ArgValueCompleter::new(complete::device_keys))]
        key: String,
    },
    /// List the names of the devices
    #[command(visible_alias = "ls")]
    List {
        /// The instance or profile
        #[arg(add = ArgValueCompleter::new(complete::device_owners))]
        owner: String,
    },
    /// Copy a device from the profiles to the instance, and change it there
    Override {
        /// The instance
        #[arg(add = ArgValueCompleter::new(complete::instances))]
        owner: String,
        /// The device's name
        #[arg(add = ArgValueCompleter::new(complete::devices))]
        device: String,
        /// What differs
        #[arg(value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::device_pairs))]
        properties: Vec<String>,
    },
    /// Take devices away
    #[command(visible_alias = "rm")]
    Remove {
        /// The instance or profile
        #[arg(add = ArgValueCompleter::new(complete::device_owners))]
        owner: String,
        /// The devices' names
        #[arg(required = true, add = ArgValueCompleter::new(complete::devices))]
        devices: Vec<String>,
    },
    /// Set properties of a device
    Set {
        /// The instance or profile
        #[arg(add = ArgValueCompleter::new(complete::device_owners))]
        owner: String,
        /// The device's name
        #[arg(add = ArgValueCompleter::new(complete::devices))]
        device: String,
        /// The properties
        #[arg(required = true, value_name = "KEY=VALUE", add = ArgValueCompleter::new(complete::device_pairs))]
        properties: Vec<String>,
    },
    /// Show the devices
    Show {
        /// The instance or profile
        #[arg(add = ArgValueCompleter::new(complete::device_owners))]
        owner: String,
    },
    /// Take properties of a device away
    Unset {
        /// The instance or profile
        #[arg(add = ArgValueCompleter::new(complete::device_owners))]
        owner: String,
        /// The device's name
        #[arg(add = ArgValueCompleter::new(complete::devices))]
        device: String,
        /// The properties
        #[arg(required = true, value_name = "KEY", add = ArgValueCompleter::new(complete::device_keys))]
        keys: Vec<String>,
    },
}
