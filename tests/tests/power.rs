//! The power is cut while a daemon works: what it acknowledged is on disk, what it did not is there wholly or not
//! at all, and the next daemon comes up by itself. The same when a disk ends under it.

use std::time::{Duration, Instant};

use cabin_tests::power::{Bench, Kind, ROUND, Setup, Verdict, Which, minutes};

const SETUP: Setup = Setup { state: Kind::Ext4, pool: Kind::Ext4, driver: "dir", plan: "off", seed: 1 };

/// Every filesystem with the daemon's directory and with a pool on it, every driver.
const SETUPS: &[Setup] = &[
    SETUP,
    Setup { state: Kind::Xfs, pool: Kind::Xfs, driver: "overlay", ..SETUP },
    Setup { state: Kind::Btrfs, pool: Kind::Btrfs, ..SETUP },
];

/// A round of work, and a look at that many of the copies that were made meanwhile.
fn round(setup: Setup, most: usize, time: Duration) -> Verdict {
    let bench = Bench::new(setup);
    bench.work_watched(ROUND).expect("the work");
    bench.judge(most, time)
}

#[test]
fn what_was_acknowledged_is_there_after_a_power_cut_at_any_moment() {
    let mut verdict = Verdict::default();
    match minutes() {
        None => {
            for setup in SETUPS {
                verdict.add(round(*setup, 6, Duration::from_secs(30)));
            }
        }
        Some(minutes) => {
            let end = Instant::now() + Duration::from_secs(minutes * 60);
            for (seed, setup) in (1..).zip(SETUPS.iter().cycle()) {
                if Instant::now() >= end {
                    break;
                }
                verdict.add(round(Setup { seed, ..*setup }, usize::MAX, end - Instant::now()));
            }
        }
    }
    verdict.close("power loss");
}

#[test]
fn a_power_cut_finds_what_is_not_sent_to_disk() {
    for plan in ["skip:sync of names", "skip:sync of trees", "skip:sync of the database"] {
        // Now and then the kernel sends by itself what nobody sent, and then nothing is lost.
        let noticed = (0..4).any(|_| {
            let bench = Bench::new(Setup { plan, ..SETUP });
            bench.work(&["import", "pool far", "instance create far"]).expect("the work");
            bench.judge(1, Duration::from_secs(30)).is_bad()
        });
        assert!(noticed, "nobody noticed `{plan}`");
    }
}

#[test]
fn a_disk_that_ends_under_the_daemon_costs_nothing_that_was_acknowledged() {
    let mut verdict = Verdict::default();
    for (which, log) in
        [(Which::State, false), (Which::State, true), (Which::Pool, false), (Which::Pool, true)]
    {
        for kind in [Kind::Ext4, Kind::Xfs] {
            let setup = Setup { state: kind, pool: kind, ..SETUP };
            verdict.add(ended(setup, which, log));
        }
    }
    verdict.close("disks that end");
}

/// What becomes of a daemon whose disk is gone from some moment on, and is mounted again later.
fn ended(setup: Setup, which: Which, log: bool) -> Verdict {
    let what = format!("{which:?} on {:?}, {} its log", setup.state, if log { "with" } else { "without" });
    let bench = Bench::new(setup);
    let (before, after) = ROUND.split_at(ROUND.len() / 2);
    bench.work(before).expect("the work");
    let refused = std::thread::scope(|scope| {
        let asked = bench.journal().hold().acknowledged + 2;
        let work = scope.spawn(|| bench.work_on(after));
        while bench.journal().hold().acknowledged < asked {
            std::thread::yield_now();
        }
        bench.disks().shut_down(which, log);
        work.join().expect("the work")
    });
    assert!(!refused.is_empty(), "{what}: a disk is gone, and nothing was refused");
    for why in &refused {
        // A 404 is what becomes of a second try to delete.
        let clear = why.contains("Input/output error") || why.contains("is missing") || why.contains("404");
        assert!(clear, "{what}: this does not tell of the disk: {why}");
    }
    bench.subject().call("GET", "/1.0", None).expect("an answer");
    bench.judge_remounted(&what)
}
