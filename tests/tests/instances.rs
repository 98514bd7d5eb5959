//! The life of an instance through `cabin`, and limits proved by what they do inside.

use std::time::{Duration, Instant};

use cabin_tests::api;
use cabin_tests::lab::Lab;
use cabin_tests::monitor::Monitor;
use cabin_tests::wait::until_true;
use serde_json::json;

#[test]
fn an_instance_is_created_started_stopped_and_deleted() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "life"]).ok();
    assert_eq!(lab.status("life"), "Stopped");
    lab.cabin(&["start", "life"]).ok();
    assert_eq!(lab.status("life"), "Running");
    assert_eq!(lab.sh("life", "hostname; cat /etc/hostname"), "life\nlife");
    lab.cabin(&["restart", "life"]).ok();
    lab.cabin(&["stop", "life"]).ok();
    assert_eq!(lab.status("life"), "Stopped");
    assert!(lab.cabin(&["stop", "life"]).refused().contains("life"));
    lab.cabin(&["rename", "life", "afterlife"]).ok();
    lab.cabin(&["start", "afterlife"]).ok();
    assert_eq!(lab.sh("afterlife", "hostname"), "afterlife");
    assert!(lab.cabin(&["delete", "afterlife"]).refused().contains("running"));
    lab.cabin(&["delete", "--force", "afterlife"]).ok();
    assert!(lab.cabin(&["info", "afterlife"]).refused().contains("not found"));
}

#[test]
fn an_instance_knows_itself_by_its_name_and_by_a_new_one() {
    let lab = Lab::shared();
    lab.busybox("first-name");
    let knows = |name: &str| {
        assert_eq!(lab.sh(name, "hostname; cat /etc/hostname"), format!("{name}\n{name}"));
        let hosts = lab.sh(name, "cat /etc/hosts");
        let addresses = |of: &str| -> Vec<String> {
            let lines = hosts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines
                .filter(|line| line.iter().skip(1).any(|it| *it == of))
                .map(|line| line[0].to_owned())
                .collect()
        };
        assert_eq!(addresses(name), ["127.0.1.1"], "{hosts}");
        assert_eq!(addresses("localhost"), ["127.0.0.1", "::1"], "{hosts}");
        assert_eq!(lab.sh(name, &format!("ping -c 1 -W 2 {name} >/dev/null && echo found")), "found");
    };
    knows("first-name");
    lab.cabin(&["stop", "first-name"]).ok();
    lab.cabin(&["rename", "first-name", "second-name"]).ok();
    lab.cabin(&["start", "second-name"]).ok();
    knows("second-name");
    assert!(!lab.sh("second-name", "cat /etc/hosts /etc/hostname").contains("first-name"));
    lab.cabin(&["delete", "-f", "second-name"]).ok();
}

#[test]
fn root_inside_is_not_root_outside() {
    let lab = Lab::shared();
    lab.busybox("ids-a").busybox("ids-b");
    let range = |name: &str| {
        let map = std::fs::read_to_string(format!("/proc/{}/uid_map", lab.init_pid(name))).unwrap();
        let words: Vec<u64> = map.split_whitespace().map(|it| it.parse().unwrap()).collect();
        assert_eq!((words[0], words[2]), (0, 65536), "{map}");
        words[1]
    };
    let (a, b) = (range("ids-a"), range("ids-b"));
    assert!(a >= 65536 && b >= 65536 && a.abs_diff(b) >= 65536, "ranges at {a} and {b}");
    assert_eq!(lab.sh("ids-a", "id -u; touch /root/mine; stat -c %u /root/mine"), "0\n0");
    for name in ["ids-a", "ids-b"] {
        lab.cabin(&["delete", "-f", name]).ok();
    }
}

#[test]
fn memory_beyond_the_limit_is_not_to_be_had() {
    let lab = Lab::shared();
    lab.launch("busybox", "mem", &["-c", "limits.memory=64MiB"]);
    lab.exec("mem", &["dd", "if=/dev/zero", "of=/dev/null", "bs=32M", "count=1"]).ok();
    let killed = lab.exec("mem", &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    assert_eq!(killed.code, 137, "{killed:?}");
    lab.cabin(&["config", "set", "mem", "limits.memory=400MiB"]).ok();
    lab.exec("mem", &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]).ok();
    lab.cabin(&["config", "set", "mem", "limits.memory=64MiB"]).ok();
    let killed = lab.exec("mem", &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    assert_eq!(killed.code, 137, "after the limit came back: {killed:?}");
    assert_eq!(lab.status("mem"), "Running");
    lab.cabin(&["delete", "-f", "mem"]).ok();
}

#[test]
fn the_process_beyond_the_limit_is_refused() {
    let lab = Lab::shared();
    lab.launch("busybox", "pids", &["-c", "limits.processes=100"]);
    let many = "for i in $(seq 150); do sleep 300 & done; echo all";
    let refused = lab.exec("pids", &["sh", "-c", many]);
    assert!(!refused.out.contains("all"), "150 processes where 100 may be: {refused:?}");
    let there: usize = lab.get("/1.0/instances/pids/state")["processes"].as_u64().unwrap() as usize;
    assert!((60..=100).contains(&there), "{there} processes");
    lab.cabin(&["config", "set", "pids", "limits.processes=400"]).ok();
    let allowed = lab.exec("pids", &["sh", "-c", many]);
    assert!(allowed.out.contains("all"), "after the limit was raised: {allowed:?}");
    lab.cabin(&["delete", "-f", "pids"]).ok();
}

#[test]
fn limits_hold_from_the_first_thing_init_does() {
    let lab = Lab::shared();
    lab.image("busybox");
    let limits = ["limits.cpu=1", "limits.memory=64MiB", "limits.processes=30"];
    let limits = limits.iter().flat_map(|limit| ["-c", limit]);
    lab.cabin(&["create", "busybox", "first"].into_iter().chain(limits).collect::<Vec<_>>()).ok();
    let init = "#!/bin/sh\nnproc >/root/processors\ndd if=/dev/zero of=/dev/null bs=200M count=1\necho $? >/root/memory\n\
                i=0; while [ $i -lt 60 ]; do sleep 300 & i=$((i+1)); echo $i >/root/processes; done\nexec sleep 300\n";
    lab.cabin(&["file", "delete", "first/sbin/init"]).ok();
    lab.cabin_with(&["file", "push", "--mode", "0755", "-", "first/sbin/init"], init.as_bytes()).ok();
    lab.cabin(&["start", "first"]).ok();
    // The shell that is init ends when it cannot fork.
    until_true("the end of init", 30, || lab.status("first") == "Stopped");
    let told = |what: &str| lab.cabin(&["file", "pull", &format!("first/root/{what}"), "-"]).ok();
    assert_eq!((told("processors").trim(), told("memory").trim()), ("1", "137"));
    let processes: usize = told("processes").trim().parse().unwrap();
    assert!((15..30).contains(&processes), "{processes} of at most 30");
    lab.cabin(&["delete", "first"]).ok();
}

/// The processor time an instance uses while two loops spin in it for two seconds, in seconds.
fn spun(lab: &Lab, name: &str) -> f64 {
    let used = || lab.get(&format!("/1.0/instances/{name}/state"))["cpu"]["usage"].as_f64().unwrap() / 1e9;
    let before = used();
    let spin = "timeout 2 sh -c 'while :; do :; done' & timeout 2 sh -c 'while :; do :; done'; wait";
    let _ = lab.exec(name, &["sh", "-c", spin]);
    used() - before
}

#[test]
fn processor_time_is_what_the_allowance_says() {
    let lab = Lab::shared();
    lab.launch("busybox", "time", &["-c", "limits.cpu.allowance=20ms/100ms"]);
    let little = spun(&lab, "time");
    assert!((0.1..0.8).contains(&little), "{little} s of the 0.4 s that 20 ms in 100 ms make in 2 s");
    lab.cabin(&["config", "unset", "time", "limits.cpu.allowance"]).ok();
    let free = spun(&lab, "time");
    assert!(free > little * 1.5, "{free} s without a limit, {little} s with it");
    lab.cabin(&["delete", "-f", "time"]).ok();
}

#[test]
fn an_instance_sees_the_processors_it_may_use() {
    let lab = Lab::shared();
    lab.launch("busybox", "cpus", &["-c", "limits.cpu=1"]);
    assert_eq!(lab.sh("cpus", "nproc"), "1");
    let one = spun(&lab, "cpus");
    assert!(one < 2.5, "{one} s in 2 s on one processor");
    let all = std::thread::available_parallelism().unwrap().get();
    lab.cabin(&["config", "set", "cpus", &format!("limits.cpu={all}")]).ok();
    assert_eq!(lab.sh("cpus", "nproc"), all.to_string());
    lab.cabin(&["config", "set", "cpus", "limits.cpu=0-0"]).ok();
    assert_eq!(lab.sh("cpus", "nproc"), "1");
    lab.cabin(&["delete", "-f", "cpus"]).ok();
}

#[test]
fn the_limits_cannot_be_lifted_from_inside() {
    let lab = Lab::shared();
    lab.launch("busybox", "tight", &["-c", "limits.memory=64MiB", "-c", "limits.processes=50"]);
    let script = "find /sys/fs/cgroup -name memory.max -o -name pids.max -o -name memory.limit_in_bytes | \
                  while read f; do echo max >$f; echo -1 >$f; done 2>/dev/null; true";
    lab.sh("tight", script);
    let killed = lab.exec("tight", &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    assert_eq!(killed.code, 137, "{killed:?}");
    lab.cabin(&["delete", "-f", "tight"]).ok();
}

#[test]
fn a_frozen_instance_stands_still() {
    let lab = Lab::shared();
    lab.busybox("ice");
    let script = "setsid sh -c 'while :; do date +%s%N >/root/beat; done' >/dev/null 2>&1 &";
    lab.sh("ice", script);
    let beat = || lab.cabin(&["file", "pull", "ice/root/beat", "-"]).out;
    until_true("the loop inside to beat", 10, || !beat().is_empty());
    lab.cabin(&["pause", "ice"]).ok();
    assert_eq!(lab.status("ice"), "Frozen");
    let (first, since) = (beat(), Instant::now());
    until_true("a while to pass", 5, || {
        assert_eq!(beat(), first, "it beats though it is frozen");
        since.elapsed() > Duration::from_millis(300)
    });
    lab.cabin(&["resume", "ice"]).ok();
    until_true("the loop to beat again", 10, || beat() != first);
    lab.cabin(&["pause", "ice"]).ok();
    lab.cabin(&["delete", "-f", "ice"]).ok();
}

#[test]
fn a_forced_stop_overtakes_a_restart_that_the_guest_does_not_heed() {
    let lab = Lab::shared();
    lab.busybox("deaf");
    lab.sh("deaf", "echo '::shutdown:/bin/sleep 1000' >>/etc/inittab; kill -HUP 1");
    std::thread::scope(|threads| {
        let restart = threads.spawn(|| lab.cabin(&["restart", "deaf"]));
        until_true("the guest to hang", 20, || lab.sh("deaf", "ps").contains("sleep 1000"));
        lab.cabin(&["stop", "--force", "deaf"]).ok();
        let refused = restart.join().unwrap().refused();
        assert!(refused.contains("was stopped by force meanwhile"), "{refused}");
    });
    assert_eq!(lab.status("deaf"), "Stopped");
    lab.cabin(&["start", "deaf"]).ok();
    lab.cabin(&["delete", "-f", "deaf"]).ok();
}

#[test]
fn an_ephemeral_instance_goes_when_it_stops() {
    let lab = Lab::shared();
    lab.launch("busybox", "mayfly", &["--ephemeral"]);
    lab.exec("mayfly", &["poweroff"]).ok();
    until_true("the ephemeral instance to be gone", 20, || {
        lab.call("GET", "/1.0/instances/mayfly", None).status == 404
    });
}

#[test]
fn an_ephemeral_instance_outlives_its_reboot() {
    let lab = Lab::shared();
    lab.launch("busybox", "cicada", &["--ephemeral"]);
    let booted = || lab.get("/1.0/instances/cicada/state")["pid"].as_i64().unwrap_or_default();
    let first = booted();
    lab.exec("cicada", &["reboot"]).ok();
    until_true("the ephemeral instance to run again", 20, || ![0, first].contains(&booted()));
    lab.exec("cicada", &["poweroff"]).ok();
    until_true("the ephemeral instance to be gone", 20, || {
        lab.call("GET", "/1.0/instances/cicada", None).status == 404
    });
}

#[test]
fn a_change_based_on_an_old_state_is_refused() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "tagged"]).ok();
    let shown = lab.call("GET", "/1.0/instances/tagged", None);
    let tag = shown.header("etag").expect("an ETag").to_owned();
    let put = |tag: &str, note: &str| {
        let mut body = shown.metadata();
        body["config"]["user.note"] = json!(note);
        let headers = [("If-Match", tag), ("Content-Type", "application/json")];
        api::send(&lab.socket(), "PATCH", "/1.0/instances/tagged", &headers, body.to_string().as_bytes())
            .unwrap()
    };
    assert_eq!(put(&tag, "one").status, 200);
    assert_eq!(put(&tag, "two").status, 412);
    assert_eq!(lab.get("/1.0/instances/tagged")["config"]["user.note"], "one");
    lab.cabin(&["delete", "tagged"]).ok();
}

#[test]
fn many_change_state_in_one_request() {
    let lab = Lab::shared();
    lab.busybox("bulk-a").busybox("bulk-b");
    // A daemon of their own is not needed: the others of this file would be stopped too, so by name.
    lab.cabin(&["stop", "--force", "bulk-a", "bulk-b"]).ok();
    assert_eq!((lab.status("bulk-a"), lab.status("bulk-b")), ("Stopped".into(), "Stopped".into()));
    lab.cabin(&["delete", "bulk-a", "bulk-b"]).ok();
}

#[test]
fn of_all_that_are_told_the_one_that_cannot_is_named_and_the_others_do() {
    let lab = Lab::own();
    lab.image("busybox");
    let shared = lab.home().join("shared").display().to_string();
    std::fs::create_dir(&shared).unwrap();
    for name in ["good", "bad", "well"] {
        lab.cabin(&["create", "busybox", name]).ok();
    }
    lab.cabin(&["config", "device", "add", "bad", "d", "disk", &format!("source={shared}"), "path=/d"]).ok();
    std::fs::remove_dir(&shared).unwrap();
    let ended = lab.operate("PUT", "/1.0/instances", &json!({ "state": { "action": "start" } }));
    let why = ended["err"].as_str().unwrap().to_owned();
    assert_eq!(ended["status"], "Failure", "{ended}");
    assert!(why.contains(&shared) && !why.contains("good") && !why.contains("well"), "{why}");
    let statuses = || ["good", "bad", "well"].map(|name| lab.status(name));
    assert_eq!(statuses(), ["Running", "Stopped", "Running"]);
    let refused = lab.cabin(&["start", "--all"]).refused();
    assert!(refused.contains(&shared), "{refused}");
    lab.cabin(&["stop", "--all", "--force"]).ok();
    assert_eq!(statuses(), ["Stopped"; 3]);
    std::fs::create_dir(&shared).unwrap();
    lab.cabin(&["start", "--all"]).ok();
    assert_eq!(statuses(), ["Running"; 3]);
}

#[test]
fn a_guest_that_does_not_stop_in_time_is_said_to_run_and_does() {
    let lab = Lab::shared();
    lab.busybox("stubborn");
    lab.sh("stubborn", "echo '::shutdown:/bin/sleep 1000' >>/etc/inittab; kill -HUP 1");
    let refused = lab.cabin(&["stop", "stubborn", "--timeout", "1"]).refused();
    assert!(refused.contains("stubborn") && refused.contains("did not stop within 1 s"), "{refused}");
    assert_eq!(lab.status("stubborn"), "Running");
    lab.cabin(&["delete", "-f", "stubborn"]).ok();
}

#[test]
fn no_time_to_stop_is_a_stop_by_force_and_none_said_is_a_clean_one() {
    let lab = Lab::own();
    lab.busybox("curt").busybox("civil");
    lab.sh("curt", "echo '::shutdown:/bin/sleep 1000' >>/etc/inittab; kill -HUP 1");
    let monitor = Monitor::of_lifecycle(&lab);
    let ask = |name: &str, put: serde_json::Value| {
        let reply = lab.call("PUT", &format!("/1.0/instances/{name}/state"), Some(&put));
        let id = reply.json()["operation"].as_str().unwrap().to_owned();
        let ended = lab.get(&format!("{id}/wait?timeout=30"));
        assert_eq!(ended["status"], "Success", "{put}: {ended}");
    };
    let init = lab.init_pid("curt");
    ask("curt", json!({ "action": "restart", "timeout": 0 }));
    assert_ne!(lab.init_pid("curt"), init);
    ask("curt", json!({ "action": "stop", "timeout": 0 }));
    let of = |name: &str, told: &[serde_json::Value]| {
        let source = format!("/1.0/instances/{name}");
        told.iter().filter(|life| life["source"] == source.as_str()).count()
    };
    assert_eq!(of("curt", &monitor.wait_for(&["instance-restarted", "instance-stopped"])), 2);
    ask("civil", json!({ "action": "stop" }));
    assert_eq!(of("civil", &monitor.wait_for(&["instance-shutdown"])), 1);
    assert_eq!((lab.status("curt"), lab.status("civil")), ("Stopped".into(), "Stopped".into()));
    lab.cabin(&["delete", "curt", "civil"]).ok();
}

#[test]
fn a_paused_guest_that_does_not_stop_in_time_stays_paused() {
    let lab = Lab::shared();
    lab.busybox("dozing");
    lab.sh("dozing", "echo '::shutdown:/bin/sleep 1000' >>/etc/inittab; kill -HUP 1");
    for verb in ["stop", "restart"] {
        let _ = lab.cabin(&["pause", "dozing"]);
        let refused = lab.cabin(&[verb, "dozing", "--timeout", "1"]).refused();
        assert!(refused.contains("did not stop within 1 s"), "{refused}");
        assert_eq!(lab.status("dozing"), "Frozen", "{verb}");
    }
    lab.cabin(&["resume", "dozing"]).ok();
    assert_eq!(lab.status("dozing"), "Running");
    lab.cabin(&["delete", "-f", "dozing"]).ok();
}

#[test]
fn a_start_lets_go_on_what_is_paused() {
    let lab = Lab::own();
    lab.busybox("paused").busybox("also");
    lab.cabin(&["create", "busybox", "still"]).ok();
    let names = ["paused", "also", "still"];
    let statuses = || names.map(|name| lab.status(name));
    let before = || {
        lab.cabin(&["pause", "paused", "also"]).ok();
        assert_eq!(statuses(), ["Frozen", "Frozen", "Stopped"]);
    };
    let init = lab.init_pid("paused");
    before();
    lab.cabin(&["start", "paused"]).ok();
    assert_eq!(statuses(), ["Running", "Frozen", "Stopped"]);
    lab.cabin(&["pause", "paused"]).ok();
    lab.cabin(&["start", "also", "still", "paused"]).ok();
    assert_eq!(statuses(), ["Running"; 3]);
    let refused = lab.cabin(&["start", "paused"]).refused();
    assert!(refused.contains("already running"), "{refused}");
    lab.cabin(&["stop", "--force", "still"]).ok();
    before();
    lab.cabin(&["start", "--all"]).ok();
    assert_eq!(statuses(), ["Running"; 3]);
    assert_eq!(lab.init_pid("paused"), init, "it was started anew");
    lab.cabin(&["delete", "-f", "paused", "also", "still"]).ok();
}

#[test]
fn an_instance_without_a_name_is_given_one_and_a_running_one_keeps_its_own() {
    let lab = Lab::shared();
    lab.image("busybox");
    let body = json!({ "name": "", "source": { "type": "image", "alias": "busybox" } });
    let made = lab.operate("POST", "/1.0/instances", &body);
    assert_eq!(made["status"], "Success", "{made}");
    let address = made["resources"]["instances"][0].as_str().unwrap().to_owned();
    let name = address.rsplit('/').next().unwrap().to_owned();
    assert!(name.contains('-') && name.len() > 4, "{name}");
    lab.cabin(&["start", &name]).ok();
    let refused = lab.cabin(&["rename", &name, "renamed"]).refused();
    assert!(refused.contains(&name) && refused.contains("running"), "{refused}");
    assert_eq!(lab.status(&name), "Running");
    lab.cabin(&["delete", "-f", &name]).ok();
}

#[test]
fn a_protected_instance_is_not_deleted() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "safe", "-c", "security.protection.delete=true"]).ok();
    let refused = lab.cabin(&["delete", "-f", "safe"]).refused();
    assert!(refused.contains("security.protection.delete") || refused.contains("protected"), "{refused}");
    lab.cabin(&["config", "unset", "safe", "security.protection.delete"]).ok();
    lab.cabin(&["delete", "safe"]).ok();
}

#[test]
fn a_privileged_instance_runs_and_is_said_to_be_one() {
    let lab = Lab::shared();
    lab.launch("busybox", "priv", &["-c", "security.privileged=true"]);
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", lab.init_pid("priv"))).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "0", "4294967295"]);
    assert_eq!(lab.sh("priv", "touch /root/mine; stat -c %u /root/mine"), "0");
    let said = lab.cabin(&["info", "priv"]).ok();
    assert!(said.contains("\nPrivileged: yes"), "{said}");
    lab.cabin(&["delete", "-f", "priv"]).ok();
    lab.busybox("unpriv");
    let said = lab.cabin(&["info", "unpriv"]).ok();
    assert!(!said.contains("Privileged"), "{said}");
    lab.cabin(&["delete", "-f", "unpriv"]).ok();
}

#[test]
fn a_name_is_taken_once() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "twin"]).ok();
    let refused = lab.cabin(&["create", "busybox", "twin"]).refused();
    assert!(refused.contains("twin") && refused.contains("exists"), "{refused}");
    lab.cabin(&["delete", "twin"]).ok();
}

#[test]
fn instances_are_listed_in_every_form_and_found_by_filters() {
    let lab = Lab::shared();
    lab.busybox("find-me");
    lab.cabin(&["create", "busybox", "find-it", "-c", "user.kind=idle"]).ok();
    let csv = lab.cabin(&["list", "-f", "csv", "-c", "ns", "find-"]).ok();
    assert_eq!(csv, "find-it,STOPPED\nfind-me,RUNNING");
    assert_eq!(lab.cabin(&["list", "-f", "json", "find-me"]).json()[0]["name"], "find-me");
    let by = |filter: &str| lab.get(&format!("/1.0/instances?recursion=1&filter={filter}"));
    let names = |found: serde_json::Value| -> Vec<String> {
        found.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(by("config.user.kind%20eq%20idle")), ["find-it"]);
    assert_eq!(names(by("name%20eq%20%28%5Efind-.%2A%29%20and%20status%20eq%20running")), ["find-me"]);
    let full = lab.get("/1.0/instances?recursion=2");
    let me = full.as_array().unwrap().iter().find(|it| it["name"] == "find-me").unwrap();
    assert_eq!(me["state"]["status"], "Running");
    lab.cabin(&["delete", "-f", "find-me", "find-it"]).ok();
}

#[test]
fn who_asks_is_told_where_the_time_of_a_change_goes() {
    let lab = Lab::shared();
    lab.image("busybox");
    let launched = lab.cabin(&["launch", "busybox", "timed", "--timings"]);
    for step in
        ["Launching timed:", "create volume containers/timed", "cgroup timed", "running container `timed`"]
    {
        assert!(launched.err.contains(step), "{step}: {}", launched.err);
    }
    assert!(!lab.cabin(&["delete", "-f", "timed"]).err.contains("ms"));
}
