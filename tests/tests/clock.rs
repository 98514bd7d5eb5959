//! A host's clock that is set, forward and back: nothing is deleted because of it, nothing else notices.

use cabin_tests::subject::Subject;
use cabin_tests::sweep::audited;
use cabin_tests::wait::until_true;
use serde_json::{Value, json};

const DAY: i64 = 86_400;

fn set(subject: &Subject, ahead: i64) {
    subject.must("PUT", "/internal/clock", &json!({ "ahead": ahead }));
}

fn clock_warning(subject: &Subject) -> Option<String> {
    let all = subject.get("/1.0/warnings?recursion=1");
    let found = all.as_array()?.iter().find(|it| it["type"] == "Clock was set")?.clone();
    Some(found["status"].as_str()?.to_owned())
}

#[test]
fn a_clock_that_jumps_deletes_nothing_and_loses_nothing() {
    let mut subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject.create("box", &json!({ "snapshots.expiry": "1d" }));
    subject.power("box", "start").expect("a start");
    subject.must("POST", "/1.0/instances/box/snapshots", &json!({ "name": "kept" }));
    let snapshots = |subject: &Subject| subject.get("/1.0/instances/box/snapshots").as_array().map(Vec::len);
    let (init, address) = (subject.init_pid("box"), subject.wait_address("box", 20));
    set(&subject, 0);
    assert_eq!(clock_warning(&subject), None);

    for ahead in [400 * DAY, -20_000 * DAY, 3 * DAY, 0] {
        set(&subject, ahead);
        assert_eq!(snapshots(&subject), Some(1), "with the clock {ahead} s ahead");
        assert_eq!(clock_warning(&subject).as_deref(), Some("new"));
        assert_eq!(subject.init_pid("box"), init);
        assert_eq!(subject.wait_address("box", 5), address);
        assert_eq!(subject.exec("box", "echo well").as_deref(), Ok("well"));
        let name = format!("at{}", ahead / DAY).replace('-', "m");
        subject.must("POST", "/1.0/instances/box/snapshots", &json!({ "name": name }));
        let made = subject.get(&format!("/1.0/instances/box/snapshots/{name}"));
        let time = |key: &str| made[key].as_str().expect("a time").to_owned();
        assert!(time("expires_at") > time("created_at"), "it goes before it was made: {made}");
        subject.must("DELETE", &format!("/1.0/instances/box/snapshots/{name}"), &Value::Null);
        // What waits, waits for as long as ever.
        let body = json!({ "command": ["sleep", "60"], "record-output": false, "wait-for-websocket": false });
        let reply = subject.call("POST", "/1.0/instances/box/exec", Some(&body)).expect("an answer");
        let id = reply.json()["operation"].as_str().expect("an operation").to_owned();
        set(&subject, ahead + 30 * DAY);
        let since = std::time::Instant::now();
        let waited = subject.get(&format!("{id}/wait?timeout=1"));
        assert_eq!(waited["status"], "Running", "{waited}");
        assert!((1..20).contains(&since.elapsed().as_secs()), "waited {:?}", since.elapsed());
        subject.exec("box", "killall sleep").expect("a command");
    }
    subject.crash();
    subject.boot_well();
    assert_eq!(snapshots(&subject), Some(1));
    until_true("the container to run", 10, || subject.status("box") == "Running");
    let found = audited(&subject);
    eprintln!("clock: 4 harms, {} leftovers", found.len());
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_schedule_goes_on_when_the_clock_was_set_back() {
    const VOLUMES: &str = "/1.0/storage-pools/default/volumes/custom";
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    let scheduled = json!({
        "snapshots.schedule": "0 0 1 1 *", "snapshots.schedule.stopped": "true", "snapshots.pattern": "auto",
    });
    subject.create("box", &scheduled);
    let config = json!({ "snapshots.schedule": "0 0 1 1 *", "snapshots.pattern": "auto" });
    subject.must("POST", VOLUMES, &json!({ "name": "data", "config": config }));
    let of = ["/1.0/instances/box/snapshots".to_owned(), format!("{VOLUMES}/data/snapshots")];
    // In 2108, as the clock says.
    set(&subject, 30_000 * DAY);
    for snapshots in &of {
        subject.must("POST", snapshots, &json!({ "name": "ahead" }));
    }
    set(&subject, 0);
    let through = ["2099-12-31T23:50:00Z", "2100-01-01T00:10:00Z"];
    subject.must("PUT", "/internal/clock", &json!({ "through": through }));
    for snapshots in &of {
        let reply = subject.call("GET", &format!("{snapshots}/auto"), None).expect("an answer");
        assert_eq!(reply.status, 200, "{snapshots}: what was due was not taken: {}", reply.text());
    }
    eprintln!("clock: 2 harms, {} leftovers", audited(&subject).len());
}
