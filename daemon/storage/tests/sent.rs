//! Volumes with their snapshots that go from one pool of subvolumes to another: the same, and as small.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::path::{Path, PathBuf};
use std::process::Command;

use cabin_storage::{Activity, Destination, DriverKind, Origin, Pool, PoolSpec, VolumeName};
use cabin_sys::btrfs::{self, Access};
use cabin_sys::dir::HostDir;
use kit::{World, done, world};

/// Bytes of content that each snapshot has and shares with the next.
const SHARED: u64 = 40 << 20;

fn web() -> VolumeName {
    VolumeName::custom("web").unwrap()
}

fn tree(pool: &Pool, snapshot: Option<&str>) -> PathBuf {
    pool.path().join(match snapshot {
        Some(name) => format!("custom-snapshots/web/{name}/rootfs"),
        None => "custom/web/rootfs".to_owned(),
    })
}

fn sh(at: &Path, script: &str) -> String {
    let done = Command::new("bash").args(["-euc", script]).current_dir(at).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn snap(world: &World, name: &str) {
    done(|undo| world.pool.stage_snapshot(&web(), Activity::Stopped, name, undo)?.show(undo));
}

/// What a filesystem has in use, once all is on disk.
fn used(world: &World) -> u64 {
    world.pool.sync().unwrap();
    world.pool.resources().unwrap().space_used
}

/// All that can be told of a tree but times of reading and of change of what is told here, and sizes of directories.
fn told(root: &Path) -> String {
    let script = "all() { find . \"$@\" -print0 | LC_ALL=C sort -z; }; \
         all | xargs -0 stat -c '%n|%F|%a|%u|%g|%t:%T|%y|%N'; all ! -type d | xargs -0 stat -c '%n %h %s'; \
         all -type f | xargs -0 sha256sum; all | xargs -0 getfattr -h -d -m - -e hex; stat -c %b hole";
    sh(root, script)
}

const FIRST: &str = r"
    mkdir -p d/e gone; dd if=/dev/urandom of=big bs=1M count=40 status=none; echo one >d/one; ln d/one two; ln -s d link
    truncate -s 64M hole; echo end >>hole; mknod null c 1 3; mknod disk b 259 70000; mkfifo pipe; echo x >gone/x
    chown 1000:1001 d/one; chmod 6711 d/one; chown -h 5:6 link; setfattr -n user.note -v kept d; setfattr -n trusted.t -v s null
    setfattr -h -n trusted.l -v l link; setcap cap_net_raw+ep big; touch -d '1999-01-02 03:04:05.123456789' d/e
    echo x >$'new\nline'
";

const SECOND: &str = r"
    mv d moved; echo more >>two; rm -r gone; echo 1 | dd of=big bs=1 seek=1M conv=notrunc status=none; rm null; mknod null c 1 5
    cp --reflink=always big again; fallocate -p -o 65536 -l 131072 again; setfattr -x user.note moved; rm pipe; mkdir pipe
    mv moved/one t; mv link moved/one; mv t link; chmod 700 .
";

/// A world whose pool has this name, and a filesystem of its own.
fn named(name: &str) -> World {
    let mut world = world(DriverKind::Btrfs);
    let source = world.storage.default_source(name);
    let spec = PoolSpec { name: name.to_owned(), driver: DriverKind::Btrfs, source, disk: None };
    world.pool = done(|undo| world.storage.create_pool(&spec, undo));
    world
}

/// Two worlds, the first with a volume and three snapshots.
fn worlds() -> (World, World) {
    let (here, there) = (named("here"), named("there"));
    done(|undo| here.pool.create_custom(&web(), (7, 8, 0o711), undo));
    sh(&tree(&here.pool, None), FIRST);
    let socket = tree(&here.pool, None).join("d/socket");
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, socket, rustix::fs::FileType::Socket, mode, 0).unwrap();
    snap(&here, "a");
    sh(&tree(&here.pool, None), SECOND);
    snap(&here, "b");
    sh(&tree(&here.pool, None), "echo third >third");
    snap(&here, "c");
    sh(&tree(&here.pool, None), "echo now >now; rm again");
    (here, there)
}

/// Brings snapshots of the volume in one world to another, then the volume.
fn bring(here: &World, there: &World, snapshots: &[&str], replacing: Option<&str>) {
    done(|undo| {
        for name in snapshots {
            let staged = there.pool.stage_custom_snapshot_from(&here.pool, (&web(), name), &web(), undo)?;
            staged.show(undo)?;
        }
        let own = Origin::Volume(&web(), Activity::Running);
        let staged = match replacing {
            Some(mark) => there.pool.stage_custom_replacing(&here.pool, own, &web(), mark, undo)?,
            None => there.pool.stage_custom_from(&here.pool, own, &web(), undo)?,
        };
        staged.show(undo)
    });
    there.pool.forget_replaced(&web()).unwrap();
}

fn same(here: &World, there: &World, states: &[Option<&str>]) {
    for state in states {
        let (mine, theirs) = (told(&tree(&there.pool, *state)), told(&tree(&here.pool, *state)));
        assert_eq!(mine.len(), theirs.len(), "{state:?}");
        for (mine, theirs) in mine.lines().zip(theirs.lines()) {
            assert_eq!(mine, theirs, "{state:?}");
        }
        let root = HostDir::open(&tree(&there.pool, *state)).unwrap();
        assert_eq!(btrfs::info(&root).unwrap().read_only, state.is_some(), "{state:?}");
    }
}

#[test]
fn what_snapshots_share_is_sent_once_and_shared_there_too() {
    let (here, there) = worlds();
    let before = used(&there);
    bring(&here, &there, &["a", "b", "c"], None);
    same(&here, &there, &[Some("a"), Some("b"), Some("c"), None]);
    let (source, target) = (used(&here), used(&there) - before);
    println!("a volume with three snapshots: {source} bytes in its pool, {target} in the other");
    assert!(target > SHARED && target < SHARED + SHARED / 2, "{target}");
    // And on: to a third pool, and back to where one of them still is.
    let third = named("third");
    bring(&there, &third, &["a", "b", "c"], None);
    same(&here, &third, &[Some("a"), Some("b"), Some("c"), None]);
    here.pool.delete_snapshot(&web(), "b").unwrap();
    let before = used(&here);
    bring(&third, &here, &["b"], Some("mark"));
    same(&third, &here, &[Some("a"), Some("b"), Some("c"), None]);
    let more = used(&here).saturating_sub(before);
    assert!(more < SHARED / 4, "{more} came again");
}

#[test]
fn a_refresh_sends_only_what_is_newer_than_the_newest_common_snapshot() {
    let (here, there) = worlds();
    bring(&here, &there, &["a"], None);
    let before = used(&there);
    let mut came = 0;
    done(|undo| {
        let volume = web();
        let to = Destination::Snapshot(&volume, "b");
        let from = (&*here.pool, Origin::Snapshot(&volume, "b"), &volume);
        there.pool.stage_sent(to, from, &mut |more| came += more, undo)?.show(undo)
    });
    assert!(came < SHARED / 8, "{came} bytes came");
    bring(&here, &there, &["c"], Some("mark"));
    same(&here, &there, &[Some("a"), Some("b"), Some("c"), None]);
    let more = used(&there).saturating_sub(before);
    println!("of {SHARED} shared bytes a refresh brought {came} with a snapshot, and {more} more are in use");
    assert!(more < SHARED / 4, "{more}");
}

#[test]
fn a_snapshot_that_somebody_wrote_in_is_nothing_to_go_on_from() {
    // By the host's root, in what was sent, or in what came.
    for sent in [true, false] {
        let (here, there) = worlds();
        bring(&here, &there, &["a"], None);
        let world = if sent { &here } else { &there };
        let root = HostDir::open(&tree(&world.pool, Some("a"))).unwrap();
        btrfs::set_access(&root, Access::Writable).unwrap();
        sh(root.path(), "rm -rf d two big");
        btrfs::set_access(&root, Access::ReadOnly).unwrap();
        bring(&here, &there, &["b"], Some("mark"));
        same(&here, &there, &[Some("b"), None]);
    }
}

#[test]
fn subvolumes_inside_come_along_as_directories() {
    let (here, there) = worlds();
    let root = HostDir::open(&tree(&here.pool, None)).unwrap();
    btrfs::create_subvolume(&root, "own").unwrap();
    sh(root.path(), "echo in >own/in");
    bring(&here, &there, &["a", "b"], None);
    same(&here, &there, &[Some("a"), Some("b")]);
    assert_eq!(sh(&tree(&there.pool, None), "cat own/in"), "in\n");
}
