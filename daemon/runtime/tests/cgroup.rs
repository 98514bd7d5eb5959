//! What the limits do to real processes, on every layout this host can show. Needs root and busybox.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cabin_runtime::cgroup::{Cgroups, Error, Layout};
use cabin_runtime::spec::CgroupLimits;
use cabin_sys::command::{Program, Programs};
use cabin_undo::{Undo, atomically};
use rustix::fs::{Mode, OFlags};

const OWNER: (u32, u32) = (1_000_000, 1_000_000);
const MIB: u64 = 1024 * 1024;

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// One container's cgroup under a prefix of its own, gone when dropped.
struct World {
    cgroups: Cgroups,
    mount: Option<PathBuf>,
    prefix: String,
}

impl World {
    /// The host as it is, and where it has version 1 hierarchies, the host as if it had nothing else.
    fn each(test: impl Fn(&World)) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let legacy: String =
            table.lines().filter(|l| !l.contains(" - cgroup2 ")).map(|l| format!("{l}\n")).collect();
        for table in [table, legacy] {
            let prefix =
                format!("cabin-test-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
            let mount = table.lines().find(|l| l.contains(" - cgroup2 "));
            let mount = mount.map(|l| PathBuf::from(l.split(' ').nth(4).unwrap()));
            let cgroups = match Cgroups::with_mount_table(&prefix, &table) {
                Ok(cgroups) => cgroups,
                Err(Error::NoHierarchy) => continue,
                Err(e) => panic!("{e}"),
            };
            test(&World { cgroups, mount, prefix });
        }
    }

    fn create(&self, limits: &CgroupLimits) {
        atomically(|undo: &mut Undo| self.cgroups.create("box", limits, OWNER, undo)).unwrap();
    }

    /// A process that is in the cgroup before it runs `script`.
    fn run(&self, script: &str) -> Process {
        let mut process = Process::held(script);
        self.cgroups.attach("box", process.child.id()).unwrap();
        process.go();
        process
    }

    fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cgroups.usage("box").unwrap().cpu.unwrap())
    }

    /// The CPU time got while `spend` of it was spent, as a share of the time that took.
    fn share(&self, spend: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.cpu());
        wait("the hog to get CPU time", || self.cpu() - before >= spend);
        (self.cpu() - before).as_secs_f64() / start.elapsed().as_secs_f64()
    }

    /// The delegated cgroup, where there is one.
    fn delegated(&self) -> Option<PathBuf> {
        Some(self.mount.as_ref()?.join(&self.prefix).join("box/init"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in self.cgroups.list().unwrap_or_default() {
            let _ = self.cgroups.kill(&name).and_then(|()| self.cgroups.destroy(&name));
        }
        let _ = self.cgroups.close();
    }
}

/// A shell that waits for a line before it runs its script.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Process {
    fn held(script: &str) -> Process {
        let mut command = Programs::find().command(Program::Busybox).expect("install `busybox-static`");
        command.args(["sh", "-c", &format!("read go; {script}")]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        Process { child, stdin }
    }

    fn go(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    fn output(mut self) -> String {
        drop(self.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + patience(Duration::from_secs(60));
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::yield_now();
    }
}

/// What usually takes at most so long, as many times longer as an emulated machine is slower (`CABIN_SLOWER`).
fn patience(usual: Duration) -> Duration {
    usual * std::env::var("CABIN_SLOWER").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A command as the container's root would run it, seen from the host.
fn as_owner(args: &[&str]) -> bool {
    let mut command = Programs::find().command(Program::Busybox).expect("install `busybox-static`");
    command.args(args).uid(OWNER.0).gid(OWNER.1).stderr(Stdio::null()).status().unwrap().success()
}

fn memory(bytes: u64) -> CgroupLimits {
    CgroupLimits { memory: Some(bytes), swap: Some(0), ..CgroupLimits::default() }
}

#[test]
fn an_allocation_beyond_the_memory_limit_is_killed_and_one_below_is_not() {
    World::each(|world| {
        world.create(&memory(64 * MIB));
        let killed = world.run("exec busybox dd if=/dev/zero of=/dev/null bs=100M count=1").end();
        assert_eq!(killed.signal(), Some(9), "{:?}", world.cgroups.layout());
        assert!(world.run("exec busybox dd if=/dev/zero of=/dev/null bs=32M count=1").end().success());
        let usage = world.cgroups.usage("box").unwrap();
        assert!(usage.memory_peak.unwrap() > 60 * MIB && usage.memory_peak.unwrap() <= 64 * MIB, "{usage:?}");
        assert_eq!(usage.swap, Some(0));
    });
}

#[test]
fn memory_changes_both_ways_while_the_container_lives() {
    World::each(|world| {
        let big = "exec busybox dd if=/dev/zero of=/dev/null bs=100M count=1";
        world.create(&memory(32 * MIB));
        assert_eq!(world.run(big).end().signal(), Some(9));
        world.cgroups.set("box", &memory(200 * MIB)).unwrap();
        assert!(world.run(big).end().success(), "raised");
        world.cgroups.set("box", &memory(48 * MIB)).unwrap();
        assert_eq!(world.run(big).end().signal(), Some(9), "lowered");
        let both = CgroupLimits { memory: Some(150 * MIB), swap: Some(MIB), ..CgroupLimits::default() };
        world.cgroups.set("box", &both).unwrap();
        assert!(world.run(big).end().success(), "with some swap");
        world.cgroups.set("box", &memory(32 * MIB)).unwrap();
        world.cgroups.set("box", &CgroupLimits::default()).unwrap();
        assert!(world.run(big).end().success(), "cleared");
    });
}

#[test]
fn the_process_after_the_last_allowed_one_is_refused() {
    World::each(|world| {
        world.create(&CgroupLimits { processes: Some(100), ..CgroupLimits::default() });
        let script = "i=1; while [ $i -lt 100 ]; do busybox sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done; \
                      echo $i processes; busybox sleep 1000 >/dev/null 2>&1 & echo one more";
        let said = world.run(script).output();
        assert!(said.starts_with("100 processes\n"), "{said}");
        assert!(said.contains("can't fork") && !said.contains("one more"), "{said}");
        assert_eq!(
            world.cgroups.usage("box").unwrap().processes,
            Some(99),
            "the shell gave up, the others live"
        );
        world.cgroups.set("box", &CgroupLimits::default()).unwrap();
        assert_eq!(world.run("busybox sleep 1000 >/dev/null 2>&1 & echo one more").output(), "one more\n");
    });
}

#[test]
fn a_hog_gets_its_quota_and_more_once_that_is_lifted() {
    World::each(|world| {
        world.create(&CgroupLimits { cpu_quota: Some((20_000, 100_000)), ..CgroupLimits::default() });
        let _hog = world.run("while :; do :; done");
        let share = world.share(Duration::from_millis(400));
        assert!((0.08..0.26).contains(&share), "{share} of a processor under a quota of 0.2");
        world.cgroups.set("box", &CgroupLimits::default()).unwrap();
        wait("the hog to get more than its old quota", || world.share(Duration::from_millis(200)) > 0.35);
        world.cgroups.kill("box").unwrap();
    });
}

#[test]
fn two_hogs_on_one_processor_share_it_by_weight() {
    World::each(|world| {
        let on_first = |weight| CgroupLimits {
            cpus: Some("0".into()),
            cpu_weight: Some(weight),
            ..CgroupLimits::default()
        };
        world.create(&on_first(100));
        atomically(|undo: &mut Undo| world.cgroups.create("small", &on_first(20), OWNER, undo)).unwrap();
        let big = world.run("while :; do :; done");
        let mut small = Process::held("while :; do :; done");
        world.cgroups.attach("small", small.child.id()).unwrap();
        small.go();
        for process in [&big, &small] {
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
            assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
        }
        let of_small = || world.cgroups.usage("small").unwrap().cpu.unwrap();
        let (before_big, before_small) = (world.cpu(), of_small());
        wait("the big hog to run for two seconds", || world.cpu() - before_big > Duration::from_secs(2));
        let ratio = (world.cpu() - before_big).as_nanos() as f64 / (of_small() - before_small) as f64;
        assert!((3.5..7.0).contains(&ratio), "weights 100 and 20 gave a ratio of {ratio}");
        world.cgroups.set("box", &CgroupLimits::default()).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", big.child.id())).unwrap();
        let all = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
        assert!(status.contains(&format!("Cpus_allowed_list:\t{all}")), "{status}");
        for name in ["box", "small"] {
            world.cgroups.kill(name).unwrap();
        }
    });
}

#[test]
fn a_frozen_container_makes_no_progress_until_it_is_thawed() {
    World::each(|world| {
        world.create(&CgroupLimits::default());
        assert!(!world.cgroups.is_frozen("box").unwrap());
        let _hog = world.run("(while :; do :; done) & while :; do busybox true; done");
        wait("the hogs to start", || world.cpu() > Duration::from_millis(50));
        world.cgroups.freeze("box").unwrap();
        assert!(world.cgroups.is_frozen("box").unwrap());
        let before = world.cpu();
        let start = Instant::now();
        wait("half a second to pass", || start.elapsed() > Duration::from_millis(500));
        assert!(world.cpu() - before < Duration::from_millis(2), "it ran while it was frozen");
        world.cgroups.thaw("box").unwrap();
        assert!(!world.cgroups.is_frozen("box").unwrap());
        wait("the hogs to go on", || world.cpu() - before > Duration::from_millis(50));
        world.cgroups.freeze("box").unwrap();
        world.cgroups.kill("box").unwrap();
        assert!(!world.cgroups.populated("box").unwrap(), "killed though frozen");
    });
}

#[test]
fn kill_reaches_every_process_that_left_its_parents() {
    World::each(|world| {
        world.create(&CgroupLimits { processes: Some(200), ..CgroupLimits::default() });
        let script = "busybox setsid sh -c '(busybox sleep 1000 &) &' >/dev/null 2>&1; \
                      busybox nohup busybox sleep 1000 >/dev/null 2>&1 & \
                      (trap '' TERM INT HUP; while :; do (busybox sleep 1 &); done >/dev/null 2>&1) & exit";
        let mut first = world.run(script);
        wait("a crowd", || world.cgroups.pids("box").unwrap().len() > 20);
        assert!(first.end().success());
        assert!(world.cgroups.populated("box").unwrap());
        world.cgroups.kill("box").unwrap();
        assert!(!world.cgroups.populated("box").unwrap());
        assert_eq!(world.cgroups.pids("box").unwrap(), [0u32; 0]);
        world.cgroups.kill("box").unwrap();
        world.cgroups.destroy("box").unwrap();
        world.cgroups.kill("box").unwrap();
    });
}

#[test]
fn a_container_owns_its_groups_but_not_its_limits_and_destroy_takes_all_it_made() {
    World::each(|world| {
        world.create(&memory(64 * MIB));
        assert_eq!(world.cgroups.list().unwrap(), ["box"]);
        let mut inside = world.run("exec busybox sleep 1000");
        if let Some(init) = world.delegated() {
            let path = |name: &str| init.join(name).to_str().unwrap().to_owned();
            let say =
                |name: &str, value: &str| as_owner(&["sh", "-c", &format!("echo {value} >{}", path(name))]);
            assert!(as_owner(&["mkdir", "-p", &path("a/b/c")]));
            assert!(say("a/b/cgroup.procs", &inside.child.id().to_string()), "it moves its own processes");
            assert!(!say("../cgroup.procs", &inside.child.id().to_string()), "it cannot leave");
            assert!(
                !say("../memory.max", "max") && !say("../cgroup.freeze", "0"),
                "it cannot lift its limits"
            );
            assert!(!say("cgroup.max.descendants", "max"));
            assert!(
                !as_owner(&["mkdir", "-p", &path("1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17")]),
                "too deep"
            );
            let many = format!("cd {}; i=0; while busybox mkdir g$i; do i=$((i+1)); done", init.display());
            as_owner(&["sh", "-c", &many]);
            assert!(
                Path::new(&path("g500")).exists() && !Path::new(&path("g1000")).exists(),
                "bounded in number"
            );
        }
        let systemd = Path::new("/sys/fs/cgroup/systemd").join(&world.prefix).join("box");
        if systemd.exists() {
            let own = as_owner(&["mkdir", "-p", systemd.join("a/b").to_str().unwrap()]);
            assert_eq!(own, world.cgroups.layout() == Layout::Legacy, "its own where there is no cgroup2");
        }
        world.cgroups.kill("box").unwrap();
        inside.end();
        world.cgroups.destroy("box").unwrap();
        world.cgroups.destroy("box").unwrap();
        assert!(world.cgroups.list().unwrap().is_empty());
        assert!(!world.cgroups.populated("box").unwrap());
        world.cgroups.close().unwrap();
    });
}

/// Makes groups one in another, each with two more beside it, until their path is longer than any; the deepest.
fn dig(top: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut here = rustix::fs::open(top, flags, Mode::empty()).unwrap();
    for _ in 0..300 {
        let deeper = "d".repeat(40);
        for name in ["a", &deeper, "z"] {
            rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o755)).unwrap();
        }
        here = rustix::fs::openat(&here, deeper, flags, Mode::empty()).unwrap();
    }
    here
}

#[test]
fn groups_in_groups_without_an_end_go_with_the_container_and_hide_nobody() {
    World::each(|world| {
        world.create(&CgroupLimits::default());
        if world.cgroups.layout() == Layout::Legacy {
            for hierarchy in ["freezer", "systemd"] {
                let top = Path::new("/sys/fs/cgroup").join(hierarchy).join(&world.prefix).join("box");
                let deepest = dig(&top);
                let mut process = Process::held("exec busybox sleep 1000");
                let procs =
                    rustix::fs::openat(&deepest, "cgroup.procs", OFlags::WRONLY, Mode::empty()).unwrap();
                rustix::io::write(&procs, process.child.id().to_string().as_bytes()).unwrap();
                process.go();
                world.cgroups.kill("box").unwrap();
                let stat = format!("/proc/{}/stat", process.child.id());
                wait(&format!("what was deep in {hierarchy} to be killed"), || {
                    std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "))
                });
                process.end();
            }
        }
        let began = Instant::now();
        world.cgroups.destroy("box").unwrap();
        assert!(began.elapsed() < patience(Duration::from_secs(20)), "{:?}", began.elapsed());
        assert!(world.cgroups.list().unwrap().is_empty());
    });
}

#[test]
fn a_busy_name_is_refused_and_a_left_over_one_is_replaced() {
    World::each(|world| {
        world.create(&memory(64 * MIB));
        let _inside = world.run("exec busybox sleep 1000");
        let again = || atomically(|undo: &mut Undo| world.cgroups.create("box", &memory(MIB), OWNER, undo));
        assert!(matches!(again().unwrap_err().cause, Error::Busy { .. }));
        assert!(world.cgroups.populated("box").unwrap(), "the refused creation took nothing back");
        assert!(world.cgroups.destroy("box").is_err(), "destroying does not kill");
        world.cgroups.kill("box").unwrap();
        again().unwrap();
    });
}

#[test]
fn a_creation_that_fails_on_its_way_leaves_nothing() {
    World::each(|world| {
        let nonsense = CgroupLimits { cpus: Some("4000".into()), ..CgroupLimits::default() };
        let failed =
            atomically(|undo: &mut Undo| world.cgroups.create("box", &nonsense, OWNER, undo)).unwrap_err();
        assert!(failed.left_behind.is_empty());
        assert!(failed.to_string().contains("cpuset.cpus"), "{failed}");
        assert!(world.cgroups.list().unwrap().is_empty());
    });
}

#[test]
fn a_command_gets_a_leaf_that_goes_with_it() {
    World::each(|world| {
        world.create(&memory(64 * MIB));
        let leaf = world.cgroups.exec_leaf("box", "7").unwrap();
        let mut process = Process::held("exec busybox sleep 1000");
        leaf.attach(process.child.id()).unwrap();
        process.go();
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", process.child.id())).unwrap();
        let place = format!("/{}/box", world.prefix);
        match world.cgroups.layout() {
            Layout::Legacy => assert!(groups.contains(&format!("memory:{place}\n")), "{groups}"),
            Layout::Hybrid => {
                assert!(groups.contains(&format!("memory:{place}\n")), "{groups}");
                assert!(groups.contains(&format!("0::{place}/init/.cabin-7\n")), "{groups}");
            }
            Layout::Unified => assert_eq!(groups, format!("0::{place}/init/.cabin-7\n")),
        }
        assert!(world.cgroups.pids("box").unwrap().contains(&process.child.id()));
        process.child.kill().unwrap();
        process.end();
        leaf.remove().unwrap();
        if let Some(init) = world.delegated() {
            assert!(!init.join(".cabin-7").exists());
        }
    });
}

#[test]
fn a_container_that_used_up_its_groups_still_takes_a_command() {
    World::each(|world| {
        world.create(&CgroupLimits::default());
        let Some(init) = world.delegated() else { return };
        let many = format!("cd {}; i=0; while busybox mkdir g$i; do i=$((i+1)); done", init.display());
        as_owner(&["sh", "-c", &many]);
        let leaf = world.cgroups.exec_leaf("box", "8").unwrap();
        let mut process = Process::held("exec busybox sleep 1000");
        leaf.attach(process.child.id()).unwrap();
        process.go();
        leaf.remove().unwrap();
        assert!(world.cgroups.pids("box").unwrap().contains(&process.child.id()), "kept while it is used");
        world.cgroups.kill("box").unwrap();
        process.end();
        world.cgroups.destroy("box").unwrap();
    });
}

#[test]
fn a_swap_limit_this_host_cannot_hold_is_refused_only_when_it_is_asked_for() {
    World::each(|world| {
        let swap_alone = CgroupLimits { swap: Some(MIB), ..CgroupLimits::default() };
        let made = atomically(|undo: &mut Undo| world.cgroups.create("box", &swap_alone, OWNER, undo));
        match world.cgroups.layout() {
            Layout::Unified => made.unwrap(),
            Layout::Hybrid | Layout::Legacy => {
                assert!(matches!(made.unwrap_err().cause, Error::SwapAlone));
            }
        }
        let none = CgroupLimits { swap: Some(0), ..CgroupLimits::default() };
        atomically(|undo: &mut Undo| world.cgroups.create("box", &none, OWNER, undo)).unwrap();
        world.cgroups.set("box", &CgroupLimits::default()).unwrap();
    });
}
