//! Backups of instances: tarballs with all that belongs to one.

use serde::{Deserialize, Serialize};

use crate::lenient::null_is_zero;

/// A backup that is kept on the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceBackup {
    /// The name.
    pub name: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; the zero time is never.
    pub expires_at: String,
    /// Whether the snapshots are left out.
    pub instance_only: bool,
    /// The same by an older name.
    pub container_only: bool,
    /// Whether trees are in the storage driver's own form.
    pub optimized_storage: bool,
}

/// A backup to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceBackupsPost {
    /// The name; one is made up when empty. Not used when the backup is only sent.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// RFC 3339; empty or the zero time is never.
    #[serde(deserialize_with = "null_is_zero")]
    pub expires_at: String,
    /// Whether to leave the snapshots out.
    #[serde(deserialize_with = "null_is_zero")]
    pub instance_only: bool,
    /// The same by an older name.
    #[serde(deserialize_with = "null_is_zero")]
    pub container_only: bool,
    /// Whether to keep trees in the storage driver's own form.
    #[serde(deserialize_with = "null_is_zero")]
    pub optimized_storage: bool,
    /// `none`, `gzip`, `xz`, `zstd`; empty is the server's choice.
    #[serde(deserialize_with = "null_is_zero")]
    pub compression_algorithm: String,
    /// Somewhere else for it to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<serde_json::Value>,
}

/// A new name for a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceBackupPost {
    /// The new name.
    pub name: String,
}
