//! Backups in the own form of btrfs: out and in again, and what hostile streams come to.

use cabin_tests::lab::Lab;
use cabin_tests::stream::{Stream, kind};
use serde_json::Value;

/// A daemon with a pool on a disk of btrfs.
fn lab() -> Lab {
    let lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["storage", "create", "btr", "btrfs", "size=2GiB"]).ok();
    lab
}

fn listed(lab: &Lab, name: &str) -> String {
    lab.sh(
        name,
        "cd /; find etc/passwd opt root usr/share srv bin/busybox ! -type d -exec stat -c '%n %F %a %u %g %h %s %Y' {} + | sort; \
         find opt root usr/share srv -type d -exec stat -c '%n %a %u %g %Y' {} + | sort; \
         find root opt -type f -exec md5sum {} + | sort; stat -c '%a %u %g' /",
    )
}

#[test]
fn an_instance_comes_back_whole_from_its_streams_with_its_snapshots() {
    let lab = lab();
    lab.cabin(&["launch", "busybox", "whole", "-s", "btr"]).ok();
    lab.sh(
        "whole",
        "mkdir -p /root /opt/deep/er /srv /usr/share/a; cd /root; echo one >one; chown 1000:2000 one; chmod 4750 one; \
         ln one two; ln -s /nowhere link; mkfifo pipe; echo x | dd of=sparse bs=1 seek=20000000 2>/dev/null; \
         dd if=/dev/urandom of=big bs=1M count=3 2>/dev/null; touch -d '2001-02-03 04:05:06' one; mkdir -m 1777 /srv/sticky",
    );
    let old = listed(&lab, "whole");
    lab.cabin(&["snapshot", "create", "whole", "first"]).ok();
    lab.sh("whole", "mv /root/big /opt/deep/er/; rm /root/two; echo later >/root/later; rm -r /usr/share; mkdir /usr/share");
    lab.cabin(&["snapshot", "create", "whole", "second"]).ok();
    lab.sh("whole", "echo last >/root/last");
    let new = listed(&lab, "whole");
    let mut file = String::new();
    for compression in ["none", "zstd"] {
        file = lab.home().join(format!("whole-{compression}")).display().to_string();
        lab.cabin(&["export", "whole", &file, "--optimized-storage", "--compression", compression]).ok();
        lab.cabin(&["import", &file, "again", "-s", "btr"]).ok();
        lab.cabin(&["start", "again"]).ok();
        assert_eq!(listed(&lab, "again"), new);
        assert_eq!(lab.sh("again", "hostname"), "again");
        assert!(lab.sh("again", "stat -c %b /root/sparse").parse::<u64>().is_ok_and(|blocks| blocks < 100));
        lab.cabin(&["restore", "again", "first"]).ok();
        assert_eq!(listed(&lab, "again"), old);
        lab.cabin(&["restore", "again", "second"]).ok();
        assert_eq!(
            lab.sh("again", "cat /root/later; ls /root/last 2>&1 | tail -c 26"),
            "later\nNo such file or directory"
        );
        lab.cabin(&["delete", "-f", "again"]).ok();
    }
    // What changed since is all that the second and third stream hold.
    let bytes = std::fs::read(&file).unwrap().len();
    assert!(bytes < 6_000_000, "the same content is in it twice: {bytes} bytes");
    let refused = lab.cabin(&["import", &file, "other", "-s", "default"]).refused();
    assert!(refused.contains("btrfs") && refused.contains("default"), "{refused}");
    lab.cabin(&["create", "busybox", "plain"]).ok();
    let file = lab.home().join("plain").display().to_string();
    let refused = lab.cabin(&["export", "plain", &file, "--optimized-storage"]).refused();
    assert!(refused.contains("btrfs") && refused.contains("default"), "{refused}");
    lab.cabin(&["delete", "-f", "whole", "plain"]).ok();
    lab.cabin(&["storage", "delete", "btr"]).ok();
}

/// Whether what is there now is what was there before.
fn shape(lab: &Lab) -> (Value, Value, Value) {
    (lab.get("/1.0/instances"), lab.get("/1.0/storage-pools/btr/volumes"), lab.get("/internal/audit"))
}

/// Streams that would reach out, by links and by ways, or that make no sense. `at` is a directory of the host with a
/// file `bird`.
fn hostile(at: &str) -> Vec<(&'static str, Stream)> {
    let zero = 0u64.to_le_bytes();
    let linked = || Stream::rooted().with(kind::SYMLINK, &[(15, b"rootfs/l"), (17, at.as_bytes())]);
    let up = || Stream::rooted().with(kind::SYMLINK, &[(15, b"rootfs/l"), (17, b"../../../..")]);
    let bird = format!("{at}/bird");
    let to_bird = || Stream::rooted().with(kind::SYMLINK, &[(15, b"rootfs/l"), (17, bird.as_bytes())]);
    let data: &[(u16, &[u8])] = &[(15, b"rootfs/l"), (18, &zero), (19, b"dead")];
    let clone = |from: &'static [u8], uuid: &'static [u8; 16]| -> Stream {
        let parts: [(u16, &[u8]); 6] = [
            (15, b"rootfs/f"),
            (18, &0u64.to_le_bytes()),
            (20, uuid),
            (22, from),
            (23, &0u64.to_le_bytes()),
            (24, &4u64.to_le_bytes()),
        ];
        Stream::rooted().with(kind::MKFILE, &[(15, b"rootfs/f")]).with(kind::CLONE, &parts)
    };
    vec![
        ("a file through a link", linked().file(b"rootfs/l/x", b"x")),
        ("a file through a link upwards", up().file(b"rootfs/l/x", b"x")),
        ("a directory through a link", linked().with(kind::MKDIR, &[(15, b"rootfs/l/x")])),
        ("writing in a link", to_bird().with(kind::WRITE, data)),
        ("cutting a link", to_bird().with(kind::TRUNCATE, &[(15, b"rootfs/l"), (4, &zero)])),
        (
            "a name for what a link shows",
            linked().with(kind::LINK, &[(15, b"rootfs/m"), (17, b"rootfs/l/bird")]),
        ),
        (
            "moving through a link",
            linked().file(b"rootfs/f", b"x").with(kind::RENAME, &[(15, b"rootfs/f"), (16, b"rootfs/l/f")]),
        ),
        ("a path upwards", Stream::rooted().file(b"rootfs/../../x", b"x")),
        ("a path from the root", Stream::rooted().file(b"/etc/x", b"x")),
        ("an empty name", Stream::rooted().file(b"rootfs//x", b"x")),
        ("removing the root", Stream::rooted().with(kind::RMDIR, &[(15, b"rootfs")])),
        ("moving the root", Stream::rooted().with(kind::RENAME, &[(15, b"rootfs"), (16, b"x")])),
        (
            "a second root",
            Stream::rooted()
                .with(kind::MKDIR, &[(15, b"x")])
                .with(kind::RENAME, &[(15, b"x"), (16, b"rootfs")]),
        ),
        ("what is not the tree's", Stream::rooted().file(b"rootfs/.cabin-aside/x", b"x")),
        ("no root", Stream::bare().file(b"x", b"x")),
        ("a root that is a link", Stream::bare().with(kind::SYMLINK, &[(15, b"rootfs"), (17, b"/")])),
        (
            "an owner beyond all",
            Stream::rooted().with(kind::CHOWN, &[(15, b"rootfs"), (6, &70_000u64.to_le_bytes()), (7, &zero)]),
        ),
        ("a part of somebody else's", clone(b"rootfs/f", b"0123456789abcdef")),
        ("a part of what is not there", clone(b"rootfs/nothing", b"a made up volume")),
        (
            "a part through a link",
            linked().file(b"rootfs/f", b"x").with(
                kind::CLONE,
                &[
                    (15, b"rootfs/f"),
                    (18, &zero),
                    (20, b"a made up volume"),
                    (22, b"rootfs/l/bird"),
                    (23, &zero),
                    (24, &4u64.to_le_bytes()),
                ],
            ),
        ),
        ("going on from nothing", Stream::on(b"0123456789abcdef")),
        (
            "endless",
            Stream::rooted()
                .file(b"rootfs/f", b"x")
                .with(kind::TRUNCATE, &[(15, b"rootfs/f"), (4, &u64::MAX.to_le_bytes())]),
        ),
        ("a command that is none", Stream::rooted().with(99, &[(15, b"rootfs")])),
        ("a command without a path", Stream::rooted().with(kind::MKFILE, &[])),
    ]
}

#[test]
fn hostile_streams_touch_nothing_outside_and_leave_nothing() {
    let lab = lab();
    let (place, canary) = (lab.home().join("hostile"), lab.home().join("canary"));
    std::fs::create_dir_all(&canary).unwrap();
    std::fs::write(canary.join("bird"), "alive").unwrap();
    let before = shape(&lab);
    for (what, stream) in hostile(&canary.display().to_string()) {
        let backup = stream.backup(&place, "hostile").display().to_string();
        let said = lab.cabin(&["import", &backup, "-s", "btr"]).refused();
        assert_eq!(shape(&lab), before, "{what}: {said}");
        assert_eq!(std::fs::read_to_string(canary.join("bird")).unwrap(), "alive", "{what}: {said}");
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 1, "{what}: {said}");
    }
    // Cut off anywhere, and changed anywhere.
    let whole = Stream::rooted().file(b"rootfs/f", b"content");
    for at in [20, 60, whole.0.len() - 3] {
        let mut changed = whole.clone();
        changed.0[at] ^= 4;
        let backup = changed.backup(&place, "hostile").display().to_string();
        let _ = lab.cabin(&["import", &backup, "-s", "btr"]).refused();
        let backup = Stream(whole.0[..at].to_vec()).backup(&place, "hostile").display().to_string();
        let _ = lab.cabin(&["import", &backup, "-s", "btr"]).refused();
        assert_eq!(shape(&lab), before, "at {at}");
    }
    lab.cabin(&["storage", "delete", "btr"]).ok();
}

#[test]
fn device_nodes_in_streams_are_left_out_and_rights_behind_a_link_stay() {
    let lab = lab();
    let (place, canary) = (lab.home().join("devices"), lab.home().join("canary"));
    std::fs::create_dir_all(&canary).unwrap();
    std::fs::write(canary.join("bird"), "alive").unwrap();
    let bird = canary.join("bird").display().to_string();
    let devices = Stream::rooted()
        .with(kind::SYMLINK, &[(15, b"rootfs/l"), (17, bird.as_bytes())])
        .with(kind::MKDIR, &[(15, b"rootfs/d")])
        .with(
            kind::MKNOD,
            &[(15, b"o9-9-9"), (5, &0o020_666u64.to_le_bytes()), (8, &0x0103u64.to_le_bytes())],
        )
        .with(kind::RENAME, &[(15, b"o9-9-9"), (16, b"rootfs/d/null")])
        .with(kind::RENAME, &[(15, b"rootfs/d"), (16, b"rootfs/e")])
        .with(kind::CHMOD, &[(15, b"rootfs/e/null"), (5, &0o777u64.to_le_bytes())])
        .with(kind::CHMOD, &[(15, b"rootfs/l"), (5, &0o4777u64.to_le_bytes())])
        .file(b"rootfs/e/file", b"there")
        .file(b"metadata.yaml", b"architecture: x86_64\ncreation_date: 1700000000\n");
    let backup = devices.backup(&place, "devices").display().to_string();
    lab.cabin(&["import", &backup, "-s", "btr"]).ok();
    // The pool's disk is mounted where the daemon is.
    let dir = lab.socket().parent().unwrap().display().to_string();
    let tree = format!("/proc/{}/root{dir}/storage-pools/btr/containers/devices/rootfs", lab.pid());
    let tree = std::path::Path::new(&tree);
    let names = |dir: &str| -> Vec<String> {
        let found = std::fs::read_dir(tree.join(dir)).unwrap();
        let mut names: Vec<String> =
            found.map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    assert_eq!((names(""), names("e")), (vec!["e".to_owned(), "l".to_owned()], vec!["file".to_owned()]));
    let rights = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(canary.join("bird")).unwrap().permissions(),
    );
    assert_eq!(rights & 0o7777, 0o644);
    lab.cabin(&["delete", "devices"]).ok();
    lab.cabin(&["storage", "delete", "btr"]).ok();
}

const VOLUME: &str = "cd /data; find . ! -type d -exec stat -c '%n %F %a %u %g %h %s %Y' {} + | sort; \
                      find . -type d -exec stat -c '%n %a %u %g %Y' {} + | sort; find . -type f -exec md5sum {} + | sort";

#[test]
fn a_volume_comes_back_whole_from_its_streams_with_its_snapshots() {
    let lab = lab();
    lab.cabin(&["launch", "busybox", "user"]).ok();
    lab.cabin(&["storage", "volume", "create", "btr", "data"]).ok();
    let attach = |name: &str| {
        let source = format!("source={name}");
        lab.cabin(&["config", "device", "add", "user", "data", "disk", "pool=btr", &source, "path=/data"])
            .ok();
        lab.sh("user", VOLUME)
    };
    let detach = || lab.cabin(&["config", "device", "remove", "user", "data"]).ok();
    attach("data");
    // Two of these names mean something in the streams of instances.
    lab.sh(
        "user",
        "cd /data; chmod 1750 .; chown 5:6 .; mkdir rootfs .cabin-aside; echo one >rootfs/one; ln rootfs/one two; \
         ln -s /nowhere link; chown 1000:2000 two; chmod 4750 two; echo a >.cabin-aside/a; chown 7:8 .cabin-aside; mkfifo pipe; \
         dd if=/dev/urandom of=big bs=1M count=3 2>/dev/null; touch -d '2001-02-03 04:05:06' two .",
    );
    let old = lab.sh("user", VOLUME);
    lab.cabin(&["storage", "volume", "snapshot", "create", "btr", "data", "first"]).ok();
    lab.sh("user", "cd /data; mv big rootfs/; rm two; echo later >later");
    let new = lab.sh("user", VOLUME);
    // Once while somebody has it, and once while nobody does.
    for (turn, compression) in ["none", "zstd"].into_iter().enumerate() {
        let file = lab.home().join(format!("data-{compression}")).display().to_string();
        let export = ["storage", "volume", "export", "btr", "data", &file, "--optimized-storage"];
        lab.cabin(&[&export[..], &["--compression", compression]].concat()).ok();
        if turn == 0 {
            detach();
        }
        let bytes = std::fs::read(&file).unwrap().len();
        assert!(bytes < 6_000_000, "the same content is in it twice: {bytes} bytes");
        lab.cabin(&["storage", "volume", "import", "btr", &file, "again"]).ok();
        assert_eq!(attach("again"), new, "{compression}");
        detach();
        lab.cabin(&["storage", "volume", "snapshot", "restore", "btr", "again", "first"]).ok();
        assert_eq!(attach("again"), old, "{compression}");
        lab.sh("user", "echo more >/data/more");
        detach();
        lab.cabin(&["storage", "volume", "delete", "btr", "again"]).ok();
        let refused = lab.cabin(&["storage", "volume", "import", "default", &file, "again"]).refused();
        assert!(refused.contains("btrfs") && refused.contains("default"), "{refused}");
    }
    // One that is kept says so.
    let kept = serde_json::json!({ "name": "kept", "optimized_storage": true });
    let ended = lab.operate("POST", "/1.0/storage-pools/btr/volumes/custom/data/backups", &kept);
    assert_eq!(ended["status"], "Success", "{ended}");
    let shown = lab.get("/1.0/storage-pools/btr/volumes/custom/data/backups/kept");
    assert_eq!(shown["optimized_storage"], true);
    lab.cabin(&["storage", "volume", "create", "default", "plain"]).ok();
    let file = lab.home().join("plain").display().to_string();
    let refused = lab
        .cabin(&["storage", "volume", "export", "default", "plain", &file, "--optimized-storage"])
        .refused();
    assert!(refused.contains("btrfs") && refused.contains("default"), "{refused}");
    lab.cabin(&["delete", "-f", "user"]).ok();
    lab.cabin(&["storage", "volume", "delete", "default", "plain"]).ok();
    lab.cabin(&["storage", "volume", "delete", "btr", "data"]).ok();
    lab.cabin(&["storage", "delete", "btr"]).ok();
}

#[test]
fn hostile_streams_of_volumes_touch_nothing_outside_and_leave_nothing() {
    let lab = lab();
    let (place, canary) = (lab.home().join("hostile"), lab.home().join("canary"));
    std::fs::create_dir_all(&canary).unwrap();
    std::fs::write(canary.join("bird"), "alive").unwrap();
    let at = canary.display().to_string();
    let zero = 0u64.to_le_bytes();
    let linked = || Stream::bare().with(kind::SYMLINK, &[(15, b"l"), (17, at.as_bytes())]);
    let link_to = |target: &str| Stream::bare().with(kind::SYMLINK, &[(15, b"l"), (17, target.as_bytes())]);
    let bird = format!("{at}/bird");
    let whole = || Stream::bare().file(b"f", b"x");
    let streams = [
        ("a file through a link", "volume.bin", linked().file(b"l/x", b"x")),
        ("a file through a link upwards", "volume.bin", link_to("../../../..").file(b"l/x", b"x")),
        (
            "writing in a link",
            "volume.bin",
            link_to(&bird).with(kind::WRITE, &[(15, b"l"), (18, &zero), (19, b"dead")]),
        ),
        (
            "a name for what a link shows",
            "volume.bin",
            linked().with(kind::LINK, &[(15, b"m"), (17, b"l/bird")]),
        ),
        (
            "moving through a link",
            "volume.bin",
            linked().file(b"f", b"x").with(kind::RENAME, &[(15, b"f"), (16, b"l/f")]),
        ),
        ("a path upwards", "volume.bin", Stream::bare().file(b"../x", b"x")),
        ("a path from the root", "volume.bin", Stream::bare().file(b"/etc/x", b"x")),
        ("removing the root", "volume.bin", Stream::bare().with(kind::RMDIR, &[(15, b"")])),
        ("moving the root", "volume.bin", Stream::bare().with(kind::RENAME, &[(15, b""), (16, b"x")])),
        ("moving to the root", "volume.bin", whole().with(kind::RENAME, &[(15, b"f"), (16, b"")])),
        (
            "an owner beyond all",
            "volume.bin",
            Stream::bare().with(kind::CHOWN, &[(15, b""), (6, &70_000u64.to_le_bytes()), (7, &zero)]),
        ),
        ("going on from nothing", "volume.bin", Stream::on(b"0123456789abcdef")),
        ("one that lies in it", "volume_inner.bin", whole()),
        ("what is an instance's", "container.bin", whole()),
    ];
    let before = shape(&lab);
    for (what, member, stream) in streams {
        let backup = stream.volume_backup(&place, "hostile", member).display().to_string();
        let said = lab.cabin(&["storage", "volume", "import", "btr", &backup]).refused();
        assert_eq!(shape(&lab), before, "{what}: {said}");
        assert_eq!(std::fs::read_to_string(canary.join("bird")).unwrap(), "alive", "{what}: {said}");
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 1, "{what}: {said}");
    }
    // What these were made of is taken in.
    let backup = whole().volume_backup(&place, "whole", "volume.bin").display().to_string();
    lab.cabin(&["storage", "volume", "import", "btr", &backup]).ok();
    lab.cabin(&["storage", "volume", "delete", "btr", "whole"]).ok();
    lab.cabin(&["storage", "delete", "btr"]).ok();
}
