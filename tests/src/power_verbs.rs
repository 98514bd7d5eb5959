//! The verbs that change what a container does without making or removing it, for sweeps over their steps.

use serde_json::json;

use crate::snapshot_verbs::run;
use crate::subject::Subject;
use crate::verbs::{Attempt, Verb};

/// As a client does that forces nothing.
fn ask(subject: &Subject, action: &str) -> Attempt {
    let body = json!({ "action": action, "force": false, "timeout": 30 });
    subject.ask("PUT", "/1.0/instances/guest/state", &body)
}

fn thawed(subject: &Subject) {
    if subject.status("guest") == "Frozen" {
        ask(subject, "unfreeze").expect("to go on");
    }
    run(subject, "guest");
}

fn frozen(subject: &Subject) {
    if subject.status("guest") != "Frozen" {
        run(subject, "guest");
        ask(subject, "freeze").expect("to stand still");
    }
}

/// What all instances at once are asked.
fn ask_all(subject: &Subject, action: &str) -> Attempt {
    let body = json!({ "state": { "action": action, "force": true, "timeout": 30 } });
    subject.ask("PUT", "/1.0/instances", &body)
}

/// All of them.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "instance freeze",
        before: thawed,
        act: |subject| ask(subject, "freeze"),
        back: thawed,
        halfway: None,
    },
    Verb {
        name: "instance unfreeze",
        before: frozen,
        act: |subject| ask(subject, "unfreeze"),
        back: frozen,
        halfway: None,
    },
    Verb {
        name: "instance stop, by its own init",
        before: thawed,
        act: |subject| ask(subject, "stop"),
        back: thawed,
        halfway: None,
    },
    Verb {
        name: "all instances stop",
        before: thawed,
        act: |subject| ask_all(subject, "stop"),
        back: thawed,
        halfway: None,
    },
];
