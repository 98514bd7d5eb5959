//! A control group of a test's own around one process: how many processes, how much memory it may have.

use std::path::{Path, PathBuf};

use crate::cli::host;

const TOP: &str = "/sys/fs/cgroup";

/// The group. Dropping it lifts the limit and removes it.
pub struct Fence {
    group: PathBuf,
    limit: &'static str,
}

impl Fence {
    /// Puts a process, and all it starts from then on, into a group of that controller (`pids`, `memory`).
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn around(controller: &str, pid: u32) -> Fence {
        let unified = Path::new(TOP).join("cgroup.controllers").exists();
        let hierarchy = if unified { PathBuf::from(TOP) } else { Path::new(TOP).join(controller) };
        if unified {
            let _ = std::fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        let group = hierarchy.join(format!("cabin-fence-{}-{pid}", std::process::id()));
        std::fs::create_dir(&group).expect("a group");
        let limit = match (controller, unified) {
            ("pids", _) => "pids.max",
            (_, true) => "memory.max",
            (_, false) => "memory.limit_in_bytes",
        };
        let fence = Fence { group, limit };
        std::fs::write(fence.group.join("cgroup.procs"), pid.to_string()).expect("the process in it");
        fence
    }

    fn read(&self, file: &str) -> u64 {
        let text = std::fs::read_to_string(self.group.join(file)).expect("a file of the group");
        text.trim().parse().expect("a number")
    }

    /// What is used now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.read(match self.limit {
            "pids.max" => "pids.current",
            "memory.max" => "memory.current",
            _ => "memory.usage_in_bytes",
        })
    }

    /// Has what is only kept at hand taken away: pages of files.
    pub fn give_back(&self) {
        // Fails when some of it is in use, as some always is.
        let _ = match self.limit {
            "memory.max" => std::fs::write(self.group.join("memory.reclaim"), "1G"),
            _ => std::fs::write(self.group.join("memory.force_empty"), "0"),
        };
    }

    /// Sets the limit.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn allow(&self, number: u64) {
        std::fs::write(self.group.join(self.limit), number.to_string()).expect("a limit");
    }

    /// Lifts the limit.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn lift(&self) {
        let all = if self.limit == "memory.limit_in_bytes" { "-1" } else { "max" };
        std::fs::write(self.group.join(self.limit), all).expect("no limit");
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        self.lift();
        let top = self.group.parent().unwrap_or(Path::new(TOP)).join("cgroup.procs");
        let inside = std::fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines() {
            let _ = std::fs::write(&top, pid);
        }
        let gone = host(&["rmdir", &self.group.to_string_lossy()]);
        assert!(gone.code == 0 || std::thread::panicking(), "{}", gone.err);
    }
}
