//! From a start until the guest's systemd says `running`: under each manager, and the same root filesystem under
//! systemd-nspawn, which does nothing but start it. Of it, what the guest itself took, as its systemd tells: that much no
//! manager can save.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use cabin_tests::cli::{Outcome, host};
use serde_json::{Value, json};

use crate::steps::{LIMIT, RUNNING, Tool, median};

/// How long it took under one of them, and of it the guest's own boot, in milliseconds.
pub struct Line {
    tool: String,
    whole: f64,
    own: Option<f64>,
}

/// One start.
#[derive(Clone)]
struct Start {
    whole: f64,
    own: Option<f64>,
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
        for (times, start) in times.iter_mut().zip(turns) {
            match start {
                Ok(start) if round > 0 => times.push(start),
                Ok(_) => {}
                Err(why) => eprintln!("a start failed: {why}"),
            }
        }
    }
    for tool in tools {
        let _ = tool.run("delete -f boot");
    }
    let names = tools.iter().map(|tool| tool.name.clone()).chain(["systemd-nspawn".to_owned()]);
    names.zip(times).filter_map(|(tool, starts)| line(tool, &starts)).collect()
}

fn line(tool: String, starts: &[Start]) -> Option<Line> {
    let whole = median(&starts.iter().map(|it| it.whole).collect::<Vec<_>>())?;
    let own = median(&starts.iter().filter_map(|it| it.own).collect::<Vec<_>>());
    Some(Line { tool, whole, own })
}

/// One start under a manager, whose instance is stopped again.
fn started(tool: &Tool) -> Result<Start, String> {
    let begin = Instant::now();
    tool.run("start boot")?;
    tool.until_running("boot")?;
    let whole = begin.elapsed().as_secs_f64() * 1000.0;
    let own = own(&tool.said(&["exec", "boot", "--", "systemd-analyze"])?);
    tool.run("stop -f boot").map(|_| Start { whole, own })
}

/// Milliseconds in what systemd-analyze says: `Startup finished in 1.058s (userspace)`, `… 290ms …`.
fn own(said: &str) -> Option<f64> {
    let (_, rest) = said.split_once("finished in ")?;
    let (figure, _) = rest.split_once(" (userspace)")?;
    let part = |text: &str| match text.strip_suffix("ms") {
        Some(number) => number.parse::<f64>().ok(),
        None => text.strip_suffix('s')?.parse::<f64>().ok().map(|seconds| seconds * 1000.0),
    };
    figure.split_whitespace().map(part).sum()
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

    fn started(&self) -> Result<Start, String> {
        let begin = Instant::now();
        let mut nspawn = spawn(&self.dir.join("rootfs"))
            .map_err(|why| format!("systemd-nspawn (package systemd-container): {why}"))?;
        let running = wait_running(&mut nspawn, &self.dir.join("rootfs"));
        let whole = begin.elapsed().as_secs_f64() * 1000.0;
        let own = own(&within(&nspawn, &["systemd-analyze"]).map(|done| done.out).unwrap_or_default());
        if let Some(init) = init_of(&nspawn) {
            let _ = host(&["kill", "-KILL", &init]);
        }
        let _ = nspawn.wait();
        running.map(|()| Start { whole, own })
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

fn wait_running(nspawn: &mut Child, root: &Path) -> Result<(), String> {
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        if let Some(end) = nspawn.try_wait().map_err(|why| why.to_string())? {
            return Err(format!("systemd-nspawn ended with {end}"));
        }
        // Before it stands in its own root a command would ask the host's systemd.
        let stands = init_of(nspawn).is_some_and(|init| same(Path::new(&format!("/proc/{init}/root")), root));
        if stands && within(nspawn, &["sh", "-c", RUNNING]).is_some_and(|done| done.code == 0) {
            return Ok(());
        }
    }
    Err("it is not `running` after a minute".to_owned())
}

/// Whether two paths are one directory.
fn same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    place(one).is_some_and(|found| Some(found) == place(other))
}

/// Runs a command inside, once there is an inside.
fn within(nspawn: &Child, words: &[&str]) -> Option<Outcome> {
    let init = init_of(nspawn)?;
    let mut all = vec!["nsenter", "-t", &init, "-m", "-u", "-i", "-n", "-p"];
    all.extend(words);
    Some(host(&all))
}

/// The container's first process, a child of nspawn.
fn init_of(nspawn: &Child) -> Option<String> {
    let pid = nspawn.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

/// The same for programs.
pub fn json(lines: &[Line]) -> Value {
    let one = |line: &Line| json!({ "tool": line.tool, "whole_ms": line.whole, "own_ms": line.own });
    lines.iter().map(one).collect()
}

/// The table.
pub fn markdown(lines: &[Line]) -> String {
    let mut page = String::from("\n| start until `running`, milliseconds |");
    for line in lines {
        let _ = write!(page, " {} |", line.tool);
    }
    let _ = write!(page, "\n|---|{}", "---:|".repeat(lines.len()));
    for (what, pick) in ROWS {
        let _ = write!(page, "\n| {what} |");
        for line in lines {
            let _ = write!(page, " {} |", pick(line).map_or_else(|| "—".to_owned(), |it| format!("{it:.0}")));
        }
    }
    page.push('\n');
    page
}

type Pick = fn(&Line) -> Option<f64>;

const ROWS: [(&str, Pick); 2] = [
    ("the same root filesystem", |it| Some(it.whole)),
    ("of it the guest's own boot (systemd-analyze)", |it| it.own),
];
