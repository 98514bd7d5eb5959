//! Whole guests: a script on busybox and stock Debians, from start to the end they choose.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]
#![allow(clippy::print_stdout)]

mod lab;

use std::time::Instant;

use cabin_runtime::cgroup::Cgroups;
use cabin_runtime::spec::CgroupLimits;
use cabin_runtime::{Error, ExecStatus, Exit, InitKind};
use lab::{Lab, wait_until};

/// An init that says hello, then does what it is told by signals.
const INIT: &str = "#!/bin/sh
trap 'poweroff -f' USR2
trap 'reboot -f' TERM
trap 'exit 7' USR1
echo hello from init
while :; do sleep 1 & wait $!; done
";

#[test]
fn a_busybox_guest_runs_keeps_its_console_and_powers_off() {
    let lab = Lab::new();
    let started = Instant::now();
    let supervisor = lab.start(&lab.spec(lab.busybox(INIT)));
    println!("started in {:?}", started.elapsed());
    wait_until(
        "init has said hello",
        || String::from_utf8_lossy(&supervisor.console_log().unwrap()).contains("hello from init"),
        || String::from_utf8_lossy(&supervisor.console_log().unwrap()).into_owned(),
    );
    let watch = supervisor.watch().unwrap();
    supervisor.signal(InitKind::Busybox.poweroff_signal()).unwrap();
    assert_eq!(watch.wait(), Exit::Stopped { status: 0 });
    assert_eq!(lab.runtime.exit_record("web").unwrap(), Some(Exit::Stopped { status: 0 }));
    assert!(lab.runtime.connect("web").unwrap().is_none());
    assert!(
        String::from_utf8_lossy(&lab.runtime.last_console_log("web").unwrap()).contains("hello from init")
    );
    lab.runtime.cgroups().destroy("web").unwrap();
    lab.assert_nothing_left();
}

#[test]
fn a_reboot_and_an_exit_are_told_apart() {
    for (signal, exit) in
        [(15, Exit::Reboot), (10, Exit::Stopped { status: 7 }), (9, Exit::Stopped { status: 137 })]
    {
        let lab = Lab::new();
        let supervisor = lab.start(&lab.spec(lab.busybox(INIT)));
        wait_until("init is up", || !supervisor.console_log().unwrap().is_empty(), String::new);
        let watch = supervisor.watch().unwrap();
        supervisor.signal(signal).unwrap();
        assert_eq!(watch.wait(), exit);
    }
}

#[test]
fn a_start_that_fails_names_the_step_and_leaves_nothing() {
    let lab = Lab::new();
    let mut spec = lab.spec(lab.busybox(INIT));
    spec.argv = vec!["/sbin/missing".into()];
    let error = lab.try_start(&spec).unwrap_err();
    let Error::Start { step, source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(step, "run `/sbin/missing`");
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
    assert!(lab.runtime.connect("web").unwrap().is_none());
    lab.assert_nothing_left();
    lab.start(&lab.spec(lab.busybox(INIT)));
}

#[test]
fn killing_the_supervisor_kills_the_container() {
    let lab = Lab::new();
    let supervisor = lab.start(&lab.spec(lab.busybox(INIT)));
    let watch = supervisor.watch().unwrap();
    let parent = parent_of(supervisor.init_pid());
    let handle = cabin_sys::process::pidfd(parent).unwrap();
    cabin_sys::process::signal(&handle, 9).unwrap();
    assert_eq!(watch.wait(), Exit::SupervisorDied);
    wait_until("the container is gone", || supervisor.signal(0).is_err(), String::new);
    assert!(lab.runtime.connect("web").unwrap().is_none(), "the stale socket is removed");
    lab.runtime.cgroups().destroy("web").unwrap();
    lab.assert_nothing_left();
}

#[test]
fn a_supervisor_is_small_and_sees_no_root_filesystem() {
    let lab = Lab::new();
    let supervisor = lab.start(&lab.spec(lab.busybox(INIT)));
    let parent = parent_of(supervisor.init_pid());
    let rollup = std::fs::read_to_string(format!("/proc/{parent}/smaps_rollup")).unwrap();
    let pss: u64 = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap();
    println!("supervisor: {pss} KiB PSS");
    let own: u64 = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss_Anon:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap();
    println!("supervisor: {own} KiB of its own");
    // Its code is the same pages for all supervisors of the host; alone, and not optimised, it is large.
    assert!(own < 256 && (cfg!(debug_assertions) || pss < 1024), "{rollup}");
    let status = std::fs::read_to_string(format!("/proc/{parent}/status")).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Threads:\t1\n"), "{status}");
    let namespace =
        |process: &str, kind: &str| std::fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap();
    let init = supervisor.init_pid().to_string();
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        assert_ne!(namespace(&init, kind), namespace("self", kind));
    }
    let mounts = std::fs::read_to_string(format!("/proc/{parent}/mountinfo")).unwrap();
    let own = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(mounts.lines().count(), own.lines().count(), "{mounts}");
    let fds = std::fs::read_dir(format!("/proc/{parent}/fd")).unwrap().count();
    println!("supervisor: {fds} descriptors");
    assert!(fds < 16);
}

#[test]
fn a_frozen_looking_console_never_blocks_the_guest() {
    let lab = Lab::new();
    let supervisor = lab.start(&lab.spec(lab.busybox(INIT)));
    let slow = supervisor.attach_console().unwrap();
    lab.shell("seq 1 200000 > /dev/console; echo the end > /dev/console");
    wait_until(
        "the last line is kept",
        || supervisor.console_log().unwrap().ends_with(b"the end\r\n"),
        || supervisor.console_log().unwrap().len().to_string(),
    );
    assert_eq!(supervisor.console_log().unwrap().len(), 128 * 1024);
    supervisor.clear_console_log().unwrap();
    assert!(supervisor.console_log().unwrap().is_empty());
    drop(slow);
    let stream = supervisor.attach_console().unwrap();
    supervisor.resize_console(132, 50).unwrap();
    assert_eq!(lab.shell("stty size < /dev/console"), "50 132");
    lab.shell("(read line < /dev/console; echo got $line > /tmp/line) > /dev/null 2>&1 &");
    rustix::io::write(&stream, b"ping\n").unwrap();
    wait_until(
        "the guest has read it",
        || lab.shell("cat /tmp/line 2>/dev/null || true") == "got ping",
        || lab.shell("cat /tmp/line 2>/dev/null || true"),
    );
}

#[test]
fn debian_12_boots_to_running_and_powers_off() {
    boots("bookworm", "poweroff", Exit::Stopped { status: 0 });
}

#[test]
fn debian_13_boots_to_running_and_reboots() {
    boots("trixie", "reboot", Exit::Reboot);
}

#[test]
fn debian_sid_boots_to_running_and_stops_by_its_signal() {
    boots("sid", "", Exit::Stopped { status: 0 });
}

fn boots(suite: &str, end: &str, exit: Exit) {
    // A command has a leaf of its own, and sees no path of the host.
    boots_in(&Lab::new(), suite, "0::/.cabin-", end, exit);
}

fn boots_in(lab: &Lab, suite: &str, cgroup: &str, end: &str, exit: Exit) {
    let started = Instant::now();
    let supervisor = lab.start(&lab.spec(lab.debian(suite)));
    let up = started.elapsed();
    let state = || lab.exec(&["systemctl", "is-system-running", "--wait"]).1.trim().to_owned();
    wait_until("systemd has settled", || !matches!(state().as_str(), "" | "offline"), state);
    println!("{suite}: init after {up:?}, settled after {:?}", started.elapsed());
    let failed = lab.exec(&["systemctl", "--failed", "--no-legend"]).1;
    assert_eq!(state(), "running", "{failed}{}", String::from_utf8_lossy(&supervisor.console_log().unwrap()));
    assert_eq!(failed, "");
    assert_eq!(supervisor.init_kind().unwrap(), InitKind::Systemd);
    assert_eq!(lab.shell("systemctl is-active console-getty"), "active");
    let own = lab.shell("cat /proc/self/cgroup");
    assert!(own.contains(cgroup) && !own.contains(&lab.prefix), "{own}");
    let watch = supervisor.watch().unwrap();
    if end.is_empty() {
        supervisor.signal(InitKind::Systemd.poweroff_signal()).unwrap();
    } else {
        let _ = lab.exec(&["systemctl", end, "--no-block"]);
    }
    assert_eq!(watch.wait(), exit);
    lab.runtime.cgroups().destroy("web").unwrap();
    lab.assert_nothing_left();
}

/// The stand-in for a daemon, in a process of its own: starts a container and waits to be killed. Without
/// its variable it has nothing to do.
#[test]
fn a_daemons_stand_in() {
    let Ok(dir) = std::env::var("CABIN_STAND_IN") else { return };
    let lab = Lab::at(dir.into());
    lab.start(&lab.spec(lab.busybox(INIT)));
    std::fs::write(lab.dir.join("started"), "").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_container_outlives_the_daemon_and_is_found_again() {
    let dir = std::env::temp_dir().join(format!("cabin-test-{}-killed", std::process::id()));
    let mut daemon = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_daemons_stand_in", "--nocapture"])
        .env("CABIN_STAND_IN", &dir)
        .spawn()
        .unwrap();
    let lab = Lab::at(dir);
    wait_until("the container runs", || lab.dir.join("started").exists(), String::new);
    daemon.kill().unwrap();
    daemon.wait().unwrap();

    let supervisor = lab.runtime.connect("web").unwrap().expect("it is found by name");
    assert_eq!(lab.runtime.list().unwrap(), ["web"]);
    assert_eq!(lab.exec(&["true"]).0, ExecStatus::Exited(0));
    let watch = supervisor.watch().unwrap();
    supervisor.signal(InitKind::Busybox.poweroff_signal()).unwrap();
    assert_eq!(watch.wait(), Exit::Stopped { status: 0 });
    lab.runtime.cgroups().destroy("web").unwrap();
    lab.assert_nothing_left();
}

#[test]
fn a_start_given_up_at_any_point_leaves_nothing() {
    for fault in 1..=3 {
        let lab = Lab::new();
        let spec = lab.spec(lab.busybox(INIT));
        let failed = cabin_undo::atomically(|undo| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            let starting = lab.runtime.spawn(&spec, &CgroupLimits::default(), undo)?;
            match fault {
                1 => Err("before the release".into()),
                2 => {
                    starting.release()?;
                    Err("after the release".into())
                }
                _ => {
                    // As a daemon that is killed here: nothing but the end of the socket.
                    std::mem::drop(starting);
                    Err("dropped".into())
                }
            }
        })
        .unwrap_err();
        assert!(failed.left_behind.is_empty(), "{failed}");
        assert!(lab.runtime.connect("web").unwrap().is_none());
        lab.assert_nothing_left();
        lab.start(&lab.spec(lab.busybox(INIT)));
    }
}

#[test]
fn the_network_namespace_is_read_from_outside() {
    let lab = Lab::new();
    let supervisor = lab.start(&lab.spec(lab.busybox(INIT)));
    let socket = supervisor.netns_socket().unwrap();
    // RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, and an empty `struct ifinfomsg`.
    let mut request = Vec::from(32u32.to_ne_bytes());
    request.extend([18, 0, 1, 3]);
    request.extend([0; 24]);
    rustix::io::write(&socket, &request).unwrap();
    let mut answer = [0u8; 8192];
    let length = rustix::io::read(&socket, &mut answer).unwrap();
    assert!(answer[..length].windows(3).any(|part| part == b"lo\0"));
    let netns = supervisor.netns().unwrap();
    let own = std::fs::File::open("/proc/self/ns/net").unwrap();
    assert!(!cabin_sys::namespace::same(netns, own).unwrap());
}

fn parent_of(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// The mount table of this host without cgroup2. A host that has no version 1 hierarchy without controllers is no
/// legacy host; there is nothing to hold there.
fn legacy() -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let legacy: String = table.split_inclusive('\n').filter(|line| !line.contains(" - cgroup2 ")).collect();
    legacy.contains("name=systemd").then_some(legacy)
}

/// With version 1 hierarchies only, the guest gets the one without controllers.
#[test]
fn debian_12_boots_on_legacy_cgroups() {
    let Some(legacy) = legacy() else { return };
    let mut lab = Lab::new();
    lab.use_cgroups(&legacy);
    boots_in(&lab, "bookworm", "name=systemd:/", "poweroff", Exit::Stopped { status: 0 });
}

/// A host that mounts no cgroup2 has it all the same, and sid's systemd boots on nothing else.
#[test]
fn debian_sid_boots_where_the_host_has_mounted_no_cgroup2() {
    let Some(legacy) = legacy() else { return };
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    // Whoever mounts it decides upon its options for all, so this host must be one that has chosen none.
    let options = |line: &str| line.contains(" - cgroup2 ") && !line.ends_with(" rw");
    if table.lines().any(options) {
        return;
    }
    let mut lab = Lab::new();
    lab.keep_in(Cgroups::on_host_with(&lab.prefix, &legacy).unwrap());
    boots_in(&lab, "sid", "0::/.cabin-", "", Exit::Stopped { status: 0 });
}

#[test]
fn sysvinit_boots_and_ends_by_the_signal_of_a_failing_power_supply() {
    let lab = Lab::new();
    let started = Instant::now();
    let supervisor = lab.start(&lab.spec(lab.sysvinit()));
    let console = || String::from_utf8_lossy(&supervisor.console_log().unwrap()).into_owned();
    wait_until("it asks for a login", || console().contains(" login:"), console);
    println!("sysvinit: login after {:?}", started.elapsed());
    assert_eq!(supervisor.init_kind().unwrap(), InitKind::SysV);
    let watch = supervisor.watch().unwrap();
    supervisor.signal(InitKind::SysV.poweroff_signal()).unwrap();
    assert_eq!(watch.wait(), Exit::Stopped { status: 0 });
}
