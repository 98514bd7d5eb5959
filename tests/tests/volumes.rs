//! Custom volumes and other disks: in several instances at once, hot and cold, through links a guest lays, with
//! ours and the stock clients.

use std::path::{Path, PathBuf};

use cabin_tests::clients::Stock;
use cabin_tests::lab::Lab;
use serde_json::json;

/// Where the files of a custom volume lie on the host.
fn on_disk(lab: &Lab, volume: &str) -> PathBuf {
    lab.dir.join("storage-pools/default/custom").join(volume).join("rootfs")
}

fn create(lab: &Lab, volume: &str) {
    let reply =
        lab.call("POST", "/1.0/storage-pools/default/volumes/custom", Some(&json!({ "name": volume })));
    assert_eq!(reply.status, 201, "{}", reply.text());
}

fn delete(lab: &Lab, volume: &str) {
    let target = format!("/1.0/storage-pools/default/volumes/custom/{volume}");
    let reply = lab.call("DELETE", &target, None);
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Adds a disk device with these properties.
fn attach(lab: &Lab, instance: &str, device: &str, properties: &[&str]) -> cabin_tests::cli::Outcome {
    let mut words = vec!["config", "device", "add", instance, device, "disk"];
    words.extend(properties);
    lab.cabin(&words)
}

fn detach(lab: &Lab, instance: &str, device: &str) {
    lab.cabin(&["config", "device", "remove", instance, device]).ok();
}

fn owner(path: &Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::symlink_metadata(path).expect("a file on the host");
    (found.uid(), found.gid())
}

#[test]
fn a_volume_looks_right_in_several_instances_at_once() {
    let lab = Lab::shared();
    lab.busybox("one").busybox("two");
    create(&lab, "shared");
    for name in ["one", "two"] {
        attach(&lab, name, "data", &["pool=default", "source=shared", "path=/srv/data"]).ok();
    }
    lab.sh("one", "echo from-one >/srv/data/file; chown 1000:1001 /srv/data/file; chmod 640 /srv/data/file");
    let seen = lab.sh("two", "stat -c '%u:%g %a' /srv/data/file; cat /srv/data/file; stat -c %u /srv/data");
    assert_eq!(seen, "1000:1001 640\nfrom-one\n0");
    assert_eq!(owner(&on_disk(&lab, "shared").join("file")), (1000, 1001));
    let used = lab.get("/1.0/storage-pools/default/volumes/custom/shared")["used_by"].clone();
    assert_eq!(used, json!(["/1.0/instances/one", "/1.0/instances/two"]));
    let refused = lab.call("DELETE", "/1.0/storage-pools/default/volumes/custom/shared", None);
    assert_eq!(refused.status, 409, "{}", refused.text());
    // It is there again after a start, and gone once it is taken away.
    lab.cabin(&["restart", "-f", "one"]).ok();
    assert_eq!(lab.sh("one", "cat /srv/data/file"), "from-one");
    detach(&lab, "one", "data");
    assert_eq!(lab.sh("one", "ls /srv/data"), "");
    assert_eq!(lab.sh("two", "cat /srv/data/file"), "from-one");
    lab.cabin(&["delete", "-f", "one", "two"]).ok();
    delete(&lab, "shared");
    assert!(!on_disk(&lab, "shared").exists());
}

#[test]
fn the_command_line_has_incus_s_verbs_for_volumes() {
    let lab = Lab::shared();
    lab.busybox("verbs");
    let volume = |words: &[&str]| {
        let mut all = vec!["storage", "volume"];
        all.extend(words);
        lab.cabin(&all)
    };
    assert!(
        volume(&["create", "default", "v", "user.a=b", "--description", "mine"]).ok().contains("created")
    );
    assert_eq!(volume(&["get", "default", "v", "user.a"]).ok(), "b");
    volume(&["set", "default", "v", "user.a=c", "snapshots.pattern=s%d"]).ok();
    volume(&["set", "default", "v", "-p", "description=yours"]).ok();
    let shown = volume(&["show", "default", "v"]).ok();
    assert!(shown.contains("description: yours") && shown.contains("user.a: c"), "{shown}");
    volume(&["unset", "default", "v", "user.a"]).ok();
    assert!(volume(&["create", "default", "v"]).refused().contains("already exists"));
    assert!(volume(&["set", "default", "v", "size=1GiB"]).refused().contains("overlay"));
    assert!(volume(&["set", "default", "v", "siez=1GiB"]).refused().contains("unknown"));
    assert!(volume(&["attach", "default", "v", "verbs", "data"]).refused().contains("path"));
    volume(&["attach", "default", "v", "verbs", "data", "/srv/v"]).ok();
    lab.sh("verbs", "mkdir /srv/v/sub; echo one >/srv/v/sub/note");
    let list = volume(&["list", "default", "-f", "csv,noheader"]).ok();
    assert!(list.lines().any(|line| line == "custom,v,yours,filesystem,1"), "{list}");
    assert!(list.lines().any(|line| line.starts_with("container,verbs,")), "{list}");
    // Files, whether it is attached or not.
    assert_eq!(volume(&["file", "pull", "default", "v/sub/note", "-"]).ok(), "one");
    lab.cabin_with(&["storage", "volume", "file", "push", "-", "default", "v/sub/new", "--uid", "7"], b"two")
        .ok();
    assert_eq!(lab.sh("verbs", "stat -c %u /srv/v/sub/new; cat /srv/v/sub/new"), "7\ntwo");
    volume(&["file", "delete", "default", "v/sub/new"]).ok();
    volume(&["rename", "default", "v", "w"]).ok();
    assert_eq!(lab.sh("verbs", "cat /srv/v/sub/note"), "one");
    let devices = lab.get("/1.0/instances/verbs")["devices"].clone();
    assert_eq!(devices["data"]["source"], "w");
    volume(&["detach", "default", "w", "verbs"]).ok();
    assert_eq!(lab.sh("verbs", "ls /srv/v"), "");
    // A part of it alone, read only.
    attach(&lab, "verbs", "part", &["pool=default", "source=w/sub", "path=/part", "readonly=true"]).ok();
    assert_eq!(lab.sh("verbs", "ls /part"), "note");
    assert!(lab.exec("verbs", &["touch", "/part/x"]).refused().contains("Read-only"));
    // Root inside cannot take the bars away either.
    assert_ne!(lab.exec("verbs", &["mount", "-o", "remount,bind,rw", "/part"]).code, 0);
    detach(&lab, "verbs", "part");
    volume(&["delete", "default", "w"]).ok();
    assert!(volume(&["show", "default", "w"]).refused().contains("not found"));
    lab.cabin(&["delete", "-f", "verbs"]).ok();
}

#[test]
fn snapshots_of_a_volume_come_and_go_and_come_back() {
    let lab = Lab::shared();
    lab.busybox("time");
    let volume = |words: &[&str]| {
        let mut all = vec!["storage", "volume"];
        all.extend(words);
        lab.cabin(&all)
    };
    volume(&["attach", "default", "tide", "time", "/tide", "--create"]).ok();
    for text in ["one", "two", "three"] {
        lab.sh("time", &format!("echo {text} >/tide/note; chown 5:6 /tide/note; chmod 750 /tide"));
        volume(&["snapshot", "create", "default", "tide", text]).ok();
    }
    volume(&["snapshot", "create", "default", "tide", "--expiry", "1d"]).ok();
    let names = volume(&["snapshot", "list", "default", "tide", "-f", "csv,noheader"]).ok();
    let names: Vec<_> = names.lines().filter_map(|line| line.split(',').next()).collect();
    assert_eq!(names, ["one", "two", "three", "snap0"]);
    lab.sh("time", "rm /tide/note; echo new >/tide/other");
    // Who has it mounted would go on writing in the old tree.
    let refused = volume(&["snapshot", "restore", "default", "tide", "one"]).refused();
    assert!(refused.contains("in use") && refused.contains("time"), "{refused}");
    lab.cabin(&["stop", "-f", "time"]).ok();
    volume(&["snapshot", "restore", "default", "tide", "two"]).ok();
    lab.cabin(&["start", "time"]).ok();
    assert_eq!(
        lab.sh("time", "cat /tide/note; stat -c '%u:%g' /tide/note; stat -c %a /tide; ls /tide"),
        "two\n5:6\n750\nnote"
    );
    volume(&["snapshot", "rename", "default", "tide", "two", "second"]).ok();
    volume(&["snapshot", "delete", "default", "tide", "one"]).ok();
    let shown = volume(&["snapshot", "show", "default", "tide", "second"]).ok();
    assert!(shown.contains("name: second"), "{shown}");
    // Copies: of a snapshot, of all, to another pool, and a move there.
    lab.cabin(&["storage", "create", "plain", "dir"]).ok();
    volume(&["copy", "default/tide/three", "plain/three"]).ok();
    volume(&["copy", "default/tide", "plain/whole"]).ok();
    volume(&["copy", "default/tide", "default/alone", "--volume-only"]).ok();
    let count = |pool: &str, name: &str| {
        let target = format!("/1.0/storage-pools/{pool}/volumes/custom/{name}/snapshots");
        lab.get(&target).as_array().map_or(0, Vec::len)
    };
    assert_eq!((count("plain", "three"), count("plain", "whole"), count("default", "alone")), (0, 3, 0));
    assert_eq!(volume(&["file", "pull", "plain", "three/note", "-"]).ok(), "three");
    // A copy that is there is brought up to date: its files and its snapshots.
    lab.sh("time", "echo four >/tide/note");
    volume(&["snapshot", "create", "default", "tide", "four"]).ok();
    volume(&["snapshot", "create", "plain", "whole", "mine"]).ok();
    volume(&["copy", "default/tide", "plain/whole", "--refresh"]).ok();
    volume(&["copy", "default/tide", "default/alone", "--refresh"]).ok();
    for (pool, name) in [("plain", "whole"), ("default", "alone")] {
        assert_eq!(volume(&["file", "pull", pool, &format!("{name}/note"), "-"]).ok(), "four", "{pool}");
        assert_eq!(count(pool, name), 4, "{pool}");
    }
    volume(&["snapshot", "delete", "default", "tide", "four"]).ok();
    lab.sh("time", "echo two >/tide/note");
    let refused = volume(&["move", "default/tide", "plain/tide"]).refused();
    assert!(refused.contains("in use"), "{refused}");
    assert!(lab.cabin(&["storage", "delete", "plain"]).refused().contains("in use"));
    lab.cabin(&["stop", "-f", "time"]).ok();
    volume(&["move", "default/tide", "plain/tide"]).ok();
    assert_eq!(count("plain", "tide"), 3);
    lab.cabin(&["start", "time"]).ok();
    assert_eq!(lab.sh("time", "cat /tide/note; stat -c '%u:%g' /tide/note"), "two\n5:6");
    lab.cabin(&["delete", "-f", "time"]).ok();
    for (pool, name) in [("plain", "three"), ("plain", "whole"), ("plain", "tide"), ("default", "alone")] {
        volume(&["delete", pool, name]).ok();
    }
    lab.cabin(&["storage", "delete", "plain"]).ok();
}

#[test]
fn paths_of_the_host_and_memory_are_mounted_too() {
    let lab = Lab::shared();
    lab.busybox("host");
    let place = lab.dir.with_extension("share");
    std::fs::create_dir(&place).expect("a directory to share");
    std::fs::write(place.join("file"), "from the host").expect("a file to share");
    let source = format!("source={}", place.display());
    attach(&lab, "host", "dir", &[&source, "path=/mnt/host"]).ok();
    assert_eq!(lab.sh("host", "stat -c %u /mnt/host/file; cat /mnt/host/file"), "0\nfrom the host");
    lab.sh("host", "echo inside >/mnt/host/new; chown 9:9 /mnt/host/new");
    assert_eq!(owner(&place.join("new")), (9, 9));
    let file = format!("source={}/file", place.display());
    attach(&lab, "host", "one", &[&file, "path=/etc/one"]).ok();
    assert_eq!(lab.sh("host", "cat /etc/one"), "from the host");
    attach(&lab, "host", "raw", &[&source, "path=/mnt/raw", "shift=false"]).ok();
    assert_eq!(lab.sh("host", "stat -c %u /mnt/raw/file"), "65534");
    attach(
        &lab,
        "host",
        "mem",
        &["source=tmpfs:", "path=/mem", "size=1MiB", "initial.mode=0750", "initial.uid=3"],
    )
    .ok();
    assert_eq!(
        lab.sh("host", "stat -c '%u %a' /mem; df -k /mem | tail -1 | awk '{print $2}'"),
        "3 750\n1024"
    );
    assert_ne!(lab.exec("host", &["dd", "if=/dev/zero", "of=/mem/x", "bs=1M", "count=2"]).code, 0);
    for device in ["one", "raw", "mem", "dir"] {
        detach(&lab, "host", device);
    }
    assert_eq!(
        lab.sh("host", "ls /mnt/host /mnt/raw /mem | grep -v : | grep . | wc -l; cat /etc/one | wc -c"),
        "0\n0"
    );
    // The daemon's own, and what is not there.
    let own = format!("source={}", lab.dir.join("database").display());
    assert!(attach(&lab, "host", "own", &[&own, "path=/x"]).refused().contains("daemon's own"));
    let link = place.join("link");
    std::os::unix::fs::symlink(&lab.dir, &link).expect("a link");
    let own = format!("source={}", link.display());
    assert!(attach(&lab, "host", "own", &[&own, "path=/x"]).refused().contains("daemon's own"));
    let gone = format!("source={}/gone", place.display());
    assert!(attach(&lab, "host", "gone", &[&gone, "path=/x"]).refused().contains("there is no"));
    attach(&lab, "host", "gone", &[&gone, "path=/x", "required=false"]).ok();
    for path in
        ["path=/proc", "path=/proc/self/attr", "path=/sys/x", "path=/dev", "path=/", "path=/../x", "path=//"]
    {
        let refused = attach(&lab, "host", "bad", &[&source, path]);
        assert_ne!(refused.code, 0, "{path}");
    }
    lab.cabin(&["delete", "-f", "host"]).ok();
    std::fs::remove_dir_all(&place).expect("to remove what was shared");
}

#[test]
fn the_stock_clients_do_the_same_with_volumes() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["storage", "create", "other", "dir"]).ok();
    for stock in Stock::ALL {
        let name = format!("{}-guest", stock.suite());
        let (data, copy) = (format!("{}-data", stock.suite()), format!("{}-copy", stock.suite()));
        lab.launch("busybox", &name, &[]);
        let volume = |words: &[&str]| {
            let mut all = vec!["storage", "volume"];
            all.extend(words);
            stock.run(&lab, &all)
        };
        volume(&["create", "default", &data, "user.a=b"]).ok();
        assert!(volume(&["create", "default", &data]).refused().contains("already exists"));
        volume(&["attach", "default", &data, &name, "data", "/srv/data"]).ok();
        lab.sh(&name, "echo one >/srv/data/note; chown 3:4 /srv/data/note");
        let list = volume(&["list", "default", "-f", "csv"]).ok();
        assert!(list.lines().any(|line| line.starts_with(&format!("custom,{data},,filesystem,1"))), "{list}");
        let shown = volume(&["show", "default", &data]).ok();
        assert!(shown.contains("user.a: b") && shown.contains(&format!("/1.0/instances/{name}")), "{shown}");
        volume(&["set", "default", &data, "user.a=c"]).ok();
        assert_eq!(volume(&["get", "default", &data, "user.a"]).ok(), "c");
        volume(&["unset", "default", &data, "user.a"]).ok();
        let info = volume(&["info", "default", &data]).ok();
        assert!(info.contains(&data) && info.contains("custom"), "{info}");
        volume(&["snapshot", "create", "default", &data, "s"]).ok();
        volume(&["snapshot", "create", "default", &data]).ok();
        let snapshots = volume(&["snapshot", "list", "default", &data, "-f", "csv"]).ok();
        let found: Vec<_> = snapshots.lines().filter_map(|line| line.split(',').next()).collect();
        assert_eq!(found, ["s", "snap0"], "{snapshots}");
        volume(&["snapshot", "rename", "default", &data, "snap0", "t"]).ok();
        volume(&["snapshot", "delete", "default", &data, "t"]).ok();
        let one = format!("{data}/s");
        let which: &[&str] = if stock == Stock::Sid { &[&data, "s"] } else { &[&one] };
        let shown = volume(&[&["snapshot", "show", "default"], which].concat()).ok();
        assert!(shown.contains("content_type: filesystem"), "{shown}");
        lab.sh(&name, "echo two >/srv/data/note");
        let restored = volume(&["snapshot", "restore", "default", &data, "s"]).refused();
        assert!(restored.contains("in use"), "{restored}");
        volume(&["detach", "default", &data, &name]).ok();
        assert_eq!(lab.sh(&name, "ls /srv/data"), "");
        volume(&["snapshot", "restore", "default", &data, "s"]).ok();
        volume(&["copy", &format!("default/{data}"), &format!("other/{copy}")]).ok();
        volume(&["attach", "other", &copy, &name, "copy", "/srv/copy"]).ok();
        assert_eq!(lab.sh(&name, "cat /srv/copy/note; stat -c '%u:%g' /srv/copy/note"), "one\n3:4");
        volume(&["detach", "other", &copy, &name, "copy"]).ok();
        volume(&["delete", "other", &copy]).ok();
        volume(&["move", &format!("default/{data}"), &format!("other/{copy}")]).ok();
        let moved = format!("{copy}-new");
        volume(&["rename", "other", &copy, &moved]).ok();
        if stock == Stock::Sid {
            volume(&["file", "create", "other", &format!("{moved}/made"), "--uid", "7"]).ok();
            assert_eq!(volume(&["file", "pull", "other", &format!("{moved}/note"), "-"]).ok(), "one");
            volume(&["file", "delete", "other", &format!("{moved}/made")]).ok();
        }
        volume(&["attach-profile", "other", &moved, "default", "everywhere", "/every"]).ok();
        assert_eq!(lab.sh(&name, "cat /every/note"), "one");
        assert!(volume(&["delete", "other", &moved]).refused().contains("in use"));
        volume(&["detach-profile", "other", &moved, "default", "everywhere"]).ok();
        volume(&["delete", "other", &moved]).ok();
        assert!(volume(&["show", "other", &moved]).refused().contains("not found"));
        lab.cabin(&["delete", "-f", &name]).ok();
    }
    lab.cabin(&["storage", "delete", "other"]).ok();
}

#[test]
fn a_link_in_a_volume_leads_to_places_in_it_alone() {
    let lab = Lab::shared();
    create(&lab, "linked");
    lab.launch("busybox", "linker", &[]);
    attach(&lab, "linker", "all", &["pool=default", "source=linked", "path=/all"]).ok();
    lab.sh(
        "linker",
        "cd /all; mkdir one; echo one >one/note; ln -s one inner; ln -s /etc outer; ln -s .. up",
    );
    attach(&lab, "linker", "part", &["pool=default", "source=linked/inner", "path=/part"]).ok();
    assert_eq!(lab.sh("linker", "cat /part/note").trim(), "one");
    for out in ["outer", "up"] {
        attach(&lab, "linker", "out", &["pool=default", &format!("source=linked/{out}"), "path=/out"])
            .refused();
    }
    lab.cabin(&["delete", "-f", "linker"]).ok();
    delete(&lab, "linked");
}

#[test]
fn a_volume_whose_ids_are_the_hosts_belongs_to_nobody_inside() {
    let lab = Lab::shared();
    let volume = |words: &[&str]| lab.cabin(&[&["storage", "volume"], words].concat());
    volume(&["create", "default", "hosts", "security.unmapped=true", "initial.mode=0755"]).ok();
    lab.launch("busybox", "guest", &[]);
    attach(&lab, "guest", "d", &["pool=default", "source=hosts", "path=/hosts"]).ok();
    assert_eq!(lab.sh("guest", "stat -c '%u %g' /hosts"), "65534 65534");
    assert_ne!(lab.exec("guest", &["touch", "/hosts/mine"]).code, 0, "root inside is not the host's");
    let refused = volume(&["set", "default", "hosts", "security.unmapped=false"]).refused();
    assert!(refused.contains("security.unmapped"), "{refused}");
    detach(&lab, "guest", "d");
    volume(&["set", "default", "hosts", "security.unmapped=false"]).ok();
    attach(&lab, "guest", "d", &["pool=default", "source=hosts", "path=/hosts"]).ok();
    assert_eq!(lab.sh("guest", "touch /hosts/mine; stat -c '%u %g' /hosts /hosts/mine"), "0 0\n0 0");
    assert!(
        volume(&["create", "default", "both", "security.unmapped=true", "security.shifted=true"]).code != 0
    );
    lab.cabin(&["delete", "-f", "guest"]).ok();
    delete(&lab, "hosts");
}

#[test]
fn disks_stay_when_the_daemon_dies_and_comes_back() {
    let mut lab = Lab::own();
    lab.busybox("stays");
    create(&lab, "kept");
    attach(&lab, "stays", "data", &["pool=default", "source=kept", "path=/srv/data"]).ok();
    lab.sh("stays", "echo one >/srv/data/note");
    lab.daemon_mut().crash();
    lab.daemon_mut().boot();
    assert_eq!(lab.status("stays"), "Running");
    assert_eq!(lab.sh("stays", "cat /srv/data/note; mount | grep -c /srv/data"), "one\n1");
    detach(&lab, "stays", "data");
    assert_eq!(lab.sh("stays", "ls /srv/data"), "");
    lab.cabin(&["delete", "-f", "stays"]).ok();
    delete(&lab, "kept");
}

#[test]
fn volumes_are_snapshotted_with_their_instance_in_one_moment() {
    let lab = Lab::shared();
    lab.busybox("both");
    create(&lab, "log");
    create(&lab, "copy");
    attach(&lab, "both", "log", &["pool=default", "source=log", "path=/log"]).ok();
    attach(&lab, "both", "copy", &["pool=default", "source=copy", "path=/copy"]).ok();
    // Each number takes its place in the root first, then in the one volume, then in the other.
    let script = "i=0; while :; do i=$((i+1)); for at in / /log/ /copy/; do echo $i >${at}next; mv ${at}next ${at}number; done; done";
    lab.exec("both", &["sh", "-c", &format!("({script}) >/dev/null 2>&1 &")]).ok();
    cabin_tests::wait::until_true("the guest to write", 20, || {
        lab.exec("both", &["test", "-s", "/copy/number"]).code == 0
    });
    for round in 0..3 {
        let name = format!("s{round}");
        lab.cabin(&["snapshot", "create", "both", &name, "--volumes"]).ok();
        let pool = lab.dir.join("storage-pools/default");
        let number = |place: String| {
            let text = std::fs::read_to_string(pool.join(&place)).unwrap_or_default();
            text.trim().parse::<i64>().unwrap_or_else(|why| panic!("{place} says `{text}`: {why}"))
        };
        let [root, log, copy] = [
            ("containers-snapshots/both", "u"),
            ("custom-snapshots/log", "rootfs"),
            ("custom-snapshots/copy", "rootfs"),
        ]
        .map(|(owner, own)| number(format!("{owner}/{name}/{own}/number")));
        let one_moment = root >= log && log >= copy && root <= copy + 1;
        assert!(one_moment, "{root} in the root, {log} in one volume, {copy} in the other");
        assert_eq!(lab.get(&format!("/1.0/instances/both/snapshots/{name}"))["name"], name.as_str());
    }
    let taken = lab.cabin(&["storage", "volume", "snapshot", "create", "default", "log", "s9"]);
    taken.ok();
    let refused = lab.cabin(&["snapshot", "create", "both", "s9", "--volumes"]).refused();
    assert!(refused.contains("already exists"), "{refused}");
    assert_ne!(lab.call("GET", "/1.0/instances/both/snapshots/s9", None).status, 200);
    lab.cabin(&["delete", "-f", "both"]).ok();
    delete(&lab, "log");
    delete(&lab, "copy");
}

#[test]
fn an_instance_goes_back_together_with_its_volumes_or_not_at_all() {
    let lab = Lab::shared();
    lab.busybox("joined");
    create(&lab, "ja");
    create(&lab, "jb");
    for volume in ["ja", "jb"] {
        attach(
            &lab,
            "joined",
            volume,
            &["pool=default", &format!("source={volume}"), &format!("path=/{volume}")],
        )
        .ok();
    }
    let write = |word: &str| {
        lab.sh("joined", &format!("for it in /here /ja/it /jb/it; do echo {word} >$it; done"));
    };
    let read = || lab.sh("joined", "cat /here /ja/it /jb/it");
    write("old");
    lab.cabin(&["snapshot", "create", "joined", "s", "--volumes"]).ok();
    write("new");
    // Only the instance.
    lab.cabin(&["snapshot", "restore", "joined", "s"]).ok();
    assert_eq!(read(), "old\nnew\nnew");
    write("new");
    let before = lab.init_pid("joined");
    lab.cabin(&["snapshot", "restore", "joined", "s", "--volumes"]).ok();
    assert_ne!(lab.init_pid("joined"), before);
    assert_eq!(read(), "old\nold\nold");
    // Somebody else writes in one of them: nothing goes back, and nothing is stopped.
    write("new");
    lab.busybox("writer");
    attach(&lab, "writer", "jb", &["pool=default", "source=jb", "path=/jb"]).ok();
    let before = lab.init_pid("joined");
    let refused = lab.cabin(&["snapshot", "restore", "joined", "s", "--volumes"]).refused();
    assert!(refused.contains("jb") && refused.contains("writer"), "{refused}");
    lab.cabin(&["delete", "-f", "writer"]).ok();
    // One has no such snapshot.
    lab.cabin(&["storage", "volume", "snapshot", "delete", "default", "jb", "s"]).ok();
    let refused = lab.cabin(&["snapshot", "restore", "joined", "s", "--volumes"]).refused();
    assert!(refused.contains("jb") && refused.contains("without its volumes"), "{refused}");
    assert_eq!((read().as_str(), lab.init_pid("joined")), ("new\nnew\nnew", before));
    lab.cabin(&["delete", "-f", "joined"]).ok();
    delete(&lab, "ja");
    delete(&lab, "jb");
}

#[test]
fn volumes_do_the_same_on_every_driver() {
    let lab = Lab::shared();
    lab.busybox("drivers");
    lab.cabin(&["storage", "create", "d-dir", "dir"]).ok();
    lab.cabin(&["storage", "create", "d-overlay", "overlay"]).ok();
    lab.cabin(&["storage", "create", "d-btrfs", "btrfs", "size=1GiB"]).ok();
    let volume = |words: &[&str]| {
        let mut all = vec!["storage", "volume"];
        all.extend(words);
        lab.cabin(&all)
    };
    let pools = ["d-dir", "d-overlay", "d-btrfs"];
    for (pool, next) in pools.iter().zip(pools.iter().cycle().skip(1)) {
        volume(&["create", pool, "v", "initial.mode=0750", "initial.uid=3"]).ok();
        volume(&["attach", pool, "v", "drivers", "v", "/v"]).ok();
        assert_eq!(lab.sh("drivers", "stat -c '%u %a' /v"), "3 750", "{pool}");
        lab.sh(
            "drivers",
            "echo one >/v/note; ln /v/note /v/hard; chown 5:6 /v/note; mkfifo /v/pipe; ln -s /etc /v/link",
        );
        volume(&["snapshot", "create", pool, "v", "s"]).ok();
        lab.sh("drivers", "echo two >/v/note; rm /v/pipe");
        lab.cabin(&["stop", "-f", "drivers"]).ok();
        volume(&["snapshot", "restore", pool, "v", "s"]).ok();
        volume(&["copy", &format!("{pool}/v"), &format!("{next}/w")]).ok();
        lab.cabin(&["start", "drivers"]).ok();
        volume(&["attach", next, "w", "drivers", "w", "/w"]).ok();
        for place in ["/v", "/w"] {
            let look = format!(
                "cd {place}; stat -c '%u %a' .; cat note; stat -c '%u:%g %h' hard; test -p pipe; readlink link"
            );
            assert_eq!(lab.sh("drivers", &look), "3 750\none\n5:6 2\n/etc", "{pool} {next} {place}");
        }
        let used = lab.get(&format!("/1.0/storage-pools/{pool}/volumes/custom/v/state"));
        assert!(used["usage"]["used"].as_u64().is_some(), "{used}");
        volume(&["detach", next, "w", "drivers"]).ok();
        volume(&["detach", pool, "v", "drivers"]).ok();
        volume(&["rename", pool, "v", "x"]).ok();
        volume(&["delete", pool, "x"]).ok();
        volume(&["delete", next, "w"]).ok();
    }
    // A limit, where there can be one: df shows it inside, and it holds.
    assert!(volume(&["create", "d-dir", "small", "size=20MiB"]).refused().contains("btrfs"));
    volume(&["create", "d-btrfs", "small", "size=20MiB"]).ok();
    volume(&["attach", "d-btrfs", "small", "drivers", "small", "/small"]).ok();
    let filled = lab.exec("drivers", &["dd", "if=/dev/urandom", "of=/small/x", "bs=1M", "count=40"]);
    assert_ne!(filled.code, 0);
    volume(&["set", "d-btrfs", "small", "size=60MiB"]).ok();
    lab.exec("drivers", &["dd", "if=/dev/urandom", "of=/small/x", "bs=1M", "count=40"]).ok();
    let state = lab.get("/1.0/storage-pools/d-btrfs/volumes/custom/small/state");
    assert_eq!(state["usage"]["total"], 60 * 1024 * 1024);
    lab.cabin(&["delete", "-f", "drivers"]).ok();
    volume(&["delete", "d-btrfs", "small"]).ok();
    lab.cabin(&["storage", "delete", "d-dir", "d-overlay", "d-btrfs"]).ok();
}

#[test]
fn volumes_go_into_files_and_come_back_with_ours_and_the_stock_clients() {
    let lab = Lab::shared();
    lab.busybox("file");
    create(&lab, "out");
    attach(&lab, "file", "d", &["pool=default", "source=out", "path=/v"]).ok();
    lab.sh(
        "file",
        "cd /v; echo one >note; chown 5:6 note; ln note hard; ln -s note link; mkdir -p deep/er; chmod 750 .",
    );
    lab.cabin(&["storage", "volume", "snapshot", "create", "default", "out", "s"]).ok();
    lab.sh("file", "cd /v; echo two >note; truncate -s 1M hole; mkfifo pipe");
    let look = |name: &str, path: &str| {
        lab.cabin(&["storage", "volume", "file", "pull", "default", &format!("{name}/{path}"), "-"]).ok()
    };
    let check = |name: &str| {
        attach(&lab, "file", "back", &["pool=default", &format!("source={name}"), "path=/back"]).ok();
        let seen = lab.sh(
            "file",
            "cd /back; stat -c %a .; cat hard; stat -c '%u:%g %h' note; readlink link; ls; stat -c %s hole",
        );
        assert_eq!(seen, "750\ntwo\n5:6 2\nnote\ndeep\nhard\nhole\nlink\nnote\npipe\n1048576", "{name}");
        detach(&lab, "file", "back");
        lab.cabin(&["storage", "volume", "snapshot", "restore", "default", name, "s"]).ok();
        assert_eq!(look(name, "note"), "one");
        delete(&lab, name);
    };
    let place = lab.dir.with_extension("files");
    std::fs::create_dir(&place).expect("a directory for files");
    let file = |name: &str| place.join(name).display().to_string();
    lab.cabin(&["storage", "volume", "export", "default", "out", &file("ours")]).ok();
    lab.cabin(&["storage", "volume", "import", "default", &file("ours"), "ours"]).ok();
    check("ours");
    assert!(
        lab.cabin(&["storage", "volume", "import", "default", &file("ours")]).refused().contains("exists")
    );
    assert!(lab.cabin(&["import", &file("ours")]).refused().contains("container"));
    for stock in Stock::ALL {
        let (name, path) = (stock.suite(), file(stock.suite()));
        stock.run(&lab, &["storage", "volume", "export", "default", "out", &path]).ok();
        stock.run(&lab, &["storage", "volume", "import", "default", &path, name]).ok();
        check(name);
    }
    assert_eq!(lab.get("/1.0/storage-pools/default/volumes/custom/out/backups"), json!([]));
    // One that is kept goes with its volume.
    let target = "/1.0/storage-pools/default/volumes/custom/out/backups";
    let made = lab.operate("POST", target, &json!({ "volume_only": true }));
    assert_eq!(made["status_code"], 200, "{made}");
    let renamed = lab.operate("POST", &format!("{target}/backup0"), &json!({ "name": "kept" }));
    assert_eq!(renamed["status_code"], 200, "{renamed}");
    assert_eq!(lab.get(target), json!([format!("{target}/kept")]));
    assert_eq!(lab.call("POST", &format!("{target}/backup0"), Some(&json!({ "name": "k" }))).status, 404);
    lab.cabin(&["delete", "-f", "file"]).ok();
    delete(&lab, "out");
    assert_eq!(std::fs::read_dir(lab.dir.join("backups")).map_or(0, Iterator::count), 0);
    std::fs::remove_dir_all(&place).expect("to remove the files");
}
