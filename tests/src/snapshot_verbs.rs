//! The verbs of snapshots and copies, for sweeps over their steps.

use serde_json::{Value, json};

use crate::content;
use crate::subject::Subject;
use crate::verbs::{Attempt, Verb};

const SNAPSHOTS: &str = "/1.0/instances/kept/snapshots";

pub(crate) fn there(subject: &Subject, target: &str) -> bool {
    subject.call("GET", target, None).expect("an answer").status == 200
}

pub(crate) fn delete(subject: &Subject, target: &str) {
    if there(subject, target) {
        subject.must("DELETE", target, &Value::Null);
    }
}

pub(crate) fn make(subject: &Subject, name: &str) {
    if subject.status(name).is_empty() {
        let source = json!({ "type": "image", "alias": "busybox" });
        subject.must("POST", "/1.0/instances", &json!({ "name": name, "source": source }));
    }
}

pub(crate) fn run(subject: &Subject, name: &str) {
    make(subject, name);
    if subject.status(name) != "Running" {
        subject.power(name, "start").expect("a start");
    }
}

/// An instance with a snapshot and no layer that an earlier round left: each round is to have the same steps. It has
/// files of its own since, as if it had run: what it holds is frozen when it is shared.
fn renew(subject: &Subject) {
    delete(subject, "/1.0/instances/fresh");
    make(subject, "fresh");
    take(subject, "fresh", "s").expect("a snapshot");
    content::write(subject, "fresh", "new");
}

pub(crate) fn take(subject: &Subject, instance: &str, name: &str) -> Attempt {
    subject.ask("POST", &format!("/1.0/instances/{instance}/snapshots"), &json!({ "name": name }))
}

/// An instance with a snapshot from before its config and its tree were changed.
pub(crate) fn with_snapshot(subject: &Subject, instance: &str) {
    make(subject, instance);
    if !there(subject, &format!("/1.0/instances/{instance}/snapshots/s")) {
        content::write(subject, instance, "old");
        take(subject, instance, "s").expect("a snapshot");
    }
    changed(subject, instance);
}

pub(crate) fn changed(subject: &Subject, instance: &str) {
    let target = format!("/1.0/instances/{instance}");
    subject.must("PATCH", &target, &json!({ "config": { "user.note": "new" } }));
    content::write(subject, instance, "new");
}

fn restore(subject: &Subject, instance: &str) -> Attempt {
    subject.ask("PUT", &format!("/1.0/instances/{instance}"), &json!({ "restore": "s" }))
}

fn expires(subject: &Subject, at: &str) -> Attempt {
    subject.ask("PUT", &format!("{SNAPSHOTS}/s"), &json!({ "expires_at": at }))
}

fn copy(subject: &Subject, of: &str) -> Attempt {
    let source = json!({ "type": "copy", "source": of });
    subject.ask("POST", "/1.0/instances", &json!({ "name": "twin", "source": source }))
}

/// Those that leave a running instance running.
pub const KEPT: &[Verb] = &[
    Verb {
        name: "snapshot create, stopped",
        before: renew,
        act: |subject| take(subject, "fresh", "new"),
        back: renew,
        halfway: None,
    },
    Verb {
        name: "snapshot rename",
        before: |subject| with_snapshot(subject, "kept"),
        act: |subject| subject.ask("POST", &format!("{SNAPSHOTS}/s"), &json!({ "name": "t" })),
        back: |subject| {
            if there(subject, &format!("{SNAPSHOTS}/t")) {
                subject.must("POST", &format!("{SNAPSHOTS}/t"), &json!({ "name": "s" }));
            }
        },
        halfway: None,
    },
    Verb {
        name: "snapshot change",
        before: |subject| with_snapshot(subject, "kept"),
        act: |subject| expires(subject, "2099-01-02T03:04:05Z"),
        back: |subject| {
            expires(subject, "").expect("the way back");
        },
        halfway: None,
    },
    Verb {
        name: "copy of a snapshot",
        before: |subject| with_snapshot(subject, "kept"),
        act: |subject| copy(subject, "kept/s"),
        back: |subject| delete(subject, "/1.0/instances/twin"),
        halfway: None,
    },
    Verb {
        name: "snapshot restore, stopped",
        before: |subject| {
            make(subject, "fixed");
            subject.fix_address("fixed", 80);
            with_snapshot(subject, "fixed");
            subject.fix_address("fixed", 81);
        },
        act: |subject| restore(subject, "fixed"),
        back: |subject| {
            changed(subject, "fixed");
            subject.fix_address("fixed", 81);
        },
        halfway: None,
    },
    Verb {
        name: "copy with snapshots",
        before: renew,
        act: |subject| copy(subject, "fresh"),
        back: |subject| {
            delete(subject, "/1.0/instances/twin");
            renew(subject);
        },
        halfway: None,
    },
    Verb {
        name: "rename with snapshots",
        before: |subject| with_snapshot(subject, "kept"),
        act: |subject| subject.ask("POST", "/1.0/instances/kept", &json!({ "name": "moved" })),
        back: |subject| {
            if !subject.status("moved").is_empty() {
                subject.must("POST", "/1.0/instances/moved", &json!({ "name": "kept" }));
            }
        },
        halfway: None,
    },
    Verb {
        name: "snapshot delete",
        before: |subject| with_snapshot(subject, "kept"),
        act: |subject| subject.ask("DELETE", &format!("{SNAPSHOTS}/s"), &Value::Null),
        back: |subject| with_snapshot(subject, "kept"),
        halfway: None,
    },
    Verb {
        name: "snapshot create, running",
        before: |subject| run(subject, "kept"),
        act: |subject| take(subject, "kept", "new"),
        back: |subject| delete(subject, &format!("{SNAPSHOTS}/new")),
        halfway: None,
    },
    Verb {
        name: "copy of a running one",
        before: |subject| run(subject, "kept"),
        act: |subject| copy(subject, "kept"),
        back: |subject| delete(subject, "/1.0/instances/twin"),
        halfway: None,
    },
];

/// Stops and starts a running instance on its way: only dying is swept, for a start that fails at its end leaves
/// what was restored, stopped.
pub const RESTORE_RUNNING: Verb = Verb {
    name: "snapshot restore, running",
    before: |subject| {
        run(subject, "busy");
        with_snapshot(subject, "busy");
    },
    act: |subject| restore(subject, "busy"),
    back: |subject| {
        run(subject, "busy");
        changed(subject, "busy");
    },
    halfway: None,
};
