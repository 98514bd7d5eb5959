//! A daemon that runs out of room or inodes on its disk, or whose disk is read-only. It says so, leaves nothing half
//! done, and goes on when there is enough again.

use cabin_tests::backup_verbs;
use cabin_tests::disk::Disk;
use cabin_tests::host_state::{HostState, Look, settled};
use cabin_tests::snapshot_verbs;
use cabin_tests::squeeze::{Squeeze, squeezed_all};
use cabin_tests::subject::Subject;
use cabin_tests::sweep::{Tally, audited};
use cabin_tests::verbs::{self, Verb};
use cabin_tests::volume_verbs;
use serde_json::json;

/// What must be possible when there is no room: it makes some.
fn freeing(verb: &str) -> bool {
    verb.contains("delete") || verb.starts_with("instance stop")
}

/// What is done on disks of other kinds than the usual. There, room of what was just removed is not free at once: a changed
/// nic of a running instance comes back only when there is some again.
const MOST: [&[Verb]; 4] = [verbs::LIFE, snapshot_verbs::KEPT, volume_verbs::VERBS, backup_verbs::VERBS];

/// Does these verbs on a disk that is filled before each.
fn filled(disk: &Disk, what: &str, lists: &[&[Verb]]) {
    let subject = Subject::start_on(disk);
    let init = subject.furnish();
    let squeeze = Squeeze {
        tighten: &|| disk.fill(),
        loosen: &|| disk.free(),
        says: &["free some space"],
        free: &freeing,
        reads: true,
    };
    let mut tally = Tally::default();
    for verbs in lists {
        squeezed_all(&subject, &squeeze, verbs, &mut tally);
    }
    tally.close(what);
    assert_eq!(subject.init_pid("bystander"), init);
}

#[test]
fn on_a_full_disk_nothing_is_left_half_done_and_deleting_works() {
    let lists = [verbs::LIFE, verbs::LIVE, verbs::ROWS, verbs::NETWORKS, verbs::POOLS, snapshot_verbs::KEPT];
    filled(&Disk::new(160, None), "a full disk", &lists);
}

#[test]
fn on_a_full_disk_volumes_and_backups_are_not_left_half_done() {
    let lists = [volume_verbs::VERBS, volume_verbs::DISKS, backup_verbs::VERBS];
    filled(&Disk::new(160, None), "volumes and backups on a full disk", &lists);
}

#[test]
fn on_a_full_btrfs_nothing_is_left_half_done_and_deleting_works() {
    filled(&Disk::btrfs(400), "a full btrfs", &MOST);
}

#[test]
fn on_a_full_xfs_nothing_is_left_half_done_and_deleting_works() {
    filled(&Disk::xfs(320), "a full xfs", &MOST);
}

#[test]
fn without_inodes_nothing_is_left_half_done_and_deleting_works() {
    let disk = Disk::new(160, Some(4000));
    let subject = Subject::start_on(&disk);
    subject.import("busybox").expect("the image");
    let squeeze = Squeeze {
        tighten: &|| disk.fill_inodes(),
        loosen: &|| disk.free(),
        says: &["free some space or inodes"],
        free: &freeing,
        reads: true,
    };
    let mut tally = Tally::default();
    for verbs in [verbs::LIFE, verbs::LIVE, verbs::NETWORKS] {
        squeezed_all(&subject, &squeeze, verbs, &mut tally);
    }
    tally.close("no inodes");
}

#[test]
fn a_daemon_starts_on_a_full_disk_and_takes_up_what_runs() {
    // On a full xfs no socket can be made; where nothing else is asked for, it lies on another disk.
    for disk in [Disk::new(96, None), Disk::btrfs(400)] {
        starts_when_full(&disk);
    }
}

fn starts_when_full(disk: &Disk) {
    let mut subject = Subject::start_on(disk);
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

#[test]
fn a_pool_that_is_read_only_says_so_and_works_again_at_once() {
    let disk = Disk::new(96, None);
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    let place = disk.place().join("pool");
    std::fs::create_dir(&place).expect("a directory for the pool");
    let place = place.display().to_string();
    let pool = json!({ "name": "far", "driver": "overlay", "config": { "source": place } });
    subject.must("POST", "/1.0/storage-pools", &pool);
    let root = json!({ "root": { "type": "disk", "path": "/", "pool": "far" } });
    let made = |name: &str| json!({ "name": name, "devices": root, "source": { "type": "image", "alias": "busybox" } });
    subject.must("POST", "/1.0/instances", &made("kept"));
    subject.create("bystander", &json!({}));
    subject.power("bystander", "start").expect("a start");
    let init = subject.init_pid("bystander");
    let before = HostState::of(&subject, Look::Exact);
    let acts = [
        ("POST", "/1.0/instances", made("new")),
        ("PUT", "/1.0/instances/kept/state", json!({ "action": "start" })),
        ("POST", "/1.0/instances/kept", json!({ "name": "moved" })),
        ("POST", "/1.0/instances/kept/snapshots", json!({ "name": "s" })),
    ];
    disk.remount("ro");
    for (method, target, body) in &acts {
        let why = subject.ask(method, target, body).expect_err(target);
        assert!(why.contains("the disk is read-only"), "{method} {target}: {why}");
        settled(&subject, &[(&before, Look::Exact)])
            .unwrap_or_else(|why| panic!("{target}: not as before:\n{why}"));
    }
    disk.remount("rw");
    subject.must("POST", "/1.0/instances/kept/snapshots", &json!({ "name": "s" }));
    subject.power("kept", "start").expect("a start");
    assert_eq!(subject.init_pid("bystander"), init);
    for name in ["kept", "bystander"] {
        subject.must("DELETE", &format!("/1.0/instances/{name}?force=true"), &json!({}));
    }
    subject.must("DELETE", "/1.0/storage-pools/far", &json!({}));
}

#[test]
fn a_disk_that_the_kernel_made_read_only_is_read_and_all_is_there_when_it_is_mended() {
    let disk = Disk::new(96, None);
    let mut subject = Subject::start_on(&disk);
    subject.import("busybox").expect("the image");
    subject.create("kept", &json!({ "user.note": "written" }));
    subject.create("on", &json!({}));
    subject.power("on", "start").expect("a start");
    let init = subject.init_pid("on");
    disk.break_down();
    for (method, target, body) in [
        ("POST", "/1.0/profiles", json!({ "name": "new" })),
        ("PATCH", "/1.0/instances/kept", json!({ "config": { "user.note": "lost" } })),
        ("POST", "/1.0/instances", json!({ "name": "x", "source": { "type": "image", "alias": "busybox" } })),
        ("DELETE", "/1.0/instances/kept", json!({})),
        ("POST", "/1.0/instances/kept/snapshots", json!({ "name": "s" })),
        ("PUT", "/1.0/instances/kept/state", json!({ "action": "start" })),
    ] {
        let why = subject.ask(method, target, &body).expect_err(target);
        assert!(why.contains("the disk is read-only"), "{method} {target}: {why}");
    }
    assert_eq!(subject.get("/1.0/instances/kept")["config"]["user.note"], "written");
    assert_eq!(subject.init_pid("on"), init);
    // A daemon that comes now says so and ends; the containers do not.
    subject.crash();
    assert!(!subject.boot("off"), "it starts where it can write nothing");
    assert!(subject.log_tail().contains("read-only"), "{}", subject.log_tail());
    assert!(std::path::Path::new(&format!("/proc/{init}")).exists());

    subject.cut_power();
    disk.mend();
    // As of another boot of the host.
    std::fs::write(subject.dir.join("run/boot-id"), "0000\n").expect("a mark");
    subject.boot_well();
    assert_eq!(subject.get("/1.0/instances/kept")["config"]["user.note"], "written");
    subject.wait_status("on", "Running", 20);
    assert_eq!(subject.exec("on", "echo well").as_deref(), Ok("well"));
    assert_eq!(subject.call("GET", "/1.0/profiles/new", None).expect("an answer").status, 404);
    subject.must("DELETE", "/1.0/instances/kept", &json!({}));
    assert_eq!(audited(&subject), Vec::<String>::new());
}

#[test]
fn a_disk_that_is_away_keeps_the_ids_of_its_containers() {
    let disk = Disk::new(96, None);
    let mut subject = Subject::start_on(&disk);
    subject.import("busybox").expect("the image");
    subject.create("kept", &json!({}));
    subject.cut_power();
    let runs = cabin_tests::audit::ids(&subject.dir);
    assert!(!runs.is_empty());
    disk.away(|| {
        // A daemon that starts looks for runs that nobody has any more.
        let other = Subject::start();
        other.import("busybox").expect("the image");
        other.create("other", &json!({}));
        assert_eq!(cabin_tests::audit::ids(&subject.dir), runs);
        other.must("DELETE", "/1.0/instances/other", &json!({}));
    });
    subject.boot_well();
    subject.power("kept", "start").expect("a start");
    subject.power("kept", "stop").expect("a stop");
    assert_eq!(audited(&subject), Vec::<String>::new());

    // One that somebody else has all the same is not shared.
    let of_kept = |run: &std::path::PathBuf| {
        std::fs::read_to_string(run).is_ok_and(|text| text.lines().nth(1) == Some("kept"))
    };
    let run = cabin_tests::audit::ids(&subject.dir).into_iter().find(of_kept).expect("its run");
    // On a disk that is away: daemons that start meanwhile do not take it for abandoned.
    std::fs::write(&run, "/var/tmp/away\nanother\n1\n").expect("the right to write the registry");
    let why = subject.power("kept", "start").expect_err("a start");
    assert!(why.contains("in use by instance `another` of the daemon of `/var/tmp/away`"), "{why}");
    std::fs::remove_file(&run).expect("the right to write the registry");
    subject.power("kept", "start").expect("a start");
    subject.must("DELETE", "/1.0/instances/kept?force=true", &json!({}));
}

#[test]
fn what_lies_in_a_full_pool_can_be_copied_and_moved_to_another() {
    let disk = Disk::new(96, None);
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    let source = disk.place().join("pool");
    std::fs::create_dir(&source).expect("a directory");
    let tight = json!({ "name": "tight", "driver": "overlay", "config": { "source": source } });
    subject.must("POST", "/1.0/storage-pools", &tight);
    subject.must("POST", "/1.0/storage-pools", &json!({ "name": "roomy", "driver": "overlay" }));
    let root = |pool: &str| json!({ "root": { "type": "disk", "path": "/", "pool": pool } });
    let image = json!({ "type": "image", "alias": "busybox" });
    subject.must(
        "POST",
        "/1.0/instances",
        &json!({ "name": "it", "source": image, "devices": root("tight") }),
    );
    subject.power("it", "start").expect("a start");
    subject.exec("it", "mkdir -p /root; echo here >/root/note; sync").expect("a command");
    subject.power("it", "stop").expect("a stop");
    disk.fill();
    assert!(disk.is_full());
    let copy = json!({ "type": "copy", "source": "it" });
    let body = json!({ "name": "copied", "source": copy, "devices": root("roomy") });
    subject.must("POST", "/1.0/instances", &body);
    assert!(disk.is_full(), "there was room all the time");
    subject.must("POST", "/1.0/instances/it", &json!({ "migration": true, "pool": "roomy" }));
    for name in ["copied", "it"] {
        assert_eq!(
            subject.get(&format!("/1.0/instances/{name}"))["expanded_devices"]["root"]["pool"],
            "roomy"
        );
        subject.power(name, "start").expect("a start");
        assert_eq!(subject.exec(name, "cat /root/note").as_deref(), Ok("here"));
    }
    subject.must("DELETE", "/1.0/storage-pools/tight", &json!({}));
}
