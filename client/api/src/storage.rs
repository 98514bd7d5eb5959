//! Storage pools and volumes.

use serde::{Deserialize, Serialize};

use crate::lenient::{ConfigMap, null_is_zero};

/// A pool as it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pool {
    /// Config.
    pub config: ConfigMap,
    /// For people.
    pub description: String,
    /// The name.
    pub name: String,
    /// `overlay`, `dir`, `btrfs`.
    pub driver: String,
    /// Addresses of what uses it.
    #[serde(deserialize_with = "null_is_zero")]
    pub used_by: Vec<String>,
    /// `Created`, `Unavailable`.
    pub status: String,
    /// Cluster members that have it.
    #[serde(deserialize_with = "null_is_zero")]
    pub locations: Vec<String>,
}

/// A pool to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolsPost {
    /// Config.
    #[serde(default)]
    pub config: ConfigMap,
    /// For people.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub description: String,
    /// The name.
    #[serde(default)]
    pub name: String,
    /// The driver.
    #[serde(default)]
    pub driver: String,
}

/// The part of a pool (or network) that PUT and PATCH change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPut {
    /// Config.
    #[serde(default)]
    pub config: ConfigMap,
    /// For people.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub description: String,
}

/// What a pool has left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolResources {
    /// Bytes.
    pub space: Usage,
    /// Inodes.
    pub inodes: Usage,
}

/// Used and total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Used.
    pub used: u64,
    /// In all.
    pub total: u64,
}

/// A volume as it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Config.
    pub config: ConfigMap,
    /// For people.
    pub description: String,
    /// The name.
    pub name: String,
    /// `container`, `image`, `custom`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Addresses of what uses it.
    #[serde(deserialize_with = "null_is_zero")]
    pub used_by: Vec<String>,
    /// The cluster member; `none`.
    pub location: String,
    /// `filesystem`.
    pub content_type: String,
    /// The project.
    pub project: String,
    /// RFC 3339.
    pub created_at: String,
}
