//! Why a container's init or a session could not be started, found or ended.

use std::io;
use std::path::PathBuf;

/// Why something about a running container failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory for sockets and exit records cannot be used.
    #[error("cannot use run directory `{}`", path.display())]
    RunDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `cabin-init` could not be run.
    #[error("cannot run `{}`", path.display())]
    Launch {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A step of the start failed; what it had made is gone.
    #[error("cannot start `{name}`: {step}")]
    Start {
        /// The container.
        name: String,
        /// What was being done.
        step: String,
        /// Why.
        source: io::Error,
    },
    /// The container's cgroups refused.
    #[error("cannot use the cgroups of `{name}`")]
    Cgroup {
        /// The container.
        name: String,
        /// Why.
        source: crate::cgroup::Error,
    },
    /// The supervisor did not do what it was asked.
    #[error("cannot {act} of `{name}`")]
    Supervisor {
        /// The container.
        name: String,
        /// What was asked.
        act: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There is no such container running.
    #[error("`{name}` is not running")]
    NotRunning {
        /// The container.
        name: String,
    },
    /// The name cannot be one of a container.
    #[error("`{name}` cannot be the name of a container")]
    Name {
        /// The text.
        name: String,
    },
    /// The exit record cannot be read or removed.
    #[error("cannot use the exit record of `{name}`")]
    Record {
        /// The container.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The program to execute is not in the container.
    #[error("there is no program `{program}` in `{name}`")]
    ProgramNotFound {
        /// The container.
        name: String,
        /// The program as it was asked for.
        program: String,
    },
    /// The program to execute is there, but the kernel does not take it.
    #[error("program `{program}` in `{name}` cannot be executed")]
    ProgramNotExecutable {
        /// The container.
        name: String,
        /// The program as it was asked for.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A step before the command failed.
    #[error("cannot run a command in `{name}`: {step}")]
    Exec {
        /// The container.
        name: String,
        /// What was being done.
        step: String,
        /// Why.
        source: io::Error,
    },
    /// A disk could not be mounted or taken away.
    #[error("cannot change the disks of `{name}`: {step}")]
    Disk {
        /// The container.
        name: String,
        /// What was being done.
        step: String,
        /// Why.
        source: io::Error,
    },
    /// A test armed a fault for this step.
    #[error("the start of `{name}` was interrupted")]
    Interrupted {
        /// The container.
        name: String,
        /// The armed fault.
        source: cabin_undo::Injected,
    },
}

/// What the library's calls answer.
pub type Result<T> = std::result::Result<T, Error>;
