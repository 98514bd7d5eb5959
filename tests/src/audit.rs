//! What a daemon left on the host, found by looking at the host alone: links, tables, processes, mounts, cgroups.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cli::host;
use crate::machine;

/// Everything of a stopped daemon without instances that should no longer be there: what is below its directory, and
/// in its network namespace. What goes by itself within three seconds is not: whoever makes a mount namespace beside it
/// holds a copy of its mounts for a moment.
#[must_use]
pub fn leftovers(dir: &Path, netns: &str) -> Vec<String> {
    let deadline = Instant::now() + machine::time(Duration::from_secs(3));
    loop {
        let found = left_now(dir, netns);
        if found.is_empty() || Instant::now() >= deadline {
            return found;
        }
        std::thread::park_timeout(Duration::from_millis(30));
    }
}

fn left_now(dir: &Path, netns: &str) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(links(netns).into_iter().map(|it| format!("link {it}")));
    found.extend(tables(netns).into_iter().map(|it| format!("nft table {it}")));
    found.extend(processes(dir, netns).into_iter().map(|(pid, it)| format!("process {pid}: {it}")));
    found.extend(mounts(dir).into_iter().map(|it| format!("mount {it}")));
    found.extend(cgroups(dir).into_iter().map(|it| format!("cgroup {}", it.display())));
    found.extend(loop_devices(dir).into_iter().map(|it| format!("loop device of {it}")));
    found
}

/// The links of a network namespace, the loopback apart.
#[must_use]
pub fn links(netns: &str) -> Vec<String> {
    let shown = host(&["ip", "-n", netns, "-j", "link", "show"]);
    let list = serde_json::from_str::<serde_json::Value>(&shown.out).unwrap_or_default();
    let names =
        list.as_array().into_iter().flatten().filter_map(|it| it["ifname"].as_str().map(str::to_owned));
    names.filter(|name| name != "lo").collect()
}

/// The nftables tables of a network namespace.
#[must_use]
pub fn tables(netns: &str) -> Vec<String> {
    let net = format!("--net=/run/netns/{netns}");
    host(&["nsenter", &net, "nft", "list", "tables"]).out.lines().map(str::to_owned).collect()
}

/// Processes that name the directory, hold a file in it, or live in the network namespace.
#[must_use]
pub fn processes(dir: &Path, netns: &str) -> Vec<(u32, String)> {
    let needle = dir.to_string_lossy().into_owned();
    let net = std::fs::metadata(format!("/run/netns/{netns}")).map(|it| format!("net:[{}]", it.ino()));
    let is_inside = |pid: u32| {
        let own = std::fs::read_link(format!("/proc/{pid}/ns/net"));
        own.is_ok_and(|own| net.as_ref().is_ok_and(|net| own.as_os_str() == net.as_str()))
    };
    pids()
        .filter_map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let is_its = is_inside(pid) || line.contains(&needle) || holds(pid, dir);
            is_its.then(|| (pid, line.trim().to_owned()))
        })
        .filter(|(pid, _)| *pid != std::process::id())
        .collect()
}

fn holds(pid: u32, dir: &Path) -> bool {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|to| to.starts_with(dir))
}

/// Mount points below the directory, or made from it, in any process's view.
#[must_use]
pub fn mounts(dir: &Path) -> BTreeSet<String> {
    let needle = dir.to_string_lossy().into_owned();
    let link = |pid: u32, name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).ok();
    let (mut views, mut found) = (BTreeSet::new(), BTreeSet::new());
    for pid in pids() {
        // Those of one namespace and root see the same.
        let view = (link(pid, "ns/mnt"), link(pid, "root"));
        if views.contains(&view) {
            continue;
        }
        if let Ok(table) = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")) {
            views.insert(view);
            found.extend(table.lines().filter(|line| line.contains(&needle)).map(point));
        }
    }
    found
}

fn point(line: &str) -> String {
    line.split(' ').nth(4).unwrap_or(line).to_owned()
}

/// Files below the directory that loop devices are attached to; a removed one is marked so.
#[must_use]
pub fn loop_devices(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files =
        entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("loop/backing_file")).ok());
    let mut found: Vec<String> =
        files.map(|file| file.trim().to_owned()).filter(|file| Path::new(file).starts_with(dir)).collect();
    found.sort();
    found
}

/// Control groups of instances of the daemon, in every hierarchy.
#[must_use]
pub fn cgroups(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = groups(dir)
        .into_iter()
        .flat_map(|path| std::fs::read_dir(path).into_iter().flatten().flatten())
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// The groups that carry the daemon's mark; those of its instances lie below.
fn groups(dir: &Path) -> Vec<PathBuf> {
    let own = mark(dir);
    let top = Path::new("/sys/fs/cgroup");
    let below = std::fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
    below.chain([top.to_owned()]).map(|hierarchy| hierarchy.join(&own)).filter(|path| path.is_dir()).collect()
}

/// What a daemon with that directory names its things by: `cabin-` and the path's FNV-1a hash.
#[must_use]
pub fn mark(dir: &Path) -> String {
    let bytes = dir.as_os_str().as_encoded_bytes();
    let hash =
        bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("cabin-{hash:08x}")
}

/// Ends and removes whatever a test daemon has left, so that the next test starts clean.
pub fn clear(dir: &Path, netns: &str) {
    for (pid, _) in processes(dir, netns) {
        let _ = host(&["kill", "-KILL", &pid.to_string()]);
    }
    for point in mounts(dir).into_iter().rev() {
        let _ = host(&["umount", "--lazy", &point]);
    }
    for group in cgroups(dir) {
        let _ =
            host(&["find", &group.to_string_lossy(), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]);
    }
    let _ = host(&["ip", "netns", "delete", netns]);
    let _ = host(&["rm", "-rf", "--one-file-system", &dir.to_string_lossy()]);
    // Its disk may be away for good: nobody else would take them for free.
    for run in ids(dir) {
        let _ = std::fs::remove_file(run);
    }
}

/// The runs of host ids that the daemon of a directory has taken, as the host's registry has them.
pub fn ids(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/var/lib/cabin-ids").into_iter().flatten().flatten();
    let owner = dir.to_string_lossy();
    let its = |path: &PathBuf| {
        std::fs::read_to_string(path).is_ok_and(|text| text.lines().next() == Some(owner.as_ref()))
    };
    entries.map(|entry| entry.path()).filter(its).collect()
}

/// Every process there is.
pub fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
