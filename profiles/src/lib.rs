//! What an instance may be: THE table of config keys and device properties, and the parsers of their
//! values. Pure: no I/O. Which host things a value leads to, others decide.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

pub mod check;
pub mod device;
pub mod disk;
pub mod document;
pub mod error;
pub mod expand;
pub mod key;
pub mod kind;
pub mod limits;
pub mod network;
pub mod reference;
pub mod shipped;
pub mod value;

pub use check::{
    Who, mount_options, root_disk, validate_device, validate_devices, validate_expanded_devices,
    validate_instance_config, validate_network, validate_own_volume, validate_pool, validate_server,
    validate_volume,
};
pub use document::Document;
pub use error::Error;
pub use expand::expand;
pub use key::{Key, Restriction, is_live, restriction};
pub use limits::{HostFacts, Limits};
pub use reference::{metadata_json, reference_markdown};
pub use shipped::SHIPPED;

/// Config: key to value. A value that is empty is not set.
pub type Config = BTreeMap<String, String>;

/// A device: property to value, `type` among them.
pub type Device = BTreeMap<String, String>;

/// Devices by name.
pub type Devices = BTreeMap<String, Device>;
