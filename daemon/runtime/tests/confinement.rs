//! What a container's root can and cannot do, tried from inside.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]
#![allow(clippy::print_stdout)]

mod lab;

use cabin_runtime::spec::{IdMap, RenderedFile, RootSpec};
use cabin_runtime::{ExecStatus, Exit};
use lab::Lab;

fn refused(lab: &Lab, script: &str, why: &str) {
    let (status, out, err) = lab.exec(&["/bin/sh", "-c", script]);
    assert_ne!(status, ExecStatus::Exited(0), "`{script}` was allowed: {out}{err}");
    assert!(format!("{out}{err}").contains(why), "`{script}`: {out}{err}");
}

#[test]
fn sockets_and_calls_of_the_deny_list_are_refused() {
    let lab = Lab::new();
    lab.start(&lab.waiting());
    for family in [38, 33, 40] {
        refused(
            &lab,
            &format!("perl -e 'socket(S, {family}, 5, 0) or die $!'"),
            "Address family not supported",
        );
    }
    refused(&lab, "perl -e 'socket(S, 16, 3, 9) or die $!'", "Address family not supported");
    for family in [1, 2, 10] {
        lab.shell(&format!("perl -e 'socket(S, {family}, 1, 0) or die $!'"));
    }
    refused(&lab, "perl -e 'syscall(304, 0, 0, 0) == 0 or die $!'", "Function not implemented");
    refused(&lab, "perl -e 'syscall(321, 0, 0, 0) == 0 or die $!'", "not permitted");
    refused(&lab, "perl -e 'syscall(0x40000000 + 39) > 0 or die $!'", "Function not implemented");
    lab.shell("mkdir /tmp/t && mount -t tmpfs none /tmp/t");
    refused(&lab, "perl -e '$p = \"/tmp/t\"; syscall(166, $p, 1) == 0 or die $!'", "Permission denied");
    lab.shell("umount /tmp/t");
    assert_eq!(lab.shell("grep ^Seccomp: /proc/1/status"), "Seccomp:\t2");
    assert_eq!(lab.shell("grep ^NoNewPrivs: /proc/1/status"), "NoNewPrivs:\t0");
}

#[test]
fn nobody_inside_lets_the_kernel_make_calls_past_the_filter() {
    // io_uring_setup, io_uring_enter and io_uring_register.
    let setup = "perl -e '$p = \"\\0\" x 120; syscall(425, 8, $p) >= 0 or die $!'";
    let enter = "perl -e 'syscall(426, -1, 0, 0, 0, 0, 0) >= 0 or die $!'";
    let register = "perl -e 'syscall(427, -1, 0, 0, 0) >= 0 or die $!'";
    for ids in [None, Some(IdMap::Privileged)] {
        let lab = Lab::new();
        let mut spec = lab.waiting();
        spec.ids = ids.unwrap_or(spec.ids);
        lab.start(&spec);
        for script in [setup, enter, register] {
            refused(&lab, script, "not permitted");
        }
    }
}

#[test]
fn devices_stay_closed() {
    let lab = Lab::new();
    lab.start(&lab.waiting());
    refused(&lab, "mknod /tmp/sda b 8 0", "not permitted");
    refused(&lab, "mount -o remount,bind,dev /", "denied");
    assert!(lab.shell("grep ' / / ' /proc/self/mountinfo").contains("nodev"));
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        lab.shell(&format!("test -c /dev/{device}"));
    }
    assert_eq!(lab.shell("head -c 3 /dev/zero | od -An -tx1"), "00 00 00");
    assert_eq!(
        lab.shell("ls /dev | tr '\\n' ' '"),
        "console core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
}

#[test]
fn nothing_of_the_host_shows_in_the_mounts_and_the_masks_are_on() {
    let lab = Lab::new();
    lab.start(&lab.waiting());
    let mounts = lab.shell("cat /proc/self/mountinfo");
    assert!(!mounts.contains(&*lab.dir.to_string_lossy()), "{mounts}");
    assert!(!mounts.contains("/var/cache"), "{mounts}");
    assert!(!mounts.contains("shared:") && !mounts.contains("master:"), "no mount event crosses: {mounts}");
    for dir in ["/sys/kernel/debug", "/sys/kernel/tracing", "/sys/firmware", "/sys/kernel/security"] {
        assert_eq!(
            lab.shell(&format!("ls {dir} 2>&1 || true")).replace("ls: cannot access", ""),
            "",
            "{dir}"
        );
    }
    assert_eq!(lab.shell("cat /proc/keys; test ! -e /proc/kcore || cat /proc/kcore"), "");
    refused(&lab, "echo h > /proc/sysrq-trigger", "");
    refused(&lab, "echo 1 > /proc/sys/kernel/panic", "");
    assert_eq!(lab.shell("hostname; cat /sys/class/net/lo/operstate; ls /sys/class/net"), "web\nunknown\nlo");
    assert_eq!(lab.shell("ip -o link show lo | grep -c LOWER_UP"), "1");
    assert_eq!(lab.shell("cat /proc/self/uid_map | tr -s ' '"), "0 10000000 65536");
}

/// The capabilities no container gets, by the kernel's numbers: `SYS_MODULE`, `SYS_RAWIO`, `SYS_TIME`,
/// `AUDIT_CONTROL`, `MAC_OVERRIDE`, `MAC_ADMIN`, `SYSLOG`, `WAKE_ALARM`, `BLOCK_SUSPEND`, `AUDIT_READ`, `PERFMON`, `BPF`.
const WITHHELD: [u32; 12] = [16, 17, 25, 30, 32, 33, 34, 35, 36, 37, 38, 39];

/// A set of capabilities in a status file.
fn set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn init_and_commands_have_every_capability_but_those_withheld_and_can_get_none_of_these() {
    let last: u32 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    let own = set(&std::fs::read_to_string("/proc/self/status").unwrap(), "CapBnd");
    let withheld = WITHHELD.iter().fold(0, |sum, number| sum | 1u64 << number);
    let user_namespace = (1u64 << (last + 1)) - 1;
    for (ids, all) in [(None, user_namespace), (Some(IdMap::Privileged), own)] {
        let lab = Lab::new();
        let mut spec = lab.waiting();
        spec.ids = ids.unwrap_or(spec.ids);
        // PR_GET_SECUREBITS.
        let bits = "perl -e 'print syscall(157, 27, 0, 0, 0, 0)'";
        spec.argv =
            ["/bin/sh", "-c", &format!("{bits} >/root/bits; exec sleep infinity")].map(str::to_owned).into();
        lab.start(&spec);
        for (pid, uid) in [("1", 0), ("self", 0), ("self", 1000)] {
            let (_, status, err) = lab.exec_as(&["/bin/cat", &format!("/proc/{pid}/status")], uid);
            let what = format!("process {pid} of user {uid} in {ids:?}: {status}{err}");
            let held = if uid == 0 { all & !withheld } else { 0 };
            assert_eq!(set(&status, "CapBnd"), all & !withheld, "{what}");
            assert_eq!((set(&status, "CapPrm"), set(&status, "CapEff")), (held, held), "{what}");
            assert_eq!((set(&status, "CapInh"), set(&status, "CapAmb")), (0, 0), "{what}");
        }
        assert_eq!(lab.shell(bits), "0", "of {ids:?}");
        lab::wait_until(
            "init has looked",
            || lab.shell("cat /root/bits") == "0",
            || lab.shell("cat /root/bits"),
        );
    }
}

#[test]
fn an_overlay_root_behaves_as_a_disk_and_its_owners_are_plain_on_the_host() {
    let lab = Lab::new();
    lab.start(&lab.waiting());
    lab.shell("echo x > /root/f && chown 1000:1000 /root/f && chmod 4755 /root/f && rm /etc/motd 2>/dev/null; mv /opt /opt2");
    lab.shell("setcap cap_net_raw=ep /root/f 2>/dev/null || perl -e '1'");
    use std::os::unix::fs::MetadataExt;
    let on_disk = std::fs::metadata(lab.dir.join("state/u/root/f")).unwrap();
    assert_eq!((on_disk.uid(), on_disk.gid(), on_disk.mode() & 0o7777), (1000, 1000, 0o4755));
}

#[test]
fn files_are_written_before_init_and_links_lead_nowhere_else() {
    let lab = Lab::new();
    let root = lab.busybox("#!/bin/sh\nwhile :; do sleep 100; done\n");
    let tree = lab.dir.join("busybox");
    let canary = lab.dir.join("canary");
    std::fs::write(&canary, "host").unwrap();
    std::os::unix::fs::symlink(&canary, tree.join("etc/evil")).unwrap();
    std::fs::write(tree.join("etc/kept"), "old").unwrap();
    let file = |path: &str, create_only| RenderedFile {
        path: path.into(),
        content: b"new\n".to_vec(),
        create_only,
        uid: None,
        gid: None,
        mode: None,
    };
    let mut spec = lab.spec(root);
    spec.files = vec![
        file("/no/such/dir", false),
        file("/etc/evil", false),
        file("/etc/kept", true),
        RenderedFile { uid: Some(5), gid: Some(6), mode: Some(0o640), ..file("/etc/hostname", false) },
    ];
    lab.start(&spec);
    assert_eq!(lab.shell("cat /etc/hostname /etc/kept; stat -c '%u %g %a' /etc/hostname"), "new\nold5 6 640");
    assert_eq!(std::fs::read_to_string(canary).unwrap(), "host");
}

#[test]
fn a_container_may_hold_containers_only_with_nesting() {
    let inner = "unshare --user --map-root-user --pid --fork --mount-proc sh -c 'echo $$'";
    let lab = Lab::new();
    lab.start(&lab.waiting());
    refused(&lab, inner, "mount");
    let lab = Lab::new();
    let mut spec = lab.waiting();
    spec.nesting = true;
    lab.start(&spec);
    assert_eq!(lab.shell(inner), "1");
}

#[test]
fn a_privileged_container_runs_with_its_settings_read_only() {
    let lab = Lab::new();
    let mut spec = lab.waiting();
    spec.ids = IdMap::Privileged;
    let supervisor = lab.start(&spec);
    assert_eq!(lab.shell("id -u; cat /proc/self/uid_map | tr -s ' '"), "0\n 0 0 4294967295".trim());
    refused(&lab, "echo 1 > /proc/sys/kernel/panic", "Read-only");
    refused(&lab, "echo h > /proc/sysrq-trigger", "cannot create");
    refused(&lab, "echo x > /sys/kernel/profiling", "");
    lab.shell("echo 1 > /proc/sys/net/ipv4/ip_forward");
    let watch = supervisor.watch().unwrap();
    lab.runtime.kill("web").unwrap();
    assert_eq!(watch.wait(), Exit::Stopped { status: 137 });
    lab.runtime.cgroups().destroy("web").unwrap();
    lab.assert_nothing_left();
}

#[test]
fn a_plain_directory_is_a_root_too() {
    let lab = Lab::new();
    let RootSpec::Overlay { lowers, .. } = lab.busybox("#!/bin/sh\nwhile :; do sleep 100; done\n") else {
        panic!()
    };
    let path = lowers.into_iter().next().unwrap();
    lab.start(&lab.spec(RootSpec::Dir { path: path.clone() }));
    lab.shell("touch /root/mine");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(path.join("root/mine")).unwrap().uid(), 0);
    lab.runtime.kill("web").unwrap();
    lab.runtime.cgroups().destroy("web").unwrap();
    lab.assert_nothing_left();
}
