//! Limits by project quotas on ext4 and xfs: where the kernel mounts them so they hold, elsewhere they are refused with
//! what is missing. Each test is whole on both kinds of kernels.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cabin_storage::{Activity, DriverKind, Error, Kind, Origin, VolumeName};
use cabin_sys::caps::Caps;
use cabin_sys::dir::HostDir;
use cabin_sys::project;
use kit::{
    COUNTED, Disk, IMAGE, Setup, World, build, counted, done, fill, forgotten, mount, paths, with_image,
};

const MIB: u64 = 1 << 20;

fn volume(name: &str) -> VolumeName {
    VolumeName::container(name).unwrap()
}

fn open(path: &Path) -> HostDir {
    HostDir::open(path).unwrap()
}

/// The directory that is the volume's own.
fn own(world: &World, name: &str) -> PathBuf {
    let of = if world.pool.driver() == DriverKind::Overlay { "u" } else { "rootfs" };
    world.pool.path().join("containers").join(name).join(of)
}

/// Both drivers on both filesystems, with an image, where the kernel keeps project quotas. Where it does not, a size is
/// refused there, with the reason, and nothing is changed.
fn worlds() -> Vec<World> {
    let mut worlds = Vec::new();
    for (driver, kind) in COUNTED {
        match counted(driver, kind) {
            Some(world) => worlds.push(world),
            None => refuses(&with_image(Setup { driver, ground: Some(kind) }), &[]),
        }
    }
    worlds
}

/// What must be said where the pool keeps no limits.
fn refuses(world: &World, words: &[&str]) {
    let pool = &world.pool;
    done(|undo| pool.create_from_image(&volume("web"), IMAGE, undo));
    let before = paths(world.dir.path());
    let error = pool.limit(&volume("web"), Some(MIB)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    let said = error.to_string();
    for word in [&["project quotas", "btrfs"], words].concat() {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
    assert!(pool.lacks_limits().is_some());
    assert_eq!(pool.limit_of(&volume("web")).unwrap(), None);
    pool.limit(&volume("web"), None).unwrap();
    assert_eq!(project::id_of(open(&own(world, "web"))).unwrap(), None);
    assert_eq!(paths(world.dir.path()), before);
    assert!(pool.usage(&volume("web")).is_ok());
}

/// Does something as one who may not write past quotas: no guest may.
fn as_guest<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            let mut held = rustix::thread::capabilities(None).unwrap();
            held.effective.remove(Caps::SYS_RESOURCE);
            rustix::thread::set_capabilities(None, held).unwrap();
            work()
        });
        guest.join().unwrap()
    })
}

/// Writes a new file until it holds this much; how much it holds, and the error that ended it.
fn write(file: &Path, most: u64) -> (u64, Option<i32>) {
    as_guest(|| {
        let mut written = 0;
        let done = fs::File::create(file).and_then(|mut file| {
            while written < most {
                written += file.write(&[7; 64 << 10])? as u64;
            }
            file.sync_all()
        });
        (written, done.err().and_then(|e| e.raw_os_error()))
    })
}

fn is_full(error: Option<i32>) -> bool {
    // ext4 says that the quota is exceeded, xfs that there is no space left.
    matches!(error, Some(122 | 28))
}

fn total(root: &Path) -> u64 {
    let seen = rustix::fs::statvfs(root).unwrap();
    seen.f_blocks * seen.f_frsize
}

#[test]
fn a_limit_holds_to_the_byte_shows_in_df_and_is_changed_while_it_is_used() {
    for world in worlds() {
        let (pool, web) = (&world.pool, volume("web"));
        done(|undo| pool.create_from_image(&web, IMAGE, undo));
        let mounted = mount(&world, &web);
        let (big, all) = (mounted.root.join("big"), total(&mounted.root));
        assert!(all > 200 * MIB);
        pool.limit(&web, Some(8 * MIB)).unwrap();
        assert_eq!(pool.limit_of(&web).unwrap(), Some(8 * MIB));
        assert_eq!(total(&mounted.root), 8 * MIB, "{world:?}");
        let (written, error) = write(&big, 32 * MIB);
        assert!(is_full(error) && written <= 8 * MIB && written > 6 * MIB, "{written} {error:?}");
        let usage = pool.usage(&web).unwrap();
        assert!(usage <= 8 * MIB && usage >= written, "{usage} {written}");
        let seen = rustix::fs::statvfs(&mounted.root).unwrap();
        assert!(seen.f_bavail * seen.f_frsize <= 8 * MIB - written);
        // Up, below what it holds, and away: at once.
        pool.limit(&web, Some(16 * MIB)).unwrap();
        assert_eq!(write(&mounted.root.join("more"), 4 * MIB), (4 * MIB, None));
        pool.limit(&web, Some(4 * MIB)).unwrap();
        assert_eq!(total(&mounted.root), 4 * MIB);
        assert!(is_full(write(&mounted.root.join("none"), MIB).1));
        assert_eq!(fs::metadata(&big).unwrap().len(), written);
        fs::remove_file(&big).unwrap();
        pool.limit(&web, None).unwrap();
        assert_eq!((total(&mounted.root), pool.limit_of(&web).unwrap()), (all, None));
        assert_eq!(write(&big, 32 * MIB), (32 * MIB, None));
        // What guests do with names goes on working in a tree that has an id.
        let at = |name: &str| mounted.root.join(name);
        fs::rename(at("big"), at("etc/big")).unwrap();
        fs::hard_link(at("etc/big"), at("again")).unwrap();
        fs::rename(at("etc/old"), at("etc/new")).unwrap();
        fs::remove_file(at("bin")).unwrap();
        fs::remove_dir_all(at("var")).unwrap();
        fs::create_dir(at("var")).unwrap();
        drop(mounted);
        pool.delete(&web).unwrap();
        forgotten(&world, "all is deleted");
    }
}

#[test]
fn snapshots_copies_and_restored_trees_are_counted_apart_and_leave_no_records() {
    for world in worlds() {
        let (pool, web, copy) = (&world.pool, volume("web"), volume("copy"));
        done(|undo| pool.create_from_image(&web, IMAGE, undo));
        pool.limit(&web, Some(24 * MIB)).unwrap();
        let first = project::id_of(open(&own(&world, "web"))).unwrap();
        let fill = |name: &str, most: u64| write(&mount(&world, &volume(name)).root.join("big"), most);
        assert_eq!(fill("web", 20 * MIB), (20 * MIB, None));
        // Of a running one, twice: what did not change is in both by one file.
        for name in ["r1", "r2"] {
            let take = |undo: &mut _| {
                let mut staged = pool.stage_snapshot(&web, Activity::Running, name, undo)?;
                staged.catch_up()?;
                staged.show(undo)
            };
            done(take);
        }
        let kept = |name: &str| {
            let of = if pool.driver() == DriverKind::Overlay { "u" } else { "rootfs" };
            pool.path().join("containers-snapshots/web").join(name).join(of).join("big")
        };
        let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(kept(name)).unwrap());
        // xfs shares the blocks instead.
        let shares = format!("{world:?}").ends_with("0x58465342");
        assert_eq!(inode("r1") != inode("r2"), shares, "{world:?}");
        done(|undo| pool.stage_snapshot(&web, Activity::Stopped, "s", undo)?.show(undo));
        assert_eq!(pool.limit_of(&web).unwrap(), Some(24 * MIB), "a frozen volume keeps its limit");
        assert_eq!(fs::metadata(mount(&world, &web).root.join("big")).unwrap().len(), 20 * MIB);
        assert!(is_full(fill("web", 32 * MIB).1), "{world:?}");
        done(|undo| pool.stage_restore(&web, "s", "m", undo)?.show(undo));
        pool.forget_replaced(&web).unwrap();
        assert_ne!(project::id_of(open(&own(&world, "web"))).unwrap(), first);
        pool.limit(&web, Some(24 * MIB)).unwrap();
        assert!(is_full(fill("web", 32 * MIB).1));
        // A copy has no limit until it is given one, and what it holds counts for nobody else.
        done(|undo| pool.stage_copy(Origin::Snapshot(&web, "r2"), &copy, undo)?.show(undo));
        assert_eq!(pool.limit_of(&copy).unwrap(), None);
        assert_eq!(fill("copy", 32 * MIB), (32 * MIB, None));
        pool.limit(&copy, Some(40 * MIB)).unwrap();
        done(|undo| pool.rename(&copy, &volume("other"), undo));
        assert_eq!(pool.limit_of(&volume("other")).unwrap(), Some(40 * MIB));
        let custom = VolumeName::custom("data").unwrap();
        done(|undo| pool.create_custom(&custom, (0, 0, 0o711), undo));
        pool.limit(&custom, Some(2 * MIB)).unwrap();
        assert!(is_full(write(&pool.path().join("custom/data/rootfs/big"), 4 * MIB).1));
        for snapshot in ["r1", "s", "r2"] {
            pool.delete_snapshot(&web, snapshot).unwrap();
        }
        for volume in pool.list().unwrap() {
            pool.delete(&volume).unwrap();
        }
        forgotten(&world, "all is deleted");
    }
}

#[test]
fn layers_of_several_ids_are_put_together() {
    for world in worlds().into_iter().filter(|world| world.pool.driver() == DriverKind::Overlay) {
        let (pool, web) = (&world.pool, volume("web"));
        done(|undo| pool.create_from_image(&web, IMAGE, undo));
        pool.limit(&web, Some(8 * MIB)).unwrap();
        for number in 0..23 {
            let name = format!("s{number}");
            let mounted = mount(&world, &web);
            fs::write(mounted.root.join(&name), &name).unwrap();
            fs::write(mounted.root.join("last"), &name).unwrap();
            drop(mounted);
            done(|undo| pool.stage_snapshot(&web, Activity::Stopped, &name, undo)?.show(undo));
            if number % 2 == 0 {
                pool.delete_snapshot(&web, &name).unwrap();
            }
        }
        assert_eq!(pool.limit_of(&web).unwrap(), Some(8 * MIB));
        {
            let mounted = mount(&world, &web);
            for number in 0..23 {
                assert!(mounted.root.join(format!("s{number}")).exists());
            }
            assert!(is_full(write(&mounted.root.join("big"), 16 * MIB).1));
        }
        for number in (1..23).step_by(2) {
            pool.delete_snapshot(&web, &format!("s{number}")).unwrap();
        }
        pool.delete(&web).unwrap();
        forgotten(&world, "all is deleted");
    }
}

#[test]
fn a_filesystem_that_keeps_no_project_quotas_is_told_what_it_lacks() {
    for driver in [DriverKind::Overlay, DriverKind::Dir] {
        refuses(&with_image(Setup { driver, ground: Some("ext4") }), &["-O project,quota"]);
        // The kernel tells once it knows xfs.
        let world = with_image(Setup { driver, ground: Some("xfs") });
        let xfs = if Path::new("/proc/fs/xfs/xqmstat").exists() { "prjquota" } else { "CONFIG_XFS_QUOTA" };
        refuses(&world, &[xfs]);
        // Made for it, and mounted without: it counts, and holds nothing.
        let options = ["-O", "project,quota"];
        let mounted = build(driver, |at| Disk::with("ext4", &options, "loop", at).ok().map(Some));
        assert_eq!(mounted.is_some(), counted(driver, "ext4").is_some());
        let Some(world) = mounted else { continue };
        done(|undo| world.pool.create_image(IMAGE, fill, undo));
        done(|undo| world.pool.create_from_image(&volume("web"), IMAGE, undo));
        let said = world.pool.limit(&volume("web"), Some(MIB)).unwrap_err().to_string();
        assert!(said.contains("not mounted with `prjquota`") && said.contains("btrfs"), "{said}");
        write(&own(&world, "web").join("big"), 2 * MIB);
        let usage = world.pool.usage(&volume("web")).unwrap();
        assert!((2 * MIB..3 * MIB).contains(&usage), "{usage}");
        world.pool.delete(&volume("web")).unwrap();
        forgotten(&world, "all is deleted");
    }
}

#[test]
fn a_volume_from_before_its_filesystem_counted_is_limited_once_it_was_restored() {
    for world in worlds() {
        let (pool, web) = (&world.pool, volume("web"));
        done(|undo| pool.create_from_image(&web, IMAGE, undo));
        fs::write(own(&world, "web").join("of-its-own"), "x").unwrap();
        project::set_id(open(&own(&world, "web")), 0).unwrap();
        pool.limit(&web, None).unwrap();
        let error = pool.limit(&web, Some(8 * MIB)).unwrap_err();
        assert!(matches!(error, Error::Uncounted { .. }) && error.kind() == Kind::Unsupported, "{error}");
        assert!(pool.usage(&web).is_ok());
        done(|undo| pool.stage_snapshot(&web, Activity::Running, "s", undo)?.show(undo));
        done(|undo| pool.stage_restore(&web, "s", "m", undo)?.show(undo));
        pool.forget_replaced(&web).unwrap();
        pool.limit(&web, Some(8 * MIB)).unwrap();
        let mounted = mount(&world, &web);
        assert_eq!(fs::read(mounted.root.join("of-its-own")).unwrap(), b"x");
        assert!(is_full(write(&mounted.root.join("big"), 16 * MIB).1));
    }
}
