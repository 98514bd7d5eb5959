//! Between two pools of layers: each layer goes once, whoever stands on it, and goes again when nobody does.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use cabin_storage::{Activity, Destination, DriverKind, ImageGone, Origin, Pool, PoolSpec, VolumeName};
use kit::{IMAGE, World, done, mount, paths, refused, with_image};

fn volume(name: &str) -> VolumeName {
    VolumeName::container(name).unwrap()
}

/// A volume whose three snapshots and own tree each have something that the one before has not, and lack something
/// that it has.
fn grown() -> World {
    let world = with_image(DriverKind::Overlay);
    done(|undo| world.pool.create_from_image(&volume("web"), IMAGE, undo));
    for round in ["a", "b", "c"] {
        change(&world, round);
        done(|undo| world.pool.stage_snapshot(&volume("web"), Activity::Stopped, round, undo)?.show(undo));
    }
    change(&world, "own");
    world
}

fn change(world: &World, round: &str) {
    let mounted = mount(world, &volume("web"));
    let root = mounted.root.as_path();
    fs::write(root.join("state"), round).unwrap();
    let _ = fs::remove_dir_all(root.join("etc"));
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc").join(round), vec![7; 200_000]).unwrap();
    fs::hard_link(root.join("etc").join(round), root.join(format!("again-{round}"))).unwrap();
    let _ = fs::remove_file(root.join("usr/bin/again"));
    rustix::fs::setxattr(root, "user.round", round.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
}

/// A second pool beside the first, and a world that has it.
fn other(world: &World) -> Arc<Pool> {
    let spec = PoolSpec {
        name: "far".into(),
        driver: DriverKind::Overlay,
        source: world.storage.default_source("far"),
        disk: None,
    };
    done(|undo| world.storage.create_pool(&spec, undo))
}

fn carry(world: &World, far: &Pool, to: Destination<'_>, origin: Origin<'_>) -> u64 {
    let mut came = 0;
    done(|undo| {
        if !far.has_image(IMAGE)? {
            far.take_image(&world.pool, IMAGE, undo)?;
        }
        far.stage_layers(to, (&world.pool, origin), &mut |bytes| came += bytes, undo)?.show(undo)
    });
    came
}

fn carry_all(world: &World, far: &Pool, name: &str) {
    let (web, to) = (volume("web"), volume(name));
    for snapshot in ["a", "b", "c"] {
        carry(world, far, Destination::Snapshot(&to, snapshot), Origin::Snapshot(&web, snapshot));
    }
    carry(world, far, Destination::New(&to), Origin::Volume(&web, Activity::Stopped));
}

/// The layers of a pool, each with the inode of its directory.
fn layers(pool: &Pool) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(pool.path().join("layers")).unwrap().map(|it| it.unwrap());
    let dirs = entries.filter(|entry| entry.path().is_dir());
    dirs.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().ino())).collect()
}

/// What a tree shows, path by path.
fn shown(pool: &Arc<Pool>, world: &World, origin: &VolumeName) -> BTreeMap<PathBuf, String> {
    let mounted = kit::mount_of(pool, world, origin);
    let told = |path: PathBuf| {
        let whole = mounted.root.join(&path);
        let meta = whole.symlink_metadata().unwrap();
        let content = if meta.is_file() { fs::read(&whole).unwrap() } else { Vec::new() };
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        let mut note = [0u8; 16];
        let noted =
            rustix::fs::lgetxattr(&whole, "user.round", &mut note[..]).map(|len| note[..len].to_vec());
        let (mode, owner, time) = (meta.mode(), (meta.uid(), meta.gid()), (meta.mtime(), meta.mtime_nsec()));
        let said =
            format!("{mode:o} {owner:?} {links} {time:?} {noted:?} {}", String::from_utf8_lossy(&content));
        (path, said)
    };
    paths(&mounted.root).into_iter().map(told).collect()
}

/// A new volume as a snapshot was, to be looked at.
fn opened(pool: &Arc<Pool>, from: &VolumeName, snapshot: &str) -> VolumeName {
    let name = volume("opened");
    pool.delete(&name).unwrap();
    done(|undo| pool.stage_copy(Origin::Snapshot(from, snapshot), &name, undo)?.show(undo));
    name
}

#[test]
fn a_volume_with_its_snapshots_comes_as_it_was_and_each_layer_once() {
    let world = grown();
    let far = other(&world);
    carry_all(&world, &far, "copy");
    assert_eq!(layers(&far).len(), 4, "three snapshots and what came since");
    assert_eq!(layers(&far).keys().collect::<Vec<_>>(), layers(&world.pool).keys().collect::<Vec<_>>());
    assert!(far.path().join(format!("images/{IMAGE}/rootfs/etc/old")).exists());
    let same = |ours: &VolumeName, theirs: &VolumeName, told: &str| {
        assert_eq!(shown(&far, &world, theirs), shown(&world.pool, &world, ours), "{told}");
    };
    same(&volume("web"), &volume("copy"), "its own tree");
    for snapshot in ["a", "b", "c"] {
        let ours = opened(&world.pool, &volume("web"), snapshot);
        same(&ours, &opened(&far, &volume("copy"), snapshot), snapshot);
    }
    far.delete(&volume("opened")).unwrap();
    assert!(far.sweep().unwrap().is_empty());
    // What comes from there later has only what is new to bring.
    let before = layers(&far);
    change(&world, "later");
    let (web, copy) = (volume("web"), volume("copy"));
    carry(&world, &far, Destination::Replaces(&copy, "m"), Origin::Volume(&web, Activity::Stopped));
    far.forget_replaced(&copy).unwrap();
    same(&web, &copy, "brought up to date");
    let after = layers(&far);
    assert_eq!(after.len(), 5);
    assert!(
        before.iter().all(|(layer, inode)| after[layer] == *inode),
        "those that were here did not come again"
    );
    // In any order, all go that nobody stands on.
    for snapshot in ["b", "a", "c"] {
        far.delete_snapshot(&copy, snapshot).unwrap();
    }
    assert_eq!(layers(&far).len(), 5);
    far.delete(&copy).unwrap();
    assert_eq!(layers(&far).len(), 0);
    assert!(far.sweep().unwrap().is_empty());
}

#[test]
fn what_runs_comes_with_all_it_has_and_the_source_is_as_before() {
    let world = grown();
    let far = other(&world);
    let before = layers(&world.pool);
    let (web, copy) = (volume("web"), volume("copy"));
    carry(&world, &far, Destination::New(&copy), Origin::Volume(&web, Activity::Running));
    assert_eq!(layers(&world.pool), before, "nothing is frozen under somebody's hands");
    assert_eq!(layers(&far).len(), 3);
    assert_eq!(shown(&far, &world, &copy), shown(&world.pool, &world, &web));
}

#[test]
fn what_fails_on_the_way_leaves_neither_pool_changed() {
    let world = grown();
    let far = other(&world);
    let (web, copy) = (volume("web"), volume("copy"));
    let origin = Origin::Volume(&web, Activity::Stopped);
    // Its image is not there.
    refused(|undo| far.stage_layers(Destination::New(&copy), (&world.pool, origin), &mut |_| (), undo));
    done(|undo| far.take_image(&world.pool, IMAGE, undo));
    // Of its four layers only those below the topmost come: that one cannot be read.
    carry(&world, &far, Destination::New(&copy), Origin::Snapshot(&web, "a"));
    let before = (layers(&world.pool), paths(far.path()));
    done(|undo| world.pool.stage_snapshot(&web, Activity::Stopped, "d", undo)?.show(undo));
    let top = layers(&world.pool).into_keys().find(|layer| !before.0.contains_key(layer)).unwrap();
    let own = world.pool.path().join("layers").join(top).join("u");
    fs::rename(&own, own.with_extension("away")).unwrap();
    fs::write(&own, "").unwrap();
    let (to, from) = (volume("second"), Origin::Snapshot(&web, "d"));
    refused(|undo| far.stage_layers(Destination::New(&to), (&world.pool, from), &mut |_| (), undo));
    assert_eq!(paths(far.path()), before.1);
    fs::remove_file(&own).unwrap();
    fs::rename(own.with_extension("away"), &own).unwrap();
    carry(&world, &far, Destination::New(&to), from);
    assert_eq!(shown(&far, &world, &to), shown(&world.pool, &world, &web));
}

#[test]
fn copies_of_the_same_that_come_and_go_at_once_share_their_layers() {
    let world = grown();
    let far = other(&world);
    done(|undo| far.take_image(&world.pool, IMAGE, undo));
    // Frozen before, as whoever wants a volume twice at once must wait for that.
    let sources: Vec<VolumeName> = (0..4).map(|number| volume(&format!("source{number}"))).collect();
    for source in &sources {
        done(|undo| world.pool.stage_copy(Origin::Snapshot(&volume("web"), "c"), source, undo)?.show(undo));
    }
    std::thread::scope(|scope| {
        for source in &sources {
            let (world, far) = (&world, &far);
            scope.spawn(move || {
                for _ in 0..25 {
                    carry(world, far, Destination::New(source), Origin::Volume(source, Activity::Stopped));
                    assert!(far.layers(source).is_ok());
                    far.delete(source).unwrap();
                }
            });
        }
    });
    assert_eq!(layers(&far).len(), 0);
    assert!(far.sweep().unwrap().is_empty());
}

#[test]
fn an_image_that_was_deleted_goes_with_the_last_that_came_with_it() {
    let world = grown();
    let far = other(&world);
    assert_eq!(world.pool.delete_image(IMAGE).unwrap(), ImageGone::Kept);
    let (web, copy) = (volume("web"), volume("copy"));
    carry(&world, &far, Destination::New(&copy), Origin::Snapshot(&web, "a"));
    assert!(far.is_unwanted(IMAGE).unwrap());
    assert!(far.has_image(IMAGE).unwrap());
    far.delete(&copy).unwrap();
    assert!(!far.has_image(IMAGE).unwrap());
    assert!(world.pool.has_image(IMAGE).unwrap());
}

#[test]
fn an_image_stays_while_something_that_is_not_shown_yet_stands_on_it() {
    let world = grown();
    let far = other(&world);
    done(|undo| far.take_image(&world.pool, IMAGE, undo));
    let (web, copy) = (volume("web"), volume("copy"));
    done(|undo| {
        let origin = Origin::Snapshot(&web, "b");
        let staged = far.stage_layers(Destination::New(&copy), (&world.pool, origin), &mut |_| (), undo)?;
        assert_eq!(far.delete_image(IMAGE)?, ImageGone::Kept);
        staged.show(undo)
    });
    assert!(far.layers(&copy).is_ok());
    far.delete(&copy).unwrap();
    assert!(!far.has_image(IMAGE).unwrap());
}

#[test]
fn files_of_more_names_than_the_other_filesystem_allows_come_as_several() {
    let world = with_image(kit::Setup { driver: DriverKind::Overlay, ground: Some("xfs") });
    done(|undo| world.pool.create_from_image(&volume("web"), IMAGE, undo));
    let upper = world.pool.path().join("containers/web/u/many");
    fs::create_dir(&upper).unwrap();
    fs::write(upper.join("first"), "x").unwrap();
    const NAMES: usize = 65_100;
    for number in 1..NAMES {
        fs::hard_link(upper.join("first"), upper.join(number.to_string())).unwrap();
    }
    let ground = tempfile::tempdir_in("/var/tmp").unwrap();
    let _disk = kit::Disk::new("ext4", ground.path());
    let source = ground.path().join("pool");
    fs::create_dir(&source).unwrap();
    let spec = PoolSpec { name: "far".into(), driver: DriverKind::Overlay, source, disk: None };
    let far = done(|undo| world.storage.create_pool(&spec, undo));
    carry(&world, &far, Destination::New(&volume("web")), Origin::Volume(&volume("web"), Activity::Stopped));
    let mounted = kit::mount_of(&far, &world, &volume("web"));
    let inodes =
        fs::read_dir(mounted.root.join("many")).unwrap().map(|it| it.unwrap().metadata().unwrap().ino());
    let inodes: Vec<u64> = inodes.collect();
    assert_eq!(inodes.len(), NAMES);
    assert_eq!(inodes.into_iter().collect::<std::collections::BTreeSet<_>>().len(), 2);
}

#[test]
fn a_layer_whose_file_came_to_disk_without_its_text_is_put_right() {
    let world = grown();
    let far = other(&world);
    carry_all(&world, &far, "copy");
    let wanted = shown(&far, &world, &volume("copy"));
    for layer in layers(&far).keys() {
        fs::write(far.path().join("layers").join(format!("{layer}.ref")), "").unwrap();
    }
    assert!(far.layers(&volume("copy")).is_err());
    assert!(far.sweep().unwrap().is_empty());
    assert_eq!(shown(&far, &world, &volume("copy")), wanted);
}
