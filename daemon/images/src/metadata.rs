//! What an image says about itself: `metadata.yaml` and the templates beside it.
//!
//! Reading is bounded and checked; nothing here touches the filesystem. Rendering templates belongs to others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The longest `metadata.yaml`, in bytes.
pub const MAX_METADATA: u64 = 1024 * 1024;
/// The most bytes all templates of an image may have together.
pub const MAX_TEMPLATES_SIZE: u64 = 1024 * 1024;
/// The most templates an image may have.
pub const MAX_TEMPLATES: usize = 256;
/// The most properties an image may have.
const MAX_PROPERTIES: usize = 1024;

/// What an image says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The architecture as the kernel names it (`x86_64`) or as Debian does (`amd64`).
    pub architecture: String,
    /// When it was made, in seconds since 1970.
    pub creation_date: i64,
    /// When it should no longer be used, in seconds since 1970; 0 is never.
    pub expiry_date: i64,
    /// Free text about it: `os`, `release`, `description` …
    pub properties: BTreeMap<String, String>,
    /// Files to be rendered into its instances.
    pub templates: Vec<Template>,
}

/// A file to be rendered into an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Where it goes: an absolute path inside the instance.
    pub path: String,
    /// When it is rendered: `create`, `copy`, `start`, `rename`.
    pub when: Vec<String>,
    /// The name of the file in `templates/`.
    pub name: String,
    /// Whether a file already there is left alone.
    pub create_only: bool,
    /// Owner inside the instance; the owner of what is there, or root, when missing.
    pub uid: Option<u32>,
    /// Group inside the instance.
    pub gid: Option<u32>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Values for the template alone.
    pub properties: BTreeMap<String, String>,
    /// The template itself.
    pub content: String,
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Document {
    architecture: String,
    creation_date: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    expiry_date: i64,
    #[serde(default)]
    properties: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    templates: Option<BTreeMap<String, DocumentTemplate>>,
}

#[derive(Serialize, Deserialize)]
struct DocumentTemplate {
    #[serde(default)]
    when: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    create_only: bool,
    template: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    properties: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gid: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Number>,
}

/// Incus writes these as text, people as numbers.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u32),
    Text(String),
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl Metadata {
    /// Parses `metadata.yaml`. The templates' contents are still empty: see [`Metadata::fill`].
    ///
    /// # Errors
    /// When it is too long, is not YAML of this form, or a name or path in it leads elsewhere.
    pub fn parse(yaml: &[u8]) -> Result<Metadata> {
        if yaml.len() as u64 > MAX_METADATA {
            return Err(refused("`metadata.yaml` is longer than 1 MiB", yaml.len()));
        }
        let document: Document =
            serde_yaml::from_slice(yaml).map_err(|source| Error::ParseMetadata { source })?;
        let properties = document.properties.unwrap_or_default();
        let listed = document.templates.unwrap_or_default();
        if properties.len() > MAX_PROPERTIES {
            return Err(refused("too many properties", properties.len()));
        }
        if listed.len() > MAX_TEMPLATES {
            return Err(refused("too many templates", listed.len()));
        }
        if document.architecture.is_empty() || document.architecture.len() > 64 {
            return Err(refused("not an architecture", document.architecture));
        }
        let templates = listed
            .into_iter()
            .map(|(path, entry)| {
                check_path(&path)?;
                check_name(&entry.template)?;
                let when = entry.when.unwrap_or_default();
                if let Some(odd) =
                    when.iter().find(|when| !["create", "copy", "rename", "start"].contains(&when.as_str()))
                {
                    return Err(refused("not a moment for a template", odd));
                }
                Ok(Template {
                    path,
                    when,
                    name: entry.template,
                    create_only: entry.create_only,
                    uid: entry.uid.map(|uid| number(uid, 10)).transpose()?,
                    gid: entry.gid.map(|gid| number(gid, 10)).transpose()?,
                    mode: entry.mode.map(|mode| number(mode, 8)).transpose()?,
                    properties: entry.properties.unwrap_or_default(),
                    content: String::new(),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Metadata {
            architecture: document.architecture,
            creation_date: document.creation_date,
            expiry_date: document.expiry_date,
            properties,
            templates,
        })
    }

    /// Puts the contents of the files of `templates/` where they belong.
    ///
    /// # Errors
    /// When one that is named is not there, or is not UTF-8.
    pub(crate) fn fill(&mut self, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
        for template in &mut self.templates {
            let content = files
                .get(&template.name)
                .ok_or_else(|| refused("a template file is missing", &template.name))?;
            template.content = String::from_utf8(content.clone())
                .map_err(|_| refused("a template is not UTF-8", &template.name))?;
        }
        Ok(())
    }

    /// Whether every template that is named is among `files`.
    pub(crate) fn satisfied_by(&self, files: &BTreeMap<String, Vec<u8>>) -> bool {
        self.templates.iter().all(|template| files.contains_key(&template.name))
    }

    /// Writes `metadata.yaml`.
    ///
    /// # Errors
    /// When it cannot be written as YAML.
    pub fn render(&self) -> Result<String> {
        let document = Document {
            architecture: self.architecture.clone(),
            creation_date: self.creation_date,
            expiry_date: self.expiry_date,
            properties: Some(self.properties.clone()),
            templates: (!self.templates.is_empty()).then(|| {
                self.templates.iter().map(|template| (template.path.clone(), template.document())).collect()
            }),
        };
        serde_yaml::to_string(&document).map_err(|source| Error::RenderMetadata { source })
    }
}

impl Template {
    fn document(&self) -> DocumentTemplate {
        DocumentTemplate {
            when: Some(self.when.clone()),
            create_only: self.create_only,
            template: self.name.clone(),
            properties: (!self.properties.is_empty()).then(|| self.properties.clone()),
            uid: self.uid.map(|uid| Number::Text(uid.to_string())),
            gid: self.gid.map(|gid| Number::Text(gid.to_string())),
            mode: self.mode.map(|mode| Number::Text(format!("{mode:04o}"))),
        }
    }
}

fn refused(why: &'static str, value: impl ToString) -> Error {
    Error::Metadata { why, value: value.to_string().chars().take(200).collect() }
}

fn number(number: Number, radix: u32) -> Result<u32> {
    match number {
        Number::Plain(value) => Ok(value),
        Number::Text(text) => {
            u32::from_str_radix(&text, radix).map_err(|_| refused("not an owner, group or mode", text))
        }
    }
}

fn check_path(path: &str) -> Result<()> {
    let plain = path.starts_with('/')
        && path.len() > 1
        && path.len() < 4096
        && !path.ends_with('/')
        && !path.chars().any(char::is_control)
        && path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
    if plain { Ok(()) } else { Err(refused("a template's target must be a plain absolute path", path)) }
}

/// Whether `name` can only be a file right in `templates/`.
#[must_use]
pub fn is_template_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+@".contains(&b))
}

fn check_name(name: &str) -> Result<()> {
    if is_template_name(name) {
        Ok(())
    } else {
        Err(refused("a template's name must be a plain file name", name))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOOD: &str = "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  os: Debian\n  serial: 20240101\n\
        templates:\n  /etc/hostname:\n    when: [create, copy]\n    create_only: true\n    template: hostname.tpl\n    mode: '0644'\n    uid: 7\n";

    #[test]
    fn what_is_rendered_parses_to_the_same() {
        let mut parsed = Metadata::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(parsed.properties["serial"], "20240101");
        assert_eq!(parsed.templates[0].mode, Some(0o644));
        assert_eq!(parsed.templates[0].uid, Some(7));
        let again = Metadata::parse(parsed.render().unwrap().as_bytes()).unwrap();
        assert_eq!(parsed, again);
        let files = BTreeMap::from([("hostname.tpl".to_owned(), b"{{ x }}".to_vec())]);
        parsed.fill(&files).unwrap();
        assert_eq!(parsed.templates[0].content, "{{ x }}");
        assert!(parsed.fill(&BTreeMap::new()).is_err());
    }

    #[test]
    fn names_and_paths_that_lead_elsewhere_are_refused() {
        let with = |path: &str, name: &str| {
            format!(
                "architecture: a\ncreation_date: 1\ntemplates:\n  \"{path}\": {{template: \"{name}\", when: [create]}}\n"
            )
        };
        Metadata::parse(with("/etc/x", "x.tpl").as_bytes()).unwrap();
        for path in ["etc/x", "/", "", "/etc/../x", "/./x", "//x", "/x/", "/a\\nb"] {
            assert!(Metadata::parse(with(path, "x.tpl").as_bytes()).is_err(), "{path}");
        }
        for name in ["", "../secret", "a/b", "/etc/passwd", ".", "..", ".hidden", "a b", "a\\nb"] {
            assert!(Metadata::parse(with("/etc/x", name).as_bytes()).is_err(), "{name}");
        }
    }

    #[test]
    fn bombs_end_soon() {
        let mut laughs = String::from("architecture: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            use std::fmt::Write;
            writeln!(laughs, "k{n}: &a{n} [{}]", vec![format!("*a{}", n - 1); 9].join(",")).unwrap();
        }
        assert!(Metadata::parse(laughs.as_bytes()).is_err());
        assert!(Metadata::parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(Metadata::parse(&vec![b' '; MAX_METADATA as usize + 1]).is_err());
        assert!(Metadata::parse(b"").is_err());
    }
}
