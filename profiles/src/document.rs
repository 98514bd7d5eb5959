//! A profile as a YAML document: `name`, `description`, `config`, `devices`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::{Who, validate_devices, validate_instance_config};
use crate::error::Error;
use crate::value::name;
use crate::{Config, Devices};

/// The largest document that is read, in bytes: the YAML scanner takes quadratic time on hostile input.
pub const MOST_BYTES: usize = 1024 * 1024;

/// A profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Document {
    /// The name; may be left out where the name comes from elsewhere.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// For people.
    pub description: String,
    /// Config.
    pub config: Config,
    /// Devices.
    pub devices: Devices,
}

/// A map whose values may be null.
type Scalars = BTreeMap<String, Option<String>>;

/// The document as it is read. Every scalar is taken as the text that stands there, and null as empty, so
/// that `limits.cpu: 2` and `limits.cpu: "2"` are the same and `1.10` stays `1.10`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Option<String>,
    description: Option<String>,
    config: Option<Scalars>,
    devices: Option<BTreeMap<String, Option<Scalars>>>,
    // What the server adds when a profile is shown; taken so that what was shown can be given back.
    #[serde(rename = "used_by")]
    _used_by: Option<Vec<String>>,
    #[serde(rename = "project")]
    _project: Option<String>,
}

fn texts(map: Scalars) -> Config {
    map.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()
}

impl Document {
    /// Reads and checks a document. An empty one is an empty profile.
    ///
    /// # Errors
    /// When it is too large, no YAML, has fields a profile has not, or a config or device is refused.
    pub fn parse(text: &str) -> Result<Document, Error> {
        if text.len() > MOST_BYTES {
            return Err(Error::TooLarge {
                what: "the document".to_owned(),
                size: text.len(),
                most: MOST_BYTES,
            });
        }
        let raw: Option<Raw> = serde_yaml::from_str(text).map_err(|source| {
            let (line, column) = source.location().map_or((0, 0), |place| (place.line(), place.column()));
            Error::Document { line, column, source }
        })?;
        let Some(raw) = raw else { return Ok(Document::default()) };
        let devices = raw.devices.unwrap_or_default();
        let document = Document {
            name: raw.name.unwrap_or_default(),
            description: raw.description.unwrap_or_default(),
            config: texts(raw.config.unwrap_or_default()),
            devices: devices
                .into_iter()
                .map(|(name, device)| (name, texts(device.unwrap_or_default())))
                .collect(),
        };
        if !document.name.is_empty() {
            name::object(&document.name).map_err(|source| Error::Name { what: "profile", source })?;
        }
        validate_instance_config(&document.config, Who::Profile)?;
        validate_devices(&document.devices, Who::Profile)?;
        Ok(document)
    }

    /// Writes the document.
    ///
    /// # Errors
    /// When a text cannot be written as YAML.
    pub fn render(&self) -> Result<String, Error> {
        serde_yaml::to_string(self).map_err(|source| Error::Render { name: self.name.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_taken_as_they_are_written() {
        let text = "config:\n  limits.cpu: 2\n  security.nesting: true\n  user.a: ~\n  user.b: 1.10\n  user.c: 010\n  \
                    user.d: yes\n  user.e: \"x: y\"\ndevices:\n  eth0: {type: nic, network: br0, mtu: 1400}\n";
        let document = Document::parse(text).unwrap();
        let check = |key: &str, value: &str| assert_eq!(document.config[key], value, "{key}");
        check("limits.cpu", "2");
        check("security.nesting", "true");
        check("user.a", "");
        check("user.b", "1.10");
        check("user.c", "010");
        check("user.d", "yes");
        check("user.e", "x: y");
        assert_eq!(document.devices["eth0"]["mtu"], "1400");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = "name: web\ndescription: ''\nconfig:\n  user.a: 'on'\n  user.b: |-\n    x\n    y\n  user.c: '~'\ndevices: {}\n";
        let document = Document::parse(text).unwrap();
        assert_eq!(Document::parse(&document.render().unwrap()).unwrap(), document);
        assert_eq!(document.config["user.b"], "x\ny");
    }

    #[test]
    fn an_error_names_the_line() {
        let check = |text: &str, line: usize, words: &str| match Document::parse(text) {
            Err(Error::Document { line: found, source, .. }) => {
                assert_eq!(found, line, "{text}: {source}");
                assert!(source.to_string().contains(words), "{source}");
            }
            other => panic!("{text}: {other:?}"),
        };
        check("name: a\nconfg: {}\n", 2, "confg");
        check("config:\n  a: [1]\n", 2, "");
        check("a: b: c\n", 1, "");
    }

    #[test]
    fn what_a_profile_may_not_say_is_refused() {
        let check = |text: &str, words: &str| {
            let error = Document::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        };
        check("config: {volatile.uuid: x}", "volatile.uuid");
        check("config: {limits.memroy: 1GiB}", "did you mean `limits.memory`");
        check("devices: {eth0: {type: nic}}", "`network`");
        check("devices: {gpu: {type: gpu}}", "not supported yet");
        check("name: a b", "profile");
        check(&"#".repeat(MOST_BYTES + 1), "too large");
    }

    #[test]
    fn hostile_documents_end_in_an_error() {
        assert!(Document::parse(&"[".repeat(5000)).is_err());
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b]\n";
        assert!(Document::parse(bomb).is_err());
        assert_eq!(Document::parse("").unwrap(), Document::default());
    }
}
