//! The envelopes every reply comes in.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Any reply, as a client reads it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// `sync`, `async` or `error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status text; empty in errors.
    #[serde(default)]
    pub status: String,
    /// 200 for sync, 100 for async, 0 in errors.
    #[serde(default)]
    pub status_code: u16,
    /// The operation's address, in async replies.
    #[serde(default)]
    pub operation: String,
    /// The HTTP code again, in errors.
    #[serde(default)]
    pub error_code: u16,
    /// What went wrong, in errors.
    #[serde(default)]
    pub error: String,
    /// The object, list or operation.
    #[serde(default)]
    pub metadata: Value,
}
