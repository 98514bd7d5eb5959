//! Frozen layers: shared in one act, kept while somebody stands on them, gone with the last.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::fs;
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

#[test]
fn no_volume_stands_on_more_layers_than_can_be_mounted() {
    let world = with_volume();
    let mut most = 0;
    for round in 0..60 {
        write(&world, &web(), &round.to_string());
        snap(&world, &format!("s{round}"));
        if round % 7 == 0 {
            let name = format!("s{}", round / 2);
            done(|undo| world.pool.stage_restore(&web(), &name, "m", undo)?.show(undo));
            world.pool.forget_replaced(&web()).unwrap();
        }
        most = most.max(stands_on(&world, &web()));
    }
    assert!((10..=32).contains(&most), "{most}");
    for round in (0..60).step_by(9) {
        let twin = copy(&world, &format!("s{round}"), "twin");
        assert_eq!(read(&world, &twin), round.to_string());
        assert!(mount(&world, &twin).root.join("usr/bin/init").exists());
        world.pool.delete(&twin).unwrap();
    }
    for round in 0..60 {
        world.pool.delete_snapshot(&web(), &format!("s{round}")).unwrap();
    }
    assert_eq!(read(&world, &web()), "59");
    world.pool.delete(&web()).unwrap();
    assert_eq!(layers(&world), 0);
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
