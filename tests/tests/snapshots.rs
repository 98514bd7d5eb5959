//! Snapshots and copies: taken running and stopped, brought back in any order, with ours and the stock clients.

use cabin_tests::cli::host;
use cabin_tests::clients::Stock;
use cabin_tests::lab::Lab;
use cabin_tests::subject::Subject;
use cabin_tests::wait::until_true;
use serde_json::json;

/// What a guest has in its file.
fn note(lab: &Lab, name: &str) -> String {
    lab.sh(name, "cat /root/note")
}

fn write(lab: &Lab, name: &str, text: &str) {
    lab.sh(name, &format!("mkdir -p /root; echo {text} >/root/note; sync"));
}

fn snapshots(lab: &Lab, name: &str) -> Vec<String> {
    let found = lab.get(&format!("/1.0/instances/{name}/snapshots?recursion=1"));
    found
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| it["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_running_instance_is_brought_back_to_any_of_its_snapshots() {
    let lab = Lab::shared();
    lab.busybox("time");
    for text in ["one", "two", "three"] {
        write(&lab, "time", text);
        lab.sh("time", &format!("rm -f /etc/issue /only-*; touch /only-{text}"));
        lab.cabin(&["snapshot", "create", "time", text]).ok();
    }
    lab.sh("time", "rm -rf /root/note /usr/share; mkdir -p /usr/share; echo new >/usr/share/new");
    assert_eq!(snapshots(&lab, "time"), ["one", "two", "three"]);
    for text in ["one", "three", "two"] {
        let init = lab.init_pid("time");
        lab.cabin(&["snapshot", "restore", "time", text]).ok();
        assert_eq!(lab.status("time"), "Running");
        assert_ne!(lab.init_pid("time"), init);
        assert_eq!(note(&lab, "time"), text);
        assert_eq!(lab.sh("time", "ls -d /only-*"), format!("/only-{text}"));
        assert_eq!(lab.exec("time", &["test", "-e", "/usr/share/new"]).code, 1);
    }
    // In any order, and the others stay good.
    lab.cabin(&["snapshot", "delete", "time", "two"]).ok();
    lab.cabin(&["restore", "time", "one"]).ok();
    assert_eq!(note(&lab, "time"), "one");
    lab.cabin(&["snapshot", "delete", "time", "one"]).ok();
    lab.cabin(&["restore", "time/three"]).ok();
    assert_eq!(note(&lab, "time"), "three");
    assert_eq!(snapshots(&lab, "time"), ["three"]);
    lab.cabin(&["delete", "-f", "time"]).ok();
}

#[test]
fn config_and_devices_come_back_too_unless_only_the_files_are_wanted() {
    let lab = Lab::shared();
    lab.busybox("conf");
    write(&lab, "conf", "old");
    lab.cabin(&["config", "set", "conf", "user.note=old", "limits.memory=100MiB"]).ok();
    lab.cabin(&["stop", "-f", "conf"]).ok();
    lab.cabin(&["snapshot", "create", "conf", "s"]).ok();
    let before = lab.get("/1.0/instances/conf");
    lab.cabin(&["config", "set", "conf", "user.note=new", "limits.memory=200MiB", "user.more=x"]).ok();
    lab.cabin(&["snapshot", "restore", "conf", "s", "--diskonly"]).ok();
    assert_eq!(lab.get("/1.0/instances/conf")["config"]["user.note"], "new");
    lab.cabin(&["snapshot", "restore", "conf", "s"]).ok();
    let after = lab.get("/1.0/instances/conf");
    assert_eq!(after["config"]["user.note"], "old");
    assert_eq!(after["config"]["limits.memory"], "100MiB");
    assert!(after["config"]["user.more"].is_null());
    for kept in ["volatile.uuid", "volatile.eth0.hwaddr"] {
        assert_eq!(after["config"][kept], before["config"][kept], "{kept}");
    }
    assert_ne!(after["config"]["volatile.uuid.generation"], before["config"]["volatile.uuid.generation"]);
    assert_eq!(lab.status("conf"), "Stopped");
    lab.cabin(&["start", "conf"]).ok();
    assert_eq!(note(&lab, "conf"), "old");
    lab.cabin(&["delete", "-f", "conf"]).ok();
}

#[test]
fn a_fixed_address_comes_back_and_the_later_one_is_anybodys() {
    let lab = Lab::own();
    lab.image("busybox");
    let bridge = lab.get("/1.0/networks/cabinbr0")["config"]["ipv4.address"].as_str().unwrap().to_owned();
    let net = bridge.rsplit_once('.').unwrap().0.to_owned();
    let (then, later) = (format!("{net}.70"), format!("{net}.71"));
    let give = |name: &str, address: &str| {
        let verb = if lab.get(&format!("/1.0/instances/{name}"))["devices"]["eth0"].is_null() {
            "override"
        } else {
            "set"
        };
        lab.cabin(&["config", "device", verb, name, "eth0", &format!("ipv4.address={address}")])
    };
    for name in ["back", "rival"] {
        lab.cabin(&["create", "busybox", name]).ok();
    }
    for running in [false, true] {
        give("back", &then).ok();
        lab.cabin(&["snapshot", "create", "back", "s"]).ok();
        give("back", &later).ok();
        if running {
            lab.cabin(&["start", "back"]).ok();
        }
        lab.cabin(&["snapshot", "restore", "back", "s", "--diskonly"]).ok();
        let refused = give("rival", &later).refused();
        assert!(refused.contains(&later), "{refused}");
        lab.cabin(&["snapshot", "restore", "back", "s"]).ok();
        let refused = give("rival", &then).refused();
        assert!(refused.contains(&then), "{refused}");
        give("rival", &later).ok();
        if !running {
            lab.cabin(&["start", "back"]).ok();
        }
        assert_eq!(lab.wait_address("back", 20), then);
        lab.cabin(&["stop", "-f", "back"]).ok();
        lab.cabin(&["snapshot", "delete", "back", "s"]).ok();
        give("rival", "none").ok();
    }
    lab.cabin(&["delete", "back", "rival"]).ok();
}

#[test]
fn what_a_guest_synced_before_a_snapshot_is_in_it() {
    let lab = Lab::shared();
    lab.busybox("writer");
    // Each record is synced before the counter outside moves on.
    let script = "mkdir -p /root; i=0; while :; do i=$((i+1)); echo record $i >>/root/log; sync; \
                  echo $i >/root/acknowledged; done";
    lab.exec("writer", &["sh", "-c", &format!("({script}) >/dev/null 2>&1 &")]).ok();
    for round in 0..5 {
        let target = (round + 1) * 5;
        until_true("the guest to write", 30, || {
            lab.sh("writer", "cat /root/acknowledged 2>/dev/null || echo 0").parse().unwrap_or(0) >= target
        });
        let acknowledged: u64 = lab.sh("writer", "cat /root/acknowledged").parse().unwrap_or(0);
        let name = format!("s{round}");
        let done = lab.operate("POST", "/1.0/instances/writer/snapshots", &json!({ "name": name }));
        assert_eq!(done["status_code"], 200, "{done}");
        let frozen = done["metadata"]["frozen_us"].as_u64().expect("how long it stood still");
        println!("held still for {frozen} us");
        assert!(frozen > 0 && frozen < 5_000_000, "{frozen}");
        assert_eq!(lab.status("writer"), "Running");
        let copy = format!("copy{round}");
        lab.cabin(&["copy", &format!("writer/{name}"), &copy]).ok();
        lab.cabin(&["start", &copy]).ok();
        let log = lab.sh(&copy, "cat /root/log");
        let whole = log.lines().filter(|line| line.starts_with("record ")).count() as u64;
        assert!(whole >= acknowledged, "{whole} of {acknowledged} records");
        let first = log.lines().take(whole as usize - 1).enumerate();
        first.for_each(|(at, line)| assert_eq!(line, format!("record {}", at + 1)));
        lab.cabin(&["delete", "-f", &copy]).ok();
    }
    lab.cabin(&["delete", "-f", "writer"]).ok();
}

#[test]
fn a_copy_goes_its_own_way() {
    let lab = Lab::shared();
    lab.busybox("first");
    write(&lab, "first", "one");
    lab.cabin(&["config", "set", "first", "user.note=kept"]).ok();
    lab.cabin(&["snapshot", "create", "first"]).ok();
    write(&lab, "first", "two");
    lab.cabin(&["copy", "first", "second", "-c", "user.own=yes"]).ok();
    lab.cabin(&["copy", "first/snap0", "third", "--instance-only"]).ok();
    lab.cabin(&["start", "second", "third"]).ok();
    assert_eq!((note(&lab, "second"), note(&lab, "third")), ("two".into(), "one".into()));
    assert_eq!(lab.sh("second", "hostname"), "second");
    write(&lab, "second", "changed");
    assert_eq!(note(&lab, "first"), "two");
    let (one, two) = (lab.get("/1.0/instances/first"), lab.get("/1.0/instances/second"));
    assert_eq!((&two["config"]["user.note"], &two["config"]["user.own"]), (&json!("kept"), &json!("yes")));
    for own in ["volatile.uuid", "volatile.eth0.hwaddr"] {
        assert_ne!(one["config"][own], two["config"][own], "{own}");
    }
    assert_eq!((snapshots(&lab, "second"), snapshots(&lab, "third")), (vec!["snap0".into()], vec![]));
    // The original can go.
    lab.cabin(&["delete", "-f", "first"]).ok();
    lab.cabin(&["restore", "second", "snap0"]).ok();
    assert_eq!(note(&lab, "second"), "one");
    let taken = lab.cabin(&["copy", "second", "third"]).refused();
    assert!(taken.contains("already exists"), "{taken}");
    let none = lab.cabin(&["copy", "second/none", "fourth"]).refused();
    assert!(none.contains("not found"), "{none}");
    lab.cabin(&["delete", "-f", "second", "third"]).ok();
}

#[test]
fn snapshots_go_along_with_a_rename_and_away_with_a_delete() {
    let lab = Lab::shared();
    lab.busybox("before");
    write(&lab, "before", "one");
    lab.cabin(&["snapshot", "create", "before", "s"]).ok();
    write(&lab, "before", "two");
    lab.cabin(&["stop", "-f", "before"]).ok();
    lab.cabin(&["rename", "before", "after"]).ok();
    lab.cabin(&["snapshot", "rename", "after", "s", "t"]).ok();
    assert_eq!(snapshots(&lab, "after"), ["t"]);
    lab.cabin(&["restore", "after", "t"]).ok();
    lab.cabin(&["start", "after"]).ok();
    assert_eq!(note(&lab, "after"), "one");
    assert_eq!(lab.sh("after", "hostname"), "after");
    let listed = lab.cabin(&["list", "-f", "csv", "-c", "nS", "after"]).ok();
    assert_eq!(listed, "after,1");
    let info = lab.cabin(&["info", "after"]).ok();
    assert!(info.contains("Snapshots:\n  t:"), "{info}");
    lab.cabin(&["delete", "-f", "after"]).ok();
    let left = lab.dir.join("storage-pools/default/containers-snapshots");
    let left = std::fs::read_dir(left).expect("the pool").filter_map(Result::ok);
    let left: Vec<_> = left.map(|it| it.file_name()).filter(|it| it == "after" || it == "before").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn names_are_made_up_expiry_is_kept_and_bad_input_is_refused() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "odd", "-c", "snapshots.expiry=1d"]).ok();
    for _ in 0..2 {
        lab.cabin(&["snapshot", "create", "odd"]).ok();
    }
    lab.cabin(&["config", "set", "odd", "snapshots.pattern=day-%d"]).ok();
    lab.cabin(&["snapshot", "create", "odd", "--no-expiry"]).ok();
    lab.cabin(&["snapshot", "create", "odd", "when", "--expiry", "2H"]).ok();
    lab.cabin(&["snapshot", "create", "odd", "when", "--reuse"]).ok();
    assert_eq!(snapshots(&lab, "odd"), ["snap0", "snap1", "day-0", "when"]);
    let expires = |name: &str| lab.get(&format!("/1.0/instances/odd/snapshots/{name}"))["expires_at"].clone();
    assert_eq!(expires("day-0"), "0001-01-01T00:00:00Z");
    assert!(expires("snap0").as_str().is_some_and(|at| at > "2025"));
    let put = json!({ "expires_at": "2040-01-02T03:04:05Z" });
    assert_eq!(lab.operate("PUT", "/1.0/instances/odd/snapshots/snap0", &put)["status_code"], 200);
    assert_eq!(expires("snap0"), "2040-01-02T03:04:05Z");
    let taken = lab.cabin(&["snapshot", "create", "odd", "snap0"]).refused();
    assert!(taken.contains("already exists"), "{taken}");
    let base = "/1.0/instances/odd/snapshots";
    for bad in ["a b", "a/b", "..", ".hidden", "-x", "é", "a\u{0}b", &"x".repeat(300)] {
        let reply = lab.call("POST", base, Some(&json!({ "name": bad })));
        assert_eq!(reply.status, 400, "{bad:?}: {}", reply.text());
        let reply = lab.call("POST", &format!("{base}/snap0"), Some(&json!({ "name": bad })));
        assert_eq!(reply.status, 400, "{bad:?}: {}", reply.text());
    }
    for (body, code) in [
        (json!({ "name": "x", "stateful": true }), 501),
        (json!({ "name": "x", "expires_at": "tomorrow" }), 400),
        (json!({ "name": ["x"] }), 400),
    ] {
        let reply = lab.call("POST", base, Some(&body));
        assert!(reply.status == code || reply.status == 400, "{body}: {} {}", reply.status, reply.text());
    }
    for (method, target) in [("GET", "none"), ("DELETE", "none"), ("GET", "..%2f..%2fodd")] {
        let reply = lab.call(method, &format!("{base}/{target}"), None);
        assert_eq!(reply.status, 404, "{method} {target}: {}", reply.text());
    }
    let restore = lab.call("PUT", "/1.0/instances/odd", Some(&json!({ "restore": "none" })));
    assert_eq!(restore.status, 404, "{}", restore.text());
    for bad in ["snapshots.expiry=1x", "snapshots.pattern=a b", "snapshots.pattern=%d%d"] {
        let _ = lab.cabin(&["config", "set", "odd", bad]).refused();
    }
    lab.cabin(&["delete", "odd"]).ok();
}

#[test]
fn an_expired_snapshot_goes_by_itself() {
    let mut lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "short"]).ok();
    lab.cabin(&["snapshot", "create", "short", "gone", "--expiry", "1S"]).ok();
    lab.cabin(&["snapshot", "create", "short", "kept", "--expiry", "1d"]).ok();
    lab.cabin(&["storage", "volume", "create", "default", "brief"]).ok();
    for (name, expiry) in [("gone", "1S"), ("kept", "1d")] {
        let create =
            ["storage", "volume", "snapshot", "create", "default", "brief", name, "--expiry", expiry];
        lab.cabin(&create).ok();
    }
    lab.daemon_mut().terminate();
    // The daemon looks when it starts, and once a minute.
    lab.daemon_mut().boot();
    until_true("the snapshots to expire", 90, || {
        snapshots(&lab, "short") == ["kept"] && of_volume(&lab, "brief") == ["kept"]
    });
    lab.cabin(&["delete", "short"]).ok();
    lab.cabin(&["storage", "volume", "delete", "default", "brief"]).ok();
}

#[test]
fn a_snapshot_that_somebody_takes_may_stay_longer_than_one_by_schedule() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "lasting", "-c", "snapshots.expiry=1H"]).ok();
    lab.cabin(&["storage", "volume", "create", "default", "lasting", "snapshots.expiry=1H"]).ok();
    let volumes = "/1.0/storage-pools/default/volumes/custom/lasting/snapshots";
    let hours = |target: &str| {
        let shown = lab.get(target);
        let time = |key: &str| {
            let said = host(&["date", "+%s", "-d", shown[key].as_str().expect("a time")]).ok();
            said.parse::<i64>().expect("seconds")
        };
        // The time of the one is taken a moment before that of the other.
        (time("expires_at") - time("created_at") + 1800) / 3600
    };
    let take = |snapshot: &str| {
        lab.cabin(&["snapshot", "create", "lasting", snapshot]).ok();
        lab.cabin(&["storage", "volume", "snapshot", "create", "default", "lasting", snapshot]).ok();
        [format!("/1.0/instances/lasting/snapshots/{snapshot}"), format!("{volumes}/{snapshot}")]
            .map(|target| hours(&target))
    };
    assert_eq!(take("plain"), [1, 1]);
    lab.cabin(&["config", "set", "lasting", "snapshots.expiry.manual=3H"]).ok();
    lab.cabin(&["storage", "volume", "set", "default", "lasting", "snapshots.expiry.manual=3H"]).ok();
    assert_eq!(take("by-hand"), [3, 3]);
    lab.cabin(&["snapshot", "create", "lasting", "for-ever", "--no-expiry"]).ok();
    let kept = lab.get("/1.0/instances/lasting/snapshots/for-ever");
    assert_eq!(kept["expires_at"], "0001-01-01T00:00:00Z");
    lab.cabin(&["delete", "lasting"]).ok();
    lab.cabin(&["storage", "volume", "delete", "default", "lasting"]).ok();
}

#[test]
fn a_snapshot_comes_back_whatever_was_renamed_since() {
    let lab = Lab::shared();
    lab.image("busybox");
    let volume = |words: &[&str]| lab.cabin(&[&["storage", "volume"], words].concat()).ok();
    lab.cabin(&["profile", "create", "oldname"]).ok();
    lab.cabin(&["profile", "set", "oldname", "user.from=profile"]).ok();
    volume(&["create", "default", "oldvol"]);
    lab.cabin(&["create", "busybox", "kept", "-p", "default", "-p", "oldname"]).ok();
    lab.cabin(&["config", "device", "add", "kept", "d", "disk", "pool=default", "source=oldvol", "path=/d"])
        .ok();
    lab.cabin(&["snapshot", "create", "kept", "s"]).ok();
    lab.cabin(&["profile", "rename", "oldname", "newname"]).ok();
    volume(&["rename", "default", "oldvol", "newvol"]);
    lab.cabin(&["profile", "remove", "kept", "newname"]).ok();
    lab.cabin(&["config", "device", "remove", "kept", "d"]).ok();
    lab.cabin(&["snapshot", "restore", "kept", "s"]).ok();
    let shown = lab.get("/1.0/instances/kept");
    assert_eq!(shown["profiles"], json!(["default", "newname"]));
    assert_eq!(shown["expanded_config"]["user.from"], "profile");
    assert_eq!(shown["devices"]["d"]["source"], "newvol");
    lab.cabin(&["start", "kept"]).ok();
    assert!(lab.sh("kept", "mount").contains(" /d "));
    lab.cabin(&["delete", "-f", "kept"]).ok();
    lab.cabin(&["profile", "delete", "newname"]).ok();
    volume(&["delete", "default", "newvol"]);
}

#[test]
fn snapshots_are_taken_by_the_clock_and_at_a_start() {
    let mut lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "still", "-c", "snapshots.schedule=* * * * *"]).ok();
    lab.cabin(&["create", "busybox", "both", "-c", "snapshots.schedule=* * * * *"]).ok();
    lab.cabin(&["config", "set", "both", "snapshots.schedule.stopped=true", "snapshots.pattern=auto%d"]).ok();
    lab.cabin(&["config", "set", "both", "snapshots.expiry=1d"]).ok();
    lab.cabin(&["create", "busybox", "boot", "-c", "snapshots.schedule=@startup"]).ok();
    let volume = |words: &[&str]| lab.cabin(&[&["storage", "volume"], words].concat()).ok();
    volume(&["create", "default", "clocked", "snapshots.schedule=* * * * *", "snapshots.pattern=auto%d"]);
    volume(&["set", "default", "clocked", "snapshots.expiry=1d"]);
    lab.cabin(&["start", "boot"]).ok();
    assert_eq!(snapshots(&lab, "boot"), ["snap0"], "what it was before the start");
    lab.cabin(&["restart", "--force", "boot"]).ok();
    assert_eq!(snapshots(&lab, "boot"), ["snap0", "snap1"], "what it was before the next");
    let refused = lab.cabin(&["config", "set", "boot", "snapshots.schedule=sometimes"]).refused();
    assert!(refused.contains("five fields"), "{refused}");
    // The daemon looks when it starts, and once a minute.
    lab.daemon_mut().terminate();
    lab.daemon_mut().boot();
    until_true("the snapshots of the minute", 90, || {
        !snapshots(&lab, "both").is_empty() && !of_volume(&lab, "clocked").is_empty()
    });
    let taken = lab.get("/1.0/storage-pools/default/volumes/custom/clocked/snapshots/auto0");
    assert!(taken["expires_at"].as_str().is_some_and(|at| at > "2000"), "{taken}");
    assert_eq!(snapshots(&lab, "both").first().map(String::as_str), Some("auto0"));
    let shown = lab.cabin(&["snapshot", "show", "both", "auto0"]).ok();
    assert!(!shown.contains("expires_at: \"0001") && !shown.contains("expires_at: 0001"), "{shown}");
    assert!(snapshots(&lab, "still").is_empty(), "stopped, and not asked for then");
    lab.cabin(&["delete", "-f", "still", "both", "boot"]).ok();
    lab.cabin(&["storage", "volume", "delete", "default", "clocked"]).ok();
}

/// The names of a volume's snapshots.
fn of_volume(lab: &Lab, volume: &str) -> Vec<String> {
    let all = lab.get(&format!("/1.0/storage-pools/default/volumes/custom/{volume}/snapshots"));
    let names =
        all.as_array().into_iter().flatten().filter_map(|address| address.as_str()?.rsplit('/').next());
    names.map(str::to_owned).collect()
}

#[test]
fn a_pool_of_whole_trees_does_the_same() {
    let lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["storage", "create", "plain", "dir"]).ok();
    lab.cabin(&["launch", "busybox", "box", "-s", "plain"]).ok();
    write(&lab, "box", "one");
    lab.cabin(&["snapshot", "create", "box", "s"]).ok();
    write(&lab, "box", "two");
    lab.cabin(&["copy", "box", "twin"]).ok();
    lab.cabin(&["restore", "box", "s"]).ok();
    assert_eq!(note(&lab, "box"), "one");
    lab.cabin(&["start", "twin"]).ok();
    assert_eq!(note(&lab, "twin"), "two");
    lab.cabin(&["delete", "-f", "box", "twin"]).ok();
    lab.cabin(&["profile", "show", "default"]).ok();
    lab.cabin(&["storage", "delete", "plain"]).ok();
}

#[test]
fn the_stock_clients_snapshot_restore_and_copy() {
    let lab = Lab::shared();
    lab.image("busybox");
    for stock in Stock::ALL {
        let name = format!("{}-snap", stock.suite());
        let (copy, early) = (format!("{name}-copy"), format!("{name}-early"));
        let run = |words: &[&str]| stock.run(&lab, words);
        run(&["launch", "busybox", &name]).ok();
        write(&lab, &name, "one");
        run(&["snapshot", "create", &name]).ok();
        write(&lab, &name, "two");
        run(&["snapshot", "create", &name, "second", "--no-expiry"]).ok();
        run(&["snapshot", "create", &name, "second", "--reuse"]).ok();
        let info = run(&["info", &name]).ok();
        assert!(info.contains("Snapshots:") && info.contains("snap0") && info.contains("second"), "{info}");
        let listed = run(&["snapshot", "list", &name, "-f", "csv"]).ok();
        assert_eq!(listed.lines().count(), 2, "{listed}");
        assert_eq!(run(&["list", "-f", "csv", "-c", "S", &format!("^{name}$")]).ok(), "2");
        let shown = run(&["snapshot", "show", &name, "snap0"]).ok();
        assert!(shown.contains("name: snap0"), "{shown}");
        run(&["snapshot", "restore", &name, "snap0"]).ok();
        assert_eq!((note(&lab, &name).as_str(), lab.status(&name).as_str()), ("one", "Running"));
        run(&["copy", &name, &copy]).ok();
        run(&["copy", &format!("{name}/second"), &early]).ok();
        run(&["start", &copy, &early]).ok();
        assert_eq!((note(&lab, &copy).as_str(), note(&lab, &early).as_str()), ("one", "two"));
        assert_eq!(snapshots(&lab, &copy), ["snap0", "second"]);
        run(&["copy", &name, &format!("{name}-only"), "--instance-only"]).ok();
        assert!(snapshots(&lab, &format!("{name}-only")).is_empty());
        run(&["snapshot", "rename", &name, "snap0", "first"]).ok();
        run(&["snapshot", "delete", &name, "second"]).ok();
        assert_eq!(snapshots(&lab, &name), ["first"]);
        let refused = run(&["snapshot", "restore", &name, "second"]).refused();
        assert!(refused.contains("not found"), "{refused}");
        run(&["delete", "--force", &name, &copy, &early, &format!("{name}-only")]).ok();
    }
}

#[test]
fn an_instance_on_many_layers_starts_and_keeps_all_of_them() {
    let lab = Lab::shared();
    lab.busybox("layered");
    write(&lab, "layered", "first");
    lab.sh(
        "layered",
        "rm -rf /usr/share; mkdir -p /usr/share; echo new >/usr/share/new; ln /root/note /root/linked",
    );
    lab.cabin(&["stop", "-f", "layered"]).ok();
    let upper = lab.dir.join("storage-pools/default/containers/layered/u");
    for round in 0..23 {
        std::fs::write(upper.join(format!("round-{round}")), "x").expect("the writable layer");
        let done =
            lab.operate("POST", "/1.0/instances/layered/snapshots", &json!({ "name": format!("s{round}") }));
        assert_eq!(done["metadata"]["frozen_us"], 0, "{done}");
    }
    lab.cabin(&["start", "layered"]).ok();
    assert_eq!(lab.sh("layered", "ls -d /round-* | wc -l"), "23");
    assert_eq!(lab.sh("layered", "ls /usr/share; cat /root/linked; stat -c %h /root/note"), "new\nfirst\n2");
    // What runs is mounted on them, and what it writes lies above.
    lab.sh("layered", "echo second >/root/note; rm /round-0");
    lab.cabin(&["restore", "layered", "s3"]).ok();
    assert_eq!(lab.sh("layered", "ls -d /round-* | wc -l; cat /root/linked"), "4\nfirst");
    lab.cabin(&["delete", "-f", "layered"]).ok();
    let left = std::fs::read_dir(lab.dir.join("storage-pools/default/layers")).expect("the pool");
    let ours = left.filter_map(Result::ok).filter(|layer| layer.path().join("u/round-22").exists());
    assert_eq!(ours.count(), 0);
}

#[test]
fn a_snapshot_that_is_given_more_time_when_it_was_found_to_be_over_stays() {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject.create("box", &json!({}));
    let snapshots = "/1.0/instances/box/snapshots";
    for name in ["over", "more"] {
        subject.must("POST", snapshots, &json!({ "name": name, "expires_at": "2099-06-01T00:00:00Z" }));
    }
    let look = json!({ "through": ["2099-12-31T23:50:00Z", "2100-01-01T00:10:00Z"] });
    let moment = "snapshot `box/more` was found to be over";
    subject.arm(&format!("hold:{moment}"));
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| subject.ask("PUT", "/internal/clock", &look));
        subject.wait_held(moment);
        let later = json!({ "expires_at": "2101-01-01T00:00:00Z" });
        subject.must("PUT", &format!("{snapshots}/more"), &later);
        assert!(subject.disarm());
        looking.join().expect("the looking thread").expect("an answer");
    });
    let left = subject.get(snapshots);
    assert_eq!(left, json!([format!("{snapshots}/more")]));
    subject.must("PUT", "/1.0/instances/box", &json!({ "restore": "more" }));
}
