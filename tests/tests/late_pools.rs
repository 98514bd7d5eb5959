//! The daemon dies at each step of what is done in a pool, and the pool is not there when the next one starts: once it is
//! back, and somebody has changed what lies in it, all is as before or as after. What goes on meanwhile is in
//! `unfinished.rs`.

use cabin_tests::subject::Subject;
use cabin_tests::sweep::{Again, Tally, kill_each};
use cabin_tests::swept;
use cabin_tests::verbs::Verb;

fn all_of(what: &str, lists: &[&[Verb]]) {
    for (driver, mut tally) in [("overlay", Tally::brief()), ("dir", Tally::brief())] {
        for verbs in lists {
            let mut subject = Subject::start_with_driver(driver);
            subject.import("busybox").expect("the image");
            kill_each(&mut subject, verbs, Again::BeforeItsPool, &mut tally);
        }
        tally.close(&format!("deaths with {what} on {driver} that comes late"));
    }
}

#[test]
fn a_snapshot_cut_short_in_a_pool_that_comes_late_leaves_the_old_or_the_new() {
    all_of("snapshots", &swept::SNAPSHOTS[..1]);
}

#[test]
fn a_copy_or_move_cut_short_with_a_pool_that_comes_late_leaves_the_old_or_the_new() {
    all_of("copies and moves", swept::COPIES);
}

#[test]
fn a_backup_or_rebuild_cut_short_in_a_pool_that_comes_late_leaves_the_old_or_the_new() {
    all_of("backups, publications and rebuilds", swept::BACKUPS);
}

#[test]
fn a_change_of_volumes_cut_short_in_a_pool_that_comes_late_leaves_the_old_or_the_new() {
    all_of("custom volumes", swept::VOLUMES);
}
