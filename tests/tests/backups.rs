//! Backups: out and in again with all that belongs to a file, in the layouts of other servers, and what is refused.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use cabin_tests::cli::host;
use cabin_tests::lab::Lab;
use cabin_tests::peer::Peer;
use cabin_tests::subject::Subject;
use cabin_tests::sweep::audited;
use cabin_tests::wait::until_true;
use serde_json::{Value, json};

/// Everything about the files of a running instance that a backup is to keep.
fn inventory(lab: &Lab, name: &str) -> String {
    // A directory's links and size are the filesystem's, and an overlay has its own idea of them.
    let list = "cd /; L='bin/busybox etc/passwd opt root usr/share srv'; \
                find $L ! -type d -exec stat -c '%n %F %a %u %g %h %s %Y' {} + | sort; \
                find $L -type d -exec stat -c '%n %a %u %g %Y' {} + | sort; ls usr etc; \
                find root opt -type f -exec md5sum {} + | sort; find root -type l -exec readlink {} +";
    lab.sh(name, list)
}

/// Changes of every kind over the image's tree.
fn furnish(lab: &Lab, name: &str) {
    lab.sh(
        name,
        "mkdir -p /root /opt/deep/er; cd /root; echo one >one; chown 1000:2000 one; chmod 4750 one; ln one two; \
         ln -s /nowhere link; mkfifo pipe; echo x | dd of=sparse bs=1 seek=20000000 2>/dev/null; touch -d '2001-02-03 04:05:06' one; \
         rm -rf /usr/share; mkdir /usr/share; echo new >/usr/share/new; rm /etc/os-release; mkdir -m 1777 /srv/sticky",
    );
}

fn upper(lab: &Lab, name: &str) -> std::path::PathBuf {
    lab.socket().parent().unwrap().join("storage-pools/default/containers").join(name).join("u")
}

#[test]
fn an_instance_comes_back_whole_from_its_backup_with_its_snapshots() {
    let lab = Lab::shared();
    lab.busybox("whole");
    furnish(&lab, "whole");
    lab.cabin(&["config", "set", "whole", "user.note=kept", "limits.memory=100MiB"]).ok();
    lab.cabin(&["snapshot", "create", "whole", "first"]).ok();
    lab.sh("whole", "rm /root/two; echo later >/root/later");
    let wanted = inventory(&lab, "whole");
    // As Incus's clients ask for it, with options of the program; not with those that would do something else.
    let fast = lab.home().join("whole-fast").display().to_string();
    lab.cabin(&["export", "whole", &fast, "--compression", "gzip -o x"]).refused();
    lab.cabin(&["export", "whole", &fast, "--compression", "gzip -1 --rsyncable"]).ok();
    assert_eq!(std::fs::read(&fast).unwrap()[..2], [0x1f, 0x8b]);
    for compression in ["none", "gzip", "bzip2", "xz", "zstd"] {
        let file = lab.home().join(format!("whole-{compression}"));
        let to = file.display().to_string();
        lab.cabin(&["export", "whole", &to, "--compression", compression]).ok();
        // The sparse file twice, and each of 20 MB.
        assert!(std::fs::metadata(&file).unwrap().len() < 12_000_000, "{compression}: holes are written out");
        let name = format!("again-{compression}");
        lab.cabin(&["import", &to, &name]).ok();
        let made = lab.get(&format!("/1.0/instances/{name}"));
        assert_eq!(made["config"]["user.note"], "kept");
        assert_eq!(made["status"], "Stopped");
        let old = lab.get("/1.0/instances/whole");
        for own in ["volatile.uuid", "volatile.eth0.hwaddr", "volatile.cloud-init.instance-id"] {
            assert_ne!(made["config"][own], old["config"][own], "{own} is shared by two instances");
        }
        lab.cabin(&["start", &name]).ok();
        assert_eq!(inventory(&lab, &name), wanted, "{compression}");
        assert!(lab.sh(&name, "stat -c %b /root/sparse").parse::<u64>().is_ok_and(|blocks| blocks < 100));
        lab.cabin(&["restore", &name, "first"]).ok();
        assert_eq!(lab.sh(&name, "cat /root/two; ls /root/later 2>&1 || true").lines().next(), Some("one"));
        lab.cabin(&["delete", "-f", &name]).ok();
    }
    // Into a pool of another driver, and back to the snapshot there.
    let file = lab.home().join("whole-none").display().to_string();
    lab.cabin(&["storage", "create", "elsewhere", "dir"]).ok();
    lab.cabin(&["import", &file, "far", "-s", "elsewhere"]).ok();
    lab.cabin(&["start", "far"]).ok();
    assert_eq!(inventory(&lab, "far"), wanted);
    lab.cabin(&["restore", "far", "first"]).ok();
    assert_eq!(lab.sh("far", "cat /root/two"), "one");
    lab.cabin(&["delete", "-f", "far"]).ok();
    lab.cabin(&["storage", "delete", "elsewhere"]).ok();
    lab.cabin(&[
        "export",
        "whole",
        &lab.home().join("bare.tar.zst").display().to_string(),
        "--instance-only",
    ])
    .ok();
    let known_by = || {
        ["volatile.uuid", "volatile.uuid.generation"]
            .map(|key| lab.get("/1.0/instances/whole")["config"][key].clone())
    };
    let known = known_by();
    lab.cabin(&["delete", "-f", "whole"]).ok();
    // Under its own name again, it is the same instance.
    lab.cabin(&["import", &lab.home().join("bare.tar.zst").display().to_string()]).ok();
    assert_eq!(known_by(), known);
    // Unless that one is still there, under another name.
    lab.cabin(&["rename", "whole", "former"]).ok();
    lab.cabin(&["import", &lab.home().join("bare.tar.zst").display().to_string()]).ok();
    assert_ne!(known_by()[0], known[0]);
    lab.cabin(&["delete", "-f", "former"]).ok();
    assert_eq!(lab.get("/1.0/instances/whole/snapshots"), json!([]));
    lab.cabin(&["start", "whole"]).ok();
    assert_eq!(inventory(&lab, "whole"), wanted);
    lab.cabin(&["delete", "-f", "whole"]).ok();
}

#[test]
fn attributes_of_files_travel_and_those_that_steer_the_host_do_not() {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    let lab = Lab::shared();
    lab.busybox("marked");
    lab.sh("marked", "mkdir -p /root; echo x >/root/file; echo y >/root/tool");
    lab.cabin(&["stop", "-f", "marked"]).ok();
    let file = upper(&lab, "marked").join("root/file");
    let tool = upper(&lab, "marked").join("root/tool");
    // user::rw-,user:1000:r--,group::r--,mask::r--,other::---
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in
        [(1u16, 6u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(bits.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    setxattr(&file, "user.note", b"kept", XattrFlags::empty()).unwrap();
    setxattr(&file, "system.posix_acl_access", &acl, XattrFlags::empty()).unwrap();
    setxattr(&file, "trusted.evil", b"no", XattrFlags::empty()).unwrap();
    // cap_net_raw=ep
    let caps = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(&tool, "security.capability", &caps, XattrFlags::empty()).unwrap();
    let to = lab.home().join("marked.tar.zst").display().to_string();
    lab.cabin(&["export", "marked", &to]).ok();
    lab.cabin(&["import", &to, "remarked"]).ok();
    // What came in is a layer on which the instance stands.
    let layers = lab.socket().parent().unwrap().join("storage-pools/default/layers");
    let there = std::fs::read_dir(layers)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("u/root"))
        .find(|root| root.join("tool").exists())
        .expect("the imported layer");
    let read = |file: &str, name: &str| -> Vec<u8> {
        let mut value = vec![0; 256];
        let got = getxattr(there.join(file), name, value.as_mut_slice()).unwrap_or(0);
        value.truncate(got);
        value
    };
    assert_eq!(read("file", "user.note"), b"kept");
    assert_eq!(read("file", "system.posix_acl_access"), acl);
    assert_eq!(read("file", "trusted.evil"), b"");
    assert_eq!(read("tool", "security.capability"), caps);
    lab.cabin(&["delete", "-f", "marked", "remarked"]).ok();
}

#[test]
fn backups_in_the_layouts_of_incus_and_lxd_are_taken_in_and_boot() {
    let lab = Lab::shared();
    for (peer, name) in [(Peer::Incus, "from-incus"), (Peer::Lxd, "from-lxd")] {
        let backup = peer.backup(&lab.home().join(name), &peer.index(name, ""), "");
        lab.cabin(&["import", &backup.display().to_string()]).ok();
        let made = lab.get(&format!("/1.0/instances/{name}"));
        assert_eq!(made["description"], "from afar");
        let config = &made["config"];
        assert!(
            config["volatile.idmap.base"].is_null() && config["volatile.last_state.idmap"].is_null(),
            "{config}"
        );
        lab.cabin(&["start", name]).ok();
        let owners = lab
            .sh(name, "cd /root; stat -c '%u %g %h' note . /bin/busybox; cat note; echo; cat /etc/templated");
        assert_eq!(owners, format!("1000 2000 2\n0 0 2\n0 0 1\nnewer\nfor {name}"), "{peer:?}");
        lab.cabin(&["restore", name, "s0"]).ok();
        assert_eq!(lab.sh(name, "cat /root/again; stat -c %u /root/again"), "older1000", "{peer:?}");
        lab.cabin(&["delete", "-f", name]).ok();
    }
}

/// Whether what is there now is what was there before.
fn shape(lab: &Lab) -> (Value, Value, Value) {
    (lab.get("/1.0/instances"), lab.get("/1.0/storage-pools/default/volumes"), lab.get("/internal/audit"))
}

#[test]
fn what_a_backup_says_is_checked_as_for_a_new_instance() {
    let lab = Lab::own();
    let place = lab.home().join("said");
    let good = Peer::Incus.index("said", "");
    let before = shape(&lab);
    let traversal = "../../../canary";
    for (what, index, told) in [
        ("a name", good.replace("name: said", &format!("name: {traversal}")), "name"),
        ("a snapshot's name", good.replace("s0", traversal), "name"),
        ("rights", Peer::Incus.index("said", "  security.privileged: \"true\"\n"), "security.privileged"),
        (
            "a key nobody knows",
            Peer::Incus.index("said", "  raw.lxc: lxc.hook=x\n  bogus.key: x\n"),
            "raw.lxc",
        ),
        ("a bad value", Peer::Incus.index("said", "  limits.memory: lots\n"), "limits.memory"),
        ("another kind", good.replace("type: container", "type: virtual-machine"), "container"),
        ("another form", good.replace("optimized: false", "optimized: true"), "btrfs"),
        ("a missing profile", good.replace("- default", "- nowhere"), "nowhere"),
        ("another machine", good.replace("x86_64", "riscv64"), "riscv64"),
        ("no config", "name: said\npool: btr\n".to_owned(), "config"),
        ("no such snapshot", good.replacen("- s0", "- s0\n- s1", 1), "s1"),
        ("one twice", good.replacen("- s0", "- s0\n- s0", 1), "twice"),
        (
            "a bomb",
            format!(
                "a: &a [x,x,x,x,x,x,x,x]\nb: &b [{0}]\nc: &c [{1}]\nd: [{2}]\n",
                "*a,".repeat(99),
                "*b,".repeat(99),
                "*c,".repeat(99)
            ),
            "",
        ),
    ] {
        let backup = Peer::Incus.backup(&place, &index, "");
        let said = lab.cabin(&["import", &backup.display().to_string()]).refused();
        assert!(said.contains(told), "{what}: {said}");
        assert_eq!(shape(&lab), before, "{what}");
    }
    // Who imports it may say so himself, or leave a key out.
    let index = Peer::Incus.index("said", "  raw.lxc: lxc.hook=x\n  security.privileged: \"true\"\n");
    let backup = Peer::Incus.backup(&place, &index, "").display().to_string();
    lab.cabin(&["import", &backup, "-c", "raw.lxc=", "-c", "security.privileged=true", "-s", "default"]).ok();
    assert_eq!(lab.get("/1.0/instances/said")["config"]["security.privileged"], "true");
    lab.cabin(&["delete", "said"]).ok();
}

#[test]
fn hostile_and_broken_backups_leave_nothing() {
    let lab = Lab::own();
    let place = lab.home().join("hostile");
    let canary = lab.home().join("canary");
    std::fs::create_dir_all(&canary).unwrap();
    let before = shape(&lab);
    let at = canary.display();
    let index = Peer::Incus.index("hostile", "");
    for (what, spoil) in [
        ("a link for a root", format!("rm -r backup/container/rootfs; ln -s {at} backup/container/rootfs")),
        ("a file for a root", "rm -r backup/container/rootfs; echo x >backup/container/rootfs".to_owned()),
        (
            "a pipe for a root",
            "rm -r backup/snapshots/s0/rootfs; mkfifo backup/snapshots/s0/rootfs".to_owned(),
        ),
        (
            "a link for the templates",
            format!("rm -r backup/container/templates; ln -s {at} backup/container/templates"),
        ),
        ("a link for the metadata", "ln -sf /etc/shadow backup/container/metadata.yaml".to_owned()),
        ("a template that is a link", "ln -sf /etc/shadow backup/container/templates/note.tpl".to_owned()),
        ("an unknown snapshot", "cp -a backup/snapshots/s0 backup/snapshots/s1".to_owned()),
        ("a missing snapshot", "rm -r backup/snapshots/s0/rootfs".to_owned()),
        ("no root", "rm -r backup/container/rootfs".to_owned()),
        ("an owner beyond all", "chown 70000 backup/container/rootfs/root/note".to_owned()),
    ] {
        let backup = Peer::Incus.backup(&place, &index, &spoil);
        let _ = lab.cabin(&["import", &backup.display().to_string()]).refused();
        assert_eq!(shape(&lab), before, "{what}");
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0, "{what}");
    }
    // Cut off anywhere, also between members of a plain archive.
    let whole = Peer::Incus.backup(&place, &index, "");
    let plain = lab.home().join("cut.tar");
    host(&["sh", "-c", &format!("gzip -dc {} >{}", whole.display(), plain.display())]).ok();
    let bytes = std::fs::read(&plain).unwrap();
    let end = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    for cut in [0, 100, 512, 4096, bytes.len() / 2, end.next_multiple_of(512)] {
        let cut_off = lab.home().join("cut-off.tar");
        std::fs::write(&cut_off, &bytes[..cut]).unwrap();
        let said = lab.cabin(&["import", &cut_off.display().to_string()]).refused();
        assert_eq!(shape(&lab), before, "cut at {cut}: {said}");
    }
    // A second tree of links into which the first one's files would go.
    let twice = format!(
        "cd {}; mkdir -p evil/backup/container; ln -s {at} evil/backup/container/rootfs; \
         tar -C evil --append -f {} backup/container/rootfs",
        place.display(),
        plain.display()
    );
    host(&["sh", "-ec", &twice]).ok();
    let _ = lab.cabin(&["import", &plain.display().to_string()]).refused();
    assert_eq!(shape(&lab), before);
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
    let _ = std::fs::remove_dir_all(Path::new(&canary));
}

#[test]
fn a_kept_backup_goes_with_its_instance_and_follows_its_name() {
    let lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "keeper"]).ok();
    let all = "/1.0/instances/keeper/backups";
    let made = lab.operate("POST", all, &json!({ "compression_algorithm": "none" }));
    assert_eq!(made["status"], "Success", "{made}");
    assert_eq!(made["resources"]["backups"][0], format!("{all}/backup0"));
    assert_eq!(lab.operate("POST", all, &json!({ "name": "other" }))["status"], "Success");
    assert_eq!(lab.call("POST", all, Some(&json!({ "name": "other" }))).status, 409);
    assert_eq!(lab.call("POST", all, Some(&json!({ "name": "../x" }))).status, 400);
    for bad in ["zstd -o /canary/x", "gzip;id", "../../bin/sh", "-", "lzma"] {
        assert_eq!(
            lab.call("POST", all, Some(&json!({ "compression_algorithm": bad }))).status,
            400,
            "{bad}"
        );
    }
    assert_eq!(
        lab.operate("POST", &format!("{all}/other"), &json!({ "name": "second" }))["status"],
        "Success"
    );
    lab.cabin(&["rename", "keeper", "keeping"]).ok();
    let all = "/1.0/instances/keeping/backups";
    assert_eq!(lab.get(all), json!([format!("{all}/backup0"), format!("{all}/second")]));
    let file = lab.call("GET", &format!("{all}/backup0/export"), None);
    assert_eq!((file.status, &file.body[257..262]), (200, &b"ustar"[..]));
    assert_eq!(lab.operate("DELETE", &format!("{all}/second"), &Value::Null)["status"], "Success");
    lab.cabin(&["storage", "create", "there", "dir"]).ok();
    lab.cabin(&["move", "keeping", "moved", "-s", "there"]).ok();
    let all = "/1.0/instances/moved/backups";
    assert_eq!(lab.get(all), json!([format!("{all}/backup0")]));
    assert_eq!(lab.call("GET", &format!("{all}/backup0/export"), None).status, 200);
    lab.cabin(&["create", "busybox", "keeping"]).ok();
    assert_eq!(lab.get("/1.0/instances/keeping/backups"), json!([]), "those of another");
    lab.cabin(&["delete", "keeping", "moved"]).ok();
    let kept = lab.socket().parent().unwrap().join("backups");
    assert_eq!(std::fs::read_dir(kept).unwrap().count(), 0);
}

/// `cabin publish` at a given time; the fingerprint it tells.
fn published(lab: &Lab, words: &[&str]) -> String {
    let mut all = vec!["publish"];
    all.extend(words);
    let mut command = lab.command(&cabin_tests::binary("cabin"), &all);
    let said = cabin_tests::cli::run(command.env("SOURCE_DATE_EPOCH", "1600000000")).ok();
    said.rsplit(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn the_same_tree_published_twice_is_the_same_image_and_makes_the_same_instance() {
    let lab = Lab::shared();
    lab.busybox("origin");
    lab.sh("origin", "mkdir -p /root; echo mine >/root/note; ln /root/note /root/again; rm -rf /usr/share");
    let refused = lab.cabin(&["publish", "origin"]).refused();
    assert!(refused.contains("running") && refused.contains("--force"), "{refused}");
    lab.cabin(&["stop", "-f", "origin"]).ok();
    lab.cabin(&["snapshot", "create", "origin", "s"]).ok();
    lab.cabin(&["copy", "origin", "double"]).ok();
    let first = published(&lab, &["origin", "--alias", "pub-one", "os=mine"]);
    let shown = lab.get(&format!("/1.0/images/{first}"));
    assert_eq!(shown["properties"]["os"], "mine");
    assert_eq!(shown["created_at"], "2020-09-13T12:26:40Z");
    lab.cabin(&["image", "delete", "pub-one"]).ok();
    for of in ["double", "origin/s"] {
        assert_eq!(published(&lab, &[of, "--alias", "pub-again", "os=mine"]), first, "{of}");
        lab.cabin(&["image", "delete", "pub-again"]).ok();
    }
    for (alias, more) in [("pub-unified", ["--format", "unified"]), ("pub-split", ["--format", "split"])] {
        let of = |name: &str| published(&lab, &[name, "--alias", alias, more[0], more[1]]);
        let first = of("double");
        lab.cabin(&["image", "delete", alias]).ok();
        assert_eq!(of("origin"), first, "{alias}");
        lab.cabin(&["launch", alias, alias]).ok();
        assert_eq!(
            lab.sh(
                alias,
                "cat /root/note; stat -c %h /root/again; ls -d /usr/share 2>/dev/null || echo none; hostname"
            ),
            format!("mine\n2\nnone\n{alias}")
        );
        lab.cabin(&["delete", "-f", alias]).ok();
        lab.cabin(&["image", "delete", alias]).ok();
    }
    for bad in [["--compression", "zstd -o /x"], ["--format", "squash"], ["--expire", "soon"]] {
        let _ = lab.cabin(&["publish", "origin", bad[0], bad[1]]).refused();
    }
    lab.cabin(&["delete", "-f", "origin", "double"]).ok();
}

#[test]
fn a_rebuilt_instance_has_another_tree_and_all_else_as_before() {
    let lab = Lab::shared();
    lab.busybox("anew");
    lab.sh("anew", "mkdir -p /root; echo old >/root/note; rm /etc/os-release");
    lab.cabin(&["config", "set", "anew", "user.note=kept"]).ok();
    lab.cabin(&["snapshot", "create", "anew", "s"]).ok();
    let before = lab.get("/1.0/instances/anew");
    let refused = lab.cabin(&["rebuild", "busybox", "anew"]).refused();
    assert!(refused.contains("running"), "{refused}");
    lab.cabin(&["rebuild", "busybox", "anew", "--force"]).ok();
    assert_eq!(lab.status("anew"), "Running");
    assert_eq!(
        lab.sh("anew", "ls /root/note 2>/dev/null; ls /etc/os-release; hostname"),
        "/etc/os-release\nanew"
    );
    let after = lab.get("/1.0/instances/anew");
    for kept in ["user.note", "volatile.uuid", "volatile.eth0.hwaddr", "volatile.base_image", "image.os"] {
        assert_eq!(after["config"][kept], before["config"][kept], "{kept}");
    }
    lab.cabin(&["restore", "anew", "s"]).ok();
    assert_eq!(lab.sh("anew", "cat /root/note"), "old");
    lab.cabin(&["stop", "-f", "anew"]).ok();
    lab.cabin(&["rebuild", "--empty", "anew"]).ok();
    assert!(lab.get("/1.0/instances/anew")["config"]["image.os"].is_null());
    let _ = lab.cabin(&["start", "anew"]).refused();
    let _ = lab.cabin(&["rebuild", "nowhere", "anew"]).refused();
    lab.cabin(&["delete", "-f", "anew"]).ok();
}

/// A backup whose receiver takes nothing of it: the instance's turn is held until it goes.
fn stuck_backup(subject: &Subject, name: &str) -> UnixStream {
    let mut stream = UnixStream::connect(subject.socket()).expect("a connection");
    let body = json!({ "compression_algorithm": "none" }).to_string();
    let request = format!(
        "POST /1.0/instances/{name}/backups HTTP/1.1\r\nHost: a\r\nAccept: application/octet-stream\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("a request");
    let mut first = [0; 12];
    stream.read_exact(&mut first).expect("the beginning of an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

#[test]
fn the_end_of_a_guest_is_not_lost_in_a_backup_that_takes_longer_than_anybody_waits() {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    for name in ["again", "off"] {
        subject.create(name, &json!({}));
        subject.power(name, "start").expect("a start");
        let big = "mkdir -p /root; dd if=/dev/urandom of=/root/big bs=1M count=8 2>/dev/null";
        subject.exec(name, big).expect("files that no buffer holds");
    }
    let init = subject.init_pid("again");
    let backups = ["again", "off"].map(|name| stuck_backup(&subject, name));
    for (name, act) in [("again", "reboot -f"), ("off", "poweroff -f")] {
        let _ = subject.exec(name, act);
        subject.wait_status(name, "Stopped", 20);
    }
    // Who asks later gives up later, too: when this one has, nobody waits of those who were to wait but once.
    let asked = subject.ask("PATCH", "/1.0/instances/off", &json!({ "description": "seen" }));
    let refused = asked.expect_err("a change during the backup");
    assert!(refused.contains("export"), "{refused}");
    assert_eq!(subject.status("again"), "Stopped");
    drop(backups);
    subject.wait_status("again", "Running", 30);
    assert_ne!(subject.init_pid("again"), init);
    until_true("what was left of the other to go", 20, || audited(&subject).is_empty());
    assert_eq!(subject.get("/1.0/instances/off")["config"]["volatile.last_state.power"], "STOPPED");
    subject.power("off", "start").expect("a start");
}

/// Bytes that the daemon's directory takes, disks of pools left out, with what the daemon holds open that has no name or
/// lies elsewhere.
fn kept_by(lab: &Lab) -> u64 {
    let dir = lab.dir.display().to_string();
    let du = host(&["du", "-sxk", "--exclude=disks", "--exclude=storage-pools", &dir]).ok();
    let named =
        du.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).expect("a size") * 1024;
    let open = std::fs::read_dir(format!("/proc/{}/fd", lab.pid())).expect("open files");
    let files = open.filter_map(|entry| {
        let path = entry.ok()?.path();
        let found = std::fs::metadata(&path).ok()?;
        let inside = std::fs::read_link(&path).is_ok_and(|target| target.starts_with(&lab.dir));
        (found.is_file() && (found.nlink() == 0 || !inside)).then(|| found.blocks() * 512)
    });
    named + files.sum::<u64>()
}

fn used_in(lab: &Lab, pool: &str) -> u64 {
    let found = lab.get(&format!("/1.0/storage-pools/{pool}/resources"));
    found["space"]["used"].as_u64().expect("bytes")
}

#[test]
fn a_backup_lies_nowhere_on_its_way_out_and_in() {
    const SIZE: usize = 64 << 20;
    const SLACK: u64 = 12 << 20;
    let lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["storage", "create", "disk", "btrfs", "size=512MiB"]).ok();
    lab.cabin(&["create", "busybox", "big", "-s", "disk"]).ok();
    lab.cabin(&["start", "big"]).ok();
    lab.sh("big", "dd if=/dev/urandom of=/big bs=1M count=64 2>/dev/null; sync");
    lab.cabin(&["stop", "-f", "big"]).ok();
    let connect = || UnixStream::connect(lab.socket()).expect("a connection");
    for optimized in [false, true] {
        let (kept, used) = (kept_by(&lab), used_in(&lab, "disk"));
        let mut slow = connect();
        let body = json!({ "compression_algorithm": "none", "optimized_storage": optimized }).to_string();
        let request = format!(
            "POST /1.0/instances/big/backups HTTP/1.1\r\nHost: a\r\nAccept: application/octet-stream\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        slow.write_all(request.as_bytes()).expect("a request");
        let mut taken = vec![0; SIZE / 2];
        slow.read_exact(&mut taken).expect("half of it");
        let (kept_then, used_then) = (kept_by(&lab), used_in(&lab, "disk"));
        assert!(
            kept_then < kept + SLACK && used_then < used + SLACK,
            "{kept} {kept_then} {used} {used_then}"
        );
        let rest = std::io::copy(&mut slow, &mut std::io::sink()).expect("the rest");
        assert!(rest > SIZE as u64 / 2 - SLACK, "{rest}");
    }
    for optimized in [false, true] {
        let file = lab.home().join("big.tar").display().to_string();
        let more: &[&str] = if optimized { &["--optimized-storage"] } else { &[] };
        lab.cabin(&[&["export", "big", &file, "--compression", "none"], more].concat()).ok();
        let bytes = std::fs::read(&file).expect("the backup");
        std::fs::remove_file(&file).expect("its file");
        let (kept, used) = (kept_by(&lab), used_in(&lab, "disk"));
        let mut slow = connect();
        let request = format!(
            "POST /1.0/instances HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n\
             X-Incus-name: again\r\nX-Incus-pool: disk\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            bytes.len()
        );
        slow.write_all(request.as_bytes()).expect("a request");
        let (first, second) = bytes.split_at(bytes.len() / 2);
        slow.write_all(first).expect("half of it");
        let (kept_then, used_then) = (kept_by(&lab), used_in(&lab, "disk"));
        let half = first.len() as u64;
        assert!(
            kept_then < kept + SLACK && used_then < used + half + SLACK,
            "{kept} {kept_then} {used} {used_then}"
        );
        slow.write_all(second).expect("the rest");
        let mut answer = String::new();
        slow.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        until_true("the instance", 60, || lab.cabin(&["start", "again"]).code == 0);
        assert_eq!(lab.sh("again", "stat -c %s /big"), SIZE.to_string());
        lab.cabin(&["delete", "-f", "again"]).ok();
    }
    lab.cabin(&["delete", "-f", "big"]).ok();
    lab.cabin(&["storage", "delete", "disk"]).ok();
}
