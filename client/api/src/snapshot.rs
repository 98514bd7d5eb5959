//! Snapshots of instances, and what is asked of them.

use serde::{Deserialize, Serialize};

use crate::lenient::{ConfigMap, DevicesMap, null_is_zero};

/// A snapshot of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceSnapshot {
    /// The name, without the instance's.
    pub name: String,
    /// `x86_64` …
    pub architecture: String,
    /// The instance's own config by then.
    pub config: ConfigMap,
    /// RFC 3339.
    pub created_at: String,
    /// For people.
    pub description: String,
    /// The instance's own devices by then.
    pub devices: DevicesMap,
    /// Whether the instance was deleted when it stopped.
    pub ephemeral: bool,
    /// Config with the profiles, as they are now, under it.
    pub expanded_config: ConfigMap,
    /// Devices with the profiles, as they are now, under them.
    pub expanded_devices: DevicesMap,
    /// RFC 3339; the zero time for never.
    pub expires_at: String,
    /// RFC 3339.
    pub last_used_at: String,
    /// The instance's profiles, in order.
    #[serde(deserialize_with = "null_is_zero")]
    pub profiles: Vec<String>,
    /// Bytes beyond what it shares; -1 when not known.
    pub size: i64,
    /// Whether memory is in it.
    pub stateful: bool,
}

/// A snapshot to be taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceSnapshotsPost {
    /// The name; made by `snapshots.pattern` when empty.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// Whether memory is to be in it.
    #[serde(deserialize_with = "null_is_zero")]
    pub stateful: bool,
    /// Whether the custom volumes attached to it get a snapshot of that name, of the same moment. Not Incus's.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_zero")]
    pub volumes: bool,
    /// RFC 3339, the zero time for never; when missing, the instance's config says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A new name for a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceSnapshotPost {
    /// The new name.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// Whether it goes to another server.
    #[serde(deserialize_with = "null_is_zero")]
    pub migration: bool,
}

/// What PUT (and PATCH) change of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceSnapshotPut {
    /// RFC 3339; the zero time or nothing for never.
    #[serde(deserialize_with = "null_is_zero")]
    pub expires_at: String,
}
