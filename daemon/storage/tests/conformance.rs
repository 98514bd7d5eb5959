//! What every driver must do, asked of each of them.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use cabin_storage::{DriverKind, Error, ImageGone, Kind, Layers, PoolSpec, Storage, VolumeName};
use cabin_sys::dir::HostDir;
use cabin_undo::atomically;
use kit::{IMAGE, SETUPS, done, fill, mount, paths, refused, with_image, world};

fn web() -> VolumeName {
    VolumeName::container("web").unwrap()
}

#[test]
fn a_volume_shows_its_images_tree_and_keeps_its_changes_to_itself() {
    for setup in SETUPS {
        let driver = setup.driver;
        let world = with_image(setup);
        done(|undo| world.pool.create_from_image(&web(), IMAGE, undo));
        {
            let mounted = mount(&world, &web());
            let root = &mounted.root;
            let meta = root.metadata().unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o1775, 0, 7), "{driver:?}");
            let mut note = [0u8; 16];
            assert_eq!(rustix::fs::getxattr(root, "user.note", &mut note[..]).unwrap(), 4);
            let init = root.join("usr/bin/init").metadata().unwrap();
            assert_eq!((init.mode() & 0o7777, init.len(), init.nlink()), (0o4755, 100_000, 2));
            assert_eq!(root.join("mine").metadata().unwrap().uid(), 1000);
            assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
            // Not made anew: in a sticky directory the kernel may refuse even root that (fs.protected_regular).
            let file = fs::OpenOptions::new().write(true).truncate(true).open(root.join("mine"));
            std::io::Write::write_all(&mut file.unwrap(), b"changed").unwrap();
        }
        let image = world.pool.path().join("images").join(IMAGE).join("rootfs");
        assert_eq!(fs::read(image.join("mine")).unwrap(), b"1000's", "{driver:?}");
        assert_eq!(world.pool.image_of(&web()).unwrap().as_deref(), Some(IMAGE));
        assert!(world.pool.usage(&web()).unwrap() > 0);
        world.pool.delete(&web()).unwrap();
        world.pool.delete(&web()).unwrap();
        assert!(!world.pool.exists(&web()).unwrap());
    }
}

#[test]
fn volumes_are_listed_renamed_and_refused_by_name() {
    for setup in SETUPS {
        let driver = setup.driver;
        let world = with_image(setup);
        let pool = &world.pool;
        let (db, data) = (VolumeName::container("db").unwrap(), VolumeName::custom("data").unwrap());
        done(|undo| pool.create_from_image(&web(), IMAGE, undo));
        done(|undo| pool.create_empty(&data, undo));
        done(|undo| pool.create_empty(&VolumeName::container("bare").unwrap(), undo));
        assert!(matches!(pool.layers(&VolumeName::container("bare").unwrap()).unwrap(), Layers::Dir { .. }));
        let error = refused(|undo| pool.create_from_image(&web(), IMAGE, undo));
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(pool.exists(&web()).unwrap(), "the first one must not be taken back with the second");
        assert_eq!(refused(|undo| pool.create_from_image(&db, &"0".repeat(64), undo)).kind(), Kind::NotFound);
        assert_eq!(refused(|undo| pool.rename(&db, &web(), undo)).kind(), Kind::NotFound);
        assert_eq!(
            refused(|undo| pool.rename(&web(), &VolumeName::container("bare").unwrap(), undo)).kind(),
            Kind::Conflict
        );
        done(|undo| pool.rename(&web(), &db, undo));
        let names: Vec<String> = pool.list().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["containers/bare", "containers/db", "custom/data"], "{driver:?}");
        // A failure after the rename gives the old name back.
        let failed = atomically(|undo| -> Result<(), Error> {
            pool.rename(&db, &web(), undo)?;
            Err(Error::NoPool { pool: "later".into() })
        });
        assert!(failed.unwrap_err().left_behind.is_empty());
        assert!(pool.exists(&db).unwrap() && !pool.exists(&web()).unwrap());
        assert!(pool.layers(&web()).is_err() && pool.usage(&web()).is_err());
        assert!(pool.resources().unwrap().space_total > 0);
    }
}

#[test]
fn an_image_that_fails_leaves_nothing_and_one_that_is_there_is_refused() {
    for setup in SETUPS {
        let world = world(setup);
        let before = paths(world.pool.path());
        let error = refused(|undo| {
            world.pool.create_image(
                IMAGE,
                |tree: &HostDir| {
                    fill(tree)?;
                    Err(Error::NoPool { pool: "half way".into() })
                },
                undo,
            )
        });
        assert!(matches!(error, Error::NoPool { .. }));
        assert_eq!(paths(world.pool.path()), before);
        assert!(!world.pool.has_image(IMAGE).unwrap());
        done(|undo| world.pool.create_image(IMAGE, fill, undo));
        assert_eq!(refused(|undo| world.pool.create_image(IMAGE, fill, undo)).kind(), Kind::Conflict);
        assert_eq!(world.pool.list_images().unwrap(), [IMAGE]);
        for bad in ["", "..", "../x", "a/b", ".staging-x"] {
            assert!(world.pool.has_image(bad).is_err(), "{bad}");
        }
    }
}

#[test]
fn a_deleted_image_goes_with_the_last_volume_that_stands_on_it() {
    for setup in SETUPS {
        let driver = setup.driver;
        let world = with_image(setup);
        let pool = &world.pool;
        let two = VolumeName::container("two").unwrap();
        done(|undo| pool.create_from_image(&web(), IMAGE, undo));
        done(|undo| pool.create_from_image(&two, IMAGE, undo));
        let gone = pool.delete_image(IMAGE).unwrap();
        if driver != DriverKind::Overlay {
            assert_eq!(gone, ImageGone::Removed);
            continue;
        }
        assert_eq!(gone, ImageGone::Kept);
        pool.delete(&web()).unwrap();
        assert!(pool.has_image(IMAGE).unwrap());
        pool.layers(&two).unwrap();
        // Imported again and used: from then on it is wanted.
        done(|undo| pool.create_from_image(&web(), IMAGE, undo));
        pool.delete(&web()).unwrap();
        pool.delete(&two).unwrap();
        assert!(pool.has_image(IMAGE).unwrap());
        done(|undo| pool.create_from_image(&web(), IMAGE, undo));
        pool.delete_image(IMAGE).unwrap();
        pool.delete(&web()).unwrap();
        assert!(!pool.has_image(IMAGE).unwrap());
        assert_eq!(pool.delete_image(IMAGE).unwrap(), ImageGone::Removed);
    }
}

#[test]
fn strays_of_a_crash_are_swept_and_nothing_else() {
    for setup in SETUPS {
        let driver = setup.driver;
        let world = with_image(setup);
        done(|undo| world.pool.create_from_image(&web(), IMAGE, undo));
        let before = paths(world.pool.path());
        for stray in
            ["containers/.staging-x/u", "containers/.deleting-y/rootfs", "images/.staging-z/rootfs/a"]
        {
            fs::create_dir_all(world.pool.path().join(stray)).unwrap();
        }
        symlink("/etc", world.pool.path().join("custom/.deleting-link")).unwrap();
        assert_eq!(world.pool.sweep().unwrap().len(), 4);
        assert_eq!(paths(world.pool.path()), before, "{driver:?}");
        assert!(Path::new("/etc/passwd").exists());
    }
}

#[test]
fn of_many_who_make_the_same_volume_one_wins() {
    for setup in SETUPS {
        let driver = setup.driver;
        let world = with_image(setup);
        let wins: Vec<bool> = std::thread::scope(|scope| {
            let make = || atomically(|undo| world.pool.create_from_image(&web(), IMAGE, undo)).is_ok();
            let all: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(wins.iter().filter(|won| **won).count(), 1, "{driver:?}");
        world.pool.layers(&web()).unwrap();
        assert!(world.pool.sweep().unwrap().is_empty());
    }
}

#[test]
fn a_pool_is_made_opened_and_deleted_wherever_it_lies() {
    for setup in SETUPS {
        let driver = setup.driver;
        let world = world(setup);
        let elsewhere = world.dir.path().join("disk");
        fs::create_dir_all(elsewhere.join("lost+found")).unwrap();
        let spec = PoolSpec { name: "far".into(), driver, source: elsewhere.clone(), disk: None };
        let pool = done(|undo| world.storage.create_pool(&spec, undo));
        done(|undo| pool.create_image(IMAGE, fill, undo));
        assert!(world.dir.path().join("storage-pools/far/images").join(IMAGE).exists());
        assert_eq!(refused(|undo| world.storage.create_pool(&spec, undo)).kind(), Kind::Conflict);
        done(|undo| pool.create_from_image(&web(), IMAGE, undo));
        let in_use = world.storage.delete_pool(&spec).unwrap_err();
        assert!(matches!(in_use, Error::PoolInUse { .. }), "{in_use}");
        // Another daemon's life: opened again from disk.
        let again = Storage::new(world.dir.path()).unwrap();
        let pool = again.open_pool(&spec).unwrap();
        assert_eq!(pool.list().unwrap(), [web()]);
        let other = if driver == DriverKind::Dir { DriverKind::Overlay } else { DriverKind::Dir };
        let wrong =
            Storage::new(world.dir.path()).unwrap().open_pool(&PoolSpec { driver: other, ..spec.clone() });
        assert!(matches!(wrong.unwrap_err(), Error::WrongDriver { .. }));
        pool.delete(&web()).unwrap();
        again.delete_pool(&spec).unwrap();
        again.delete_pool(&spec).unwrap();
        assert_eq!(paths(&elsewhere).len(), 2, "only the directory itself and lost+found");
        assert_eq!(again.names_on_disk().unwrap(), ["fast"]);
        fs::write(elsewhere.join("something"), b"").unwrap();
        assert_eq!(refused(|undo| again.create_pool(&spec, undo)).kind(), Kind::Invalid);
        for bad in [PathBuf::from("relative"), world.dir.path().join("missing")] {
            let spec = PoolSpec { source: bad, ..spec.clone() };
            assert_eq!(refused(|undo| again.create_pool(&spec, undo)).kind(), Kind::Invalid);
        }
    }
}

#[test]
fn a_pool_whose_directory_went_away_says_so_and_comes_back_with_it() {
    for setup in SETUPS {
        let world = with_image(setup);
        done(|undo| world.pool.create_from_image(&web(), IMAGE, undo));
        let (here, away) = (world.pool.path().to_owned(), world.dir.path().join("away"));
        fs::rename(&here, &away).unwrap();
        // An unmounted disk leaves an empty directory.
        fs::create_dir(&here).unwrap();
        let again = Storage::new(world.dir.path()).unwrap();
        assert_eq!(again.open_pool(&world.spec).unwrap_err().kind(), Kind::Unavailable);
        fs::remove_dir(&here).unwrap();
        assert_eq!(again.open_pool(&world.spec).unwrap_err().kind(), Kind::Unavailable);
        fs::rename(&away, &here).unwrap();
        assert_eq!(again.open_pool(&world.spec).unwrap().list().unwrap(), [web()]);
        // A pool that is open when its disk goes.
        fs::remove_file(here.join(".cabin-pool")).unwrap();
        assert_eq!(world.pool.list().unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(refused(|undo| world.pool.create_empty(&web(), undo)).kind(), Kind::Unavailable);
    }
}

#[test]
fn a_guests_deepest_tree_is_measured_and_deleted() {
    for setup in SETUPS {
        let driver = setup.driver;
        let world = with_image(setup);
        done(|undo| world.pool.create_from_image(&web(), IMAGE, undo));
        let own = if driver == DriverKind::Overlay { "u" } else { "rootfs" };
        let mut at = HostDir::open(&world.pool.path().join("containers/web").join(own)).unwrap();
        for _ in 0..5000 {
            at = at.create_dir("d", 0o700).unwrap();
        }
        drop(at);
        world.pool.usage(&web()).unwrap();
        world.pool.delete(&web()).unwrap();
        assert!(world.pool.sweep().unwrap().is_empty());
    }
}

#[test]
fn making_and_deleting_a_volume_of_a_large_image_is_timed() {
    for setup in SETUPS {
        let driver = setup.driver;
        let world = world(setup);
        done(|undo| {
            world.pool.create_image(
                IMAGE,
                |tree: &HostDir| -> Result<(), Error> {
                    for dir in 0..100 {
                        let dir = tree.path().join(dir.to_string());
                        fs::create_dir(&dir).unwrap();
                        for file in 0..100 {
                            fs::write(dir.join(file.to_string()), vec![7; 22_000]).unwrap();
                        }
                    }
                    Ok(())
                },
                undo,
            )
        });
        let rounds = if driver == DriverKind::Dir { 2 } else { 50 };
        let begun = Instant::now();
        for n in 0..rounds {
            done(|undo| {
                world.pool.create_from_image(&VolumeName::container(&format!("c{n}")).unwrap(), IMAGE, undo)
            });
        }
        let created = begun.elapsed() / rounds;
        let begun = Instant::now();
        for n in 0..rounds {
            world.pool.delete(&VolumeName::container(&format!("c{n}")).unwrap()).unwrap();
        }
        println!(
            "{driver:?}, image of 10,000 files and 220 MB: create {created:?}, delete {:?}",
            begun.elapsed() / rounds
        );
    }
}
