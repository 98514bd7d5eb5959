//! What an honest image holds arrives whole, whatever it is packed in.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod kit;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Instant;

use cabin_images::{Compression, Metadata, Template, TreeSource, pack_metadata, pack_squashfs, pack_unified};
use cabin_sys::command::Programs;
use kit::{chain, run, scratch, snapshot, unpack, unpack_with, unpacker};

fn metadata() -> Metadata {
    Metadata {
        architecture: "x86_64".into(),
        creation_date: 1_900_000_000,
        expiry_date: 0,
        properties: BTreeMap::from([("os".into(), "Debian".into())]),
        templates: vec![Template {
            path: "/etc/hostname".into(),
            when: vec!["create".into()],
            name: "hostname.tpl".into(),
            content: "{{ container.name }}\n".into(),
            ..Template::default()
        }],
    }
}

/// A small tree with one of everything that is easily lost.
fn tree(root: &Path) {
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::create_dir_all(root.join("var/empty")).unwrap();
    fs::write(root.join("usr/bin/su"), b"setuid").unwrap();
    chown(root.join("usr/bin/su"), Some(0), Some(42)).unwrap();
    fs::set_permissions(root.join("usr/bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(root.join("usr/bin/ping"), vec![7; 300_000]).unwrap();
    run("setcap", &["cap_net_raw+ep", root.join("usr/bin/ping").to_str().unwrap()]);
    fs::hard_link(root.join("usr/bin/ping"), root.join("usr/bin/ping6")).unwrap();
    run("setfattr", &["-n", "user.note", "-v", "kept", root.join("usr/bin/su").to_str().unwrap()]);
    symlink("../../etc/shadow", root.join("usr/bin/link")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    fs::write(root.join("var/mine"), b"").unwrap();
    chown(root.join("var/mine"), Some(1000), Some(65534)).unwrap();
    fs::set_permissions(root.join("var/empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    let long = format!("var/{}", "n".repeat(200));
    fs::write(root.join(&long), b"long").unwrap();
    run("mkfifo", &[root.join("var/pipe").to_str().unwrap()]);
    run("touch", &["-h", "-d", "2001-02-03 04:05:06", root.join("usr/bin/su").to_str().unwrap()]);
    run("touch", &["-h", "-d", "2001-02-03 04:05:06", root.join("bin").to_str().unwrap()]);
    run("touch", &["-d", "1999-01-01 00:00:00", root.join("var/empty").to_str().unwrap()]);
    run("touch", &["-d", "1999-01-01 00:00:00", root.join("usr").to_str().unwrap()]);
}

#[test]
fn every_form_of_an_image_gives_the_same_tree_and_metadata() {
    let dir = scratch();
    let source = dir.path().join("source");
    tree(&source);
    let before = snapshot(&source);
    for compression in
        [Compression::None, Compression::Gzip, Compression::Bzip2, Compression::Xz, Compression::Zstd]
    {
        let name = format!("unified{}", compression.extension());
        let archive = dir.path().join(&name);
        pack_unified(
            &TreeSource::Plain(source.clone()),
            &metadata(),
            &mut File::create(&archive).unwrap(),
            compression,
        )
        .unwrap();
        let inspected = unpacker().inspect(&File::open(&archive).unwrap()).map_err(|e| chain(&e)).unwrap();
        assert_eq!(inspected, metadata(), "{compression:?}");
        let (tree, report) =
            unpack(dir.path(), &format!("{name}.d"), &archive).map_err(|e| chain(&e)).unwrap();
        assert_eq!(snapshot(&tree), before, "{compression:?}");
        assert_eq!(report.entries as usize, before.len());
    }
    let (meta, squashfs) = (dir.path().join("meta.tar.gz"), dir.path().join("rootfs.squashfs"));
    pack_metadata(&metadata(), &mut File::create(&meta).unwrap()).unwrap();
    pack_squashfs(&Programs::find(), &source, &squashfs, 1_900_000_000).unwrap();
    assert_eq!(unpacker().inspect(&File::open(&meta).unwrap()).unwrap(), metadata());
    let (tree, _) =
        unpack_with(&unpacker(), dir.path(), "split", &meta, Some(&squashfs)).map_err(|e| chain(&e)).unwrap();
    assert_eq!(snapshot(&tree), before);
    for compressor in ["gzip", "xz"] {
        let image = dir.path().join(compressor);
        let args = [
            source.to_str().unwrap(),
            image.to_str().unwrap(),
            "-comp",
            compressor,
            "-quiet",
            "-no-progress",
        ];
        run("mksquashfs", &args);
        let (tree, _) =
            unpack_with(&unpacker(), dir.path(), &format!("{compressor}.d"), &meta, Some(&image)).unwrap();
        assert_eq!(snapshot(&tree), before, "{compressor}");
    }
}

#[test]
fn what_gnu_tar_wrote_is_read_sparse_files_and_acls_included() {
    let dir = scratch();
    let source = dir.path().join("source/rootfs");
    tree(&source);
    let sparse = source.join("var/sparse");
    run("truncate", &["-s", "300M", sparse.to_str().unwrap()]);
    for (at, text) in [("0", "start"), ("100000000", "middle"), ("299999000", "end")] {
        run(
            "sh",
            &[
                "-c",
                &format!(
                    "printf {text} | dd of={} bs=1 seek={at} conv=notrunc status=none",
                    sparse.display()
                ),
            ],
        );
    }
    // Many runs, so that the maps need more than one block.
    let many = source.join("var/many");
    run("truncate", &["-s", "20M", many.to_str().unwrap()]);
    let script = format!(
        "i=0; while [ $i -lt 60 ]; do printf x | dd of={} bs=1 seek=$((i*300000)) conv=notrunc status=none; i=$((i+1)); done",
        many.display()
    );
    run("sh", &["-c", &script]);
    let acl = source.join("var/mine");
    let value = "0sAgAAAAEABgD/////AgAEAOgDAAAEAAQA/////xAABAD/////IAAAAP////8=";
    run("setfattr", &["-n", "system.posix_acl_access", "-v", value, acl.to_str().unwrap()]);
    let before = snapshot(&source);
    let top = dir.path().join("source");
    for (name, form) in [
        ("posix-1.0", &["--format=posix", "-S"][..]),
        ("posix-0.1", &["--format=posix", "-S", "--sparse-version=0.1"]),
        ("posix-0.0", &["--format=posix", "-S", "--sparse-version=0.0"]),
        ("gnu", &["--format=gnu", "-S"]),
    ] {
        let archive = dir.path().join(format!("{name}.tar"));
        let mut args = form.to_vec();
        if form[0] == "--format=posix" {
            args.extend(["--xattrs", "--xattrs-include=*", "--numeric-owner"]);
        }
        args.extend(["-C", top.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "./rootfs"]);
        run("tar", &args);
        let (tree, _) = unpack(dir.path(), name, &archive).map_err(|e| chain(&e)).unwrap();
        let made = tree.join("var/sparse").metadata().unwrap();
        assert!(made.blocks() * 512 < 1 << 20, "{name}: {} bytes on disk", made.blocks() * 512);
        assert_eq!(made.size(), 300 << 20);
        assert!(fs::read(tree.join("var/many")).unwrap() == fs::read(&many).unwrap(), "{name}");
        assert!(fs::read(tree.join("var/sparse")).unwrap() == fs::read(&sparse).unwrap(), "{name}");
        if form[0] == "--format=posix" {
            assert_eq!(snapshot(&tree), before, "{name}");
        }
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let dir = scratch();
    let source = dir.path().join("source");
    tree(&source);
    let old = Metadata { creation_date: 1_000_000_000, ..metadata() };
    let pack = |name: &str| {
        let path = dir.path().join(name);
        pack_unified(
            &TreeSource::Plain(source.clone()),
            &old,
            &mut File::create(&path).unwrap(),
            Compression::Zstd,
        )
        .unwrap();
        fs::read(path).unwrap()
    };
    let first = pack("a");
    run("touch", &[source.join("var/mine").to_str().unwrap()]);
    assert!(first == pack("b"), "times after the creation date must not show");
}

#[test]
fn a_tree_of_200_mb_is_unpacked_in_good_time() {
    let dir = scratch();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let mut size = 0;
    for part in [
        "/usr/bin",
        "/usr/sbin",
        "/etc",
        "/usr/share/doc",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/share",
        "/usr/lib",
    ] {
        let name = part.trim_start_matches('/').replace('/', "-");
        run("cp", &["-a", part, source.join(name).to_str().unwrap()]);
        size = snapshot_size(&source);
        if size > 230 << 20 {
            break;
        }
    }
    let before = snapshot(&source);
    let mib = size >> 20;
    println!("tree: {} files, {mib} MiB", before.len());
    for compression in [Compression::Zstd, Compression::Gzip] {
        let archive = dir.path().join("image");
        let begun = Instant::now();
        pack_unified(
            &TreeSource::Plain(source.clone()),
            &metadata(),
            &mut File::create(&archive).unwrap(),
            compression,
        )
        .unwrap();
        let packed = begun.elapsed();
        let begun = Instant::now();
        let mut told = 0;
        let target =
            cabin_sys::dir::HostDir::ensure(&dir.path().join(format!("{compression:?}")), 0o755).unwrap();
        let files = cabin_images::ImageFiles { meta: File::open(&archive).unwrap(), rootfs: None };
        unpacker().unpack(&files, &target, &mut |_, _| told += 1).map_err(|e| chain(&e)).unwrap();
        println!(
            "{compression:?}: packed in {packed:?}, unpacked in {:?}, told {told} times",
            begun.elapsed()
        );
        assert!(told > 0);
        assert_eq!(snapshot(target.path()), before);
    }
    let squashfs = dir.path().join("squashfs");
    pack_squashfs(&Programs::find(), &source, &squashfs, 1_900_000_000).unwrap();
    let meta = dir.path().join("meta");
    pack_metadata(&metadata(), &mut File::create(&meta).unwrap()).unwrap();
    let begun = Instant::now();
    let (tree, _) = unpack_with(&unpacker(), dir.path(), "squash", &meta, Some(&squashfs))
        .map_err(|e| chain(&e))
        .unwrap();
    println!("squashfs: unpacked in {:?}", begun.elapsed());
    assert_eq!(snapshot(&tree), before);
}

fn snapshot_size(root: &Path) -> u64 {
    let mut size = 0;
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                open.push(entry.path());
            } else {
                size += meta.blocks() * 512;
            }
        }
    }
    size
}

/// A file with this content in a layer.
fn lay(layer: &Path, path: &str, content: &str) {
    let path = layer.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// The mark of a deleted file.
fn white_out(layer: &Path, path: &str) {
    let path = layer.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    )
    .unwrap();
}

fn make_opaque(layer: &Path, path: &str) {
    fs::create_dir_all(layer.join(path)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(layer.join(path), "trusted.overlay.opaque", b"y", flags).unwrap();
}

#[test]
fn layers_are_packed_as_the_kernel_would_show_them() {
    let dir = kit::scratch();
    let [top, middle, bottom] = ["top", "middle", "bottom"].map(|name| dir.path().join(name));
    for layer in [&top, &middle, &bottom] {
        fs::create_dir(layer).unwrap();
    }
    for path in
        ["a/kept", "a/gone", "b/hidden", "c/x", "d/deep/er/old", "e/again/low", "file-over-dir/x", "w/x"]
    {
        lay(&bottom, path, "bottom");
    }
    lay(&bottom, "dir-over-file", "bottom");
    white_out(&middle, "a/gone");
    white_out(&middle, "w");
    make_opaque(&middle, "b");
    lay(&middle, "b/shown", "middle");
    lay(&middle, "c/x", "middle");
    white_out(&middle, "e/again");
    lay(&top, "a/new", "top");
    lay(&top, "c/x", "top");
    lay(&top, "file-over-dir", "top");
    lay(&top, "dir-over-file/y", "top");
    lay(&top, "e/again/high", "top");
    lay(&top, "w/y", "top");
    make_opaque(&top, "d/deep");
    // What the kernel shows is what is to be packed.
    let (merged, upper, work) = (dir.path().join("merged"), dir.path().join("u"), dir.path().join("w"));
    for made in [&merged, &upper, &work] {
        fs::create_dir(made).unwrap();
    }
    let options = format!("lowerdir={}:{}:{}", top.display(), middle.display(), bottom.display());
    kit::run("mount", &["-t", "overlay", "overlay", "-o", &options, merged.to_str().unwrap()]);
    let archives = [
        ("merged.tar", TreeSource::Plain(merged.clone())),
        ("layers.tar", TreeSource::Overlay(vec![top, middle, bottom])),
    ];
    for (name, source) in &archives {
        pack_unified(
            source,
            &metadata(),
            &mut File::create(dir.path().join(name)).unwrap(),
            Compression::None,
        )
        .unwrap();
    }
    kit::run("umount", &[merged.to_str().unwrap()]);
    let listed = |name: &str| {
        let list = std::process::Command::new("tar").arg("-tvf").arg(dir.path().join(name)).output().unwrap();
        String::from_utf8(list.stdout).unwrap()
    };
    assert!(
        listed("layers.tar").contains("rootfs/e/again/high") && !listed("layers.tar").contains("again/low")
    );
    assert_eq!(listed("layers.tar"), listed("merged.tar"));
    assert_eq!(
        fs::read(dir.path().join("layers.tar")).unwrap(),
        fs::read(dir.path().join("merged.tar")).unwrap()
    );
}
