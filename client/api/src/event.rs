//! What the events websocket carries.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `lifecycle`, `logging` or `operation`.
    #[serde(rename = "type")]
    pub kind: String,
    /// RFC 3339.
    pub timestamp: String,
    /// A [`Lifecycle`], a [`Logging`] or an operation.
    pub metadata: Value,
    /// The cluster member; `none` on a single host.
    #[serde(default)]
    pub location: String,
    /// The project; empty for what belongs to none.
    #[serde(default)]
    pub project: String,
}

/// Something happened to an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// `instance-started`, `profile-updated` …
    pub action: String,
    /// The object's address.
    pub source: String,
    /// Details that differ by action.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub context: Value,
    /// Who asked; none when the daemon acted by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestor: Option<Requestor>,
    /// The object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The object's project.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project: String,
}

/// Who asked for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requestor {
    /// The user's name.
    pub username: String,
    /// `unix` …
    pub protocol: String,
    /// Where from; `@` for the unix socket.
    #[serde(default)]
    pub address: String,
}

/// A line of the daemon's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logging {
    /// The text.
    pub message: String,
    /// `error`, `warning`, `info`, `debug`.
    pub level: String,
    /// Fields.
    pub context: Value,
}
