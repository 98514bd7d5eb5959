//! Everything that can be seen of a daemon's state, from outside and over its API, in lines that can be
//! compared: what a step that failed must leave as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::audit;
use crate::cli::{host, run_with};
use crate::content;
use crate::machine;
use crate::subject::Subject;

/// The state, a line for each thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState {
    lines: BTreeSet<String>,
}

/// How much must be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Everything.
    Exact,
    /// Everything but what is made up anew each time: hardware addresses, ids, times, processes.
    Shape,
}

/// What the API lists.
const LISTS: &[&str] = &[
    "/1.0/instances?recursion=1",
    "/1.0/images?recursion=1",
    "/1.0/images/aliases?recursion=1",
    "/1.0/profiles?recursion=1",
    "/1.0/networks?recursion=1",
    "/1.0/storage-pools?recursion=1",
    "/1.0/projects?recursion=1",
];

/// What instances and volumes have of their own that the API lists.
const PARTS: &[&str] = &["snapshots", "backups"];

/// How the lines begin that are of the API's lists.
const TOLD: &[&str] = &["api ", "state ", "snapshots of ", "backups of ", "volume of "];

/// Fields that tell the time of something, or what a run left behind in passing.
const PASSING: &[&str] =
    &["last_used_at", "created_at", "uploaded_at", "volatile.last_state.power", "volatile.apply_template"];

impl HostState {
    /// Looks at everything now. The daemon must answer.
    #[must_use]
    pub fn of(subject: &Subject, look: Look) -> HostState {
        let mut lines = BTreeSet::new();
        for list in LISTS {
            for mut object in subject.get(list).as_array().cloned().unwrap_or_default() {
                if list.starts_with("/1.0/networks") && object["managed"] != true {
                    continue;
                }
                forget_passing(&mut object);
                let kind = list.split('?').next().unwrap_or_default();
                lines.insert(format!("api {kind} {object}"));
            }
        }
        lines.insert(format!("api /1.0 {}", subject.get("/1.0")["config"]));
        lines.extend(warnings(subject));
        for url in subject.get("/1.0/instances").as_array().into_iter().flatten() {
            let state = subject.get(&format!("{}/state", url.as_str().unwrap_or_default()));
            let pid = state["pid"].as_i64().unwrap_or_default();
            let nics: Vec<&String> =
                state["network"].as_object().into_iter().flat_map(|it| it.keys()).collect();
            lines.insert(format!("state {url} {} init {pid} nics {nics:?}", state["status"]));
            lines.extend(counted(disks(pid).into_iter().map(|it| format!("disk of {url} {it}"))));
            parts(subject, url.as_str().unwrap_or_default(), &mut lines);
        }
        for url in subject.get("/1.0/storage-pools").as_array().into_iter().flatten() {
            volumes(subject, url.as_str().unwrap_or_default(), &mut lines);
        }
        let dir = &subject.dir;
        files(dir, Path::new(""), &mut lines);
        lines.extend(fixed_addresses(dir));
        lines.extend(content::told(dir));
        lines.extend(registered(dir));
        lines.extend(audit::mounts(dir).into_iter().map(|it| format!("mount {it}")));
        lines.extend(own_mounts(subject));
        lines.extend(sockets(subject));
        lines.extend(audit::loop_devices(dir).into_iter().map(|it| format!("loop device of {it}")));
        lines.extend(disks_of_pools(dir));
        lines.extend(cgroups(dir));
        lines.extend(links_and_routes(&subject.netns));
        lines.extend(filter(&subject.netns));
        lines.extend(processes(subject));
        let exact = HostState { lines };
        if look == Look::Exact { exact } else { exact.masked() }
    }

    /// The same at a less exact look.
    #[must_use]
    pub fn masked(&self) -> HostState {
        HostState {
            lines: self.lines.iter().filter(|line| !is_left_aside(line)).map(|line| mask(line)).collect(),
        }
    }

    /// What the daemon itself tells of what it has, and nothing of what lies on the host.
    #[must_use]
    pub fn told(&self) -> HostState {
        let told = |line: &&String| TOLD.iter().any(|kind| line.starts_with(kind));
        HostState { lines: self.lines.iter().filter(told).cloned().collect() }
    }

    /// What differs: `-` was in `self`, `+` is in `other`.
    #[must_use]
    pub fn difference(&self, other: &HostState) -> String {
        let mut text = String::new();
        for line in self.lines.difference(&other.lines) {
            let _ = writeln!(text, "    - {line}");
        }
        for line in other.lines.difference(&self.lines) {
            let _ = writeln!(text, "    + {line}");
        }
        text
    }
}

/// Waits until the state is one of those wanted: what ends takes a moment. Gives which.
///
/// # Errors
/// What differs, after five seconds.
pub fn settled(subject: &Subject, wanted: &[(&HostState, Look)]) -> Result<usize, String> {
    settled_within(5, subject, wanted)
}

/// As [`settled`], with another number of seconds.
///
/// # Errors
/// What differs when they are over.
pub fn settled_within(
    seconds: u64,
    subject: &Subject,
    wanted: &[(&HostState, Look)],
) -> Result<usize, String> {
    let deadline = Instant::now() + machine::time(Duration::from_secs(seconds));
    loop {
        let found = HostState::of(subject, Look::Exact);
        let masked = found.masked();
        let now = |look: Look| if look == Look::Exact { &found } else { &masked };
        if let Some(which) = wanted.iter().position(|(state, look)| *state == now(*look)) {
            return Ok(which);
        }
        if Instant::now() >= deadline {
            let all: Vec<String> = wanted.iter().map(|(state, look)| state.difference(now(*look))).collect();
            return Err(all.join("    or\n"));
        }
        std::thread::park_timeout(Duration::from_millis(30));
    }
}

/// What is wrong by now, and stops nobody: what this host lacks apart, for that is not the daemon's doing.
fn warnings(subject: &Subject) -> Vec<String> {
    let all = subject.get("/1.0/warnings?recursion=1");
    let standing = all.as_array().into_iter().flatten();
    standing
        .filter(|it| it["status"] != "resolved" && it["entity_url"] != "/1.0")
        .map(|it| format!("warning {} of {} {}", it["type"], it["entity_url"], it["status"]))
        .collect()
}

/// Snapshots and backups of an instance or a volume.
fn parts(subject: &Subject, owner: &str, lines: &mut BTreeSet<String>) {
    for kind in PARTS {
        let list = subject.get(&format!("{owner}/{kind}?recursion=1"));
        for mut part in list.as_array().cloned().unwrap_or_default() {
            forget_passing(&mut part);
            lines.insert(format!("{kind} of {owner} {part}"));
        }
    }
}

/// Custom volumes of a pool, their snapshots and backups.
fn volumes(subject: &Subject, pool: &str, lines: &mut BTreeSet<String>) {
    let list = format!("{pool}/volumes/custom");
    for mut volume in subject.get(&format!("{list}?recursion=1")).as_array().cloned().unwrap_or_default() {
        let name = volume["name"].as_str().unwrap_or_default().to_owned();
        forget_passing(&mut volume);
        lines.insert(format!("volume of {pool} {volume}"));
        parts(subject, &format!("{list}/{name}"), lines);
    }
}

/// The lines, each with how often it is there.
fn counted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut found = BTreeMap::<String, u32>::new();
    for line in lines {
        *found.entry(line).or_default() += 1;
    }
    found.into_iter().map(|(line, times)| format!("{line} x{times}")).collect()
}

/// What the daemon itself sees mounted below its directory or from it: how, and how often.
fn own_mounts(subject: &Subject) -> Vec<String> {
    let needle = subject.dir.to_string_lossy().into_owned();
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", subject.pid())).unwrap_or_default();
    let shown = table.lines().filter(|line| line.contains(&needle)).filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let words: Vec<&str> = mount.split(' ').collect();
        let kind = source.split(' ').next()?;
        Some(format!("own mount {kind} {} at {} {}", words.get(3)?, words.get(4)?, words.get(5)?))
    });
    counted(shown)
}

/// The names of unix sockets in the daemon's network namespace, those without a file among them. The daemon's own is
/// everybody's who is connected, by the name that it had before it was ready: with the number of the process in it.
fn sockets(subject: &Subject) -> BTreeSet<String> {
    let table = std::fs::read_to_string(format!("/proc/{}/net/unix", subject.pid())).unwrap_or_default();
    let names = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(7));
    names.filter(|name| !name.contains("/unix.new")).map(|name| format!("socket {name}")).collect()
}

/// What is mounted in a container: the part shown, where, and how.
fn disks(pid: i64) -> Vec<String> {
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let of = |line: &str| -> Option<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, _, _, root, place, options, ..] = words.as_slice() else { return None };
        if matches!(*place, "/run" | "/tmp") {
            // The guest's own init mounts these, some time after its start.
            return None;
        }
        Some(format!("{root} at {place} {options}"))
    };
    mounts.lines().filter_map(of).collect()
}

fn forget_passing(object: &mut Value) {
    match object {
        Value::Object(fields) => {
            // That one is to go says no more when it is stopped than that it was stopped.
            let stopped = fields.get("status").is_some_and(|status| status == "Stopped");
            for config in ["config", "expanded_config"].into_iter().filter(|_| stopped) {
                if let Some(Value::Object(config)) = fields.get_mut(config) {
                    config.remove("volatile.last_state.ending");
                }
            }
            fields.retain(|key, _| !PASSING.contains(&key.as_str()));
            fields.values_mut().for_each(forget_passing);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_passing),
        _ => {}
    }
}

/// Names below the daemon's directory. What lies in a guest's tree is the guest's, but for what tells one tree from
/// another; the database's files and
/// the name server's leases are written whenever it suits their owners.
fn files(dir: &Path, below: &Path, lines: &mut BTreeSet<String>) {
    let place = dir.join(below);
    for entry in std::fs::read_dir(&place).into_iter().flatten().flatten() {
        let name = below.join(entry.file_name());
        let text = name.to_string_lossy().into_owned();
        let Ok(kind) = entry.file_type() else { continue };
        let ignored = text.starts_with("database/")
            || text.starts_with("cache")
            || text.starts_with("logs/")
            || text == "disks"
            || text.ends_with("dnsmasq.leases")
            || text.ends_with("dnsmasq.pid")
            || text.ends_with("dnsmasq.dns.pid")
            || text.ends_with(".slaac")
            || text == "unix.socket";
        if ignored {
            continue;
        }
        let shown = if kind.is_dir() {
            "dir"
        } else if kind.is_symlink() {
            "link"
        } else {
            "file"
        };
        lines.insert(format!("{shown} {text}"));
        let parts = name.components().count();
        let guests = text.starts_with("storage-pools/") && parts > 4;
        if kind.is_dir() && !guests {
            files(dir, &name, lines);
        }
    }
}

/// Which fixed addresses are kept for which nics, and under which names.
fn fixed_addresses(dir: &Path) -> Vec<String> {
    let list = |place: &Path| std::fs::read_dir(place).into_iter().flatten().flatten();
    let kept = list(&dir.join("networks")).flat_map(|network| list(&network.path().join("dnsmasq.hosts")));
    let fixed = kept.filter(|file| file.file_name().to_string_lossy().contains(".static"));
    fixed
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .map(|it| format!("fixed {it}"))
        .collect()
}

/// The disks of pools, with their sizes.
fn disks_of_pools(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("disks")).into_iter().flatten().flatten();
    let sized = |entry: std::fs::DirEntry| {
        let bytes = entry.metadata().map(|meta| meta.len()).unwrap_or_default();
        format!("disk {} of {bytes} bytes", entry.file_name().display())
    };
    entries.map(sized).collect()
}

/// The runs of host ids the daemon has taken.
fn registered(dir: &Path) -> Vec<String> {
    let own = dir.to_string_lossy();
    let entries = std::fs::read_dir("/var/lib/cabin-ids").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let text = std::fs::read_to_string(entry.path()).ok()?;
            let mut lines = text.lines();
            (lines.next()? == own).then(|| {
                format!("ids {} of {}", entry.file_name().display(), lines.next().unwrap_or_default())
            })
        })
        .collect()
}

/// The cgroups of the daemon's instances in every hierarchy, with those that commands were given.
fn cgroups(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for group in audit::cgroups(dir) {
        found.push(format!("cgroup {}", group.display()));
        for file in ["memory.limit_in_bytes", "pids.max", "cpuset.cpus", "memory.max"] {
            if let Ok(limit) = std::fs::read_to_string(group.join(file)) {
                found.push(format!("limit {} {file} {}", group.display(), limit.trim()));
            }
        }
        for place in [group.clone(), group.join("init")] {
            for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(".cabin-") || name.starts_with("exec-") {
                    found.push(format!("leaf {}", entry.path().display()));
                }
            }
        }
    }
    found
}

/// Links with their addresses, and routes to what is behind nics: asked for at once, as this is done again and again.
fn links_and_routes(netns: &str) -> Vec<String> {
    let questions = "addr show\nroute show table all proto 203\n";
    let shown =
        run_with(Command::new("ip").args(["-n", netns, "-d", "-j", "-batch", "-"]), questions.as_bytes());
    assert!(shown.code == 0, "{}", shown.err);
    let mut answers = serde_json::Deserializer::from_str(&shown.out).into_iter::<Vec<Value>>();
    let mut next = || answers.next().map_or_else(Vec::new, |it| it.expect("what `ip` writes"));
    let links = next();
    let mut found = Vec::new();
    for link in links.iter().filter(|it| it["ifname"] != "lo") {
        found.push(format!(
            "netif {} {} master {} group {} alias {}",
            link["ifname"], link["linkinfo"]["info_kind"], link["master"], link["group"], link["ifalias"]
        ));
        for address in link["addr_info"].as_array().into_iter().flatten() {
            // A link-local address the kernel makes appears when it likes.
            if address["scope"] == "global" {
                found.push(format!("address {} {}", link["ifname"], address["local"]));
            }
        }
    }
    for mut route in next() {
        // Whether there is a carrier.
        let _ = route.as_object_mut().map(|route| route.remove("flags"));
        found.push(format!("route {route}"));
    }
    found
}

/// The tables, without what counts and what guests' own traffic puts into sets.
fn filter(netns: &str) -> Vec<String> {
    let net = format!("--net=/run/netns/{netns}");
    let shown = host(&["nsenter", &net, "nft", "-s", "list", "ruleset"]).out;
    let mut found = BTreeMap::<String, u32>::new();
    let (mut table, mut chain, mut elements) = (String::new(), String::new(), false);
    for line in shown.lines().map(str::trim) {
        if elements || line.starts_with("elements") {
            elements = !line.ends_with('}');
        } else if line.starts_with("table") {
            line.trim_end_matches(" {").clone_into(&mut table);
        } else if line.ends_with('{') {
            line.trim_end_matches(" {").clone_into(&mut chain);
            found.insert(format!("nft {table} {chain}"), 1);
        } else if line.len() > 1 {
            *found.entry(format!("nft {table} {chain} {line}")).or_default() += 1;
        }
    }
    found.into_iter().map(|(line, times)| format!("{line} x{times}")).collect()
}

fn processes(subject: &Subject) -> Vec<String> {
    let mut found = BTreeMap::<String, u32>::new();
    for (pid, line) in lasting(subject) {
        // What runs in a container is the container's.
        let of_guest = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|text| text.contains(&audit::mark(&subject.dir)));
        if !of_guest {
            *found.entry(format!("process {line}")).or_default() += 1;
        }
    }
    // One helper may wait for the next command.
    found.retain(|line, times| *times > 1 || !line.ends_with("cabin-init exec"));
    found.into_iter().map(|(line, times)| format!("{line} x{times}")).collect()
}

/// Its processes, once none of them is the daemon over again: a child that holds a user namespace for a mount, or
/// has yet to become a program, lives for a moment. One that stays is told of.
fn lasting(subject: &Subject) -> Vec<(u32, String)> {
    let deadline = Instant::now() + machine::time(Duration::from_secs(3));
    loop {
        let found = subject.processes();
        if Instant::now() >= deadline || !found.iter().any(|(_, line)| line.contains("/cabind ")) {
            return found;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A tree that was frozen and is whole stays so, whatever became of the verb; one that nobody stands on is
/// found by the audit. Warnings are about what one daemon has seen, and go with it.
fn is_left_aside(line: &str) -> bool {
    let of_layers =
        line.contains("storage-pools/") && (line.contains("/layers/") || line.ends_with("/below"));
    of_layers || line.starts_with("warning ")
}

/// Takes out what is made up anew: hardware addresses, UUIDs, ids, and what is derived from them; the size of a snapshot.
fn mask(line: &str) -> String {
    if line.starts_with("nft table netdev") && !line.contains(" hook ") && line.contains(" @") {
        return "nft rule of a port".to_owned();
    }
    if let Some(rest) = line.strip_prefix("ids ") {
        return format!("ids of {}", rest.rsplit(' ').next().unwrap_or_default());
    }
    if line.contains("/dnsmasq.hosts/") || line.contains("/dnsmasq.names/") {
        let place = line.rsplit_once('/').map_or(line, |(place, _)| place);
        return format!("{place}/*");
    }
    if let Some((head, tail)) = line.split_once(" init ") {
        let (pid, rest) = tail.split_once(' ').unwrap_or((tail, ""));
        return format!("{head} init {} {rest}", if pid == "0" { "none" } else { "some" });
    }
    if line.starts_with("snapshots of ")
        && let Some((head, tail)) = line.split_once(r#","size":"#)
    {
        // What ran wrote what it liked by then.
        let rest = tail.trim_start_matches(|digit: char| digit.is_ascii_digit());
        return format!("{}{}", without_ids(head), without_ids(rest));
    }
    without_ids(line)
}

/// Takes out hardware addresses and UUIDs.
fn without_ids(line: &str) -> String {
    let bytes = line.as_bytes();
    let mut out = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = line.get(at..).unwrap_or_default();
        if let Some(length) = [uuid(rest), mac(rest)].into_iter().flatten().next() {
            out.push('*');
            at += length;
        } else {
            let next = rest.chars().next().unwrap_or(' ');
            out.push(next);
            at += next.len_utf8();
        }
    }
    out
}

fn uuid(text: &str) -> Option<usize> {
    let head = text.get(..36)?;
    let fits = head.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    fits.then_some(36)
}

fn mac(text: &str) -> Option<usize> {
    let head = text.get(..17)?;
    let fits = head.bytes().enumerate().all(|(at, byte)| match at % 3 {
        2 => byte == b':',
        _ => byte.is_ascii_hexdigit(),
    });
    fits.then_some(17)
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn what_is_made_up_is_masked_and_the_rest_is_not() {
        let line = "x 10:66:6a:00:11:22 and 535eb495-5660-4888-a959-639aaf859900 10.0.0.1 end";
        assert_eq!(mask(line), "x * and * 10.0.0.1 end");
    }
}
