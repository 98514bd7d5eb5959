//! Operations: long work that can be watched, waited for and cancelled.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::StatusCode;
use crate::lenient::null_is_zero;

/// What kind of work an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Work on its own.
    Task,
    /// Work that talks to the client over websockets.
    Websocket,
    /// A secret waiting to be used.
    Token,
}

/// An operation as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// The id (UUID).
    pub id: String,
    /// The kind of work.
    pub class: Class,
    /// A fixed sentence: `Creating instance` …
    pub description: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// The text of the status.
    pub status: String,
    /// The status.
    pub status_code: StatusCode,
    /// What it works on: kind (`instances` …) to addresses.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub resources: BTreeMap<String, Vec<String>>,
    /// Progress, results, websocket secrets.
    #[serde(default)]
    pub metadata: Value,
    /// Whether DELETE will be obeyed.
    pub may_cancel: bool,
    /// Why it failed; empty otherwise.
    pub err: String,
    /// The cluster member; `none` on a single host.
    #[serde(default)]
    pub location: String,
}
