//! Where the filesystem can share blocks, a whole tree costs next to nothing; and both drivers work there.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod kit;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use cabin_storage::{Activity, DriverKind, Error, PoolSpec, VolumeName};
use cabin_sys::dir::HostDir;
use kit::{DRIVERS, IMAGE, Setup, done, mount, with_image, world};

/// A btrfs in a file, mounted for one test.
struct Loop(PathBuf);

impl Loop {
    fn new(dir: &Path) -> Loop {
        let (file, at) = (dir.join("disk.img"), dir.join("disk"));
        File::create(&file).unwrap().set_len(600 << 20).unwrap();
        fs::create_dir(&at).unwrap();
        run("mkfs.btrfs", &["-q", file.to_str().unwrap()]);
        run("mount", &["-o", "loop", file.to_str().unwrap(), at.to_str().unwrap()]);
        Loop(at)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).output();
    let done = done.unwrap_or_else(|e| panic!("{program} is needed (packages btrfs-progs, mount): {e}"));
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_copy_shares_its_blocks_with_the_image() {
    for driver in DRIVERS {
        let world = world(driver);
        let disk = Loop::new(world.dir.path());
        let spec = PoolSpec { name: "btrfs".into(), driver, source: disk.0.clone(), disk: None };
        let pool = done(|undo| world.storage.create_pool(&spec, undo));
        done(|undo| {
            pool.create_image(
                IMAGE,
                |tree: &HostDir| -> Result<(), Error> {
                    for n in 0..20u8 {
                        fs::write(tree.path().join(n.to_string()), vec![n; 5 << 20]).unwrap();
                    }
                    Ok(())
                },
                undo,
            )
        });
        let before = pool.resources().unwrap().space_used;
        let begun = Instant::now();
        for name in ["a", "b", "c"] {
            done(|undo| pool.create_from_image(&VolumeName::container(name).unwrap(), IMAGE, undo));
        }
        let grown = pool.resources().unwrap().space_used.saturating_sub(before);
        println!(
            "{driver:?} on btrfs: three volumes of a 100 MiB image take {grown} bytes and {:?}",
            begun.elapsed()
        );
        assert!(grown < 20 << 20, "{driver:?}: {grown} bytes");
        world.storage.delete_pool(&spec).unwrap_err();
        for name in ["a", "b", "c"] {
            pool.delete(&VolumeName::container(name).unwrap()).unwrap();
        }
        world.storage.delete_pool(&spec).unwrap();
        drop(pool);
    }
}

#[test]
fn a_snapshot_of_what_runs_shares_its_blocks_on_xfs() {
    for driver in [DriverKind::Overlay, DriverKind::Dir] {
        let world = with_image(Setup { driver, ground: Some("xfs") });
        let web = VolumeName::container("web").unwrap();
        done(|undo| world.pool.create_from_image(&web, IMAGE, undo));
        let used = || {
            world.pool.sync().unwrap();
            world.pool.resources().unwrap().space_used
        };
        let mounted = mount(&world, &web);
        let large = mounted.root.join("large");
        fs::write(&large, vec![7; 64 << 20]).unwrap();
        let before = used();
        done(|undo| {
            let mut staged = world.pool.stage_snapshot(&web, Activity::Running, "s", undo)?;
            staged.catch_up()?;
            staged.show(undo)
        });
        let grown = used().saturating_sub(before);
        println!(
            "{driver:?} on xfs: a snapshot of a running volume with a file of 64 MiB takes {grown} bytes"
        );
        assert!(grown < 8 << 20, "{driver:?}: {grown} bytes");
        // It is of then, whatever is written now.
        fs::write(&large, "now").unwrap();
        let snapshot = world.pool.path().join("containers-snapshots/web/s");
        let own = if driver == DriverKind::Dir { "rootfs/large" } else { "u/large" };
        assert_eq!(fs::metadata(snapshot.join(own)).unwrap().len(), 64 << 20);
    }
}
