//! What differs between two states of an instance's files.

use serde::{Deserialize, Serialize};

use crate::lenient::null_is_zero;

/// What differs between two states.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceDiff {
    /// The snapshot that is the earlier state; empty for the image.
    pub from: String,
    /// The snapshot that is the later state; empty for what is now.
    pub to: String,
    /// How many paths are only in the later state.
    pub added: u64,
    /// How many paths are in both and not the same.
    pub changed: u64,
    /// How many paths are only in the earlier state.
    pub removed: u64,
    /// Whether all that differs is listed.
    pub complete: bool,
    /// What differs, in the order of the paths.
    #[serde(deserialize_with = "null_is_zero")]
    pub entries: Vec<InstanceDiffEntry>,
}

/// A path that is not the same in both states.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceDiffEntry {
    /// `added`, `changed` or `removed`.
    pub change: String,
    /// The path, from the root on.
    pub path: String,
    /// `file`, `directory`, `symlink` or `special`: in the later state, or in the earlier one if it is removed.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes in the file in the earlier state.
    pub size_before: u64,
    /// Bytes in the file in the later state.
    pub size_after: u64,
}
