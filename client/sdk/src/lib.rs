//! A client of the Incus 1.0 REST API over a unix socket: one method per route, operations, websockets.
//!
//! Nothing here prints, asks or decides for a person: that is the command line's. One connection is kept
//! and used again; websockets and streams open their own.

#![forbid(unsafe_code)]

mod address;
mod backups;
mod connection;
mod error;
mod events;
mod files;
mod images;
mod instances;
mod networks;
mod operations;
mod profiles;
mod request;
mod server;
mod sessions;
mod snapshots;
mod storage;
mod templates;
mod upload;
mod volumes;

pub use address::Address;
pub use backups::{BackupDownload, BackupUpload};
pub use connection::{Body, Client, Upgraded, full_body};
pub use error::{Error, Kind, Result};
pub use events::Events;
pub use files::{FileBody, FileContent, FileKind, NewFile, WriteMode};
pub use images::{ImageDownload, ImageFile, ImageUpload, Part};
pub use instances::Recursion;
pub use request::{ETag, Reply, Tagged};
pub use sessions::{Console, Session};
pub use storage::StoragePools;
pub use upload::Sent;
pub use volumes::custom_volume;

/// A websocket over the unix socket.
pub type Socket = tokio_tungstenite::WebSocketStream<tokio::net::UnixStream>;
