//! What the managers themselves take: the daemon's resident memory, and a supervisor's share per instance.

use cabin_tests::lab::Lab;

use crate::steps::Tool;

/// MiB of one tool.
pub struct Memory {
    /// The tool.
    pub tool: String,
    /// The daemon's resident memory.
    pub daemon: Option<f64>,
    /// A supervisor's proportional share.
    pub supervisor: Option<f64>,
}

/// Looks while one instance runs under each tool, after all the rounds.
pub fn look(lab: &Lab, tools: &mut [Tool], image: &str) -> Vec<Memory> {
    tools
        .iter_mut()
        .map(|tool| {
            let _ = tool.run(&format!("launch {image} memory"));
            let watcher = if tool.name == "cabin" { "cabin-init" } else { "[lxc monitor]" };
            let seen = processes();
            let found = Memory {
                tool: tool.name.clone(),
                daemon: daemon(lab, tool),
                supervisor: seen
                    .iter()
                    // A helper that waits for a command is no supervisor.
                    .find(|it| it.line.contains(watcher) && !it.line.trim().ends_with(" exec"))
                    .and_then(|it| kib(it.pid, "smaps_rollup", "Pss:")),
            };
            let _ = tool.run("delete -f memory");
            found
        })
        .collect()
}

/// The resident memory of a tool's daemon.
pub fn daemon(lab: &Lab, tool: &Tool) -> Option<f64> {
    let line = match tool.name.as_str() {
        "cabin" => format!("cabind --dir {}", lab.dir.display()),
        name if name.starts_with("incus") => "incusd --".to_owned(),
        _ => "lxd --".to_owned(),
    };
    // Whoever started it has its name in the command line, too.
    let all = processes().into_iter().filter(|it| it.line.contains(&line));
    all.filter_map(|it| kib(it.pid, "status", "VmRSS:")).max_by(f64::total_cmp)
}

/// A process and its command line.
struct Seen {
    pid: u32,
    line: String,
}

fn processes() -> Vec<Seen> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(Seen { pid, line: String::from_utf8_lossy(&line).replace('\0', " ") })
    })
    .collect()
}

/// A line of a file of /proc, in MiB.
fn kib(pid: u32, file: &str, key: &str) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}
