//! Images made to do harm: whatever they hold, nothing outside the target is touched and the answer is an error
//! or a harmless tree.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod kit;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use cabin_images::{Error, IdRange, Kind, Limits, UnpackReport, Unpacker};
use cabin_sys::dir::HostDir;
use kit::{Raw, chain, run, scratch, snapshot, unpack, unpack_with, unpacker, xattrs};

/// Files that must stay as they are, beside the targets.
struct Canary {
    dir: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Canary {
    fn new() -> Canary {
        let dir = scratch();
        let at = dir.path().join("canary");
        fs::create_dir_all(at.join("dir")).unwrap();
        fs::write(at.join("secret"), b"not yours").unwrap();
        fs::write(at.join("trap"), b"").unwrap();
        fs::set_permissions(at.join("trap"), fs::Permissions::from_mode(0o4755)).unwrap();
        let before = snapshot(&at);
        Canary { dir, before }
    }

    fn at(&self) -> String {
        self.dir.path().join("canary").display().to_string()
    }

    fn check(&self, what: &str) {
        assert_eq!(snapshot(&self.dir.path().join("canary")), self.before, "{what}");
    }

    fn try_one(&self, name: &str, archive: &Raw) -> Result<(PathBuf, UnpackReport), Error> {
        let path = archive.save(&self.dir.path().join("archive"));
        let outcome = unpack(self.dir.path(), name, &path);
        self.check(name);
        if let Err(error) = &outcome {
            assert_eq!(error.kind(), Kind::Invalid, "{name}: {}", chain(error));
        }
        outcome
    }
}

/// Refused, and the reason says so.
fn refuses(canary: &Canary, name: &str, archive: &Raw, reason: &str) {
    match canary.try_one(name, archive) {
        Ok(_) => panic!("{name} was accepted"),
        Err(error) => assert!(chain(&error).contains(reason), "{name}: {}", chain(&error)),
    }
}

fn root() -> Raw {
    Raw::default().dir("rootfs/")
}

#[test]
fn what_leads_outside_is_refused() {
    let canary = Canary::new();
    let at = canary.at();
    for (name, archive, reason) in [
        ("absolute", root().file(&format!("{at}/new"), b"x"), "absolute"),
        ("absolute in rootfs", root().file("/rootfs/x", b"x"), "absolute"),
        ("upwards", root().file("rootfs/../canary/new", b"x"), "upwards"),
        ("upwards first", root().file("../canary/new", b"x"), "upwards"),
        ("upwards dir", root().dir("rootfs/.."), "upwards"),
        ("through a link", root().symlink("rootfs/l", &at).file("rootfs/l/new", b"x"), "through a link"),
        (
            "through a relative link",
            root().symlink("rootfs/l", "../canary").file("rootfs/l/new", b"x"),
            "through a link",
        ),
        ("through two links", root().symlink("rootfs/a", "/").symlink("rootfs/a/b", &at), "through a link"),
        ("dir through a link", root().symlink("rootfs/l", &at).dir("rootfs/l/dir/"), "through a link"),
        ("hard link outside", root().hard_link("rootfs/h", &format!("{at}/secret")), "absolute"),
        ("hard link upwards", root().hard_link("rootfs/h", "rootfs/../../canary/secret"), "upwards"),
        (
            "hard link to metadata",
            root().file("metadata.yaml", b"x").hard_link("rootfs/h", "metadata.yaml"),
            "outside",
        ),
        (
            "hard link through a link",
            root().symlink("rootfs/l", &at).hard_link("rootfs/h", "rootfs/l/secret"),
            "through a link",
        ),
        ("hard link to a dir", root().dir("rootfs/d").hard_link("rootfs/h", "rootfs/d"), "directory"),
        ("hard link to itself", root().hard_link("rootfs/h", "rootfs/h"), "itself"),
        (
            "root is a link",
            Raw::default().symlink("rootfs", &at).file("rootfs/new", b"x"),
            "root must be a directory",
        ),
        (
            "root becomes a link",
            root().symlink("rootfs", "/").file("rootfs/new", b"x"),
            "root must be a directory",
        ),
        ("root is a file", Raw::default().file("rootfs", b"x"), "root must be a directory"),
        ("root is a hard link", root().hard_link("./rootfs/.", "rootfs/x"), "root must be a directory"),
        (
            "a file replaces a dir",
            root().dir("rootfs/d").file("rootfs/d/x", b"").file("rootfs/d", b""),
            "replace a directory",
        ),
        ("below a file", root().file("rootfs/f", b"").file("rootfs/f/x", b""), "through a link or file"),
        ("whiteout", root().member(b'3', "rootfs/gone", "", b""), "deleted file"),
        ("zero byte", root().pax(&[("path", "rootfs/a\0b")]).file("x", b""), "zero byte"),
        (
            "pax path upwards",
            root().pax(&[("path", "rootfs/../../canary/x")]).file("rootfs/x", b""),
            "upwards",
        ),
        ("global path", root().member(b'g', "g", "", b"17 path=rootfs/x\n").file("rootfs/y", b""), "global"),
        (
            "long component",
            root().pax(&[("path", &format!("rootfs/{}", "n".repeat(256)))]).file("x", b""),
            "too long",
        ),
        (
            "5000 deep",
            root().pax(&[("path", &format!("rootfs/{}x", "d/".repeat(5000)))]).file("x", b""),
            "too long",
        ),
        ("odd kind", root().member(b'Q', "rootfs/x", "", b""), "unknown kind"),
        ("nothing", Raw::default(), "not a tarball"),
        ("only metadata", Raw::default().file("metadata.yaml", b"x"), "no root filesystem"),
    ] {
        refuses(&canary, name, &archive, reason);
    }
}

#[test]
fn links_are_made_as_they_are_and_never_followed() {
    let canary = Canary::new();
    let at = canary.at();
    let archive = root()
        .symlink("rootfs/l", &format!("{at}/dir"))
        .dir("rootfs/l/")
        .file("rootfs/l/inside", b"x")
        .symlink("rootfs/f", &format!("{at}/secret"))
        .file("rootfs/f", b"mine")
        .file("backup.yaml", b"outside");
    let (tree, report) = canary.try_one("replaced", &archive).map_err(|e| chain(&e)).unwrap();
    assert!(tree.join("l/inside").is_file() && tree.join("l").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read(tree.join("f")).unwrap(), b"mine");
    assert_eq!(report.ignored, 1);
    assert!(!tree.join("backup.yaml").exists(), "only the root filesystem is unpacked");
}

#[test]
fn devices_are_left_out_and_attributes_an_image_has_no_say_in_are_stripped() {
    let canary = Canary::new();
    let mut archive = root().dir("rootfs/dev/");
    archive.push_device(b'3', "rootfs/dev/mem", "", b"", 0, (1, 1));
    archive.push_device(b'4', "rootfs/dev/sda", "", b"", 0, (8, 0));
    let archive = archive
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", "y"),
            ("SCHILY.xattr.trusted.overlay.redirect", "/etc"),
            ("SCHILY.xattr.user.overlay.opaque", "y"),
            ("SCHILY.xattr.security.selinux", "x"),
            ("SCHILY.xattr.user.kept", "yes"),
        ])
        .dir("rootfs/d/")
        .pax(&[("SCHILY.xattr.trusted.overlay.metacopy", ""), ("SCHILY.xattr.user.kept", "yes")])
        .file("rootfs/f", b"x");
    let (tree, report) = canary.try_one("stripped", &archive).map_err(|e| chain(&e)).unwrap();
    assert_eq!(report.devices_skipped, 2);
    assert_eq!(report.xattrs_skipped, 5);
    assert_eq!(fs::read_dir(tree.join("dev")).unwrap().count(), 0);
    for name in ["d", "f"] {
        assert_eq!(xattrs(&tree.join(name)), ["user.kept=[79, 65, 73]"], "{name}");
    }
    let strangers = root().pax(&[("uid", "65536")]).file("rootfs/f", b"");
    refuses(&canary, "owner beyond the range", &strangers, "beyond the ids");
    refuses(
        &canary,
        "owner beyond 32 bits",
        &root().pax(&[("uid", "4294967296")]).file("rootfs/f", b""),
        "beyond",
    );
}

#[test]
fn claims_and_bombs_end_at_the_limit() {
    let canary = Canary::new();
    let limits = Limits { expanded: 16 << 20, entries: 1000 };
    let small = Unpacker { limits, ..unpacker() };
    let limited = |name: &str, archive: &Path, reason: &str| {
        let begun = Instant::now();
        let error = unpack_with(&small, canary.dir.path(), name, archive, None).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{name}: {}", chain(&error));
        assert!(chain(&error).contains(reason), "{name}: {}", chain(&error));
        assert!(begun.elapsed().as_secs() < 20, "{name} took {:?}", begun.elapsed());
        let used: u64 = snapshot_blocks(&canary.dir.path().join(name));
        assert!(used <= 17 << 20, "{name} left {used} bytes");
        canary.check(name);
    };
    let saved = |archive: &Raw| archive.save(&canary.dir.path().join("archive"));

    let mut claim = root();
    claim.push(b'0', "rootfs/big", "", b"", 1 << 62);
    limited("claimed size", &saved(&claim), "beyond");
    let sized = root().pax(&[("size", "9223372036854775807")]).file("rootfs/x", b"");
    limited("pax size", &saved(&sized), "beyond");
    let sparse = |records: &[(&str, &str)], data: &[u8]| root().pax(records).file("rootfs/x", data);
    let one =
        [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "99999999999999")];
    limited("sparse size", &saved(&sparse(&one, &[b"0\n".as_slice(), &[0; 510]].concat())), "beyond");
    let one = [("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "1000")];
    let map = |text: &str| [text.as_bytes(), &vec![0; 512 - text.len()]].concat();
    limited(
        "sparse runs beyond the end",
        &saved(&sparse(&one, &[map("1\n999\n512\n"), vec![0; 512]].concat())),
        "runs",
    );
    limited("sparse runs backwards", &saved(&sparse(&one, &map("2\n500\n0\n0\n0\n"))), "runs");
    limited("sparse count", &saved(&sparse(&one, &map("99999999\n"))), "too many runs");
    limited("sparse number", &saved(&sparse(&one, &map("99999999999999999999999\n"))), "not numbers");
    limited("sparse text", &saved(&sparse(&one, &map("x\n"))), "not numbers");
    let mut long = root();
    long.push(b'x', "pax", "", b"", 1 << 40);
    limited("extended header", &saved(&long), "too long");
    limited(
        "headers without end",
        &saved(&(0..20).fold(root(), |raw, _| raw.pax(&[("comment", "x")]))),
        "in a row",
    );
    let many = (0..1100).fold(root(), |raw, n| raw.file(&format!("rootfs/{n}"), b""));
    limited("many files", &saved(&many), "more than 1000 files");
    let ignored = (0..1100).fold(root(), |raw, n| raw.file(&format!("else/{n}"), b""));
    limited("many ignored files", &saved(&ignored), "more than 1000 files");
    let cut = Raw(root().file("rootfs/x", &[1; 5000]).0[..3000].to_vec());
    let path = canary.dir.path().join("archive");
    fs::write(&path, &cut.0).unwrap();
    limited("cut short", &path, "too early");

    let mut bomb = root();
    bomb.push(b'0', "rootfs/zeros", "", b"", 300 << 20);
    let plain = || bomb.0.as_slice().chain(io::repeat(0).take(300 << 20));
    let mut zst = zstd::stream::read::Encoder::new(plain(), 3).unwrap();
    let mut gz = flate2::read::GzEncoder::new(plain(), flate2::Compression::fast());
    let mut xz = liblzma::read::XzEncoder::new(plain(), 0);
    for (name, source) in [("zst", &mut zst as &mut dyn Read), ("gz", &mut gz), ("xz", &mut xz)] {
        let path = canary.dir.path().join(format!("bomb.{name}"));
        io::copy(source, &mut File::create(&path).unwrap()).unwrap();
        assert!(path.metadata().unwrap().len() < 4 << 20);
        limited(&format!("bomb {name}"), &path, "beyond 16777216 bytes");
        // The same in front of the metadata that is looked for.
        let error = small.inspect(&File::open(&path).unwrap()).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{}", chain(&error));
        // Half of it is no image either.
        let half = fs::read(&path).unwrap();
        fs::write(&path, &half[..half.len() / 2]).unwrap();
        let error = unpack(canary.dir.path(), &format!("half {name}"), &path).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{}", chain(&error));
    }
}

fn snapshot_blocks(root: &Path) -> u64 {
    let mut sum = 0;
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        sum += if meta.is_dir() { 0 } else { meta.blocks() * 512 };
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    sum
}

#[test]
fn the_deepest_tree_that_is_taken_can_be_removed() {
    let canary = Canary::new();
    let archive = root().pax(&[("path", &format!("rootfs/{}x", "d/".repeat(2000)))]).file("x", b"deep");
    let (tree, _) = canary.try_one("deep", &archive).map_err(|e| chain(&e)).unwrap();
    HostDir::open(canary.dir.path()).unwrap().remove_tree("deep").unwrap();
    assert!(!tree.exists());
}

#[test]
fn hostile_metadata_is_refused() {
    let canary = Canary::new();
    let good =
        "architecture: x86_64\ncreation_date: 1\ntemplates:\n  /etc/x: {template: x.tpl, when: [create]}\n";
    let with = |template: &str, path: &str| good.replace("x.tpl", template).replace("/etc/x", path);
    let file = |yaml: &str| Raw::default().file("metadata.yaml", yaml.as_bytes());
    let all = |yaml: &str| file(yaml).file("templates/x.tpl", b"t");
    let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for n in 1..12 {
        laughs += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","));
    }
    for (name, archive, reason) in [
        ("none", root(), "no `metadata.yaml`"),
        ("a link", Raw::default().symlink("metadata.yaml", "/etc/passwd"), "plain file"),
        ("a hard link", Raw::default().file("x", b"").hard_link("metadata.yaml", "x"), "plain file"),
        ("a directory", Raw::default().dir("metadata.yaml"), "plain file"),
        ("twice", file(good).file("metadata.yaml", b""), "twice"),
        ("too long", Raw::default().file("metadata.yaml", &vec![b' '; (1 << 20) + 1]), "longer than 1 MiB"),
        ("no yaml", file("{{{"), "parse"),
        ("laughs", file(&laughs), "parse"),
        ("depth", file(&"[".repeat(100_000)), "parse"),
        ("templates is a link", file(good).symlink("templates", "/etc"), "must be a directory"),
        ("a template is a link", file(good).symlink("templates/x.tpl", "/etc/passwd"), "plain file"),
        ("template name", all(&with("../x", "/etc/x")), "plain file name"),
        ("template path", all(&with("x.tpl", "/etc/../../x")), "plain absolute path"),
        ("template missing", file(good), "missing"),
        ("template twice", Raw::default().file("templates/x.tpl", b"").file("templates/x.tpl", b""), "twice"),
        ("template below", Raw::default().file("templates/a/b", b""), "plain file name"),
        (
            "templates too long",
            file(good).file("templates/y", &vec![b'x'; (1 << 20) + 1]),
            "longer than 1 MiB",
        ),
        ("not UTF-8", file(good).file("templates/x.tpl", &[0xff]), "UTF-8"),
    ] {
        let path = archive.save(&canary.dir.path().join("archive"));
        let begun = Instant::now();
        let error =
            unpacker().inspect(&File::open(&path).unwrap()).map(|got| panic!("{name}: {got:?}")).unwrap_err();
        assert!(chain(&error).contains(reason), "{name}: {}", chain(&error));
        assert_eq!(error.kind(), Kind::Invalid, "{name}");
        assert!(begun.elapsed().as_secs() < 10, "{name}");
    }
    let path = all(good).save(&canary.dir.path().join("archive"));
    assert_eq!(unpacker().inspect(&File::open(path).unwrap()).unwrap().templates[0].content, "t");
    let path = canary.dir.path().join("junk");
    fs::write(&path, b"#!/bin/sh\n").unwrap();
    assert_eq!(unpacker().inspect(&File::open(path).unwrap()).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn no_pair_and_no_triple_of_members_reaches_outside() {
    let canary = Canary::new();
    let at = canary.at();
    let members: Vec<(u8, String, String)> = [
        (b'5', "rootfs/a/", ""),
        (b'5', "rootfs/a/b", ""),
        (b'0', "rootfs/a", ""),
        (b'0', "rootfs/a/b", ""),
        (b'0', "rootfs/./a//b/", ""),
        (b'2', "rootfs/a", "CANARY"),
        (b'2', "rootfs/a", "CANARY/dir"),
        (b'2', "rootfs/a", "../canary"),
        (b'2', "rootfs/a", "."),
        (b'2', "rootfs/a", "a"),
        (b'2', "rootfs/a/b", "CANARY/secret"),
        (b'2', "rootfs/", "CANARY"),
        (b'1', "rootfs/a", "rootfs/a/b"),
        (b'1', "rootfs/a/b", "rootfs/a"),
        (b'1', "rootfs/a", "CANARY/secret"),
        (b'1', "rootfs/a/secret", "rootfs/a/b"),
        (b'6', "rootfs/a", ""),
        (b'6', "rootfs/a/secret", ""),
        (b'0', "rootfs/a/secret", ""),
        (b'5', "rootfs/a/dir", ""),
        (b'0', "rootfs/.wh.a", ""),
    ]
    .into_iter()
    .map(|(kind, path, link)| (kind, path.to_owned(), link.replace("CANARY", &at)))
    .collect();
    let begun = Instant::now();
    let mut tried = 0;
    let mut refused = 0;
    for (n, first) in members.iter().enumerate() {
        for (m, second) in members.iter().enumerate() {
            let archive =
                root().member(first.0, &first.1, &first.2, b"").member(second.0, &second.1, &second.2, b"");
            refused += u32::from(canary.try_one(&format!("{n} {m}"), &archive).is_err());
            tried += 1;
        }
    }
    for (n, first) in members[..12].iter().enumerate() {
        for (m, second) in members[..12].iter().enumerate() {
            for (o, third) in members[..12].iter().enumerate() {
                let archive = [first, second, third]
                    .iter()
                    .fold(root(), |raw, (kind, path, link)| raw.member(*kind, path, link, b""));
                refused += u32::from(canary.try_one(&format!("{n} {m} {o}"), &archive).is_err());
                tried += 1;
            }
        }
    }
    println!("{tried} archives, {refused} refused, {:?}", begun.elapsed());
}

#[test]
fn damaged_squashfs_are_errors_and_nothing_worse() {
    let canary = Canary::new();
    let source = canary.dir.path().join("source");
    fs::create_dir_all(source.join("a/b")).unwrap();
    for n in 0..40 {
        fs::write(source.join(format!("a/{n}")), vec![n; 700 * usize::from(n)]).unwrap();
    }
    fs::write(source.join("big"), vec![9; 500_000]).unwrap();
    fs::hard_link(source.join("big"), source.join("a/b/big")).unwrap();
    run("setfattr", &["-n", "user.note", "-v", "x", source.join("big").to_str().unwrap()]);
    std::os::unix::fs::symlink("/etc", source.join("l")).unwrap();
    run("mknod", &[source.join("null").to_str().unwrap(), "c", "1", "3"]);
    let meta = Raw::default().file("metadata.yaml", b"x").save(&canary.dir.path().join("meta"));
    let image = canary.dir.path().join("image");
    let begun = Instant::now();
    let (mut random, mut tried, mut refused) = (0x2545_f491_4f6c_dd1du64, 0, 0);
    for compressor in [&["-comp", "zstd"][..], &["-comp", "gzip"], &["-noI", "-noD", "-noF", "-noX"]] {
        let _ = fs::remove_file(&image);
        let mut args = vec![source.to_str().unwrap(), image.to_str().unwrap(), "-quiet", "-no-progress"];
        args.extend(compressor);
        run("mksquashfs", &args);
        let (tree, report) =
            unpack_with(&unpacker(), canary.dir.path(), &compressor.concat(), &meta, Some(&image)).unwrap();
        assert_eq!((report.devices_skipped, tree.join("null").exists()), (1, false));
        let whole = fs::read(&image).unwrap();
        for n in 0..100 {
            let mut next = || shuffled(&mut random);
            let mut broken = whole.clone();
            for _ in 0..=next() % 4 {
                // Half of the hits on the superblock and the tables at the end, where they tell most.
                let length = broken.len() as u64;
                let at = match next() % 4 {
                    0 => next() % 96,
                    1 => length - 1 - next() % 2000.min(length - 1),
                    _ => next() % length,
                };
                broken[usize::try_from(at).unwrap()] = u8::try_from(next() & 0xff).unwrap();
            }
            fs::write(&image, &broken).unwrap();
            let name = format!("broken {n}");
            let outcome = unpack_with(&unpacker(), canary.dir.path(), &name, &meta, Some(&image));
            if let Err(error) = outcome {
                assert_eq!(error.kind(), Kind::Invalid, "{compressor:?} {n}: {}", chain(&error));
                refused += 1;
            }
            tried += 1;
            canary.check(&name);
            HostDir::open(canary.dir.path()).unwrap().remove_tree(&name).unwrap();
        }
    }
    println!("{tried} damaged images, {refused} refused, {:?}", begun.elapsed());
}

/// The next of a row of numbers that is the same in every run.
fn shuffled(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn damaged_tarballs_are_errors_and_nothing_worse() {
    let canary = Canary::new();
    let source = canary.dir.path().join("source/rootfs");
    fs::create_dir_all(source.join("a/b")).unwrap();
    for n in 0..20u8 {
        fs::write(source.join(format!("a/{n}{}", "x".repeat(usize::from(n) * 10))), vec![n; 300]).unwrap();
    }
    fs::hard_link(source.join("a/0"), source.join("a/b/again")).unwrap();
    std::os::unix::fs::symlink("/etc", source.join("l")).unwrap();
    run("setfattr", &["-n", "user.note", "-v", "x", source.join("a/0").to_str().unwrap()]);
    let sparse = File::create(source.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all_at(b"x", 500_000).unwrap();
    let archive = canary.dir.path().join("archive");
    let (mut random, mut tried, mut refused) = (0x9e37_79b9_7f4a_7c15u64, 0, 0);
    for form in [&["--format=posix", "--xattrs", "-S"][..], &["--format=gnu", "-S"]] {
        let top = canary.dir.path().join("source");
        let mut args = form.to_vec();
        args.extend(["-C", top.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "rootfs"]);
        run("tar", &args);
        let whole = fs::read(&archive).unwrap();
        for n in 0..200 {
            let mut broken = whole.clone();
            for _ in 0..1 + shuffled(&mut random) % 3 {
                let at = usize::try_from(shuffled(&mut random) % whole.len() as u64).unwrap();
                // Digits and letters do more harm in headers than noise.
                let bytes = b"0123456789/.=\0x5L\xff\n";
                broken[at] = bytes[usize::try_from(shuffled(&mut random) % bytes.len() as u64).unwrap()];
            }
            // Sums made right again, or nothing behind them would ever be looked at.
            for block in broken.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
                let mut header = tar::Header::from_byte_slice(block).clone();
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
            fs::write(&archive, &broken).unwrap();
            let name = format!("broken {n}");
            if let Err(error) = unpack(canary.dir.path(), &name, &archive) {
                assert_eq!(error.kind(), Kind::Invalid, "{form:?} {n}: {}", chain(&error));
                refused += 1;
            }
            tried += 1;
            canary.check(&name);
            HostDir::open(canary.dir.path()).unwrap().remove_tree(&name).unwrap();
        }
    }
    println!("{tried} damaged tarballs, {refused} refused");
}

#[test]
fn the_process_is_shut_in_while_it_works() {
    let canary = Canary::new();
    let archive = canary.dir.path().join("archive");
    let file = File::create(&archive).unwrap();
    let mut head = root();
    head.push(b'0', "rootfs/data", "", b"", 100 << 20);
    file.write_all_at(&head.0, 0).unwrap();
    file.set_len(head.0.len() as u64 + (100 << 20) + 1024).unwrap();
    let ids = IdRange { base: 1_400_000_000, size: 65536 };
    let unpacker = Unpacker { ids, ..unpacker() };
    let target = HostDir::ensure(&canary.dir.path().join("target"), 0o755).unwrap();
    let files = cabin_images::ImageFiles { meta: File::open(&archive).unwrap(), rootfs: None };
    let mut status = String::new();
    let mut look = |_, _| {
        // It may be asked before it has made the file, and gone when it is asked again.
        if !status.lines().any(|line| line == "sees: data") {
            let found = child_of_ids(ids.base);
            if !found.is_empty() {
                status = found;
            }
        }
    };
    unpacker.unpack(&files, &target, &mut look).map_err(|e| chain(&e)).unwrap();
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapEff:\t000000008000001b",
        "Threads:\t1",
        "CapInh:\t0000000000000000",
        "namespaces differ: true",
        "mounts: /",
        "sees: data",
        "Max file size 68719476736 68719476736",
        "Max address space 2147483648 2147483648",
        "Max cpu time 3600 3600",
        "Max open files 66 66",
        "Max core file size 0 0",
        "Max locked memory 0 0",
    ] {
        assert!(status.lines().any(|found| found.starts_with(line)), "{line} is not in\n{status}");
    }
    assert_eq!(unpacker.limits.expanded, 64 << 30);
    let made = canary.dir.path().join("target/data").metadata().unwrap();
    assert_eq!((made.uid(), made.gid(), made.size()), (0, 0, 100 << 20));
}

/// What /proc says about the one process with this user id.
fn child_of_ids(uid: u32) -> String {
    for entry in fs::read_dir("/proc").unwrap() {
        let dir = entry.unwrap().path();
        let Ok(status) = fs::read_to_string(dir.join("status")) else { continue };
        if status.contains(&format!("Uid:\t{uid}\t")) {
            let differ = ["net", "mnt", "user", "ipc", "uts", "cgroup"].iter().all(|kind| {
                fs::read_link(dir.join("ns").join(kind)).unwrap()
                    != fs::read_link(format!("/proc/self/ns/{kind}")).unwrap()
            });
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            let limits = fs::read_to_string(dir.join("limits")).unwrap();
            let limits: Vec<_> = limits.lines().map(words).collect();
            let mounts = fs::read_to_string(dir.join("mountinfo")).unwrap();
            let mounts: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
            let root = fs::read_dir(dir.join("root")).unwrap();
            let seen: Vec<_> = root.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            let (mounts, seen, limits) = (mounts.join(","), seen.join(","), limits.join("\n"));
            return format!(
                "{status}namespaces differ: {differ}\nmounts: {mounts}\nsees: {seen}\n{limits}\n"
            );
        }
    }
    String::new()
}
