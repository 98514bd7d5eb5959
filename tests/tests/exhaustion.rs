//! A daemon that runs out of something: room or inodes on its disk, a disk that is read-only, descriptors,
//! processes, memory. It says so, leaves nothing half done, and goes on when there is enough again.

use cabin_tests::disk::Disk;
use cabin_tests::host_state::{HostState, Look, settled};
use cabin_tests::snapshot_verbs;
use cabin_tests::subject::Subject;
use cabin_tests::sweep::audited;
use cabin_tests::verbs::{self, Verb};
use serde_json::json;

/// What can be done to a daemon's host.
struct Squeeze<'a> {
    tighten: &'a dyn Fn(),
    loosen: &'a dyn Fn(),
    /// What an error must say.
    says: &'a str,
    /// The verbs that must be done all the same.
    free: &'a dyn Fn(&str) -> bool,
}

/// Does each verb while there is nothing left: it is done, or says why not and nothing has changed; and it is
/// done once there is enough again.
fn squeezed(subject: &Subject, squeeze: &Squeeze<'_>, verbs: &[Verb], wrong: &mut Vec<String>) {
    for verb in verbs {
        (verb.before)(subject);
        let before = HostState::of(subject, Look::Exact);
        (squeeze.tighten)();
        let done = (verb.act)(subject);
        let mut tell = |what: String| wrong.push(format!("{}: {what}", verb.name));
        match &done {
            Ok(_) => {}
            Err(why) if (squeeze.free)(verb.name) => tell(format!("is not done: {why}")),
            Err(why) => {
                eprintln!("{}: {why}", verb.name);
                if !why.contains(squeeze.says) {
                    tell(format!("does not say `{}`: {why}", squeeze.says));
                }
                let as_before = settled(subject, &[(&before, Look::Exact)]);
                if let Err(difference) = as_before.or_else(|found| match verb.halfway {
                    Some(_) => Ok(0),
                    None => Err(found),
                }) {
                    tell(format!("is not as before\n{difference}"));
                }
            }
        }
        (squeeze.loosen)();
        if done.is_err() && verb.halfway.is_none() {
            if let Err(why) = (verb.act)(subject) {
                tell(format!("is not done afterwards: {why}"));
            }
        }
        (verb.back)(subject);
        wrong.extend(audited(subject).into_iter().map(|it| format!("{}: audit: {it}", verb.name)));
    }
}

/// What must be possible when there is no room: it makes some.
fn freeing(verb: &str) -> bool {
    verb.contains("delete") || verb.starts_with("instance stop")
}

#[test]
fn on_a_full_disk_nothing_is_left_half_done_and_deleting_works() {
    let disk = Disk::new(160, None);
    let subject = Subject::start_on(&disk);
    subject.import("busybox").expect("the image");
    subject.create("bystander", &json!({}));
    subject.power("bystander", "start").expect("a start");
    let init = subject.init_pid("bystander");
    let squeeze = Squeeze {
        tighten: &|| disk.fill(),
        loosen: &|| disk.free(),
        says: "free some space",
        free: &freeing,
    };
    let mut wrong = Vec::new();
    for verbs in [verbs::LIFE, verbs::LIVE, verbs::ROWS, verbs::NETWORKS, verbs::POOLS, snapshot_verbs::KEPT]
    {
        squeezed(&subject, &squeeze, verbs, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(subject.init_pid("bystander"), init);
}

#[test]
fn without_inodes_nothing_is_left_half_done_and_deleting_works() {
    let disk = Disk::new(160, Some(4000));
    let subject = Subject::start_on(&disk);
    subject.import("busybox").expect("the image");
    let squeeze = Squeeze {
        tighten: &|| disk.fill_inodes(),
        loosen: &|| disk.free(),
        says: "free some space or inodes",
        free: &freeing,
    };
    let mut wrong = Vec::new();
    for verbs in [verbs::LIFE, verbs::LIVE, verbs::NETWORKS, snapshot_verbs::KEPT] {
        squeezed(&subject, &squeeze, verbs, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_daemon_starts_on_a_full_disk_and_takes_up_what_runs() {
    let disk = Disk::new(96, None);
    let mut subject = Subject::start_on(&disk);
    subject.import("busybox").expect("the image");
    for name in ["on", "gone"] {
        subject.create(name, &json!({}));
        subject.power(name, "start").expect("a start");
    }
    let init = subject.init_pid("on");
    for end in [Subject::crash, Subject::terminate] {
        disk.fill();
        end(&mut subject);
        disk.fill();
        assert!(disk.is_full());
        subject.boot_well();
        assert_eq!(subject.init_pid("on"), init);
    }
    subject.power("gone", "stop").expect("a stop");
    subject.must("DELETE", "/1.0/instances/gone", &json!({}));
    disk.free();
    assert_eq!(subject.exec("on", "echo well").as_deref(), Ok("well"));
    assert_eq!(audited(&subject), Vec::<String>::new());
}
