//! What listeners are told: the lines of the log, and what was read or deleted.

use cabin_tests::lab::Lab;
use cabin_tests::monitor::Monitor;
use cabin_tests::wait::until;
use serde_json::{Value, json};

/// An operation that fails, about which the daemon warns.
fn fail(lab: &Lab, name: &str) {
    let body = json!({ "command": ["no-such-program"], "record-output": true });
    assert_eq!(lab.operate("POST", &format!("/1.0/instances/{name}/exec"), &body)["status"], "Failure");
}

#[test]
fn the_log_is_heard_by_who_listens_to_it() {
    let lab = Lab::shared();
    lab.busybox("logged");
    let monitor = Monitor::start(&lab, &["--type", "logging"]);
    let mut heard: Vec<Value> = Vec::new();
    let warned = until("the warning, and what is quieter than the daemon's own log", 20, || {
        fail(&lab, "logged");
        heard.extend(monitor.heard());
        heard.iter().find(|event| event["metadata"]["level"] == "debug")?;
        heard.iter().find(|event| event["metadata"]["message"] == "operation failed").cloned()
    });
    assert_eq!((&warned["type"], &warned["metadata"]["level"]), (&json!("logging"), &json!("warning")));
    let context = &warned["metadata"]["context"];
    assert_eq!(context["doing"], "Executing command", "{warned}");
    assert!(context["error"].as_str().unwrap().contains("no-such-program"), "{warned}");
    assert!(heard.iter().all(|event| event["type"] == "logging"), "{heard:?}");
    lab.cabin(&["delete", "-f", "logged"]).ok();
}

#[test]
fn a_listener_to_warnings_hears_nothing_quieter() {
    let lab = Lab::shared();
    lab.busybox("quiet");
    let monitor = Monitor::start(&lab, &["--type", "logging", "--loglevel", "warning"]);
    let heard = until("a warning", 20, || {
        fail(&lab, "quiet");
        Some(monitor.heard()).filter(|heard| !heard.is_empty())
    });
    assert!(heard.iter().all(|event| event["metadata"]["level"] == "warning"), "{heard:?}");
    lab.cabin(&["delete", "-f", "quiet"]).ok();
}

#[test]
fn what_is_read_or_forgotten_of_an_instance_or_volume_is_told() {
    let lab = Lab::shared();
    lab.busybox("read");
    lab.cabin(&["storage", "volume", "create", "default", "read"]).ok();
    let body = json!({ "command": ["echo", "kept"], "record-output": true });
    let done = lab.operate("POST", "/1.0/instances/read/exec", &body);
    let output = done["metadata"]["output"]["1"].as_str().unwrap().to_owned();
    let volume = "/1.0/storage-pools/default/volumes/custom/read";
    for of in ["/1.0/instances/read", volume] {
        let made = lab.operate("POST", &format!("{of}/backups"), &json!({ "name": "b" }));
        assert_eq!(made["status"], "Success", "{made}");
    }
    let monitor = Monitor::of_lifecycle(&lab);
    for (method, target) in [
        ("GET", "/1.0/instances/read/console"),
        ("DELETE", "/1.0/instances/read/console"),
        ("GET", output.as_str()),
        ("DELETE", output.as_str()),
        ("GET", "/1.0/instances/read/logs/lxc.log"),
        ("DELETE", "/1.0/instances/read/logs/lxc.log"),
        ("GET", "/1.0/instances/read/backups/b/export"),
        ("GET", &format!("{volume}/backups/b/export")),
    ] {
        assert_eq!(lab.call(method, target, None).status, 200, "{method} {target}");
    }
    let told = monitor.wait_for(&[
        "instance-console-retrieved",
        "instance-console-reset",
        "instance-log-retrieved",
        "instance-log-deleted",
        "instance-log-retrieved",
        "instance-log-deleted",
        "instance-backup-retrieved",
        "storage-volume-backup-retrieved",
    ]);
    let sources: Vec<&str> = told.iter().map(|life| life["source"].as_str().unwrap()).collect();
    assert_eq!((sources[0], sources[3]), ("/1.0/instances/read", output.as_str()));
    assert_eq!(
        (sources[4], sources[6]),
        ("/1.0/instances/read/logs/lxc.log", "/1.0/instances/read/backups/b")
    );
    assert_eq!(sources[7], format!("{volume}/backups/b"));
    assert!(told.iter().all(|life| life["requestor"]["username"] == "root"), "{told:?}");
    lab.cabin(&["delete", "-f", "read"]).ok();
    lab.cabin(&["storage", "volume", "delete", "default", "read"]).ok();
}
