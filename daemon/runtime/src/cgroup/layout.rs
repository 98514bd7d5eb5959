//! Which cgroup hierarchies this host has mounted, and where.

use std::io;
use std::path::{Path, PathBuf};

/// How a host's cgroup hierarchies are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// cgroup2 alone.
    Unified,
    /// Controllers on version 1 hierarchies, and a cgroup2 tree beside them.
    Hybrid,
    /// Version 1 alone.
    Legacy,
}

/// One mounted version 1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct V1Mount {
    /// Where it is mounted.
    pub(super) path: PathBuf,
    /// Its controllers, or `name=…` for one without.
    pub(super) controllers: Vec<String>,
}

/// The hierarchies of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mounts {
    pub(super) unified: Option<PathBuf>,
    pub(super) v1: Vec<V1Mount>,
}

/// The controllers version 1 knows; any other mount option is not one.
const V1_CONTROLLERS: &[&str] = &[
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "debug",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

impl Mounts {
    /// Reads the mount table of this process.
    pub(super) fn of_this_host() -> io::Result<Mounts> {
        Ok(Mounts::parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
    }

    /// Finds the hierarchies in a mount table (proc_pid_mountinfo(5)). A hierarchy mounted twice counts
    /// once, where it was mounted first.
    pub(super) fn parse(table: &str) -> Mounts {
        let mut mounts = Mounts::default();
        for line in table.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount_point) = left.split(' ').nth(4) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
            match kind {
                "cgroup2" if mounts.unified.is_none() => mounts.unified = Some(unescape(mount_point)),
                "cgroup" => mounts.add_v1(unescape(mount_point), options),
                _ => {}
            }
        }
        mounts
    }

    fn add_v1(&mut self, path: PathBuf, options: &str) {
        let controllers: Vec<String> = options
            .split(',')
            .filter(|o| o.starts_with("name=") || V1_CONTROLLERS.contains(o))
            .map(str::to_owned)
            .collect();
        if !controllers.is_empty() && self.v1.iter().all(|known| known.controllers != controllers) {
            self.v1.push(V1Mount { path, controllers });
        }
    }

    pub(super) fn layout(&self) -> Option<Layout> {
        match (&self.unified, self.v1.is_empty()) {
            (Some(_), true) => Some(Layout::Unified),
            (Some(_), false) => Some(Layout::Hybrid),
            (None, false) => Some(Layout::Legacy),
            (None, true) => None,
        }
    }

    /// The version 1 mount that carries a controller.
    pub(super) fn v1_of(&self, controller: &str) -> Option<&Path> {
        self.v1.iter().find(|m| m.controllers.iter().any(|c| c == controller)).map(|m| m.path.as_path())
    }
}

/// Undoes the octal escapes of the mount table (`\040` is a space).
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(table: &str, layout: Option<Layout>, memory: Option<&str>, unified: Option<&str>) {
        let mounts = Mounts::parse(table);
        assert_eq!(mounts.layout(), layout, "{table}");
        assert_eq!(mounts.v1_of("memory"), memory.map(Path::new), "{table}");
        assert_eq!(mounts.unified.as_deref(), unified.map(Path::new), "{table}");
    }

    #[test]
    fn the_three_layouts_are_told_apart() {
        let v2 = "31 23 0:28 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let legacy: String =
            hybrid.lines().filter(|l| !l.contains("cgroup2")).map(|l| format!("{l}\n")).collect();
        check(v2, Some(Layout::Unified), None, Some("/sys/fs/cgroup"));
        check(hybrid, Some(Layout::Hybrid), Some("/sys/fs/cgroup/memory"), Some("/sys/fs/cgroup/unified"));
        check(&legacy, Some(Layout::Legacy), Some("/sys/fs/cgroup/memory"), None);
        check("22 27 0:21 / /proc rw - proc proc rw\n", None, None, None);
        let mounts = Mounts::parse(hybrid);
        assert_eq!(mounts.v1[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(mounts.v1[2].controllers, ["name=systemd"]);
    }

    #[test]
    fn a_hierarchy_mounted_twice_counts_once_and_escapes_are_undone() {
        let table =
            "1 1 0:1 / /a\\040b rw - cgroup cgroup rw,memory\n2 1 0:1 / /c rw - cgroup cgroup rw,memory\n";
        let mounts = Mounts::parse(table);
        assert_eq!(mounts.v1.len(), 1);
        assert_eq!(mounts.v1[0].path, Path::new("/a b"));
    }
}
