//! Frozen layers: shared in one act, kept while somebody stands on them, gone with the last.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use cabin_storage::{Activity, DriverKind, Layers, Origin, VolumeName};
use kit::{IMAGE, World, done, mount, paths, with_image};

fn web() -> VolumeName {
    VolumeName::container("web").unwrap()
}

fn with_volume() -> World {
    let world = with_image(DriverKind::Overlay);
    done(|undo| world.pool.create_from_image(&web(), IMAGE, undo));
    world
}

fn write(world: &World, volume: &VolumeName, text: &str) {
    let mounted = mount(world, volume);
    fs::write(mounted.root.join("state"), text).unwrap();
    fs::write(mounted.root.join(text), text).unwrap();
}

fn read(world: &World, volume: &VolumeName) -> String {
    fs::read_to_string(mount(world, volume).root.join("state")).unwrap()
}

fn snap(world: &World, name: &str) {
    done(|undo| world.pool.stage_snapshot(&web(), Activity::Stopped, name, undo)?.show(undo));
}

fn copy(world: &World, snapshot: &str, name: &str) -> VolumeName {
    let copy = VolumeName::container(name).unwrap();
    done(|undo| world.pool.stage_copy(Origin::Snapshot(&web(), snapshot), &copy, undo)?.show(undo));
    copy
}

fn layers(world: &World) -> usize {
    fs::read_dir(world.pool.path().join("layers")).unwrap().count() / 2
}

fn stands_on(world: &World, volume: &VolumeName) -> usize {
    match world.pool.layers(volume).unwrap() {
        Layers::Overlay { lowers, .. } => lowers.len() - 1,
        Layers::Dir { .. } => 0,
    }
}

#[test]
fn layers_go_with_the_last_that_stands_on_them_in_any_order() {
    let world = with_volume();
    let pool = &world.pool;
    for text in ["a", "b", "c"] {
        write(&world, &web(), text);
        snap(&world, text);
    }
    // Nothing new, so no new layer.
    snap(&world, "d");
    let twin = copy(&world, "b", "twin");
    assert_eq!((layers(&world), stands_on(&world, &web()), stands_on(&world, &twin)), (3, 3, 2));
    write(&world, &twin, "twin's");
    pool.delete_snapshot(&web(), "b").unwrap();
    pool.delete_snapshot(&web(), "d").unwrap();
    assert!(pool.sweep().unwrap().is_empty());
    pool.delete(&web()).unwrap();
    assert_eq!(layers(&world), 3, "a snapshot stands on the topmost");
    pool.delete_snapshot(&web(), "c").unwrap();
    assert_eq!(layers(&world), 2);
    assert_eq!(read(&world, &twin), "twin's");
    pool.delete_snapshot(&web(), "a").unwrap();
    assert_eq!(layers(&world), 2, "the copy stands on both");
    pool.delete(&twin).unwrap();
    assert_eq!(layers(&world), 0);
    assert!(pool.sweep().unwrap().is_empty());
}

/// Changes of all sorts over those of the rounds before.
fn change(world: &World, round: u32) {
    let mounted = mount(world, &web());
    let root = &mounted.root;
    fs::write(root.join("state"), round.to_string()).unwrap();
    let _ = fs::remove_dir_all(root.join("replaced"));
    fs::create_dir(root.join("replaced")).unwrap();
    fs::write(root.join("replaced").join(round.to_string()), "x").unwrap();
    fs::create_dir_all(root.join("grown/deep")).unwrap();
    fs::write(root.join("grown/deep").join(round.to_string()), "x").unwrap();
    // One of the image's is replaced once, and grows from then on.
    if round == 0 {
        fs::remove_dir_all(root.join("etc")).unwrap();
        fs::create_dir(root.join("etc")).unwrap();
    }
    fs::write(root.join("etc").join(round.to_string()), "x").unwrap();
    // There and gone by turns.
    let _ = fs::remove_dir_all(root.join("usr/turn"));
    if round % 2 == 1 {
        fs::create_dir_all(root.join("usr/turn")).unwrap();
        fs::write(root.join("usr/turn/one"), "x").unwrap();
        fs::hard_link(root.join("usr/turn/one"), root.join("usr/turn/two")).unwrap();
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
}

/// Whether a volume is as it was after a round, with the rounds before it that lead there.
fn check(world: &World, volume: &VolumeName, round: u32, rounds: &BTreeSet<u32>) {
    let mounted = mount(world, volume);
    let root = &mounted.root;
    let strings = |rounds: &BTreeSet<u32>| rounds.iter().map(u32::to_string).collect::<BTreeSet<_>>();
    assert_eq!(fs::read_to_string(root.join("state")).unwrap(), round.to_string());
    // Some programs refuse a file with more names than they gave it.
    assert_eq!(root.join("grown/deep").join(round.to_string()).metadata().unwrap().nlink(), 1);
    assert_eq!(names(&root.join("replaced")), strings(&BTreeSet::from([round])));
    assert_eq!(names(&root.join("grown/deep")), strings(rounds), "round {round}");
    assert_eq!(names(&root.join("etc")), strings(rounds));
    match round % 2 {
        0 => assert!(!root.join("usr/turn").exists()),
        _ => assert_eq!(root.join("usr/turn/two").metadata().unwrap().nlink(), 2),
    }
    assert!(root.join("usr/bin/init").exists());
    assert_eq!(root.metadata().unwrap().mode() & 0o7777, 0o1775);
}

#[test]
fn layers_are_put_together_before_they_are_too_many() {
    let world = with_volume();
    let (mut most, mut rounds) = (0, BTreeSet::new());
    let mut kept = BTreeMap::new();
    for round in 0..60u32 {
        change(&world, round);
        rounds.insert(round);
        snap(&world, &format!("s{round}"));
        kept.insert(round, rounds.clone());
        if round % 13 == 12 {
            let back = round / 2;
            done(|undo| world.pool.stage_restore(&web(), &format!("s{back}"), "m", undo)?.show(undo));
            world.pool.forget_replaced(&web()).unwrap();
            rounds = kept[&back].clone();
        }
        most = most.max(stands_on(&world, &web()));
    }
    assert_eq!(most, 20);
    for (round, rounds) in kept.iter().step_by(7) {
        let twin = copy(&world, &format!("s{round}"), "twin");
        check(&world, &twin, *round, rounds);
        world.pool.delete(&twin).unwrap();
    }
    for round in kept.keys() {
        world.pool.delete_snapshot(&web(), &format!("s{round}")).unwrap();
    }
    check(&world, &web(), 59, &rounds);
    world.pool.delete(&web()).unwrap();
    assert_eq!(layers(&world), 0);
    assert!(world.pool.sweep().unwrap().is_empty());
}

#[test]
fn layers_that_nobody_needs_are_put_together_without_copying() {
    let world = with_volume();
    let big = || fs::metadata(world.pool.path().join("containers/web/u/big"));
    fs::write(mount(&world, &web()).root.join("big"), vec![1; 1 << 20]).unwrap();
    let inode = big().unwrap().ino();
    let mut rounds = BTreeSet::new();
    for round in 0..45u32 {
        change(&world, round);
        rounds.insert(round);
        snap(&world, "s");
        world.pool.delete_snapshot(&web(), "s").unwrap();
        assert!(stands_on(&world, &web()) <= 20);
        assert_eq!(layers(&world), stands_on(&world, &web()));
    }
    check(&world, &web(), 44, &rounds);
    assert!(big().is_err(), "it is in a layer by now");
    let of_layers = fs::read_dir(world.pool.path().join("layers")).unwrap();
    let found: Vec<_> =
        of_layers.filter_map(|it| fs::metadata(it.unwrap().path().join("u/big")).ok()).collect();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].ino(), found[0].nlink()), (inode, 1), "the very file");
}

#[test]
fn what_a_stopped_one_changed_costs_nothing_to_keep() {
    let world = with_volume();
    let cost = |files: usize, name: &str| {
        {
            let mounted = mount(&world, &web());
            let dir = mounted.root.join(name);
            fs::create_dir(&dir).unwrap();
            for file in 0..files {
                fs::write(dir.join(file.to_string()), [7; 4096]).unwrap();
            }
        }
        rustix::fs::sync();
        let before = paths(world.pool.path()).len();
        let begun = Instant::now();
        snap(&world, name);
        let taken = begun.elapsed();
        assert!(paths(world.pool.path()).len() < before + 20, "nothing is copied");
        assert!(world.pool.snapshot_usage(&web(), name).unwrap() >= files as u64 * 4096);
        let begun = Instant::now();
        done(|undo| world.pool.stage_restore(&web(), name, "m", undo)?.show(undo));
        let restored = begun.elapsed();
        world.pool.forget_replaced(&web()).unwrap();
        println!("{files} files changed: snapshot {taken:?}, restore {restored:?}");
    };
    cost(10, "few");
    cost(5_000, "many");
}

#[test]
fn volumes_and_snapshots_of_an_earlier_version_go_on() {
    let world = with_volume();
    // As that left them: a snapshot with files of its own, and a pool without a place for layers.
    let running = Activity::Running;
    write(&world, &web(), "old");
    done(|undo| world.pool.stage_snapshot(&web(), running, "s", undo)?.show(undo));
    fs::remove_dir(world.pool.path().join("layers")).unwrap();
    let again = cabin_storage::Storage::new(world.dir.path()).unwrap().open_pool(&world.spec).unwrap();
    assert!(again.sweep().unwrap().is_empty());
    write(&world, &web(), "new");
    let twin = copy(&world, "s", "twin");
    assert_eq!((read(&world, &twin), read(&world, &web())), ("old".into(), "new".into()));
    // Its files became a layer when somebody first shared them.
    assert_eq!(stands_on(&world, &twin), 1);
    again.delete_snapshot(&web(), "s").unwrap();
    assert_eq!(read(&world, &twin), "old");
}
