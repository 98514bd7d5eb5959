//! Ways out of containers that were found elsewhere, tried here: each must be shut, in a default container and, where
//! the wall does not depend on the user namespace, in a privileged one too.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]
#![allow(clippy::print_stdout)]

mod lab;

use cabin_runtime::ExecStatus;
use cabin_runtime::spec::{ExecSpec, IdMap, RootSpec, Streams};
use lab::{Lab, exec_spec, wait_until};

fn refused(lab: &Lab, script: &str) {
    let (status, out, err) = lab.exec(&["/bin/sh", "-c", script]);
    assert_ne!(status, ExecStatus::Exited(0), "`{script}` was allowed: {out}{err}");
}

/// Settings of the whole host: none may be written, not even to what it is.
const SETTINGS: &[&str] = &[
    "abi/vsyscall32",
    "debug/exception-trace",
    "dev/tty/legacy_tiocsti",
    "fs/aio-max-nr",
    "fs/file-max",
    "fs/inotify/max_user_instances",
    "fs/protected_hardlinks",
    "fs/protected_symlinks",
    "fs/suid_dumpable",
    "kernel/core_pattern",
    "kernel/core_pipe_limit",
    "kernel/dmesg_restrict",
    "kernel/hotplug",
    "kernel/keys/maxkeys",
    "kernel/kptr_restrict",
    "kernel/modprobe",
    "kernel/panic",
    "kernel/perf_event_paranoid",
    "kernel/poweroff_cmd",
    "kernel/printk",
    "kernel/randomize_va_space",
    "kernel/sysrq",
    "kernel/threads-max",
    "kernel/unprivileged_bpf_disabled",
    "kernel/usermodehelper/bset",
    "net/core/rmem_max",
    "vm/drop_caches",
    "vm/overcommit_memory",
    "vm/swappiness",
];

#[test]
fn no_setting_of_the_host_can_be_written() {
    let privileged = Some(IdMap::Privileged);
    for (ids, nesting) in [(None, false), (None, true), (privileged, false), (privileged, true)] {
        let lab = Lab::new();
        let mut spec = lab.waiting();
        spec.ids = ids.unwrap_or(spec.ids);
        spec.nesting = nesting;
        lab.start(&spec);
        let there: Vec<_> = SETTINGS.iter().map(|name| format!("/proc/sys/{name}")).collect();
        let script = format!(
            "for f in {} /proc/sysrq-trigger /proc/mtrr; do [ ! -e $f ] || (: >>$f) 2>&- && [ -e $f ] && echo $f; done; true",
            there.join(" ")
        );
        assert_eq!(lab.shell(&script), "", "of {ids:?}, nesting: {nesting}");
        // What belongs to the container's own network can be.
        lab.shell("echo 1 > /proc/sys/net/ipv4/ip_forward");
        // Nothing in /sys but what tells of the container's own interfaces and cgroups.
        let script = "find /sys -path /sys/fs/cgroup -prune -o -type f -perm /222 -print 2>&- | while read f; do \
                      (: >>$f) 2>&- && echo $f; done | grep -v ^/sys/devices/virtual/net/ || true";
        assert_eq!(lab.shell(script), "", "of {ids:?}, nesting: {nesting}");
    }
}

#[test]
fn filesystems_that_show_or_change_the_host_cannot_be_mounted() {
    let lab = Lab::new();
    lab.start(&lab.waiting());
    let kinds = [
        "bpf",
        "btrfs",
        "configfs",
        "debugfs",
        "efivarfs",
        "erofs",
        "ext4",
        "fusectl",
        "hugetlbfs",
        "iso9660",
        "pstore",
        "securityfs",
        "squashfs",
        "tracefs",
        "vfat",
        "xfs",
    ];
    lab.shell("mkdir /tmp/t; head -c 1M /dev/zero >/tmp/image");
    for kind in kinds {
        for source in ["none", "/tmp/image", "/dev/vda", "/dev/loop0"] {
            refused(&lab, &format!("mount -t {kind} {source} /tmp/t 2>&1"));
        }
    }
    lab.shell("mount -t tmpfs none /tmp/t && umount /tmp/t");
}

/// What lies over parts of /proc and /sys is the container's own to take off; what is below is closed by the kernel.
#[test]
fn what_is_uncovered_in_proc_and_sys_stays_closed() {
    let lab = Lab::new();
    lab.start(&lab.waiting());
    lab.shell("mkdir /tmp/proc /tmp/sys; mount -t proc none /tmp/proc; mount -t sysfs none /tmp/sys");
    for file in [
        "kcore",
        "kmsg",
        "kpagecgroup",
        "kpagecount",
        "kpageflags",
        "mtrr",
        "pagetypeinfo",
        "slabinfo",
        "timer_list",
        "vmallocinfo",
    ] {
        refused(&lab, &format!("head -c 1 /tmp/proc/{file}"));
    }
    for file in ["sys/kernel/core_pattern", "sys/vm/drop_caches", "sysrq-trigger", "irq/default_smp_affinity"]
    {
        refused(&lab, &format!("(: >>/tmp/proc/{file})"));
    }
    // Keys of the kernel and of the host's root have no place in a list of one's own.
    assert_eq!(lab.shell("grep -e dns_resolver -e blacklist -e _uid.0 /tmp/proc/keys || true"), "");
    let hidden = "kernel/slab devices/virtual/powercap kernel/debug kernel/tracing kernel/security fs/pstore";
    let script = format!("cd /tmp/sys; for d in {hidden}; do find $d -type f -readable 2>&-; done; true");
    assert_eq!(lab.shell(&script), "");
}

#[test]
fn a_privileged_container_makes_nodes_of_devices_but_opens_none_of_the_hosts() {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let v1 = |line: &&str| !line.contains(" - cgroup2 ");
    let legacy: String = table.split_inclusive('\n').filter(v1).collect();
    let layouts = [Some(table.clone()), legacy.contains(" - cgroup ").then_some(legacy)];
    for layout in layouts.into_iter().flatten() {
        let mut lab = Lab::new();
        lab.use_cgroups(&layout);
        let mut spec = lab.waiting();
        spec.ids = IdMap::Privileged;
        lab.start(&spec);
        lab.shell("mkdir /tmp/dev /tmp/t; mount -t tmpfs -o dev none /tmp/dev");
        let disks = std::fs::read_to_string("/proc/partitions").unwrap();
        let disks = disks.lines().skip(2).filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        });
        let disks: Vec<_> = disks.collect();
        assert!(!disks.is_empty(), "this host has no disk to look for");
        // Even after it has given itself every right in the group it sees.
        lab.shell(
            "mkdir /tmp/g; mount -t cgroup -o devices none /tmp/g 2>&- && echo a >/tmp/g/devices.allow; true",
        );
        for (major, minor) in &disks {
            lab.shell(&format!("mknod /tmp/dev/disk b {major} {minor}"));
            refused(&lab, "head -c 512 /tmp/dev/disk");
            refused(&lab, "(: >>/tmp/dev/disk)");
            for kind in ["ext4", "xfs", "btrfs"] {
                refused(&lab, &format!("mount -t {kind} -o ro /tmp/dev/disk /tmp/t"));
            }
            lab.shell("rm /tmp/dev/disk");
        }
        // Memory, ports, the kernel's log, the first serial line, a virtual console, loop control, the mapper.
        for node in ["1 1", "1 4", "1 11", "4 64", "4 1", "10 237", "10 236"] {
            lab.shell(&format!("mknod /tmp/dev/odd c {node}"));
            refused(&lab, "head -c 1 /tmp/dev/odd");
            lab.shell("rm /tmp/dev/odd");
        }
        for node in ["1 3", "1 5", "1 7", "1 8", "1 9"] {
            lab.shell(&format!("mknod /tmp/dev/own c {node} && (: >/tmp/dev/own) && rm /tmp/dev/own"));
        }
        lab.shell("head -c 1 /dev/urandom | wc -c; echo x >/dev/null");
        let terminal = Streams::Terminal { width: 80, height: 25 };
        let own = lab.runtime.exec("web", &exec_spec(&["sh", "-c", "echo x >/dev/tty"], terminal), None);
        assert_eq!(own.unwrap().wait(), ExecStatus::Exited(0), "a terminal of its own");
    }
}

/// A program of a few bytes that makes one call through the 32-bit interface and ends with its error.
fn narrow_call(number: u32, arguments: [u32; 3]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut code = Vec::new();
    // mov eax, number; mov ebx, mov ecx, mov edx; int 0x80; neg eax; mov ebx, eax; mov eax, 1; int 0x80
    for (register, value) in [0xb8u8, 0xbb, 0xb9, 0xba].into_iter().zip([number].into_iter().chain(arguments))
    {
        code.push(register);
        code.extend(value.to_le_bytes());
    }
    code.extend([0xcd, 0x80, 0xf7, 0xd8, 0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, size, size, 4096] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

#[test]
fn the_32_bit_interface_is_no_way_around_the_filter() {
    let lab = Lab::new();
    lab.start(&lab.waiting());
    let put = |number, arguments| {
        let bytes: String =
            narrow_call(number, arguments).iter().map(|byte| format!("\\x{byte:02x}")).collect();
        lab.shell(&format!("perl -e 'print \"{bytes}\"' >/root/call && chmod 755 /root/call"));
        lab.exec(&["/root/call"]).0
    };
    // SIGSEGV: this kernel has no such interface, and nothing is to be held.
    if put(20, [0; 3]) == ExecStatus::Killed(11) {
        return;
    }
    let (no_call, not_permitted, no_family) = (38, 1, 97);
    for (what, number, arguments, errno) in [
        ("socketcall", 102, [1, 0, 0], no_call),
        ("socket of AF_ALG", 359, [38, 5, 0], no_family),
        ("socket of AF_VSOCK", 359, [40, 1, 0], no_family),
        ("socket of AF_RXRPC", 359, [33, 2, 2], no_family),
        ("socketpair of AF_TIPC", 360, [30, 1, 0], no_family),
        ("audit's netlink", 359, [16, 3, 9], no_family),
        ("bpf", 357, [0; 3], not_permitted),
        ("perf_event_open", 336, [0; 3], not_permitted),
        ("userfaultfd", 374, [0; 3], not_permitted),
        ("init_module", 128, [0; 3], no_call),
        ("finit_module", 350, [0; 3], no_call),
        ("kexec_load", 283, [0; 3], no_call),
        ("open_by_handle_at", 342, [0; 3], no_call),
        ("iopl", 110, [3, 0, 0], no_call),
        ("vm86", 166, [0; 3], no_call),
        ("acct", 51, [0; 3], no_call),
    ] {
        assert_eq!(put(number, arguments), ExecStatus::Exited(errno), "{what}");
    }
    // A plain one is made: the error is a small negative number, which is a descriptor.
    assert_eq!(put(359, [1, 1, 0]), ExecStatus::Exited(253), "a unix socket");
}

/// Looks at every process that comes, as fast as it can, and tells what it could see or hold of one that still runs
/// a program of the host's, or of the descriptors of a command.
const SPY: &str = r#"
use strict; my %own = map { $_ => 1 } ($$, 1); my $seen = 0; $| = 1;
open(my $ready, ">", "/root/ready"); close $ready;
until (-e "/root/enough") {
    opendir(my $proc, "/proc") or die; my @pids = grep { /^\d+$/ && !$own{$_} } readdir $proc; closedir $proc;
    for my $pid (@pids) {
        $seen++;
        my $exe = readlink("/proc/$pid/exe");
        print "exe $exe\n" if defined $exe && $exe =~ /cabin/;
        next if defined $exe && $exe =~ /perl/;
        print "write $exe\n" if defined $exe && $exe =~ /cabin/ && open(my $file, "+<", "/proc/$pid/exe");
        for my $place ("cwd", "root") {
            my $link = readlink("/proc/$pid/$place");
            print "$place $link\n" if defined $link && $link !~ m{^/($|root|bin|usr)};
        }
        if (opendir(my $fds, "/proc/$pid/fd")) {
            for my $fd (grep { /^\d+$/ } readdir $fds) {
                my $to = readlink("/proc/$pid/fd/$fd");
                print "fd $fd $to\n" if $fd > 2 && defined $to && $to !~ m{^(/usr|/lib|/etc|/proc|/root|pipe:)};
            }
        }
        my $held = syscall(434, $pid, 0);
        if ($held >= 0) {
            for my $fd (3 .. 12) {
                my $got = syscall(438, $held, $fd, 0);
                next if $got < 0;
                my $to = readlink("/proc/self/fd/$got");
                print "got $fd $to\n" if defined $to && $to !~ m{^(/usr|/lib|/etc|/proc|/root|pipe:)};
                open(my $close, "<&=", $got); close $close;
            }
            open(my $close, "<&=", $held); close $close;
        }
    }
}
print "looked $seen\n";
"#;

#[test]
fn who_comes_in_from_outside_cannot_be_looked_into_or_held() {
    let lab = Lab::new();
    lab.start(&lab.waiting());
    let lay = format!("cat >/root/spy <<'END'\n{SPY}\nEND");
    lab.shell(&lay);
    let spec: ExecSpec = exec_spec(&["sh", "-c", "perl /root/spy >/root/seen 2>&1"], Streams::Pipes);
    let spies: Vec<_> = (0..2).map(|_| lab.runtime.exec("web", &spec, None).unwrap()).collect();
    wait_until(
        "they look",
        || lab.exec(&["test", "-e", "/root/ready"]).0 == ExecStatus::Exited(0),
        String::new,
    );
    for _ in 0..200 {
        assert_eq!(lab.exec(&["/bin/true"]).0, ExecStatus::Exited(0));
    }
    lab.shell("touch /root/enough");
    for spy in spies {
        assert_eq!(spy.wait(), ExecStatus::Exited(0));
    }
    let seen = lab.shell("cat /root/seen");
    let looks = seen.lines().find_map(|line| line.strip_prefix("looked ")).unwrap().parse::<u32>().unwrap();
    assert!(looks > 1000, "{seen}");
    let held: Vec<_> = seen.lines().filter(|line| !line.starts_with("looked")).collect();
    assert!(held.is_empty(), "{held:#?}");
}

#[test]
fn a_directory_of_another_process_is_no_place_to_start_in() {
    let lab = Lab::new();
    lab.start(&lab.waiting());
    lab.shell("ln -s /proc/self/fd/7 /root/seven; ln -s /proc/1/cwd /root/init; mkdir /root/gone");
    let places = (0..40).map(|fd| format!("/proc/self/fd/{fd}"));
    for place in
        places.chain(["/root/seven", "/root/init", "/proc/1/root", "/proc/self/cwd"].map(str::to_owned))
    {
        let spec = ExecSpec { cwd: Some(place.clone()), ..exec_spec(&["/bin/pwd"], Streams::Pipes) };
        assert!(lab.runtime.exec("web", &spec, None).is_err(), "{place}");
    }
    // Outside of the container's ids nobody can be.
    for uid in [65536, 1 << 31, u32::MAX] {
        let spec = ExecSpec { uid, ..exec_spec(&["/bin/true"], Streams::Pipes) };
        assert!(lab.runtime.exec("web", &spec, None).is_err(), "user {uid}");
    }
    assert_eq!(lab.exec_as(&["/usr/bin/id", "-u"], 65535).1, "65535\n");
}

#[test]
fn links_in_an_image_where_the_kernels_filesystems_belong_lead_nowhere() {
    for place in ["dev", "proc", "sys"] {
        for to in ["canary", "/", "..", "/../../..", "no/such/place"] {
            let lab = Lab::new();
            let canary = lab.dir.join("canary");
            std::fs::create_dir(&canary).unwrap();
            let root = lab.busybox("#!/bin/sh\nwhile :; do sleep 100; done\n");
            let RootSpec::Overlay { lowers, .. } = &root else { panic!() };
            let link = lowers[0].join(place);
            std::fs::remove_dir(&link).unwrap();
            let to = if to == "canary" { canary.clone() } else { to.into() };
            std::os::unix::fs::symlink(&to, &link).unwrap();
            let error = lab.try_start(&lab.spec(root)).err();
            assert!(error.is_some(), "/{place} leads to {} and is taken", to.display());
            assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0, "/{place} leads to {}", to.display());
            lab.assert_nothing_left();
        }
    }
}
