//! What goes over the wire: the Incus 1.0 REST objects as plain data. No I/O, no rules.
//!
//! Field names, their case and their zero values are those of Incus 7 (`shared/api` there), because other
//! people's clients read them. Input is read leniently (missing or null is the zero value; numbers and bools
//! in config maps become text), output is always complete.

#![forbid(unsafe_code)]

pub mod backup;
pub mod diff;
pub mod event;
pub mod image;
pub mod instance;
pub mod lenient;
pub mod network;
pub mod operation;
pub mod profile;
pub mod project;
pub mod rebuild;
pub mod reply;
pub mod server;
pub mod snapshot;
pub mod status;
pub mod storage;
pub mod volume;
pub mod warning;

pub use lenient::{ConfigMap, DevicesMap};
pub use status::StatusCode;

/// The time that means "never" or "not set" on the wire.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// The same for an image's end and an instance's last use, which Incus sends so.
pub const UNIX_ZERO: &str = "1970-01-01T00:00:00Z";
