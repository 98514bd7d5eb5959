//! What the daemon does by itself when its time has come, for sweeps over its steps: snapshots that are due are taken,
//! and snapshots and backups that are over deleted. The tests say what time it is, for they do not wait for it.

use serde_json::{Value, json};

use crate::content;
use crate::snapshot_verbs::{delete, make, there};
use crate::subject::Subject;
use crate::verbs::{Attempt, Verb};

const INSTANCE: &str = "/1.0/instances/timed";
const VOLUMES: &str = "/1.0/storage-pools/default/volumes/custom";
const VOLUME: &str = "/1.0/storage-pools/default/volumes/custom/timed";

/// Between these times the schedule is due once, and what is over by then goes. The real clock is far from them.
const BEFORE: &str = "2099-12-31T23:50:00Z";
const AFTER: &str = "2100-01-01T00:10:00Z";
const SCHEDULE: &str = "0 0 1 1 *";
const GOES_AT: &str = "2099-06-01T00:00:00Z";

/// What is said when what was to come or to go did not.
pub const NOT_COME: &str = "nothing came of the time";

/// Lets the time come; whether then something is there that was not, or the other way round.
fn pass_time(subject: &Subject, target: &str, is_to_be: bool) -> Attempt {
    let done = subject.ask("PUT", "/internal/clock", &json!({ "through": [BEFORE, AFTER] }))?;
    let found = subject.call("GET", target, None).map_err(|why| format!("no answer: {why}"))?.status;
    let wanted = if is_to_be { 200 } else { 404 };
    if found == wanted { Ok(done) } else { Err(format!("{target}: {NOT_COME} ({found})")) }
}

/// Nothing that has a time.
fn bare(subject: &Subject) {
    if subject.status("timed") == "Running" {
        subject.power("timed", "stop").expect("a stop");
    }
    delete(subject, INSTANCE);
    delete(subject, VOLUME);
}

/// A stopped instance a snapshot of which is due, with files of its own.
fn due(subject: &Subject) {
    bare(subject);
    make(subject, "timed");
    let config = json!({
        "snapshots.schedule": SCHEDULE, "snapshots.schedule.stopped": "true", "snapshots.pattern": "auto",
    });
    subject.must("PATCH", INSTANCE, &json!({ "config": config }));
    content::write(subject, "timed", "new");
}

/// One with something that is to go, made by a POST to an address below its own.
fn with(subject: &Subject, below: &str, body: &Value) {
    bare(subject);
    make(subject, "timed");
    content::write(subject, "timed", "old");
    subject.must("POST", &format!("{INSTANCE}/{below}"), body);
    content::write(subject, "timed", "new");
}

fn volume(subject: &Subject, config: &Value) {
    bare(subject);
    subject.must("POST", VOLUMES, &json!({ "name": "timed", "config": config }));
    content::write_in(subject, "default/custom/timed", "old");
}

fn volume_with(subject: &Subject, below: &str, body: &Value) {
    volume(subject, &json!({}));
    subject.must("POST", &format!("{VOLUME}/{below}"), body);
    content::write_in(subject, "default/custom/timed", "new");
}

fn passing(name: &str) -> Value {
    json!({ "name": name, "expires_at": GOES_AT, "compression_algorithm": "none" })
}

/// What is done with instances and volumes whose time has come.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "scheduled snapshot, stopped",
        before: due,
        act: |subject| pass_time(subject, &format!("{INSTANCE}/snapshots/auto"), true),
        back: due,
        halfway: None,
    },
    Verb {
        name: "scheduled snapshot, running",
        before: |subject| {
            due(subject);
            subject.power("timed", "start").expect("a start");
        },
        act: |subject| pass_time(subject, &format!("{INSTANCE}/snapshots/auto"), true),
        back: |subject| {
            // It goes on running: what it is recognized by must not change.
            let snapshot = format!("{INSTANCE}/snapshots/auto");
            if there(subject, &snapshot) {
                subject.must("DELETE", &snapshot, &Value::Null);
            }
        },
        halfway: None,
    },
    Verb {
        name: "snapshot that is over",
        before: |subject| with(subject, "snapshots", &json!({ "name": "s", "expires_at": GOES_AT })),
        act: |subject| pass_time(subject, &format!("{INSTANCE}/snapshots/s"), false),
        back: |subject| with(subject, "snapshots", &json!({ "name": "s", "expires_at": GOES_AT })),
        halfway: None,
    },
    Verb {
        name: "backup that is over",
        before: |subject| with(subject, "backups", &passing("b")),
        act: |subject| pass_time(subject, &format!("{INSTANCE}/backups/b"), false),
        back: |subject| with(subject, "backups", &passing("b")),
        halfway: None,
    },
    Verb {
        name: "scheduled snapshot of a volume",
        before: |subject| {
            volume(subject, &json!({ "snapshots.schedule": SCHEDULE, "snapshots.pattern": "auto" }))
        },
        act: |subject| pass_time(subject, &format!("{VOLUME}/snapshots/auto"), true),
        back: |subject| {
            volume(subject, &json!({ "snapshots.schedule": SCHEDULE, "snapshots.pattern": "auto" }))
        },
        halfway: None,
    },
    Verb {
        name: "snapshot of a volume that is over",
        before: |subject| volume_with(subject, "snapshots", &json!({ "name": "s", "expires_at": GOES_AT })),
        act: |subject| pass_time(subject, &format!("{VOLUME}/snapshots/s"), false),
        back: |subject| volume_with(subject, "snapshots", &json!({ "name": "s", "expires_at": GOES_AT })),
        halfway: None,
    },
    Verb {
        name: "backup of a volume that is over",
        before: |subject| volume_with(subject, "backups", &passing("b")),
        act: |subject| pass_time(subject, &format!("{VOLUME}/backups/b"), false),
        back: |subject| volume_with(subject, "backups", &passing("b")),
        halfway: None,
    },
];
