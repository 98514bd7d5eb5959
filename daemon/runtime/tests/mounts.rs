//! Every mount a guest begins with, against a list.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]
#![allow(clippy::print_stdout)]

mod lab;

use std::path::Path;

use cabin_runtime::spec::IdMap;
use lab::Lab;

/// Where, what, with which flags and, of the filesystem's own options, those that say who may what and how much.
const ALWAYS: &[&str] = &[
    "/ overlay rw,nodev",
    "/dev tmpfs rw,nosuid,noexec size=512k,nr_inodes=1024,mode=755",
    "/dev/mqueue mqueue rw,nosuid,nodev,noexec",
    "/dev/shm tmpfs rw,nosuid,nodev size=10%,nr_inodes=409600",
    "/proc proc rw,nosuid,nodev,noexec",
    "/sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec",
];

/// These have the flags that the host's own have.
const NODES: &[&str] = &["full", "null", "random", "tty", "urandom", "zero"];

const ALWAYS_HIDDEN: &[&str] =
    &["/sys/fs/pstore", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing"];

const HIDDEN: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/slab",
];

const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/mtrr", "/proc/sysrq-trigger"];

/// What is to be mounted; of what is hidden only what this host's kernel has.
fn expected(privileged: bool, nesting: bool) -> Vec<String> {
    let mut rows: Vec<String> = ALWAYS.iter().map(|&row| row.to_owned()).collect();
    rows.extend(NODES.iter().map(|node| format!("/dev/{node} of the host's /{node}")));
    let group = if privileged { 5 } else { 10_000_005 };
    let terminals = format!("devpts rw,nosuid,noexec gid={group},mode=620,ptmxmode=666,max=1024");
    rows.extend(["/dev/pts", "/dev/console"].map(|place| format!("{place} {terminals}")));
    rows.push(format!("/sys sysfs {},nosuid,nodev,noexec", if privileged { "ro" } else { "rw" }));
    let there = |list: &'static [&str]| list.iter().filter(|path| Path::new(path).exists());
    for path in there(ALWAYS_HIDDEN).chain(there(HIDDEN).filter(|_| !nesting)) {
        rows.push(match Path::new(path).is_dir() {
            true => format!("{path} tmpfs ro,nosuid,nodev,noexec size=4k,nr_inodes=2,mode=555"),
            false => format!("{path} of the host's /null"),
        });
    }
    if privileged || !nesting {
        rows.extend(there(READ_ONLY).map(|path| format!("{path} proc ro,nosuid,nodev,noexec")));
    }
    if privileged {
        rows.push("/proc/sys proc ro,nosuid,nodev,noexec".to_owned());
        rows.push("/proc/sys/net proc rw,nosuid,nodev,noexec".to_owned());
    }
    rows.sort();
    rows
}

/// One line of mountinfo, in the form of the lists.
fn row(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let (within, place, flags) = (words[3], words[4], words[5].replace(",relatime", ""));
    let end = words.iter().position(|word| *word == "-").unwrap();
    assert_eq!(end, 6, "it is in a group of mounts: {line}");
    let (kind, options) = (words[end + 1], words[end + 3]);
    if within != "/" && !["proc", "devpts"].contains(&kind) {
        return format!("{place} of the host's {within}");
    }
    let told = ["size", "nr_inodes", "mode", "ptmxmode", "max"];
    let mut said: Vec<String> = options
        .split(',')
        .filter(|option| {
            let name = option.split('=').next().unwrap();
            told.contains(&name) || (kind, name) == ("devpts", "gid")
        })
        .map(|option| if option == tenth_of_memory() { "size=10%".to_owned() } else { option.to_owned() })
        .collect();
    if kind == "overlay" {
        said.clear();
    }
    format!("{place} {kind} {flags} {}", said.join(",")).trim_end().to_owned()
}

fn tenth_of_memory() -> String {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    format!("size={}k", total.div_ceil(10).next_multiple_of(4))
}

#[test]
fn a_guest_begins_with_these_mounts_and_no_others() {
    for (privileged, nesting) in [(false, false), (false, true), (true, false), (true, true)] {
        let lab = Lab::new();
        let mut spec = lab.waiting();
        if privileged {
            spec.ids = IdMap::Privileged;
        }
        spec.nesting = nesting;
        lab.start(&spec);
        let mut found: Vec<String> = lab.shell("cat /proc/1/mountinfo").lines().map(row).collect();
        found.sort();
        assert_eq!(found, expected(privileged, nesting), "privileged: {privileged}, nesting: {nesting}");
    }
}
