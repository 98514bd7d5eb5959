//! The verbs that carry instances between pools and bring copies up to date, for sweeps over their steps.

use serde_json::{Value, json};

use crate::content;
use crate::snapshot_verbs::{changed, delete, make, run, take, there, with_snapshot};
use crate::subject::Subject;
use crate::verbs::{Attempt, Verb};

fn pool(subject: &Subject, name: &str, driver: &str) {
    if !there(subject, &format!("/1.0/storage-pools/{name}")) {
        let body = json!({ "name": name, "driver": driver, "config": {} });
        subject.must("POST", "/1.0/storage-pools", &body);
    }
}

fn second(subject: &Subject) {
    pool(subject, "second", "dir");
}

/// One that can take from `default` what that has layer by layer.
fn alike(subject: &Subject) {
    pool(subject, "alike", "overlay");
}

fn copy(subject: &Subject, (of, name): (&str, &str), pool: &str, more: &Value) -> Attempt {
    let mut source = json!({ "type": "copy", "source": of });
    for (key, value) in more.as_object().into_iter().flatten() {
        source[key] = value.clone();
    }
    let root = json!({ "type": "disk", "path": "/", "pool": pool });
    let body = json!({ "name": name, "source": source, "devices": { "root": root } });
    subject.ask("POST", "/1.0/instances", &body)
}

fn shift(subject: &Subject, (old, new): (&str, &str), pool: &str) -> Attempt {
    let name = if old == new { "" } else { new };
    let body = json!({ "migration": true, "name": name, "pool": pool });
    subject.ask("POST", &format!("/1.0/instances/{old}"), &body)
}

fn back_home(subject: &Subject, name: &str) {
    let found = ["goes", "went"].into_iter().find(|name| !subject.status(name).is_empty()).expect("it");
    let shown = subject.get(&format!("/1.0/instances/{found}"));
    if found != name || shown["expanded_devices"]["root"]["pool"] != "default" {
        shift(subject, (found, name), "default").expect("the way back");
    }
}

/// A source that has a snapshot more, and another one of the same name, than `base`, which has one too many.
fn apart(subject: &Subject, base: &str, pool: &str) {
    second(subject);
    if subject.status("main").is_empty() {
        make(subject, "main");
        take(subject, "main", "s").expect("a snapshot");
    }
    if subject.status(base).is_empty() {
        for name in ["c", "new"] {
            delete(subject, &format!("/1.0/instances/main/snapshots/{name}"));
        }
        copy(subject, ("main", base), pool, &Value::Null).expect("a copy");
        content::write_in(subject, &format!("{pool}/containers/{base}"), "base");
        take(subject, base, "c").expect("a snapshot");
        take(subject, base, "own").expect("a snapshot");
        changed(subject, "main");
        take(subject, "main", "c").expect("a snapshot");
        take(subject, "main", "new").expect("a snapshot");
    }
    behind(subject, base, pool);
}

fn behind(subject: &Subject, base: &str, pool: &str) {
    delete(subject, "/1.0/instances/twin");
    copy(subject, (base, "twin"), pool, &Value::Null).expect("a copy");
}

fn refresh(subject: &Subject, pool: &str) -> Attempt {
    copy(subject, ("main", "twin"), pool, &json!({ "refresh": true }))
}

/// A stream to another pool of what runs, and a move, which has most to take back.
pub const CARRIED: &[Verb] = &[
    Verb {
        name: "copy of a running one to another pool",
        before: |subject| {
            second(subject);
            run(subject, "runs");
        },
        act: |subject| copy(subject, ("runs", "twin"), "second", &Value::Null),
        back: |subject| delete(subject, "/1.0/instances/twin"),
        halfway: None,
    },
    Verb {
        name: "move to another pool and name",
        before: moving,
        act: |subject| shift(subject, ("goes", "went"), "second"),
        back: |subject| back_home(subject, "goes"),
        halfway: None,
    },
];

/// Bringing up to date, by a stream.
pub const REFRESHED: &[Verb] = &[Verb {
    name: "refresh of a copy in another pool",
    before: |subject| apart(subject, "base2", "second"),
    act: |subject| refresh(subject, "second"),
    back: |subject| behind(subject, "base2", "second"),
    halfway: None,
}];

/// To another pool of layers, with the layers that it lacks.
pub const LAYERED: &[Verb] = &[
    Verb {
        name: "copy to another pool of layers",
        before: layered,
        act: |subject| copy(subject, ("grew", "twin"), "alike", &Value::Null),
        back: layered,
        halfway: None,
    },
    Verb {
        name: "copy of a running one to another pool of layers",
        before: |subject| {
            alike(subject);
            run(subject, "runs");
        },
        act: |subject| copy(subject, ("runs", "twin"), "alike", &Value::Null),
        back: |subject| delete(subject, "/1.0/instances/twin"),
        halfway: None,
    },
    Verb {
        name: "refresh of a copy in another pool of layers",
        before: |subject| {
            alike(subject);
            apart(subject, "base3", "alike");
        },
        act: |subject| refresh(subject, "alike"),
        back: |subject| behind(subject, "base3", "alike"),
        halfway: None,
    },
    Verb {
        name: "move to another pool of layers",
        before: |subject| {
            alike(subject);
            moving(subject);
        },
        act: |subject| shift(subject, ("goes", "went"), "alike"),
        back: |subject| back_home(subject, "goes"),
        halfway: None,
    },
];

/// An instance that has files of its own since its snapshot, which are to be frozen, and no copy.
fn layered(subject: &Subject) {
    alike(subject);
    delete(subject, "/1.0/instances/twin");
    delete(subject, "/1.0/instances/grew");
    make(subject, "grew");
    content::write(subject, "grew", "old");
    take(subject, "grew", "s").expect("a snapshot");
    content::write(subject, "grew", "new");
}

/// What differs from those only in steps that other verbs have too: swept when there is time.
pub const MORE: &[Verb] = &[
    Verb {
        name: "copy to another pool",
        before: |subject| {
            second(subject);
            make(subject, "kept");
            with_snapshot(subject, "kept");
        },
        act: |subject| copy(subject, ("kept", "twin"), "second", &Value::Null),
        back: |subject| delete(subject, "/1.0/instances/twin"),
        halfway: None,
    },
    Verb {
        name: "move to another pool",
        before: moving,
        act: |subject| shift(subject, ("goes", "goes"), "second"),
        back: |subject| back_home(subject, "goes"),
        halfway: None,
    },
    Verb {
        name: "refresh of a copy",
        before: |subject| apart(subject, "base", "default"),
        act: |subject| refresh(subject, "default"),
        back: |subject| behind(subject, "base", "default"),
        halfway: None,
    },
];

fn moving(subject: &Subject) {
    second(subject);
    make(subject, "goes");
    with_snapshot(subject, "goes");
}
