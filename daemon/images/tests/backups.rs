//! Backups made to do harm: what several trees side by side add to what one image could try.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod kit;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cabin_images::{Error, Kind, Place, RestoreTo, ShiftRun, UnpackReport};
use cabin_sys::dir::HostDir;
use kit::{Raw, chain, scratch, snapshot, unpacker};

const OWN: &str = "backup/container/rootfs";
const OTHER: &str = "backup/snapshots/s0/rootfs";

/// Two trees to be made, and files beside them that must stay as they are.
struct Bench {
    dir: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Bench {
    fn new() -> Bench {
        let dir = scratch();
        fs::create_dir_all(dir.path().join("canary/dir")).unwrap();
        fs::write(dir.path().join("canary/secret"), b"not yours").unwrap();
        let before = snapshot(&dir.path().join("canary"));
        Bench { dir, before }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn restore(&self, archive: &Path, shift: &[ShiftRun]) -> Result<UnpackReport, Error> {
        let root = HostDir::open(self.dir.path()).unwrap();
        let place = |place, name: &str| {
            root.remove_tree(name).unwrap();
            RestoreTo { place, shift: shift.to_vec(), tree: root.create_dir(name, 0o755).unwrap() }
        };
        let places = [place(Place::Container, "own"), place(Place::Snapshot("s0".into()), "other")];
        unpacker().restore(File::open(archive).unwrap(), &places, &mut |_| {}).map(|(report, _)| report)
    }

    fn try_one(&self, what: &str, archive: &Raw) -> Result<UnpackReport, Error> {
        let outcome = self.restore(&archive.save(&self.at("archive")), &[]);
        assert_eq!(snapshot(&self.at("canary")), self.before, "{what}");
        if let Err(error) = &outcome {
            assert_eq!(error.kind(), Kind::Invalid, "{what}: {}", chain(error));
        }
        outcome
    }

    fn refuses(&self, what: &str, archive: &Raw, reason: &str) {
        match self.try_one(what, archive) {
            Ok(_) => panic!("{what} was accepted"),
            Err(error) => assert!(chain(&error).contains(reason), "{what}: {}", chain(&error)),
        }
    }
}

/// Both trees, empty.
fn both() -> Raw {
    Raw::default().file("backup/index.yaml", b"name: x\n").dir(OTHER).dir(OWN)
}

#[test]
fn no_pair_of_members_reaches_another_tree_or_the_host() {
    let bench = Bench::new();
    let canary = bench.at("canary").display().to_string();
    let kinds: Vec<(u8, &str, String)> = vec![
        (b'5', "a", String::new()),
        (b'0', "a", String::new()),
        (b'0', "a/secret", String::new()),
        (b'0', "", String::new()),
        (b'2', "a", canary.clone()),
        (b'2', "a", "../../../canary".to_owned()),
        (b'2', "a", "/1".to_owned()),
        (b'2', "", canary.clone()),
        (b'1', "a", format!("{OTHER}/a")),
        (b'1', "a", format!("{OWN}/a/secret")),
        (b'1', "a/secret", format!("{canary}/secret")),
        (b'1', "a", "backup/index.yaml".to_owned()),
        (b'6', "a", String::new()),
        (b'6', "", String::new()),
        (b'3', "a", String::new()),
        (b'0', "../../../../canary/secret", String::new()),
    ];
    let mut tried = 0;
    for first in &kinds {
        for second in &kinds {
            for roots in [[OWN, OWN], [OTHER, OWN]] {
                let archive =
                    [first, second].iter().zip(roots).fold(both(), |raw, ((kind, path, link), root)| {
                        raw.member(*kind, &format!("{root}/{path}"), link, b"")
                    });
                let what = format!("{first:?} {second:?} {roots:?}");
                let _ = bench.try_one(&what, &archive);
                // What one tree got must not be the other's file.
                let own = fs::symlink_metadata(bench.at("own/a")).ok();
                let shared = own.is_some_and(|own| {
                    use std::os::unix::fs::MetadataExt;
                    own.is_file()
                        && fs::symlink_metadata(bench.at("other/a")).is_ok_and(|it| it.ino() == own.ino())
                });
                assert!(!shared, "{what}");
                tried += 1;
            }
        }
    }
    println!("{tried} backups");
}

#[test]
fn what_is_not_in_the_index_or_twice_or_cut_off_is_refused() {
    let bench = Bench::new();
    bench.try_one("an empty one", &both()).unwrap();
    bench.refuses("a snapshot nobody named", &both().dir("backup/snapshots/s1/rootfs"), "the index names");
    bench.refuses("one tree alone", &Raw::default().dir(OWN), "is not in it");
    bench.refuses("an optimized one", &both().file("backup/container.bin", b"x"), "own form");
    bench.refuses("an optimized snapshot", &both().file("backup/snapshots/s0.bin", b"x"), "own form");
    bench.refuses("a machine", &both().dir("backup/virtual-machine/rootfs"), "not the backup of a container");
    let metadata =
        b"architecture: x86_64\ncreation_date: 1\ntemplates:\n  /etc/x: {template: t, when: [start]}\n";
    let about = |raw: Raw| raw.file("backup/container/metadata.yaml", metadata);
    bench.refuses("metadata twice", &about(about(both())), "twice");
    bench.refuses("a template that is missing", &about(both()), "missing");
    let template = |raw: Raw, path: &str| raw.file(&format!("backup/container/templates/{path}"), b"x");
    bench.try_one("a template", &template(about(both()), "t")).unwrap();
    bench.refuses("a template twice", &template(template(about(both()), "t"), "t"), "twice");
    bench.refuses("a template elsewhere", &template(about(both()), "../t"), "upwards");
    bench.refuses(
        "a link for the templates",
        &both().symlink("backup/container/templates", "/"),
        "directory",
    );
    let whole = fs::read(both().file(&format!("{OWN}/f"), &[7; 3000]).save(&bench.at("whole"))).unwrap();
    // The two blocks of zeros at the end are what says that this is all; one will do.
    for cut in (0..whole.len() - 1024).step_by(256) {
        fs::write(bench.at("cut"), &whole[..cut]).unwrap();
        let error = bench.restore(&bench.at("cut"), &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "cut at {cut}: {}", chain(&error));
    }
}

#[test]
fn devices_and_marks_of_deleted_files_are_left_out_and_shifted_owners_put_right() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    let mut archive = both().file(&format!("{OWN}/f"), b"x");
    archive.push_device(b'3', &format!("{OWN}/null"), "", b"", 0, (1, 3));
    archive.push_device(b'3', &format!("{OWN}/white"), "", b"", 0, (0, 0));
    let run = |users| ShiftRun { outside: 0, inside: 1000, count: 10, users, groups: !users };
    let report = bench.restore(&archive.save(&bench.at("archive")), &[run(true), run(false)]).unwrap();
    assert_eq!(report.devices_skipped, 2);
    let made = bench.at("own/f").metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (1000, 1000));
    assert!(!bench.at("own/null").exists() && !bench.at("own/white").exists());
}

#[test]
fn an_index_is_found_in_a_beginning_or_more_is_asked_for() {
    let bench = Bench::new();
    let index = |bytes: &[u8]| {
        fs::write(bench.at("head"), bytes).unwrap();
        unpacker().index(&File::open(bench.at("head")).unwrap())
    };
    let text = format!("name: x\nnote: {}\n", "y".repeat(5000));
    let whole = fs::read(
        Raw::default().dir("backup").file("backup/index.yaml", text.as_bytes()).save(&bench.at("a")),
    );
    let whole = whole.unwrap();
    assert!(index(&whole).unwrap().unwrap().starts_with("{\"name\":\"x\",\"note\":\"yyy"));
    for cut in [512, 1000, 1024, 3000] {
        assert!(index(&whole[..cut]).unwrap().is_none(), "cut at {cut}");
    }
    for (bytes, reason) in [
        (Raw::default().file("rootfs/x", b"").0, "no backup"),
        ([Raw::default().dir("backup").0, vec![0; 1024]].concat(), "no backup"),
        (Raw::default().file("backup/index.yaml", b"a: [").0, "index.yaml"),
        (Raw::default().symlink("backup/index.yaml", "/etc/passwd").0, "plain file"),
        (b"#!/bin/sh\n".to_vec(), "tarball"),
    ] {
        let error = index(&bytes).unwrap_err();
        assert!(error.kind() == Kind::Invalid && chain(&error).contains(reason), "{}", chain(&error));
    }
}
