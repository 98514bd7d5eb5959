//! Definitions: the part of distrobuilder's YAML that is implemented. A field that is not, is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What an image is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What it is called.
    pub image: Image,
    /// Where its first tree comes from.
    pub source: Source,
    /// Settings of other container managers; read past.
    #[serde(default, skip_serializing)]
    pub targets: Option<serde_yaml::Value>,
    /// Files to make, change or remove.
    #[serde(default)]
    pub files: Vec<FileEntry>,
    /// Packages to install and remove.
    #[serde(default)]
    pub packages: Option<Packages>,
    /// Scripts to run inside.
    #[serde(default)]
    pub actions: Vec<Action>,
    /// Names of architectures.
    #[serde(default)]
    pub mappings: Mappings,
}

/// What an image is called.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// `debian`.
    pub distribution: String,
    /// `bookworm`.
    #[serde(default)]
    pub release: String,
    /// `default`.
    #[serde(default = "default_variant")]
    pub variant: String,
    /// As the kernel names it; the host's when missing.
    #[serde(default = "host_architecture")]
    pub architecture: String,
    /// For people; may have placeholders.
    #[serde(default = "default_description")]
    pub description: String,
    /// A short name; may have placeholders.
    #[serde(default = "default_name")]
    pub name: String,
    /// For how long it should be used: `30d`.
    #[serde(default = "default_expiry")]
    pub expiry: String,
    /// Which build it is; the time of the build when missing.
    #[serde(default)]
    pub serial: String,
}

fn default_variant() -> String {
    "default".to_owned()
}

fn host_architecture() -> String {
    std::env::consts::ARCH.to_owned()
}

fn default_description() -> String {
    "{{ image.distribution }} {{ image.release }} {{ image.architecture }} ({{ image.serial }})".to_owned()
}

fn default_name() -> String {
    "{{ image.distribution }}-{{ image.release }}-{{ image.architecture }}-{{ image.variant }}-{{ image.serial }}"
        .to_owned()
}

fn default_expiry() -> String {
    "30d".to_owned()
}

/// Where the first tree comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// How it is made.
    pub downloader: Downloader,
    /// Of which mirror.
    #[serde(default)]
    pub url: String,
    /// Of which suite; the release when missing.
    #[serde(default)]
    pub suite: String,
    /// Of which components; `main` when missing.
    #[serde(default)]
    pub components: Vec<String>,
    /// Which set of packages to begin with: `minbase`.
    #[serde(default)]
    pub variant: String,
    /// Whether package lists past their time are refused. `false` for a suite whose mirrors lag.
    #[serde(default = "yes")]
    pub check_valid_until: bool,
}

fn yes() -> bool {
    true
}

/// How the first tree is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Downloader {
    /// Debian's packages.
    Debootstrap,
    /// The host's static busybox.
    Busybox,
}

/// Which images an entry is for; empty is all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Filter {
    /// Releases.
    #[serde(default)]
    pub releases: Vec<String>,
    /// Variants.
    #[serde(default)]
    pub variants: Vec<String>,
    /// Architectures.
    #[serde(default)]
    pub architectures: Vec<String>,
}

impl Filter {
    /// Whether the entry is for `image`.
    #[must_use]
    pub fn passes(&self, image: &Image) -> bool {
        let has = |list: &[String], value: &str| list.is_empty() || list.iter().any(|entry| entry == value);
        has(&self.releases, &image.release)
            && has(&self.variants, &image.variant)
            && has(&self.architectures, &image.architecture)
    }
}

macro_rules! filtered {
    ($($name:ty),*) => {
        $(impl $name {
            /// Whether the entry is for `image`.
            #[must_use]
            pub fn passes(&self, image: &Image) -> bool {
                let filter = Filter {
                    releases: self.releases.clone(),
                    variants: self.variants.clone(),
                    architectures: self.architectures.clone(),
                };
                filter.passes(image)
            }
        })*
    };
}

filtered!(FileEntry, PackageSet, Repository, Action);

/// A file to make, change or remove.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// What is done.
    pub generator: Generator,
    /// Where, inside the tree.
    #[serde(default)]
    pub path: String,
    /// `dump` and `template`: the content.
    #[serde(default)]
    pub content: String,
    /// `copy`: the host's file.
    #[serde(default)]
    pub source: String,
    /// `template`: the name of the template's file.
    #[serde(default)]
    pub name: String,
    /// `template`: when it is rendered.
    #[serde(default)]
    pub template: TemplateWhen,
    /// Whether the content has placeholders for the build.
    #[serde(default)]
    pub pongo: bool,
    /// Permission bits, in octal.
    #[serde(default)]
    pub mode: Option<String>,
    /// Owner.
    #[serde(default)]
    pub uid: Option<String>,
    /// Group.
    #[serde(default)]
    pub gid: Option<String>,
    /// Only for these releases.
    #[serde(default)]
    pub releases: Vec<String>,
    /// Only for these variants.
    #[serde(default)]
    pub variants: Vec<String>,
    /// Only for these architectures.
    #[serde(default)]
    pub architectures: Vec<String>,
}

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generator {
    /// Write the content.
    Dump,
    /// Copy a file of the host.
    Copy,
    /// Add a template, rendered into each instance.
    Template,
    /// The shipped template of `/etc/hostname`.
    Hostname,
    /// The shipped template of `/etc/hosts`.
    Hosts,
    /// Remove what is there.
    Remove,
}

/// When a template is rendered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateWhen {
    /// `create`, `copy`, `rename`, `start`.
    #[serde(default)]
    pub when: Vec<cabin_templates::Trigger>,
    /// Values for the template alone.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// Packages to install and remove.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// With what.
    pub manager: ManagerName,
    /// Whether to bring everything up to date.
    #[serde(default)]
    pub update: bool,
    /// Whether to remove what the manager keeps for itself.
    #[serde(default)]
    pub cleanup: bool,
    /// More places packages come from. With `debootstrap` they are used from the first.
    #[serde(default)]
    pub repositories: Vec<Repository>,
    /// The packages.
    #[serde(default)]
    pub sets: Vec<PackageSet>,
}

/// A manager of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManagerName {
    /// Debian's.
    Apt,
}

/// A place packages come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// The file it is named in.
    pub name: String,
    /// For apt, lines of sources.list; may have placeholders.
    pub url: String,
    /// Only for these releases.
    #[serde(default)]
    pub releases: Vec<String>,
    /// Only for these variants.
    #[serde(default)]
    pub variants: Vec<String>,
    /// Only for these architectures.
    #[serde(default)]
    pub architectures: Vec<String>,
}

/// Some packages.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageSet {
    /// Their names.
    pub packages: Vec<String>,
    /// What is done with them.
    #[serde(default)]
    pub action: PackageAction,
    /// Whether they come with the first tree (`debootstrap` only): quicker.
    #[serde(default)]
    pub early: bool,
    /// Only for these releases.
    #[serde(default)]
    pub releases: Vec<String>,
    /// Only for these variants.
    #[serde(default)]
    pub variants: Vec<String>,
    /// Only for these architectures.
    #[serde(default)]
    pub architectures: Vec<String>,
}

/// What is done with packages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageAction {
    /// Install them.
    #[default]
    Install,
    /// Remove them.
    Remove,
}

/// A script to run inside.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// When.
    pub trigger: Trigger,
    /// The script, with its `#!` line.
    pub action: String,
    /// Whether it has placeholders.
    #[serde(default)]
    pub pongo: bool,
    /// Only for these releases.
    #[serde(default)]
    pub releases: Vec<String>,
    /// Only for these variants.
    #[serde(default)]
    pub variants: Vec<String>,
    /// Only for these architectures.
    #[serde(default)]
    pub architectures: Vec<String>,
}

/// When a script runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The source has made its tree.
    PostUnpack,
    /// Everything is up to date.
    PostUpdate,
    /// Packages are installed.
    PostPackages,
    /// Files are made.
    PostFiles,
}

impl Trigger {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Trigger::PostUnpack => "post-unpack",
            Trigger::PostUpdate => "post-update",
            Trigger::PostPackages => "post-packages",
            Trigger::PostFiles => "post-files",
        }
    }
}

/// Names of architectures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mappings {
    /// Whose names the distribution uses: `debian`.
    #[serde(default)]
    pub architecture_map: String,
    /// The kernel's name to the distribution's.
    #[serde(default)]
    pub architectures: BTreeMap<String, String>,
}

impl FileEntry {
    pub(crate) fn check(&self) -> Result<(), String> {
        let plain = self.path.starts_with('/')
            && self.path.len() > 1
            && self.path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !plain {
            return Err("the path must be absolute and plain".to_owned());
        }
        for (text, radix) in [(&self.mode, 8), (&self.uid, 10), (&self.gid, 10)] {
            if let Some(text) = text
                && u32::from_str_radix(text, radix).is_err()
            {
                return Err(format!("`{text}` is not a number"));
            }
        }
        match self.generator {
            Generator::Copy if !self.source.starts_with('/') => {
                Err("`source` must be an absolute path".to_owned())
            }
            Generator::Template if self.name.is_empty() || self.template.when.is_empty() => {
                Err("a template needs a `name` and `template.when`".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The permission bits, or `otherwise`.
    #[must_use]
    pub fn mode_or(&self, otherwise: u32) -> u32 {
        self.mode.as_deref().and_then(|text| u32::from_str_radix(text, 8).ok()).unwrap_or(otherwise)
    }

    /// Owner and group, where given.
    #[must_use]
    pub fn owner(&self) -> (Option<u32>, Option<u32>) {
        let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
        (number(&self.uid), number(&self.gid))
    }
}
