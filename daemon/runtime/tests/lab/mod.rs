//! Real containers for tests: root filesystems, a runtime of its own in a directory of its own, and a look
//! at what is left afterwards.

#![allow(dead_code)]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cabin_runtime::cgroup::Cgroups;
use cabin_runtime::spec::{CgroupLimits, ExecSpec, IdMap, IdRange, InitSpec, RootSpec, Streams};
use cabin_runtime::{Error, ExecStatus, Runtime, Supervisor};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Where trees that are slow to make are kept.
const CACHE: &str = "/var/cache/cabin-tests";

/// One runtime with one container's files.
pub struct Lab {
    pub dir: PathBuf,
    pub name: String,
    pub prefix: String,
    pub runtime: Runtime,
}

impl Lab {
    pub fn new() -> Lab {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Lab::at(std::env::temp_dir().join(format!("cabin-test-{}-{serial}", std::process::id())))
    }

    /// A lab in a directory that another process may share.
    pub fn at(dir: PathBuf) -> Lab {
        assert!(rustix::process::geteuid().is_root(), "containers need root: run the tests as root");
        let prefix = dir.file_name().unwrap().to_string_lossy().into_owned();
        for part in ["state/u", "state/w"] {
            std::fs::create_dir_all(dir.join(part)).unwrap();
        }
        let cgroups = Cgroups::new(&prefix).unwrap();
        let bin_dir = Path::new(env!("CARGO_BIN_EXE_cabin-init")).parent().unwrap();
        let runtime = Runtime::new(&dir.join("run"), bin_dir, cgroups).unwrap();
        Lab { dir, name: "web".to_owned(), prefix, runtime }
    }

    /// Uses the hierarchies of a given mount table instead of the host's.
    pub fn use_cgroups(&mut self, table: &str) {
        self.keep_in(Cgroups::with_mount_table(&self.prefix, table).unwrap());
    }

    /// Keeps its containers in these.
    pub fn keep_in(&mut self, cgroups: Cgroups) {
        let bin_dir = Path::new(env!("CARGO_BIN_EXE_cabin-init")).parent().unwrap();
        self.runtime = Runtime::new(&self.dir.join("run"), bin_dir, cgroups).unwrap();
    }

    /// A tree with a static busybox and a shell script as init.
    pub fn busybox(&self, init: &str) -> RootSpec {
        let root = self.dir.join("busybox");
        for part in ["bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root"] {
            std::fs::create_dir_all(root.join(part)).unwrap();
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("package busybox-static");
        for tool in [
            "sh", "cat", "ls", "id", "true", "false", "sleep", "mount", "umount", "kill", "stty", "echo",
            "tty", "poweroff", "reboot", "mknod", "touch", "mv", "rm", "mkdir", "chown", "stat", "hostname",
            "ip", "env", "pwd", "ps", "seq", "readlink", "grep", "head", "wc", "dd",
        ] {
            let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(tool));
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n")
            .unwrap();
        std::fs::write(root.join("etc/group"), "root:x:0:\nsudo:x:27:ann\n").unwrap();
        std::fs::write(root.join("sbin/init"), init).unwrap();
        make_executable(&root.join("sbin/init"));
        RootSpec::Overlay { lowers: vec![root], state: self.dir.join("state") }
    }

    /// A Debian tree, made once for all tests.
    pub fn debian(&self, suite: &str) -> RootSpec {
        RootSpec::Overlay { lowers: vec![tree(suite, SYSTEMD)], state: self.dir.join("state") }
    }

    /// A Debian tree (it has perl, for calls no tool makes) with an init that only waits.
    pub fn waiting(&self) -> InitSpec {
        let argv = vec!["/bin/sleep".into(), "infinity".into()];
        InitSpec { argv, ..self.spec(self.debian("bookworm")) }
    }

    /// Debian 12 with sysvinit instead of systemd.
    pub fn sysvinit(&self) -> RootSpec {
        RootSpec::Overlay { lowers: vec![tree("bookworm", SYSVINIT)], state: self.dir.join("state") }
    }

    pub fn spec(&self, root: RootSpec) -> InitSpec {
        InitSpec {
            name: self.name.clone(),
            root,
            ids: IdMap::Isolated(IdRange { base: 10_000_000, size: 65536 }),
            argv: vec!["/sbin/init".into()],
            env: vec![
                ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
                ("container".into(), "lxc".into()),
                ("TERM".into(), "linux".into()),
            ],
            nesting: false,
            rlimits: Vec::new(),
            oom_score_adj: 0,
            files: Vec::new(),
        }
    }

    pub fn start(&self, spec: &InitSpec) -> Supervisor {
        self.start_limited(spec, &CgroupLimits::default())
    }

    pub fn start_limited(&self, spec: &InitSpec, limits: &CgroupLimits) -> Supervisor {
        match self.try_start_limited(spec, limits) {
            Ok(supervisor) => supervisor,
            Err(e) => panic!("{e}: {:?}", std::error::Error::source(&e)),
        }
    }

    pub fn try_start(&self, spec: &InitSpec) -> Result<Supervisor, Error> {
        self.try_start_limited(spec, &CgroupLimits::default())
    }

    fn try_start_limited(&self, spec: &InitSpec, limits: &CgroupLimits) -> Result<Supervisor, Error> {
        cabin_undo::atomically(|undo| self.runtime.spawn(spec, limits, undo)?.release()).map_err(|failed| {
            assert!(failed.left_behind.is_empty(), "{:?}", failed.left_behind);
            failed.cause
        })
    }

    /// Runs a command to its end: status, stdout, stderr.
    pub fn exec(&self, argv: &[&str]) -> (ExecStatus, String, String) {
        self.exec_as(argv, 0)
    }

    pub fn exec_as(&self, argv: &[&str], uid: u32) -> (ExecStatus, String, String) {
        let spec = ExecSpec { uid, gid: uid, ..exec_spec(argv, Streams::Pipes) };
        let mut exec = match self.runtime.exec(&self.name, &spec, None) {
            Ok(exec) => exec,
            Err(e) => panic!("{e}: {:?}", std::error::Error::source(&e)),
        };
        drop(exec.stdin.take());
        let errors = exec.stderr.take().unwrap();
        let errors = std::thread::spawn(move || read_all(errors));
        let output = read_all(exec.stdout.take().unwrap());
        (exec.wait(), output, errors.join().unwrap())
    }

    pub fn shell(&self, script: &str) -> String {
        let (status, out, err) = self.exec(&["/bin/sh", "-c", script]);
        assert_eq!(status, ExecStatus::Exited(0), "`{script}`: {out}{err}");
        out.trim().to_owned()
    }

    /// Nothing of this lab's may be in any process's mounts, in any cgroup, or be a process.
    pub fn assert_nothing_left(&self) {
        wait_until(
            "mounts, processes and cgroups are gone",
            || self.left().is_empty(),
            || self.left().join("\n"),
        );
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let place = self.dir.to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let path = entry.path();
            let Ok(mounts) = std::fs::read_to_string(path.join("mountinfo")) else { continue };
            left.extend(
                mounts.lines().filter(|line| line.contains(&place)).map(|line| format!("{path:?}: {line}")),
            );
            let cgroup = std::fs::read_to_string(path.join("cgroup")).unwrap_or_default();
            if cgroup.contains(&self.prefix) {
                left.push(format!("{path:?} is still in {cgroup}"));
            }
        }
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let group = hierarchy.path().join(&self.prefix).join(&self.name);
            if group.exists() {
                left.push(group.display().to_string());
            }
        }
        left
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.runtime.kill(&self.name);
        let _ = self.runtime.cgroups().destroy(&self.name);
        let _ = self.runtime.cgroups().close();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

pub fn exec_spec(argv: &[&str], streams: Streams) -> ExecSpec {
    ExecSpec {
        argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
        env: vec![
            ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
            ("TERM".into(), "xterm".into()),
            ("HOME".into(), "/root".into()),
        ],
        uid: 0,
        gid: 0,
        cwd: Some("/".into()),
        streams,
    }
}

pub fn read_all(fd: OwnedFd) -> String {
    let mut bytes = Vec::new();
    // A terminal ends with EIO, not with an empty read.
    let _ = std::io::Read::read_to_end(&mut std::fs::File::from(fd), &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool, seen: impl Fn() -> String) {
    let deadline = Instant::now() + patience(Duration::from_secs(30));
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain until {what}; seen: {}", seen());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What usually takes at most so long, as many times longer as an emulated machine is slower (`CABIN_SLOWER`).
fn patience(usual: Duration) -> Duration {
    usual * std::env::var("CABIN_SLOWER").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The packages of a guest, by the name of its init.
const SYSTEMD: (&str, &str) = ("systemd", "systemd,systemd-sysv,dbus,udev,iproute2,procps");
const SYSVINIT: (&str, &str) = ("sysvinit", "sysvinit-core,iproute2,procps");

/// A Debian tree, from the cache or made for it.
fn tree(suite: &str, (init, packages): (&str, &str)) -> PathBuf {
    static MAKING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = MAKING.lock().unwrap();
    let tree = Path::new(CACHE).join(format!("{suite}-{init}"));
    if tree.exists() {
        return tree;
    }
    std::fs::create_dir_all(CACHE).unwrap();
    let new = Path::new(CACHE).join(format!("{suite}-{init}.{}", std::process::id()));
    let status = Command::new("mmdebstrap")
        .args(["--variant=minbase", &format!("--include={packages}")])
        .args(["--aptopt=Acquire::Check-Valid-Until \"false\"", suite])
        .arg(&new)
        .stdin(Stdio::null())
        .status()
        .expect("package mmdebstrap");
    assert!(status.success(), "mmdebstrap ended with {status}");
    std::fs::write(new.join("etc/machine-id"), "").unwrap();
    if init == "sysvinit" {
        // What every image of it for containers does: one login on the console, SIGPWR ends it.
        let inittab = std::fs::read_to_string(new.join("etc/inittab")).unwrap();
        let kept = inittab.lines().filter(|line| !line.contains("getty") && !line.starts_with("pf:"));
        let own =
            ["c:2345:respawn:/sbin/getty --noclear 38400 console", "pf::powerwait:/sbin/shutdown -h -P now"];
        let text = kept.chain(own).collect::<Vec<_>>().join("\n") + "\n";
        std::fs::write(new.join("etc/inittab"), text).unwrap();
    }
    std::fs::rename(&new, &tree).unwrap();
    tree
}
