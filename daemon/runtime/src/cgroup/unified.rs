//! The cgroup2 tree: controllers enabled downwards, the delegated child, limits.

use std::io;

use super::group::Group;
use super::{Error, Make, devices, room};
use crate::spec::CgroupLimits;

/// The child that is given to the container.
pub(super) const DELEGATED: &str = "init";

/// The controllers a container's cgroup is to have.
const WANTED: &[&str] = &["cpuset", "cpu", "io", "memory", "pids"];

/// How many cgroups a container may make, and how deep: without a bound, any process of it could fill the
/// kernel's memory with them.
const BOUNDS: &[(&str, &str)] = &[("cgroup.max.descendants", "1000"), ("cgroup.max.depth", "16")];

/// What to delegate where `/sys/kernel/cgroup/delegate` is missing (before Linux 4.15).
const DELEGATE: &[&str] = &["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

/// The files a delegated cgroup's owner may write, as this kernel lists them.
pub(super) fn delegatable() -> Vec<String> {
    match std::fs::read_to_string("/sys/kernel/cgroup/delegate") {
        Ok(text) => text.lines().map(str::to_owned).collect(),
        Err(_) => DELEGATE.iter().map(|&file| file.to_owned()).collect(),
    }
}

/// Makes `<prefix>/<name>/init` below the root of the tree, `root`, and gives `init` to `owner`.
pub(super) fn lay_out(
    root: &Group,
    (prefix, name): (&str, &str),
    limits: &CgroupLimits,
    owner: (u32, u32),
    make: Make,
) -> Result<(), Error> {
    let needed = needed(limits);
    enable(root, &needed)?;
    let prefix = root.ensure(prefix)?;
    if prefix.has("pids.max") {
        prefix.write("pids.max", &room::of_all().to_string())?;
    }
    enable(&prefix, &needed)?;
    devices::bar(&prefix)?;
    let group = make(&prefix, name)?;
    // What the container can hand on to groups of its own; no limit of ours depends on it.
    enable(&group, &[])?;
    let delegated = make(&group, DELEGATED)?;
    for (file, value) in BOUNDS {
        if delegated.has(file) {
            delegated.write(file, value)?;
        }
    }
    delegated.chown(&delegatable(), owner)
}

/// The controllers without which the limits cannot be held.
fn needed(limits: &CgroupLimits) -> Vec<&'static str> {
    let wants = [
        ("cpuset", limits.cpus.is_some()),
        ("cpu", limits.cpu_quota.is_some() || limits.cpu_weight.is_some()),
        ("memory", limits.memory.is_some() || limits.memory_high.is_some() || limits.swap.is_some()),
        ("pids", limits.processes.is_some()),
    ];
    wants.into_iter().filter(|(_, wanted)| *wanted).map(|(controller, _)| controller).collect()
}

/// Enables the wanted controllers for the children of `group`. One that cannot be enabled (a group with
/// processes of its own answers EBUSY) is an error only when it is among `needed`.
fn enable(group: &Group, needed: &[&str]) -> Result<(), Error> {
    let available = group.read("cgroup.controllers")?;
    let enabled = group.read("cgroup.subtree_control")?;
    for controller in missing(&available, &enabled) {
        // One at a time: the kernel takes a line wholly or not at all.
        match group.write("cgroup.subtree_control", &format!("+{controller}")) {
            Err(e) if needed.contains(&controller) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

fn missing(available: &str, enabled: &str) -> Vec<&'static str> {
    let has = |list: &str, controller: &str| list.split_whitespace().any(|c| c == controller);
    WANTED.iter().copied().filter(|c| has(available, c) && !has(enabled, c)).collect()
}

/// One limit as the kernel takes it.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    what: &'static str,
    file: &'static str,
    value: String,
    asked: bool,
}

/// What to write for these limits, in order.
fn settings(limits: &CgroupLimits) -> Vec<Setting> {
    let number = |what, file, value: Option<u64>, none: &str| Setting {
        what,
        file,
        value: value.map_or_else(|| none.to_owned(), |v| v.to_string()),
        asked: value.is_some(),
    };
    vec![
        Setting {
            what: "processors",
            file: "cpuset.cpus",
            // An empty write is no write: a line without content clears the set.
            value: limits.cpus.clone().unwrap_or_else(|| "\n".to_owned()),
            asked: limits.cpus.is_some(),
        },
        Setting {
            what: "CPU time",
            file: "cpu.max",
            value: limits
                .cpu_quota
                .map_or_else(|| "max 100000".to_owned(), |(quota, period)| format!("{quota} {period}")),
            asked: limits.cpu_quota.is_some(),
        },
        number("the CPU's share", "cpu.weight", limits.cpu_weight, "100"),
        number("memory softly", "memory.high", limits.memory_high, "max"),
        number("swap", "memory.swap.max", limits.swap, "max"),
        number("memory", "memory.max", limits.memory, "max"),
        number("processes", "pids.max", limits.processes, &room::of_one().to_string()),
    ]
}

/// Applies the limits to a container's cgroup. Those for which `elsewhere` is true sit on version 1.
pub(super) fn apply(
    group: &Group,
    limits: &CgroupLimits,
    elsewhere: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    for setting in settings(limits) {
        let controller = setting.file.split('.').next().unwrap_or_default();
        if elsewhere(controller) {
            continue;
        }
        if group.has(setting.file) {
            match group.write(setting.file, &setting.value) {
                Err(Error::Write { source, .. })
                    if setting.file == "cpuset.cpus" && !setting.asked && none_left(&source) =>
                {
                    group.write(setting.file, possible_cpus()?.trim())?;
                }
                other => other?,
            }
        } else if setting.asked
            && !(setting.file == "memory.swap.max" && setting.value == "0" && !host_has_swap())
        {
            return Err(Error::Unsupported { what: setting.what, file: setting.file });
        }
    }
    Ok(())
}

/// Older kernels (6.1) do not let the set of a group with processes become empty, though empty means "as the
/// parent". Every processor there can be means the same.
fn none_left(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error())
}

fn possible_cpus() -> Result<String, Error> {
    let (path, file) = ("/sys/devices/system/cpu", "possible");
    std::fs::read_to_string(format!("{path}/{file}")).map_err(|source| Error::Read {
        path: path.into(),
        file,
        source,
    })
}

/// Whether the host has any swap switched on. Where it has none, "no swap" holds by itself.
pub(super) fn host_has_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|table| table.lines().count() > 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn only_what_is_there_and_not_yet_on_is_enabled() {
        assert_eq!(
            missing("cpuset cpu io memory hugetlb pids\n", "memory\n"),
            ["cpuset", "cpu", "io", "pids"]
        );
        assert_eq!(missing("hugetlb\n", "\n"), [""; 0]);
    }

    #[test]
    fn limits_become_the_kernels_words_and_none_clears() {
        let limits = CgroupLimits {
            cpus: Some("0-1".into()),
            cpu_quota: Some((25_000, 100_000)),
            cpu_weight: Some(50),
            memory: Some(1 << 30),
            memory_high: None,
            swap: Some(0),
            processes: Some(100),
        };
        let words = |limits: &CgroupLimits| -> Vec<String> {
            settings(limits).into_iter().map(|s| format!("{}={}", s.file, s.value)).collect()
        };
        assert_eq!(
            words(&limits),
            [
                "cpuset.cpus=0-1",
                "cpu.max=25000 100000",
                "cpu.weight=50",
                "memory.high=max",
                "memory.swap.max=0",
                "memory.max=1073741824",
                "pids.max=100"
            ]
        );
        assert_eq!(
            words(&CgroupLimits::default()),
            [
                "cpuset.cpus=\n",
                "cpu.max=max 100000",
                "cpu.weight=100",
                "memory.high=max",
                "memory.swap.max=max",
                "memory.max=max",
                &format!("pids.max={}", room::of_one())
            ]
        );
    }

    struct Tree(PathBuf);

    impl Tree {
        /// A directory that looks like a group with these files.
        fn new(name: &str, files: &[(&str, &str)]) -> Tree {
            let path = std::env::temp_dir().join(format!("cabin-unified-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            for (file, content) in files {
                std::fs::write(path.join(file), content).unwrap();
            }
            Tree(path)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_limit_whose_file_is_missing_is_an_error_only_when_it_is_asked_for() {
        let tree = Tree::new("missing", &[("memory.max", "max\n"), ("pids.max", "max\n")]);
        let group = Group::open(&tree.0, "").unwrap();
        apply(&group, &CgroupLimits { memory: Some(4096), ..Default::default() }, |_| false).unwrap();
        assert!(std::fs::read_to_string(tree.0.join("memory.max")).unwrap().starts_with("4096"));
        let limits = CgroupLimits { cpu_weight: Some(10), ..Default::default() };
        let error = apply(&group, &limits, |_| false).unwrap_err();
        assert_eq!(error.to_string(), "this host cannot limit the CPU's share (`cpu.weight` is missing)");
        apply(&group, &limits, |controller| controller == "cpu").unwrap();
    }

    #[test]
    fn a_controller_is_asked_for_by_name_in_the_parent() {
        let tree = Tree::new(
            "enable",
            &[("cgroup.controllers", "cpu memory hugetlb\n"), ("cgroup.subtree_control", "memory\n")],
        );
        enable(&Group::open(&tree.0, "").unwrap(), &["cpu"]).unwrap();
        assert!(std::fs::read_to_string(tree.0.join("cgroup.subtree_control")).unwrap().starts_with("+cpu"));
    }
}
