//! What differs between two states of a volume, asked of every driver.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cabin_storage::{Activity, Change, Depth, Difference, DriverKind, FileKind, Kind, Moment, VolumeName};
use cabin_sys::btrfs::{self, Access};
use cabin_sys::dir::HostDir;
use kit::{DRIVERS, IMAGE, World, done, mount, refused, with_image};

fn web() -> VolumeName {
    VolumeName::container("web").unwrap()
}

fn diff(world: &World, before: Moment<'_>, after: Moment<'_>) -> Vec<String> {
    let mut told = Vec::new();
    let mut give = |found: Difference| {
        let sign = match found.change {
            Change::Added => '+',
            Change::Changed => '~',
            Change::Removed => '-',
        };
        let shape = |shape: Option<cabin_storage::Shape>| match shape {
            None => String::new(),
            Some(shape) if shape.kind == FileKind::File => format!(" {}", shape.size),
            Some(shape) => format!(" {:?}", shape.kind),
        };
        let path = String::from_utf8_lossy(&found.path).escape_default().to_string();
        told.push(format!("{sign} {path}{}{}", shape(found.before), shape(found.after)));
    };
    assert_eq!(done(|undo| world.pool.diff(&web(), before, after, &mut give, undo)), Depth::Whole);
    told
}

fn snap(world: &World, activity: Activity, name: &str) {
    done(|undo| {
        let mut staged = world.pool.stage_snapshot(&web(), activity, name, undo)?;
        staged.catch_up()?;
        staged.show(undo)
    });
}

#[test]
fn what_was_added_changed_and_removed_is_told_between_any_two_states() {
    for driver in DRIVERS {
        for activity in [Activity::Stopped, Activity::Running] {
            let world = with_image(driver);
            let told = format!("{driver:?} {activity:?}");
            done(|undo| world.pool.create_from_image(&web(), IMAGE, undo));
            assert!(diff(&world, Moment::Image, Moment::Now).is_empty(), "{told}");
            {
                let mounted = mount(&world, &web());
                let root = &mounted.root;
                fs::create_dir_all(root.join("new/deep")).unwrap();
                fs::write(root.join("new/deep/file"), [0; 10]).unwrap();
                symlink("one", root.join("new/link")).unwrap();
                // Opened as it is: Debian lets nobody create what is another's in a sticky directory
                // (fs.protected_regular).
                let mut mine =
                    fs::File::options().write(true).truncate(true).open(root.join("mine")).unwrap();
                mine.write_all(&[0; 20]).unwrap();
                fs::remove_dir_all(root.join("etc")).unwrap();
                fs::create_dir(root.join("etc")).unwrap();
                fs::write(root.join("etc/new"), "new").unwrap();
                let moved =
                    Command::new("mv").arg(root.join("var")).arg(root.join("moved")).status().unwrap();
                assert!(moved.success());
            }
            snap(&world, activity, "one");
            let first = diff(&world, Moment::Image, Moment::Now);
            let expected = [
                "+ etc/new 3",
                "- etc/old 3",
                "~ mine 6 20",
                "+ moved Directory",
                "+ moved/lib Directory",
                "+ moved/lib/data 4",
                "+ new Directory",
                "+ new/deep Directory",
                "+ new/deep/file 10",
                "+ new/link Link",
                "- var Directory",
                "- var/lib Directory",
                "- var/lib/data 4",
            ];
            assert_eq!(first, expected, "{told}");
            assert_eq!(diff(&world, Moment::Image, Moment::Snapshot("one")), expected, "{told}");
            assert!(diff(&world, Moment::Snapshot("one"), Moment::Now).is_empty(), "{told}");
            {
                let mounted = mount(&world, &web());
                let root = &mounted.root;
                fs::remove_file(root.join("new/link")).unwrap();
                symlink("two", root.join("new/link")).unwrap();
                fs::remove_dir_all(root.join("new/deep")).unwrap();
                fs::write(root.join("new/deep"), "file").unwrap();
                fs::remove_file(root.join("etc/new")).unwrap();
                fs::create_dir(root.join("usr/more")).unwrap();
            }
            snap(&world, activity, "two");
            let second = [
                "- etc/new 3",
                "~ new/deep Directory 4",
                "- new/deep/file 10",
                "~ new/link Link Link",
                "+ usr/more Directory",
            ];
            assert_eq!(diff(&world, Moment::Snapshot("one"), Moment::Now), second, "{told}");
            assert_eq!(diff(&world, Moment::Snapshot("one"), Moment::Snapshot("two")), second, "{told}");
            let back = diff(&world, Moment::Snapshot("two"), Moment::Snapshot("one"));
            assert_eq!(back.len(), second.len(), "{told}: {back:?}");
            let none = Moment::Snapshot("none");
            let error = refused(|undo| world.pool.diff(&web(), none, Moment::Now, &mut |_| {}, undo));
            assert_eq!(error.kind(), Kind::NotFound);
        }
    }
}

/// The tree of a volume on btrfs, or of its snapshot.
fn tree(world: &World, snapshot: Option<&str>) -> PathBuf {
    world.pool.path().join(match snapshot {
        Some(name) => format!("containers-snapshots/web/{name}/rootfs"),
        None => "containers/web/rootfs".to_owned(),
    })
}

fn sh(at: &Path, script: &str) {
    let done = Command::new("bash").args(["-euc", script]).current_dir(at).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A volume on btrfs with the snapshots `one` and `two`, before and after a change.
fn changed(before: &str, change: &str) -> World {
    let world = with_image(DriverKind::Btrfs);
    done(|undo| world.pool.create_from_image(&web(), IMAGE, undo));
    sh(&tree(&world, None), before);
    snap(&world, Activity::Stopped, "one");
    sh(&tree(&world, None), change);
    snap(&world, Activity::Stopped, "two");
    world
}

/// What lies below `usr` in a snapshot cannot be looked at as long as this is there.
struct Covered(PathBuf);

impl Covered {
    fn new(world: &World) -> Covered {
        let at = tree(world, Some("one")).join("usr");
        sh(&at, "mount -t tmpfs cover .");
        Covered(at)
    }
}

impl Drop for Covered {
    fn drop(&mut self) {
        let _ = cabin_sys::mount::detach(&self.0);
    }
}

/// Puts a subvolume in both snapshots and the volume: none of them is in a stream, so all is looked at.
fn looked_at(world: &World) {
    for state in [Some("one"), Some("two"), None] {
        let root = HostDir::open(&tree(world, state)).unwrap();
        btrfs::set_access(&root, Access::Writable).unwrap();
        btrfs::create_subvolume(&root, "sub").unwrap();
    }
}

const BEFORE: &str = r"
    mkdir -p a/deep/er shift/d1 shift/d2 swap/x swap/y dead/in gone/with/all keep/in/place
    for d in a a/deep a/deep/er shift/d1 shift/d2 swap/x swap/y dead dead/in gone/with/all keep keep/in/place; do
        echo $d >$d/file; done
    echo shared >h1; ln h1 h2; ln h1 keep/in/h3; echo other >l1; ln l1 keep/l2; echo only >m1; ln m1 m2
    echo file >todir; mkdir tofile; echo in >tofile/in; mkdir tolink; touch plain mode owner attribute time grow same
    truncate -s 8M hole; dd if=/dev/zero of=full bs=64k count=16 status=none; ln -s here link; ln -s here kept
    mknod null c 1 3; mknod gonedev b 7 9; mkfifo pipe; echo again >again; echo one >first; echo two >second
    echo x >$'odd\nname'; mkdir -p empty nest/in; touch nest/in/n; mkdir o257-7-0; echo stays >o257-7-0/s
";

const CHANGE: &str = r"
    mv a moved; echo more >>moved/deep/file; mv moved/deep/er out; mv shift/d2 shift/d3; mv shift/d1 shift/d2
    mv swap/x swap/t; mv swap/y swap/x; mv swap/t swap/y; mv dead/in/file rescued; rm -r dead gone
    echo changed >h2; rm l1; ln keep/l2 l3; ln m1 keep/in/m3; chmod 600 m2
    rm todir; mkdir todir; echo in >todir/in; rm -r tofile; echo now >tofile; rmdir tolink; ln -s / tolink
    chmod 4711 mode; chown 5:6 owner; setfattr -n user.only -v this attribute; touch -d 2001-01-01 time; echo +++ >>grow
    fallocate -p -o 65536 -l 131072 full; echo data | dd of=hole bs=1 seek=4M conv=notrunc status=none
    ln -sfn there link; rm null gonedev; mknod null c 1 5; mknod newdev b 7 8; rm pipe; echo nopipe >pipe
    rm again; echo again >again; mv first t; mv second first; mv t second
    mv $'odd\nname' $'odder\nname'; mv empty nest/in/full; mkdir -p new/a/b; echo 1 >new/a/b/c; mv keep/in/place new/a/
    mkdir keep/in/place; echo other >keep/in/place/file; touch keep/in/place/more; chmod 700 keep
";

#[test]
fn the_kernel_tells_what_looking_at_everything_tells() {
    let world = changed(BEFORE, CHANGE);
    sh(&tree(&world, None), "echo later >later; rm rescued; mv moved back");
    let (one, two) = (Moment::Snapshot("one"), Moment::Snapshot("two"));
    let pairs = [
        (one, two),
        (two, one),
        (one, Moment::Now),
        (Moment::Now, two),
        (Moment::Image, Moment::Now),
        (Moment::Image, one),
    ];
    let before = btrfs::nested::within(HostDir::open(world.dir.path()).unwrap()).unwrap();
    let ask = |&(before, after): &(Moment<'_>, Moment<'_>)| diff(&world, before, after);
    let told: Vec<Vec<String>> = {
        let _covered = Covered::new(&world);
        pairs.iter().map(ask).collect()
    };
    let after = btrfs::nested::within(HostDir::open(world.dir.path()).unwrap()).unwrap();
    assert_eq!(after, before, "what was made for it is gone");
    looked_at(&world);
    for (pair, told) in pairs.iter().zip(told) {
        let mut looked = ask(pair);
        looked.retain(|line| line != "+ sub Directory");
        assert_eq!(told, looked, "{pair:?}");
        assert!(told.len() > 8, "{pair:?}: {told:?}");
    }
    let _covered = Covered::new(&world);
    refused(|undo| world.pool.diff(&web(), one, two, &mut |_| {}, undo));
}

#[test]
fn one_change_is_found_as_fast_in_a_large_tree_as_in_a_small_one() {
    let timed = |world: &World| -> Duration {
        // The best of some: others use this machine too.
        let ask = |_| {
            let begun = Instant::now();
            let told = diff(world, Moment::Snapshot("one"), Moment::Snapshot("two"));
            assert_eq!(told, ["~ t/1/1 0 2"]);
            begun.elapsed()
        };
        (0..5).map(ask).min().unwrap()
    };
    let make = |directories: u32| {
        let fill = format!(
            "mkdir t; for d in $(seq {directories}); do mkdir t/$d; (cd t/$d; touch $(seq 1000)); done"
        );
        changed(&fill, "echo 1 >t/1/1")
    };
    let (small, large) = (make(1), make(50));
    let (few, many) = (timed(&small), timed(&large));
    looked_at(&large);
    let all = timed(&large);
    println!(
        "one change among 1,000 files: {few:?}, among 50,000: {many:?}, by looking at all of them: {all:?}"
    );
    assert!(many < all / 4, "{few:?}, {many:?}, {all:?}");
}
