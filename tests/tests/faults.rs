//! Every step of every verb is made to fail once: the verb says so, nothing is left over, and it does the next
//! time. Of a step behind a commit the verb says what is left, and the next daemon removes it.

use cabin_tests::backup_verbs;
use cabin_tests::behind::{Told, leave_each, left_without, obstruct_each};
use cabin_tests::carry_verbs;
use cabin_tests::clock_verbs;
use cabin_tests::pool_verbs;
use cabin_tests::power_verbs;
use cabin_tests::snapshot_verbs;
use cabin_tests::subject::Subject;
use cabin_tests::sweep::{Tally, fail_each, fail_once};
use cabin_tests::swept;
use cabin_tests::verbs::{self, Verb};
use cabin_tests::volume_verbs;

fn all_of(what: &str, verbs: &[Verb]) {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    let mut tally = Tally::default();
    fail_each(&subject, verbs, &mut tally);
    tally.close(what);
}

#[test]
fn a_step_of_an_instances_life_that_fails_leaves_nothing() {
    all_of("an instance's life", verbs::LIFE);
}

#[test]
fn a_step_of_freezing_or_stopping_that_fails_leaves_nothing() {
    all_of("freezing, unfreezing and stopping", power_verbs::VERBS);
}

#[test]
fn a_step_of_an_instances_life_on_dir_or_btrfs_that_fails_leaves_nothing() {
    swept_on_drivers("instances", &[verbs::LIFE], Tally::default());
}

#[test]
fn a_step_of_a_snapshot_on_dir_or_btrfs_that_fails_leaves_nothing() {
    swept_on_drivers("snapshots", &[snapshot_verbs::KEPT], Tally::default());
}

#[test]
fn a_step_of_a_backup_on_dir_or_btrfs_that_fails_leaves_nothing() {
    swept_on_drivers("backups, publications and rebuilds", swept::BACKUPS, Tally::brief());
}

#[test]
fn a_step_of_a_change_of_volumes_on_dir_or_btrfs_that_fails_leaves_nothing() {
    swept_on_drivers("custom volumes", swept::VOLUMES, Tally::brief());
}

#[test]
fn a_step_of_a_copy_or_move_on_dir_or_btrfs_that_fails_leaves_nothing() {
    swept_on_drivers("copies and moves", swept::COPIES, Tally::brief());
}

fn swept_on_drivers(what: &str, lists: &[&[Verb]], on_dir: Tally) {
    for (driver, mut tally) in [("dir", on_dir), ("btrfs", Tally::brief())] {
        for verbs in lists {
            let subject = Subject::start_with_driver(driver);
            subject.import("busybox").expect("the image");
            fail_each(&subject, verbs, &mut tally);
        }
        tally.close(&format!("{what} on {driver}"));
    }
}

#[test]
fn a_step_of_a_change_of_a_running_instance_that_fails_leaves_nothing() {
    all_of("changes of running instances", verbs::LIVE);
}

#[test]
fn a_step_of_a_change_of_profiles_and_images_that_fails_leaves_nothing() {
    all_of("profiles, images, aliases", verbs::ROWS);
}

#[test]
fn a_step_of_a_change_of_networks_that_fails_leaves_nothing() {
    all_of("networks", verbs::NETWORKS);
}

#[test]
fn a_step_of_a_snapshot_or_copy_that_fails_leaves_nothing() {
    all_of("snapshots and copies", snapshot_verbs::KEPT);
}

#[test]
fn a_step_of_a_copy_or_move_between_pools_that_fails_leaves_nothing() {
    all_of("copies and moves between pools", carry_verbs::CARRIED);
    all_of("more of them", carry_verbs::MORE);
}

#[test]
fn a_step_of_a_copy_or_move_to_another_pool_of_layers_that_fails_leaves_nothing() {
    all_of("copies and moves between pools of layers", carry_verbs::LAYERED);
}

#[test]
fn a_step_of_bringing_a_copy_up_to_date_that_fails_leaves_nothing() {
    all_of("copies brought up to date", carry_verbs::REFRESHED);
}

#[test]
fn a_step_of_a_backup_publication_or_rebuild_that_fails_leaves_nothing() {
    all_of("backups, publications and rebuilds", backup_verbs::VERBS);
}

#[test]
fn a_step_of_what_the_daemon_does_by_the_clock_that_fails_leaves_nothing() {
    all_of("what is done by the clock", clock_verbs::VERBS);
}

#[test]
fn a_step_of_a_change_of_pools_that_fails_leaves_nothing() {
    all_of("storage pools", verbs::POOLS);
}

#[test]
fn a_step_of_a_change_of_pools_with_a_disk_that_fails_leaves_nothing() {
    all_of("storage pools with a disk", pool_verbs::DISKS);
}

#[test]
fn a_step_of_what_is_done_with_instances_on_btrfs_that_fails_leaves_nothing() {
    all_of("instances on btrfs", pool_verbs::INSTANCES);
}

#[test]
fn a_step_of_a_change_of_volumes_that_fails_leaves_nothing() {
    all_of("custom volumes", volume_verbs::VERBS);
    all_of("more of custom volumes", volume_verbs::MORE);
    all_of("instances restored with their volumes", volume_verbs::TOGETHER);
}

#[test]
fn a_step_of_a_change_of_disks_that_fails_leaves_nothing() {
    all_of("disks of instances", volume_verbs::DISKS);
}

fn left(what: &str, all: &[&[Verb]], told: Told, mut tally: Tally) {
    let mut subject = Subject::start();
    subject.import("busybox").expect("the image");
    for verbs in all {
        leave_each(&mut subject, verbs, told, &mut tally);
    }
    tally.close(&format!("behind a commit: {what}"));
}

#[test]
fn a_tree_that_cannot_be_removed_behind_a_commit_is_in_nobodys_way() {
    let mut tally = Tally::default();
    let lists =
        [verbs::LIFE, snapshot_verbs::KEPT, carry_verbs::CARRIED, volume_verbs::VERBS, volume_verbs::MORE];
    for verbs in lists {
        let subject = Subject::start();
        subject.import("busybox").expect("the image");
        obstruct_each(&subject, verbs, &mut tally);
    }
    tally.close("trees that stay in the way");
}

#[test]
fn what_cannot_be_removed_behind_a_change_of_an_instance_is_named_and_goes_later() {
    left("instances", &[verbs::LIFE, verbs::LIVE, power_verbs::VERBS], Told::Client, Tally::default());
}

#[test]
fn what_cannot_be_removed_behind_a_change_of_volumes_is_named_and_goes_later() {
    left(
        "custom volumes",
        &[volume_verbs::VERBS, volume_verbs::MORE, volume_verbs::TOGETHER, volume_verbs::DISKS],
        Told::Client,
        Tally::default(),
    );
}

#[test]
fn what_cannot_be_removed_behind_a_change_of_objects_is_named_and_goes_later() {
    left(
        "profiles, images, networks, pools",
        &[verbs::ROWS, verbs::NETWORKS, verbs::POOLS, pool_verbs::DISKS],
        Told::Client,
        Tally::default(),
    );
}

#[test]
fn what_cannot_be_removed_behind_a_snapshot_or_backup_is_named_or_logged_and_goes_later() {
    left("snapshots", &[snapshot_verbs::KEPT], Told::Client, Tally::default());
    left("backups, publications and rebuilds", swept::BACKUPS, Told::Log, Tally::default());
}

#[test]
fn what_cannot_be_removed_behind_what_is_done_by_the_clock_or_for_a_stream_is_logged_and_goes_later() {
    left(
        "what is done by the clock, and streams",
        &[clock_verbs::VERBS, pool_verbs::INSTANCES],
        Told::Log,
        Tally::default(),
    );
}

#[test]
fn what_cannot_be_removed_behind_a_copy_or_move_is_named_or_logged_and_goes_later() {
    left("copies and moves", swept::COPIES, Told::Log, Tally::brief());
}

#[test]
fn a_sweep_finds_what_no_later_start_removes() {
    let verb = |name: &str| swept::all().find(|verb| verb.name == name).expect("a verb of that name");
    let found = |part: &'static str, name: &str| {
        assert!(left_without(part, verb(name)), "{name}: nobody noticed that the {part} is left out");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| found("recovery from strays", "instance rename"));
        scope.spawn(|| found("recovery of volumes", "volume delete"));
    });
}

#[test]
fn a_sweep_finds_each_step_that_is_not_taken_back() {
    let found = |name: &str, step: &str| {
        let all =
            [verbs::LIFE, verbs::NETWORKS, snapshot_verbs::KEPT, backup_verbs::VERBS, volume_verbs::VERBS]
                .into_iter()
                .chain([volume_verbs::DISKS, volume_verbs::TOGETHER]);
        let verb = all.flatten().find(|verb| verb.name == name);
        let mut subject = Subject::start();
        subject.import("busybox").expect("the image");
        subject.forget_to_undo(step);
        let mut tally = Tally::default();
        fail_once(&subject, verb.expect("a verb of that name"), &mut tally);
        assert!(!tally.wrong.is_empty(), "{name}: nobody noticed that `{step}` is not taken back");
    };
    std::thread::scope(|scope| {
        let of_create = ["host ids", "create volume", "link"];
        scope.spawn(move || of_create.map(|step| found("instance create", step)));
        let of_start = ["cgroup", "container", "port"];
        scope.spawn(move || of_start.map(|step| found("instance start", step)));
        let of_rename = ["intent", "rename volume", "owner of the host ids"];
        scope.spawn(move || of_rename.map(|step| found("instance rename", step)));
        scope.spawn(move || found("network create", "bridge"));
        scope.spawn(move || found("disk attach, running", "attach"));
        scope.spawn(move || found("volume rename", "rename volume"));
        // What is left then looks as before, but for what the trees hold.
        scope.spawn(move || found("volume restore", "restore"));
        scope.spawn(move || found("snapshot restore, stopped", "restore"));
        scope.spawn(move || found("restore with volumes", "restore custom"));
    });
}
