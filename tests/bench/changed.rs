//! What snapshots, copies and backups cost when much has been changed: 10 MB, then 1 GB, written inside.

use std::time::Duration;

use crate::steps::{Table, Tool};

/// How the names of managers end that take part here alone, and only when this is looked at alone: each instance is a
/// whole copy of its image there.
pub const ONLY: &str = "-dir";

/// One thing that is typed.
enum Act {
    /// Timed, under this label.
    Timed(&'static str, &'static str, Option<&'static str>),
    /// Done on the way.
    Quiet(&'static str, Option<&'static str>),
    /// How long the instance stands still for one more snapshot: only ours tells.
    Frozen(&'static str, &'static str),
}

use Act::{Frozen, Quiet, Timed};

/// In the order of a life. `{i}` is the image, `{n}` the instance, `{f}` a file.
const ACTS: &[Act] = &[
    Quiet("launch {i} {n}", None),
    Quiet("exec {n} -- dd if=/dev/urandom of=/root/small bs=1M count=10 status=none", None),
    Timed("snapshot, running, 10 MB changed", "snapshot create {n} a", Some("snapshot {n} a")),
    Quiet("exec {n} -- dd if=/dev/urandom of=/root/small bs=1M count=10 status=none", None),
    Frozen("of that standing still", "frozen"),
    Quiet("exec {n} -- dd if=/dev/urandom of=/root/big bs=1M count=1000 status=none", None),
    Quiet("exec {n} -- sync", None),
    Timed("snapshot, running, 1 GB changed", "snapshot create {n} b", Some("snapshot {n} b")),
    Quiet("exec {n} -- dd if=/dev/urandom of=/root/big bs=1M count=1000 status=none", None),
    Quiet("exec {n} -- sync", None),
    Frozen("of that standing still, 1 GB changed", "frozen-big"),
    Quiet("stop -f {n}", None),
    Timed("snapshot, stopped, 1 GB changed", "snapshot create {n} c", Some("snapshot {n} c")),
    Timed("restore, 1 GB changed", "snapshot restore {n} a", Some("restore {n} a")),
    Timed("copy of a snapshot, 1 GB changed", "copy {n}/c {n}c", None),
    Timed("export, 1 GB changed", "export {n}c {f} --instance-only --compression none", None),
    Timed("delete, 1 GB changed", "delete {n}c", None),
    Timed("import, 1 GB changed", "import {f} {n}c", None),
    Quiet("delete {n}c", None),
    Timed("delete with three snapshots", "delete {n}", None),
];

/// The labels, in order.
pub fn labels() -> impl Iterator<Item = &'static str> {
    ACTS.iter().filter_map(|act| match act {
        Timed(label, ..) | Frozen(label, _) => Some(*label),
        Quiet(..) => None,
    })
}

/// Lets one instance live under a tool; round 0 is not counted.
pub fn live(table: &mut Table, tool: &mut Tool, image: &str, round: usize) {
    let name = format!("much{round}");
    // A manager in a root of its own writes it there, and nobody removes it before the end.
    let file = std::env::temp_dir().join(format!("cabin-bench-{}-{}-{round}", std::process::id(), tool.name));
    let say = |line: &str| {
        line.replace("{i}", image).replace("{n}", &name).replace("{f}", &file.display().to_string())
    };
    for act in ACTS {
        match act {
            Timed(label, ..) if tool.cannot.contains_key(*label) => {}
            Timed(label, line, lxd) => {
                let line = lxd.filter(|_| tool.is_lxd()).unwrap_or(line);
                let took = tool.run(&say(line));
                table.note(tool, label, round, took);
            }
            Frozen(label, snapshot) if tool.is_ours() => {
                let took = frozen(tool, &name, snapshot);
                table.note(tool, label, round, took);
            }
            Frozen(..) => {}
            Quiet(line, lxd) => {
                let line = lxd.filter(|_| tool.is_lxd()).unwrap_or(line);
                // A step that cannot be done shows in the timed ones after it.
                let _: Result<Duration, String> = tool.run(&say(line));
            }
        }
    }
    let _ = tool.run(&say("delete -f {n}c"));
    let _ = tool.run(&say("delete -f {n}"));
    let _ = std::fs::remove_file(&file);
}

/// Takes a snapshot, gives how long the instance stood still, and takes it away again.
fn frozen(tool: &Tool, name: &str, snapshot: &str) -> Result<Duration, String> {
    let body = format!(r#"{{"name":"{snapshot}"}}"#);
    let address = format!("/1.0/instances/{name}/snapshots");
    let said = tool.said(&["query", "--wait", "-X", "POST", "-d", &body, &address])?;
    let operation: serde_json::Value = serde_json::from_str(&said).map_err(|why| why.to_string())?;
    let frozen = operation["metadata"]["frozen_us"].as_u64();
    tool.said(&["snapshot", "delete", name, snapshot])?;
    frozen.map(Duration::from_micros).ok_or_else(|| format!("it does not say how long: {said}"))
}
