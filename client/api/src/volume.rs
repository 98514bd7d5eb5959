//! Custom storage volumes and their snapshots, and what is asked of them.

use serde::{Deserialize, Serialize};

use crate::lenient::{ConfigMap, null_is_zero};

/// A volume to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumesPost {
    /// Config.
    pub config: ConfigMap,
    /// For people.
    #[serde(deserialize_with = "null_is_zero")]
    pub description: String,
    /// The name.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// `custom`.
    #[serde(rename = "type", deserialize_with = "null_is_zero")]
    pub kind: String,
    /// `filesystem`, or nothing.
    #[serde(deserialize_with = "null_is_zero")]
    pub content_type: String,
    /// What it is a copy of.
    #[serde(deserialize_with = "null_is_zero")]
    pub source: VolumeSource,
}

/// What a volume is a copy of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeSource {
    /// The volume, or VOLUME/SNAPSHOT.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// `copy`, `migration`; nothing for an empty volume.
    #[serde(rename = "type", deserialize_with = "null_is_zero")]
    pub kind: String,
    /// The pool the source is in; the same one when empty.
    #[serde(deserialize_with = "null_is_zero")]
    pub pool: String,
    /// Whether to leave the snapshots out.
    #[serde(deserialize_with = "null_is_zero")]
    pub volume_only: bool,
    /// Whether an existing copy is brought up to date.
    #[serde(deserialize_with = "null_is_zero")]
    pub refresh: bool,
    /// Whether snapshots older than the newest common one stay out of it.
    #[serde(deserialize_with = "null_is_zero")]
    pub refresh_exclude_older: bool,
    /// The project to copy from.
    #[serde(deserialize_with = "null_is_zero")]
    pub project: String,
}

/// What PUT and PATCH change of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumePut {
    /// Config.
    pub config: ConfigMap,
    /// For people.
    #[serde(deserialize_with = "null_is_zero")]
    pub description: String,
    /// The snapshot that is to be brought back.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_zero")]
    pub restore: String,
}

/// A new name or place for a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumePost {
    /// The new name.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// The pool it goes to; the same one when empty.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_zero")]
    pub pool: String,
    /// Whether it goes to another server.
    #[serde(deserialize_with = "null_is_zero")]
    pub migration: bool,
    /// Whether to leave the snapshots behind.
    #[serde(deserialize_with = "null_is_zero")]
    pub volume_only: bool,
    /// The project it goes to.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_zero")]
    pub project: String,
}

/// A snapshot of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeSnapshot {
    /// The volume's config by then.
    pub config: ConfigMap,
    /// For people.
    pub description: String,
    /// RFC 3339; for never nothing in a list, and the zero time alone.
    pub expires_at: Option<String>,
    /// In lists VOLUME/SNAPSHOT, alone without the volume.
    pub name: String,
    /// `filesystem`.
    pub content_type: String,
    /// RFC 3339.
    pub created_at: String,
}

/// A snapshot to be taken of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeSnapshotsPost {
    /// The name; made by `snapshots.pattern` when empty.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// For people.
    #[serde(deserialize_with = "null_is_zero")]
    pub description: String,
    /// RFC 3339, the zero time for never; when missing, the volume's config says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A new name for a snapshot of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeSnapshotPost {
    /// The new name.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// Whether it goes to another server.
    #[serde(deserialize_with = "null_is_zero")]
    pub migration: bool,
}

/// What PUT and PATCH change of a snapshot of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeSnapshotPut {
    /// For people.
    #[serde(deserialize_with = "null_is_zero")]
    pub description: String,
    /// RFC 3339; the zero time or nothing for never.
    #[serde(deserialize_with = "null_is_zero")]
    pub expires_at: String,
}

/// A backup of a volume that is kept on the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeBackup {
    /// The name.
    pub name: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; the zero time is never.
    pub expires_at: String,
    /// Whether the snapshots are left out.
    pub volume_only: bool,
    /// Whether trees are in the storage driver's own form.
    pub optimized_storage: bool,
}

/// A backup to be made of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeBackupsPost {
    /// The name; one is made up when empty. Not used when the backup is only sent.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// RFC 3339; empty or the zero time is never.
    #[serde(deserialize_with = "null_is_zero")]
    pub expires_at: String,
    /// Whether to leave the snapshots out.
    #[serde(deserialize_with = "null_is_zero")]
    pub volume_only: bool,
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

/// A volume with what belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFull {
    /// The volume itself.
    #[serde(flatten)]
    pub volume: crate::storage::Volume,
    /// Its backups.
    #[serde(default)]
    pub backups: Option<Vec<VolumeBackup>>,
    /// Its snapshots.
    #[serde(default)]
    pub snapshots: Option<Vec<VolumeSnapshot>>,
    /// What it uses.
    #[serde(default)]
    pub state: Option<VolumeState>,
}

/// What a volume uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeState {
    /// Bytes; nothing for volumes that are not measured.
    pub usage: Option<crate::storage::Usage>,
}
