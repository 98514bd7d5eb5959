//! What the supervisor and the container's first process say to each other while it is built.

use std::os::fd::OwnedFd;

use cabin_runtime::wire::{self, Failure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::step::{Step, odd};

/// From the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToPayload {
    /// The user namespace has its maps.
    Mapped,
    /// The root filesystem is mounted; the descriptor is its root directory.
    Rooted,
    /// Become init.
    Release,
}

/// From the container's first process.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromPayload {
    /// It has a mount namespace of its own.
    Copied,
    /// All is in place. Descriptors: console master, netlink socket, root of the devpts.
    Ready,
    /// A step failed.
    Failed(Failure),
}

/// The next message, which must come.
pub fn next<T: DeserializeOwned>(socket: &OwnedFd, waiting_for: &str) -> Result<(T, Vec<OwnedFd>), Failure> {
    wire::receive(socket).step(waiting_for)?.ok_or_else(|| odd(waiting_for, "the other side has ended"))
}
