//! `image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use super::{ColumnList, ListFormat};
use crate::complete;

/// `image list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Columns [default: lfpdatsu]:
  l  shortest alias       a  architecture         t  type
  L  all aliases          s  size                 p  public
  f  fingerprint, short   u  uploaded at          d  description
  F  fingerprint          e  project")]
pub struct List {
    /// Words in the alias, fingerprint or description, or KEY=VALUE of properties
    pub filter: Vec<String>,
    /// The columns, one letter each
    #[arg(short, long, value_name = "LETTERS")]
    pub columns: Option<String>,
    /// How it is shown
    #[command(flatten)]
    pub format: ListFormat,
    /// Images of every project
    #[arg(long)]
    pub all_projects: bool,
}

/// `image import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The unified tarball, or the metadata of a split image
    pub metadata: PathBuf,
    /// The root file system of a split image, then properties
    #[arg(value_name = "ROOTFS|KEY=VALUE")]
    pub rest: Vec<String>,
    /// An alias to make; can be given again
    #[arg(long)]
    pub alias: Vec<String>,
    /// Take aliases from the images that have them
    #[arg(long)]
    pub reuse: bool,
    /// Anybody may read it
    #[arg(long)]
    pub public: bool,
}

/// `image`.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Manage aliases
    #[command(subcommand)]
    Alias(Alias),
    /// Build an image from a definition the daemon ships, such as debian/12
    Build {
        /// The definition
        #[arg(add = ArgValueCompleter::new(complete::definitions))]
        name: String,
    },
    /// Delete images
    #[command(visible_alias = "rm")]
    Delete {
        /// Aliases or fingerprints
        #[arg(required = true, add = ArgValueCompleter::new(complete::images))]
        images: Vec<String>,
    },
    /// Edit what can be changed of an image, as YAML
    Edit {
        /// Alias or fingerprint
        #[arg(add = ArgValueCompleter::new(complete::images))]
        image: String,
    },
    /// Write an image to files
    Export {
        /// Alias or fingerprint
        #[arg(add = ArgValueCompleter::new(complete::images))]
        image: String,
        /// A directory, or the beginning of the file names; `-` is standard output
        #[arg(add = ArgValueCompleter::new(complete::locals))]
        target: Option<String>,
    },
    /// Show the value of a property
    GetProperty {
        /// Alias or fingerprint
        #[arg(add = ArgValueCompleter::new(complete::images))]
        image: String,
        /// The property
        key: String,
    },
    /// Import an image from files
    Import(Import),
    /// Show what an image is
    Info {
        /// Alias or fingerprint
        #[arg(add = ArgValueCompleter::new(complete::images))]
        image: String,
    },
    /// List images
    #[command(visible_alias = "ls")]
    List(List),
    /// Set a property
    SetProperty {
        /// Alias or fingerprint
        #[arg(add = ArgValueCompleter::new(complete::images))]
        image: String,
        /// The property
        key: String,
        /// Its value
        value: String,
    },
    /// Show what can be changed of an image
    Show {
        /// Alias or fingerprint
        #[arg(add = ArgValueCompleter::new(complete::images))]
        image: String,
    },
    /// Take properties away
    UnsetProperty {
        /// Alias or fingerprint
        #[arg(add = ArgValueCompleter::new(complete::images))]
        image: String,
        /// The properties
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
}

/// `image alias`.
#[derive(Debug, Subcommand)]
pub enum Alias {
    /// Make an alias
    Create {
        /// The alias
        alias: String,
        /// The fingerprint it points to
        fingerprint: String,
        /// Words for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete aliases
    #[command(visible_alias = "rm")]
    Delete {
        /// The aliases
        #[arg(required = true, add = ArgValueCompleter::new(complete::images))]
        aliases: Vec<String>,
    },
    /// List aliases
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns [default: aftd]:
  a  alias                f  fingerprint          t  type
  d  description"
    )]
    List {
        /// Words in the alias or the fingerprint; one of them must be there
        filter: Vec<String>,
        /// Which columns
        #[command(flatten)]
        list: ColumnList,
    },
    /// Give an alias a new name
    #[command(visible_alias = "mv")]
    Rename {
        /// The alias
        #[arg(add = ArgValueCompleter::new(complete::images))]
        alias: String,
        /// Its new name
        new: String,
    },
}
