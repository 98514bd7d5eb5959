//! A panic ends the request or operation it happens in and nothing else: each fence is run into on purpose, and
//! afterwards the host is as before and the daemon answers.

use cabin_tests::hostile::Exec;
use cabin_tests::subject::Subject;
use cabin_tests::sweep::audited;
use serde_json::{Value, json};

fn lab() -> Subject {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject.create("one", &json!({}));
    subject
}

/// Nothing is left of what panicked, and the next one is served.
#[track_caller]
fn goes_on(subject: &Subject, after: &str) {
    subject.arm("off");
    let found = audited(subject);
    assert!(found.is_empty(), "{after}: {found:?}");
    subject.ask("PATCH", "/1.0/instances/one", &json!({ "config": { "user.after": after } })).expect(after);
}

#[test]
fn a_request_that_panics_is_answered_and_the_daemon_goes_on() {
    let subject = lab();
    let reply = subject.call("PUT", "/internal/fault", Some(&json!({ "plan": "panic" }))).expect("an answer");
    assert_eq!(reply.status, 500, "{}", reply.text());
    assert!(reply.error().contains("panic"), "{}", reply.error());
    goes_on(&subject, "a panic of a handler");
    subject.arm("panic:1");
    let body = json!({ "name": "never", "config": {}, "devices": {} });
    let reply = subject.call("POST", "/1.0/profiles", Some(&body)).expect("an answer");
    assert_eq!(reply.status, 500, "{}", reply.text());
    assert!(reply.error().contains("panic"), "{}", reply.error());
    goes_on(&subject, "a panic of the work of a request");
    subject.must("POST", "/1.0/profiles", &body);
}

#[test]
fn an_operation_that_panics_fails_and_what_it_did_is_taken_back() {
    let subject = lab();
    subject.arm("count");
    subject.power("one", "start").expect("a start");
    let points = subject.points();
    subject.arm("off");
    subject.power("one", "stop").expect("a stop");
    let fails = points.iter().filter(|point| point.fails).count();
    assert!(fails > 5, "a start has {fails} points only");
    for (at, point) in points.iter().enumerate().filter(|(_, point)| point.fails) {
        subject.arm(&format!("panic:{}", at + 1));
        let said = subject.power("one", "start").expect_err(&point.what);
        assert!(said.contains("unexpectedly"), "at `{}`: {said}", point.what);
        goes_on(&subject, &point.what);
        assert_eq!(subject.status("one"), "Stopped", "after a panic at `{}`", point.what);
    }
    subject.power("one", "start").expect("a start after all of them");
    assert_eq!(subject.exec("one", "echo up").expect("a command"), "up");
}

#[test]
fn what_the_daemon_does_by_itself_goes_on_after_a_panic() {
    let mut subject = lab();
    subject.create("two", &json!({}));
    let again = |subject: &mut Subject, plan: &str| {
        let asked = subject.call("PUT", "/internal/shutdown", None).expect("an answer");
        assert_eq!(asked.status, 200, "{}", asked.text());
        subject.wait_gone();
        assert!(subject.boot(plan), "it ended at its start: {}", subject.log_tail());
        // Both ran before, so both are started; one that panicked is tried again.
        for name in ["one", "two"] {
            subject.wait_status(name, "Running", 30);
        }
    };
    for name in ["one", "two"] {
        subject.power(name, "start").expect("a start");
    }
    again(&mut subject, "count");
    let points = subject.points();
    let first = points.iter().position(|point| point.fails && point.what.contains("cgroup one"));
    let number = first.unwrap_or_else(|| panic!("no start of `one` among {points:?}")) + 1;
    again(&mut subject, &format!("panic:{number}"));
    assert!(subject.log_tail().contains("autostart failed"), "{}", subject.log_tail());
    goes_on(&subject, "a panic of a start that nobody asked for");
}

#[test]
fn a_session_that_panics_fails_and_its_places_are_free_again() {
    let subject = lab();
    subject.power("one", "start").expect("a start");
    let ended = |exec: &Exec| -> Value {
        let ended = exec.ended(&subject, 20);
        assert_eq!(ended["status"], "Failure", "{ended}");
        assert!(ended["err"].as_str().unwrap_or_default().contains("unexpectedly"), "{ended}");
        ended
    };
    subject.arm("panic:1");
    let exec = Exec::start(&subject, "one", &["sleep", "1000"]);
    let lines: Vec<_> = ["0", "1", "2"].iter().map(|name| exec.connect(&subject, name)).collect();
    ended(&exec);
    drop(lines);
    goes_on(&subject, "a panic of a command's session");
    assert_eq!(subject.exec("one", "pidof sleep || echo none").expect("a command"), "none");
    subject.arm("panic:1");
    let console = Exec::console(&subject, "one");
    let line = console.connect(&subject, "0");
    ended(&console);
    drop(line);
    goes_on(&subject, "a panic of a console");
    // Without force: whoever panicked has given the place back.
    let body = json!({ "width": 80, "height": 25, "type": "console" });
    let again = subject.call("POST", "/1.0/instances/one/console", Some(&body)).expect("an answer");
    assert_eq!(again.status, 202, "{}", again.text());
}
