//! Definitions: the part of distrobuilder's YAML that is implemented. A field that is not, is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The largest definition, in bytes.
const MOST_BYTES: usize = 1024 * 1024;

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

/// What `-o KEY=VALUE` can set.
const OPTIONS: &[&str] = &[
    "image.architecture",
    "image.description",
    "image.expiry",
    "image.name",
    "image.release",
    "image.serial",
    "image.variant",
    "source.check_valid_until",
    "source.components",
    "source.suite",
    "source.url",
];

impl Definition {
    /// Reads a definition and sets `options` over it.
    ///
    /// # Errors
    /// When it is no YAML of this shape (with line and column), or an option is unknown.
    pub fn parse(name: &str, text: &str, options: &[(String, String)]) -> Result<Definition> {
        let wrong = |field: &str, rule: String| Error::Definition {
            name: name.to_owned(),
            field: field.to_owned(),
            rule,
        };
        if text.len() > MOST_BYTES {
            return Err(wrong("the file", "is longer than 1 MiB".to_owned()));
        }
        let mut read: Definition =
            serde_yaml::from_str(text).map_err(|source| Error::Parse { name: name.to_owned(), source })?;
        for (key, value) in options {
            read.set(key, value)?;
        }
        if read.source.suite.is_empty() {
            read.source.suite = read.image.release.clone();
        }
        if read.source.components.is_empty() {
            read.source.components = vec!["main".to_owned()];
        }
        if read.source.downloader == Downloader::Debootstrap && read.source.url.is_empty() {
            return Err(wrong("source.url", "is missing".to_owned()));
        }
        if read.source.downloader == Downloader::Debootstrap && read.source.suite.is_empty() {
            return Err(wrong("image.release", "is missing".to_owned()));
        }
        for (field, value) in [
            ("distribution", &read.image.distribution),
            ("variant", &read.image.variant),
            ("release", &read.image.release),
            ("architecture", &read.image.architecture),
            ("suite", &read.source.suite),
        ] {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
            if !value.bytes().all(plain) || value.starts_with('-') {
                return Err(wrong(field, format!("`{value}` is not a plain word")));
            }
        }
        read.lifetime().ok_or_else(|| {
            wrong("image.expiry", format!("`{}` is not a time such as `30d`", read.image.expiry))
        })?;
        for file in &read.files {
            file.check().map_err(|rule| wrong(&format!("files: `{}`", file.path), rule))?;
        }
        Ok(read)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let value = value.to_owned();
        match key {
            "image.architecture" => self.image.architecture = value,
            "image.description" => self.image.description = value,
            "image.expiry" => self.image.expiry = value,
            "image.name" => self.image.name = value,
            "image.release" => self.image.release = value,
            "image.serial" => self.image.serial = value,
            "image.variant" => self.image.variant = value,
            "source.components" => self.source.components = value.split(',').map(str::to_owned).collect(),
            "source.suite" => self.source.suite = value,
            "source.check_valid_until" => self.source.check_valid_until = value != "false",
            "source.url" => self.source.url = value,
            _ => return Err(Error::Option { option: key.to_owned(), known: OPTIONS.join(", ") }),
        }
        Ok(())
    }

    /// For how many seconds the image should be used.
    #[must_use]
    pub fn lifetime(&self) -> Option<i64> {
        let text = &self.image.expiry;
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let factor = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return None,
        };
        digits.parse::<u32>().ok().and_then(|number| i64::from(number).checked_mul(factor))
    }

    /// The architecture as the distribution names it.
    #[must_use]
    pub fn mapped_architecture(&self) -> String {
        let kernel = self.image.architecture.as_str();
        if let Some(own) = self.mappings.architectures.get(kernel) {
            return own.clone();
        }
        match (self.mappings.architecture_map.as_str(), kernel) {
            ("debian", "x86_64") => "amd64",
            ("debian", "aarch64") => "arm64",
            ("debian", "i686") => "i386",
            ("debian", "armv7l") => "armhf",
            ("debian", "ppc64le") => "ppc64el",
            (_, other) => other,
        }
        .to_owned()
    }

    /// Puts what the image is called into a text.
    ///
    /// # Errors
    /// When the text's placeholders are wrong.
    pub fn fill(&self, what: &str, text: &str) -> Result<String> {
        let image = &self.image;
        let values: BTreeMap<&str, &str> = [
            ("distribution", image.distribution.as_str()),
            ("release", &image.release),
            ("variant", &image.variant),
            ("architecture", &image.architecture),
            ("serial", &image.serial),
        ]
        .into_iter()
        .collect();
        let mapped = self.mapped_architecture();
        let mut image = values;
        image.insert("architecture_mapped", &mapped);
        cabin_templates::render_with(text, BTreeMap::from([("image", image)]))
            .map_err(|source| Error::Render { what: what.to_owned(), source })
    }
}

impl FileEntry {
    fn check(&self) -> std::result::Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "image: {distribution: debian, release: bookworm}\n\
        source: {downloader: debootstrap, url: http://deb.debian.org/debian}\n\
        mappings: {architecture_map: debian}\n";

    #[test]
    fn what_is_missing_is_filled_in() {
        let read = Definition::parse("x", SMALL, &[]).unwrap();
        assert_eq!(read.source.suite, "bookworm");
        assert_eq!(read.image.variant, "default");
        assert_eq!(read.lifetime(), Some(30 * 86_400));
    }

    #[test]
    fn options_are_set_over_the_file() {
        let options = [
            ("image.release", "trixie"),
            ("image.architecture", "x86_64"),
            ("source.components", "main,contrib"),
        ];
        let options: Vec<_> =
            options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let read = Definition::parse("x", SMALL, &options).unwrap();
        assert_eq!((read.source.suite.as_str(), read.source.components.len()), ("trixie", 2));
        assert_eq!(
            read.fill("it", "{{ image.release }} {{ image.architecture_mapped }}").unwrap(),
            "trixie amd64"
        );
        let unknown = [("image.colour".to_owned(), "red".to_owned())];
        assert!(Definition::parse("x", SMALL, &unknown).unwrap_err().to_string().contains("image.colour"));
    }

    #[test]
    fn what_is_not_implemented_is_refused_with_its_line() {
        let check = |text: String, words: &str| {
            let error = Definition::parse("x", &text, &[]).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let all = format!("{error}: {source}");
            assert!(all.contains(words), "{all}");
        };
        check(format!("{SMALL}environment: {{}}\n"), "line 4");
        check(SMALL.replace("downloader: debootstrap", "downloader: docker-http"), "docker-http");
        check(SMALL.replace("release: bookworm", "release: '../x'"), "plain word");
        check(format!("{SMALL}files:\n- {{generator: dump, path: /a/../b}}\n"), "plain");
        check(format!("{SMALL}files:\n- {{generator: cloud-init, path: /a}}\n"), "cloud-init");
        check(format!("{SMALL}files:\n- {{generator: dump, path: /a, mode: 0999}}\n"), "not a number");
        check(format!("{SMALL}actions:\n- {{trigger: pre-anything, action: x}}\n"), "pre-anything");
        check(SMALL.replace("release: bookworm", "release: a, expiry: soon"), "expiry");
    }

    #[test]
    fn entries_are_for_the_images_their_filters_name() {
        let image = Definition::parse("x", SMALL, &[]).unwrap().image;
        let filter = |releases: &[&str]| Filter {
            releases: releases.iter().map(|it| (*it).to_owned()).collect(),
            ..Filter::default()
        };
        assert!(filter(&[]).passes(&image) && filter(&["a", "bookworm"]).passes(&image));
        assert!(!filter(&["trixie"]).passes(&image));
    }
}
