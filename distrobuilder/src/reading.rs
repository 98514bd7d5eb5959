//! Reading a definition: from text to a checked [`Definition`] with options set over it, and what it then knows.

use std::collections::BTreeMap;

use crate::definition::{Definition, Downloader};
use crate::error::{Error, Result};

/// The largest definition, in bytes.
const MOST_BYTES: usize = 1024 * 1024;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Filter;

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
