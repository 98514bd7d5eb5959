//! A daemon that is told which step fails, or at which it dies: started from a copy of the programs, so that a
//! build beside it does not change what is tested.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::api::{self, Reply};
use crate::cli::host;
use crate::daemon::{PLACE, PREFIX, address};
use crate::disk::Disk;
use crate::wait::{until, until_true};
use crate::{audit, binary, images};

/// The programs a daemon needs beside it.
const PROGRAMS: &[&str] = &["cabind", "cabin-init", "cabin-files", "cabin-unpack", "distrobuilder"];

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A daemon with state, socket and network namespace of its own.
pub struct Subject {
    /// Everything it keeps.
    pub dir: PathBuf,
    /// Its network namespace, by name.
    pub netns: String,
    /// Where programs and log lie: beside the directory, unless that is on a disk of its own.
    beside: PathBuf,
    child: Option<Child>,
    skip: Option<String>,
    /// The process whose mounts one sees whose disks come and go.
    view: Option<u32>,
    /// Whether its runtime directory lies on a disk of its own.
    apart: bool,
}

impl Subject {
    /// Starts one with a pool, a bridge and a profile.
    ///
    /// # Panics
    /// When it is not ready within 30 seconds.
    #[must_use]
    pub fn start() -> Subject {
        let mut subject = Subject::prepare(None, None);
        subject.boot_well();
        subject
    }

    /// As [`Subject::start`], with a pool `default` of another driver than the host's choice.
    ///
    /// # Panics
    /// As [`Subject::start`].
    #[must_use]
    pub fn start_with_driver(driver: &str) -> Subject {
        Subject::start_with_pool(&json!({ "name": "default", "driver": driver }))
    }

    /// As [`Subject::start`], with that as its pool `default`.
    ///
    /// # Panics
    /// As [`Subject::start`].
    #[must_use]
    pub fn start_with_pool(pool: &Value) -> Subject {
        let subject = Subject::start();
        let mut profile = subject.get("/1.0/profiles/default");
        let root = profile["devices"]["root"].take();
        let _ = profile["devices"].as_object_mut().map(|devices| devices.remove("root"));
        subject.must("PUT", "/1.0/profiles/default", &profile);
        subject.must("DELETE", "/1.0/storage-pools/default", &Value::Null);
        subject.must("POST", "/1.0/storage-pools", pool);
        profile["devices"]["root"] = root;
        subject.must("PUT", "/1.0/profiles/default", &profile);
        subject
    }

    /// As [`Subject::start`], with everything it keeps on a disk of its own.
    ///
    /// # Panics
    /// As [`Subject::start`].
    #[must_use]
    pub fn start_on(disk: &Disk) -> Subject {
        let mut subject = Subject::prepare(Some(disk.place().join("d")), None);
        subject.boot_well();
        subject
    }

    /// As [`Subject::start`], with its runtime directory on a disk of its own.
    ///
    /// # Panics
    /// As [`Subject::start`], or when it cannot be mounted there.
    #[must_use]
    pub fn start_with_run(disk: &Disk) -> Subject {
        let mut subject = Subject::prepare(None, None);
        let (from, to) = (disk.place().join("run"), subject.dir.join("run"));
        for place in [&from, &to] {
            std::fs::create_dir(place).expect("a directory");
        }
        host(&["mount", "--bind", &from.display().to_string(), &to.display().to_string()]).ok();
        subject.apart = true;
        subject.boot_well();
        subject
    }

    /// One in a directory on a disk that comes and goes among the mounts of a process, not started yet. Nobody
    /// looks for what it leaves: its end is [`Subject::cut_power`].
    #[must_use]
    pub fn rough(dir: PathBuf, view: u32) -> Subject {
        Subject::prepare(Some(dir), Some(view))
    }

    /// A path of the daemon's as a test reaches it.
    #[must_use]
    pub fn reach(&self, path: &Path) -> PathBuf {
        reach(self.view, path)
    }

    fn prepare(dir: Option<PathBuf>, view: Option<u32>) -> Subject {
        let id = format!("f{}-{:03}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let beside = Path::new(PLACE).join(format!("{PREFIX}{id}"));
        let dir = dir.unwrap_or_else(|| beside.clone());
        let programs = beside.with_extension("bin");
        std::fs::create_dir(reach(view, &dir)).expect("a directory of its own");
        std::fs::create_dir(&programs).expect("a directory for its programs");
        for name in PROGRAMS {
            let (from, to) = (binary(name), programs.join(name));
            if std::fs::hard_link(&from, &to).is_err() {
                std::fs::copy(&from, &to).expect("a copy of the program");
            }
        }
        let subject =
            Subject { dir, netns: format!("cbt{id}"), beside, child: None, skip: None, view, apart: false };
        subject.make_netns();
        subject
    }

    fn programs(&self) -> PathBuf {
        self.beside.with_extension("bin")
    }

    fn make_netns(&self) {
        host(&["ip", "netns", "add", &self.netns]).ok();
        host(&["ip", "-n", &self.netns, "link", "set", "lo", "up"]).ok();
    }

    /// Starts the process with that plan and waits until it is ready. `false` when it ended before, as a plan
    /// may make it.
    ///
    /// # Panics
    /// When it is neither ready nor gone within 30 seconds.
    pub fn boot(&mut self, plan: &str) -> bool {
        self.spawn(plan);
        until("cabind to be ready or gone", 30, || {
            if self.is_gone() {
                return Some(false);
            }
            let reply = api::send(&self.socket(), "GET", "/internal/ready", &[], b"");
            reply.is_ok_and(|reply| reply.status == 200).then_some(true)
        })
    }

    /// Starts the process with that plan, and does not wait for it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&mut self, plan: &str) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns));
        if let Some(pid) = self.view {
            command.arg(format!("--mount=/proc/{pid}/ns/mnt"));
        }
        let child = command
            .arg(self.programs().join("cabind"))
            .arg("--dir")
            .arg(&self.dir)
            .env("CABIN_FAULT", plan)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("nsenter (package util-linux)");
        self.child = Some(child);
    }

    /// As [`Subject::boot`] without a fault.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn boot_well(&mut self) {
        assert!(self.boot("off"), "cabind ended at its start:\n{}", self.log_tail());
    }

    /// Whether the process has ended; then it is reaped.
    pub fn is_gone(&mut self) -> bool {
        let gone = self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|it| it.is_some()));
        if gone {
            self.child = None;
        }
        gone
    }

    /// Waits until the process has died of its plan.
    ///
    /// # Panics
    /// When it lives on for 30 seconds.
    pub fn wait_gone(&mut self) {
        until_true("cabind to die", 30, || self.is_gone());
    }

    /// Kills the process as a crash would.
    ///
    /// # Panics
    /// When it is not running.
    pub fn crash(&mut self) {
        let mut child = self.child.take().expect("a running daemon");
        child.kill().expect("the right to kill it");
        child.wait().expect("its end");
    }

    /// Asks it to end as a service manager does, and waits until it has.
    ///
    /// # Panics
    /// When it is still there after 30 seconds.
    pub fn terminate(&mut self) {
        let pid = self.pid();
        host(&["kill", "-TERM", &pid.to_string()]).ok();
        self.wait_gone();
    }

    /// Ends everything as a power cut does: daemon, containers, name servers, links, filters, cgroups, and what
    /// lies in the run directory of a host that forgets it.
    ///
    /// # Panics
    /// When something cannot be ended.
    pub fn cut_power(&mut self) {
        if self.child.is_some() {
            self.crash();
        }
        let inside: Vec<PathBuf> = audit::cgroups(&self.dir);
        for group in &inside {
            let kill = group.join("cgroup.kill");
            if kill.exists() {
                std::fs::write(kill, "1").expect("the right to kill a cgroup");
            }
        }
        for (pid, _) in self.processes() {
            let _ = host(&["kill", "-KILL", &pid.to_string()]);
        }
        until_true("all of its processes to be gone", 20, || self.processes().is_empty());
        // The kernel lets go of one a moment after its last process has gone.
        until_true("its cgroups to be gone", 20, || {
            let words =
                |group: &str| host(&["find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]);
            inside.iter().filter(|group| group.exists()).all(|group| {
                let _ = words(&group.to_string_lossy());
                !group.exists()
            })
        });
        host(&["ip", "netns", "delete", &self.netns]).ok();
        self.make_netns();
        let _ = std::fs::remove_file(self.socket());
    }

    /// Processes that are its, the daemon itself apart: they name its directory, hold a file in it, or live in
    /// its network namespace.
    #[must_use]
    pub fn processes(&self) -> Vec<(u32, String)> {
        let own = self.child.as_ref().map(Child::id);
        let mut found = audit::processes(&self.dir, &self.netns);
        found.retain(|(pid, _)| Some(*pid) != own && *pid != std::process::id());
        found.sort();
        found
    }

    /// The process id of the daemon.
    ///
    /// # Panics
    /// When it is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running daemon").id()
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.reach(&self.dir).join("unix.socket")
    }

    fn log_path(&self) -> PathBuf {
        self.beside.with_extension("log")
    }

    /// All that it and those before it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(30)).map(|line| format!("    {line}\n")).collect()
    }

    /// From now on no undo takes back the steps whose names begin so. What that leaves is not looked for at the
    /// end.
    pub fn forget_to_undo(&mut self, beginning: &str) {
        self.skip = Some(beginning.to_owned());
    }

    /// Arms a plan (`count`, `fail:3`, `kill:3`, `hold:cgroup removed`, `off`).
    ///
    /// # Panics
    /// When the daemon refuses it.
    #[track_caller]
    pub fn arm(&self, plan: &str) {
        let reply = self
            .call("PUT", "/internal/fault", Some(&json!({ "plan": plan, "skip": self.skip })))
            .expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// Ends a plan. `false` when the daemon died of it before it could answer.
    #[must_use]
    pub fn disarm(&self) -> bool {
        let reply = self.call("PUT", "/internal/fault", Some(&json!({ "plan": "off", "skip": self.skip })));
        reply.is_ok_and(|reply| reply.status == 200)
    }

    /// One request with an optional JSON body.
    ///
    /// # Errors
    /// When there is no answer: the daemon died.
    pub fn call(&self, method: &str, target: &str, body: Option<&Value>) -> std::io::Result<Reply> {
        let bytes = body.map(|it| it.to_string().into_bytes()).unwrap_or_default();
        let headers: &[(&str, &str)] =
            if body.is_some() { &[("Content-Type", "application/json")] } else { &[] };
        api::send(&self.socket(), method, target, headers, &bytes)
    }

    /// The `metadata` of a GET.
    ///
    /// # Panics
    /// When the answer is an error.
    #[track_caller]
    #[must_use]
    pub fn get(&self, target: &str) -> Value {
        let reply = self.call("GET", target, None).expect("an answer");
        assert!(reply.status == 200, "GET {target}: {} {}", reply.status, reply.text());
        reply.json()["metadata"].clone()
    }

    /// A request and, when it starts an operation, the wait for its end.
    ///
    /// # Errors
    /// What the daemon said, or that it is gone.
    pub fn ask(&self, method: &str, target: &str, body: &Value) -> Result<Value, String> {
        self.finish(self.call(method, target, Some(body)))
    }

    /// Waits for what an answer promises.
    ///
    /// # Errors
    /// What the daemon said, or that it is gone.
    pub fn finish(&self, reply: std::io::Result<Reply>) -> Result<Value, String> {
        let reply = reply.map_err(|why| format!("no answer: {why}"))?;
        if reply.status >= 400 {
            return Err(format!("{}: {}", reply.status, reply.error()));
        }
        if reply.status != 202 {
            return Ok(reply.json()["metadata"].clone());
        }
        let id = reply.json()["operation"].as_str().unwrap_or_default().to_owned();
        let ended = self.call("GET", &format!("{id}/wait?timeout=60"), None);
        let ended = ended.map_err(|why| format!("no answer: {why}"))?.json()["metadata"].clone();
        match ended["status"].as_str() {
            Some("Success") => Ok(ended),
            _ => Err(ended["err"].as_str().unwrap_or("no word").to_owned()),
        }
    }

    /// As [`Subject::ask`] of what must not fail.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn must(&self, method: &str, target: &str, body: &Value) -> Value {
        self.ask(method, target, body)
            .unwrap_or_else(|why| panic!("{method} {target} {body}: {why}\n{}", self.log_tail()))
    }

    /// Imports the image of a definition under an alias of its name.
    ///
    /// # Errors
    /// What the daemon said.
    pub fn import(&self, name: &str) -> Result<Value, String> {
        let files = images::files(name);
        let [file] = files.as_slice() else { return Err("not one file".to_owned()) };
        let bytes = std::fs::read(file).expect("the built image");
        let aliases = format!("alias={name}");
        let headers = [("Content-Type", "application/octet-stream"), ("X-Incus-aliases", aliases.as_str())];
        self.finish(api::send(&self.socket(), "POST", "/1.0/images", &headers, &bytes))
    }

    /// Makes an instance of the busybox image.
    #[track_caller]
    pub fn create(&self, name: &str, config: &Value) {
        let source = json!({ "type": "image", "alias": "busybox" });
        self.must("POST", "/1.0/instances", &json!({ "name": name, "source": source, "config": config }));
    }

    /// Imports the busybox image and starts an instance `bystander` of it, which is to notice nothing of what is done to the
    /// daemon: its init.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn furnish(&self) -> i64 {
        self.import("busybox").expect("the image");
        self.create("bystander", &json!({}));
        self.power("bystander", "start").expect("a start");
        self.init_pid("bystander")
    }

    /// Gives an instance's nic the fixed address that ends so in its network.
    pub fn fix_address(&self, name: &str, last: u8) {
        let bridge = self.get("/1.0/networks/cabinbr0")["config"]["ipv4.address"].clone();
        let (net, _) = bridge.as_str().and_then(|it| it.rsplit_once('.')).expect("an IPv4 network");
        let eth0 = json!({ "type": "nic", "name": "eth0", "network": "cabinbr0",
            "ipv4.address": format!("{net}.{last}") });
        self.must("PATCH", &format!("/1.0/instances/{name}"), &json!({ "devices": { "eth0": eth0 } }));
    }

    /// Starts, stops or restarts an instance, by force.
    ///
    /// # Errors
    /// What the daemon said.
    pub fn power(&self, name: &str, action: &str) -> Result<Value, String> {
        let body = json!({ "action": action, "force": true, "timeout": 30 });
        self.ask("PUT", &format!("/1.0/instances/{name}/state"), &body)
    }

    /// The status of an instance; empty when there is none.
    #[must_use]
    pub fn status(&self, name: &str) -> String {
        let reply = self.call("GET", &format!("/1.0/instances/{name}"), None).expect("an answer");
        reply.json()["metadata"]["status"].as_str().unwrap_or_default().to_owned()
    }

    /// The process id of an instance's init on the host; 0 when it does not run.
    #[must_use]
    pub fn init_pid(&self, name: &str) -> i64 {
        self.get(&format!("/1.0/instances/{name}/state"))["pid"].as_i64().unwrap_or_default()
    }

    /// The process id of an instance's supervisor: its init's parent.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn supervisor_pid(&self, name: &str) -> u32 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.init_pid(name))).expect("an init");
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
        line.trim().parse().expect("a number")
    }

    /// The output of a command in an instance, recorded by the daemon.
    ///
    /// # Errors
    /// What the daemon said, or that the command failed.
    pub fn exec(&self, name: &str, script: &str) -> Result<String, String> {
        let body = json!({ "command": ["sh", "-c", script], "record-output": true, "wait-for-websocket": false,
            "interactive": false });
        let ended = self.ask("POST", &format!("/1.0/instances/{name}/exec"), &body)?;
        let code = ended["metadata"]["return"].as_i64().unwrap_or(-1);
        let path = ended["metadata"]["output"]["1"].as_str().unwrap_or_default().to_owned();
        let out = self.call("GET", &path, None).map_err(|why| why.to_string())?.text();
        let _ = self.call("DELETE", &path, None);
        if let Some(path) = ended["metadata"]["output"]["2"].as_str() {
            let _ = self.call("DELETE", path, None);
        }
        if code == 0 { Ok(out.trim().to_owned()) } else { Err(format!("exit {code}: {out}")) }
    }

    /// Waits until an instance has that status.
    pub fn wait_status(&self, name: &str, status: &str, seconds: u64) {
        until_true(&format!("`{name}` to be {status}"), seconds, || self.status(name) == status);
    }

    /// Waits until an instance has an IPv4 address of its bridge, and gives it.
    pub fn wait_address(&self, name: &str, seconds: u64) -> String {
        until(&format!("an address of `{name}`"), seconds, || {
            address(&self.get(&format!("/1.0/instances/{name}/state")))
        })
    }

    /// What the daemon's own audit finds.
    #[must_use]
    pub fn strays(&self) -> Vec<String> {
        let found = self.get("/internal/audit").as_array().cloned().unwrap_or_default();
        found.iter().map(ToString::to_string).collect()
    }

    fn stop(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.is_gone() {
            return vec!["cabind was gone at the end".to_owned()];
        }
        for url in self.get("/1.0/instances").as_array().into_iter().flatten() {
            let target = url.as_str().unwrap_or_default();
            let _ = self.power(target.rsplit('/').next().unwrap_or_default(), "stop");
            let gone = self.ask("DELETE", target, &Value::Null);
            // An ephemeral one went with its stop.
            if let Err(why) = gone
                && self.call("GET", target, None).is_ok_and(|reply| reply.status != 404)
            {
                wrong.push(format!("cannot delete `{target}`: {why}"));
            }
        }
        wrong.extend(crate::sweep::audited(self).into_iter().map(|it| format!("audit: {it}")));
        let _ = self.call("PUT", "/internal/shutdown", None);
        self.wait_gone();
        if self.apart {
            host(&["umount", &self.dir.join("run").display().to_string()]).ok();
        }
        wrong.extend(audit::leftovers(&self.dir, &self.netns));
        wrong
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of cabind's log ---\n{}", self.log_tail());
            if std::env::var_os("CABIN_KEEP").is_some() {
                eprintln!("kept: {} in network namespace {}", self.dir.display(), self.netns);
                return;
            }
            if let Some(mut child) = self.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            for group in audit::cgroups(&self.dir) {
                let _ = std::fs::write(group.join("cgroup.kill"), "1");
            }
            for (pid, _) in self.processes() {
                let _ = host(&["kill", "-KILL", &pid.to_string()]);
            }
        }
        if self.view.is_some() && !std::thread::panicking() {
            self.cut_power();
        }
        let wrong = if std::thread::panicking() || self.view.is_some() { Vec::new() } else { self.stop() };
        audit::clear(&self.dir, &self.netns);
        let log = self.log_tail();
        let _ = std::fs::remove_file(self.log_path());
        let _ = std::fs::remove_dir_all(self.programs());
        let meant = self.skip.is_some();
        assert!(meant || wrong.is_empty(), "left behind by cabind:\n  {}\n{log}", wrong.join("\n  "));
    }
}

/// A path as it is among the mounts of that process, or our own.
fn reach(view: Option<u32>, path: &Path) -> PathBuf {
    view.map_or_else(|| path.to_owned(), |pid| PathBuf::from(format!("/proc/{pid}/root{}", path.display())))
}
