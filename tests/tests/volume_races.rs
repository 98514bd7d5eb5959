//! Races about custom volumes and backups: what is taken away at the moment somebody begins to use it.

use cabin_tests::race::{Answer, Asked, Race, Score, done, of_busybox, one_wins, rounds, so, there, urls};
use cabin_tests::subject::Subject;
use serde_json::{Value, json};

const VOLUMES: &str = "/1.0/storage-pools/default/volumes/custom";

fn volume(name: &str) -> String {
    format!("{VOLUMES}/{name}")
}

fn make(name: &str) -> Asked {
    Asked::new("POST", VOLUMES, json!({ "name": name }))
}

fn delete(target: impl Into<String>) -> Asked {
    Asked::new("DELETE", target, Value::Null)
}

fn attach(name: &str, volume: &str) -> Asked {
    let device = json!({ "type": "disk", "pool": "default", "source": volume, "path": "/srv/data" });
    Asked::new("PATCH", format!("/1.0/instances/{name}"), json!({ "devices": { "data": device } }))
}

fn power(name: &str, action: &str) -> Asked {
    let body = json!({ "action": action, "force": true, "timeout": 30 });
    Asked::new("PUT", format!("/1.0/instances/{name}/state"), body)
}

fn rename(target: impl Into<String>, new: &str) -> Asked {
    Asked::new("POST", target, json!({ "name": new }))
}

fn back_up(name: &str, backup: &str) -> Asked {
    Asked::new("POST", format!("/1.0/instances/{name}/backups"), json!({ "name": backup }))
}

fn one(subject: &Subject) {
    subject.create("one", &json!({}));
}

fn with_volume(subject: &Subject) {
    subject.must("POST", VOLUMES, &json!({ "name": "race" }));
}

fn one_with_volume(subject: &Subject) {
    one(subject);
    with_volume(subject);
}

/// An instance that has the volume.
fn attached(subject: &Subject) {
    one_with_volume(subject);
    let device = json!({ "type": "disk", "pool": "default", "source": "race", "path": "/srv/data" });
    subject.must("PATCH", "/1.0/instances/one", &json!({ "devices": { "data": device } }));
}

/// The volume that the instance's device names, if it has one.
fn source(subject: &Subject) -> String {
    let found = subject.get("/1.0/instances/one")["devices"]["data"]["source"].clone();
    found.as_str().unwrap_or_default().to_owned()
}

const RACES: &[Race] = &[
    Race {
        name: "volumes of one name",
        before: |_| {},
        asked: |_| vec![make("race"); 6],
        judge: |subject, answers| {
            one_wins(answers)?;
            so(urls(subject, VOLUMES).len() == 1, "not one volume")
        },
        often: 2,
    },
    Race {
        name: "renames to one name",
        before: |subject| {
            with_volume(subject);
            subject.must("POST", VOLUMES, &json!({ "name": "other" }));
        },
        asked: |_| vec![rename(volume("race"), "wanted"), rename(volume("other"), "wanted")],
        judge: |subject, answers| {
            one_wins(answers)?;
            so(urls(subject, VOLUMES).len() == 2, "one is lost")
        },
        often: 2,
    },
    Race {
        name: "three deletes of a volume",
        before: with_volume,
        asked: |_| vec![delete(volume("race")); 3],
        judge: |_, answers| one_wins(answers),
        often: 2,
    },
    Race {
        name: "volume delete and attach",
        before: one_with_volume,
        asked: |_| vec![delete(volume("race")), attach("one", "race")],
        judge: |subject, answers| {
            one_wins(answers)?;
            let used = answers[1].is_done();
            so((source(subject) == "race") == used && there(subject, &volume("race")) == used, "torn")
        },
        often: 4,
    },
    Race {
        name: "volume delete and attach to a running one",
        before: |subject| {
            one_with_volume(subject);
            subject.power("one", "start").expect("a start");
        },
        asked: |_| vec![delete(volume("race")), attach("one", "race")],
        judge: |subject, answers| {
            one_wins(answers)?;
            let used = answers[1].is_done();
            so((source(subject) == "race") == used && there(subject, &volume("race")) == used, "torn")?;
            let seen = subject.exec("one", "grep -c /srv/data /proc/mounts || true")?;
            so((seen == "1") == used, &format!("{seen} mounts inside"))
        },
        often: 2,
    },
    Race {
        name: "volume delete and create with it",
        before: with_volume,
        asked: |_| {
            let mut body = of_busybox("one");
            let device = json!({ "type": "disk", "pool": "default", "source": "race", "path": "/srv/data" });
            body["devices"] = json!({ "data": device });
            vec![delete(volume("race")), Asked::new("POST", "/1.0/instances", body)]
        },
        judge: |subject, answers| {
            one_wins(answers)?;
            so(subject.status("one").is_empty() != answers[1].is_done(), "the instance is not as was said")
        },
        often: 3,
    },
    Race {
        name: "volume rename and attach",
        before: one_with_volume,
        asked: |_| vec![rename(volume("race"), "new"), attach("one", "race")],
        judge: |subject, answers| {
            so(done(answers) >= 1, "none was done")?;
            let named = source(subject);
            so(
                named.is_empty() || there(subject, &volume(&named)),
                &format!("it has `{named}`, which is none"),
            )?;
            so(named.is_empty() != answers[1].is_done(), "the device is not as was said")
        },
        often: 4,
    },
    Race {
        name: "volume delete and start",
        before: attached,
        asked: |_| vec![delete(volume("race")), power("one", "start")],
        judge: |subject, answers| {
            so(!answers[0].is_done() && answers[1].is_done(), "a volume in use went")?;
            so(subject.status("one") == "Running", "it does not run")
        },
        often: 2,
    },
    Race {
        name: "snapshots of one name, and delete of their volume",
        before: with_volume,
        asked: |_| {
            let take = Asked::new("POST", format!("{}/snapshots", volume("race")), json!({ "name": "s" }));
            vec![take.clone(), take.clone(), delete(volume("race")), take]
        },
        judge: |subject, answers| {
            so(answers[2].is_done() && !there(subject, &volume("race")), "the volume is there")?;
            so(done(answers) <= 2, "two snapshots of one name")
        },
        often: 3,
    },
    Race {
        name: "pool delete and volume create",
        before: |subject| {
            let body = json!({ "name": "race", "driver": "dir", "config": {} });
            subject.must("POST", "/1.0/storage-pools", &body);
        },
        asked: |_| {
            let body = json!({ "name": "race" });
            let make = Asked::new("POST", "/1.0/storage-pools/race/volumes/custom", body);
            vec![delete("/1.0/storage-pools/race"), make]
        },
        judge: |subject, answers| {
            one_wins(answers)?;
            so(
                there(subject, "/1.0/storage-pools/race") == answers[1].is_done(),
                "the pool is not as was said",
            )
        },
        often: 4,
    },
    Race {
        name: "backups of one name",
        before: one,
        asked: |_| vec![back_up("one", "b"); 4],
        judge: |subject, answers| {
            one_wins(answers)?;
            so(urls(subject, "/1.0/instances/one/backups").len() == 1, "not one backup")
        },
        often: 2,
    },
    Race {
        name: "backup and delete",
        before: one,
        asked: |_| vec![back_up("one", "b"), delete("/1.0/instances/one")],
        judge: |subject, answers| {
            so(answers[1].is_done() && subject.status("one").is_empty(), "it is not deleted")
        },
        often: 3,
    },
    Race {
        name: "backup and rename",
        before: one,
        asked: |_| vec![back_up("one", "b"), rename("/1.0/instances/one", "new")],
        judge: |subject, answers| {
            so(matches!(answers[1], Answer::Done(_)), "it is not renamed")?;
            let kept = urls(subject, "/1.0/instances/new/backups").len();
            so(kept == usize::from(answers[0].is_done()), &format!("it has {kept} backups"))
        },
        often: 3,
    },
];

#[test]
fn of_those_who_use_and_take_away_one_wins() {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    let mut score = Score::default();
    for race in RACES {
        score.run(&subject, race, rounds());
    }
    score.close(" for volumes and backups");
}
