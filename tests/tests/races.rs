//! Many ask for the same thing at once: one is served, the others are told why not, and nothing is left over.

use std::sync::Barrier;

use cabin_tests::subject::Subject;
use cabin_tests::sweep::audited;
use serde_json::{Value, json};

fn lab() -> Subject {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject
}

/// Asks all of them at the same moment.
fn at_once(subject: &Subject, asked: &[(&str, String, Value)]) -> Vec<Result<Value, String>> {
    let start = Barrier::new(asked.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = asked
            .iter()
            .map(|(method, target, body)| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    subject.ask(method, target, body)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    })
}

fn power(name: &str, action: &str) -> (&'static str, String, Value) {
    let body = json!({ "action": action, "force": true, "timeout": 30 });
    ("PUT", format!("/1.0/instances/{name}/state"), body)
}

fn rename(name: &str, new: &str) -> (&'static str, String, Value) {
    ("POST", format!("/1.0/instances/{name}"), json!({ "name": new }))
}

fn delete(name: &str) -> (&'static str, String, Value) {
    ("DELETE", format!("/1.0/instances/{name}"), Value::Null)
}

#[track_caller]
fn clean(subject: &Subject) {
    let found = audited(subject);
    assert!(found.is_empty(), "{found:?}\n{}", subject.log_tail());
}

/// Every failure must say what is wrong with the asking, not that the host broke.
#[track_caller]
fn told_why(results: &[Result<Value, String>]) {
    let words = ["already", "not found", "running", "stopped", "is not", "in use", "busy", "changed"];
    for why in results.iter().filter_map(|result| result.as_ref().err()) {
        assert!(words.iter().any(|word| why.contains(word)), "no clear word: {why}");
        assert!(!why.starts_with("500"), "the host's fault? {why}");
    }
}

#[test]
fn of_fifty_who_create_one_name_one_wins() {
    let subject = lab();
    let body = json!({ "name": "wanted", "source": { "type": "image", "alias": "busybox" } });
    let asked: Vec<_> = (0..50).map(|_| ("POST", "/1.0/instances".to_owned(), body.clone())).collect();
    let results = at_once(&subject, &asked);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    told_why(&results);
    assert_eq!(subject.get("/1.0/instances").as_array().map(Vec::len), Some(1));
    clean(&subject);
}

#[test]
fn of_many_who_make_one_network_pool_or_profile_one_wins() {
    let subject = lab();
    let network = json!({ "name": "one0", "type": "bridge",
        "config": { "ipv4.address": "10.213.90.1/24", "ipv6.address": "none" } });
    let pool = json!({ "name": "one", "driver": "dir", "config": {} });
    let profile = json!({ "name": "one", "config": {}, "devices": {} });
    for (target, body) in
        [("/1.0/networks", network), ("/1.0/storage-pools", pool), ("/1.0/profiles", profile)]
    {
        let asked: Vec<_> = (0..8).map(|_| ("POST", target.to_owned(), body.clone())).collect();
        let results = at_once(&subject, &asked);
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{target}: {results:?}");
        told_why(&results);
        let name = body["name"].as_str().unwrap_or_default();
        let asked: Vec<_> = (0..4).map(|_| ("DELETE", format!("{target}/{name}"), Value::Null)).collect();
        let results = at_once(&subject, &asked);
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{target}: {results:?}");
        told_why(&results);
    }
    clean(&subject);
}

#[test]
fn of_start_and_delete_one_wins() {
    let subject = lab();
    for _ in 0..8 {
        subject.create("torn", &json!({}));
        let results = at_once(&subject, &[power("torn", "start"), delete("torn")]);
        told_why(&results);
        let (started, deleted) = (results[0].is_ok(), results[1].is_ok());
        assert!(started != deleted, "{results:?}");
        assert_eq!(subject.status("torn"), if started { "Running" } else { "" });
        clean(&subject);
        if started {
            subject.power("torn", "stop").expect("a stop");
            subject.must("DELETE", "/1.0/instances/torn", &Value::Null);
        }
    }
}

#[test]
fn of_two_deletes_one_wins() {
    let subject = lab();
    for _ in 0..8 {
        subject.create("torn", &json!({}));
        let results = at_once(&subject, &[delete("torn"), delete("torn"), delete("torn")]);
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        told_why(&results);
        clean(&subject);
    }
}

#[test]
fn of_rename_and_start_both_can_be_but_nothing_is_torn() {
    let subject = lab();
    for _ in 0..8 {
        subject.create("old", &json!({}));
        let results = at_once(&subject, &[rename("old", "new"), power("old", "start")]);
        told_why(&results);
        let (renamed, started) = (results[0].is_ok(), results[1].is_ok());
        assert!(renamed != started, "{results:?}");
        let name = if renamed { "new" } else { "old" };
        assert_eq!(subject.status(name), if started { "Running" } else { "Stopped" });
        clean(&subject);
        if started {
            subject.power(name, "stop").expect("a stop");
        }
        subject.must("DELETE", &format!("/1.0/instances/{name}"), &Value::Null);
    }
}

#[test]
fn of_two_renames_to_each_others_name_none_is_lost() {
    let subject = lab();
    for _ in 0..4 {
        subject.create("left", &json!({}));
        subject.create("right", &json!({}));
        let results = at_once(&subject, &[rename("left", "right"), rename("right", "left")]);
        told_why(&results);
        assert_eq!(subject.get("/1.0/instances").as_array().map(Vec::len), Some(2));
        clean(&subject);
        for url in subject.get("/1.0/instances").as_array().into_iter().flatten() {
            subject.must("DELETE", url.as_str().unwrap_or_default(), &Value::Null);
        }
    }
}

#[test]
fn a_command_that_a_stop_overtakes_ends() {
    let subject = lab();
    for _ in 0..6 {
        subject.create("torn", &json!({}));
        subject.power("torn", "start").expect("a start");
        let command = json!({ "command": ["sleep", "1000"], "record-output": true,
            "wait-for-websocket": false, "interactive": false });
        let exec = ("POST", "/1.0/instances/torn/exec".to_owned(), command);
        let results = at_once(&subject, &[power("torn", "stop"), exec]);
        assert!(results[0].is_ok(), "{results:?}");
        if let Ok(ended) = &results[1] {
            assert_ne!(ended["metadata"]["return"], 0, "{ended}");
        }
        assert_eq!(subject.status("torn"), "Stopped");
        clean(&subject);
        subject.must("DELETE", "/1.0/instances/torn", &Value::Null);
    }
}

#[test]
fn many_different_changes_at_once_come_to_an_end() {
    let subject = lab();
    let names: Vec<String> = (0..6).map(|number| format!("box-{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let subject = &subject;
            scope.spawn(move || {
                subject.create(name, &json!({}));
                for _ in 0..2 {
                    subject.power(name, "start").expect("a start");
                    subject.exec(name, "true").expect("a command");
                    subject.power(name, "restart").expect("a restart");
                    subject.power(name, "stop").expect("a stop");
                }
                let new = format!("{name}-x");
                subject.must("POST", &format!("/1.0/instances/{name}"), &json!({ "name": new }));
                subject.must("DELETE", &format!("/1.0/instances/{new}"), &Value::Null);
            });
        }
    });
    clean(&subject);
}
