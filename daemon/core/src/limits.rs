//! How many of everything a user can make.

use crate::Error;

/// Instances of one daemon.
pub const INSTANCES: usize = 4096;
/// Snapshots of one instance.
pub const SNAPSHOTS: usize = 2048;
/// Listed differences between two states of an instance; all of them are counted.
pub const DIFFERENCES: usize = 20_000;
/// Kept backups of one instance.
pub const BACKUPS: usize = 256;
/// Profiles.
pub const PROFILES: usize = 1024;
/// Networks.
pub const NETWORKS: usize = 512;
/// Pools.
pub const POOLS: usize = 64;
/// Custom volumes of one pool.
pub const VOLUMES: usize = 4096;
/// Images.
pub const IMAGES: usize = 10_000;
/// Image aliases.
pub const ALIASES: usize = 20_000;

/// Refuses one more when there are `present` already.
///
/// # Errors
/// [`Error::TooMany`].
pub fn one_more(what: &'static str, present: usize, limit: usize) -> Result<(), Error> {
    if present >= limit { Err(Error::TooMany { what, limit }) } else { Ok(()) }
}
