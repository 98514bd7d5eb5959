//! What the daemon starts by itself: with the host, after a crash of an init, and again when it did not come
//! about; and what an orderly end of the daemon leaves.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use cabin_tests::cli::host;
use cabin_tests::hostile::Line;
use cabin_tests::machine;
use cabin_tests::subject::Subject;
use cabin_tests::sweep::clean;
use cabin_tests::wait::{until, until_true};
use cabin_tests::{api, audit};
use serde_json::{Value, json};

fn lab() -> Subject {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject
}

fn warned(subject: &Subject, kind: &str, entity: &str) -> Option<String> {
    let all = subject.get("/1.0/warnings?recursion=1");
    let found = all.as_array()?.iter().find(|it| it["type"] == kind && it["entity_url"] == entity)?;
    Some(found["status"].as_str()?.to_owned())
}

#[test]
fn an_instance_that_cannot_be_started_is_shown_and_tried_again_until_it_runs() {
    let mut subject = lab();
    subject.must("POST", "/1.0/storage-pools", &json!({ "name": "far", "driver": "dir", "config": {} }));
    let autostart = json!({ "boot.autostart": "true" });
    let source = json!({ "type": "image", "alias": "busybox" });
    let root = json!({ "root": { "type": "disk", "path": "/", "pool": "far" } });
    for (name, devices) in [("away", &root), ("gone", &root), ("here", &json!({}))] {
        let body = json!({ "name": name, "source": source, "config": autostart, "devices": devices });
        subject.must("POST", "/1.0/instances", &body);
    }
    let (pool, aside) = (subject.dir.join("storage-pools/far"), subject.dir.join("far"));
    subject.crash();
    std::fs::rename(&pool, &aside).expect("to lose a pool");
    subject.boot_well();

    subject.wait_status("here", "Running", 20);
    let of = |name: &str| format!("/1.0/instances/{name}");
    let kind = "Failed to autostart instance";
    for name in ["away", "gone"] {
        until_true("the warning", 10, || warned(&subject, kind, &of(name)).as_deref() == Some("new"));
        assert_eq!(subject.status(name), "Stopped");
    }
    assert_eq!(warned(&subject, kind, &of("here")), None);
    let lost = "Storage pool unavailable";
    assert_eq!(warned(&subject, lost, "/1.0/storage-pools/far").as_deref(), Some("new"));
    assert_eq!(subject.get("/1.0/storage-pools/far")["status"], "Unavailable");
    // Not wanted any more, so it is not tried again.
    subject.must("PATCH", &of("gone"), &json!({ "config": { "boot.autostart": "false" } }));

    std::fs::rename(&aside, &pool).expect("to find it");
    subject.wait_status("away", "Running", 30);
    until_true("the warnings to be resolved", 70, || {
        ["away", "gone"].iter().all(|name| warned(&subject, kind, &of(name)).as_deref() == Some("resolved"))
    });
    assert_eq!(subject.status("gone"), "Stopped");
    assert_eq!(warned(&subject, lost, "/1.0/storage-pools/far").as_deref(), Some("resolved"));
    clean(&subject, "instances that start with the daemon or cannot yet", 3);
}

#[test]
fn an_init_that_crashes_is_started_again_ten_times_a_minute() {
    let subject = lab();
    subject.create("steady", &json!({ "boot.autorestart": "true" }));
    subject.create("plain", &json!({}));
    for name in ["steady", "plain"] {
        subject.power(name, "start").expect("a start");
    }
    let crash = |pid: i64| drop(host(&["kill", "-KILL", &pid.to_string()]));
    crash(subject.init_pid("plain"));
    subject.wait_status("plain", "Stopped", 15);
    let since = std::time::Instant::now();
    for turn in 0..10 {
        let before = subject.init_pid("steady");
        crash(before);
        until(&format!("restart {turn}"), 15, || {
            let now = subject.init_pid("steady");
            (now != 0 && now != before).then_some(now)
        });
    }
    let last = subject.init_pid("steady");
    crash(last);
    subject.wait_status("steady", "Stopped", 15);
    assert!(since.elapsed().as_secs() < 60, "too slow to count: {:?}", since.elapsed());
    assert_eq!(subject.init_pid("steady"), 0);
    // Somebody who starts it is no crash; and a power-off from inside is a wish.
    subject.power("steady", "start").expect("a start");
    subject.exec("steady", "setsid sh -c 'sleep 0.2; poweroff -f' >/dev/null 2>&1 &").expect("a command");
    subject.wait_status("steady", "Stopped", 15);
    clean(&subject, "inits that crash", 12);
}

#[test]
fn an_orderly_end_leaves_no_control_group_unless_something_runs_in_it() {
    let mut subject = lab();
    let groups = |subject: &Subject| {
        let mark = audit::mark(&subject.dir);
        host(&["find", "/sys/fs/cgroup", "-maxdepth", "2", "-name", &mark]).out.lines().count()
    };
    subject.create("box", &json!({}));
    subject.power("box", "start").expect("a start");
    subject.terminate();
    let used = groups(&subject);
    assert!(used > 0, "no control group of a running container");
    subject.boot_well();
    subject.power("box", "stop").expect("a stop");
    subject.terminate();
    let left = groups(&subject);
    eprintln!("orderly ends of the daemon: 2 points, {left} leftovers");
    assert_eq!(left, 0);
    subject.boot_well();
    subject.power("box", "start").expect("a start");
    assert_eq!(groups(&subject), used);
}

/// The instances that events tell were shut down, in their order.
fn shut_down(line: &mut Line, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    while names.len() < count {
        let (_, frame) =
            line.next_frame(30).unwrap_or_else(|| panic!("after {names:?} nothing more is told"));
        let event: Value = serde_json::from_slice(&frame).unwrap_or_default();
        if event["metadata"]["action"] == "instance-shutdown" {
            names.push(event["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    names
}

/// When an instance was last started, in milliseconds.
fn started(subject: &Subject, name: &str) -> i64 {
    let text = subject.get(&format!("/1.0/instances/{name}"))["last_used_at"].clone();
    let stamp = host(&["date", "-d", text.as_str().unwrap_or_default(), "+%s%3N"]).ok();
    stamp.parse().expect("a time")
}

#[test]
fn instances_are_stopped_and_started_in_the_order_they_are_given() {
    let mut subject = lab();
    // Their names are in another order, so that it is not that one.
    for (name, stop, start) in [("aa", 0, 5), ("bb", 10, 10), ("cc", -5, 0)] {
        let config = json!({ "boot.stop.priority": stop.to_string(), "boot.autostart.priority": start.to_string(),
            "boot.autostart.delay": "2" });
        subject.create(name, &config);
        subject.power(name, "start").expect("a start");
    }
    let mut line = Line::websocket(&subject, "/1.0/events?type=lifecycle");
    let asked = subject.call("PUT", "/internal/shutdown", None).expect("an answer");
    assert_eq!(asked.status, 200, "{}", asked.text());
    assert_eq!(shut_down(&mut line, 3), ["bb", "aa", "cc"]);
    subject.wait_gone();
    subject.boot_well();
    subject.wait_status("cc", "Running", 30);
    let [first, second, third] = ["bb", "aa", "cc"].map(|name| started(&subject, name));
    assert!(second - first >= 2000 && third - second >= 2000, "started at {first}, {second}, {third}");
    clean(&subject, "instances in the order they are given", 3);
}

#[test]
fn after_a_boot_of_the_host_nobody_is_signalled_who_has_a_number_or_a_name_of_ours() {
    let mut subject = lab();
    subject.create("box", &json!({ "boot.autostart": "true" }));
    subject.power("box", "start").expect("a start");
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", subject.supervisor_pid("box")));
    let supervisor = line.expect("a supervisor").split('\0').next().unwrap_or_default().to_owned();
    subject.cut_power();
    std::fs::write(subject.dir.join("run/boot-id"), "0000\n").expect("a mark");
    let home = subject.dir.join("networks/cabinbr0");
    let server = format!("--conf-file={}/dnsmasq.conf", home.display());
    // Who is called as a supervisor was, who is called as a name server was, and who has the number of that one.
    let sleeper = |name: &str| Command::new("sleep").arg0(name).arg("1000").spawn().expect("sleep");
    let mut others = [&supervisor, &server, "sleep"].map(sleeper);
    std::fs::write(home.join("dnsmasq.pid"), format!("{}\n", others[2].id())).expect("a number");

    subject.boot_well();
    subject.wait_status("box", "Running", 30);
    subject.wait_address("box", 20);
    let mut network = subject.get("/1.0/networks/cabinbr0");
    network["config"]["dns.domain"] = json!("elsewhere");
    subject.must("PUT", "/1.0/networks/cabinbr0", &network);
    subject.power("box", "restart").expect("a restart");
    subject.power("box", "stop").expect("a stop");
    let gone: Vec<_> = others.iter_mut().filter_map(|other| other.try_wait().expect("a child")).collect();
    for other in &mut others {
        let _ = other.kill();
        let _ = other.wait();
    }
    assert!(gone.is_empty(), "{gone:?}");
    clean(&subject, "strangers after a boot of the host", 3);
}

#[test]
fn a_guest_that_does_not_heed_the_end_of_the_host_is_given_the_time_it_has_and_no_more() {
    let mut subject = lab();
    subject.create("deaf", &json!({ "boot.host_shutdown_timeout": "2" }));
    subject.power("deaf", "start").expect("a start");
    subject.exec("deaf", "echo '::shutdown:/bin/sleep 1000' >>/etc/inittab; kill -HUP 1").expect("a command");
    let began = std::time::Instant::now();
    let asked = subject.call("PUT", "/internal/shutdown", None).expect("an answer");
    assert_eq!(asked.status, 200, "{}", asked.text());
    let took = began.elapsed();
    subject.wait_gone();
    let most = machine::time(std::time::Duration::from_secs(20));
    assert!(took.as_secs() >= 2 && took < most, "it took {took:?}");
    subject.boot_well();
    subject.wait_status("deaf", "Running", 30);
    clean(&subject, "guests that do not heed the end of the host", 1);
}

#[test]
fn nothing_starts_any_more_while_the_instances_of_the_host_are_stopped() {
    let mut subject = lab();
    for name in ["slow", "late"] {
        subject.create(name, &json!({ "boot.host_shutdown_timeout": "60" }));
    }
    subject.power("slow", "start").expect("a start");
    // It says that it was told, and ends when it is let.
    let end = "touch /root/told; until test -e /root/go; do sleep 1; done";
    let entry = "echo '::shutdown:/bin/sh /root/end' >>/etc/inittab; kill -HUP 1";
    subject.exec("slow", &format!("mkdir -p /root; echo '{end}' >/root/end; {entry}")).expect("a command");
    let file = |name: &str| format!("/1.0/instances/slow/files?path=/root/{name}");
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| subject.call("PUT", "/internal/shutdown", None).expect("an answer"));
        let told = || subject.call("GET", &file("told"), None).is_ok_and(|reply| reply.status == 200);
        until_true("the guest to be told", 20, told);
        let refused = subject.power("late", "start");
        let headers = [("X-Incus-type", "file")];
        let let_go = api::send(&subject.socket(), "POST", &file("go"), &headers, b"");
        assert_eq!(let_go.expect("an answer").status, 200);
        assert_eq!(closing.join().expect("the asking thread").status, 200);
        let why = refused.expect_err("a start while all are stopped");
        assert!(why.contains("shutdown of the host's instances"), "{why}");
    });
    subject.wait_gone();
    assert_eq!(subject.processes(), []);
    subject.boot_well();
    subject.wait_status("slow", "Running", 30);
    assert_eq!(subject.status("late"), "Stopped");
    clean(&subject, "instances while the host's are stopped", 2);
}
