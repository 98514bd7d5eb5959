//! Consoles over the API: typing, the window's size, who may take part, what was said, and the secrets that websockets
//! are opened with.

use std::path::Path;
use std::time::{Duration, Instant};

use cabin_tests::cli::run_with;
use cabin_tests::hostile::{BINARY, Exec, HANDSHAKE, LAST, Line, TEXT};
use cabin_tests::lab::Lab;
use cabin_tests::subject::Subject;
use cabin_tests::wait::{until, until_true};
use cabin_tests::{binary, machine};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

fn lab(name: &str) -> Subject {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject.create(name, &json!({}));
    subject.power(name, "start").expect("a start");
    subject
}

fn said(subject: &Subject, name: &str) -> String {
    subject.call("GET", &format!("/1.0/instances/{name}/console"), None).expect("an answer").text()
}

fn says(subject: &Subject, name: &str, what: &str) {
    until_true(&format!("the console to say {what}"), 20, || said(subject, name).contains(what));
}

/// Types a line until the shell at the console has answered it: it may still be on its way.
fn type_until(subject: &Subject, line: &mut Line, typed: &str, answer: &str) {
    until(&format!("{answer} at the console"), 30, || {
        line.frame(LAST | BINARY, typed.as_bytes(), true);
        let (_, frame) = line.next_frame(1)?;
        let heard = String::from_utf8_lossy(&frame).contains(answer);
        (heard || said(subject, "typed").contains(answer)).then_some(())
    });
}

#[test]
fn what_is_typed_at_a_console_is_heard_inside_and_the_answer_comes_back() {
    let subject = lab("typed");
    let console = Exec::console(&subject, "typed");
    let mut line = console.connect(&subject, "0");
    let mut control = console.connect(&subject, "control");
    type_until(&subject, &mut line, "echo sum-$((20+22))\n", "sum-42");
    let resize = json!({ "command": "window-resize", "args": { "width": "101", "height": "37" } });
    control.frame(LAST | TEXT, resize.to_string().as_bytes(), true);
    until_true("the size of the window", 20, || {
        subject.exec("typed", "stty size </dev/console").is_ok_and(|size| size == "37 101")
    });
    drop((line, control));
    assert_eq!(console.ended(&subject, 20)["status"], "Success");
}

/// The process that keeps the console of an instance.
fn supervisor(subject: &Subject, name: &str) -> Pid {
    let init = subject.get(&format!("/1.0/instances/{name}/state"))["pid"].clone();
    let status = std::fs::read_to_string(format!("/proc/{init}/status")).expect("its init");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    Pid::from_raw(parent.trim().parse().expect("a number")).expect("a process")
}

#[test]
fn consoles_that_do_not_take_their_windows_size_hold_nobody_up_and_get_the_last_one() {
    let subject = lab("w0");
    // As many as there are threads that serve.
    let threads = std::thread::available_parallelism().expect("their number").get();
    let names: Vec<_> = (0..threads).map(|number| format!("w{number}")).collect();
    for name in &names[1..] {
        subject.create(name, &json!({}));
        subject.power(name, "start").expect("a start");
    }
    let mut lines = Vec::new();
    for name in &names {
        let console = Exec::console(&subject, name);
        lines.push((console.connect(&subject, "0"), console.connect(&subject, "control")));
    }
    let keepers: Vec<_> = names.iter().map(|name| supervisor(&subject, name)).collect();
    keepers.iter().for_each(|keeper| kill_process(*keeper, Signal::STOP).expect("a stop"));
    for width in 101..=105 {
        let resize =
            json!({ "command": "window-resize", "args": { "width": width.to_string(), "height": "37" } });
        for (_, control) in &mut lines {
            control.frame(LAST | TEXT, resize.to_string().as_bytes(), true);
        }
    }
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < Duration::from_secs(1) {
        let asked = Instant::now();
        let answered = subject.call("GET", "/1.0", None);
        slowest = slowest.max(asked.elapsed());
        if answered.is_err() {
            break;
        }
    }
    keepers.iter().for_each(|keeper| kill_process(*keeper, Signal::CONT).expect("a continuation"));
    assert!(slowest < machine::time(Duration::from_secs(5)), "an answer took {slowest:?}");
    for name in &names {
        until_true("the last size of the window", 20, || {
            subject.exec(name, "stty size </dev/console").is_ok_and(|size| size == "37 105")
        });
    }
}

#[test]
fn one_takes_part_in_a_console_until_somebody_forces_them_away() {
    let subject = lab("taken");
    let first = Exec::console(&subject, "taken");
    let mut line = first.connect(&subject, "0");
    let body = json!({ "width": 80, "height": 25, "type": "console" });
    let polite = subject.call("POST", "/1.0/instances/taken/console", Some(&body)).expect("an answer");
    assert_eq!(polite.status, 400, "{}", polite.text());
    assert!(polite.error().contains("taken") && polite.error().contains("force"), "{}", polite.error());
    let second = Exec::console(&subject, "taken");
    assert!(line.parting(20).is_some(), "whoever is forced away is not told");
    assert_eq!(first.ended(&subject, 20)["status"], "Success");
    drop(second.connect(&subject, "0"));
    assert_eq!(second.ended(&subject, 20)["status"], "Success");
    let again = subject.call("POST", "/1.0/instances/taken/console", Some(&body)).expect("an answer");
    assert_eq!(again.status, 202, "{}", again.text());
}

#[test]
fn a_person_types_at_a_console_and_takes_it_by_force() {
    let lab = Lab::own();
    lab.busybox("person");
    let body = json!({ "width": 80, "height": 25, "type": "console" });
    assert_eq!(lab.call("POST", "/1.0/instances/person/console", Some(&body)).status, 202);
    let cabin = binary("cabin").display().to_string();
    let at_a_terminal = |words: &str| {
        let line = format!("{cabin} console {words} person");
        let args = ["--quiet", "--return", "--command", &line, "/dev/null"];
        run_with(&mut lab.command(Path::new("/usr/bin/script"), &args), b"echo sum-$((20+22))\n\x01q")
    };
    let refused = at_a_terminal("");
    assert!(refused.code != 0 && refused.out.contains("take it with force"), "{refused:?}");
    until_true("an answer at the console", 30, || {
        at_a_terminal("--force").ok();
        lab.call("GET", "/1.0/instances/person/console", None).text().contains("sum-42")
    });
    assert!(lab.cabin(&["console", "person", "--show-log"]).ok().contains("sum-42"));
}

#[test]
fn what_a_console_said_is_kept_until_it_is_forgotten() {
    let subject = lab("kept");
    subject.exec("kept", "echo mark-one >/dev/console").expect("a command");
    says(&subject, "kept", "mark-one");
    subject.must("DELETE", "/1.0/instances/kept/console", &json!({}));
    assert!(!said(&subject, "kept").contains("mark-one"));
    subject.exec("kept", "echo mark-two >/dev/console").expect("a command");
    says(&subject, "kept", "mark-two");
    subject.power("kept", "stop").expect("a stop");
    says(&subject, "kept", "mark-two");
    subject.must("DELETE", "/1.0/instances/kept/console", &json!({}));
    assert_eq!(said(&subject, "kept"), "");
}

#[test]
fn a_websocket_is_opened_once_with_its_own_secret() {
    let subject = lab("secret");
    let exec = Exec::start(&subject, "secret", &["cat"]);
    let status = |target: &str| {
        let mut line = Line::open(&subject);
        line.head("GET", target, HANDSHAKE);
        line.status(20)
    };
    let place = exec.place("0");
    let (address, secret) = place.split_once('=').expect("a secret");
    let wrong = format!("{address}={}", "0".repeat(secret.len()));
    for target in [wrong.as_str(), &format!("{address}="), address.split('?').next().unwrap_or_default()] {
        assert_eq!(status(target), Some(403), "{target}");
    }
    let open = exec.connect(&subject, "0");
    assert_eq!(status(&place), Some(403), "a second time");
    let others = ["1", "2", "control"].map(|name| exec.connect(&subject, name));
    drop((open, others));
    assert_eq!(exec.ended(&subject, 20)["status"], "Success");
    let gone = status(&exec.place("control"));
    assert!(matches!(gone, Some(403 | 404)), "after the end: {gone:?}");
}
