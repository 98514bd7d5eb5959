//! Many ask for the same thing at once, or for things that exclude each other: one is served, the others are told
//! why not, and nothing is torn or left over. CABIN_TORTURE multiplies the rounds.

use cabin_tests::race::{
    Answer, Asked, Race, Score, at_once, done, of_busybox, one_wins, rounds, so, there, urls,
};
use cabin_tests::subject::Subject;
use cabin_tests::sweep::audited;
use cabin_tests::{audit, images};
use serde_json::{Value, json};

fn lab() -> Subject {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject
}

fn power(name: &str, action: &str) -> Asked {
    let body = json!({ "action": action, "force": true, "timeout": 30 });
    Asked::new("PUT", format!("/1.0/instances/{name}/state"), body)
}

fn rename(name: &str, new: &str) -> Asked {
    Asked::new("POST", format!("/1.0/instances/{name}"), json!({ "name": new }))
}

fn delete(target: &str) -> Asked {
    Asked::new("DELETE", target, Value::Null)
}

fn create(body: Value) -> Asked {
    Asked::new("POST", "/1.0/instances", body)
}

fn copy(of: &str, name: &str) -> Asked {
    create(json!({ "name": name, "source": { "type": "copy", "source": of } }))
}

fn take(of: &str, name: &str) -> Asked {
    Asked::new("POST", format!("/1.0/instances/{of}/snapshots"), json!({ "name": name }))
}

fn restore(of: &str, name: &str) -> Asked {
    Asked::new("PUT", format!("/1.0/instances/{of}"), json!({ "restore": name }))
}

/// The busybox image, uploaded as `cabin image import` does.
fn import() -> Asked {
    let file = images::files("busybox").remove(0);
    let bytes = std::fs::read(file).expect("the built image");
    Asked::upload("/1.0/images", bytes).with("X-Incus-aliases", "alias=busybox")
}

fn nothing(_: &Subject) {}

fn with_image(subject: &Subject) {
    if !there(subject, "/1.0/images/aliases/busybox") {
        without_image(subject);
        subject.import("busybox").expect("the image");
    }
}

fn without_image(subject: &Subject) {
    for url in urls(subject, "/1.0/images") {
        subject.must("DELETE", &url, &Value::Null);
    }
}

fn one(subject: &Subject) {
    subject.create("one", &json!({}));
}

fn one_running(subject: &Subject) {
    one(subject);
    subject.power("one", "start").expect("a start");
}

/// With a snapshot that a change was made after.
fn one_with_snapshot(subject: &Subject) {
    one(subject);
    subject.must("POST", "/1.0/instances/one/snapshots", &json!({ "name": "s" }));
    subject.must("PATCH", "/1.0/instances/one", &json!({ "config": { "user.note": "new" } }));
}

fn two(subject: &Subject) {
    one(subject);
    subject.create("other", &json!({}));
}

fn snapshots(subject: &Subject, of: &str) -> Vec<String> {
    let found = urls(subject, &format!("/1.0/instances/{of}/snapshots"));
    found.iter().filter_map(|url| Some(url.rsplit('/').next()?.to_owned())).collect()
}

fn instances(subject: &Subject) -> usize {
    urls(subject, "/1.0/instances").len()
}

/// Those in which a name can be given once.
const NAMES: &[Race] = &[
    Race {
        name: "100 creates of one name",
        before: nothing,
        asked: |_| vec![create(of_busybox("wanted")); 100],
        judge: |subject, answers| {
            one_wins(answers)?;
            so(instances(subject) == 1, "not one instance")
        },
        often: 1,
    },
    Race {
        name: "two renames to one name",
        before: two,
        asked: |_| vec![rename("one", "wanted"), rename("other", "wanted")],
        judge: |subject, answers| {
            one_wins(answers)?;
            let loser = if answers[0].is_done() { "other" } else { "one" };
            so(subject.status("wanted") == "Stopped" && subject.status(loser) == "Stopped", "one is lost")
        },
        often: 2,
    },
    Race {
        name: "two renames to each other's name",
        before: two,
        asked: |_| vec![rename("one", "other"), rename("other", "one")],
        judge: |subject, _| so(instances(subject) == 2, "one is lost"),
        often: 1,
    },
    Race {
        name: "copies and creates of one name",
        before: one,
        asked: |_| {
            vec![copy("one", "twin"), create(of_busybox("twin")), copy("one", "twin"), rename("one", "twin")]
        },
        judge: |subject, answers| {
            one_wins(answers)?;
            so(subject.status("twin") == "Stopped", "the winner is not there")
        },
        often: 2,
    },
    Race {
        name: "snapshots of one name",
        before: one,
        asked: |_| vec![take("one", "s"); 6],
        judge: |subject, answers| {
            one_wins(answers)?;
            so(snapshots(subject, "one") == ["s"], "not one snapshot")
        },
        often: 2,
    },
    Race {
        name: "networks of one name",
        before: nothing,
        asked: |_| {
            let config = json!({ "ipv4.address": "10.213.90.1/24", "ipv6.address": "none" });
            let body = json!({ "name": "race0", "type": "bridge", "config": config });
            vec![Asked::new("POST", "/1.0/networks", body); 6]
        },
        judge: |_, answers| one_wins(answers),
        often: 1,
    },
    Race {
        name: "pools of one name",
        before: nothing,
        asked: |_| {
            let body = json!({ "name": "race", "driver": "dir", "config": {} });
            vec![Asked::new("POST", "/1.0/storage-pools", body); 6]
        },
        judge: |_, answers| one_wins(answers),
        often: 2,
    },
    Race {
        name: "profiles of one name",
        before: nothing,
        asked: |_| {
            let body = json!({ "name": "race", "config": {}, "devices": {} });
            vec![Asked::new("POST", "/1.0/profiles", body); 8]
        },
        judge: |_, answers| one_wins(answers),
        often: 2,
    },
    Race {
        name: "changes of one state",
        before: one,
        asked: |subject| {
            let tag = subject.call("GET", "/1.0/instances/one", None).expect("an answer");
            let tag = tag.header("etag").unwrap_or_default().trim_matches('"').to_owned();
            let change = |number: usize| {
                let body = json!({ "config": { "user.winner": number.to_string() } });
                Asked::new("PATCH", "/1.0/instances/one", body).only_of(&tag)
            };
            (0..8).map(change).collect()
        },
        judge: |subject, answers| {
            one_wins(answers)?;
            let winner = answers.iter().position(Answer::is_done).unwrap_or_default().to_string();
            let kept = subject.get("/1.0/instances/one")["config"]["user.winner"].clone();
            let told = answers.iter().all(|it| it.is_done() || matches!(it, Answer::Refused(412, _)));
            so(kept == winner.as_str() && told, "not the winner's, or a loser hears something else than 412")
        },
        often: 3,
    },
];

/// Those about an instance's life.
const LIVES: &[Race] = &[
    Race {
        name: "start and delete",
        before: one,
        asked: |_| vec![power("one", "start"), delete("/1.0/instances/one")],
        judge: |subject, answers| {
            one_wins(answers)?;
            let status = if answers[0].is_done() { "Running" } else { "" };
            so(subject.status("one") == status, "not as the winner wants it")
        },
        often: 2,
    },
    Race {
        name: "three starts",
        before: one,
        asked: |_| vec![power("one", "start"); 3],
        judge: |subject, answers| {
            so(done(answers) >= 1 && subject.status("one") == "Running", "it does not run")
        },
        often: 1,
    },
    Race {
        name: "three deletes",
        before: one,
        asked: |_| vec![delete("/1.0/instances/one"); 3],
        judge: |_, answers| one_wins(answers),
        often: 2,
    },
    Race {
        name: "start and rename",
        before: one,
        asked: |_| vec![rename("one", "new"), power("one", "start")],
        judge: |subject, answers| {
            one_wins(answers)?;
            let (name, status) = if answers[0].is_done() { ("new", "Stopped") } else { ("one", "Running") };
            so(subject.status(name) == status, "not as the winner wants it")
        },
        often: 2,
    },
    Race {
        name: "stop and exec",
        before: one_running,
        asked: |_| {
            let command = json!({ "command": ["sleep", "1000"], "record-output": true,
                "wait-for-websocket": false, "interactive": false });
            vec![power("one", "stop"), Asked::new("POST", "/1.0/instances/one/exec", command)]
        },
        judge: |subject, answers| {
            so(answers[0].is_done() && subject.status("one") == "Stopped", "it is not stopped")?;
            match &answers[1] {
                Answer::Done(ended) => so(ended["metadata"]["return"] != 0, "the command slept its time"),
                _ => Ok(()),
            }
        },
        often: 2,
    },
    Race {
        name: "stop and file pull",
        before: one_running,
        asked: |_| {
            let pull = || Asked::new("GET", "/1.0/instances/one/files?path=/etc/passwd", Value::Null);
            vec![power("one", "stop"), pull(), pull(), pull()]
        },
        judge: |subject, answers| {
            so(answers[0].is_done() && subject.status("one") == "Stopped", "it is not stopped")
        },
        often: 2,
    },
    Race {
        name: "stop, restart and freeze",
        before: one_running,
        asked: |_| vec![power("one", "stop"), power("one", "restart"), power("one", "freeze")],
        judge: |subject, answers| {
            let status = subject.status("one");
            so(done(answers) >= 1 && ["Running", "Stopped", "Frozen"].contains(&status.as_str()), &status)
        },
        often: 2,
    },
    Race {
        name: "profile edit and start",
        before: |subject| {
            subject.must("POST", "/1.0/profiles", &json!({ "name": "race", "config": {}, "devices": {} }));
            let mut body = of_busybox("one");
            body["profiles"] = json!(["default", "race"]);
            subject.must("POST", "/1.0/instances", &body);
        },
        asked: |_| {
            let body = json!({ "config": { "limits.processes": "77" } });
            vec![Asked::new("PATCH", "/1.0/profiles/race", body), power("one", "start")]
        },
        judge: |subject, answers| {
            so(done(answers) == 2, "both can be")?;
            let held: Vec<String> = audit::cgroups(&subject.dir)
                .iter()
                .filter_map(|group| std::fs::read_to_string(group.join("pids.max")).ok())
                .map(|text| text.trim().to_owned())
                .collect();
            so(held == ["77"], &format!("the limit in force is {held:?}"))
        },
        often: 2,
    },
];

/// Those about snapshots and copies.
const COPIES: &[Race] = &[
    Race {
        name: "rename and snapshot",
        before: one,
        asked: |_| vec![rename("one", "new"), take("one", "s")],
        judge: |subject, answers| {
            so(answers[0].is_done() && subject.status("new") == "Stopped", "it is not renamed")?;
            let taken = snapshots(subject, "new");
            so(taken.len() == usize::from(answers[1].is_done()), &format!("it has {taken:?}"))
        },
        often: 2,
    },
    Race {
        name: "restore and start",
        before: one_with_snapshot,
        asked: |_| vec![restore("one", "s"), power("one", "start")],
        judge: |subject, answers| {
            so(answers[1].is_done() && subject.status("one") == "Running", "it does not run")?;
            let note = subject.get("/1.0/instances/one")["config"]["user.note"].clone();
            so(note.is_null() == answers[0].is_done(), &format!("its note is {note}"))?;
            so(subject.exec("one", "true").is_ok(), "no command runs in it")
        },
        often: 2,
    },
    Race {
        name: "restore and delete of a snapshot",
        before: one_with_snapshot,
        asked: |_| vec![restore("one", "s"), delete("/1.0/instances/one/snapshots/s")],
        judge: |subject, answers| {
            so(answers[1].is_done() && snapshots(subject, "one").is_empty(), "the snapshot is there")?;
            let note = subject.get("/1.0/instances/one")["config"]["user.note"].clone();
            so(note.is_null() == answers[0].is_done(), &format!("its note is {note}"))
        },
        often: 2,
    },
    Race {
        name: "delete and copy",
        before: one_with_snapshot,
        asked: |_| vec![delete("/1.0/instances/one"), copy("one", "twin")],
        judge: |subject, answers| {
            so(answers[0].is_done() && subject.status("one").is_empty(), "it is not deleted")?;
            let twin = subject.status("twin");
            so(answers[1].is_done() != twin.is_empty(), "the copy is not as was said")?;
            so(twin.is_empty() || subject.power("twin", "start").is_ok(), "the copy does not start")
        },
        often: 2,
    },
    Race {
        name: "delete and snapshot",
        before: one,
        asked: |_| vec![delete("/1.0/instances/one"), take("one", "s")],
        judge: |subject, answers| {
            so(answers[0].is_done() && subject.status("one").is_empty(), "it is not deleted")
        },
        often: 2,
    },
];

/// Those about what instances stand on.
const GROUNDS: &[Race] = &[
    Race {
        name: "pool delete and create",
        before: |subject| {
            let body = json!({ "name": "race", "driver": "dir", "config": {} });
            subject.must("POST", "/1.0/storage-pools", &body);
        },
        asked: |_| {
            let mut body = of_busybox("one");
            body["devices"] = json!({ "root": { "type": "disk", "path": "/", "pool": "race" } });
            vec![delete("/1.0/storage-pools/race"), create(body)]
        },
        judge: |subject, answers| {
            one_wins(answers)?;
            let made = answers[1].is_done();
            so(there(subject, "/1.0/storage-pools/race") == made, "the pool is not as was said")?;
            so(subject.status("one").is_empty() != made, "the instance is not as was said")
        },
        often: 3,
    },
    Race {
        name: "image delete and launch",
        before: with_image,
        asked: |subject| {
            let url = urls(subject, "/1.0/images").remove(0);
            // By its fingerprint: by its alias it would be built anew.
            let source = json!({ "type": "image", "fingerprint": url.rsplit('/').next() });
            let body = json!({ "name": "one", "source": source, "start": true });
            vec![delete(&url), create(body)]
        },
        judge: |subject, answers| {
            so(answers[0].is_done() && urls(subject, "/1.0/images").is_empty(), "the image is there")?;
            let status = subject.status("one");
            so((status == "Running") == answers[1].is_done(), &format!("the instance is {status}"))?;
            so(status.is_empty() || subject.exec("one", "true").is_ok(), "no command runs in it")
        },
        often: 2,
    },
    Race {
        name: "image delete and rebuild",
        before: |subject| {
            // One that is not unpacked yet, and an instance that does not stand on it.
            without_image(subject);
            with_image(subject);
            subject.must("POST", "/1.0/instances", &json!({ "name": "one", "source": { "type": "none" } }));
        },
        asked: |subject| {
            let url = urls(subject, "/1.0/images").remove(0);
            let source = json!({ "type": "image", "fingerprint": url.rsplit('/').next() });
            let body = json!({ "source": source });
            vec![Asked::new("POST", "/1.0/instances/one/rebuild", body), delete(&url)]
        },
        judge: |subject, answers| {
            so(answers[1].is_done() && urls(subject, "/1.0/images").is_empty(), "the image is there")?;
            if answers[0].is_done() {
                return subject.power("one", "start").map(drop);
            }
            // The auditor takes a tree for one that is kept for somebody when it is marked so.
            let trees = std::fs::read_dir(subject.dir.join("storage-pools/default/images"));
            let trees: Vec<_> = trees.into_iter().flatten().flatten().map(|it| it.path()).collect();
            so(trees.is_empty(), &format!("{trees:?} are left, and nobody stands on them"))
        },
        often: 4,
    },
    Race {
        name: "imports of one image",
        before: without_image,
        asked: |_| vec![import(); 5],
        judge: |subject, answers| {
            one_wins(answers)?;
            so(urls(subject, "/1.0/images").len() == 1, "not one image")?;
            // The loser must not have taken the winner's files away.
            let made = subject.ask("POST", "/1.0/instances", &of_busybox("one"));
            made.map(drop)
        },
        often: 2,
    },
    Race {
        name: "image delete and import",
        before: with_image,
        asked: |subject| vec![delete(&urls(subject, "/1.0/images").remove(0)), import()],
        judge: |subject, answers| {
            so(answers[0].is_done(), "it is not deleted")?;
            let there = urls(subject, "/1.0/images").len() == 1;
            so(there == answers[1].is_done(), "the import is not as was said")?;
            if !there { Ok(()) } else { subject.ask("POST", "/1.0/instances", &of_busybox("one")).map(drop) }
        },
        often: 2,
    },
    Race {
        name: "image delete and alias",
        before: with_image,
        asked: |subject| {
            let url = urls(subject, "/1.0/images").remove(0);
            let body = json!({ "name": "second", "target": url.rsplit('/').next() });
            vec![delete(&url), Asked::new("POST", "/1.0/images/aliases", body)]
        },
        judge: |subject, answers| {
            so(answers[0].is_done(), "it is not deleted")?;
            so(urls(subject, "/1.0/images/aliases").is_empty(), "an alias of nothing is left")
        },
        often: 2,
    },
    Race {
        name: "network delete and create",
        before: |subject| {
            with_image(subject);
            let config = json!({ "ipv4.address": "10.213.91.1/24", "ipv6.address": "none" });
            let body = json!({ "name": "race0", "type": "bridge", "config": config });
            subject.must("POST", "/1.0/networks", &body);
        },
        asked: |_| {
            let mut body = of_busybox("one");
            body["devices"] = json!({ "eth9": { "type": "nic", "network": "race0" } });
            vec![delete("/1.0/networks/race0"), create(body)]
        },
        judge: |subject, answers| {
            one_wins(answers)?;
            so(
                there(subject, "/1.0/networks/race0") == answers[1].is_done(),
                "the network is not as was said",
            )
        },
        often: 2,
    },
    Race {
        name: "network delete and start",
        before: |subject| {
            with_image(subject);
            let config = json!({ "ipv4.address": "10.213.92.1/24", "ipv6.address": "none" });
            let body = json!({ "name": "race0", "type": "bridge", "config": config });
            subject.must("POST", "/1.0/networks", &body);
            let mut body = of_busybox("one");
            body["devices"] = json!({ "eth9": { "type": "nic", "network": "race0" } });
            subject.must("POST", "/1.0/instances", &body);
        },
        asked: |_| vec![delete("/1.0/networks/race0"), power("one", "start")],
        judge: |subject, answers| {
            so(!answers[0].is_done() && answers[1].is_done(), "a network in use went")?;
            so(subject.status("one") == "Running", "it does not run")
        },
        often: 2,
    },
    Race {
        name: "profile delete and create",
        before: |subject| {
            with_image(subject);
            subject.must("POST", "/1.0/profiles", &json!({ "name": "race", "config": {}, "devices": {} }));
        },
        asked: |_| {
            let mut body = of_busybox("one");
            body["profiles"] = json!(["default", "race"]);
            vec![delete("/1.0/profiles/race"), create(body)]
        },
        judge: |subject, answers| {
            one_wins(answers)?;
            so(subject.status("one").is_empty() != answers[1].is_done(), "the instance is not as was said")
        },
        often: 3,
    },
];

#[test]
fn of_those_who_exclude_each_other_one_wins_and_nothing_is_torn() {
    let subject = lab();
    let mut score = Score::default();
    for race in [NAMES, LIVES, COPIES, GROUNDS].into_iter().flatten() {
        score.run(&subject, race, rounds());
    }
    score.close("");
}

#[test]
fn of_many_who_change_one_thing_at_once_each_finds_its_change() {
    let subject = lab();
    let config = json!({ "ipv4.address": "10.213.93.1/24", "ipv6.address": "none" });
    subject.must("POST", "/1.0/networks", &json!({ "name": "race0", "type": "bridge", "config": config }));
    subject.must("POST", "/1.0/storage-pools", &json!({ "name": "race", "driver": "dir", "config": {} }));
    let image = urls(&subject, "/1.0/images").remove(0);
    let things = [
        ("/1.0", "config"),
        ("/1.0/networks/race0", "config"),
        ("/1.0/storage-pools/race", "config"),
        (&image, "properties"),
    ];
    for (target, field) in things {
        for round in 0..4 * rounds() {
            let key = |number: usize| format!("user.race{number}");
            let patch = |number| {
                let change = json!({ field: { key(number): round.to_string() } });
                Asked::new("PATCH", target, change)
            };
            let answers = at_once(&subject, &(0..8).map(patch).collect::<Vec<_>>());
            assert_eq!(done(&answers), 8, "{target}: {answers:?}");
            let kept = subject.get(target)[field].clone();
            let wanted = round.to_string();
            let lost: Vec<_> = (0..8).map(key).filter(|key| kept[key] != wanted).collect();
            assert!(lost.is_empty(), "{target}: {lost:?} of {kept}");
        }
    }
    subject.must("DELETE", "/1.0/networks/race0", &Value::Null);
    subject.must("DELETE", "/1.0/storage-pools/race", &Value::Null);
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
                for _ in 0..2 * rounds() {
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
    let found = audited(&subject);
    assert!(found.is_empty(), "{found:?}\n{}", subject.log_tail());
}
