//! Commands in running containers: codes, signals, streams, users, terminals, and their end.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]
#![allow(clippy::print_stdout)]

mod lab;

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use cabin_runtime::spec::{ExecSpec, Streams};
use cabin_runtime::{Error, ExecStatus};
use lab::{Lab, exec_spec, read_all, wait_until};

const INIT: &str = "#!/bin/sh
while :; do sleep 100; done
";

fn running() -> Lab {
    let lab = Lab::new();
    lab.start(&lab.spec(lab.busybox(INIT)));
    lab
}

#[test]
fn codes_signals_and_streams_come_back_intact() {
    let lab = running();
    assert_eq!(lab.exec(&["true"]).0, ExecStatus::Exited(0));
    assert_eq!(lab.exec(&["sh", "-c", "exit 37"]).0, ExecStatus::Exited(37));
    assert_eq!(lab.exec(&["sh", "-c", "kill -TERM $$"]).0, ExecStatus::Killed(15));
    let (status, out, err) = lab.exec(&["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((status, out.as_str(), err.as_str()), (ExecStatus::Exited(0), "out\n", "err\n"));

    let mut exec = lab.runtime.exec("web", &exec_spec(&["cat"], Streams::Pipes), None).unwrap();
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut stdin = std::fs::File::from(exec.stdin.take().unwrap());
    let data = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&data).unwrap());
    let mut got = Vec::new();
    std::fs::File::from(exec.stdout.take().unwrap()).read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == sent);
    assert_eq!(exec.wait(), ExecStatus::Exited(0));
}

#[test]
fn a_missing_program_and_one_that_cannot_run_are_told_apart() {
    let lab = running();
    let run = |argv: &[&str]| lab.runtime.exec("web", &exec_spec(argv, Streams::Pipes), None).unwrap_err();
    assert!(matches!(run(&["nothing-like-it"]), Error::ProgramNotFound { .. }));
    assert!(matches!(run(&["/bin/nothing-like-it"]), Error::ProgramNotFound { .. }));
    assert!(matches!(run(&["/etc/passwd"]), Error::ProgramNotExecutable { .. }));
    let mut spec = exec_spec(&["true"], Streams::Pipes);
    spec.cwd = Some("/nowhere".into());
    let Err(Error::Exec { step, .. }) = lab.runtime.exec("web", &spec, None) else { panic!() };
    assert_eq!(step, "change to directory `/nowhere`");
    assert!(matches!(
        lab.runtime.exec("other", &exec_spec(&["true"], Streams::Pipes), None),
        Err(Error::NotRunning { .. })
    ));
}

#[test]
fn a_user_has_its_groups_and_no_capabilities() {
    let lab = running();
    let (_, out, err) = lab
        .exec_as(&["sh", "-c", "id -u; id -g; id -G; grep -E '^Cap(Eff|Inh|Amb)' /proc/self/status"], 1000);
    let zero = "0000000000000000";
    let expected = format!("1000\n1000\n1000 27\nCapInh:\t{zero}\nCapEff:\t{zero}\nCapAmb:\t{zero}\n");
    assert_eq!(out, expected, "{err}");
    assert_eq!(lab.exec_as(&["sh", "-c", "echo again > /dev/stdout"], 1000).1, "again\n");
    assert_eq!(lab.shell("pwd; id -u; env | grep HOME"), "/\n0\nHOME=/root");
}

#[test]
fn a_terminal_is_one_of_the_containers_and_changes_size() {
    let lab = running();
    let streams = Streams::Terminal { width: 100, height: 30 };
    let script =
        "tty; stty size; trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 1 & wait $!; done";
    let mut exec = lab.runtime.exec("web", &exec_spec(&["sh", "-c", script], streams), None).unwrap();
    let control = exec.control().unwrap();
    let terminal = exec.terminal.take().unwrap();
    let mut seen = read_until(&terminal, "ready");
    assert!(seen.contains("/dev/pts/") && seen.contains("30 100"), "{seen}");
    control.resize(81, 25).unwrap();
    assert_eq!(exec.wait(), ExecStatus::Exited(3));
    seen = read_all(terminal);
    assert!(seen.contains("25 81"), "{seen}");

    // The interrupt key reaches the command through its controlling terminal.
    let mut exec = lab.runtime.exec("web", &exec_spec(&["sleep", "100"], streams), None).unwrap();
    let terminal = exec.terminal.take().unwrap();
    rustix::io::write(&terminal, b"\x03").unwrap();
    assert_eq!(exec.wait(), ExecStatus::Killed(2));
}

#[test]
fn signals_are_passed_on_and_a_dropped_session_is_killed_with_its_group() {
    let lab = running();
    let exec = lab.runtime.exec("web", &exec_spec(&["sleep", "100"], Streams::Pipes), None).unwrap();
    exec.signal(10).unwrap();
    assert_eq!(exec.wait(), ExecStatus::Killed(10));

    let exec = lab
        .runtime
        .exec("web", &exec_spec(&["sh", "-c", "sleep 777 & sleep 777"], Streams::Pipes), None)
        .unwrap();
    wait_until("both sleep", || sleepers(&lab) >= 2, String::new);
    drop(exec);
    wait_until("none sleeps", || sleepers(&lab) == 0, || sleepers(&lab).to_string());
}

#[test]
fn what_is_prepared_and_not_run_leaves_nothing_and_helpers_wait_for_the_next() {
    let lab = running();
    let mark = exec_spec(&["touch", "/ran"], Streams::Pipes);
    for _ in 0..3 {
        lab.runtime.keep_helper();
        let waiting = lab.runtime.prepare_exec("web", &mark, None).unwrap();
        assert_eq!(lab.shell("test -e /ran && echo ran || echo waits"), "waits");
        drop(waiting);
    }
    assert_eq!(leaves(&lab), 0);
    lab.runtime.keep_helper();
    let ran = lab.runtime.prepare_exec("web", &mark, None).unwrap().run().unwrap();
    assert_eq!(ran.wait(), ExecStatus::Exited(0));
    assert_eq!(lab.shell("test -e /ran && echo ran || echo waits"), "ran");
    lab.runtime.keep_helper();
    lab.runtime.dismiss_helper();
    assert_eq!(lab.exec(&["true"]).0, ExecStatus::Exited(0));
}

/// How many leaves of commands there are, where the host has cgroup2.
fn leaves(lab: &Lab) -> usize {
    let inner =
        ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(|at| format!("{at}/{}/web/init", lab.prefix));
    let entries = inner.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".cabin")).count()
}

fn sleepers(lab: &Lab) -> usize {
    lab.shell("ps | grep '[s]leep 777' | grep -vc 'sh -c' || true").parse().unwrap()
}

#[test]
fn given_streams_record_the_output() {
    let lab = running();
    let (output, into) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let nothing: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let spec = exec_spec(&["sh", "-c", "echo one; echo two >&2; cat"], Streams::Given);
    let given = [nothing, into.try_clone().unwrap(), into];
    let exec = lab.runtime.exec("web", &spec, Some(given)).unwrap();
    assert_eq!(read_all(output), "one\ntwo\n");
    assert_eq!(exec.wait(), ExecStatus::Exited(0));
}

#[test]
fn a_command_sees_its_three_descriptors_and_many_leave_nothing() {
    let lab = running();
    // `ls` itself has the directory open.
    assert_eq!(lab.shell("ls /proc/self/fd"), "0\n1\n2\n3");
    let own = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (before, started) = (own(), Instant::now());
    for _ in 0..100 {
        assert_eq!(lab.exec(&["true"]).0, ExecStatus::Exited(0));
    }
    println!("exec of true: {:?} each", started.elapsed() / 100);
    assert!(own() <= before + 8, "descriptors: {before} before, {} after", own());
    assert!(leaves(&lab) <= 1, "{} leaves", leaves(&lab));
}

#[test]
fn the_end_of_the_container_ends_its_commands() {
    let lab = running();
    let spec: ExecSpec = exec_spec(&["sleep", "100"], Streams::Pipes);
    let exec = lab.runtime.exec("web", &spec, None).unwrap();
    lab.runtime.kill("web").unwrap();
    assert_eq!(exec.wait(), ExecStatus::Killed(9));
    lab.runtime.cgroups().destroy("web").unwrap();
    lab.assert_nothing_left();
}

fn read_until(fd: &OwnedFd, wanted: &str) -> String {
    let mut seen = String::new();
    let mut chunk = [0u8; 4096];
    while !seen.contains(wanted) {
        let length = rustix::io::read(fd.as_fd(), &mut chunk).unwrap();
        seen.push_str(&String::from_utf8_lossy(&chunk[..length]));
    }
    seen
}
