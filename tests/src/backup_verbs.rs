//! The verbs that take instances out and in as files, make images of them, and give them new trees, for sweeps over
//! their steps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::api;
use crate::content;
use crate::subject::Subject;
use crate::verbs::{Attempt, Verb};

const BACKUPS: &str = "/1.0/instances/kept/backups";

fn there(subject: &Subject, target: &str) -> bool {
    subject.call("GET", target, None).expect("an answer").status == 200
}

fn delete(subject: &Subject, target: &str) {
    if there(subject, target) {
        subject.must("DELETE", target, &Value::Null);
    }
}

/// A stopped instance with a snapshot.
fn make(subject: &Subject) {
    if subject.status("kept").is_empty() {
        subject.create("kept", &json!({}));
        content::write(subject, "kept", "old");
        subject.must("POST", "/1.0/instances/kept/snapshots", &json!({ "name": "s" }));
        content::write(subject, "kept", "new");
    }
    if subject.status("kept") == "Running" {
        subject.power("kept", "stop").expect("a stop");
    }
}

fn run(subject: &Subject) {
    make(subject);
    subject.power("kept", "start").expect("a start");
}

fn back_up(subject: &Subject, name: &str) -> Attempt {
    subject.ask("POST", BACKUPS, &json!({ "name": name, "compression_algorithm": "none" }))
}

fn with_backup(subject: &Subject) {
    make(subject);
    if !there(subject, &format!("{BACKUPS}/b")) {
        back_up(subject, "b").expect("a backup");
    }
}

/// The bytes of a backup, fetched once from each daemon's directory.
fn fetched(subject: &Subject) -> Vec<u8> {
    static FETCHED: Mutex<BTreeMap<PathBuf, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut fetched = FETCHED.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = fetched.entry(subject.dir.clone()).or_insert_with(|| {
        with_backup(subject);
        let reply = subject.call("GET", &format!("{BACKUPS}/b/export"), None).expect("an answer");
        delete(subject, &format!("{BACKUPS}/b"));
        reply.body
    });
    bytes.clone()
}

fn import(subject: &Subject) -> Attempt {
    let headers = [("Content-Type", "application/octet-stream"), ("X-Incus-name", "imported")];
    let bytes = fetched(subject);
    subject.finish(api::send(&subject.socket(), "POST", "/1.0/instances", &headers, &bytes))
}

fn publish(subject: &Subject, kind: &str, name: &str) -> Attempt {
    // Always the same bytes, and so the same image.
    let source = json!({ "type": kind, "name": name, "creation_date": 1_700_000_000 });
    let aliases = json!([{ "name": "published" }]);
    subject.ask(
        "POST",
        "/1.0/images",
        &json!({ "source": source, "aliases": aliases, "compression_algorithm": "none" }),
    )
}

fn unpublish(subject: &Subject) {
    let alias = subject.call("GET", "/1.0/images/aliases/published", None).expect("an answer");
    if alias.status == 200 {
        let image = alias.json()["metadata"]["target"].as_str().unwrap_or_default().to_owned();
        subject.must("DELETE", &format!("/1.0/images/{image}"), &Value::Null);
    }
}

/// A form of two files, metadata and a tree, with the border between them.
fn form() -> (&'static str, Vec<u8>) {
    const BORDER: &str = "between-two-files";
    static FORM: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let script = r#"set -e; at=$(mktemp -d); cd $at; mkdir -p rootfs/etc; echo small >rootfs/etc/issue
            printf 'architecture: x86_64\ncreation_date: 1700000000\n' >metadata.yaml
            tar --owner=0 --group=0 -cf meta.tar metadata.yaml; tar --owner=0 --group=0 -C rootfs -cf tree.tar etc
            for part in 'metadata meta.tar' 'rootfs tree.tar'; do set -- $part
            printf -- '--%s\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n' "$BORDER" $1 $2
            printf 'Content-Type: application/octet-stream\r\n\r\n'; cat $2; printf '\r\n'; done
            printf -- '--%s--\r\n' "$BORDER"; cd /; rm -r $at"#;
        let made = Command::new("sh").args(["-c", script]).env("BORDER", BORDER).output().expect("sh");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        made.stdout
    });
    (BORDER, FORM.clone())
}

fn import_form(subject: &Subject) -> Attempt {
    let (border, bytes) = form();
    let kind = format!("multipart/form-data; boundary={border}");
    let headers = [("Content-Type", kind.as_str()), ("X-Incus-aliases", "alias=published")];
    subject.finish(api::send(&subject.socket(), "POST", "/1.0/images", &headers, &bytes))
}

fn rebuild(subject: &Subject, source: &Value) -> Attempt {
    subject.ask("POST", "/1.0/instances/rebuilt/rebuild", &json!({ "source": source }))
}

/// An instance made anew: so it has no traces of an earlier rebuild.
fn renew(subject: &Subject) {
    delete(subject, "/1.0/instances/rebuilt");
    subject.create("rebuilt", &json!({}));
    content::write(subject, "rebuilt", "own");
}

/// All of them.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "backup create, stopped",
        before: make,
        act: |subject| back_up(subject, "new"),
        back: |subject| delete(subject, &format!("{BACKUPS}/new")),
        halfway: None,
    },
    Verb {
        name: "backup delete",
        before: with_backup,
        act: |subject| subject.ask("DELETE", &format!("{BACKUPS}/b"), &Value::Null),
        back: with_backup,
        halfway: None,
    },
    Verb {
        name: "backup rename",
        before: with_backup,
        act: |subject| subject.ask("POST", &format!("{BACKUPS}/b"), &json!({ "name": "renamed" })),
        back: |subject| {
            delete(subject, &format!("{BACKUPS}/renamed"));
            with_backup(subject);
        },
        halfway: None,
    },
    Verb {
        name: "import",
        before: |subject| drop(fetched(subject)),
        act: import,
        back: |subject| delete(subject, "/1.0/instances/imported"),
        halfway: None,
    },
    Verb {
        name: "publish",
        before: make,
        act: |subject| publish(subject, "snapshot", "kept/s"),
        back: unpublish,
        halfway: None,
    },
    Verb {
        name: "publish of an instance",
        before: make,
        act: |subject| publish(subject, "instance", "kept"),
        back: unpublish,
        halfway: None,
    },
    Verb {
        name: "image import, of two files",
        before: unpublish,
        act: import_form,
        back: unpublish,
        halfway: None,
    },
    Verb {
        name: "rebuild from an image",
        before: renew,
        act: |subject| rebuild(subject, &json!({ "type": "image", "alias": "busybox" })),
        back: renew,
        halfway: None,
    },
    Verb {
        name: "rebuild, empty",
        before: renew,
        act: |subject| rebuild(subject, &json!({ "type": "none" })),
        back: renew,
        halfway: None,
    },
    Verb {
        name: "backup create, running",
        before: run,
        act: |subject| back_up(subject, "new"),
        back: |subject| delete(subject, &format!("{BACKUPS}/new")),
        halfway: None,
    },
];
