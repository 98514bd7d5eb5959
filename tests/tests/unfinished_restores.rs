//! What becomes of a restoring of a volume by itself, or of a running instance, of which the daemon or its disk did not
//! live to see the end.

use cabin_tests::content;
use cabin_tests::far::Far;
use cabin_tests::subject::Subject;
use cabin_tests::sweep::{Tally, audited};
use cabin_tests::verbs::Attempt;
use serde_json::json;

fn lab() -> Subject {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject
}

/// Where the volume lies.
fn volume(pool: &str) -> String {
    format!("/1.0/storage-pools/{pool}/volumes/custom/v")
}

/// A volume that says `new`, with a snapshot that says `old`.
fn with_snapshot(subject: &Subject, pool: &str, config: &serde_json::Value) {
    let new = json!({ "name": "v", "config": config });
    subject.must("POST", &format!("/1.0/storage-pools/{pool}/volumes/custom"), &new);
    content::write_in(subject, &format!("{pool}/custom/v"), "old");
    subject.must("POST", &format!("{}/snapshots", volume(pool)), &json!({ "name": "s" }));
    content::write_in(subject, &format!("{pool}/custom/v"), "new");
}

fn restore(subject: &Subject, pool: &str) -> Attempt {
    subject.ask("PUT", &volume(pool), &json!({ "restore": "s" }))
}

/// What the volume says to a client; an error's text when there is one.
fn said(subject: &Subject, pool: &str) -> String {
    let target = format!("{}/files?path=/which-tree", volume(pool));
    subject.call("GET", &target, None).expect("an answer").text()
}

#[test]
fn the_old_tree_of_a_volume_that_cannot_be_put_back_is_not_lost_and_comes_back_with_the_next_change() {
    let mut subject = Subject::start_with_driver("btrfs");
    with_snapshot(&subject, "default", &json!({ "size": "64MiB" }));
    let place = subject.dir.join("storage-pools/default/custom");
    let cut = |subject: &Subject| {
        subject.arm("hold:restore custom/v");
        let restored = std::thread::scope(|scope| {
            let asked = scope.spawn(|| restore(subject, "default"));
            subject.wait_held("restore custom/v");
            // Neither can it be limited now, nor exchanged.
            std::fs::rename(place.join("v"), place.join("hidden")).expect("the tree goes");
            subject.arm("off");
            asked.join().expect("an answer")
        });
        std::fs::rename(place.join("hidden"), place.join("v")).expect("the tree comes");
        let why = restored.expect_err("it cannot be limited");
        assert!(why.contains("left behind: restore custom/v from s"), "{why}");
        // What is written into the wrong one would be lost.
        assert!(said(subject, "default").contains("not finished"), "{}", said(subject, "default"));
    };
    cut(&subject);
    subject.must("POST", &format!("{}/snapshots", volume("default")), &json!({ "name": "t" }));
    assert_eq!(said(&subject, "default"), "new");
    cut(&subject);
    subject.terminate();
    subject.boot_well();
    assert_eq!(said(&subject, "default"), "new");
    restore(&subject, "default").expect("a restoring");
    assert_eq!(said(&subject, "default"), "old");
    assert_eq!(audited(&subject), [""; 0]);
}

#[test]
fn a_daemon_that_dies_in_the_restoring_of_a_volume_has_it_taken_back_also_when_its_pool_comes_late() {
    let mut subject = lab();
    let far = Far::make(&subject);
    with_snapshot(&subject, "far", &json!({}));
    subject.arm("count");
    restore(&subject, "far").expect("a restoring");
    let points = subject.points();
    subject.arm("off");
    let committed = points.iter().rposition(|point| point.what.starts_with("committed"));
    let mut tally = Tally::default();
    for (at, point) in points.iter().enumerate() {
        let number = at + 1;
        content::write_in(&subject, "far/custom/v", "new");
        subject.arm(&format!("kill:{number}"));
        restore(&subject, "far").expect_err("a death");
        subject.wait_gone();
        tally.points += 1;
        far.goes();
        subject.boot_well();
        far.comes(&subject);
        let made = subject.ask("POST", &format!("{}/snapshots", volume("far")), &json!({ "name": "t" }));
        tally.wrong.extend(made.err().map(|why| format!("step {number}: {why}")));
        let _ = subject.ask("DELETE", &format!("{}/snapshots/t", volume("far")), &json!({}));
        let said = said(&subject, "far");
        let wanted = if committed.is_some_and(|committed| at >= committed) { "old" } else { "new" };
        let mut wrong = audited(&subject);
        wrong.extend((said != wanted).then(|| format!("it says {said} and not {wanted}")));
        let told = format!("step {number} (`{}`)", point.what);
        tally.wrong.extend(wrong.into_iter().map(|it| format!("{told}: {it}")));
    }
    subject.must("DELETE", &volume("far"), &json!({}));
    far.end(&subject);
    tally.close("deaths in the restoring of a volume");
}

#[test]
fn what_ran_before_its_restoring_was_cut_off_runs_again_as_soon_as_its_pool_is_there() {
    let mut subject = lab();
    let far = Far::make(&subject);
    let root = json!({ "root": { "type": "disk", "path": "/", "pool": "far" } });
    let source = json!({ "type": "image", "alias": "busybox" });
    let body = json!({ "name": "it", "source": source, "devices": root, "config": { "user.note": "old" } });
    subject.must("POST", "/1.0/instances", &body);
    subject.must("POST", "/1.0/instances/it/snapshots", &json!({ "name": "s" }));
    let mut tally = Tally::default();
    for number in 1.. {
        subject.must("PATCH", "/1.0/instances/it", &json!({ "config": { "user.note": "new" } }));
        if subject.status("it") != "Running" {
            subject.power("it", "start").expect("a start");
        }
        subject.arm(&format!("kill:{number}"));
        let _ = subject.ask("PUT", "/1.0/instances/it", &json!({ "restore": "s" }));
        if subject.disarm() {
            break;
        }
        subject.wait_gone();
        if !tally.takes() {
            subject.boot_well();
            continue;
        }
        tally.points += 1;
        far.goes();
        subject.boot_well();
        far.comes(&subject);
        subject.wait_status("it", "Running", 20);
        // One that was not stopped yet is settled by whoever changes it next.
        subject.must("PATCH", "/1.0/instances/it", &json!({ "description": "seen" }));
        tally.wrong.extend(audited(&subject).into_iter().map(|it| format!("step {number}: {it}")));
    }
    subject.must("DELETE", "/1.0/instances/it?force=true", &json!({}));
    far.end(&subject);
    tally.close("deaths in the restoring of a running instance whose pool comes late");
}
