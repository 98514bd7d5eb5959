//! What one more container costs, and what all of them cost, when there are many: busybox, from the first to the
//! last. The cost of one must not grow with the number.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cabin_tests::lab::Lab;
use serde_json::{Value, json};

use crate::memory;
use crate::steps::Tool;

/// At how many containers is looked.
const MARKS: &[usize] = &[10, 100, 200, 500, 1000];

/// How many of the last ones are measured one by one.
const SAMPLE: usize = 10;

/// The image.
const IMAGE: &str = "busybox";

/// How long the last container may take to have an address.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was seen when so many were running; times in milliseconds, for one container or one command.
struct Mark {
    count: usize,
    create: f64,
    start: f64,
    snapshot: f64,
    stop: f64,
    table: Option<f64>,
    json: Option<f64>,
    daemon: Option<f64>,
    /// MiB that became unavailable since none was there, for each container.
    memory: f64,
}

/// Seconds of one command for all of them.
struct All {
    count: usize,
    stop: f64,
    start: f64,
    delete: f64,
}

/// What one tool showed.
pub struct Scale {
    tool: String,
    marks: Vec<Mark>,
    all: All,
    /// Where the memory of the containers is, in KiB for each, by the kernel's names.
    parts: Vec<(&'static str, f64)>,
}

/// Measures our own up to `most` containers and the others up to `peers`.
pub fn look(lab: &Lab, tools: &[Tool], most: usize, peers: usize) -> Vec<Scale> {
    lab.image(IMAGE);
    // A /24 would be full before that many have an address.
    lab.cabin(&["network", "set", "cabinbr0", "ipv4.address=10.117.0.1/20"]).ok();
    let limit = |at: usize| if at == 0 { most } else { peers };
    tools
        .iter()
        .enumerate()
        .filter(|(at, _)| limit(*at) > 0)
        .filter_map(|(at, tool)| match tool_at_scale(lab, tool, limit(at)) {
            Ok(scale) => Some(scale),
            Err(why) => {
                eprintln!("{}: many containers are left out: {why}", tool.name);
                None
            }
        })
        .collect()
}

fn tool_at_scale(lab: &Lab, tool: &Tool, most: usize) -> Result<Scale, String> {
    let name = |number: usize| format!("many{number}");
    let before = Memory::now();
    let mut marks: Vec<Mark> = Vec::new();
    let mut parts = Vec::new();
    let mut there = 0;
    let steps: Vec<usize> = MARKS.iter().copied().filter(|mark| *mark < most).chain([most]).collect();
    for count in steps {
        let (mut creates, mut starts) = (Vec::new(), Vec::new());
        for number in there..count {
            creates.push(tool.run(&format!("{} {IMAGE} {}", tool.create(), name(number)))?);
            starts.push(tool.run(&format!("start {}", name(number)))?);
        }
        there = count;
        wait_for_address(tool, &name(count - 1))?;
        let now = Memory::now();
        parts = now.since(&before, count);
        let daemon = memory::daemon(lab, tool);
        let (mut snapshots, mut stops) = (Vec::new(), Vec::new());
        for number in count - SAMPLE.min(count)..count {
            snapshots.push(tool.run(&tool.snapshot(&name(number), "s"))?);
            stops.push(tool.run(&format!("stop -f {}", name(number)))?);
            tool.run(&format!("start {}", name(number)))?;
        }
        marks.push(Mark {
            count,
            create: last(creates),
            start: last(starts),
            snapshot: last(snapshots),
            stop: last(stops),
            table: again(tool, "list"),
            json: again(tool, "list -f json"),
            daemon,
            memory: before.available.saturating_sub(now.available) as f64 / 1024.0 / count as f64,
        });
        eprintln!("{}: {}", tool.name, marks.last().map(row).unwrap_or_default());
    }
    let names: Vec<String> = (0..there).map(name).collect();
    let seconds = |line: &str| {
        let took = tool.run(line).map(|took| took.as_secs_f64());
        eprintln!("{}: `{line:.20}` of {there}: {took:.1?} s", tool.name);
        took
    };
    let all = All {
        count: there,
        stop: seconds("stop -f --all")?,
        start: seconds("start --all")?,
        delete: seconds(&format!("delete -f {}", names.join(" ")))?,
    };
    Ok(Scale { tool: tool.name.clone(), marks, all, parts })
}

fn wait_for_address(tool: &Tool, name: &str) -> Result<(), String> {
    let begin = Instant::now();
    while !tool.output(&format!("list {name} -f csv -c 4"))?.contains("eth0") {
        if begin.elapsed() > PATIENCE {
            return Err(format!("`{name}` has no address after {} s", PATIENCE.as_secs()));
        }
    }
    Ok(())
}

/// The median of the last ones.
fn last(times: Vec<Duration>) -> f64 {
    let from = times.len().saturating_sub(SAMPLE);
    median(times.into_iter().skip(from).collect())
}

fn again(tool: &Tool, line: &str) -> Option<f64> {
    (0..5).map(|_| tool.run(line).ok()).collect::<Option<Vec<_>>>().map(median)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

/// What /proc/meminfo says, in KiB.
struct Memory {
    available: u64,
    parts: Vec<(&'static str, u64)>,
}

/// What of the kernel's memory grows with containers.
const PARTS: &[&str] =
    &["AnonPages", "Shmem", "Slab", "KernelStack", "PageTables", "SecPageTables", "Percpu", "Cached"];

impl Memory {
    fn now() -> Memory {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let find = |key: &str| {
            let line = text.lines().find(|line| line.split(':').next() == Some(key))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        Memory {
            available: find("MemAvailable").unwrap_or_default(),
            parts: PARTS.iter().map(|part| (*part, find(part).unwrap_or_default())).collect(),
        }
    }

    fn since(&self, before: &Memory, count: usize) -> Vec<(&'static str, f64)> {
        let both = self.parts.iter().zip(&before.parts);
        both.map(|((part, now), (_, then))| (*part, (*now as f64 - *then as f64) / count as f64)).collect()
    }
}

/// The tables.
pub fn markdown(scales: &[Scale]) -> String {
    let mut page = String::new();
    for scale in scales {
        let _ = write!(
            page,
            "\n| {}, milliseconds, busybox running | create | start | snapshot | stop, forced | list | list (json) | \
             daemon, MiB | memory of one in all, MiB |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
            scale.tool
        );
        for mark in &scale.marks {
            let _ = write!(page, "\n| {} |", row(mark));
        }
        let All { count, stop, start, delete } = scale.all;
        let _ = write!(
            page,
            "\n\n{}: {count} at once, seconds of one command: stop {stop:.1}, start {start:.1}, delete of all while \
             running {delete:.1}. Memory of one by part, KiB:",
            scale.tool
        );
        for (part, kib) in &scale.parts {
            let _ = write!(page, " {part} {kib:.0}");
        }
        page.push('\n');
    }
    page
}

/// The cells of one line.
fn row(mark: &Mark) -> String {
    let some = |value: Option<f64>| value.map_or("—".to_owned(), |value| format!("{value:.1}"));
    format!(
        "{} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} | {} | {:.2}",
        mark.count,
        mark.create,
        mark.start,
        mark.snapshot,
        mark.stop,
        some(mark.table),
        some(mark.json),
        some(mark.daemon),
        mark.memory
    )
}

/// The same for programs.
pub fn json(scales: &[Scale]) -> Value {
    let mark = |mark: &Mark| {
        json!({
            "running": mark.count, "create_ms": mark.create, "start_ms": mark.start,
            "snapshot_ms": mark.snapshot, "stop_ms": mark.stop, "list_ms": mark.table,
            "list_json_ms": mark.json, "daemon_mib": mark.daemon, "memory_of_one_mib": mark.memory,
        })
    };
    let one = |scale: &Scale| {
        json!({
            "tool": scale.tool,
            "marks": scale.marks.iter().map(mark).collect::<Vec<_>>(),
            "all": {
                "count": scale.all.count, "stop_s": scale.all.stop, "start_s": scale.all.start,
                "delete_s": scale.all.delete,
            },
            "memory_kib": scale.parts.iter().map(|(part, kib)| ((*part).to_owned(), json!(kib))).collect::<serde_json::Map<_, _>>(),
        })
    };
    Value::Array(scales.iter().map(one).collect())
}
