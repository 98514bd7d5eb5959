//! The daemon dies at every step of every verb, and of its own recovery; the next one finds the old state or the
//! new one and leaves nothing over. What containers do meanwhile is in `absence.rs`.

use cabin_tests::backup_verbs;
use cabin_tests::behind::{kill_undoing, undone_without};
use cabin_tests::carry_verbs;
use cabin_tests::clock_verbs;
use cabin_tests::lab::Lab;
use cabin_tests::machine;
use cabin_tests::pool_verbs;
use cabin_tests::power_verbs;
use cabin_tests::snapshot_verbs;
use cabin_tests::subject::Subject;
use cabin_tests::sweep::{Again, Tally, kill_each, missed_without};
use cabin_tests::swept;
use cabin_tests::verbs::{self, Verb};
use cabin_tests::volume_verbs;

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let mut lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "kept", "-c", "user.note=written"]).ok();
    lab.cabin(&["profile", "create", "kept-too"]).ok();
    lab.daemon_mut().crash();
    lab.daemon_mut().boot();
    assert_eq!(lab.get("/1.0/instances/kept")["config"]["user.note"], "written");
    assert_eq!(lab.get("/1.0/profiles/kept-too")["name"], "kept-too");
    lab.cabin(&["start", "kept"]).ok();
}

#[test]
fn many_readers_at_once_are_all_answered() {
    let lab = Lab::shared();
    let pid = lab.pid();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(lab.call("GET", "/1.0/instances?recursion=2", None).status, 200);
                }
            });
        }
    });
    assert_eq!(lab.pid(), pid);
    assert_eq!(lab.call("GET", "/1.0", None).status, 200);
}

fn all_of(what: &str, verbs: &[Verb], again: Again) {
    let mut subject = Subject::start();
    subject.import("busybox").expect("the image");
    let mut tally = Tally::default();
    kill_each(&mut subject, verbs, again, &mut tally);
    tally.close(what);
}

#[test]
fn a_daemon_that_dies_in_an_instances_life_leaves_the_old_or_the_new() {
    all_of("deaths in an instance's life", verbs::LIFE, Again::Once);
}

#[test]
fn a_daemon_that_dies_freezing_or_stopping_leaves_the_old_or_the_new() {
    all_of("deaths in freezing, unfreezing and stopping", power_verbs::VERBS, Again::Once);
}

#[test]
fn a_daemon_that_dies_in_an_instances_life_on_dir_or_btrfs_leaves_the_old_or_the_new() {
    swept_on_drivers("instances", swept::LIVES);
}

#[test]
fn a_daemon_that_dies_at_a_snapshot_on_dir_or_btrfs_leaves_the_old_or_the_new() {
    swept_on_drivers("snapshots, and what is done by the clock,", swept::SNAPSHOTS);
}

#[test]
fn a_daemon_that_dies_at_a_copy_or_move_on_dir_or_btrfs_leaves_the_old_or_the_new() {
    swept_on_drivers("copies and moves", swept::COPIES);
}

#[test]
fn a_daemon_that_dies_at_a_backup_or_rebuild_on_dir_or_btrfs_leaves_the_old_or_the_new() {
    swept_on_drivers("backups, publications and rebuilds", swept::BACKUPS);
}

#[test]
fn a_daemon_that_dies_changing_volumes_on_dir_or_btrfs_leaves_the_old_or_the_new() {
    swept_on_drivers("custom volumes", swept::VOLUMES);
}

fn swept_on_drivers(what: &str, lists: &[&[Verb]]) {
    for (driver, mut tally) in [("dir", Tally::brief()), ("btrfs", Tally::brief())] {
        for verbs in lists {
            let mut subject = Subject::start_with_driver(driver);
            subject.import("busybox").expect("the image");
            kill_each(&mut subject, verbs, Again::Once, &mut tally);
        }
        tally.close(&format!("deaths with {what} on {driver}"));
    }
}

#[test]
fn a_daemon_that_dies_changing_a_running_instance_leaves_the_old_or_the_new() {
    all_of("deaths in changes of running instances", verbs::LIVE, Again::Once);
}

#[test]
fn a_daemon_that_dies_changing_profiles_and_images_leaves_the_old_or_the_new() {
    all_of("deaths in changes of profiles, images, aliases", verbs::ROWS, Again::Once);
}

#[test]
fn a_daemon_that_dies_changing_networks_leaves_the_old_or_the_new() {
    all_of("deaths in changes of networks", verbs::NETWORKS, Again::Once);
}

#[test]
fn a_daemon_that_dies_at_a_backup_publication_or_rebuild_leaves_the_old_or_the_new() {
    all_of("deaths in backups, publications and rebuilds", backup_verbs::VERBS, Again::Once);
}

#[test]
fn a_daemon_that_dies_at_what_it_does_by_the_clock_leaves_the_old_or_the_new() {
    all_of("deaths in what is done by the clock", clock_verbs::VERBS, Again::Once);
}

#[test]
fn a_daemon_that_dies_at_a_snapshot_or_copy_leaves_the_old_or_the_new() {
    all_of("deaths in snapshots and copies", snapshot_verbs::KEPT, Again::Once);
}

#[test]
fn a_daemon_that_dies_at_a_copy_or_move_between_pools_leaves_the_old_or_the_new() {
    all_of("deaths in copies and moves between pools", carry_verbs::CARRIED, Again::Once);
}

#[test]
fn a_daemon_that_dies_at_a_copy_or_move_to_another_pool_of_layers_leaves_the_old_or_the_new() {
    all_of("deaths in copies and moves between pools of layers", carry_verbs::LAYERED, Again::Once);
}

#[test]
fn a_daemon_that_dies_at_other_copies_and_moves_leaves_the_old_or_the_new() {
    let what = "deaths in plain copies and moves between pools, and in refreshing";
    all_of(what, carry_verbs::MORE, Again::Once);
}

#[test]
fn a_daemon_that_dies_bringing_a_copy_up_to_date_leaves_the_old_or_the_new() {
    all_of("deaths in copies brought up to date", carry_verbs::REFRESHED, Again::Once);
}

#[test]
fn a_daemon_that_dies_restoring_a_running_instance_leaves_the_old_or_the_new() {
    all_of("deaths in restoring", &[snapshot_verbs::RESTORE_RUNNING], Again::Once);
}

#[test]
fn a_daemon_that_dies_changing_volumes_leaves_the_old_or_the_new() {
    all_of("deaths in changes of custom volumes", volume_verbs::VERBS, Again::Once);
}

#[test]
fn a_daemon_that_dies_copying_or_refreshing_volumes_leaves_the_old_or_the_new() {
    all_of("deaths in copies, refreshings and snapshots of custom volumes", volume_verbs::MORE, Again::Once);
}

#[test]
fn a_daemon_that_dies_restoring_an_instance_with_its_volumes_leaves_the_old_or_the_new_of_all() {
    all_of("deaths in restoring with volumes", volume_verbs::TOGETHER, Again::Once);
}

#[test]
fn a_daemon_that_dies_changing_disks_leaves_the_old_or_the_new() {
    all_of("deaths in changes of disks", volume_verbs::DISKS, Again::Once);
}

#[test]
fn a_daemon_that_dies_changing_pools_leaves_the_old_or_the_new() {
    all_of("deaths in changes of storage pools", verbs::POOLS, Again::Once);
}

#[test]
fn a_daemon_that_dies_changing_pools_with_a_disk_leaves_the_old_or_the_new() {
    all_of("deaths in changes of storage pools with a disk", pool_verbs::DISKS, Again::Once);
}

#[test]
fn a_daemon_that_dies_at_what_is_done_with_instances_on_btrfs_leaves_the_old_or_the_new() {
    all_of("deaths with instances on btrfs", pool_verbs::INSTANCES, Again::Once);
}

/// Deaths in the middle of taking back a failure; of all failures and at each step when there is time.
fn undone(what: &str, all: &[&[Verb]]) {
    let mut subject = Subject::start();
    subject.import("busybox").expect("the image");
    let (mut tally, every) = (Tally::default(), machine::has_time());
    for verbs in all {
        kill_undoing(&mut subject, verbs, every, &mut tally);
    }
    tally.close(&format!("deaths in taking back: {what}"));
}

#[test]
fn a_daemon_that_dies_taking_back_a_change_of_instances_leaves_the_old_or_the_new() {
    undone("instances", &[verbs::LIFE, verbs::LIVE, power_verbs::VERBS, clock_verbs::VERBS]);
}

#[test]
fn a_daemon_that_dies_taking_back_a_change_of_objects_leaves_the_old_or_the_new() {
    undone(
        "profiles, images, networks, pools",
        &[verbs::ROWS, verbs::NETWORKS, verbs::POOLS, pool_verbs::DISKS, pool_verbs::INSTANCES],
    );
}

#[test]
fn a_daemon_that_dies_taking_back_a_change_of_volumes_leaves_the_old_or_the_new() {
    undone(
        "custom volumes",
        &[volume_verbs::VERBS, volume_verbs::MORE, volume_verbs::TOGETHER, volume_verbs::DISKS],
    );
}

#[test]
fn a_daemon_that_dies_taking_back_a_snapshot_or_backup_leaves_the_old_or_the_new() {
    undone("snapshots, backups, publications and rebuilds", &[snapshot_verbs::KEPT, backup_verbs::VERBS]);
}

#[test]
fn a_daemon_that_dies_taking_back_a_copy_or_move_leaves_the_old_or_the_new() {
    undone("copies and moves", swept::COPIES);
}

#[test]
fn a_sweep_finds_each_part_of_recovery_that_is_left_out() {
    let found = |part: &'static str, name: &str| {
        let verb = swept::all().find(|verb| verb.name == name).expect(name);
        let missed = missed_without(part, verb);
        assert!(missed > 0, "{name}: nobody noticed that the {part} is left out");
        eprintln!("without the {part}, {name}: noticed at {missed} steps");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| found("recovery of renames", "instance rename"));
        scope.spawn(|| found("recovery of trees", "snapshot restore, stopped"));
        scope.spawn(|| found("recovery of volumes", "volume rename"));
        scope.spawn(|| found("recovery from strays", "instance create"));
    });
}

/// Verbs after which recovery has something of its own to do.
const RECOVERED: &[&str] = &[
    "instance rename",
    "instance restart",
    "instance update, a changed nic in a running one",
    "volume rename",
    "restore with volumes",
    "volume copy brought up to date",
    "move to another pool and name",
    "rebuild from an image",
    "refresh of a copy",
];

#[test]
fn a_sweep_finds_what_is_left_by_a_death_while_it_is_taken_back() {
    let found = |part: &'static str, name: &str| {
        let verb = swept::all().find(|verb| verb.name == name).expect(name);
        assert!(undone_without(part, verb), "{name}: nobody noticed that the {part} is left out");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| found("recovery of renames", "instance rename"));
        scope.spawn(|| found("recovery of trees", "snapshot restore, stopped"));
        scope.spawn(|| found("recovery of volumes", "volume rename"));
        scope.spawn(|| found("recovery from strays", "instance create"));
    });
}

#[test]
fn a_daemon_that_dies_while_it_recovers_leaves_the_old_or_the_new() {
    let mut tally = Tally::brief();
    let mut dying = |verbs: &[Verb]| {
        let mut subject = Subject::start();
        subject.import("busybox").expect("the image");
        kill_each(&mut subject, verbs, Again::Dying, &mut tally);
    };
    if machine::has_time() {
        swept::LISTS.iter().for_each(|verbs| dying(verbs));
    } else {
        for name in RECOVERED {
            let verb = swept::all().find(|verb| verb.name == *name).expect(name);
            dying(std::slice::from_ref(verb));
        }
    }
    tally.close("deaths in recovery");
}
