//! What a guest, and who is attached, can do to who keeps the console.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod lab;

use std::time::{Duration, Instant};

use cabin_runtime::Supervisor;
use cabin_runtime::spec::{IdMap, InitSpec};
use lab::{Lab, wait_until};
use rustix::net::SendFlags;

/// Has the console for itself alone (`TIOCEXCL`), and hangs it up (`TIOCVHANGUP`).
const HANG_UP: &str = "perl -e 'open T, \"+<\", \"/dev/console\" or die; ioctl(T, 0x540c, 0) or die; \
                       ioctl(T, 0x5437, 0) or die'";

#[test]
fn a_console_that_a_guest_hangs_up_costs_its_supervisor_nothing() {
    let lab = Lab::new();
    // As systemd: its init keeps no end of the console.
    let argv = ["/bin/sh", "-c", "exec sleep infinity <&- >&- 2>&-"].map(str::to_owned).to_vec();
    let supervisor = lab.start(&InitSpec { ids: IdMap::Privileged, argv, ..lab.waiting() });
    for round in 0..2 {
        lab.shell(HANG_UP);
        let (start, before) = (Instant::now(), ticks(&supervisor));
        wait_until("a second to pass", || start.elapsed() > Duration::from_secs(1), String::new);
        let used = ticks(&supervisor) - before;
        assert!(used < 20, "{used} hundredths of a second of processor time in a second");
        lab.shell(&format!("echo open again {round} >/dev/console"));
        let said = || String::from_utf8_lossy(&supervisor.console_log().unwrap()).into_owned();
        wait_until("what is written then is heard", || said().contains(&format!("open again {round}")), said);
    }
}

#[test]
fn input_that_nobody_reads_is_not_gathered_and_who_left_makes_room() {
    let lab = Lab::new();
    let supervisor = lab.start(&lab.waiting());
    lab.shell("stty raw -echo </dev/console");
    let before = memory(&supervisor);
    for _ in 0..8 {
        let stream = supervisor.attach_console().unwrap();
        while rustix::net::send(&stream, &[b'x'; 4096], SendFlags::DONTWAIT).is_ok() {}
    }
    // With each answer it looks at those attached, too.
    (0..200).for_each(|_| drop(supervisor.console_log().unwrap()));
    let grown = memory(&supervisor).saturating_sub(before);
    assert!(grown < 256, "{grown} KiB more");
    supervisor.attach_console().unwrap();
    let (_, heard, _) = lab.exec(&["head", "-c", "100000", "/dev/console"]);
    assert!(heard.len() == 100_000 && heard.bytes().all(|byte| byte == b'x'), "{} bytes", heard.len());
}

/// The supervisor's own memory in KiB.
fn memory(supervisor: &Supervisor) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", keeper(supervisor))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The processor time that the supervisor has used, in hundredths of a second.
fn ticks(supervisor: &Supervisor) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", keeper(supervisor))).unwrap();
    let words: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap()
}

/// The supervisor's process.
fn keeper(supervisor: &Supervisor) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", supervisor.init_pid())).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}
