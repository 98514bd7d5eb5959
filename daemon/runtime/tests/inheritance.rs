//! Nothing of the process that starts a container, or a command in it, is inherited inside: neither limits nor
//! priorities, neither signals nor keys. The tests start from a process that has all of it unlike anybody else.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]
#![allow(clippy::print_stdout)]

mod lab;

use std::process::Command;

use cabin_runtime::spec::{CgroupLimits, IdMap, Rlimit};
use lab::Lab;

const INSIDE: &str = "CABIN_TEST_STRANGE";

/// Joins a session keyring and puts a key into it, lays memory out as no other process does, lets timers be late,
/// raises what limits it may raise (locked memory, nice, real-time priority), and goes on as what follows.
const STRANGE: &str = r#"
use strict; my ($kind, $name, $value) = ("user", "cabin-canary", "secret");
syscall(250, 1, $name) > 0 or die "join: $!";
syscall(248, $kind, $name, $value, 6, -3) > 0 or die "add_key: $!";
syscall(135, 0x0440000) >= 0 or die "personality: $!";
syscall(157, 29, 7_000_000) == 0 or die "timer slack: $!";
syscall(302, 0, $_->[0], pack("Q2", $_->[1], $_->[2]), 0) for [8, ~0, ~0], [13, 3, 7], [14, 4, 9];
my $nodes = pack("Q", 1); syscall(238, 3, $nodes, 64);
umask 0077;
exec @ARGV or die;
"#;

/// Runs `body` in a process that has everything a process can hand on set to something odd.
fn strangely(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let own = std::env::current_exe().unwrap();
    let status = Command::new("perl")
        .args(["-e", STRANGE, "choom", "-n", "300", "--", "prlimit"])
        .args(["--cpu=1000000:", "--fsize=90000000000:", "--data=80000000000:", "--stack=9000000:"])
        .args(["--core=0:", "--rss=70000000000:", "--nproc=9000:", "--nofile=3000:", "--memlock=7000000:"])
        .args(["--as=900000000000:", "--locks=77:", "--sigpending=999:", "--msgqueue=100000:"])
        .args(["--rttime=999999:"])
        .args(["nice", "-n", "5", "taskset", "-c", "0", "chrt", "--batch", "0", "ionice", "-c", "3"])
        .args(["env", "--ignore-signal=HUP,USR1,RTMIN", "--block-signal=USR2"])
        .arg(own)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("package perl-base");
    assert!(status.success(), "{test} failed where it started strangely");
}

/// What the file `name` says of init and of a command.
fn both(lab: &Lab, name: &str) -> [String; 2] {
    ["1", "self"].map(|pid| lab.shell(&format!("cat /proc/{pid}/{name}")))
}

/// The values in a status file, by name.
fn fields<'a>(status: &'a str, names: &[&str]) -> Vec<&'a str> {
    let find = |name: &&str| status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    names.iter().map(find).map(str::trim).collect()
}

/// All of them, soft and hard.
const LIMITS: &str = "\
Max cpu time unlimited unlimited seconds
Max file size unlimited unlimited bytes
Max data size unlimited unlimited bytes
Max stack size 8388608 unlimited bytes
Max core file size 0 unlimited bytes
Max resident set unlimited unlimited bytes
Max processes unlimited unlimited processes
Max open files 1024 1048576 files
Max locked memory 8388608 unlimited bytes
Max address space unlimited unlimited bytes
Max file locks unlimited unlimited locks
Max pending signals 65536 65536 signals
Max msgqueue size 819200 819200 bytes
Max nice priority 0 0
Max realtime priority 0 0
Max realtime timeout unlimited unlimited us";

fn table(limits: &str) -> String {
    let rows = limits.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    rows.collect::<Vec<_>>().join("\n")
}

/// What is expected where the daemon may not raise its own limits (it has no `CAP_SYS_RESOURCE`): as much as it has.
fn within_own(expected: &str) -> String {
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    if u64::from_str_radix(fields(&own, &["CapEff"])[0], 16).unwrap() >> 24 & 1 == 1 {
        return expected.to_owned();
    }
    let own = table(&std::fs::read_to_string("/proc/self/limits").unwrap());
    let number = |word: &str| word.parse().unwrap_or(u64::MAX);
    let rows = expected.lines().zip(own.lines()).map(|(row, own)| {
        let mut words: Vec<&str> = row.split(' ').collect();
        // Soft and hard stand before the unit, which nice and priority have none of.
        let hard = words.len() - if row.ends_with("0 0") { 1 } else { 2 };
        let most = own.split(' ').nth(hard).unwrap();
        for at in [hard - 1, hard] {
            if number(most) < number(words[at]) {
                words[at] = most;
            }
        }
        words.join(" ")
    });
    rows.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_resource_limit_is_the_containers_own() {
    strangely("every_resource_limit_is_the_containers_own", || {
        for ids in [None, Some(IdMap::Privileged)] {
            let lab = Lab::new();
            let mut spec = lab.waiting();
            spec.ids = ids.unwrap_or(spec.ids);
            lab.start(&spec);
            for limits in both(&lab, "limits") {
                assert_eq!(table(&limits), within_own(LIMITS), "of {ids:?}");
            }
            // The kernel counts queues for the whole namespace too, with what its maker had: 8 of 80 KiB.
            lab.shell(
                "perl -e 'for $n (1 .. 8) { my ($name, $size) = (\"q$n\", pack(\"q8\", 0, 10, 8192)); \
                 syscall(240, $name, 0102, 0600, $size) >= 0 or die \"$n: $!\" }'",
            );
        }
    });
}

#[test]
fn what_is_configured_takes_the_place_of_what_is_usual() {
    strangely("what_is_configured_takes_the_place_of_what_is_usual", || {
        let lab = Lab::new();
        let mut spec = lab.waiting();
        let limit = |name: &str, soft, hard| Rlimit { name: name.to_owned(), soft, hard };
        spec.rlimits = vec![
            limit("memlock", Some(4096), Some(8192)),
            limit("msgqueue", Some(500_000), Some(500_000)),
            limit("stack", Some(1 << 20), Some(2 << 20)),
            limit("core", None, None),
        ];
        lab.start(&spec);
        let expected = within_own(LIMITS)
            .replace("819200 819200", "500000 500000")
            .replace("stack size 8388608 unlimited", "stack size 1048576 2097152")
            .replace("core file size 0", "core file size unlimited");
        let locked = |table: &str| table.lines().find(|row| row.contains("locked")).unwrap().to_owned();
        let expected = expected.replace(&locked(&expected), "Max locked memory 4096 8192 bytes");
        for limits in both(&lab, "limits") {
            assert_eq!(table(&limits), expected);
        }
    });
}

#[test]
fn priorities_processors_and_memory_layout_are_as_for_the_first_process_of_a_host() {
    strangely("priorities_processors_and_memory_layout_are_as_for_the_first_process_of_a_host", || {
        let host = std::fs::read_to_string("/proc/1/status").unwrap();
        let all = fields(&host, &["Cpus_allowed_list"])[0];
        let lab = Lab::new();
        lab.start(&lab.waiting());
        for stat in both(&lab, "stat") {
            // Behind the name in parentheses, which may hold anything: state is the third of all fields.
            let after: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            let field = |number: usize| after[number - 3];
            assert_eq!((field(18), field(19), field(40), field(41)), ("20", "0", "0", "0"), "{stat}");
        }
        for status in both(&lab, "status") {
            assert_eq!(fields(&status, &["Cpus_allowed_list"]), [all]);
        }
        assert_eq!(both(&lab, "personality"), ["00000000", "00000000"]);
        assert_eq!(both(&lab, "timerslack_ns"), ["50000", "50000"]);
        // A kernel for one memory node only tells nothing of them.
        if let Ok(own) = std::fs::read_to_string("/proc/self/numa_maps") {
            let policy = |maps: &str| maps.split(' ').nth(1).unwrap().to_owned();
            assert_eq!(policy(&own), "interleave:0", "this test did not start as it should");
            assert_eq!(both(&lab, "numa_maps").map(|maps| policy(&maps)), ["default", "default"]);
        }
        assert_eq!(lab.shell("ionice -p 1; ionice"), "none: prio 0\nnone: prio 0");

        // A container that is given one processor has that one, whichever the daemon runs on.
        let last = all.rsplit([',', '-']).next().unwrap();
        let lab = Lab::new();
        let limits = CgroupLimits { cpus: Some(last.parse().unwrap()), ..CgroupLimits::default() };
        lab.start_limited(&lab.waiting(), &limits);
        for status in both(&lab, "status") {
            assert_eq!(fields(&status, &["Cpus_allowed_list"]), [last]);
        }
    });
}

#[test]
fn signals_mask_of_files_and_the_order_of_ending_are_as_for_a_new_program() {
    strangely("signals_mask_of_files_and_the_order_of_ending_are_as_for_a_new_program", || {
        let lab = Lab::new();
        lab.start(&lab.waiting());
        let none = "0000000000000000";
        for status in both(&lab, "status") {
            assert_eq!(fields(&status, &["SigBlk", "SigIgn", "Umask"]), [none, none, "0022"]);
        }
        assert_eq!(both(&lab, "oom_score_adj"), ["0", "0"]);
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_eq!(own.trim(), "300", "this test did not start as it should");
    });
}

/// Looks for the key of whoever started this, by name in every keyring that can be reached.
const FIND: &str = r#"
my ($kind, $name) = ("user", "cabin-canary"); my $found = 0;
for my $ring (-1, -2, -3, -4, -5) { $found++ if syscall(250, 10, $ring, $kind, $name, 0) > 0 }
open(my $list, "<", -e "/tmp/proc/keys" ? "/tmp/proc/keys" : "/proc/keys"); my $keys = join "", <$list>;
print "found $found, ", ($keys =~ /canary/ ? "listed" : "not listed"), "\n";
"#;

#[test]
fn nobody_inside_finds_the_keys_of_who_started_it() {
    strangely("nobody_inside_finds_the_keys_of_who_started_it", || {
        let own = Command::new("perl").args(["-e", FIND]).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&own.stdout),
            "found 1, listed\n",
            "the search finds what there is"
        );
        for ids in [None, Some(IdMap::Privileged)] {
            let lab = Lab::new();
            let mut spec = lab.waiting();
            spec.ids = ids.unwrap_or(spec.ids);
            // A list that nothing is laid over. In a privileged container root is the host's, and sees that there is
            // such a key, but reaches it no more than others.
            let uncovered = ids.map_or("mkdir -p /tmp/proc; mount -t proc none /tmp/proc; ", |_| "");
            let look = format!("{uncovered}perl -e '{FIND}'");
            let init = format!("{look} >/root/found 2>&1; exec sleep infinity");
            spec.argv = vec!["/bin/sh".into(), "-c".into(), init];
            lab.start(&spec);
            lab::wait_until(
                "init has looked",
                || lab.shell("cat /root/found 2>&1; true").contains("listed"),
                || lab.shell("cat /root/found"),
            );
            assert_eq!(lab.shell("cat /root/found"), "found 0, not listed", "init of {ids:?}");
            assert_eq!(lab.shell(&look), "found 0, not listed", "of {ids:?}");
        }
    });
}

/// How long a turn on a processor is, in nanoseconds, as far as the kernel says so of a process (since Linux 6.12).
fn turn(sched: &str) -> Option<&str> {
    let line = sched.lines().find(|line| line.starts_with("se.slice "))?;
    line.split(':').nth(1).map(str::trim)
}

#[test]
fn a_command_has_short_turns_and_what_it_starts_usual_ones() {
    let lab = Lab::new();
    lab.start(&lab.waiting());
    let usual = std::fs::read_to_string("/proc/self/sched").unwrap();
    let of = |what: &str| lab.shell(&format!("cat /proc/{what}/sched; true"));
    let short = turn(&usual).map(|_| "100000");
    assert_eq!(turn(&of("$$")), short, "of the command");
    assert_eq!(turn(&of("self")), turn(&usual), "of what it started");
    assert_eq!(turn(&of("1")), turn(&usual), "of init");
}
