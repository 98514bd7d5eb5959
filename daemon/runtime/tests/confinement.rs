//! What a container's root can and cannot do, tried from inside.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]
#![allow(clippy::print_stdout)]

mod lab;

use cabin_runtime::spec::{IdMap, RenderedFile, Rlimit, RootSpec};
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

#[test]
fn capabilities_limits_and_inheritance_are_as_told() {
    let lab = Lab::new();
    let mut spec = lab.waiting();
    spec.rlimits = vec![Rlimit { name: "nproc".into(), soft: Some(700), hard: Some(800) }];
    lab.start(&spec);
    let status = lab.shell("cat /proc/1/status");
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let (bounding, effective) = (set("CapBnd:"), set("CapEff:"));
    // SYS_MODULE, SYS_RAWIO, SYS_TIME, SYSLOG, PERFMON, BPF.
    for gone in [16, 17, 25, 34, 38, 39] {
        assert_eq!((bounding | effective) >> gone & 1, 0, "capability {gone}");
    }
    // CHOWN, NET_ADMIN, SYS_ADMIN, SYS_BOOT.
    for kept in [0, 12, 21, 22] {
        assert_eq!(effective >> kept & 1, 1, "capability {kept}");
    }
    assert_eq!((set("CapInh:"), set("CapAmb:"), set("SigIgn:"), set("SigBlk:")), (0, 0, 0, 0));
    for pid in ["1", "self"] {
        let limits = lab.shell(&format!("cat /proc/{pid}/limits"));
        let row = |name: &str| -> Vec<String> {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().skip(name.split_whitespace().count()).take(2).map(str::to_owned).collect()
        };
        assert_eq!(row("Max processes"), ["700", "800"]);
        assert_eq!(row("Max open files")[0], "1024");
        assert_eq!(row("Max core file size")[0], "0");
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
