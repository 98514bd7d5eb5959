//! Snapshots, restoring and copies, asked of every driver.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use cabin_storage::{Activity, DriverKind, Error, ImageGone, Kind, Origin, VolumeName};
use cabin_undo::atomically;
use kit::{IMAGE, SETUPS, Setup, World, done, mount, paths, refused, with_image};

fn web() -> VolumeName {
    VolumeName::container("web").unwrap()
}

fn with_volume(setup: impl Into<Setup>) -> World {
    let world = with_image(setup);
    done(|undo| world.pool.create_from_image(&web(), IMAGE, undo));
    world
}

fn write(world: &World, text: &str) {
    fs::write(mount(world, &web()).root.join("state"), text).unwrap();
}

fn read(world: &World, volume: &VolumeName) -> String {
    fs::read_to_string(mount(world, volume).root.join("state")).unwrap()
}

fn take(world: &World, activity: Activity, name: &str) {
    done(|undo| {
        let mut staged = world.pool.stage_snapshot(&web(), activity, name, undo)?;
        staged.catch_up()?;
        staged.show(undo)
    });
}

fn snap(world: &World, name: &str) {
    take(world, Activity::Stopped, name);
}

/// Every driver, with a volume that is in use and one that is not.
fn each() -> Vec<(Setup, Activity)> {
    let each = |setup| [(setup, Activity::Stopped), (setup, Activity::Running)];
    SETUPS.into_iter().flat_map(each).collect()
}

/// An access list as the kernel keeps it: user 77 may read, besides owner, group and others.
fn acl() -> Vec<u8> {
    let entry = |tag: u16, mode: u16, id: u32| {
        [tag.to_le_bytes().as_slice(), &mode.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let all = u32::MAX;
    let entries = [(1, 7, all), (2, 4, 77), (4, 1, all), (16, 5, all), (32, 1, all)];
    let entries = entries.into_iter().flat_map(|(tag, mode, id)| entry(tag, mode, id));
    2u32.to_le_bytes().into_iter().chain(entries).collect()
}

fn restore(world: &World, name: &str, mark: &str) {
    done(|undo| world.pool.stage_restore(&web(), name, mark, undo)?.show(undo));
    world.pool.forget_replaced(&web()).unwrap();
}

#[test]
fn a_snapshot_brings_back_what_was_and_older_ones_do_too() {
    for setup in SETUPS {
        let driver = setup.driver;
        let world = with_volume(setup);
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
    for (setup, activity) in each() {
        let driver = setup.driver;
        let world = with_volume(setup);
        {
            let mounted = mount(&world, &web());
            let root = &mounted.root;
            fs::create_dir(root.join("d")).unwrap();
            fs::write(root.join("d/a"), "linked").unwrap();
            fs::hard_link(root.join("d/a"), root.join("d/b")).unwrap();
            fs::set_permissions(root.join("d/a"), fs::Permissions::from_mode(0o4711)).unwrap();
            symlink("/etc/shadow", root.join("d/link")).unwrap();
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(root.join("d"), "user.note", b"kept", flags).unwrap();
            rustix::fs::setxattr(root.join("d/a"), "system.posix_acl_access", &acl(), flags).unwrap();
            let node = rustix::fs::FileType::CharacterDevice;
            let device = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(rustix::fs::CWD, root.join("null"), node, 0o666.into(), device).unwrap();
            let sparse = fs::File::create(root.join("sparse")).unwrap();
            sparse.set_len(64 << 20).unwrap();
            // Of the image: one file goes, one of two linked ones changes, a directory is put in place of
            // another, and one moves as far as the kernel lets it.
            fs::remove_file(root.join("mine")).unwrap();
            fs::OpenOptions::new()
                .append(true)
                .open(root.join("usr/bin/init"))
                .unwrap()
                .write_all(b"+")
                .unwrap();
            fs::remove_dir_all(root.join("etc")).unwrap();
            fs::create_dir(root.join("etc")).unwrap();
            fs::write(root.join("etc/new"), "new").unwrap();
            let moved = Command::new("mv").arg(root.join("var")).arg(root.join("moved")).status().unwrap();
            assert!(moved.success());
            fs::set_permissions(root, fs::Permissions::from_mode(0o751)).unwrap();
        }
        take(&world, activity, "s");
        {
            let mounted = mount(&world, &web());
            for entry in fs::read_dir(&mounted.root).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    fs::remove_dir_all(path).unwrap();
                } else {
                    fs::remove_file(path).unwrap();
                }
            }
        }
        restore(&world, "s", "m");
        let copy = VolumeName::container("copy").unwrap();
        done(|undo| world.pool.stage_copy(Origin::Snapshot(&web(), "s"), &copy, undo)?.show(undo));
        for volume in [web(), copy] {
            let mounted = mount(&world, &volume);
            let root = &mounted.root;
            let told = format!("{driver:?} {activity:?}");
            let a = root.join("d/a").metadata().unwrap();
            // An access list's mask is shown as the group's mode.
            assert_eq!((a.nlink(), a.mode() & 0o7777), (2, 0o4751), "{told}");
            assert_eq!(fs::read_link(root.join("d/link")).unwrap(), Path::new("/etc/shadow"));
            let null = root.join("null").metadata().unwrap();
            assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
            assert!(root.join("sparse").metadata().unwrap().blocks() < 1000);
            let mut value = [0u8; 64];
            assert_eq!(rustix::fs::getxattr(root.join("d"), "user.note", &mut value[..]).unwrap(), 4);
            let length = rustix::fs::getxattr(root.join("d/a"), "system.posix_acl_access", &mut value[..]);
            assert_eq!(&value[..length.unwrap()], acl(), "{told}");
            assert!(!root.join("mine").exists(), "{told}");
            assert_eq!(root.join("usr/bin/init").metadata().unwrap().len(), 100_001);
            let names: Vec<_> =
                fs::read_dir(root.join("etc")).unwrap().map(|it| it.unwrap().file_name()).collect();
            assert_eq!(names, ["new"], "{told}");
            assert_eq!(fs::read_to_string(root.join("moved/lib/data")).unwrap(), "data");
            assert!(!root.join("var").exists(), "{told}");
            assert_eq!(root.metadata().unwrap().mode() & 0o7777, 0o751, "{told}");
        }
    }
}

#[test]
fn names_are_refused_and_taken_ones_stay() {
    for setup in SETUPS {
        let world = with_volume(setup);
        let pool = &world.pool;
        write(&world, "one");
        snap(&world, "a:b");
        for bad in ["", ".", "..", "a/b", "a b", "-x", ".deleting-a", ".staging-a", "ä"] {
            let error = refused(|undo| pool.stage_snapshot(&web(), Activity::Stopped, bad, undo)?.show(undo));
            assert_eq!(error.kind(), Kind::Invalid, "{bad:?}");
            assert_eq!(pool.delete_snapshot(&web(), bad).unwrap_err().kind(), Kind::Invalid);
            let error = refused(|undo| pool.rename_snapshot(&web(), "a:b", bad, undo));
            assert_eq!(error.kind(), Kind::Invalid, "{bad:?}");
        }
        let error = refused(|undo| pool.stage_snapshot(&web(), Activity::Stopped, "a:b", undo)?.show(undo));
        assert_eq!(error.kind(), Kind::Conflict);
        snap(&world, "c");
        let error = refused(|undo| pool.rename_snapshot(&web(), "c", "a:b", undo));
        assert_eq!(error.kind(), Kind::Conflict);
        let none = VolumeName::container("none").unwrap();
        assert_eq!(
            refused(|undo| pool.stage_snapshot(&none, Activity::Stopped, "s", undo)?.show(undo)).kind(),
            Kind::NotFound
        );
        assert_eq!(refused(|undo| pool.rename_snapshot(&web(), "x", "y", undo)).kind(), Kind::NotFound);
        let error = refused(|undo| pool.stage_restore(&web(), "x", "m", undo)?.show(undo));
        assert_eq!(error.kind(), Kind::NotFound);
        done(|undo| pool.rename_snapshot(&web(), "c", "d", undo));
        assert_eq!(pool.list_snapshots(&web()).unwrap(), ["a:b", "d"]);
    }
}

/// A volume that is `new`, and its snapshot `s`, which is `old`.
fn with_old_and_new(setup: impl Into<Setup>) -> World {
    let world = with_volume(setup);
    write(&world, "old");
    snap(&world, "s");
    write(&world, "new");
    world
}

#[test]
fn a_restoring_that_fails_later_gives_the_old_tree_back() {
    for setup in SETUPS {
        let driver = setup.driver;
        let world = with_old_and_new(setup);
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
fn an_old_tree_that_cannot_be_put_back_stays_where_it_lies() {
    for setup in SETUPS {
        let driver = setup.driver;
        let world = with_old_and_new(setup);
        let (place, hidden) =
            (world.pool.path().join("containers/web"), world.pool.path().join("containers/hidden"));
        let failed = atomically(|undo| -> Result<(), Error> {
            world.pool.stage_restore(&web(), "s", "m", undo)?.show(undo)?;
            // Without one of the two the exchange cannot be taken back.
            fs::rename(&place, &hidden).unwrap();
            Err(Error::NoPool { pool: "later".into() })
        });
        let left = failed.unwrap_err().left_behind;
        assert_eq!(left.first().map(|left| left.what.as_str()), Some("restore containers/web from s"));
        fs::rename(&hidden, &place).unwrap();
        // As after a crash.
        world.pool.take_back_restored(&web(), "m").unwrap();
        assert_eq!(read(&world, &web()), "new", "{driver:?}");
    }
}

#[test]
fn a_copy_stands_for_itself() {
    for setup in SETUPS {
        let driver = setup.driver;
        let world = with_volume(setup);
        let pool = &world.pool;
        let (copy, early) = (VolumeName::container("copy").unwrap(), VolumeName::container("early").unwrap());
        write(&world, "old");
        snap(&world, "s");
        write(&world, "new");
        done(|undo| pool.stage_copy(Origin::Volume(&web(), Activity::Stopped), &copy, undo)?.show(undo));
        done(|undo| pool.stage_copy(Origin::Snapshot(&web(), "s"), &early, undo)?.show(undo));
        done(|undo| pool.stage_snapshot_copy((&web(), "s"), &copy, undo)?.show(undo));
        let error = refused(|undo| {
            pool.stage_copy(Origin::Volume(&web(), Activity::Stopped), &copy, undo)?.show(undo)
        });
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
    for setup in SETUPS {
        let world = with_volume(setup);
        let db = VolumeName::container("db").unwrap();
        snap(&world, "s");
        done(|undo| world.pool.rename(&web(), &db, undo));
        assert_eq!(world.pool.list_snapshots(&db).unwrap(), ["s"]);
        assert!(world.pool.list_snapshots(&web()).unwrap().is_empty());
    }
}

#[test]
fn a_volume_keeps_its_name_when_its_snapshots_cannot_go_along() {
    for setup in SETUPS {
        let world = with_volume(setup);
        snap(&world, "s");
        let left = world.pool.path().join("containers-snapshots/db/left");
        fs::create_dir_all(&left).unwrap();
        let db = VolumeName::container("db").unwrap();
        refused(|undo| world.pool.rename(&web(), &db, undo));
        assert!(world.pool.exists(&web()).unwrap() && !world.pool.exists(&db).unwrap());
        assert_eq!(world.pool.list_snapshots(&web()).unwrap(), ["s"]);
        fs::remove_dir(&left).unwrap();
        // A later step that fails gives both back.
        let failed = atomically(|undo| -> Result<(), Error> {
            world.pool.rename(&web(), &db, undo)?;
            Err(Error::NoPool { pool: "later".into() })
        });
        assert!(failed.unwrap_err().left_behind.is_empty());
        assert_eq!(world.pool.list_snapshots(&web()).unwrap(), ["s"]);
        assert!(world.pool.exists(&web()).unwrap());
    }
}

#[test]
fn what_a_running_one_writes_until_it_stands_still_is_in_the_snapshot() {
    // The page stays dirty and writable between its two writes: the second one changes no time of the file.
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),4096)\nm[0:3]=b'one'\n\
                  print(1,flush=True)\nsys.stdin.readline()\nm[0:3]=b'two'\nprint(2,flush=True)\nsys.stdin.readline()";
    for setup in SETUPS {
        let driver = setup.driver;
        let world = with_volume(setup);
        let mounted = mount(&world, &web());
        let file = mounted.root.join("mapped");
        fs::write(&file, [0; 4096]).unwrap();
        let mut writer = Command::new("python3")
            .args(["-c", script, file.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 (package python3)");
        let mut said = BufReader::new(writer.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        // A file that was left alone for a while is the one that is not copied again.
        let begun = Instant::now();
        while begun.elapsed().as_millis() < 120 {
            std::thread::yield_now();
        }
        done(|undo| {
            let mut staged = world.pool.stage_snapshot(&web(), Activity::Running, "s", undo)?;
            writer.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            said.read_line(&mut line).unwrap();
            staged.catch_up()?;
            staged.show(undo)
        });
        drop(writer.stdin.take());
        writer.wait().unwrap();
        drop(mounted);
        let copy = VolumeName::container("copy").unwrap();
        done(|undo| world.pool.stage_copy(Origin::Snapshot(&web(), "s"), &copy, undo)?.show(undo));
        let found = fs::read(mount(&world, &copy).root.join("mapped")).unwrap();
        assert_eq!(&found[..3], b"two", "{driver:?}");
    }
}
