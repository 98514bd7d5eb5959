//! Profiles.

use serde::{Deserialize, Serialize};

use crate::lenient::{ConfigMap, DevicesMap, null_is_zero};

/// A profile as it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Config.
    #[serde(default)]
    pub config: ConfigMap,
    /// For people.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub description: String,
    /// Devices.
    #[serde(default)]
    pub devices: DevicesMap,
    /// The name.
    #[serde(default)]
    pub name: String,
    /// Addresses of what uses it.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub used_by: Vec<String>,
    /// The project.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub project: String,
}

/// The part of a profile that PUT and PATCH change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfilePut {
    /// Config.
    #[serde(default)]
    pub config: ConfigMap,
    /// For people.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub description: String,
    /// Devices.
    #[serde(default)]
    pub devices: DevicesMap,
}

/// A profile to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfilesPost {
    /// Config.
    #[serde(default)]
    pub config: ConfigMap,
    /// For people.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub description: String,
    /// Devices.
    #[serde(default)]
    pub devices: DevicesMap,
    /// The name.
    #[serde(default)]
    pub name: String,
}

/// A new name for an object (profiles, networks, projects …).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenamePost {
    /// The new name.
    #[serde(default)]
    pub name: String,
}
