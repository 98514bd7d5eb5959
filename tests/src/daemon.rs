//! A real `cabind` with state, socket and network namespace of its own, and what is asked of it.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::api::{self, Reply};
use crate::cli::{Outcome, run, run_with};
use crate::wait::{until, until_true};
use crate::{audit, binary, machine};

/// Where the directories of test daemons lie; short, for a socket's path may have 107 bytes.
pub const PLACE: &str = "/var/tmp";
/// How the names of those directories begin.
pub const PREFIX: &str = "cabin-test-";

/// Gives a daemon its mounts: those of other tests, which it would keep in use as long as it lives, are left out. Then
/// every mount is shared, as on a host that systemd has started; many machines for development have them private, where
/// mistakes with propagation do not show.
const OWN_MOUNTS: &str =
    "for it in $(findmnt -rno TARGET | grep -E '^(/var/tmp/cabin-test-|/run/netns)' | sort -r); do
    umount -l $it 2>/dev/null; done; mount --make-rshared /; exec \"$@\"";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A daemon under test. Dropping it stops it and looks for what it left behind.
pub struct Daemon {
    /// Everything it keeps.
    pub dir: PathBuf,
    /// Its network namespace, by name.
    pub netns: String,
    args: Vec<String>,
    child: Option<Child>,
}

impl Daemon {
    /// Starts one as a fresh host would have it: with a pool, a bridge and a profile.
    #[must_use]
    pub fn start() -> Daemon {
        Daemon::start_with(&[])
    }

    /// Starts one with these arguments after `--dir DIR`.
    ///
    /// # Panics
    /// When it is not ready within 30 seconds.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Daemon {
        Daemon::start_in(args, |_| {})
    }

    /// Starts one with these arguments in a network namespace that is prepared before.
    ///
    /// # Panics
    /// When it is not ready within 30 seconds.
    #[must_use]
    pub fn start_in(args: &[&str], prepare: impl FnOnce(&str)) -> Daemon {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // One name must not be the beginning of another.
        let id = format!("{}-{number:03}", std::process::id());
        let mut daemon = Daemon {
            dir: Path::new(PLACE).join(format!("{PREFIX}{id}")),
            netns: format!("cbt{id}"),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            child: None,
        };
        std::fs::create_dir(&daemon.dir).expect("a directory of its own");
        host_ok(&["ip", "netns", "add", &daemon.netns]);
        host_ok(&["ip", "-n", &daemon.netns, "link", "set", "lo", "up"]);
        prepare(&daemon.netns);
        daemon.boot();
        daemon
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Panics
    /// When it ends or is not ready within 30 seconds.
    pub fn boot(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.netns))
            .args(["unshare", "--mount", "sh", "-c", OWN_MOUNTS, "sh"])
            .arg(binary("cabind"))
            .arg("--dir")
            .arg(&self.dir)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("nsenter (package util-linux)");
        self.child = Some(child);
        until_true("cabind to be ready", 30, || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "cabind ended with {ended:?}:\n{}", self.log());
            api::send(&self.socket(), "GET", "/internal/ready", &[], b"")
                .is_ok_and(|reply| reply.status == 200)
        });
    }

    /// Kills the process as a crash or the out-of-memory killer would.
    ///
    /// # Panics
    /// When it is not running.
    pub fn crash(&mut self) {
        let mut child = self.child.take().expect("a running daemon");
        child.kill().expect("the right to kill it");
        child.wait().expect("its end");
    }

    /// Asks it to end as `systemctl stop` does, and waits until it has.
    ///
    /// # Panics
    /// When it is still there after 30 seconds.
    pub fn terminate(&mut self) {
        let mut child = self.child.take().expect("a running daemon");
        host_ok(&["kill", "-TERM", &child.id().to_string()]);
        until_true("cabind to end after SIGTERM", 30, || child.try_wait().is_ok_and(|it| it.is_some()));
    }

    /// Whether the process is there.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|ended| ended.is_none()))
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
        self.dir.join("unix.socket")
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    /// One request with an optional JSON body.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    #[must_use]
    pub fn call(&self, method: &str, target: &str, body: Option<&Value>) -> Reply {
        let bytes = body.map(|it| it.to_string().into_bytes()).unwrap_or_default();
        let headers: &[(&str, &str)] =
            if body.is_some() { &[("Content-Type", "application/json")] } else { &[] };
        api::send(&self.socket(), method, target, headers, &bytes)
            .unwrap_or_else(|why| panic!("{method} {target}: {why}\n{}", self.log_tail()))
    }

    /// The `metadata` of a GET.
    ///
    /// # Panics
    /// When the answer is an error.
    #[track_caller]
    #[must_use]
    pub fn get(&self, target: &str) -> Value {
        let reply = self.call("GET", target, None);
        assert!(reply.status == 200, "GET {target}: {} {}", reply.status, reply.text());
        reply.json()["metadata"].clone()
    }

    /// A request that starts an operation: waits for its end and gives the ended operation.
    ///
    /// # Panics
    /// When the request is refused, or the operation takes more than two minutes.
    #[track_caller]
    #[must_use]
    pub fn operate(&self, method: &str, target: &str, body: &Value) -> Value {
        let reply = self.call(method, target, Some(body));
        assert!(reply.status == 202, "{method} {target}: {} {}", reply.status, reply.text());
        let id = reply.json()["operation"].as_str().expect("the operation's address").to_owned();
        let ended = self.call("GET", &format!("{id}/wait?timeout=120"), None);
        ended.metadata()
    }

    /// `cabin` with these words, told where the daemon is.
    pub fn cabin<S: AsRef<OsStr>>(&self, words: &[S]) -> Outcome {
        run(&mut self.command(&client(), words))
    }

    /// `cabin` with these words and something to read.
    pub fn cabin_with<S: AsRef<OsStr>>(&self, words: &[S], stdin: &[u8]) -> Outcome {
        run_with(&mut self.command(&client(), words), stdin)
    }

    /// A client program (ours or a stock one) told where the daemon is, with a private home.
    pub fn command<S: AsRef<OsStr>>(&self, program: &Path, words: &[S]) -> Command {
        let mut command = Command::new(program);
        command
            .args(words)
            .env("CABIN_DIR", &self.dir)
            .env("INCUS_SOCKET", self.socket())
            .env("HOME", self.home())
            .env("INCUS_CONF", self.home().join("incus"))
            .env_remove("XDG_CONFIG_HOME")
            .current_dir(self.home());
        command
    }

    /// The private home of its clients.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        let home = self.dir.with_extension("home");
        std::fs::create_dir_all(home.join("incus")).expect("a home for the clients");
        home
    }

    /// A command inside an instance, by `cabin exec`.
    pub fn exec(&self, name: &str, words: &[&str]) -> Outcome {
        let mut all = vec!["exec", name, "--"];
        all.extend(words);
        self.cabin(&all)
    }

    /// A shell script inside an instance: its output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn sh(&self, name: &str, script: &str) -> String {
        self.exec(name, &["sh", "-c", script]).ok()
    }

    /// The status of an instance, as the API spells it.
    #[track_caller]
    #[must_use]
    pub fn status(&self, name: &str) -> String {
        self.get(&format!("/1.0/instances/{name}"))["status"].as_str().unwrap_or_default().to_owned()
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

    /// The process id of an instance's init on the host; 0 when it does not run.
    #[track_caller]
    #[must_use]
    pub fn init_pid(&self, name: &str) -> i64 {
        self.get(&format!("/1.0/instances/{name}/state"))["pid"].as_i64().unwrap_or_default()
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(40)).map(|line| format!("    {line}\n")).collect()
    }

    /// Deletes every instance, asks the daemon to shut down, and waits until it is gone.
    fn stop(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.is_alive() {
            if let Ok(reply) = api::send(&self.socket(), "GET", "/1.0/instances", &[], b"") {
                for url in reply.json()["metadata"].as_array().into_iter().flatten() {
                    let name = url.as_str().and_then(|it| it.rsplit('/').next()).unwrap_or_default();
                    let done = self.cabin(&["delete", "--force", name]);
                    if done.code != 0 {
                        wrong.push(format!("cannot delete `{name}`: {}", done.err));
                    }
                }
            }
            let _ = api::send(&self.socket(), "PUT", "/internal/shutdown", &[], b"");
        }
        if let Some(mut child) = self.child.take() {
            let mut looks = 0;
            let gone = std::iter::repeat_with(|| {
                looks += 1;
                std::thread::park_timeout(std::time::Duration::from_millis(20));
                child.try_wait().is_ok_and(|ended| ended.is_some())
            })
            .take(1500 * usize::try_from(machine::slower()).unwrap_or(1))
            .any(|gone| gone);
            if !gone {
                wrong.push("cabind does not end after PUT /internal/shutdown".to_owned());
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        wrong
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of cabind's log ---\n{}", self.log_tail());
        }
        if std::env::var_os("CABIN_KEEP").is_some() {
            eprintln!("kept: {} in network namespace {}", self.dir.display(), self.netns);
            return;
        }
        let mut wrong = self.stop();
        wrong.extend(audit::leftovers(&self.dir, &self.netns));
        audit::clear(&self.dir, &self.netns);
        let log = self.log_tail();
        let _ = std::fs::remove_file(self.log_path());
        let _ = std::fs::remove_dir_all(self.dir.with_extension("home"));
        if !wrong.is_empty() && !std::thread::panicking() {
            panic!("left behind by cabind:\n  {}\n{log}", wrong.join("\n  "));
        }
    }
}

/// The IPv4 address of its bridge that the state of an instance tells.
#[must_use]
pub fn address(state: &Value) -> Option<String> {
    let addresses = state["network"]["eth0"]["addresses"].as_array()?;
    let inet = addresses.iter().find(|it| it["family"] == "inet" && it["scope"] == "global")?;
    Some(inet["address"].as_str()?.to_owned())
}

/// Our command line, or the one that CABIN_CLI names: `incus` understands the same words.
fn client() -> PathBuf {
    std::env::var_os("CABIN_CLI").map_or_else(|| binary("cabin"), PathBuf::from)
}

#[track_caller]
fn host_ok(words: &[&str]) {
    crate::cli::host(words).ok();
}
