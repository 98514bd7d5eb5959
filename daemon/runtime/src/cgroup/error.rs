//! Why something about cgroups failed.

use std::io;
use std::path::PathBuf;

/// Why something about cgroups failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The mount table could not be read.
    #[error("cannot read the mount table")]
    Mounts {
        /// Why.
        source: io::Error,
    },
    /// No cgroup filesystem is mounted.
    #[error("no cgroup hierarchy is mounted on this host")]
    NoHierarchy,
    /// The text cannot name a cgroup.
    #[error("`{name}` cannot be the name of a cgroup")]
    Name {
        /// The text.
        name: String,
    },
    /// A cgroup of that name still has processes.
    #[error("cgroup `{name}` still has processes")]
    Busy {
        /// The name.
        name: String,
    },
    /// A cgroup could not be opened.
    #[error("cannot open cgroup `{}`", path.display())]
    Open {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A cgroup could not be made.
    #[error("cannot create cgroup `{}`", path.display())]
    Create {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A cgroup could not be given to the container's root.
    #[error("cannot give cgroup `{}` to user {uid}", path.display())]
    Delegate {
        /// The cgroup.
        path: PathBuf,
        /// The host user id of the container's root.
        uid: u32,
        /// Why.
        source: io::Error,
    },
    /// The devices that containers may open could not be told.
    #[error("cannot bar devices from cgroup `{}`", path.display())]
    Devices {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of a cgroup could not be written.
    #[error("cannot write `{value}` to `{file}` of cgroup `{}`", path.display())]
    Write {
        /// The cgroup.
        path: PathBuf,
        /// The file.
        file: &'static str,
        /// What was to be written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A file of a cgroup could not be read.
    #[error("cannot read `{file}` of cgroup `{}`", path.display())]
    Read {
        /// The cgroup.
        path: PathBuf,
        /// The file.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A process could not be moved.
    #[error("cannot put process {pid} into cgroup `{}`", path.display())]
    Attach {
        /// The process.
        pid: u32,
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A signal could not be sent.
    #[error("cannot kill process {pid}")]
    Signal {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// The host's kernel cannot hold such a limit.
    #[error("this host cannot limit {what} (`{file}` is missing)")]
    Unsupported {
        /// What was to be limited.
        what: &'static str,
        /// The kernel's file for it.
        file: &'static str,
    },
    /// On cgroup v1 swap is limited together with memory only.
    #[error("a limit of swap needs a limit of memory on this host")]
    SwapAlone,
    /// Something did not happen in time.
    #[error("cgroup `{name}` was not {what} within {seconds} s")]
    Deadline {
        /// The cgroup's name.
        name: String,
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
    /// A cgroup could not be removed.
    #[error("cannot remove cgroup `{}`", path.display())]
    Remove {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cgroups could not be watched.
    #[error("cannot watch cgroups")]
    Watch {
        /// Why.
        source: io::Error,
    },
    /// Processes are born outside faster than they are moved in.
    #[error("cgroup `{name}` does not get hold of a container that starts processes without end")]
    Escaping {
        /// The cgroup's name.
        name: String,
    },
    /// A fault was injected by a test.
    #[error(transparent)]
    Fault(#[from] cabin_undo::Injected),
}
