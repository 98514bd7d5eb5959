//! What the product means: instances, images, profiles, networks, pools and what may be done to them.
//!
//! Brings storage, network, runtime, images and store together; they do not know each other. Strings of
//! configuration end here (see [`resolve`]). Knows nothing of HTTP.

#![forbid(unsafe_code)]

pub mod audit;
mod backup;
mod busy;
mod clock;
mod defaults;
pub mod doctor;
mod error;
mod etag;
mod event;
mod fence;
pub mod hardware;
mod host;
mod ids;
pub mod image;
pub mod instance;
mod limits;
mod live;
mod measured;
pub mod network;
mod operation;
pub mod profile;
pub mod project;
mod quota;
mod recover;
mod resolve;
pub mod server;
mod settings;
mod shortage;
pub mod storage;
pub mod volume;
mod wanted;
pub mod warning;

pub use cabin_templates::MOST_SOURCE as MOST_TEMPLATE;
pub use error::{Error, Kind};
pub use etag::etag;
pub use event::{Events, on_behalf_of};
pub use host::Host;
pub use operation::{Op, Operations, Plan};
pub use settings::{DEFAULT_DIR, Settings};
pub use shortage::of as shortage;
pub use wanted::daemon_wanted;

/// The project everything lies in for now.
pub const DEFAULT_PROJECT: &str = "default";
