//! What happens to containers while no daemon looks: they run on, end, reboot, or go with the host; and what the
//! next daemon makes of it.

use std::time::Duration;

use cabin_tests::binary;
use cabin_tests::cli::host;
use cabin_tests::host_state::{HostState, Look, settled};
use cabin_tests::hostile::{BINARY, Exec, LAST};
use cabin_tests::machine;
use cabin_tests::subject::Subject;
use cabin_tests::sweep::clean;
use cabin_tests::wait::{until, until_true};
use serde_json::{Value, json};

fn lab() -> Subject {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject
}

fn running(subject: &Subject, name: &str, config: &Value) {
    subject.create(name, config);
    subject.power(name, "start").expect("a start");
}

fn wait_status(subject: &Subject, name: &str, status: &str) {
    until_true(&format!("`{name}` to be {status}"), 15, || subject.status(name) == status);
}

fn signal(pid: impl ToString, signal: &str) {
    host(&["kill", signal, &pid.to_string()]).ok();
}

fn gone(pid: impl ToString) {
    let place = format!("/proc/{}", pid.to_string());
    until_true(&format!("{place} to go"), 15, || !std::path::Path::new(&place).exists());
}

#[test]
fn containers_run_on_through_a_crash_and_are_taken_up() {
    outlived(|subject| subject.crash());
}

#[test]
fn containers_run_on_through_an_orderly_end_and_are_taken_up() {
    outlived(|subject| subject.terminate());
}

#[test]
fn nobody_is_told_anything_before_what_runs_was_taken_up() {
    let mut subject = lab();
    for name in ["one", "two", "three"] {
        running(&subject, name, &json!({}));
    }
    let inits = |subject: &Subject| ["one", "two", "three"].map(|name| subject.init_pid(name));
    let (before, slow) = (inits(&subject), subject.supervisor_pid("two"));
    subject.crash();
    // It answers nobody, and so not the daemon that wants to take its container up.
    signal(slow, "-STOP");
    subject.spawn("off");
    until_true("the daemon to listen", 20, || subject.call("GET", "/internal/ready", None).is_ok());
    let asked = ["one", "two", "three"].map(|name| format!("/1.0/instances/{name}/state"));
    std::thread::scope(|scope| {
        let (subject, asked) = (&subject, &asked);
        let waiting = asked.each_ref().map(|target| scope.spawn(move || subject.get(target)["pid"].as_i64()));
        let ready = subject.call("GET", "/internal/ready", None).expect("an answer");
        assert_eq!(ready.status, 503, "it says itself that it is not ready");
        signal(slow, "-CONT");
        let told = waiting.map(|answer| answer.join().expect("an answer").unwrap_or_default());
        assert_eq!(told, before);
    });
    clean(&subject, "containers of which nobody is told too early", 3);
}

#[test]
fn one_that_became_ephemeral_after_it_ran_is_not_deleted_by_a_new_daemon() {
    let mut subject = lab();
    running(&subject, "kept", &json!({}));
    subject.power("kept", "stop").expect("a stop");
    subject.must("PATCH", "/1.0/instances/kept", &json!({ "ephemeral": true }));
    subject.terminate();
    subject.boot_well();
    assert_eq!(subject.status("kept"), "Stopped");
    // As before, it goes with the end of its next run.
    subject.power("kept", "start").expect("a start");
    subject.power("kept", "stop").expect("a stop");
    assert_eq!(subject.status("kept"), "");
    clean(&subject, "containers that became ephemeral", 1);
}

/// Attaches to a console, and types until the shell there has answered.
fn type_at_console(subject: &Subject, name: &str) {
    let console = Exec::console(subject, name);
    let mut line = console.connect(subject, "0");
    until("an answer at the console", 30, || {
        line.frame(LAST | BINARY, b"echo sum-$((20+22))\n", true);
        let (_, frame) = line.next_frame(1)?;
        String::from_utf8_lossy(&frame).contains("sum-42").then_some(())
    });
}

fn outlived(end: impl Fn(&mut Subject)) {
    let mut subject = lab();
    running(&subject, "survivor", &json!({ "limits.memory": "200MiB" }));
    subject.create("sleeper", &json!({}));
    let address = subject.wait_address("survivor", 20);
    let (init, supervisor) = (subject.init_pid("survivor"), subject.supervisor_pid("survivor"));
    subject.exec("survivor", "echo before >/run/mark; echo from-before >/dev/console").expect("a command");
    let ping = format!("ping -c1 -W2 {address}");
    let before = HostState::of(&subject, Look::Exact);
    let mut asking = std::process::Command::new(binary("cabin"))
        .args(["exec", "survivor", "--", "sleep", "7654"])
        .env("CABIN_DIR", &subject.dir)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a client");
    until_true("the client's command", 20, || host(&["pgrep", "-f", "^sleep 7654"]).code == 0);

    end(&mut subject);
    let ended = until("the client's end", 20, || asking.try_wait().expect("its state"));
    assert!(!ended.success(), "a command of a daemon that is gone is said to have been done: {ended}");
    let net = format!("--net=/run/netns/{}", subject.netns);
    let mut words = vec!["nsenter", &net];
    words.extend(ping.split(' '));
    host(&words).ok();
    subject.boot_well();

    settled(&subject, &[(&before, Look::Exact)]).unwrap_or_else(|why| panic!("not as before:\n{why}"));
    assert_eq!((subject.init_pid("survivor"), subject.supervisor_pid("survivor")), (init, supervisor));
    assert_eq!(subject.exec("survivor", "cat /run/mark").as_deref(), Ok("before"));
    let log = subject.call("GET", "/1.0/instances/survivor/console", None).expect("an answer").text();
    assert!(log.contains("from-before"), "the console's log: {log}");
    let counters = subject.get("/1.0/instances/survivor/state")["network"]["eth0"]["counters"].clone();
    assert!(counters["bytes_received"].as_u64().is_some_and(|it| it > 0), "{counters}");
    type_at_console(&subject, "survivor");
    subject.must("PATCH", "/1.0/instances/survivor", &json!({ "config": { "limits.processes": "50" } }));
    let many = "for i in $(seq 80); do sleep 300 & done; echo all";
    assert!(!subject.exec("survivor", many).unwrap_or_default().contains("all"), "no limit of processes");
    clean(&subject, "containers that run on without a daemon", 2);
    subject.power("survivor", "stop").expect("a stop");
    assert_eq!(subject.status("survivor"), "Stopped");
    clean(&subject, "those that stop after it", 1);
}

#[test]
fn a_command_in_flight_ends_with_its_daemon() {
    let mut subject = lab();
    running(&subject, "box", &json!({}));
    let socket = subject.socket();
    let asked = std::thread::spawn(move || {
        let body = json!({ "command": ["sleep", "4321"], "record-output": true,
            "wait-for-websocket": false, "interactive": false });
        let header = [("Content-Type", "application/json")];
        let sent = cabin_tests::api::send(
            &socket,
            "POST",
            "/1.0/instances/box/exec",
            &header,
            body.to_string().as_bytes(),
        );
        let id = sent.expect("an operation").json()["operation"].as_str().unwrap_or_default().to_owned();
        cabin_tests::api::send(&socket, "GET", &format!("{id}/wait?timeout=60"), &[], b"")
    });
    let there = || host(&["pgrep", "-f", "sleep 4321"]).code == 0;
    until_true("the command to run", 10, there);
    subject.crash();
    let answer = asked.join().expect("the asking thread");
    assert!(answer.is_err(), "an answer of a dead daemon: {answer:?}");
    until_true("the command to end", 10, || !there());
    subject.boot_well();
    assert_eq!(subject.get("/1.0/operations").as_object().map_or(0, serde_json::Map::len), 0);
    assert_eq!(subject.exec("box", "echo well").as_deref(), Ok("well"));
    clean(&subject, "containers whose command ends with its daemon", 1);
}

#[test]
fn a_container_whose_supervisor_is_killed_is_stopped_and_cleaned_up() {
    let subject = lab();
    running(&subject, "orphan", &json!({}));
    let init = subject.init_pid("orphan");
    signal(subject.supervisor_pid("orphan"), "-KILL");
    gone(init);
    wait_status(&subject, "orphan", "Stopped");
    clean(&subject, "containers whose supervisor is killed", 1);
    subject.power("orphan", "start").expect("a start");
}

#[test]
fn a_supervisor_killed_while_no_daemon_looks_is_noticed() {
    let mut subject = lab();
    running(&subject, "orphan", &json!({}));
    let (init, supervisor) = (subject.init_pid("orphan"), subject.supervisor_pid("orphan"));
    subject.crash();
    signal(supervisor, "-KILL");
    gone(init);
    subject.boot_well();
    wait_status(&subject, "orphan", "Stopped");
    clean(&subject, "containers whose supervisor is killed while no daemon looks", 1);
    subject.power("orphan", "start").expect("a start");
}

#[test]
fn a_guest_that_ends_or_reboots_while_no_daemon_looks_stays_so_or_comes_back() {
    let mut subject = lab();
    for (name, config) in [
        ("off", json!({})),
        ("autostarted", json!({ "boot.autostart": "true" })),
        ("reboot", json!({})),
        ("on", json!({})),
    ] {
        running(&subject, name, &config);
    }
    let pids: Vec<i64> =
        ["off", "autostarted", "reboot", "on"].iter().map(|name| subject.init_pid(name)).collect();
    // Each waits for a signal, so that nothing of the daemon is needed later.
    let mark = |name: &str| format!("{}-{name}", subject.netns);
    let mut waiting = Vec::new();
    for (name, act) in [("off", "poweroff -f"), ("autostarted", "poweroff -f"), ("reboot", "reboot -f")] {
        let script = format!("trap \"{act}\" USR1; while true; do sleep 600 & wait; done; {}", mark(name));
        subject
            .exec(name, &format!("setsid sh -c '{script}' >/dev/null 2>&1 </dev/null &"))
            .expect("a command");
        waiting.push(until("the waiting shell", 10, || {
            host(&["pgrep", "-f", &format!("^sh -c trap .*{}$", mark(name))])
                .out
                .lines()
                .next()
                .map(str::to_owned)
        }));
    }
    subject.crash();
    for pid in &waiting {
        signal(pid, "-USR1");
    }
    for pid in &pids[..3] {
        gone(pid);
    }
    subject.boot_well();
    wait_status(&subject, "off", "Stopped");
    wait_status(&subject, "reboot", "Running");
    assert_eq!(subject.init_pid("on"), pids[3]);
    assert_ne!(subject.init_pid("reboot"), pids[2]);
    clean(&subject, "containers that end, reboot or run on while no daemon looks", 4);
    // Once more: what was written down is what is done.
    subject.crash();
    subject.boot_well();
    assert_eq!(subject.status("off"), "Stopped");
    assert_eq!(subject.init_pid("on"), pids[3]);
    clean(&subject, "those that a second daemon finds", 2);
}

#[test]
fn after_a_power_cut_nothing_stale_is_believed_and_what_should_run_is_started_in_order() {
    let mut subject = lab();
    running(&subject, "ran", &json!({}));
    running(&subject, "never", &json!({ "boot.autostart": "false" }));
    for (name, priority) in [("second", "5"), ("first", "10"), ("third", "1")] {
        subject.create(name, &json!({ "boot.autostart": "true", "boot.autostart.priority": priority }));
    }
    subject.create("stopped", &json!({}));
    let broken = json!({ "boot.autostart": "true", "boot.autostart.priority": "100" });
    subject.create("broken", &broken);
    subject.must("POST", "/1.0/storage-pools", &json!({ "name": "lost", "driver": "dir", "config": {} }));
    let run = subject.dir.join("run");
    let socket = std::fs::read_dir(&run).expect("the run directory").count();
    assert!(socket > 0);

    subject.cut_power();
    // Records of before the cut that name what is not there any more, as of a run directory on a disk.
    std::fs::write(run.join("boot-id"), "00000000-0000-0000-0000-000000000000\n").expect("a mark");
    std::fs::write(run.join("ran.exit"), "{\"Stopped\":{\"status\":0}}").expect("a record");
    std::fs::write(run.join("ghost.sock"), "").expect("a socket");
    let tree = subject.dir.join("storage-pools/default/containers/broken");
    std::fs::rename(&tree, subject.dir.join("taken")).expect("to break one");
    std::fs::rename(subject.dir.join("storage-pools/lost"), subject.dir.join("lost"))
        .expect("to lose a pool");
    subject.boot_well();

    for name in ["ran", "first", "second", "third"] {
        wait_status(&subject, name, "Running");
    }
    for name in ["never", "stopped", "broken"] {
        assert_eq!(subject.status(name), "Stopped", "{name}");
    }
    let started = |name: &str| {
        let state = subject.get(&format!("/1.0/instances/{name}/state"));
        state["started_at"].as_str().unwrap_or_default().to_owned()
    };
    let order: Vec<String> = ["first", "second", "third"].iter().map(|name| started(name)).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(subject.get("/1.0/storage-pools/lost")["status"], "Unavailable");
    assert!(!run.join("ghost.sock").exists(), "a stale socket is still there");
    subject.wait_address("ran", 20);

    std::fs::rename(subject.dir.join("taken"), &tree).expect("to mend it");
    std::fs::rename(subject.dir.join("lost"), subject.dir.join("storage-pools/lost")).expect("to find it");
    subject.power("broken", "start").expect("a start");
    assert_eq!(subject.get("/1.0/storage-pools/lost")["status"], "Created");
    clean(&subject, "instances after the host starts anew", 7);
}

#[test]
fn what_a_shutdown_stopped_runs_again_and_its_order_is_kept() {
    let mut subject = lab();
    for (name, priority) in [("early", "9"), ("late", "1")] {
        running(
            &subject,
            name,
            &json!({ "boot.stop.priority": priority, "boot.host_shutdown_action": "force-stop" }),
        );
    }
    subject.create("off", &json!({}));
    // One that would not end of itself before its time is over.
    subject.exec("early", "echo '::shutdown:/bin/sleep 600' >>/etc/inittab; kill -HUP 1").expect("a command");
    let began = std::time::Instant::now();
    let reply = subject.call("PUT", "/internal/shutdown", None).expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(began.elapsed() < machine::time(Duration::from_secs(10)), "{:?}", began.elapsed());
    subject.wait_gone();
    assert_eq!(subject.processes(), []);
    subject.boot_well();
    for name in ["early", "late"] {
        wait_status(&subject, name, "Running");
    }
    assert_eq!(subject.status("off"), "Stopped");
    clean(&subject, "instances after an orderly shutdown", 3);
}

#[test]
fn a_forced_stop_during_a_restart_holds_though_the_daemon_dies_before_the_restart_gives_up() {
    let mut subject = lab();
    running(&subject, "deaf", &json!({}));
    // It comes after the other: when it runs, the other would.
    subject.create("mark", &json!({ "boot.autostart": "true", "boot.autostart.priority": "-1" }));
    subject.exec("deaf", "echo '::shutdown:/bin/sleep 1000' >>/etc/inittab; kill -HUP 1").expect("a command");
    let held = "`deaf` has ended";
    let restart = json!({ "action": "restart", "timeout": 60 });
    let begun = subject.call("PUT", "/1.0/instances/deaf/state", Some(&restart)).expect("an answer");
    assert_eq!(begun.status, 202, "{}", begun.text());
    let hangs = || subject.exec("deaf", "ps").is_ok_and(|all| all.contains("sleep 1000"));
    until_true("the guest to hang", 20, hangs);
    subject.arm(&format!("hold:{held}"));
    subject.power("deaf", "stop").expect("a stop");
    subject.wait_held(held);
    subject.crash();
    subject.boot_well();
    wait_status(&subject, "mark", "Running");
    assert_eq!(subject.status("deaf"), "Stopped");
    clean(&subject, "instances after a stop that overtook a restart", 2);
}
