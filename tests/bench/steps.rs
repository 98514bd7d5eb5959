//! The steps of a life, and how long each took under each manager.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A step: its label, then what is typed by users of Cabin and Incus, then of LXD where that differs.
type Step = (&'static str, &'static str, Option<&'static str>);

/// In the order of a life. `{i}` is the image, `{n}` the instance.
pub const STEPS: &[Step] = &[
    ("create", "create {i} {n}", Some("init {i} {n}")),
    ("start", "start {n}", None),
    ("exec true", "exec {n} -- true", None),
    ("list (json)", "list -f json", None),
    ("snapshot, running", "snapshot create {n} s0", Some("snapshot {n} s0")),
    ("stop, forced", "stop -f {n}", None),
    ("restore", "snapshot restore {n} s0", Some("restore {n} s0")),
    ("copy of a snapshot", "copy {n}/s0 {n}c", None),
    ("delete the copy", "delete {n}c", None),
    ("delete", "delete {n}", None),
    ("launch", "launch {i} {n}", None),
    ("delete, running", "delete -f {n}", None),
];

/// The step after which the least is timed that a command inside can cost, at the same moment of the guest's boot: the
/// same program by nsenter(1), without a manager.
const ENTERED: &str = "exec true";
/// The label of that.
pub const BY_HAND: &str = "— by nsenter, without a manager";

/// The step that is two commands: from launch until the guest's systemd says `running`.
pub const BOOT: &str = "launch until `running`";

/// What waits inside for the end of the boot. One command asks all the time, so that a manager whose commands are quick
/// does not slow its own guest down by asking more often. A guest that is up and not well is given up.
pub const RUNNING: &str = "end=$(($(date +%s) + 30)); until timeout 30 systemctl is-system-running --wait >/dev/null 2>&1; do \
                           [ $(date +%s) -lt $end ] || exit 1; sleep 0.02; done";

/// How long a boot may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A manager's command line.
pub struct Tool {
    /// What it is called in the table.
    pub name: String,
    words: Vec<String>,
    env: Vec<(String, String)>,
    /// Steps that failed once and are not tried again, with the reason.
    pub cannot: BTreeMap<String, String>,
}

impl Tool {
    /// One that is called with these words before each command.
    pub fn new(name: &str, prefix: &str) -> Tool {
        let words = prefix.split_whitespace().map(str::to_owned).collect();
        Tool { name: name.to_owned(), words, env: Vec::new(), cannot: BTreeMap::new() }
    }

    /// Our own, with the environment that leads to its daemon.
    pub fn of(command: Command) -> Tool {
        let text = |it: &std::ffi::OsStr| it.to_string_lossy().into_owned();
        let env = command.get_envs().filter_map(|(key, value)| Some((text(key), text(value?)))).collect();
        Tool {
            name: "cabin".to_owned(),
            words: vec![text(command.get_program())],
            env,
            cannot: BTreeMap::new(),
        }
    }

    /// Whether it speaks LXD's older words.
    pub fn is_lxd(&self) -> bool {
        self.words.last().is_some_and(|word| word == "lxc" || word.ends_with("/lxc"))
    }

    /// Whether it is our own.
    pub fn is_ours(&self) -> bool {
        self.name == "cabin"
    }

    /// Its word for making an instance.
    pub fn create(&self) -> &'static str {
        if self.is_lxd() { "init" } else { "create" }
    }

    /// Its words for a snapshot.
    pub fn snapshot(&self, name: &str, snapshot: &str) -> String {
        let verb = if self.is_lxd() { "snapshot" } else { "snapshot create" };
        format!("{verb} {name} {snapshot}")
    }

    /// Runs one command line and gives how long it took.
    pub fn run(&self, line: &str) -> Result<Duration, String> {
        self.timed(line).map(|(took, _)| took)
    }

    /// Runs one command line and gives what it wrote.
    pub fn output(&self, line: &str) -> Result<String, String> {
        self.timed(line).map(|(_, out)| String::from_utf8_lossy(&out).into_owned())
    }

    /// Runs one command line with something to read.
    pub fn feed(&self, line: &str, input: &[u8]) -> Result<(), String> {
        let done = cabin_tests::cli::run_with(&mut self.command(line), input);
        if done.code == 0 { Ok(()) } else { Err(done.err) }
    }

    /// The command for one command line.
    pub fn command(&self, line: &str) -> Command {
        let words = self.words.iter().map(String::as_str).chain(line.split_whitespace());
        let words: Vec<&str> = words.collect();
        let mut command = Command::new(words.first().copied().unwrap_or_default());
        command.args(words.iter().skip(1)).envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }

    fn timed(&self, line: &str) -> Result<(Duration, Vec<u8>), String> {
        let mut command = self.command(line);
        let begin = Instant::now();
        let done = command.stdin(Stdio::null()).output().map_err(|why| why.to_string())?;
        let took = begin.elapsed();
        if done.status.success() {
            Ok((took, done.stdout))
        } else {
            Err(String::from_utf8_lossy(&done.stderr).trim().to_owned())
        }
    }

    /// Runs a command of these words and gives what it said.
    pub fn said(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.words.first().map_or("", String::as_str));
        command.args(self.words.iter().skip(1)).args(words);
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        let done = command.stdin(Stdio::null()).output().map_err(|why| why.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    /// Waits until the systemd of an instance says `running`.
    pub fn until_running(&self, instance: &str) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            // A command may come before there is anything to run it.
            match self.said(&["exec", instance, "--", "sh", "-c", RUNNING]) {
                Ok(_) => return Ok(()),
                Err(why) if begin.elapsed() > LIMIT => return Err(why),
                Err(_) => {}
            }
        }
    }
}

/// Milliseconds by step, then by tool.
pub struct Table {
    /// The tools' names, ours first.
    pub tools: Vec<String>,
    times: BTreeMap<(String, String), Vec<f64>>,
}

impl Table {
    /// An empty one.
    pub fn new(tools: &[Tool]) -> Table {
        Table { tools: tools.iter().map(|it| it.name.clone()).collect(), times: BTreeMap::new() }
    }

    /// Lets one instance live under a tool; round 0 is not counted.
    pub fn live(&mut self, tool: &mut Tool, image: &str, round: usize) {
        let name = format!("bench{round}");
        for (label, line, lxd) in STEPS {
            let line =
                lxd.filter(|_| tool.is_lxd()).unwrap_or(line).replace("{i}", image).replace("{n}", &name);
            let took = if tool.cannot.contains_key(*label) { continue } else { tool.run(&line) };
            self.note(tool, label, round, took);
            if *label == ENTERED && tool.is_ours() {
                let took = enter_by_hand(tool, &name);
                self.note(tool, BY_HAND, round, took);
            }
        }
        let took = (|| {
            let begin = Instant::now();
            tool.run(&format!("launch {image} {name}"))?;
            tool.until_running(&name)?;
            Ok(begin.elapsed())
        })();
        if !tool.cannot.contains_key(BOOT) {
            self.note(tool, BOOT, round, took);
        }
        let _ = tool.run(&format!("delete -f {name}"));
    }

    /// Takes down how long a step took; one that failed is left out from then on.
    pub fn note(&mut self, tool: &mut Tool, label: &str, round: usize, took: Result<Duration, String>) {
        match took {
            Ok(took) if round > 0 => {
                let key = (label.to_owned(), tool.name.clone());
                self.times.entry(key).or_default().push(took.as_secs_f64() * 1000.0);
            }
            Ok(_) => {}
            Err(why) => {
                eprintln!("{}: `{label}` failed and is left out: {why}", tool.name);
                tool.cannot.insert(label.to_owned(), why);
            }
        }
    }

    /// The median of a step under a tool, in milliseconds.
    pub fn median(&self, label: &str, tool: &str) -> Option<f64> {
        median(self.times.get(&(label.to_owned(), tool.to_owned()))?)
    }

    /// The labels in the order of the table.
    pub fn labels() -> impl Iterator<Item = &'static str> {
        let by_hand = |label| (label == ENTERED).then_some(BY_HAND);
        let steps = STEPS.iter().flat_map(move |(label, ..)| [Some(*label), by_hand(*label)]);
        steps.flatten().chain([BOOT]).chain(crate::changed::labels())
    }
}

/// Runs the program of [`ENTERED`] in the namespaces of an instance's init.
fn enter_by_hand(tool: &Tool, instance: &str) -> Result<Duration, String> {
    let info = tool.said(&["info", instance])?;
    let pid = info.lines().find_map(|line| line.strip_prefix("PID: ")).ok_or("no PID")?;
    let begin = Instant::now();
    let done = Command::new("nsenter").args(["--target", pid, "--all", "true"]).status();
    match done.map_err(|why| why.to_string())?.success() {
        true => Ok(begin.elapsed()),
        false => Err("nsenter failed".to_owned()),
    }
}

/// The middle of some figures; none of none.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get((sorted.len().checked_sub(1)?) / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}
