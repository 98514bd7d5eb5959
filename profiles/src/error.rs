//! What can be wrong with a config, a device or a profile document.

use crate::value::Invalid;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such key.
    #[error("unknown config key `{key}`{}", hint.as_deref().map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default())]
    UnknownKey {
        /// The key.
        key: String,
        /// A key that may have been meant.
        hint: Option<String>,
    },
    /// A key of Incus that will not come.
    #[error("config key `{key}` is not supported: {reason}")]
    RefusedKey {
        /// The key.
        key: String,
        /// Why.
        reason: &'static str,
    },
    /// A key that has no place in profiles.
    #[error("config key `{key}` belongs to instances, not to profiles")]
    NotInProfiles {
        /// The key.
        key: String,
    },
    /// A value that a key does not take.
    #[error("invalid value for config key `{key}`")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        #[source]
        source: Invalid,
    },
    /// A name that breaks its rule.
    #[error("invalid name of a {what}")]
    Name {
        /// Of what: `device`, `profile`.
        what: &'static str,
        /// What is wrong.
        #[source]
        source: Invalid,
    },
    /// A device without a type.
    #[error("device `{device}` has no type (`type` is missing)")]
    NoType {
        /// The device.
        device: String,
    },
    /// A device type that is not there.
    #[error("device `{device}` has type `{kind}`, which is not supported{}", if *later { " yet" } else { "" })]
    UnknownType {
        /// The device.
        device: String,
        /// Its type.
        kind: String,
        /// Whether Incus has it.
        later: bool,
    },
    /// A property that a device of that type does not have.
    #[error("device `{device}`: unknown property `{property}` of a `{kind}` device{}", hint.as_deref().map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default())]
    UnknownProperty {
        /// The device.
        device: String,
        /// Its type.
        kind: String,
        /// The property.
        property: String,
        /// A property that may have been meant.
        hint: Option<String>,
    },
    /// A value that a property does not take.
    #[error("device `{device}`: invalid value for property `{property}`")]
    Property {
        /// The device.
        device: String,
        /// The property.
        property: String,
        /// What is wrong.
        #[source]
        source: Invalid,
    },
    /// Properties that do not go together, or one that is missing.
    #[error("device `{device}`: {rule}")]
    Device {
        /// The device.
        device: String,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// Keys that do not go together.
    #[error("config key `{key}`: {rule}")]
    Rule {
        /// The key.
        key: String,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// No root disk after the profiles were applied.
    #[error(
        "no root disk: the instance needs a `disk` device with `path=/` and a `pool` (a profile usually brings it)"
    )]
    NoRootDisk,
    /// Two devices for one place or interface.
    #[error("devices `{first}` and `{second}` both have {what} `{value}`")]
    Clash {
        /// One.
        first: String,
        /// The other.
        second: String,
        /// `path`, `name`, `hwaddr`.
        what: &'static str,
        /// The value they share.
        value: String,
    },
    /// A limit that this host cannot hold.
    #[error("`{key}` asks for processor {cpu}, which this host does not have")]
    NoSuchCpu {
        /// The key.
        key: &'static str,
        /// The processor.
        cpu: u32,
    },
    /// A kind of network that is not there.
    #[error("networks of type `{kind}` are not supported (only `bridge`)")]
    NetworkType {
        /// The type.
        kind: String,
    },
    /// A pool driver that is not there.
    #[error("storage driver `{driver}` is not supported (there are: {})", crate::network::DRIVERS.join(", "))]
    Driver {
        /// The driver.
        driver: String,
    },
    /// More entries or longer values than anybody needs.
    #[error("{what} is too large ({size}, the most is {most})")]
    TooLarge {
        /// What.
        what: String,
        /// How large.
        size: usize,
        /// How large it may be.
        most: usize,
    },
    /// A profile document that cannot be read.
    #[error("cannot read the profile document")]
    Document {
        /// The line, from 1; 0 when not known.
        line: usize,
        /// The column, from 1; 0 when not known.
        column: usize,
        /// What is wrong; its text has the place.
        #[source]
        source: serde_yaml::Error,
    },
    /// A profile that cannot be written as YAML.
    #[error("cannot write profile `{name}` as a document")]
    Render {
        /// The profile.
        name: String,
        /// What is wrong.
        #[source]
        source: serde_yaml::Error,
    },
}
