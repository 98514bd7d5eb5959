//! Copies of trees that stand still, and of trees in use.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use super::*;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

#[test]
fn holes_links_and_times_survive_a_copy() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir_all(a.join("x/y")).unwrap();
    fs::create_dir(&b).unwrap();
    let sparse = fs::File::create(a.join("x/sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 9 << 20).unwrap();
    fs::hard_link(a.join("x/sparse"), a.join("x/y/again")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", a.join("link")).unwrap();
    let (from, to) = (fs::File::open(&a).unwrap(), fs::File::open(&b).unwrap());
    tree(from.as_fd(), to.as_fd(), Role::Whole).unwrap();
    let (old, new) = (a.join("x/sparse").metadata().unwrap(), b.join("x/y/again").metadata().unwrap());
    assert_eq!((new.size(), new.nlink(), new.mtime_nsec()), (old.size(), 2, old.mtime_nsec()));
    assert!(new.blocks() * 512 < 1 << 20);
    assert_eq!(fs::read(a.join("x/sparse")).unwrap(), fs::read(b.join("x/sparse")).unwrap());
    assert_eq!(fs::read_link(b.join("link")).unwrap().to_str(), Some("/etc/passwd"));
    assert_eq!(a.join("x").metadata().unwrap().mtime_nsec(), b.join("x").metadata().unwrap().mtime_nsec());
}

/// Every path of a tree with what can be told of it.
fn told(root: &std::path::Path) -> std::collections::BTreeMap<std::path::PathBuf, String> {
    let mut all = std::collections::BTreeMap::new();
    let mut open = vec![root.to_owned()];
    let mut first = std::collections::HashMap::new();
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let content = match () {
            () if meta.is_dir() => "dir".to_owned(),
            () if meta.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
            () => String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
        };
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        let with = if links > 1 {
            first.entry(meta.ino()).or_insert(name.clone()).clone()
        } else {
            std::path::PathBuf::new()
        };
        let time = (meta.mtime(), meta.mtime_nsec());
        let mut note = [0u8; 64];
        let note = rfs::lgetxattr(&path, "user.note", &mut note[..]).map(|length| note[..length].to_vec());
        all.insert(
            name,
            format!("{:o} {} {links} {with:?} {time:?} {note:?} {content}", meta.mode(), meta.uid()),
        );
        if meta.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()).collect();
            names.sort();
            names.reverse();
            open.extend(names);
        }
    }
    all
}

fn file(root: &std::path::Path, name: &str, text: &str) {
    fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
    fs::write(root.join(name), text).unwrap();
}

fn note(root: &std::path::Path, name: &str, text: &str) {
    rfs::lsetxattr(root.join(name), "user.note", text.as_bytes(), rfs::XattrFlags::empty()).unwrap();
}

/// Waits until the clock has gone on so far that a change from now on is a later one.
fn settle() {
    let begun = std::time::Instant::now();
    // Several times what the slowest clock may lag, for machines that are slow themselves.
    while begun.elapsed().as_millis() < 300 {
        std::thread::yield_now();
    }
}

#[test]
fn all_that_changes_while_a_tree_is_copied_is_in_the_copy() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir_all(&a).unwrap();
    fs::create_dir(&b).unwrap();
    for name in
        ["keep", "grow", "same-size", "gone", "d/inner", "moved/deep/er", "swap1/x", "swap2/x", "l1", "m1"]
    {
        file(&a, name, &format!("{name} one"));
    }
    for (first, other) in [("l1", "d/l2"), ("m1", "m2"), ("m1", "m3")] {
        fs::hard_link(a.join(first), a.join(other)).unwrap();
    }
    fs::hard_link(a.join("keep"), a.join("moved/kept")).unwrap();
    file(&a, "dir-to-file/x", "x");
    file(&a, "file-to-dir", "x");
    std::os::unix::fs::symlink("one", a.join("link")).unwrap();
    note(&a, "d", "one");
    note(&a, "keep", "one");
    settle();
    let (from, to) = (fs::File::open(&a).unwrap(), fs::File::open(&b).unwrap());
    let mut ahead = Ahead::begin(from.as_fd(), to.as_fd(), Role::Whole, None).unwrap();
    assert!(!b.join("keep").exists(), "so little need not be copied ahead");
    ahead.go_ahead().unwrap();
    let kept = b.join("keep").metadata().unwrap().ino();
    file(&a, "grow", "grow and more");
    let before = a.join("same-size").metadata().unwrap();
    file(&a, "same-size", "same-size ONE");
    let times = fs::FileTimes::new().set_modified(before.modified().unwrap());
    fs::File::open(a.join("same-size")).unwrap().set_times(times).unwrap();
    fs::remove_file(a.join("gone")).unwrap();
    fs::rename(a.join("moved"), a.join("d/moved")).unwrap();
    fs::rename(a.join("swap1"), a.join("swap")).unwrap();
    fs::rename(a.join("swap2"), a.join("swap1")).unwrap();
    fs::rename(a.join("swap"), a.join("swap2")).unwrap();
    // A name of a linked file goes, another is a new file, a third one gets more.
    fs::remove_file(a.join("l1")).unwrap();
    fs::remove_file(a.join("m2")).unwrap();
    file(&a, "m2", "its own");
    file(&a, "m1", "m1 and m3");
    fs::remove_dir_all(a.join("dir-to-file")).unwrap();
    file(&a, "dir-to-file", "now");
    fs::remove_file(a.join("file-to-dir")).unwrap();
    file(&a, "file-to-dir/x", "now");
    fs::remove_file(a.join("link")).unwrap();
    std::os::unix::fs::symlink("two", a.join("link")).unwrap();
    rfs::removexattr(a.join("d"), "user.note").unwrap();
    note(&a, "swap1", "new");
    fs::set_permissions(a.join("d/inner"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    ahead.catch_up().unwrap();
    ahead.clean().unwrap();
    assert_eq!(told(&b), told(&a));
    assert_eq!(b.join("keep").metadata().unwrap().ino(), kept, "what did not change is not copied again");
}

#[test]
fn a_tree_deeper_than_a_path_can_say_is_copied() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let top = cabin_sys::dir::HostDir::open(dir.path()).unwrap();
    let (a, b) = (top.create_dir("a", 0o700).unwrap(), top.create_dir("b", 0o700).unwrap());
    let name = "long-".repeat(10);
    let mut at = a.create_dir(&name, 0o700).unwrap();
    for _ in 0..400 {
        at = at.create_dir(&name, 0o750).unwrap();
    }
    at.create_file("bottom", 0o600).unwrap();
    let mut ahead = Ahead::begin(a.as_fd(), b.as_fd(), Role::Whole, None).unwrap();
    ahead.catch_up().unwrap();
    ahead.clean().unwrap();
    let mut copy = b.open_dir(&name).unwrap();
    for _ in 0..400 {
        copy = copy.open_dir(&name).unwrap();
    }
    assert!(copy.exists("bottom").unwrap());
    top.remove_tree("a").unwrap();
    top.remove_tree("b").unwrap();
}

/// What is noted of a copy: the id of the boot, and an entry for each of the five large files.
const NOTED: u64 = 36 + 5 * 28;

/// Copies a tree in use into a new directory `t` in `volume`, until so much time is over since it changed that a later
/// copy may rely on all of it.
fn noted_copy(from: &std::path::Path, volume: &std::path::Path, earlier: Option<&std::path::Path>) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !fs::metadata(volume.join("copied")).is_ok_and(|it| it.len() == NOTED) {
        assert!(std::time::Instant::now() < deadline, "not all of it is noted");
        let _ = fs::remove_dir_all(volume);
        fs::create_dir_all(volume.join("t")).unwrap();
        let (a, b) = (fs::File::open(from).unwrap(), fs::File::open(volume.join("t")).unwrap());
        let handle = |path: &std::path::Path| HostDir::open(path).unwrap();
        let earlier = earlier.map(|path| Earlier::open(&handle(path), "t").unwrap());
        let mut ahead = Ahead::begin(a.as_fd(), b.as_fd(), Role::Whole, earlier).unwrap();
        ahead.go_ahead().unwrap();
        ahead.catch_up().unwrap();
        ahead.0.reflinks.store(false, Ordering::Relaxed);
        ahead.remember(&handle(volume)).unwrap();
        ahead.clean().unwrap();
    }
}

#[test]
fn a_later_copy_shares_with_an_earlier_one_the_large_files_that_did_not_change() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let place = |name: &str| dir.path().join(name);
    let a = place("a");
    fs::create_dir_all(a.join("deep/er")).unwrap();
    for name in ["same", "changed", "moved", "other", "deep/er/same"] {
        fs::write(a.join(name), vec![7u8; 2 << 20]).unwrap();
    }
    fs::write(a.join("small"), b"small").unwrap();
    noted_copy(&a, &place("v1"), None);
    let written = fs::File::options().write(true).open(a.join("changed")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&written, b"new", 1 << 20).unwrap();
    fs::rename(a.join("moved"), a.join("else")).unwrap();
    fs::set_permissions(a.join("other"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    noted_copy(&a, &place("v2"), Some(&place("v1")));
    let inode = |volume: &str, name: &str| place(volume).join("t").join(name).metadata().unwrap().ino();
    for name in ["same", "deep/er/same"] {
        assert_eq!(inode("v1", name), inode("v2", name), "{name} was copied again");
    }
    for name in ["changed", "other", "small"] {
        assert_ne!(inode("v1", name), inode("v2", name), "{name} is shared");
    }
    for name in ["same", "changed", "else", "other", "deep/er/same", "small"] {
        let (old, new) = (a.join(name), place("v2").join("t").join(name));
        assert_eq!(fs::read(&old).unwrap(), fs::read(&new).unwrap(), "{name}");
        assert_eq!(old.metadata().unwrap().mode(), new.metadata().unwrap().mode(), "{name}");
    }
    assert_eq!(fs::read(place("v1").join("t/changed")).unwrap(), vec![7u8; 2 << 20]);
    // The third shares what the second has only by a link, too; and nothing is believed that another boot noted.
    noted_copy(&a, &place("v3"), Some(&place("v2")));
    assert_eq!(inode("v3", "same"), inode("v1", "same"));
    let mut record = fs::read(place("v3").join("copied")).unwrap();
    record[0] ^= 1;
    fs::write(place("v3").join("copied"), record).unwrap();
    assert!(Earlier::open(&HostDir::open(&place("v3")).unwrap(), "t").is_none());
}
