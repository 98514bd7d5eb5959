//! Kernel calls with safe faces, and no policy.
//!
//! The only crate of the workspace with `unsafe`; each block says why it is sound. Everything here is
//! one call or one small idiom of calls. What to mount, whom to kill, which ids to map: others decide.

#![allow(unsafe_code)]

pub mod btrfs;
pub mod caps;
pub mod command;
pub mod device_filter;
pub mod dir;
pub mod inheritance;
pub mod keyring;
pub mod landlock;
pub mod loopdev;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod process;
pub mod project;
pub mod pty;
pub mod seccomp;
pub mod socket;
