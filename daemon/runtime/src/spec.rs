//! What a container's init and its sessions are to be: typed, complete, nothing left to look up.
//!
//! These travel over a socketpair to `cabin-init` (postcard), never as text.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A run of host ids that a container sees as `0..size`, for users and groups alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first host id.
    pub base: u32,
    /// How many ids.
    pub size: u32,
}

/// Whose ids the container's processes have on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdMap {
    /// A user namespace with a range of its own.
    Isolated(IdRange),
    /// No user namespace: root inside is root on the host. Not a security boundary.
    Privileged,
}

/// Where the root filesystem comes from. On disk, files always carry the plain ids `0..65535`; an idmapped
/// mount shows them in the container's range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootSpec {
    /// An overlay: shared read-only layers (topmost first), and a directory that holds the writable
    /// layer `u` and the work directory `w`.
    Overlay {
        /// Shared read-only trees, topmost first.
        lowers: Vec<PathBuf>,
        /// The directory that holds `u` and `w`.
        state: PathBuf,
    },
    /// A plain directory.
    Dir {
        /// The tree.
        path: PathBuf,
    },
}

/// One resource limit (setrlimit(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// The name as in `limits.kernel.NAME`: `nofile`, `memlock` …
    pub name: String,
    /// The soft limit; `None` is unlimited.
    pub soft: Option<u64>,
    /// The hard limit; `None` is unlimited.
    pub hard: Option<u64>,
}

/// Everything needed to start a container's init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitSpec {
    /// The instance's name: hostname, and name of its cgroups and runtime files.
    pub name: String,
    /// The root filesystem.
    pub root: RootSpec,
    /// The ids.
    pub ids: IdMap,
    /// Program and arguments, usually `["/sbin/init"]`.
    pub argv: Vec<String>,
    /// The environment of init, complete (`container=lxc`, `PATH` …).
    pub env: Vec<(String, String)>,
    /// Whether containers may be run inside (no masks over /proc and /sys).
    pub nesting: bool,
    /// Resource limits set before init runs.
    pub rlimits: Vec<Rlimit>,
    /// The adjustment of the out-of-memory killer, -1000 to 1000.
    pub oom_score_adj: i32,
    /// Files to write before init runs. The payload writes them itself after pivot_root, as the
    /// container's root: whatever links the tree holds, they stay inside. One that cannot be written
    /// (its directory is missing) is skipped; the others are still written.
    pub files: Vec<RenderedFile>,
}

/// A file to write into the root before init runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderedFile {
    /// Absolute, inside the container.
    pub path: String,
    /// The whole content.
    pub content: Vec<u8>,
    /// Whether a file already there is left alone.
    pub create_only: bool,
    /// The owner inside; that of the file it replaces, or root, without one.
    pub uid: Option<u32>,
    /// The group inside; likewise.
    pub gid: Option<u32>,
    /// The mode; that of the file it replaces, or 0644, without one.
    pub mode: Option<u32>,
}

/// A mount inside a container, besides its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Where, absolute, inside. Missing directories are made; for a file an empty one is.
    pub path: String,
    /// What.
    pub source: DiskSource,
    /// Whether nothing can be written through it.
    pub readonly: bool,
}

/// What a mount inside a container shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskSource {
    /// A directory of the daemon's own whose content is a guest's.
    Volume {
        /// The directory.
        root: PathBuf,
        /// A directory beneath it, reached through no link.
        beneath: Option<String>,
        /// Whether the ids on disk are the container's own; else they are the host's.
        shifted: bool,
    },
    /// A directory or file of the host's.
    Host {
        /// Absolute; links on the way are followed.
        path: PathBuf,
        /// Whether the ids on disk are the container's own; else they are the host's.
        shifted: bool,
        /// Whether what is mounted beneath comes along.
        recursive: bool,
    },
    /// A filesystem in memory, empty at each start.
    Memory {
        /// Bytes; half of the host's memory without.
        size: Option<u64>,
        /// The owner of its root inside.
        uid: u32,
        /// The group of its root inside.
        gid: u32,
        /// The mode of its root.
        mode: u32,
    },
}

/// The limits a container's cgroup holds; `None` means no limit of that kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLimits {
    /// The processors it may use, as a kernel list (`0-1,3`).
    pub cpus: Option<String>,
    /// Hard CPU time: microseconds of quota in each period of microseconds.
    pub cpu_quota: Option<(u64, u64)>,
    /// Soft CPU share, 1 to 100 (percent of a full weight).
    pub cpu_weight: Option<u64>,
    /// Most memory, in bytes.
    pub memory: Option<u64>,
    /// The memory beyond which it is slowed and reclaimed (soft limit), in bytes.
    pub memory_high: Option<u64>,
    /// Most swap, in bytes; `Some(0)` is none.
    pub swap: Option<u64>,
    /// Most processes and threads.
    pub processes: Option<u64>,
}

/// How a session's standard streams are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Streams {
    /// A terminal of the container, with its size in characters.
    Terminal {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// Three separate pipes.
    Pipes,
    /// The descriptors the caller passed (stdin, stdout, stderr): for recorded output.
    Given,
}

/// A command to run inside a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments; looked up in `PATH` of `env` inside the container when it has no slash.
    pub argv: Vec<String>,
    /// The environment, complete.
    pub env: Vec<(String, String)>,
    /// The user id inside the container.
    pub uid: u32,
    /// The group id inside the container.
    pub gid: u32,
    /// The working directory inside the container; without one `/root`, or `/` when that cannot be entered.
    pub cwd: Option<String>,
    /// The standard streams.
    pub streams: Streams,
}
