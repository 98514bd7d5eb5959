//! The verbs of pools with a disk of their own, and of instances on them, for sweeps over their steps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::api;
use crate::cli::host;
use crate::content;
use crate::snapshot_verbs::{delete, there};
use crate::subject::Subject;
use crate::verbs::{Attempt, Verb};

/// The smallest a disk can be.
const SMALL: &str = "256MiB";

fn pool(subject: &Subject, name: &str) -> Attempt {
    let body = json!({ "name": name, "driver": "btrfs", "config": { "size": SMALL } });
    subject.ask("POST", "/1.0/storage-pools", &body)
}

fn with_pool(subject: &Subject, name: &str) {
    if !there(subject, &format!("/1.0/storage-pools/{name}")) {
        pool(subject, name).expect("a pool");
    }
}

fn resize(subject: &Subject, size: &str) -> Attempt {
    let config = json!({ "config": { "size": size }, "description": "" });
    subject.ask("PUT", "/1.0/storage-pools/grown", &config)
}

fn instance(subject: &Subject, name: &str) -> Attempt {
    let root = json!({ "type": "disk", "path": "/", "pool": "ground", "size": "64MiB" });
    let source = json!({ "type": "image", "alias": "busybox" });
    let body = json!({ "name": name, "source": source, "devices": { "root": root } });
    subject.ask("POST", "/1.0/instances", &body)
}

fn with_instance(subject: &Subject, name: &str) {
    with_pool(subject, "ground");
    if subject.status(name).is_empty() {
        instance(subject, name).expect("an instance");
    }
}

fn limit(subject: &Subject, size: &str) -> Attempt {
    let mut body = subject.get("/1.0/instances/bound");
    body["devices"]["root"]["size"] = json!(size);
    subject.ask("PUT", "/1.0/instances/bound", &body)
}

const BACKUPS: &str = "/1.0/instances/kept/backups";

/// An instance on btrfs with a snapshot from before its tree was changed.
fn kept(subject: &Subject) {
    with_instance(subject, "kept");
    let write = |what: &str| content::write_in(subject, "ground/containers/kept", what);
    if !there(subject, "/1.0/instances/kept/snapshots/s") {
        write("old");
        subject.must("POST", "/1.0/instances/kept/snapshots", &json!({ "name": "s" }));
    }
    write("new");
}

/// A subvolume with another one in it, in the root of the instance `bound`, made as the host's root makes them.
fn nested(subject: &Subject) {
    // The pool's disk is mounted where the daemon is.
    let (pid, dir) = (subject.pid(), subject.dir.display());
    let own = format!("/proc/{pid}/root{dir}/storage-pools/ground/containers/bound/rootfs/own");
    if !std::path::Path::new(&own).exists() {
        host(&["btrfs", "subvolume", "create", &own]).ok();
        host(&["btrfs", "subvolume", "create", &format!("{own}/inner")]).ok();
    }
}

const VOLUMES: &str = "/1.0/storage-pools/ground/volumes/custom";
const VOLUME_BACKUPS: &str = "/1.0/storage-pools/ground/volumes/custom/data/backups";

/// A volume on btrfs with a snapshot.
fn data(subject: &Subject) {
    with_pool(subject, "ground");
    if !there(subject, &format!("{VOLUMES}/data")) {
        subject.must("POST", VOLUMES, &json!({ "name": "data" }));
    }
    if !there(subject, &format!("{VOLUMES}/data/snapshots/s")) {
        subject.must("POST", &format!("{VOLUMES}/data/snapshots"), &json!({ "name": "s" }));
    }
}

fn back_up(subject: &Subject, backups: &str, name: &str) -> Attempt {
    let body = json!({ "name": name, "compression_algorithm": "none", "optimized_storage": true });
    subject.ask("POST", backups, &body)
}

/// The bytes of a backup in streams, fetched once from each daemon's directory.
fn fetched(subject: &Subject, backups: &'static str) -> Vec<u8> {
    static FETCHED: Mutex<BTreeMap<(PathBuf, &str), Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut fetched = FETCHED.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = fetched.entry((subject.dir.clone(), backups)).or_insert_with(|| {
        if backups == BACKUPS {
            kept(subject)
        } else {
            data(subject)
        }
        back_up(subject, backups, "b").expect("a backup");
        let reply = subject.call("GET", &format!("{backups}/b/export"), None).expect("an answer");
        delete(subject, &format!("{backups}/b"));
        reply.body
    });
    bytes.clone()
}

fn import(subject: &Subject, into: &str, backups: &'static str) -> Attempt {
    let headers = [("Content-Type", "application/octet-stream"), ("X-Incus-name", "imported")];
    let bytes = fetched(subject, backups);
    subject.finish(api::send(&subject.socket(), "POST", into, &headers, &bytes))
}

/// Pools with a disk.
pub const DISKS: &[Verb] = &[
    Verb {
        name: "pool create, with a disk",
        before: |_| {},
        act: |subject| pool(subject, "disk"),
        back: |subject| delete(subject, "/1.0/storage-pools/disk"),
        halfway: None,
    },
    Verb {
        name: "pool update, a disk that grows",
        before: |subject| with_pool(subject, "grown"),
        act: |subject| resize(subject, "257MiB"),
        back: |subject| {
            // A disk never shrinks.
            delete(subject, "/1.0/storage-pools/grown");
            with_pool(subject, "grown");
        },
        halfway: None,
    },
    Verb {
        name: "pool delete, with a disk",
        before: |_| {},
        act: |subject| subject.ask("DELETE", "/1.0/storage-pools/grown", &Value::Null),
        back: |subject| with_pool(subject, "grown"),
        halfway: None,
    },
];

/// Instances on btrfs.
pub const INSTANCES: &[Verb] = &[
    Verb {
        name: "instance create, on btrfs",
        before: |subject| with_pool(subject, "ground"),
        act: |subject| instance(subject, "new"),
        back: |subject| delete(subject, "/1.0/instances/new"),
        halfway: None,
    },
    Verb {
        name: "instance update, the size of a running one's root",
        before: |subject| {
            with_instance(subject, "bound");
            subject.power("bound", "start").expect("a start");
        },
        act: |subject| limit(subject, "96MiB"),
        back: |subject| {
            limit(subject, "64MiB").expect("the size it had");
        },
        halfway: None,
    },
    Verb {
        name: "snapshot, of a running instance with subvolumes on btrfs",
        before: nested,
        act: |subject| subject.ask("POST", "/1.0/instances/bound/snapshots", &json!({ "name": "s" })),
        back: |subject| delete(subject, "/1.0/instances/bound/snapshots/s"),
        halfway: None,
    },
    Verb {
        name: "restore, on btrfs",
        before: kept,
        act: |subject| subject.ask("PUT", "/1.0/instances/kept", &json!({ "restore": "s" })),
        back: kept,
        halfway: None,
    },
    Verb {
        name: "backup in streams",
        before: kept,
        act: |subject| back_up(subject, BACKUPS, "new"),
        back: |subject| delete(subject, &format!("{BACKUPS}/new")),
        halfway: None,
    },
    Verb {
        name: "import of streams",
        before: |subject| drop(fetched(subject, BACKUPS)),
        act: |subject| import(subject, "/1.0/instances", BACKUPS),
        back: |subject| delete(subject, "/1.0/instances/imported"),
        halfway: None,
    },
    Verb {
        name: "backup of a volume in streams",
        before: data,
        act: |subject| back_up(subject, VOLUME_BACKUPS, "new"),
        back: |subject| delete(subject, &format!("{VOLUME_BACKUPS}/new")),
        halfway: None,
    },
    Verb {
        name: "import of a volume's streams",
        before: |subject| drop(fetched(subject, VOLUME_BACKUPS)),
        act: |subject| import(subject, VOLUMES, VOLUME_BACKUPS),
        back: |subject| delete(subject, &format!("{VOLUMES}/imported")),
        halfway: None,
    },
    Verb {
        name: "instance delete, on btrfs",
        before: |subject| with_instance(subject, "doomed"),
        act: |subject| subject.ask("DELETE", "/1.0/instances/doomed", &Value::Null),
        back: |subject| with_instance(subject, "doomed"),
        halfway: None,
    },
];
