//! A typed spec becomes a running init: cgroups, start, sessions, files.

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod files;
pub mod spec;
