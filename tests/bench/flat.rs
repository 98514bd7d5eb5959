//! How our own storage verbs cost against the size of a rootfs and the number of snapshots: they should not.

use std::fmt::Write as _;
use std::time::Duration;

use cabin_tests::lab::Lab;
use serde_json::{Value, json};

use crate::steps::Tool;

/// Megabytes written inside.
const SIZES: &[u32] = &[200, 1000, 5000];

/// Snapshots there are.
const COUNTS: &[usize] = &[1, 10, 100, 500];

/// How often each is measured.
const TIMES: usize = 5;

/// One line of the table: what was varied, and milliseconds of snapshot, restore, copy and delete of the copy.
pub struct Line {
    what: String,
    snapshot: f64,
    restore: f64,
    copy: f64,
    delete: f64,
}

/// Measures all of it, on instances that are stopped.
pub fn look(lab: &Lab, tool: &Tool) -> Vec<Line> {
    lab.image("busybox");
    let mut lines = Vec::new();
    must(tool, "create busybox flat");
    let mut written = 0;
    for size in SIZES {
        must(tool, "start flat");
        must(
            tool,
            &format!("exec flat -- dd if=/dev/zero of=/root/f{written} bs=1M count={}", size - written),
        );
        must(tool, "stop -f flat");
        written = *size;
        lines.push(line(tool, "flat", format!("{size} MB in the rootfs")));
    }
    must(tool, "delete flat");
    must(tool, "create busybox many");
    let mut there = 0;
    for count in COUNTS {
        for number in there..*count {
            must(tool, &format!("snapshot create many n{number}"));
        }
        there = *count;
        lines.push(line(tool, "many", format!("{count} snapshots")));
    }
    must(tool, "delete many");
    lines
}

fn must(tool: &Tool, line: &str) -> Duration {
    tool.run(line).unwrap_or_else(|why| panic!("`{line}`: {why}"))
}

fn line(tool: &Tool, name: &str, what: String) -> Line {
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..TIMES {
        let acts = [
            format!("snapshot create {name} x"),
            format!("snapshot restore {name} x"),
            format!("copy {name}/x copied"),
            "delete copied".to_owned(),
        ];
        for (times, act) in times.iter_mut().zip(&acts) {
            times.push(must(tool, act).as_secs_f64() * 1000.0);
        }
        must(tool, &format!("snapshot delete {name} x"));
    }
    let [snapshot, restore, copy, delete] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    Line { what, snapshot, restore, copy, delete }
}

/// The same for programs.
pub fn json(lines: &[Line]) -> Value {
    let one = |line: &Line| {
        json!({
            "of": line.what, "snapshot_ms": line.snapshot, "restore_ms": line.restore, "copy_ms": line.copy,
            "delete_ms": line.delete,
        })
    };
    lines.iter().map(one).collect()
}

/// The table.
pub fn markdown(lines: &[Line]) -> String {
    let mut page = String::from(
        "\n| cabin, stopped, milliseconds | snapshot | restore | copy | delete the copy |\n|---|---:|---:|---:|---:|",
    );
    for line in lines {
        let _ = write!(
            page,
            "\n| {} | {:.1} | {:.1} | {:.1} | {:.1} |",
            line.what, line.snapshot, line.restore, line.copy, line.delete
        );
    }
    page.push('\n');
    page
}
