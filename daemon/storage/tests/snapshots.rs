//! Snapshots, restoring and copies, asked of every driver.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use cabin_storage::{DriverKind, Error, ImageGone, Kind, Layers, Origin, VolumeName};
use cabin_undo::atomically;
use kit::{DRIVERS, IMAGE, World, done, paths, refused, with_image};

fn web() -> VolumeName {
    VolumeName::container("web").unwrap()
}

/// The directory whose files are the volume's own.
fn own(world: &World, volume: &VolumeName) -> PathBuf {
    match world.pool.layers(volume).unwrap() {
        Layers::Dir { path } => path,
        Layers::Overlay { state, .. } => state.join("u"),
    }
}

fn with_volume(driver: DriverKind) -> World {
    let world = with_image(driver);
    done(|undo| world.pool.create_from_image(&web(), IMAGE, undo));
    world
}

fn write(world: &World, text: &str) {
    fs::write(own(world, &web()).join("state"), text).unwrap();
}

fn read(world: &World, volume: &VolumeName) -> String {
    fs::read_to_string(own(world, volume).join("state")).unwrap()
}

fn snap(world: &World, name: &str) {
    done(|undo| world.pool.stage_snapshot(&web(), name, undo)?.show(undo));
}

fn restore(world: &World, name: &str, mark: &str) {
    done(|undo| world.pool.stage_restore(&web(), name, mark, undo)?.show(undo));
    world.pool.forget_replaced(&web()).unwrap();
}

#[test]
fn a_snapshot_brings_back_what_was_and_older_ones_do_too() {
    for driver in DRIVERS {
        let world = with_volume(driver);
        for text in ["one", "two", "three"] {
            write(&world, text);
            snap(&world, text);
        }
        write(&world, "now");
        assert_eq!(world.pool.list_snapshots(&web()).unwrap(), ["one", "three", "two"]);
        assert!(world.pool.snapshot_usage(&web(), "one").unwrap() > 0);
        for text in ["one", "three", "two"] {
            restore(&world, text, text);
            assert_eq!(read(&world, &web()), text, "{driver:?}");
            assert_eq!(world.pool.restored(&web()).unwrap().as_deref(), Some(text));
            assert_eq!(world.pool.image_of(&web()).unwrap().as_deref(), Some(IMAGE));
        }
        // In any order, and the others are as before.
        world.pool.delete_snapshot(&web(), "two").unwrap();
        world.pool.delete_snapshot(&web(), "two").unwrap();
        restore(&world, "one", "again");
        assert_eq!(read(&world, &web()), "one");
        world.pool.delete_snapshot(&web(), "one").unwrap();
        restore(&world, "three", "last");
        assert_eq!(read(&world, &web()), "three");
        world.pool.delete_snapshot(&web(), "three").unwrap();
        assert!(world.pool.owners_of_snapshots().unwrap().is_empty());
    }
}

#[test]
fn a_snapshot_keeps_all_that_files_are() {
    for driver in DRIVERS {
        let world = with_volume(driver);
        let root = own(&world, &web());
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/a"), "linked").unwrap();
        fs::hard_link(root.join("d/a"), root.join("d/b")).unwrap();
        fs::set_permissions(root.join("d/a"), fs::Permissions::from_mode(0o4711)).unwrap();
        symlink("/etc/shadow", root.join("d/link")).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(root.join("d"), "user.note", b"kept", flags).unwrap();
        // As an overlay writes: something of the image that is gone, and a directory that hides another.
        rustix::fs::setxattr(root.join("d"), "trusted.overlay.opaque", b"y", flags).unwrap();
        let node = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, root.join("gone"), node, 0.into(), 0).unwrap();
        let sparse = fs::File::create(root.join("sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        snap(&world, "s");
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir(&root).unwrap();
        restore(&world, "s", "m");
        let root = own(&world, &web());
        let a = root.join("d/a").metadata().unwrap();
        assert_eq!((a.nlink(), a.mode() & 0o7777), (2, 0o4711));
        assert_eq!(fs::read_link(root.join("d/link")).unwrap(), Path::new("/etc/shadow"));
        let gone = root.join("gone").metadata().unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        assert!(root.join("sparse").metadata().unwrap().blocks() < 1000);
        let mut value = [0u8; 16];
        assert_eq!(rustix::fs::getxattr(root.join("d"), "user.note", &mut value[..]).unwrap(), 4);
        // A word of the overlay's is kept where there is an overlay, and nowhere else.
        let opaque = rustix::fs::getxattr(root.join("d"), "trusted.overlay.opaque", &mut value[..]);
        assert_eq!(opaque.is_ok(), driver == DriverKind::Overlay, "{driver:?}");
        if driver == DriverKind::Overlay {
            let layers = world.pool.layers(&web()).unwrap();
            let Layers::Overlay { lowers, state } = layers else { panic!("{layers:?}") };
            assert!(lowers[0].ends_with(format!("{IMAGE}/rootfs")));
            assert!(state.join("w").read_dir().unwrap().next().is_none());
        }
    }
}

#[test]
fn names_are_refused_and_taken_ones_stay() {
    for driver in DRIVERS {
        let world = with_volume(driver);
        let pool = &world.pool;
        write(&world, "one");
        snap(&world, "a:b");
        for bad in ["", ".", "..", "a/b", "a b", "-x", ".deleting-a", ".staging-a", "ä"] {
            let error = refused(|undo| pool.stage_snapshot(&web(), bad, undo)?.show(undo));
            assert_eq!(error.kind(), Kind::Invalid, "{bad:?}");
            assert_eq!(pool.delete_snapshot(&web(), bad).unwrap_err().kind(), Kind::Invalid);
            let error = refused(|undo| pool.rename_snapshot(&web(), "a:b", bad, undo));
            assert_eq!(error.kind(), Kind::Invalid, "{bad:?}");
        }
        let error = refused(|undo| pool.stage_snapshot(&web(), "a:b", undo)?.show(undo));
        assert_eq!(error.kind(), Kind::Conflict);
        snap(&world, "c");
        let error = refused(|undo| pool.rename_snapshot(&web(), "c", "a:b", undo));
        assert_eq!(error.kind(), Kind::Conflict);
        let none = VolumeName::container("none").unwrap();
        assert_eq!(refused(|undo| pool.stage_snapshot(&none, "s", undo)?.show(undo)).kind(), Kind::NotFound);
        assert_eq!(refused(|undo| pool.rename_snapshot(&web(), "x", "y", undo)).kind(), Kind::NotFound);
        let error = refused(|undo| pool.stage_restore(&web(), "x", "m", undo)?.show(undo));
        assert_eq!(error.kind(), Kind::NotFound);
        done(|undo| pool.rename_snapshot(&web(), "c", "d", undo));
        assert_eq!(pool.list_snapshots(&web()).unwrap(), ["a:b", "d"]);
    }
}

#[test]
fn a_restoring_that_fails_later_gives_the_old_tree_back() {
    for driver in DRIVERS {
        let world = with_volume(driver);
        write(&world, "old");
        snap(&world, "s");
        write(&world, "new");
        let before = paths(world.pool.path());
        let failed = atomically(|undo| -> Result<(), Error> {
            world.pool.stage_restore(&web(), "s", "m", undo)?.show(undo)?;
            Err(Error::NoPool { pool: "later".into() })
        });
        assert!(failed.unwrap_err().left_behind.is_empty());
        assert_eq!(read(&world, &web()), "new", "{driver:?}");
        assert_eq!(paths(world.pool.path()), before);
    }
}

#[test]
fn a_copy_stands_for_itself() {
    for driver in DRIVERS {
        let world = with_volume(driver);
        let pool = &world.pool;
        let (copy, early) = (VolumeName::container("copy").unwrap(), VolumeName::container("early").unwrap());
        write(&world, "old");
        snap(&world, "s");
        write(&world, "new");
        done(|undo| pool.stage_copy(Origin::Volume(&web()), &copy, undo)?.show(undo));
        done(|undo| pool.stage_copy(Origin::Snapshot(&web(), "s"), &early, undo)?.show(undo));
        done(|undo| pool.stage_snapshot_copy((&web(), "s"), &copy, undo)?.show(undo));
        let error = refused(|undo| pool.stage_copy(Origin::Volume(&web()), &copy, undo)?.show(undo));
        assert_eq!(error.kind(), Kind::Conflict);
        write(&world, "changed");
        assert_eq!((read(&world, &copy), read(&world, &early)), ("new".into(), "old".into()), "{driver:?}");
        assert_eq!(pool.list_snapshots(&copy).unwrap(), ["s"]);
        assert_eq!(pool.image_of(&early).unwrap().as_deref(), Some(IMAGE));
    }
}

#[test]
fn an_image_stays_while_a_snapshot_stands_on_it_and_goes_with_the_last() {
    let world = with_volume(DriverKind::Overlay);
    snap(&world, "s");
    assert_eq!(world.pool.delete_image(IMAGE).unwrap(), ImageGone::Kept);
    world.pool.delete(&web()).unwrap();
    assert!(world.pool.has_image(IMAGE).unwrap());
    world.pool.delete_snapshot(&web(), "s").unwrap();
    assert!(!world.pool.has_image(IMAGE).unwrap());
}

#[test]
fn snapshots_go_along_with_a_new_name() {
    for driver in DRIVERS {
        let world = with_volume(driver);
        let db = VolumeName::container("db").unwrap();
        snap(&world, "s");
        done(|undo| world.pool.rename(&web(), &db, undo));
        assert_eq!(world.pool.list_snapshots(&db).unwrap(), ["s"]);
        assert!(world.pool.list_snapshots(&web()).unwrap().is_empty());
    }
}
