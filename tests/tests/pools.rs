//! Storage pools of every driver through the API, with ours and the stock clients: made, shown, grown, lost and found
//! again, deleted; and instances on btrfs from launch to deletion.

use std::os::unix::fs::MetadataExt as _;

use cabin_tests::clients::Stock;
use cabin_tests::disk::Disk;
use cabin_tests::lab::Lab;
use cabin_tests::subject::Subject;
use cabin_tests::wait::until_true;
use serde_json::{Value, json};

/// The loop devices behind files of a daemon.
fn devices(lab: &Lab) -> Vec<String> {
    cabin_tests::audit::loop_devices(&lab.dir)
}

/// The kernel takes a device back when the last that has it open closes it, which may be the host's udev, who looks at each.
fn no_devices(lab: &Lab) {
    until_true("the loop device to be given back", 10, || devices(lab).is_empty());
}

#[test]
fn instances_on_btrfs_live_as_on_any_pool() {
    let lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["storage", "create", "fast", "btrfs", "size=512MiB"]).ok();
    lab.launch("busybox", "web", &["--storage", "fast"]);
    assert_eq!(devices(&lab).len(), 1);
    lab.sh("web", "echo one >/root/state; sync");
    lab.cabin(&["snapshot", "create", "web", "before"]).ok();
    lab.sh("web", "echo two >/root/state");
    lab.cabin(&["snapshot", "restore", "web", "before"]).ok();
    assert_eq!(lab.sh("web", "cat /root/state"), "one");
    lab.cabin(&["copy", "web/before", "twin"]).ok();
    lab.cabin(&["start", "twin"]).ok();
    assert_eq!(lab.sh("twin", "cat /root/state"), "one");
    lab.cabin(&["delete", "-f", "twin"]).ok();
    lab.cabin(&["snapshot", "delete", "web", "before"]).ok();
    lab.cabin(&["delete", "-f", "web"]).ok();
    lab.cabin(&["storage", "delete", "fast"]).ok();
    no_devices(&lab);
    assert!(!lab.dir.join("disks/fast.img").exists());
}

#[test]
fn a_pool_with_a_disk_outlives_the_daemon_and_grows() {
    let mut lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["storage", "create", "fast", "btrfs", "size=512MiB"]).ok();
    lab.launch("busybox", "web", &["--storage", "fast"]);
    lab.sh("web", "echo kept >/root/state");
    let init = lab.init_pid("web");
    lab.daemon_mut().crash();
    lab.daemon_mut().boot();
    assert_eq!((lab.init_pid("web"), lab.sh("web", "cat /root/state").as_str()), (init, "kept"));
    assert_eq!(devices(&lab).len(), 1, "the one that is in use is found again");
    let total =
        || lab.get("/1.0/storage-pools/fast/resources")["space"]["total"].as_u64().unwrap_or_default();
    let before = total();
    lab.cabin(&["storage", "set", "fast", "size=768MiB"]).ok();
    assert_eq!(total() - before, 256 << 20);
    assert!(lab.cabin(&["storage", "set", "fast", "size=512MiB"]).refused().contains("805306368"));
    // Its file is away while the daemon starts: this pool alone is unavailable, and comes back with the file.
    lab.cabin(&["stop", "-f", "web"]).ok();
    lab.daemon_mut().terminate();
    let (file, away) = (lab.dir.join("disks/fast.img"), lab.dir.join("away"));
    std::fs::rename(&file, &away).expect("the file");
    lab.daemon_mut().boot();
    assert_eq!(lab.get("/1.0/storage-pools/fast")["status"], "Unavailable");
    assert_eq!(lab.get("/1.0/storage-pools/default")["status"], "Created");
    let refused = lab.cabin(&["start", "web"]).refused();
    assert!(refused.contains("unavailable"), "{refused}");
    std::fs::rename(&away, &file).expect("the file");
    lab.cabin(&["start", "web"]).ok();
    assert_eq!(lab.sh("web", "cat /root/state"), "kept");
    assert_eq!(lab.get("/1.0/storage-pools/fast")["status"], "Created");
    lab.cabin(&["delete", "-f", "web"]).ok();
    lab.cabin(&["storage", "delete", "fast"]).ok();
}

#[test]
fn stock_clients_make_and_use_pools_of_every_driver() {
    let lab = Lab::own();
    lab.image("busybox");
    for stock in Stock::ALL {
        let run = |words: &[&str]| stock.run(&lab, words).ok();
        for (driver, config) in [("btrfs", "size=300MiB"), ("dir", "user.note=x"), ("overlay", "user.note=x")]
        {
            let _ = run(&["storage", "create", "p", driver, config]);
            let _ = run(&["launch", "busybox", "c", "--storage", "p"]);
            let _ = run(&["snapshot", "create", "c", "s"]);
            let _ = run(&["snapshot", "restore", "c", "s"]);
            let _ = run(&["copy", "c/s", "d"]);
            let shown = run(&["storage", "show", "p"]);
            assert!(shown.contains("/1.0/instances/c") && shown.contains(driver), "{shown}");
            assert!(run(&["storage", "info", "p"]).contains("space used"));
            assert!(run(&["storage", "list", "--format", "csv"]).contains(&format!("p,{driver},")));
            assert!(run(&["storage", "volume", "list", "p", "--format", "csv"]).contains("container"));
            let refused = stock.run(&lab, &["storage", "delete", "p"]).refused();
            assert!(refused.contains("/1.0/instances/"), "{refused}");
            let _ = run(&["delete", "--force", "c", "d"]);
            let _ = run(&["storage", "volume", "create", "p", "data"]);
            let _ = run(&["storage", "volume", "snapshot", "create", "p", "data", "s"]);
            let _ = run(&["storage", "volume", "snapshot", "restore", "p", "data", "s"]);
            let _ = run(&["storage", "volume", "delete", "p", "data"]);
            if driver == "btrfs" {
                let _ = run(&["storage", "set", "p", "size", "320MiB"]);
            }
            let _ = run(&["storage", "delete", "p"]);
        }
    }
    no_devices(&lab);
}

#[test]
fn a_pool_that_cannot_be_made_is_refused_with_the_reason() {
    let lab = Lab::shared();
    let refused = |config: &[&str]| {
        let mut words = vec!["storage", "create", "bad"];
        words.extend(config);
        lab.cabin(&words).refused()
    };
    let plain = lab.dir.join("plain");
    std::fs::create_dir(&plain).expect("a directory");
    let source = format!("source={}", plain.display());
    for (config, reason) in [
        (vec!["btrfs", source.as_str()], "it is not btrfs"),
        (vec!["btrfs", "source=/dev/loop0"], "mount it"),
        (vec!["btrfs", source.as_str(), "size=1GiB"], "for a disk that is made"),
        (vec!["btrfs", "size=10MiB"], "268435456"),
        (vec!["btrfs", "btrfs.mount_options=device=/dev/sda"], "btrfs.mount_options"),
        (vec!["dir", "size=1GiB"], "driver `btrfs` only"),
        (vec!["zfs"], "`zfs`"),
    ] {
        let said = refused(&config);
        assert!(said.contains(reason), "{config:?}: {said}");
    }
    assert!(!lab.dir.join("disks/bad.img").exists());
}

#[test]
fn a_root_disk_holds_what_its_size_says_and_no_more() {
    let mut lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["storage", "create", "fast", "btrfs", "size=512MiB"]).ok();
    lab.launch("busybox", "web", &["--storage", "fast", "--device", "root,size=32MiB"]);
    let fill = |lab: &Lab, mib: u32| {
        let script = format!("dd if=/dev/zero of=/root/big bs=1M count={mib} && sync -f /root/big");
        let done = lab.exec("web", &["sh", "-c", &script]);
        lab.sh("web", "rm -f /root/big; sync -f /root");
        (done.code, done.err)
    };
    let (code, said) = fill(&lab, 48);
    assert!(code != 0 && said.contains("quota"), "{code} {said}");
    assert_eq!(fill(&lab, 16).0, 0);
    // Live, up and down, and what a snapshot brings back is limited as the config says now.
    lab.cabin(&["config", "device", "set", "web", "root", "size=96MiB"]).ok();
    assert_eq!(fill(&lab, 48).0, 0);
    lab.cabin(&["snapshot", "create", "web", "s"]).ok();
    lab.cabin(&["config", "device", "set", "web", "root", "size=40MiB"]).ok();
    assert_ne!(fill(&lab, 48).0, 0);
    lab.cabin(&["snapshot", "restore", "web", "s"]).ok();
    assert_eq!(lab.get("/1.0/instances/web")["expanded_devices"]["root"]["size"], "96MiB");
    assert_eq!(fill(&lab, 48).0, 0);
    assert_eq!(lab.get("/1.0/instances/web/state")["disk"]["root"]["total"], 96 << 20);
    // A daemon that died between the limit and the commit sets what the row says.
    lab.daemon_mut().crash();
    lab.daemon_mut().boot();
    assert_eq!(fill(&lab, 48).0, 0);
    assert_ne!(fill(&lab, 128).0, 0);
    lab.cabin(&["config", "device", "unset", "web", "root", "size"]).ok();
    assert_eq!(fill(&lab, 128).0, 0);
    lab.cabin(&["delete", "-f", "web"]).ok();
    // A volume as well.
    lab.launch("busybox", "web", &["--storage", "fast"]);
    lab.cabin(&["storage", "volume", "create", "fast", "data", "size=8MiB"]).ok();
    lab.cabin(&["storage", "volume", "attach", "fast", "data", "web", "/data"]).ok();
    let done = lab.exec("web", &["sh", "-c", "dd if=/dev/zero of=/data/big bs=1M count=16 && sync -f /data"]);
    assert!(done.code != 0 && done.err.contains("quota"), "{} {}", done.code, done.err);
    lab.cabin(&["delete", "-f", "web"]).ok();
    lab.cabin(&["storage", "volume", "delete", "fast", "data"]).ok();
    lab.cabin(&["storage", "delete", "fast"]).ok();
}

/// KiB that a filesystem has by what an instance is told of it, and KiB that are taken. (`df` of busybox looks at another
/// mount of the same device.)
fn room(lab: &Lab, place: &str) -> (u64, u64) {
    let said = lab.sh("web", &format!("stat -f -c '%b %f %S' {place}"));
    let words: Vec<u64> = said.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    let [all, free, block] = words[..] else { panic!("{said}") };
    (all * block / 1024, (all - free) * block / 1024)
}

/// What a size does in a pool on ext4 or xfs that keeps project quotas.
fn is_held(lab: &mut Lab, driver: &str) {
    lab.launch("busybox", "web", &["--storage", "fast", "--device", "root,size=32MiB"]);
    let fill = |lab: &Lab, place: &str, mib: u32| {
        let script = format!("dd if=/dev/zero of={place}/big bs=1M count={mib} && sync -f {place}/big");
        let code = lab.exec("web", &["sh", "-c", &script]).code;
        lab.sh("web", &format!("rm -f {place}/big; sync -f {place}"));
        code
    };
    assert_ne!(fill(lab, "/root", 48), 0, "{driver}");
    assert_eq!(fill(lab, "/root", 16), 0, "{driver}");
    assert_eq!(room(lab, "/").0, 32 << 10);
    lab.cabin(&["config", "device", "set", "web", "root", "size=96MiB"]).ok();
    assert_eq!((room(lab, "/").0, fill(lab, "/root", 48)), (96 << 10, 0));
    lab.sh("web", "dd if=/dev/zero of=/root/kept bs=1M count=20 && sync -f /root/kept");
    // xfs counts what was removed off behind our back.
    until_true("what is taken to be what is there", 20, || (20 << 10..40 << 10).contains(&room(lab, "/").1));
    lab.cabin(&["snapshot", "create", "web", "s"]).ok();
    lab.cabin(&["config", "device", "set", "web", "root", "size=40MiB"]).ok();
    assert_ne!(fill(lab, "/root", 48), 0);
    lab.cabin(&["snapshot", "restore", "web", "s"]).ok();
    assert_eq!((room(lab, "/").0, fill(lab, "/root", 48)), (96 << 10, 0));
    assert_eq!(lab.get("/1.0/instances/web/state")["disk"]["root"]["total"], 96 << 20);
    // Stopped, it becomes a layer where there are any, and what stands on it is limited as before.
    lab.cabin(&["stop", "-f", "web"]).ok();
    lab.cabin(&["snapshot", "create", "web", "t"]).ok();
    lab.cabin(&["start", "web"]).ok();
    assert_ne!(fill(lab, "/root", 128), 0);
    // A daemon that died between the limit and the commit sets what the row says.
    lab.daemon_mut().crash();
    lab.daemon_mut().boot();
    assert_eq!((room(lab, "/").0, fill(lab, "/root", 48)), (96 << 10, 0));
    lab.cabin(&["config", "device", "unset", "web", "root", "size"]).ok();
    assert_eq!(fill(lab, "/root", 128), 0);
    lab.cabin(&["storage", "volume", "create", "fast", "data", "size=8MiB"]).ok();
    lab.cabin(&["storage", "volume", "attach", "fast", "data", "web", "/data"]).ok();
    assert_eq!(room(lab, "/data").0, 8 << 10);
    assert_ne!(fill(lab, "/data", 16), 0);
    lab.cabin(&["storage", "volume", "set", "fast", "data", "size=24MiB"]).ok();
    assert_eq!(fill(lab, "/data", 16), 0);
    lab.cabin(&["delete", "-f", "web"]).ok();
    lab.cabin(&["storage", "volume", "delete", "fast", "data"]).ok();
}

#[test]
fn a_size_is_held_on_ext4_and_xfs_that_keep_project_quotas_and_refused_on_others() {
    // Before the daemon, which sees no mounts that come later.
    let disks =
        [("overlay", "ext4"), ("dir", "xfs"), ("overlay", "xfs"), ("dir", "ext4")].map(|(driver, kind)| {
            let counted = Disk::counted(kind, 600);
            (driver, counted.is_some(), counted.unwrap_or_else(|| Disk::new(600, None)))
        });
    let mut lab = Lab::own();
    lab.image("busybox");
    for (driver, holds, disk) in disks {
        let source = format!("source={}", disk.place().display());
        lab.cabin(&["storage", "create", "fast", driver, &source]).ok();
        if holds {
            is_held(&mut lab, driver);
        } else {
            let device = ["--device", "root,size=32MiB"];
            let said =
                lab.cabin(&[&["create", "busybox", "web", "-s", "fast"], &device[..]].concat()).refused();
            assert!(said.contains("project quotas") && said.contains("btrfs"), "{said}");
            assert_eq!(lab.get("/1.0/instances").as_array().map(Vec::len), Some(0));
        }
        lab.cabin(&["storage", "delete", "fast"]).ok();
    }
}

#[test]
fn a_size_that_nothing_would_hold_is_refused_with_what_would() {
    let lab = Lab::shared();
    lab.busybox("here");
    for driver in ["overlay", "dir"] {
        let pool = format!("no-{driver}");
        lab.cabin(&["storage", "create", &pool, driver]).ok();
        let said = lab
            .cabin(&["create", "busybox", "never", "--storage", &pool, "--device", "root,size=1GiB"])
            .refused();
        assert!(said.contains("btrfs") && said.contains(driver), "{said}");
        lab.cabin(&["storage", "delete", &pool]).ok();
    }
    let said = lab.cabin(&["config", "device", "override", "here", "root", "size=1GiB"]).refused();
    assert!(said.contains("btrfs"), "{said}");
    lab.cabin(&["delete", "-f", "here"]).ok();
}

#[test]
fn the_default_pool_is_btrfs_where_the_state_lies_on_btrfs() {
    let disk = Disk::btrfs(600);
    let subject = Subject::start_on(&disk);
    subject.import("busybox").expect("the image");
    let shown = subject.get("/1.0/storage-pools/default");
    assert_eq!(
        (shown["driver"].as_str(), shown["status"].as_str()),
        (Some("btrfs"), Some("Created")),
        "{shown}"
    );
    let source = json!({ "type": "image", "alias": "busybox" });
    subject.must("POST", "/1.0/instances", &json!({ "name": "web", "source": source }));
    let root = subject.dir.join("storage-pools/default/containers/web/rootfs");
    assert_eq!(root.metadata().expect("its root").ino(), 256, "a subvolume");
    subject.power("web", "start").expect("a start");
    subject.must("POST", "/1.0/instances/web/snapshots", &json!({ "name": "s" }));
    let kept = subject.dir.join("storage-pools/default/containers-snapshots/web/s/rootfs");
    assert!(std::fs::write(kept.join("new"), "").is_err(), "a snapshot is read-only");
    subject.power("web", "stop").expect("a stop");
    // Another one needs no disk of its own there.
    subject.must("POST", "/1.0/storage-pools", &json!({ "name": "more", "driver": "btrfs" }));
    assert!(!subject.dir.join("disks").exists());
    subject.must("DELETE", "/1.0/storage-pools/more", &serde_json::Value::Null);
    subject.must("DELETE", "/1.0/instances/web", &serde_json::Value::Null);
    assert!(subject.strays().is_empty(), "{:?}", subject.strays());
}

#[test]
fn a_guest_with_systemd_runs_on_btrfs_and_makes_no_subvolumes() {
    let lab = Lab::own();
    lab.cabin(&["storage", "create", "fast", "btrfs", "size=2GiB"]).ok();
    lab.launch("debian/12", "web", &["--storage", "fast", "--device", "root,size=1GiB"]);
    until_true("systemd to be up", 60, || {
        lab.exec("web", &["systemctl", "is-system-running"]).out.trim() == "running"
    });
    // SUBVOL_CREATE_V2 on /root; 25 is ENOTTY.
    let script = r#"opendir(D, "/root"); my $args = pack("x56a4040", "mine");
        syscall(16, fileno(D), 0x50009418, $args) == -1 and print $! + 0"#;
    assert_eq!(lab.exec("web", &["perl", "-e", script]).ok().trim(), "25");
    lab.cabin(&["delete", "-f", "web"]).ok();
    lab.cabin(&["storage", "delete", "fast"]).ok();
}

/// As Incus 7 answers: in the list of a pool's volumes there are none, each whole volume has its own.
#[test]
fn volumes_of_instances_show_the_instances_snapshots() {
    let lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "web"]).ok();
    lab.cabin(&["snapshot", "create", "web", "s0"]).ok();
    lab.cabin(&["storage", "volume", "create", "default", "data"]).ok();
    lab.cabin(&["storage", "volume", "snapshot", "create", "default", "data", "before"]).ok();
    let base = "/1.0/storage-pools/default/volumes";
    let names = |list: &Value| -> Vec<String> {
        let mut names: Vec<String> =
            list.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect();
        names.retain(|name| name.len() < 64);
        names
    };
    assert_eq!(names(&lab.get(&format!("{base}?recursion=1"))), ["web", "data"]);
    let whole = lab.get(&format!("{base}?recursion=2"));
    assert_eq!(names(&whole), ["web", "data"]);
    assert_eq!(names(&whole[0]["snapshots"]), ["s0"]);
    assert_eq!(names(&whole[1]["snapshots"]), ["before"]);
    assert_eq!(names(&lab.get(&format!("{base}/container/web?recursion=1"))["snapshots"]), ["s0"]);
    let of_web = format!("{base}/container/web/snapshots");
    assert_eq!(lab.get(&of_web), json!([format!("{of_web}/s0")]));
    assert_eq!(names(&lab.get(&format!("{of_web}?recursion=1"))), ["web/s0"]);
    assert_eq!(names(&lab.get(&format!("{base}/custom/data/snapshots?recursion=1"))), ["data/before"]);
    let one = lab.get(&format!("{of_web}/s0"));
    assert_eq!(one["created_at"], lab.get("/1.0/instances/web/snapshots/s0")["created_at"]);
    assert_eq!((&one["name"], &one["expires_at"]), (&json!("s0"), &json!("0001-01-01T00:00:00Z")));
    for missing in [format!("{of_web}/s1"), format!("{base}/container/other/snapshots")] {
        assert_eq!(lab.call("GET", &missing, None).status, 404, "{missing}");
    }
    // They are made and changed as the instance's.
    assert_eq!(lab.call("POST", &of_web, Some(&json!({ "name": "s1" }))).status, 400);
    lab.cabin(&["delete", "-f", "web"]).ok();
    lab.cabin(&["storage", "volume", "delete", "default", "data"]).ok();
}

#[test]
fn a_pools_disk_is_mounted_as_its_options_say() {
    let lab = Lab::own();
    let options = |words: &str| format!("btrfs.mount_options={words}");
    let create =
        |words: &str| lab.cabin(&["storage", "create", "timed", "btrfs", "size=300MiB", &options(words)]);
    let mount = || {
        let place = format!("{}/storage-pools/timed ", lab.dir.display());
        let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", lab.pid())).unwrap();
        table.lines().find(|line| line.contains(&place)).expect("a mount").to_owned()
    };
    create("rw,noatime").ok();
    assert!(mount().contains("noatime"), "{}", mount());
    for wrong in ["rw=1", "noatime,strictatime", "ro"] {
        let refused = lab.cabin(&["storage", "set", "timed", &options(wrong)]).refused();
        assert!(refused.contains("btrfs.mount_options"), "{refused}");
    }
    lab.cabin(&["storage", "set", "timed", &options("rw,relatime,user_subvol_rm_allowed")]).ok();
    lab.cabin(&["storage", "delete", "timed"]).ok();
    create("rw,strictatime,user_subvol_rm_allowed").ok();
    let now = mount();
    assert!(!now.contains("relatime") && !now.contains("noatime"), "{now}");
    assert!(now.contains("user_subvol_rm_allowed"), "{now}");
    lab.cabin(&["storage", "delete", "timed"]).ok();
}
