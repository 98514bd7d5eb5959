//! What only btrfs has: subvolumes that guests make, quotas, and figures that cost nothing.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::fs;
use std::path::{Path, PathBuf};

use cabin_storage::{Activity, DriverKind, VolumeName};
use cabin_sys::btrfs::{self, Access};
use cabin_sys::dir::HostDir;
use kit::{IMAGE, World, done, with_image};

fn web() -> VolumeName {
    VolumeName::container("web").unwrap()
}

fn with_volume() -> World {
    let world = with_image(DriverKind::Btrfs);
    done(|undo| world.pool.create_from_image(&web(), IMAGE, undo));
    world
}

fn tree(world: &World) -> PathBuf {
    world.pool.path().join("containers/web/rootfs")
}

fn open(path: &Path) -> HostDir {
    HostDir::open(path).unwrap()
}

/// How many subvolumes the filesystem of a test holds in all.
fn subvolumes(world: &World) -> usize {
    btrfs::subvolumes_in(open(world.dir.path())).unwrap().len()
}

#[test]
fn subvolumes_of_a_guest_go_with_its_volume_however_deep_and_read_only() {
    let world = with_volume();
    assert_eq!(subvolumes(&world), 2, "an image and a volume");
    // One in another, read-only, and one whose path is longer than any path may be.
    let root = open(&tree(&world));
    btrfs::create_subvolume(&root, "own").unwrap();
    let own = root.open_dir("own").unwrap();
    btrfs::create_subvolume(&own, "inner").unwrap();
    fs::write(own.path().join("inner/file"), b"x").unwrap();
    btrfs::snapshot(own.open_dir("inner").unwrap(), &own, "frozen", Access::ReadOnly).unwrap();
    btrfs::set_access(&own, Access::ReadOnly).unwrap();
    let mut at = root.create_dir("deep", 0o700).unwrap();
    for _ in 0..300 {
        at = at.create_dir(&"d".repeat(100), 0o700).unwrap();
    }
    btrfs::create_subvolume(&at, "bottom").unwrap();
    let bottom = at.open_dir("bottom").unwrap();
    bottom.replace("file", b"x", 0o600).unwrap();
    btrfs::set_access(&bottom, Access::ReadOnly).unwrap();
    drop((at, bottom));
    // A snapshot has empty directories in their place.
    done(|undo| world.pool.stage_snapshot(&web(), Activity::Running, "s", undo)?.show(undo));
    let snapshot = world.pool.path().join("containers-snapshots/web/s/rootfs");
    assert!(fs::read_dir(snapshot.join("own")).unwrap().next().is_none());
    assert!(fs::write(snapshot.join("new"), b"").is_err(), "a snapshot is read-only");
    done(|undo| world.pool.stage_restore(&web(), "s", "m", undo)?.show(undo));
    fs::write(tree(&world).join("new"), b"").unwrap();
    world.pool.forget_replaced(&web()).unwrap();
    world.pool.delete_snapshot(&web(), "s").unwrap();
    world.pool.delete(&web()).unwrap();
    assert_eq!(subvolumes(&world), 1, "only the image's is left");
}

#[test]
fn a_volume_takes_what_was_written_since_it_parted_from_its_image() {
    let world = with_volume();
    assert_eq!(world.pool.usage(&web()).unwrap(), 0);
    fs::write(tree(&world).join("big"), vec![7; 3 << 20]).unwrap();
    world.pool.sync().unwrap();
    let took = |bytes: u64| (3 << 20..4 << 20).contains(&bytes);
    assert!(took(world.pool.usage(&web()).unwrap()));
    done(|undo| world.pool.stage_snapshot(&web(), Activity::Running, "s", undo)?.show(undo));
    assert!(took(world.pool.snapshot_usage(&web(), "s").unwrap()));
    fs::remove_file(tree(&world).join("big")).unwrap();
    world.pool.sync().unwrap();
    assert!(world.pool.usage(&web()).unwrap() < 1 << 20);
    done(|undo| world.pool.stage_restore(&web(), "s", "m", undo)?.show(undo));
    assert!(took(world.pool.usage(&web()).unwrap()));
}
