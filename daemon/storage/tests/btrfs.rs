//! What only btrfs has: subvolumes that guests make, quotas, and figures that cost nothing.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cabin_storage::{
    Activity, DiskSpec, DriverKind, Error, Kind, MIN_DISK, Origin, PoolSpec, Storage, VolumeName,
};
use cabin_sys::btrfs::{self, Access};
use cabin_sys::dir::HostDir;
use cabin_sys::loopdev;
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
    btrfs::nested::within(open(world.dir.path())).unwrap().len()
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
    // They come along into a snapshot, and back from there, and all of them go.
    done(|undo| world.pool.stage_snapshot(&web(), Activity::Stopped, "s", undo)?.show(undo));
    assert_eq!(subvolumes(&world), 2 + 4 + 1 + 4);
    done(|undo| world.pool.stage_restore(&web(), "s", "m", undo)?.show(undo));
    assert_eq!(subvolumes(&world), 2 + 4 + 1 + 4 + 1 + 4);
    let mut at = open(&tree(&world)).open_dir("deep").unwrap();
    for _ in 0..300 {
        at = at.open_dir(&"d".repeat(100)).unwrap();
    }
    assert_eq!(at.open_dir("bottom").unwrap().read("file", 9).unwrap(), b"x");
    drop(at);
    world.pool.forget_replaced(&web()).unwrap();
    world.pool.delete_snapshot(&web(), "s").unwrap();
    world.pool.delete(&web()).unwrap();
    assert_eq!(subvolumes(&world), 1, "only the image's is left");
}

/// Subvolumes one in another: one of a name that is no UTF-8, one that cannot be written in, and two with files that
/// have several names and the same inode numbers.
fn nest(root: &Path) -> PathBuf {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fs::create_dir_all(root.join("srv/a")).unwrap();
    let odd = root.join("srv/a").join(OsStr::from_bytes(b"\xffodd"));
    btrfs::create_subvolume(open(&root.join("srv/a")), odd.file_name().unwrap()).unwrap();
    let dir = open(&odd);
    btrfs::create_subvolume(&dir, "sealed").unwrap();
    for (place, text) in [(odd.clone(), "outer"), (odd.join("sealed"), "inner")] {
        fs::write(place.join("one"), text).unwrap();
        fs::hard_link(place.join("one"), place.join("two")).unwrap();
    }
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o1711)).unwrap();
    std::os::unix::fs::chown(&odd, Some(1000), Some(2000)).unwrap();
    btrfs::set_access(dir.open_dir("sealed").unwrap(), Access::ReadOnly).unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for at in [odd.clone(), root.join("srv/a")] {
        fs::File::open(at).unwrap().set_modified(long_ago).unwrap();
    }
    odd.strip_prefix(root).unwrap().to_owned()
}

/// What is seen of what `nest` made, and which of it are subvolumes.
fn nested(root: &Path, odd: &Path) -> (Vec<String>, Vec<bool>) {
    let mut seen = Vec::new();
    let sealed = odd.join("sealed");
    for path in [Path::new("srv/a"), odd, &sealed] {
        let meta = fs::symlink_metadata(root.join(path)).unwrap();
        seen.push(format!("{:o} {} {} {}", meta.mode(), meta.uid(), meta.gid(), meta.mtime()));
    }
    for path in [odd, &sealed] {
        let text = fs::read_to_string(root.join(path).join("one")).unwrap();
        let names = ["one", "two"].map(|name| fs::metadata(root.join(path).join(name)).unwrap());
        assert_eq!((names[0].ino(), names[0].nlink()), (names[1].ino(), 2));
        seen.push(text);
    }
    let is = |path: &Path| btrfs::is_subvolume(open(&root.join(path))).unwrap();
    (seen, vec![is(odd), is(&sealed)])
}

#[test]
fn subvolumes_inside_are_in_snapshots_copies_and_what_is_restored() {
    let world = with_volume();
    let pool = &world.pool;
    let odd = nest(&tree(&world));
    let before = nested(&tree(&world), &odd);
    assert_eq!(before.1, [true, true]);
    done(|undo| {
        let mut staged = pool.stage_snapshot(&web(), Activity::Running, "s", undo)?;
        // One after the other: whoever wants them of one moment lets nobody write.
        assert!(!staged.is_of_one_moment());
        staged.catch_up()?;
        staged.show(undo)?;
        pool.stage_copy(Origin::Snapshot(&web(), "s"), &VolumeName::container("other").unwrap(), undo)?
            .show(undo)
    });
    let at = |place: &str| pool.path().join(place).join("rootfs");
    let sealed = |root: &Path| btrfs::info(open(&root.join(&odd).join("sealed"))).unwrap().read_only;
    for place in ["containers-snapshots/web/s", "containers/other"] {
        assert_eq!(nested(&at(place), &odd), before, "{place}");
        assert!(sealed(&at(place)), "{place}");
    }
    // What is written later is in none of them.
    fs::write(tree(&world).join(&odd).join("one"), "later").unwrap();
    assert_eq!(nested(&at("containers-snapshots/web/s"), &odd), before);
    done(|undo| pool.stage_restore(&web(), "s", "m", undo)?.show(undo));
    pool.forget_replaced(&web()).unwrap();
    assert_eq!(nested(&tree(&world), &odd), before);
    assert!(sealed(&tree(&world)));
    fs::write(tree(&world).join(&odd).join("one"), "writable").unwrap();
    // One that cannot be seen whole in a stream is not sent.
    let refused = pool.to_send(&web(), Some("s")).unwrap_err();
    assert_eq!(refused.kind(), Kind::Unsupported);
    assert!(refused.to_string().contains("subvolumes"), "{refused}");
    for name in ["web", "other"] {
        pool.delete(&VolumeName::container(name).unwrap()).unwrap();
    }
    pool.delete_snapshot(&web(), "s").unwrap();
    assert_eq!(subvolumes(&world), 1);
}

#[test]
fn subvolumes_inside_become_directories_in_a_pool_of_another_driver() {
    let world = with_volume();
    let (data, spec) = (VolumeName::custom("data").unwrap(), |driver, name: &str| PoolSpec {
        name: name.into(),
        driver,
        source: world.storage.default_source(name),
        disk: None,
    });
    done(|undo| world.pool.create_custom(&data, (0, 0, 0o755), undo));
    let root = world.pool.path().join("custom/data/rootfs");
    let odd = nest(&root);
    let before = nested(&root, &odd);
    done(|undo| world.pool.stage_snapshot(&data, Activity::Stopped, "s", undo)?.show(undo));
    for driver in [DriverKind::Dir, DriverKind::Overlay] {
        let pool = done(|undo| world.storage.create_pool(&spec(driver, driver.name()), undo));
        let origin = Origin::Snapshot(&data, "s");
        done(|undo| pool.stage_custom_from(&world.pool, origin, &data, undo)?.show(undo));
        let (seen, subvolumes) = nested(&pool.path().join("custom/data/rootfs"), &odd);
        assert_eq!((seen, subvolumes), (before.0.clone(), vec![false, false]), "{driver:?}");
    }
}

#[test]
fn what_subvolumes_inside_hold_is_counted_once() {
    let world = with_volume();
    btrfs::create_subvolume(open(&tree(&world)), "own").unwrap();
    let own = open(&tree(&world).join("own"));
    fs::write(own.path().join("big"), vec![7; 3 << 20]).unwrap();
    world.pool.sync().unwrap();
    btrfs::snapshot(&own, open(&tree(&world)), "again", Access::Writable).unwrap();
    let took = |bytes: u64| (3 << 20..4 << 20).contains(&bytes);
    assert!(took(world.pool.usage(&web()).unwrap()));
    done(|undo| world.pool.stage_snapshot(&web(), Activity::Stopped, "s", undo)?.show(undo));
    assert!(took(world.pool.snapshot_usage(&web(), "s").unwrap()));
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

/// A pool with a disk, in a world whose own pool lies somewhere else.
fn with_disk(size: u64) -> (World, PoolSpec) {
    let world = kit::world(DriverKind::Overlay);
    let spec = PoolSpec {
        name: "own".into(),
        driver: DriverKind::Btrfs,
        source: world.storage.default_source("own"),
        disk: Some(DiskSpec { size, options: Vec::new() }),
    };
    (world, spec)
}

/// The loop devices behind files of a world.
fn devices(world: &World) -> Vec<String> {
    let mine = |file: &String| Path::new(file).starts_with(world.dir.path());
    loopdev::all().unwrap().into_iter().map(|(_, file)| file).filter(mine).collect()
}

/// Waits until there is no loop device of a world any more. It goes with the mount, but whoever looks at new devices,
/// such as udev, may hold it a moment longer.
fn gone(world: &World) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !devices(world).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", devices(world));
        std::thread::yield_now();
    }
}

fn unmount(at: &Path) {
    cabin_sys::mount::detach(at).unwrap();
}

#[test]
fn a_disk_is_made_mounted_again_grown_and_removed() {
    let (mut world, mut spec) = with_disk(MIN_DISK);
    let pool = done(|undo| world.storage.create_pool(&spec, undo));
    done(|undo| pool.create_image(IMAGE, kit::fill, undo));
    done(|undo| pool.create_from_image(&web(), IMAGE, undo));
    let file = world.storage.disk_file("own");
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (MIN_DISK, 0o600));
    assert!(meta.blocks() * 512 < MIN_DISK / 2, "the file is sparse");
    assert_eq!(devices(&world), [file.to_str().unwrap()]);
    // Whoever opens it while it is mounted finds it, and mounts nothing over it.
    let again = Storage::new(world.dir.path()).unwrap();
    assert_eq!(again.open_pool(&spec).unwrap().list().unwrap(), [web()]);
    // After the host came up again.
    drop((pool, again));
    unmount(&spec.source);
    world.storage = Storage::new(world.dir.path()).unwrap();
    gone(&world);
    let again = Storage::new(world.dir.path()).unwrap();
    let pool = again.open_pool(&spec).unwrap();
    assert_eq!(pool.list().unwrap(), [web()]);
    // Somebody takes the mount away under an open pool.
    unmount(&spec.source);
    assert_eq!(pool.list().unwrap_err().kind(), Kind::Unavailable);
    drop(pool);
    let pool = again.open_pool(&spec).unwrap();
    let before = pool.resources().unwrap().space_total;
    spec.disk.as_mut().unwrap().size = 2 * MIN_DISK;
    again.grow_pool(&spec).unwrap();
    assert_eq!(pool.resources().unwrap().space_total, before + MIN_DISK);
    spec.disk.as_mut().unwrap().size = MIN_DISK;
    assert_eq!(again.grow_pool(&spec).unwrap_err().kind(), Kind::Invalid);
    // Its file goes away and comes back.
    drop((pool, again));
    unmount(&spec.source);
    let away = world.dir.path().join("away");
    fs::rename(&file, &away).unwrap();
    let again = Storage::new(world.dir.path()).unwrap();
    assert_eq!(again.open_pool(&spec).unwrap_err().kind(), Kind::Unavailable);
    fs::rename(&away, &file).unwrap();
    assert_eq!(again.open_pool(&spec).unwrap().list().unwrap(), [web()]);
    assert!(matches!(again.delete_pool(&spec).unwrap_err(), Error::PoolInUse { .. }));
    // A database that lost it leaves it alone as long as it holds something.
    assert!(matches!(again.delete_stray("own").unwrap_err(), Error::PoolInUse { .. }));
    again.open_pool(&spec).unwrap().delete(&web()).unwrap();
    again.delete_pool(&spec).unwrap();
    again.delete_pool(&spec).unwrap();
    assert!(!file.exists() && !spec.source.exists());
    gone(&world);
    assert_eq!(again.names_on_disk().unwrap(), ["fast"]);
}

#[test]
fn a_disk_that_is_too_small_or_lies_in_the_way_is_refused() {
    let (world, spec) = with_disk(1 << 20);
    assert_eq!(kit::refused(|undo| world.storage.create_pool(&spec, undo)).kind(), Kind::Invalid);
    assert!(!spec.source.exists());
    fs::create_dir_all(world.dir.path().join("disks")).unwrap();
    fs::write(world.storage.disk_file("own"), b"no filesystem").unwrap();
    assert_eq!(kit::refused(|undo| world.storage.create_pool(&spec, undo)).kind(), Kind::Conflict);
    // A stray of a daemon that died while it made it.
    assert_eq!(world.storage.names_on_disk().unwrap(), ["fast", "own"]);
    world.storage.delete_stray("own").unwrap();
    assert_eq!(world.storage.names_on_disk().unwrap(), ["fast"]);
}

#[test]
fn a_directory_that_is_not_on_btrfs_is_refused() {
    let world = kit::world(DriverKind::Overlay);
    let source = world.dir.path().join("plain");
    fs::create_dir(&source).unwrap();
    let spec = PoolSpec { name: "plain".into(), driver: DriverKind::Btrfs, source, disk: None };
    let error = kit::refused(|undo| world.storage.create_pool(&spec, undo));
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("not btrfs"), "{error}");
}

#[test]
fn a_limit_holds_is_changed_while_it_is_used_and_lifted() {
    let world = with_volume();
    let pool = &world.pool;
    let write = |bytes: usize| {
        let done = fs::write(tree(&world).join("big"), vec![7; bytes]);
        done.and_then(|()| fs::File::open(tree(&world))?.sync_all()).map_err(|e| e.raw_os_error())
    };
    // Nobody has a limit: nothing is counted.
    pool.limit(&web(), None).unwrap();
    assert!(!btrfs::has_quotas(open(world.dir.path())).unwrap());
    pool.limit(&web(), Some(8 << 20)).unwrap();
    assert_eq!(pool.limit_of(&web()).unwrap(), Some(8 << 20));
    write(2 << 20).unwrap();
    assert_eq!(write(20 << 20), Err(Some(122)), "EDQUOT");
    fs::remove_file(tree(&world).join("big")).unwrap();
    pool.limit(&web(), Some(40 << 20)).unwrap();
    write(20 << 20).unwrap();
    // The kernel gives a snapshot the limit of what it was taken of, and so what is restored.
    done(|undo| pool.stage_snapshot(&web(), Activity::Running, "s", undo)?.show(undo));
    done(|undo| pool.stage_restore(&web(), "s", "m", undo)?.show(undo));
    pool.forget_replaced(&web()).unwrap();
    assert_eq!(pool.limit_of(&web()).unwrap(), Some(40 << 20));
    pool.limit(&web(), None).unwrap();
    assert_eq!(pool.limit_of(&web()).unwrap(), None);
    write(60 << 20).unwrap();
    for driver in [DriverKind::Overlay, DriverKind::Dir] {
        let world = with_image(driver);
        done(|undo| world.pool.create_from_image(&web(), IMAGE, undo));
        world.pool.limit(&web(), None).unwrap();
        let error = world.pool.limit(&web(), Some(1 << 20)).unwrap_err();
        assert!(error.to_string().contains("btrfs") && error.kind() == Kind::Unsupported, "{error}");
    }
}

#[test]
fn quota_groups_of_volumes_that_are_gone_go_at_the_next_start() {
    let (world, mut spec) = with_disk(MIN_DISK);
    // What is removed goes in the background, this often.
    spec.disk.as_mut().unwrap().options = vec![("commit".into(), "1".into())];
    let pool = done(|undo| world.storage.create_pool(&spec, undo));
    done(|undo| pool.create_empty(&web(), undo));
    pool.limit(&web(), Some(8 << 20)).unwrap();
    let root = open(&spec.source);
    let groups = || btrfs::quota_groups(&root).unwrap().len();
    assert_eq!(groups(), 1);
    pool.delete(&web()).unwrap();
    drop((pool, root));
    unmount(&spec.source);
    // What is mounted anew has finished the removal.
    let again = Storage::new(world.dir.path()).unwrap();
    drop(world.storage);
    let pool = again.open_pool(&spec).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let root = open(&spec.source);
    while !btrfs::quota_groups(&root).unwrap().is_empty() {
        assert!(std::time::Instant::now() < deadline, "the group of a volume that is gone is still there");
        pool.sync().unwrap();
        pool.sweep().unwrap();
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    drop((pool, root));
    again.delete_pool(&spec).unwrap();
}

#[test]
fn a_snapshot_has_every_record_that_was_synced_before_it() {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    let world = with_volume();
    let (synced, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = fs::File::create(tree(&world).join("log")).unwrap();
            for number in 1.. {
                log.write_all(format!("{number:8}\n").as_bytes()).unwrap();
                log.sync_data().unwrap();
                synced.store(number, Ordering::SeqCst);
                if over.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        for round in 0..20 {
            let before = synced.load(Ordering::SeqCst);
            let name = format!("s{round}");
            done(|undo| world.pool.stage_snapshot(&web(), Activity::Running, &name, undo)?.show(undo));
            let kept = world.pool.path().join("containers-snapshots/web").join(&name).join("rootfs/log");
            let text = fs::read_to_string(kept).unwrap_or_default();
            let whole = text.lines().filter(|line| line.len() == 8);
            let records: Vec<u64> = whole.map(|line| line.trim().parse().unwrap()).collect();
            assert!(records.len() as u64 >= before, "{} of {before} records", records.len());
            assert!(records.iter().zip(1..).all(|(record, number)| *record == number));
        }
        over.store(true, Ordering::SeqCst);
    });
}
