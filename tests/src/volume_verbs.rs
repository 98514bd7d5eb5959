//! The verbs of custom volumes and of disks in running instances, for sweeps over their steps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::api;
use crate::content;
use crate::subject::Subject;
use crate::verbs::{Attempt, Verb};

const VOLUMES: &str = "/1.0/storage-pools/default/volumes/custom";
const OTHER: &str = "/1.0/storage-pools/other/volumes/custom";

fn there(subject: &Subject, target: &str) -> bool {
    subject.call("GET", target, None).expect("an answer").status == 200
}

fn delete(subject: &Subject, target: &str) {
    if there(subject, target) {
        subject.must("DELETE", target, &Value::Null);
    }
}

fn make(subject: &Subject, target: &str, name: &str) {
    if !there(subject, &format!("{target}/{name}")) {
        subject.must("POST", target, &json!({ "name": name }));
    }
}

/// Lets a volume that nobody has mounted say which tree it is.
fn write(subject: &Subject, name: &str, what: &str) {
    content::write_in(subject, &format!("default/custom/{name}"), what);
}

/// A volume with a snapshot from before it was changed.
fn with_snapshot(subject: &Subject, name: &str) {
    make(subject, VOLUMES, name);
    if !there(subject, &format!("{VOLUMES}/{name}/snapshots/s")) {
        write(subject, name, "old");
        subject.must("POST", &format!("{VOLUMES}/{name}/snapshots"), &json!({ "name": "s" }));
    }
    write(subject, name, "new");
}

fn other_pool(subject: &Subject) {
    if !there(subject, "/1.0/storage-pools/other") {
        subject.must("POST", "/1.0/storage-pools", &json!({ "name": "other", "driver": "dir" }));
    }
}

/// A stopped instance that has the volume.
fn used(subject: &Subject, volume: &str) {
    with_snapshot(subject, volume);
    if subject.status("user").is_empty() {
        let source = json!({ "type": "image", "alias": "busybox" });
        let device = disk(volume, &json!({}));
        let body = json!({ "name": "user", "source": source, "devices": { "d": device } });
        subject.must("POST", "/1.0/instances", &body);
    }
}

fn disk(volume: &str, more: &Value) -> Value {
    let mut device = json!({ "type": "disk", "pool": "default", "source": volume, "path": "/srv/disk" });
    for (key, value) in more.as_object().into_iter().flatten() {
        device[key] = value.clone();
    }
    device
}

fn copy(subject: &Subject, to: &str, volume: &str) -> Attempt {
    let source = json!({ "type": "copy", "name": volume, "pool": "default" });
    subject.ask("POST", to, &json!({ "name": "twin", "source": source }))
}

fn run(subject: &Subject) {
    make(subject, VOLUMES, "live");
    if subject.status("busy").is_empty() {
        let source = json!({ "type": "image", "alias": "busybox" });
        subject.must("POST", "/1.0/instances", &json!({ "name": "busy", "source": source }));
    }
    if subject.status("busy") != "Running" {
        subject.power("busy", "start").expect("a start");
    }
}

fn with_disk(subject: &Subject, more: &Value) -> Attempt {
    let mut body = subject.get("/1.0/instances/busy");
    body["devices"]["d"] = disk("live", more);
    subject.ask("PUT", "/1.0/instances/busy", &body)
}

fn without_disk(subject: &Subject) -> Attempt {
    let mut body = subject.get("/1.0/instances/busy");
    let _ = body["devices"].as_object_mut().map(|devices| devices.remove("d"));
    subject.ask("PUT", "/1.0/instances/busy", &body)
}

fn with_backup(subject: &Subject) {
    with_snapshot(subject, "kept");
    if !there(subject, &format!("{VOLUMES}/kept/backups/b")) {
        back_up(subject, "b").expect("a backup");
    }
}

fn back_up(subject: &Subject, name: &str) -> Attempt {
    let body = json!({ "name": name, "compression_algorithm": "none" });
    subject.ask("POST", &format!("{VOLUMES}/kept/backups"), &body)
}

/// The bytes of a backup, fetched once from each daemon.
fn fetched(subject: &Subject) -> Vec<u8> {
    static FETCHED: Mutex<BTreeMap<PathBuf, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut fetched = FETCHED.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = fetched.entry(subject.dir.clone()).or_insert_with(|| {
        with_backup(subject);
        let export = format!("{VOLUMES}/kept/backups/b/export");
        subject.call("GET", &export, None).expect("an answer").body
    });
    bytes.clone()
}

fn import(subject: &Subject) -> Attempt {
    let headers = [("Content-Type", "application/octet-stream"), ("X-Incus-name", "imported")];
    let bytes = fetched(subject);
    subject.finish(api::send(&subject.socket(), "POST", VOLUMES, &headers, &bytes))
}

/// Volumes by themselves: what a death halfway leaves of these must be finished or taken back.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "volume rename",
        before: |subject| used(subject, "named"),
        act: |subject| subject.ask("POST", &format!("{VOLUMES}/named"), &json!({ "name": "anew" })),
        back: |subject| {
            if there(subject, &format!("{VOLUMES}/anew")) {
                subject.must("POST", &format!("{VOLUMES}/anew"), &json!({ "name": "named" }));
            }
        },
        halfway: None,
    },
    Verb {
        name: "volume snapshot rename",
        before: |subject| with_snapshot(subject, "kept"),
        act: |subject| subject.ask("POST", &format!("{VOLUMES}/kept/snapshots/s"), &json!({ "name": "t" })),
        back: |subject| {
            if there(subject, &format!("{VOLUMES}/kept/snapshots/t")) {
                subject.must("POST", &format!("{VOLUMES}/kept/snapshots/t"), &json!({ "name": "s" }));
            }
        },
        halfway: None,
    },
    Verb {
        name: "volume restore",
        before: |subject| with_snapshot(subject, "kept"),
        act: |subject| subject.ask("PUT", &format!("{VOLUMES}/kept"), &json!({ "restore": "s" })),
        back: |subject| write(subject, "kept", "new"),
        halfway: None,
    },
    Verb {
        name: "volume move",
        before: |subject| {
            used(subject, "named");
            other_pool(subject);
        },
        act: |subject| {
            subject.ask("POST", &format!("{VOLUMES}/named"), &json!({ "name": "named", "pool": "other" }))
        },
        back: |subject| {
            if there(subject, &format!("{OTHER}/named")) {
                let body = json!({ "name": "named", "pool": "default" });
                subject.ask("POST", &format!("{OTHER}/named"), &body).expect("the way back");
            }
        },
        halfway: None,
    },
    Verb {
        name: "volume import",
        before: |subject| {
            import(subject).expect("an import");
            delete(subject, &format!("{VOLUMES}/imported"));
        },
        act: import,
        back: |subject| delete(subject, &format!("{VOLUMES}/imported")),
        halfway: None,
    },
    Verb {
        name: "volume delete",
        before: |subject| with_snapshot(subject, "gone"),
        act: |subject| subject.ask("DELETE", &format!("{VOLUMES}/gone"), &Value::Null),
        back: |subject| with_snapshot(subject, "gone"),
        halfway: None,
    },
];

/// Lets the instance and its volume be other than their snapshots say.
fn go_on(subject: &Subject) {
    write(subject, "joint", "new");
    content::write(subject, "joined", "new");
    subject.must("PATCH", "/1.0/instances/joined", &json!({ "config": { "user.note": "new" } }));
}

/// A stopped instance with a volume, and a snapshot of both.
fn joined(subject: &Subject) {
    make(subject, VOLUMES, "joint");
    if subject.status("joined").is_empty() {
        let source = json!({ "type": "image", "alias": "busybox" });
        let device = disk("joint", &json!({}));
        let body = json!({ "name": "joined", "source": source, "devices": { "d": device } });
        subject.must("POST", "/1.0/instances", &body);
        write(subject, "joint", "old");
        content::write(subject, "joined", "old");
        let body = json!({ "name": "s", "volumes": true });
        subject.must("POST", "/1.0/instances/joined/snapshots", &body);
    }
    go_on(subject);
}

/// An instance that goes back to a snapshot together with its volume, and the taking of one of both.
pub const TOGETHER: &[Verb] = &[
    Verb {
        name: "restore with volumes",
        before: joined,
        act: |subject| {
            subject.ask("PUT", "/1.0/instances/joined", &json!({ "restore": "s", "volumes": true }))
        },
        back: go_on,
        halfway: None,
    },
    Verb {
        name: "snapshot with volumes",
        before: joined,
        act: |subject| {
            let body = json!({ "name": "new", "volumes": true });
            subject.ask("POST", "/1.0/instances/joined/snapshots", &body)
        },
        back: |subject| {
            delete(subject, "/1.0/instances/joined/snapshots/new");
            delete(subject, &format!("{VOLUMES}/joint/snapshots/new"));
        },
        halfway: None,
    },
];

/// More of them.
pub const MORE: &[Verb] = &[
    Verb {
        name: "volume create",
        before: |_| {},
        act: |subject| {
            let body = json!({ "name": "made", "config": { "initial.mode": "0700", "initial.uid": "5" } });
            subject.ask("POST", VOLUMES, &body)
        },
        back: |subject| delete(subject, &format!("{VOLUMES}/made")),
        halfway: None,
    },
    Verb {
        name: "volume change",
        before: |subject| make(subject, VOLUMES, "kept"),
        act: |subject| {
            subject.ask("PATCH", &format!("{VOLUMES}/kept"), &json!({ "config": { "user.a": "b" } }))
        },
        back: |subject| {
            subject.must("PUT", &format!("{VOLUMES}/kept"), &json!({ "config": {}, "description": "" }));
        },
        halfway: None,
    },
    Verb {
        name: "volume snapshot",
        before: |subject| make(subject, VOLUMES, "kept"),
        act: |subject| subject.ask("POST", &format!("{VOLUMES}/kept/snapshots"), &json!({ "name": "new" })),
        back: |subject| delete(subject, &format!("{VOLUMES}/kept/snapshots/new")),
        halfway: None,
    },
    Verb {
        name: "volume copy",
        before: |subject| with_snapshot(subject, "kept"),
        act: |subject| copy(subject, VOLUMES, "kept"),
        back: |subject| delete(subject, &format!("{VOLUMES}/twin")),
        halfway: None,
    },
    Verb {
        name: "volume copy to another pool",
        before: |subject| {
            with_snapshot(subject, "kept");
            other_pool(subject);
        },
        act: |subject| copy(subject, OTHER, "kept"),
        back: |subject| delete(subject, &format!("{OTHER}/twin")),
        halfway: None,
    },
    Verb {
        name: "volume copy brought up to date",
        before: |subject| {
            with_snapshot(subject, "kept");
            make(subject, VOLUMES, "old");
            write(subject, "old", "other");
        },
        act: |subject| {
            let source = json!({ "type": "copy", "name": "kept", "pool": "default", "refresh": true });
            subject.ask("POST", VOLUMES, &json!({ "name": "old", "source": source }))
        },
        back: |subject| {
            delete(subject, &format!("{VOLUMES}/old/snapshots/s"));
            write(subject, "old", "other");
        },
        halfway: None,
    },
    Verb {
        name: "volume snapshot change",
        before: |subject| with_snapshot(subject, "kept"),
        act: |subject| {
            let body = json!({ "description": "new", "expires_at": "2099-01-02T03:04:05Z" });
            subject.ask("PUT", &format!("{VOLUMES}/kept/snapshots/s"), &body)
        },
        back: |subject| {
            let body = json!({ "description": "", "expires_at": "" });
            subject.must("PUT", &format!("{VOLUMES}/kept/snapshots/s"), &body);
        },
        halfway: None,
    },
    Verb {
        name: "volume backup",
        before: |subject| with_snapshot(subject, "kept"),
        act: |subject| back_up(subject, "new"),
        back: |subject| delete(subject, &format!("{VOLUMES}/kept/backups/new")),
        halfway: None,
    },
    Verb {
        name: "volume backup rename",
        before: with_backup,
        act: |subject| {
            subject.ask("POST", &format!("{VOLUMES}/kept/backups/b"), &json!({ "name": "renamed" }))
        },
        back: |subject| {
            delete(subject, &format!("{VOLUMES}/kept/backups/renamed"));
            with_backup(subject);
        },
        halfway: None,
    },
    Verb {
        name: "volume backup delete",
        before: with_backup,
        act: |subject| subject.ask("DELETE", &format!("{VOLUMES}/kept/backups/b"), &Value::Null),
        back: with_backup,
        halfway: None,
    },
    Verb {
        name: "volume snapshot delete",
        before: |subject| with_snapshot(subject, "kept"),
        act: |subject| subject.ask("DELETE", &format!("{VOLUMES}/kept/snapshots/s"), &Value::Null),
        back: |subject| with_snapshot(subject, "kept"),
        halfway: None,
    },
];

/// Disks of instances.
pub const DISKS: &[Verb] = &[
    Verb {
        name: "start with a disk",
        before: |subject| used(subject, "named"),
        act: |subject| subject.power("user", "start"),
        back: |subject| {
            if subject.status("user") == "Running" {
                subject.power("user", "stop").expect("a stop");
            }
        },
        halfway: None,
    },
    Verb {
        name: "rename of a mounted volume",
        before: |subject| {
            used(subject, "named");
            if subject.status("user") != "Running" {
                subject.power("user", "start").expect("a start");
            }
        },
        act: |subject| subject.ask("POST", &format!("{VOLUMES}/named"), &json!({ "name": "anew" })),
        back: |subject| {
            if there(subject, &format!("{VOLUMES}/anew")) {
                subject.must("POST", &format!("{VOLUMES}/anew"), &json!({ "name": "named" }));
            }
        },
        halfway: None,
    },
    Verb {
        name: "disk attach, running",
        before: run,
        act: |subject| with_disk(subject, &json!({})),
        back: |subject| {
            without_disk(subject).expect("to detach");
        },
        halfway: None,
    },
    Verb {
        name: "disk change, running",
        before: |subject| {
            run(subject);
            with_disk(subject, &json!({})).expect("to attach");
        },
        act: |subject| with_disk(subject, &json!({ "readonly": "true" })),
        back: |subject| {
            with_disk(subject, &json!({})).expect("the disk as it was");
        },
        halfway: None,
    },
    Verb {
        name: "disk detach, running",
        before: |subject| {
            run(subject);
            with_disk(subject, &json!({})).expect("to attach");
        },
        act: without_disk,
        back: |subject| {
            with_disk(subject, &json!({})).expect("to attach");
        },
        halfway: None,
    },
];
