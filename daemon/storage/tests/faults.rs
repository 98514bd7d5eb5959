//! Every step of every verb made to fail once, and the process killed there once: nothing half made is seen.
//!
//! One test only: fault points are counted for the whole process.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::fs;
use std::path::Path;
use std::process::Command;

use cabin_storage::{Activity, Destination, DriverKind, Error, Origin, Pool, PoolSpec, Storage, VolumeName};
use cabin_sys::btrfs;
use cabin_sys::dir::HostDir;
use cabin_undo::atomically;
use cabin_undo::fault::{Plan, arm, seen};
use kit::{COUNTED, DRIVERS, IMAGE, World, counted, done, fill, forgotten, ids, paths, with_image};

const OTHER: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// Writes a file as a guest would.
fn write(pool: &Pool, place: &str, text: &str) {
    let own = if pool.driver() == DriverKind::Overlay { "u" } else { "rootfs" };
    fs::write(pool.path().join(place).join(own).join("state"), text).unwrap();
}

/// Makes subvolumes as the host's root would, where the driver has them.
fn nest(pool: &Pool, place: &str) {
    if pool.driver() == DriverKind::Btrfs {
        let root = HostDir::open(&pool.path().join(place).join("rootfs")).unwrap();
        btrfs::create_subvolume(&root, "own").unwrap();
        btrfs::create_subvolume(root.open_dir("own").unwrap(), "inner").unwrap();
    }
}

/// All verbs that push steps, in one change.
fn everything(storage: &Storage, spec: &PoolSpec) -> Result<(), cabin_undo::Failed<Error>> {
    let pool = storage.open_pool(spec).unwrap();
    let (web, db) = (VolumeName::container("web").unwrap(), VolumeName::container("db").unwrap());
    atomically(|undo| {
        let new = PoolSpec { name: "new".into(), source: storage.default_source("new"), ..spec.clone() };
        let far = storage.create_pool(&new, undo)?;
        pool.create_image(OTHER, fill, undo)?;
        pool.create_from_image(&web, OTHER, undo)?;
        write(&pool, "containers/web", "one");
        nest(&pool, "containers/web");
        pool.create_empty(&VolumeName::custom("data").unwrap(), undo)?;
        pool.stage_snapshot(&web, Activity::Stopped, "s", undo)?.show(undo)?;
        write(&pool, "containers/web", "two");
        pool.stage_snapshot(&web, Activity::Running, "r", undo)?.show(undo)?;
        pool.rename_snapshot(&web, "s", "t", undo)?;
        // A snapshot taken of a running one is a layer only once it is wanted.
        pool.stage_copy(Origin::Snapshot(&web, "r"), &VolumeName::container("run").unwrap(), undo)?
            .show(undo)?;
        pool.stage_restore(&web, "t", "m", undo)?.show(undo)?;
        pool.stage_copy(Origin::Snapshot(&web, "t"), &VolumeName::container("copy").unwrap(), undo)?
            .show(undo)?;
        pool.stage_snapshot_copy((&web, "t"), &VolumeName::container("copy").unwrap(), undo)?.show(undo)?;
        if far.takes_layers_of(&pool) {
            write(&pool, "containers/web", "three");
            far.take_image(&pool, OTHER, undo)?;
            for (to, origin) in [
                (Destination::Snapshot(&web, "r"), Origin::Snapshot(&web, "r")),
                (Destination::New(&web), Origin::Volume(&web, Activity::Stopped)),
                (Destination::Replaces(&web, "m"), Origin::Snapshot(&web, "t")),
            ] {
                far.stage_layers(to, (&pool, origin), &mut |_| (), undo)?.show(undo)?;
            }
        }
        pool.rename(&web, &db, undo)
    })
}

#[test]
fn a_failure_at_any_step_leaves_nothing_and_a_kill_leaves_nothing_visible() {
    if let Ok(root) = std::env::var("CABIN_TEST_ROOT") {
        return die(Path::new(&root));
    }
    sweep_folding();
    sweep_limits();
    for driver in DRIVERS {
        let world = with_image(driver);
        let before = paths(world.dir.path());
        let mut step = 0;
        loop {
            step += 1;
            arm(Plan::Fail(step));
            let outcome = everything(&world.storage, &world.spec);
            let passed = seen();
            arm(Plan::Off);
            match outcome {
                Ok(()) => break assert!(passed < step),
                Err(failed) => {
                    assert!(matches!(failed.cause, Error::Injected(_)), "{failed}");
                    assert!(failed.left_behind.is_empty(), "{failed}");
                    assert_eq!(paths(world.dir.path()), before, "{driver:?}, step {step}");
                }
            }
        }
        println!("{driver:?}: {} steps", step - 1);
        assert!(step > 8);
        for killed in 1..step {
            let world = with_image(driver);
            let ended = dying(&world, driver, killed).output().unwrap();
            assert!(!ended.status.success(), "step {killed} was passed alive");
            let storage = Storage::new(world.dir.path()).unwrap();
            let pool = storage.open_pool(&world.spec).unwrap();
            let new =
                PoolSpec { name: "new".into(), source: storage.default_source("new"), ..world.spec.clone() };
            for pool in storage.open_pool(&new).iter().chain([&pool]) {
                pool.sweep().unwrap();
                for volume in pool.list().unwrap() {
                    pool.layers(&volume).unwrap();
                }
                for owner in pool.owners_of_snapshots().unwrap() {
                    for snapshot in pool.list_snapshots(&owner).unwrap() {
                        pool.snapshot_layers(&owner, &snapshot).unwrap();
                    }
                }
            }
            let strays: Vec<_> = paths(&world.dir.path().join("storage-pools"))
                .into_iter()
                .filter(|path| {
                    path.to_string_lossy().contains("/.staging")
                        || path.to_string_lossy().contains("/.replaced")
                        || path.to_string_lossy().contains("/.deleting")
                })
                .collect();
            assert!(strays.is_empty(), "{strays:?}");
            assert!(pool.has_image(IMAGE).unwrap());
            empty(&pool);
            if driver == DriverKind::Btrfs {
                let all = btrfs::nested::within(HostDir::open(world.dir.path()).unwrap()).unwrap();
                assert!(all.len() <= 2, "killed at {killed}: more is left than the images");
            }
            let layers: Vec<_> = fs::read_dir(pool.path().join("layers")).unwrap().collect();
            assert!(layers.is_empty(), "{driver:?}, killed at {killed}: {layers:?}");
        }
    }
}

/// A volume that stands on as many layers as there may be: the next snapshot puts them together.
fn deepen(world: &World) -> VolumeName {
    let deep = VolumeName::container("deep").unwrap();
    done(|undo| world.pool.create_from_image(&deep, IMAGE, undo));
    let root = world.pool.path();
    let mut below = None;
    for number in 0..20 {
        let layer = root.join(format!("layers/layer-{number}"));
        fs::create_dir_all(layer.join("u")).unwrap();
        fs::write(layer.join("u").join(number.to_string()), "x").unwrap();
        if let Some(below) = &below {
            fs::hard_link(below, layer.join("below")).unwrap();
        }
        let said = root.join(format!("layers/layer-{number}.ref"));
        fs::write(&said, format!("layer-{number}")).unwrap();
        below = Some(said);
    }
    fs::hard_link(below.unwrap(), root.join("containers/deep/below")).unwrap();
    write(&world.pool, "containers/deep", "own");
    deep
}

fn fold(pool: &Pool, deep: &VolumeName) -> Result<(), cabin_undo::Failed<Error>> {
    atomically(|undo| pool.stage_snapshot(deep, Activity::Stopped, "s", undo)?.show(undo))
}

/// Whether the volume shows what it did, whatever became of putting its layers together, and leaves nothing.
fn is_whole(world: &World, deep: &VolumeName, told: &str) {
    {
        let mounted = kit::mount(world, deep);
        for number in 0..20 {
            assert!(mounted.root.join(number.to_string()).exists(), "{told}: {number}");
        }
        assert_eq!(fs::read_to_string(mounted.root.join("state")).unwrap(), "own", "{told}");
    }
    world.pool.delete_snapshot(deep, "s").unwrap();
    world.pool.delete(deep).unwrap();
    let layers: Vec<_> = fs::read_dir(world.pool.path().join("layers")).unwrap().collect();
    assert!(layers.is_empty(), "{told}: {layers:?}");
}

/// Makes each step of putting layers together fail, and dies there.
fn sweep_folding() {
    let mut step = 0;
    loop {
        step += 1;
        let world = with_image(DriverKind::Overlay);
        let deep = deepen(&world);
        arm(Plan::Fail(step));
        let outcome = fold(&world.pool, &deep);
        arm(Plan::Off);
        let done = outcome.is_ok();
        if let Err(failed) = outcome {
            assert!(failed.left_behind.is_empty(), "{failed}");
        }
        is_whole(&world, &deep, &format!("step {step} of folding failed"));
        if done {
            break;
        }
    }
    for killed in 1.. {
        let world = with_image(DriverKind::Overlay);
        let deep = deepen(&world);
        let ended = dying(&world, DriverKind::Overlay, killed).env("CABIN_TEST_FOLD", "1").output().unwrap();
        world.pool.sweep().unwrap();
        is_whole(&world, &deep, &format!("killed at step {killed} of folding"));
        if ended.status.success() {
            assert!(killed > 5, "{killed}");
            break;
        }
    }
}

/// A life with limits, in one change.
fn limited(pool: &Pool) -> Result<(), cabin_undo::Failed<Error>> {
    let (web, copy) = (VolumeName::container("web").unwrap(), VolumeName::container("copy").unwrap());
    atomically(|undo| {
        let limit = |volume: &VolumeName, undo: &mut cabin_undo::Undo| -> Result<(), Error> {
            let (again, same) = (pool.clone(), volume.clone());
            undo.push(format!("limit of {volume}"), move || again.limit(&same, None))?;
            pool.limit(volume, Some(8 << 20))
        };
        pool.create_from_image(&web, IMAGE, undo)?;
        limit(&web, undo)?;
        write(pool, "containers/web", "one");
        pool.stage_snapshot(&web, Activity::Stopped, "s", undo)?.show(undo)?;
        pool.stage_restore(&web, "s", "m", undo)?.show(undo)?;
        limit(&web, undo)?;
        pool.stage_copy(Origin::Snapshot(&web, "s"), &copy, undo)?.show(undo)?;
        limit(&copy, undo)
    })
}

/// Makes each step of a life with limits fail, and dies there, where the kernel keeps project quotas: the filesystem
/// remembers no limit of what is gone.
fn sweep_limits() {
    for world in COUNTED.into_iter().filter_map(|(driver, kind)| counted(driver, kind)) {
        let before = paths(world.dir.path());
        let mut step = 0;
        loop {
            step += 1;
            arm(Plan::Fail(step));
            let outcome = limited(&world.pool);
            arm(Plan::Off);
            match outcome {
                Ok(()) => break,
                Err(failed) => assert!(failed.left_behind.is_empty(), "{failed}"),
            }
            assert_eq!(paths(world.dir.path()), before, "{world:?}, step {step}");
            forgotten(&world, &format!("step {step} failed"));
        }
        assert!(step > 8 && !ids(&world).is_empty());
        empty(&world.pool);
        for killed in 1.. {
            let mut command = dying(&world, world.pool.driver(), killed);
            let ended = command.env("CABIN_TEST_LIMITS", "1").output().unwrap();
            world.pool.sweep().unwrap();
            empty(&world.pool);
            forgotten(&world, &format!("killed at {killed}"));
            if ended.status.success() {
                assert!(killed > 8, "{killed}");
                break;
            }
        }
    }
}

/// Deletes all that was made.
fn empty(pool: &Pool) {
    for owner in pool.owners_of_snapshots().unwrap() {
        for snapshot in pool.list_snapshots(&owner).unwrap() {
            pool.delete_snapshot(&owner, &snapshot).unwrap();
        }
    }
    for volume in pool.list().unwrap() {
        pool.forget_replaced(&volume).unwrap();
        pool.delete(&volume).unwrap();
    }
}

/// This program again, to be killed at a step.
fn dying(world: &World, driver: DriverKind, step: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env("CABIN_TEST_ROOT", world.dir.path())
        .env("CABIN_TEST_DRIVER", driver.name())
        .env("CABIN_TEST_STEP", step.to_string());
    command
}

/// What the killed process does.
fn die(root: &Path) {
    let driver = std::env::var("CABIN_TEST_DRIVER").unwrap();
    let driver = DRIVERS.into_iter().find(|kind| kind.name() == driver).unwrap();
    let storage = Storage::new(root).unwrap();
    let spec = PoolSpec { name: "fast".into(), driver, source: storage.default_source("fast"), disk: None };
    let folds = std::env::var_os("CABIN_TEST_FOLD").is_some();
    let pool = storage.open_pool(&spec).unwrap();
    arm(Plan::Kill(std::env::var("CABIN_TEST_STEP").unwrap().parse().unwrap()));
    if std::env::var_os("CABIN_TEST_LIMITS").is_some() {
        drop(limited(&pool));
        std::process::exit(0);
    }
    match folds {
        true => drop(fold(&pool, &VolumeName::container("deep").unwrap())),
        false => drop(everything(&storage, &spec)),
    }
    // One that lives through it says so: what follows in a test is not for it.
    std::process::exit(0);
}
