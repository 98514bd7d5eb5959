//! The daemon dies in the middle of a change, and the pool is not there when the next one starts: the change stays noted,
//! and is finished or taken back once the pool is back.

use cabin_tests::content;
use cabin_tests::subject::Subject;
use cabin_tests::sweep::{Tally, audited};
use serde_json::json;

/// What is done in a pool, what is done while it is away, how the instance may be called afterwards.
type Cut = (&'static str, fn(&Subject), fn(&Subject), &'static [&'static str]);

#[test]
fn what_a_dead_daemon_left_undone_in_a_pool_that_is_away_is_finished_when_it_is_back() {
    let restore =
        |subject: &Subject| drop(subject.ask("PUT", "/1.0/instances/it", &json!({ "restore": "s" })));
    let rename =
        |subject: &Subject| drop(subject.ask("POST", "/1.0/instances/it", &json!({ "name": "new" })));
    // The snapshot names it, and the instance too when it was restored already: then it stays.
    let without_profile = |subject: &Subject| drop(subject.ask("DELETE", "/1.0/profiles/then", &json!({})));
    let cuts: [Cut; 3] = [
        ("restore", restore, |_| (), &["it"]),
        ("restore of what cannot be any more", restore, without_profile, &["it"]),
        ("rename", rename, |_| (), &["it", "new"]),
    ];
    let mut subject = Subject::start();
    subject.import("busybox").expect("the image");
    let place = subject.dir.with_extension("far");
    let away = subject.dir.with_extension("away");
    std::fs::create_dir(&place).expect("a directory");
    let pool = json!({ "name": "far", "driver": "dir", "config": { "source": place } });
    subject.must("POST", "/1.0/storage-pools", &pool);
    let mut tally = Tally::default();
    for (verb, act, meanwhile, names) in cuts {
        for number in 1.. {
            one_of_each(&subject);
            subject.arm(&format!("kill:{number}"));
            act(&subject);
            if subject.disarm() {
                clear(&subject, names);
                break;
            }
            subject.wait_gone();
            tally.points += 1;
            std::fs::rename(&place, &away).expect("the pool goes away");
            subject.boot_well();
            meanwhile(&subject);
            std::fs::rename(&away, &place).expect("the pool comes back");
            // Whoever changes it first has it finished.
            let is_there =
                |name: &&&str| subject.get("/1.0/instances").to_string().contains(&format!("/{name}\""));
            let name = names.iter().find(is_there).expect("one of the names");
            let target = format!("/1.0/instances/{name}");
            subject.must("PATCH", &target, &json!({ "description": "seen" }));
            let note = subject.get(&target)["config"]["user.note"].clone();
            subject.power(name, "start").expect("a start");
            let file = subject.exec(name, "cat /root/note").expect("the file");
            if note != file {
                tally
                    .wrong
                    .push(format!("{verb}, step {number}: its files say {file}, its config says {note}"));
            }
            tally
                .wrong
                .extend(audited(&subject).into_iter().map(|it| format!("{verb}, step {number}: {it}")));
            clear(&subject, names);
        }
    }
    subject.must("DELETE", "/1.0/storage-pools/far", &json!({}));
    std::fs::remove_dir_all(&place).expect("the place is ours");
    tally.close("deaths in a pool that is away then");
}

/// An instance whose files and config are of one mind, and differ from its snapshot's.
fn one_of_each(subject: &Subject) {
    if !subject.get("/1.0/profiles").to_string().contains("/then\"") {
        subject.must("POST", "/1.0/profiles", &json!({ "name": "then" }));
    }
    let root = json!({ "root": { "type": "disk", "path": "/", "pool": "far" } });
    let source = json!({ "type": "image", "alias": "busybox" });
    subject.must("POST", "/1.0/instances", &json!({ "name": "it", "source": source, "devices": root }));
    for note in ["one", "two"] {
        let profiles = if note == "one" { vec!["default", "then"] } else { vec!["default"] };
        let now = json!({ "config": { "user.note": note }, "profiles": profiles });
        subject.must("PATCH", "/1.0/instances/it", &now);
        subject.power("it", "start").expect("a start");
        subject.exec("it", &format!("mkdir -p /root; printf {note} >/root/note")).expect("a note");
        subject.must("PUT", "/1.0/instances/it/state", &json!({ "action": "stop", "force": true }));
        if note == "one" {
            subject.must("POST", "/1.0/instances/it/snapshots", &json!({ "name": "s" }));
        }
    }
}

fn clear(subject: &Subject, names: &[&str]) {
    for name in names {
        let target = format!("/1.0/instances/{name}?force=true");
        let _ = subject.ask("DELETE", &target, &json!({}));
    }
}

const COPY: &str = "/1.0/instances/copy";

/// A copy in the pool `far`, and its source, which has gone on: another tree, another snapshot of one name, one more.
fn behind(subject: &Subject) {
    subject.create("source", &json!({}));
    take(subject, "source", "s", "old");
    copy(subject, false).expect("a copy");
    content::write_in(subject, "far/containers/copy", "old");
    subject.must("DELETE", "/1.0/instances/source/snapshots/s", &json!({}));
    take(subject, "source", "s", "new");
    take(subject, "source", "more", "new");
}

fn take(subject: &Subject, name: &str, snapshot: &str, what: &str) {
    content::write(subject, name, what);
    subject.must("POST", &format!("/1.0/instances/{name}/snapshots"), &json!({ "name": snapshot }));
}

fn copy(subject: &Subject, refresh: bool) -> Result<serde_json::Value, String> {
    let root = json!({ "root": { "type": "disk", "path": "/", "pool": "far" } });
    let source = json!({ "type": "copy", "source": "source", "refresh": refresh });
    subject.ask("POST", "/1.0/instances", &json!({ "name": "copy", "source": source, "devices": root }))
}

/// What the copy is now: its tree, and each snapshot with the tree it brings back.
fn seen(subject: &Subject) -> Vec<String> {
    let tree = || {
        let path = format!("{COPY}/files?path=/which-tree");
        subject.call("GET", &path, None).expect("an answer").text()
    };
    let mut seen = vec![tree()];
    for snapshot in ["s", "more"] {
        if subject.ask("PUT", COPY, &json!({ "restore": snapshot })).is_ok() {
            seen.push(format!("{snapshot}: {}", tree()));
        }
    }
    seen
}

#[test]
fn a_refresh_that_is_finished_when_its_source_has_gone_leaves_the_old_or_the_new() {
    let mut subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject.must("POST", "/1.0/storage-pools", &json!({ "name": "far", "driver": "dir" }));
    let (place, away) = (subject.dir.join("storage-pools/far"), subject.dir.join("away"));
    let mut tally = Tally::default();
    for number in 1.. {
        behind(&subject);
        subject.arm(&format!("kill:{number}"));
        let _ = copy(&subject, true);
        if subject.disarm() {
            assert_eq!(seen(&subject), ["new", "s: new", "more: new"], "when nothing happens");
            break;
        }
        subject.wait_gone();
        tally.points += 1;
        std::fs::rename(&place, &away).expect("the pool goes away");
        subject.boot_well();
        subject.must("DELETE", "/1.0/instances/source", &json!({}));
        std::fs::rename(&away, &place).expect("the pool comes back");
        // Whoever changes it first has it finished.
        let finished = subject.ask("PATCH", COPY, &json!({ "description": "seen" }));
        let seen = seen(&subject);
        let whole: [&[&str]; 2] = [&["old", "s: old"], &["new", "s: new", "more: new"]];
        if finished.is_err() || !whole.iter().any(|whole| seen == *whole) {
            tally.wrong.push(format!("step {number}: {seen:?}, {finished:?}"));
        }
        // A snapshot that did not come has left nothing that were in another's way.
        if seen.first().is_some_and(|tree| tree == "old") {
            subject.must("POST", &format!("{COPY}/snapshots"), &json!({ "name": "more" }));
        }
        // What a refresh that was done left behind goes with the next start.
        subject.terminate();
        subject.boot_well();
        tally.wrong.extend(audited(&subject).into_iter().map(|it| format!("step {number}: {it}")));
        subject.must("DELETE", COPY, &json!({}));
    }
    tally.close("deaths in a refresh whose source goes then");
}
