//! The daemon dies in the middle of a change, and the pool is not there when the next one starts: the change stays noted,
//! and is finished or taken back once the pool is back.

use cabin_tests::api;
use cabin_tests::content;
use cabin_tests::far::Far;
use cabin_tests::subject::Subject;
use cabin_tests::sweep::{Tally, audited};
use cabin_tests::verbs::Attempt;
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

/// Where the volume lies that goes back together with the instance.
fn volume(pool: &str) -> String {
    format!("/1.0/storage-pools/{pool}/volumes/custom/v")
}

/// Writes the file by which the volume tells its trees apart, as a client does.
fn write(subject: &Subject, pool: &str, word: &str) -> Result<(), String> {
    let target = format!("{}/files?path=/note", volume(pool));
    let headers = [("X-Incus-type", "file"), ("X-Incus-mode", "0644")];
    let reply = api::send(&subject.socket(), "POST", &target, &headers, word.as_bytes()).expect("an answer");
    if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
}

fn read(subject: &Subject, pool: &str) -> String {
    subject.call("GET", &format!("{}/files?path=/note", volume(pool)), None).expect("an answer").text()
}

/// Stopped instances with the same volume, of which one has a snapshot together with it from before both were changed.
fn pair(subject: &Subject, own: &str, pool: &str) {
    subject.must("POST", &format!("/1.0/storage-pools/{pool}/volumes/custom"), &json!({ "name": "v" }));
    let data = json!({ "type": "disk", "pool": pool, "source": "v", "path": "/srv" });
    for (name, pool) in [("it", own), ("other", "default")] {
        let root = json!({ "type": "disk", "path": "/", "pool": pool });
        let source = json!({ "type": "image", "alias": "busybox" });
        let devices = json!({ "root": root, "data": data });
        subject.must(
            "POST",
            "/1.0/instances",
            &json!({ "name": name, "source": source, "devices": devices }),
        );
    }
    for note in ["one", "two"] {
        write(subject, pool, note).expect("a note");
        subject.must("PATCH", "/1.0/instances/it", &json!({ "config": { "user.note": note } }));
        if note == "one" {
            let body = json!({ "name": "s", "volumes": true });
            subject.must("POST", "/1.0/instances/it/snapshots", &body);
        }
    }
}

/// Lets the daemon die at each step of the restoring of an instance with its volume, in these pools, and start again
/// while the pool `far` is away; what `then` says of it is wrong.
fn at_each_death(
    what: &str,
    (own, pool): (&str, &str),
    before: impl Fn(&Subject),
    then: impl Fn(&mut Subject, &Far) -> Vec<String>,
) {
    let mut subject = Subject::start();
    subject.import("busybox").expect("the image");
    let far = Far::make(&subject);
    let mut tally = Tally::default();
    for number in 1.. {
        pair(&subject, own, pool);
        before(&subject);
        subject.arm(&format!("kill:{number}"));
        let _ = subject.ask("PUT", "/1.0/instances/it", &json!({ "restore": "s", "volumes": true }));
        let survived = subject.disarm();
        if !survived {
            subject.wait_gone();
            tally.points += 1;
            far.goes();
            subject.boot_well();
            let mut wrong = then(&mut subject, &far);
            wrong.extend(audited(&subject));
            tally.wrong.extend(wrong.into_iter().map(|it| format!("step {number}: {it}")));
        }
        clear(&subject, &["it", "other"]);
        let _ = subject.ask("DELETE", &volume(pool), &json!({}));
        if survived {
            break;
        }
    }
    far.end(&subject);
    tally.close(what);
}

/// What the config of `it` says: its row is read without its pool.
fn restored(subject: &Subject) -> String {
    subject.get("/1.0/instances/it")["config"]["user.note"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn in_a_volume_of_an_unfinished_restoring_nobody_writes_what_is_lost_when_it_is_decided() {
    let stopped: fn(&Subject) = |_| ();
    for before in [stopped, |subject| drop(subject.power("it", "start").expect("a start"))] {
        at_each_death("volumes of undecided restorings", ("far", "default"), before, written_meanwhile);
    }
}

/// What is wrong with what others write in the volume while it is not decided.
fn written_meanwhile(subject: &mut Subject, far: &Far) -> Vec<String> {
    let mut written = "";
    if subject.power("other", "start").is_ok() {
        written = "inside";
        subject.exec("other", "printf inside >/srv/note").expect("a note");
        subject.power("other", "stop").expect("a stop");
    }
    if write(subject, "default", "outside").is_ok() {
        written = "outside";
    }
    far.comes(subject);
    subject.must("PATCH", "/1.0/instances/it", &json!({ "description": "seen" }));
    let is = read(subject, "default");
    let wanted = if written.is_empty() { restored(subject) } else { written.to_owned() };
    let mut wrong = Vec::new();
    if is != wanted {
        wrong.push(format!("the volume says {is} and not {wanted}"));
    }
    wrong.extend(subject.power("other", "start").err());
    // It may run: from before, or again.
    let _ = subject.power("it", "start");
    wrong.extend(subject.power("it", "stop").err());
    wrong
}

#[test]
fn an_instance_deleted_with_its_restoring_undone_leaves_its_volumes_as_they_were() {
    for (own, pool) in [("far", "default"), ("default", "far")] {
        at_each_death(
            "deletions in the middle of restorings",
            (own, pool),
            |_| (),
            |subject, far| {
                let wanted = restored(subject);
                // The tree cannot be removed when its pool is away.
                let _ = subject.ask("DELETE", "/1.0/instances/it", &json!({}));
                let mut wrong = Vec::new();
                if !subject.status("it").is_empty() {
                    wrong.push("it is not deleted".to_owned());
                }
                far.comes(subject);
                for time in ["now", "after another start"] {
                    wrong.extend(subject.power("other", "start").err());
                    let is = subject.exec("other", "cat /srv/note").unwrap_or_else(|why| why);
                    if is != wanted {
                        wrong.push(format!("{time} the volume says {is} and not {wanted}"));
                    }
                    subject.power("other", "stop").expect("a stop");
                    // With it go the ids of what could not be removed.
                    subject.terminate();
                    subject.boot_well();
                }
                wrong
            },
        );
    }
}

/// What leaves something in a pool when the daemon dies at it, and where it is seen when it was done.
type Made = (&'static str, fn(&Subject) -> Attempt, &'static str);

const MADE: [Made; 4] = [
    (
        "an instance",
        |subject| {
            let root = json!({ "root": { "type": "disk", "path": "/", "pool": "far" } });
            let source = json!({ "type": "image", "alias": "busybox" });
            subject.ask(
                "POST",
                "/1.0/instances",
                &json!({ "name": "new", "source": source, "devices": root }),
            )
        },
        "/1.0/instances/new",
    ),
    (
        "a snapshot",
        |subject| subject.ask("POST", "/1.0/instances/it/snapshots", &json!({ "name": "new" })),
        "/1.0/instances/it/snapshots/new",
    ),
    (
        "a volume",
        |subject| subject.ask("POST", "/1.0/storage-pools/far/volumes/custom", &json!({ "name": "new" })),
        "/1.0/storage-pools/far/volumes/custom/new",
    ),
    (
        "a volume's snapshot",
        |subject| subject.ask("POST", &format!("{}/snapshots", volume("far")), &json!({ "name": "new" })),
        "/1.0/storage-pools/far/volumes/custom/v/snapshots/new",
    ),
];

#[test]
fn what_a_dead_daemon_left_in_a_pool_that_comes_late_goes_when_it_comes() {
    let mut subject = Subject::start();
    subject.import("busybox").expect("the image");
    let far = Far::make(&subject);
    pair(&subject, "far", "far");
    let mut tally = Tally::default();
    for (what, make, target) in MADE {
        for number in 1.. {
            subject.arm(&format!("kill:{number}"));
            let _ = make(&subject);
            let survived = subject.disarm();
            if !survived {
                subject.wait_gone();
                tally.points += 1;
                far.goes();
                subject.boot_well();
                far.comes(&subject);
                let there = subject.call("GET", target, None).expect("an answer").status == 200;
                let mut wrong: Vec<String> =
                    if there { None } else { make(&subject).err() }.into_iter().collect();
                wrong.extend(audited(&subject));
                tally.wrong.extend(wrong.into_iter().map(|it| format!("{what}, step {number}: {it}")));
            }
            let _ = subject.ask("DELETE", target, &json!({}));
            if survived {
                break;
            }
        }
    }
    // An image that was deleted while nobody could remove its tree.
    clear(&subject, &["it", "other"]);
    subject.must("DELETE", &volume("far"), &json!({}));
    subject.terminate();
    far.goes();
    subject.boot_well();
    let images = subject.get("/1.0/images");
    subject.must("DELETE", images[0].as_str().expect("an image"), &json!({}));
    far.comes(&subject);
    tally.wrong.extend(audited(&subject));
    far.end(&subject);
    tally.close("deaths in a pool that comes late");
}
