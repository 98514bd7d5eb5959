//! A typed spec becomes a running init: cgroups, start, sessions, files.
//!
//! The daemon's side is [`Runtime`]. Containers are born in `cabin-init`, a program of one thread that the
//! daemon runs and that stays as the container's supervisor; commands enter through a second mode of it.

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod confine;
mod disk;
mod error;
mod exec;
pub mod files;
mod init_kind;
pub mod rootfs;
mod runtime;
pub mod spec;
mod start;
pub mod step;
mod supervisor;
pub mod wire;

pub use error::{Error, Result};
pub use exec::{Exec, ExecControl, ExecStatus, Prepared};
pub use init_kind::InitKind;
pub use runtime::{Exit, Runtime, console_name, record_name, socket_name};
pub use start::Starting;
pub use supervisor::{Supervisor, Watch, listen};
