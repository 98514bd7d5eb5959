//! What differs between two states of a volume, asked of every driver.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::Command;

use cabin_storage::{Activity, Change, Depth, FileKind, Kind, Moment, VolumeName};
use kit::{DRIVERS, IMAGE, World, done, mount, with_image};

fn web() -> VolumeName {
    VolumeName::container("web").unwrap()
}

fn diff(world: &World, before: Moment<'_>, after: Moment<'_>) -> Vec<String> {
    let mut told = Vec::new();
    let depth = world.pool.diff(&web(), before, after, &mut |found| {
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
        let path = String::from_utf8(found.path).unwrap();
        told.push(format!("{sign} {path}{}{}", shape(found.before), shape(found.after)));
    });
    assert_eq!(depth.unwrap(), Depth::Whole);
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
            let error = world.pool.diff(&web(), Moment::Snapshot("none"), Moment::Now, &mut |_| {});
            assert_eq!(error.unwrap_err().kind(), Kind::NotFound);
        }
    }
}
