//! The rules of the house, one function each: given a file, what is wrong with it. `tests/tidy.rs` runs them over
//! the tree and shows for each one a sample that it refuses.

use crate::tree::Source;

/// No file is longer than this.
pub const MOST_LINES: usize = 600;

/// Files that are too long.
#[must_use]
pub fn size(file: &Source) -> Vec<String> {
    let lines = file.text.lines().count();
    if lines > MOST_LINES {
        vec![format!("{}: {lines} lines, {MOST_LINES} is the most", file.path)]
    } else {
        Vec::new()
    }
}

/// Files that do not begin by saying what they own.
#[must_use]
pub fn opening(file: &Source) -> Vec<String> {
    let first = file.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // A second word, so that a bare `//!` does not do.
    let says = first.strip_prefix("//!").is_some_and(|rest| rest.split_whitespace().count() >= 1);
    if says { Vec::new() } else { vec![format!("{}: does not open with a `//!` line", file.path)] }
}

/// The word `unsafe` anywhere but in the one crate that may, and crate roots that do not forbid it.
#[must_use]
pub fn no_unsafe(file: &Source) -> Vec<String> {
    if file.within(&["daemon/sys"]) {
        return Vec::new();
    }
    let mut wrong = hits(file, &file.bare, "unsafe", "`unsafe` outside daemon/sys");
    let is_root = file.path.ends_with("src/lib.rs")
        || file.path.ends_with("src/main.rs")
        || file.path.contains("src/bin/");
    let is_nested = file.path.contains("src/bin/") && !file.bare.contains("fn main(");
    if is_root
        && !is_nested
        && !file.path.starts_with("tests/")
        && !file.bare.contains("#![forbid(unsafe_code)]")
    {
        wrong.push(format!("{}: a crate's root without `#![forbid(unsafe_code)]`", file.path));
    }
    wrong
}

/// Single-threaded programs that fork and change namespaces, and the calls they do it with.
const SMALL_PROGRAMS: &[&str] = &[
    "daemon/runtime/src/bin",
    "daemon/images/src/bin",
    "daemon/images/src/confine",
    "distrobuilder/src/inside",
    "daemon/sys/src",
];

/// What has one owner: a mark in the code, who may have it, and what it stands for.
pub const FENCES: &[(&str, &[&str], &str)] = &[
    (
        "/sys/fs/cgroup",
        &["daemon/runtime/src/cgroup", "daemon/core/src/doctor"],
        "cgroups belong to runtime::cgroup",
    ),
    ("cgroups_rs", &["daemon/runtime/src/cgroup"], "cgroups belong to runtime::cgroup"),
    (
        "rtnetlink",
        &["daemon/network/src/netlink", "daemon/network/src/inspect"],
        "links and addresses belong to network::netlink",
    ),
    (
        "netlink_packet_route",
        &["daemon/network/src/netlink", "daemon/network/src/inspect"],
        "links and addresses belong to network::netlink",
    ),
    (
        "Program::Nft",
        &["daemon/network/src/firewall", "daemon/sys/src/command", "daemon/core/src/doctor"],
        "nftables belongs to network::firewall",
    ),
    ("Program::Dnsmasq", &["daemon/network/src", "daemon/sys/src/command"], "dnsmasq belongs to network"),
    ("rusqlite", &["daemon/store"], "the database belongs to store"),
    (
        "Command::new",
        &["daemon/sys/src/command", "client/src/programs"],
        "programs are called through sys::command (the client calls the user's editor and sshfs, nothing else)",
    ),
    ("namespace::unshare", SMALL_PROGRAMS, "the daemon's own threads stay in their namespaces"),
    ("namespace::enter", SMALL_PROGRAMS, "the daemon's own threads stay in their namespaces"),
    ("move_into_link_name_space", SMALL_PROGRAMS, "the daemon's own threads stay in their namespaces"),
    ("process::clone", SMALL_PROGRAMS, "the daemon's own threads never fork"),
    ("comfy_table", &["client/src/output"], "only client::output prints"),
    ("indicatif", &["client/src/output"], "only client::output prints"),
    ("axum", &["daemon/src"], "HTTP stops at the door"),
];

/// Things of the outside that are touched by another than their owner.
#[must_use]
pub fn fences(file: &Source) -> Vec<String> {
    if file.within(&["tests"]) || file.path.contains("/tests/") {
        return Vec::new();
    }
    let product = file.product();
    FENCES
        .iter()
        .filter(|(_, owners, _)| !file.within(owners))
        .flat_map(|(mark, _, why)| hits(file, product, mark, why))
        .collect()
}

/// Names that say nothing about what is inside.
pub const EMPTY_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "manager", "managers", "misc", "types", "impl"];

/// Modules with such a name. A definition's package manager is a thing with that name, hence the exception.
#[must_use]
pub fn names(file: &Source) -> Vec<String> {
    if file.within(&["distrobuilder/src/manager"]) {
        return Vec::new();
    }
    let parts = file.path.trim_end_matches(".rs").split('/');
    parts
        .filter(|part| EMPTY_NAMES.contains(part))
        .map(|part| format!("{}: `{part}` says nothing about what is inside", file.path))
        .collect()
}

/// Product code that may pause: the kernel has no event for a version-1 freezer; an ended operation stays
/// readable for a while; a delay between autostarts is what the user asked for; a server out of descriptors
/// takes a breath; a daemon that starts or ends is asked until it has; snapshots expire by the clock.
pub const PAUSES: &[&str] = &[
    "daemon/runtime/src/cgroup",
    "daemon/core/src/operation",
    "daemon/core/src/recover",
    "daemon/core/src/fence",
    "daemon/core/src/instance/snapshot/keep",
    "daemon/src/server",
    "daemon/src/ask",
];

/// Sleeping: never in a test, and in the product only where there is no event to wait for.
#[must_use]
pub fn no_sleep(file: &Source) -> Vec<String> {
    let text = if file.within(PAUSES) { file.tests() } else { &file.bare };
    hits(file, text, "sleep(", "waits for a time instead of for an event with a deadline")
}

/// Tests that are switched off.
#[must_use]
pub fn no_ignored_test(file: &Source) -> Vec<String> {
    hits(file, &file.bare, "#[ignore", "a test that is not run")
}

/// Tests whose name is not a sentence.
#[must_use]
pub fn sentences(file: &Source) -> Vec<String> {
    let lines: Vec<&str> = file.bare.lines().collect();
    let named = lines.iter().zip(lines.iter().skip(1)).filter(|(mark, _)| mark.trim() == "#[test]");
    named
        .filter_map(|(_, next)| next.trim().strip_prefix("fn ")?.split('(').next())
        .filter(|name| name.split('_').count() < 3)
        .map(|name| format!("{}: test `{name}` is not named by a sentence", file.path))
        .collect()
}

/// Printing by the command line outside its one place for that, and by anything else at all.
#[must_use]
pub fn prints(file: &Source) -> Vec<String> {
    if file.within(&["client/src/output", "tests", "distrobuilder/src/output"])
        || file.path.contains("/tests/")
    {
        return Vec::new();
    }
    let code = file.product();
    ["println!", "eprintln!", "print!(", "eprint!("]
        .iter()
        .flat_map(|mark| hits(file, code, mark, "prints outside client::output"))
        .collect()
}

/// The program that serves a container's files: the SFTP library it stands on is async and has such maps.
const FILE_SERVER: &str = "daemon/runtime/src/bin/cabin-files";

/// Maps of strings to strings below core, where everything has a type of its own. Properties of images are
/// such a map by their format, and the store keeps configuration as it was written.
#[must_use]
pub fn no_string_maps(file: &Source) -> Vec<String> {
    let below = ["daemon/sys", "daemon/undo", "daemon/runtime", "daemon/storage", "daemon/network"];
    if !file.within(&below) || file.within(&[FILE_SERVER]) {
        return Vec::new();
    }
    ["HashMap<String, String>", "BTreeMap<String, String>"]
        .iter()
        .flat_map(|mark| hits(file, file.product(), mark, "strings end at core::resolve"))
        .collect()
}

/// Async code in the workshop, and a log in crates that return their errors.
#[must_use]
pub fn floors(file: &Source) -> Vec<String> {
    let ground = ["daemon/sys", "daemon/undo", "client/api", "profiles", "templates"];
    let matter = ["daemon/runtime", "daemon/storage", "daemon/images", "daemon/store", "daemon/network"];
    if !file.within(&ground) && !file.within(&matter) || file.path.contains("/tests/") {
        return Vec::new();
    }
    let mut wrong = hits(file, file.product(), "tracing::", "logs; crates below core return their errors");
    if !file.within(&["daemon/network/src/netlink", FILE_SERVER]) {
        wrong.extend(hits(file, file.product(), "tokio::", "async; below core only network::netlink is"));
    }
    wrong
}

/// Marks of work left for later, and words about how the tree came to be rather than about what it is.
#[must_use]
pub fn words(file: &Source) -> Vec<String> {
    if file.path == "tests/src/rules.rs" {
        return Vec::new();
    }
    let marks = [
        "TODO",
        "FIXME",
        "XXX",
        "/work/",
        "/tmp/team",
        "shared/design",
        "shared/reference",
        "subagent",
        "language model",
        "coding assistant",
        "this prompt",
        "my brief",
        "the brief",
        "being laid",
        "Co-authored-by",
    ];
    let mut wrong: Vec<String> =
        marks.iter().flat_map(|mark| hits(file, &file.text, mark, "is not about the project")).collect();
    for (number, line) in file.text.lines().enumerate() {
        let lower = line.to_lowercase();
        for kind in ["issue ", "ticket ", "issue #", "ticket #"] {
            let numbered = lower.match_indices(kind).any(|(at, _)| {
                lower
                    .get(at + kind.len()..)
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            });
            if numbered {
                wrong.push(format!("{}:{}: a number that only its tracker knows", file.path, number + 1));
            }
        }
    }
    wrong
}

/// Every line of `text` that holds `mark` as a word of its own (or as it is, when it begins or ends with a sign).
fn hits(file: &Source, text: &str, mark: &str, why: &str) -> Vec<String> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.match_indices(mark).any(|(at, _)| stands_alone(line, at, mark)))
        .map(|(number, _)| format!("{}:{}: `{mark}`: {why}", file.path, number + 1))
        .collect()
}

fn stands_alone(line: &str, at: usize, mark: &str) -> bool {
    let word = |it: Option<char>| it.is_some_and(|it| it.is_alphanumeric() || it == '_');
    let before = line.get(..at).and_then(|part| part.chars().next_back());
    let after = line.get(at + mark.len()..).and_then(|part| part.chars().next());
    !(word(mark.chars().next()) && word(before) || word(mark.chars().next_back()) && word(after))
}
