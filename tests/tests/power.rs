//! The power is cut while a daemon works for several clients at once: what it acknowledged is on disk, what it did not is there wholly or not
//! at all, and the next daemon comes up by itself. The same when a disk ends under it.

use std::time::{Duration, Instant};

use cabin_tests::machine::{every, time};
use cabin_tests::power::{Bench, Kind, ROUND, Setup, Verdict, Which, minutes};

const SETUP: Setup = Setup { state: Kind::Ext4, pool: Kind::Ext4, driver: "dir", plan: "off", seed: 1 };

/// Every filesystem with the daemon's directory and with a pool on it, every driver.
const SETUPS: &[Setup] = &[
    SETUP,
    Setup { state: Kind::Xfs, pool: Kind::Xfs, driver: "overlay", ..SETUP },
    Setup { state: Kind::Btrfs, pool: Kind::Btrfs, driver: "btrfs", ..SETUP },
];

/// More of them, for who has the time.
const MORE: &[Setup] = &[
    Setup { driver: "overlay", ..SETUP },
    Setup { state: Kind::Xfs, pool: Kind::Btrfs, driver: "btrfs", ..SETUP },
    Setup { state: Kind::Btrfs, pool: Kind::Btrfs, driver: "overlay", ..SETUP },
    Setup { state: Kind::Btrfs, pool: Kind::Xfs, driver: "dir", ..SETUP },
];

#[test]
fn what_was_acknowledged_is_there_after_a_power_cut_at_any_moment() {
    let mut verdict = Verdict::default();
    let Some(minutes) = minutes() else {
        for setup in SETUPS {
            let bench = Bench::new(*setup);
            let (done, refused) = bench.watched(|| bench.beside_others(|| bench.work(ROUND)));
            done.expect("the work");
            assert_eq!(refused, Vec::<String>::new());
            verdict.add(bench.judge(4, time(Duration::from_secs(30))));
        }
        return verdict.close("power loss");
    };
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    // Another order and other setups in each run; the number that is printed brings them again.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    let first = std::env::var("CABIN_TORTURE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(now);
    let setups: Vec<&Setup> = SETUPS.iter().chain(MORE).collect();
    for seed in first.. {
        let setup = setups[usize::try_from(seed).unwrap_or(0) % setups.len()];
        if Instant::now() >= end {
            break;
        }
        let bench = Bench::new(Setup { seed, ..*setup });
        let (done, beside) = bench.watched(|| bench.beside_others(|| bench.work(ROUND)));
        done.expect("the work");
        let (mut refused, more) = bench.watched(|| bench.beside_others(|| bench.work_freely(60)));
        refused.extend(beside.into_iter().chain(more));
        let found = bench.judge(25, end.saturating_duration_since(Instant::now()));
        eprintln!("{setup:?}, seed {seed}: {} images; refused: {refused:?}", found.images);
        verdict.add(found);
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
            bench.judge(1, time(Duration::from_secs(30))).is_bad()
        });
        assert!(noticed, "nobody noticed `{plan}`");
    }
}

#[test]
fn a_first_start_that_the_power_cut_short_is_finished_by_the_next() {
    let mut verdict = Verdict::default();
    let stride = if minutes().is_some() { 1 } else { 5 * every() };
    let kinds = [Kind::Ext4, Kind::Xfs, Kind::Btrfs];
    for (step, kind) in (1..).step_by(stride).zip(kinds.iter().cycle()) {
        let Some(found) = Bench::first_start(*kind, step) else { break };
        verdict.add(found);
    }
    verdict.close("first starts");
}

#[test]
fn a_disk_that_ends_under_the_daemon_costs_nothing_that_was_acknowledged() {
    let mut ways = vec![
        (Kind::Ext4, Which::State, false),
        (Kind::Xfs, Which::State, true),
        (Kind::Xfs, Which::Pool, false),
        (Kind::Ext4, Which::Pool, true),
    ];
    if minutes().is_some() {
        ways.extend(ways.clone().iter().map(|(kind, which, log)| (*kind, *which, !log)));
    }
    let mut verdict = Verdict::default();
    for (kind, which, log) in ways {
        verdict.add(ended(Setup { state: kind, pool: kind, ..SETUP }, which, log));
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
        let clear = ["Input/output error", "is missing", "404", "broke off"];
        assert!(clear.iter().any(|word| why.contains(word)), "{what}: this does not tell of the disk: {why}");
    }
    bench.subject().call("GET", "/1.0", None).expect("an answer");
    bench.judge_remounted(&what)
}
