//! From a start until the guest's systemd says `running`: under each manager, and the same root filesystem under
//! systemd-nspawn, which does nothing but start it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cabin_tests::cli::host;

use crate::steps::{LIMIT, RUNNING, Tool, median};

/// How long it took under one of them, in milliseconds.
pub struct Line {
    tool: String,
    median: f64,
}

/// Starts an instance of each tool and the tree under nspawn, turn by turn; the first turn is not counted.
pub fn look(tools: &[Tool], image: &str, rounds: usize) -> Vec<Line> {
    let plain = Plain::new(image);
    for tool in tools {
        let _ = tool.run(&format!("{} {image} boot", if tool.is_lxd() { "init" } else { "create" }));
    }
    let mut times = vec![Vec::new(); tools.len() + 1];
    for round in 0..=rounds {
        eprintln!("boot, round {round} of {rounds}");
        let turns = tools.iter().map(started).chain([plain.started()]);
        for (times, took) in times.iter_mut().zip(turns) {
            match took {
                Ok(took) if round > 0 => times.push(took.as_secs_f64() * 1000.0),
                Ok(_) => {}
                Err(why) => eprintln!("a start failed: {why}"),
            }
        }
    }
    for tool in tools {
        let _ = tool.run("delete -f boot");
    }
    let names = tools.iter().map(|tool| tool.name.clone()).chain(["systemd-nspawn".to_owned()]);
    let lines = names.zip(times).filter_map(|(tool, times)| Some(Line { tool, median: median(&times)? }));
    lines.collect()
}

/// One start under a manager, whose instance is stopped again.
fn started(tool: &Tool) -> Result<Duration, String> {
    let begin = Instant::now();
    tool.run("start boot")?;
    tool.until(&format!("exec boot -- {RUNNING}"), LIMIT)?;
    let took = begin.elapsed();
    tool.run("stop -f boot").map(|_| took)
}

/// A root filesystem that is nobody's instance.
struct Plain {
    dir: PathBuf,
}

impl Plain {
    /// Unpacks the image's tree. Device nodes are nspawn's to make.
    fn new(image: &str) -> Plain {
        let dir = PathBuf::from(format!("/var/tmp/cabin-bench-boot-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory for a root filesystem");
        let files = cabin_tests::images::files(image);
        let file = files.first().expect("an image").display().to_string();
        let into = dir.display().to_string();
        let _ = host(&["tar", "-C", &into, "-xf", &file, "--exclude=rootfs/dev/*", "rootfs"]).ok();
        Plain { dir }
    }

    fn started(&self) -> Result<Duration, String> {
        let begin = Instant::now();
        let mut nspawn = spawn(&self.dir.join("rootfs"))
            .map_err(|why| format!("systemd-nspawn (package systemd-container): {why}"))?;
        let running = wait_running(&mut nspawn);
        let took = begin.elapsed();
        if let Some(init) = init_of(&nspawn) {
            let _ = host(&["kill", "-KILL", &init]);
        }
        let _ = nspawn.wait();
        running.map(|()| took)
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// In namespaces of its own, ids and network included, as a container is.
fn spawn(root: &Path) -> std::io::Result<Child> {
    Command::new("systemd-nspawn")
        .args(["--quiet", "--register=no", "--keep-unit", "--boot", "--console=passive", "--private-network"])
        .args(["--private-users=pick", "--private-users-ownership=auto", "--directory"])
        .arg(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn wait_running(nspawn: &mut Child) -> Result<(), String> {
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        if let Some(end) = nspawn.try_wait().map_err(|why| why.to_string())? {
            return Err(format!("systemd-nspawn ended with {end}"));
        }
        let Some(init) = init_of(nspawn) else { continue };
        let mut words = vec!["nsenter", "-t", &init, "-m", "-u", "-i", "-n", "-p"];
        words.extend(RUNNING.split(' '));
        if host(&words).code == 0 {
            return Ok(());
        }
    }
    Err("it is not `running` after a minute".to_owned())
}

/// The container's first process, a child of nspawn.
fn init_of(nspawn: &Child) -> Option<String> {
    let pid = nspawn.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

/// The table.
pub fn markdown(lines: &[Line]) -> String {
    let mut page = String::from("\n| start until `running`, milliseconds |");
    for line in lines {
        let _ = write!(page, " {} |", line.tool);
    }
    let _ = write!(page, "\n|---|{}\n| the same root filesystem |", "---:|".repeat(lines.len()));
    for line in lines {
        let _ = write!(page, " {:.0} |", line.median);
    }
    page.push('\n');
    page
}
