//! Warnings: what does not stop the server but somebody should know.

use serde::{Deserialize, Serialize};

/// A warning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Its id.
    pub uuid: String,
    /// The cluster member; `none`.
    pub location: String,
    /// The project of the entity, if it lies in one.
    pub project: String,
    /// What sort of trouble it is, as a sentence.
    #[serde(rename = "type")]
    pub kind: String,
    /// How often it was seen.
    pub count: u64,
    /// RFC 3339.
    pub first_seen_at: String,
    /// RFC 3339.
    pub last_seen_at: String,
    /// Why, the last time.
    pub last_message: String,
    /// `low`, `moderate`, `high`.
    pub severity: String,
    /// `new`, `acknowledged`, `resolved`.
    pub status: String,
    /// The address of what it is about.
    pub entity_url: String,
}

/// What can be changed of a warning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WarningPut {
    /// `new` or `acknowledged`.
    pub status: String,
}
