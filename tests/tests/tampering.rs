//! Somebody else takes away what is the daemon's while it runs: name servers, bridges, filters, ports, control
//! groups, the runtime directory. It is noticed and put right, or shown; stop and delete go on working.

use cabin_tests::audit;
use cabin_tests::cli::host;
use cabin_tests::host_state::{HostState, Look, settled_within};
use cabin_tests::subject::Subject;
use cabin_tests::sweep::audited;
use cabin_tests::wait::{until, until_true, while_others_go_on};
use serde_json::{Value, json};

const BRIDGE: &str = "cabinbr0";

/// A daemon with a running container that has its address.
fn lab() -> (Subject, String) {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject.create("box", &json!({}));
    subject.power("box", "start").expect("a start");
    let address = subject.wait_address("box", 20);
    (subject, address)
}

fn inside(subject: &Subject, words: &[&str]) -> cabin_tests::cli::Outcome {
    let net = format!("--net=/run/netns/{}", subject.netns);
    let mut all = vec!["nsenter", net.as_str()];
    all.extend(words);
    host(&all)
}

/// The server of addresses.
fn server(subject: &Subject) -> Option<u32> {
    serves(subject, "dnsmasq.pid")
}

/// The server of names.
fn names(subject: &Subject) -> Option<u32> {
    serves(subject, "dnsmasq.dns.pid")
}

fn serves(subject: &Subject, file: &str) -> Option<u32> {
    let file = subject.dir.join(format!("networks/{BRIDGE}/{file}"));
    let pid = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.contains("dnsmasq").then_some(pid)
}

/// The status of the warning of that type about that thing.
fn warned(subject: &Subject, kind: &str, entity: &str) -> Option<String> {
    let all = subject.get("/1.0/warnings?recursion=1");
    let found = all.as_array()?.iter().find(|it| it["type"] == kind && it["entity_url"] == entity)?;
    Some(found["status"].as_str()?.to_owned())
}

fn repaired(subject: &Subject, entity: &str) {
    until_true(&format!("a warning about {entity}"), 10, || {
        warned(subject, "Changed by somebody else and repaired", entity).as_deref() == Some("resolved")
    });
}

#[track_caller]
fn clean(subject: &Subject) {
    let found = audited(subject);
    eprintln!("tampering: 1 harms, {} leftovers", found.len());
    assert!(found.is_empty(), "{found:?}\n{}", subject.log_tail());
}

fn reachable(subject: &Subject, address: &str) {
    until_true(&format!("{address} to answer"), 15, || {
        inside(subject, &["ping", "-c1", "-W1", address]).code == 0
    });
}

#[test]
fn a_name_server_that_is_killed_comes_back_at_once_and_goes_on_with_its_leases() {
    let (subject, address) = lab();
    let first = server(&subject).expect("a name server");
    host(&["kill", "-KILL", &first.to_string()]).ok();
    let second = until("another name server", 3, || server(&subject).filter(|pid| *pid != first));
    assert_eq!(subject.exec("box", "udhcpc -n -q -i eth0 >/dev/null 2>&1; echo $?").as_deref(), Ok("0"));
    assert_eq!(subject.wait_address("box", 10), address);
    let gateway = subject.get("/1.0/networks/cabinbr0")["config"]["ipv4.address"].clone();
    let gateway = gateway.as_str().and_then(|it| it.split('/').next()).expect("an address").to_owned();
    let found = subject.exec("box", &format!("nslookup box {gateway}")).unwrap_or_default();
    assert!(found.contains(&address), "{found}");
    repaired(&subject, "/1.0/networks/cabinbr0");
    // It is killed again and again: at once the first time, then after 1 s, 2 s, 4 s.
    let since = std::time::Instant::now();
    let mut seen = vec![second];
    while since.elapsed().as_secs() < 4 {
        if let Some(pid) = server(&subject) {
            if seen.last() != Some(&pid) {
                seen.push(pid);
            }
            let _ = host(&["kill", "-KILL", &pid.to_string()]);
        }
    }
    assert!(seen.len() <= 4, "started {} times within 4 s", seen.len());
    until("a name server in the end", 15, || server(&subject));
    clean(&subject);
}

#[test]
fn a_network_that_cannot_be_put_right_is_shown_and_tried_again() {
    let (subject, _) = lab();
    let entity = "/1.0/networks/cabinbr0";
    let first = names(&subject).expect("a name server");
    // Somebody else takes the place of the name server.
    let script = "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_STREAM)\n\
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
        while True:\n    try: s.bind((sys.argv[1], 53)); break\n    except OSError: pass\n\
        s.listen(); sys.stdin.read()";
    let gateway = subject.get(entity)["config"]["ipv4.address"].clone();
    let gateway = gateway.as_str().and_then(|it| it.split('/').next()).expect("an address").to_owned();
    let mut thief = std::process::Command::new("nsenter")
        .args([&format!("--net=/run/netns/{}", subject.netns), "python3", "-c", script, &gateway])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    until_true("the name server to be kept out", 30, || {
        if let Some(pid) = names(&subject) {
            let _ = host(&["kill", "-KILL", &pid.to_string()]);
        }
        warned(&subject, "Network unavailable", entity).as_deref() == Some("new")
    });
    let id = subject.get("/1.0/warnings?recursion=1").as_array().into_iter().flatten().find_map(|it| {
        (it["type"] == "Network unavailable").then(|| it["uuid"].as_str().unwrap_or_default().to_owned())
    });
    let target = format!("/1.0/warnings/{}", id.expect("its id"));
    assert!(subject.get(&target)["last_message"].as_str().is_some_and(|it| it.contains("dnsmasq")));
    subject.must("PUT", &target, &json!({ "status": "acknowledged" }));
    assert_eq!(subject.get(&target)["status"], "acknowledged");
    thief.kill().expect("the right to kill it");
    thief.wait().expect("its end");
    until_true("the warning to be resolved", 60, || subject.get(&target)["status"] == "resolved");
    assert!(names(&subject).is_some_and(|pid| pid != first));
    subject.must("DELETE", &target, &Value::Null);
    assert_eq!(subject.call("GET", &target, None).expect("an answer").status, 404);
    clean(&subject);
}

#[test]
fn a_bridge_that_is_deleted_or_emptied_is_made_again_under_running_containers() {
    let (subject, address) = lab();
    let (init, before) = (subject.init_pid("box"), HostState::of(&subject, Look::Exact));
    let as_before = |what: &str| {
        repaired(&subject, "/1.0/networks/cabinbr0");
        settled_within(10, &subject, &[(&before, Look::Exact)])
            .unwrap_or_else(|why| panic!("{what}: not as before:\n{why}"));
        reachable(&subject, &address);
    };
    host(&["ip", "-n", &subject.netns, "link", "delete", BRIDGE]).ok();
    as_before("deleted");
    host(&["ip", "-n", &subject.netns, "link", "set", BRIDGE, "down"]).ok();
    as_before("switched off");
    host(&["ip", "-n", &subject.netns, "address", "flush", "dev", BRIDGE]).ok();
    as_before("without addresses");
    assert_eq!(subject.init_pid("box"), init);
    clean(&subject);
}

#[test]
fn a_filter_that_is_flushed_is_made_again() {
    filter_is_made_again_after("flush", &["nft flush ruleset"]);
}

#[test]
fn a_filter_that_is_deleted_is_made_again() {
    filter_is_made_again_after("delete", &[]);
}

/// After that was done to each table. What breaks again and again is mended later and later.
fn filter_is_made_again_after(what: &str, others: &[&str]) {
    let (subject, address) = lab();
    let before = HostState::of(&subject, Look::Exact);
    let tables = audit::tables(&subject.netns);
    assert!(tables.len() >= 3, "{tables:?}");
    let each = tables.iter().map(|table| format!("nft {what} {table}"));
    for way in each.chain(others.iter().map(|&other| other.to_owned())) {
        inside(&subject, &way.split(' ').collect::<Vec<_>>()).ok();
        settled_within(10, &subject, &[(&before, Look::Exact)])
            .unwrap_or_else(|why| panic!("{way}: not as before:\n{why}"));
    }
    reachable(&subject, &address);
    repaired(&subject, "/1.0/networks/cabinbr0");
    clean(&subject);
}

#[test]
fn a_port_that_is_deleted_is_plugged_in_again() {
    let (subject, address) = lab();
    let config = subject.get("/1.0/instances/box")["config"].clone();
    let port = config["volatile.eth0.host_name"].as_str().expect("a port").to_owned();
    for way in ["nomaster", "down"] {
        host(&["ip", "-n", &subject.netns, "link", "set", &port, way]).ok();
        reachable(&subject, &address);
    }
    host(&["ip", "-n", &subject.netns, "link", "delete", &port]).ok();
    repaired(&subject, "/1.0/instances/box");
    until_true("another port", 15, || audit::links(&subject.netns).contains(&port));
    // The guest's own client still listens on the old one.
    subject.exec("box", "killall udhcpc").expect("a client");
    assert_eq!(subject.wait_address("box", 20), address);
    reachable(&subject, &address);
    clean(&subject);
    // A stop takes the port away too, and that is nobody's fault.
    subject.power("box", "stop").expect("a stop");
    assert!(!subject.log_tail().contains("cannot be put right"), "{}", subject.log_tail());
}

/// The control groups of the container, in every hierarchy.
fn groups(subject: &Subject) -> Vec<std::path::PathBuf> {
    audit::cgroups(&subject.dir).into_iter().filter(|group| group.ends_with("box")).collect()
}

/// Moves all that is in the container's control groups to the top, as a careless program of the host might.
fn move_out(subject: &Subject) {
    for group in groups(subject) {
        let top = group.parent().and_then(std::path::Path::parent).expect("a hierarchy").join("cgroup.procs");
        until_true("the group to be empty", 5, || {
            let listed =
                host(&["find", &group.to_string_lossy(), "-name", "cgroup.procs", "-exec", "cat", "{}", "+"]);
            listed.out.lines().for_each(|pid| drop(std::fs::write(&top, pid)));
            listed.out.trim().is_empty()
        });
    }
}

/// Takes the container's control groups away.
fn take_groups(subject: &Subject) {
    let all = groups(subject);
    assert!(!all.is_empty(), "no control groups");
    move_out(subject);
    for group in all {
        let words = ["find", &group.to_string_lossy(), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"];
        // A daemon that is there may already be making it again.
        let _ = host(&words);
    }
}

/// Whether the container's first process is in its groups of every hierarchy.
fn is_inside(subject: &Subject) -> bool {
    let own = groups(subject);
    let Some(end) = own.first().and_then(|group| Some(group.parent()?.file_name()?.to_string_lossy())) else {
        return false;
    };
    let table =
        std::fs::read_to_string(format!("/proc/{}/cgroup", subject.init_pid("box"))).expect("its groups");
    let inside = table.lines().filter(|line| format!("{line}/").contains(&format!("/{end}/box/"))).count();
    inside >= own.len()
}

/// What the files hold that a limit of processes and one of memory are written to.
fn limits(subject: &Subject) -> Vec<(std::path::PathBuf, String)> {
    let files = ["pids.max", "memory.max", "memory.limit_in_bytes"];
    let all = groups(subject).into_iter().flat_map(|group| files.map(|file| group.join(file)));
    all.filter_map(|file| std::fs::read_to_string(&file).ok().map(|text| (file, text))).collect()
}

#[test]
fn control_groups_that_are_taken_away_from_a_running_container_are_made_again() {
    let (mut subject, _) = lab();
    let init = subject.init_pid("box");
    let body = json!({ "config": { "limits.memory": "256MiB", "limits.processes": "300" } });
    subject.must("PATCH", "/1.0/instances/box", &body);
    let (all, held) = (groups(&subject), limits(&subject));
    assert!(held.len() >= 2, "{held:?}");
    let as_before = |subject: &Subject| {
        let whole = || is_inside(subject) && groups(subject) == all && limits(subject) == held;
        until_true("the container to be in its groups again", 10, whole);
        assert_eq!((subject.init_pid("box"), subject.status("box").as_str()), (init, "Running"));
        assert_eq!(subject.exec("box", "echo well").as_deref(), Ok("well"));
        repaired(subject, "/1.0/instances/box");
        clean(subject);
    };
    take_groups(&subject);
    // Who comes first waits for nobody else to notice.
    assert_eq!(subject.exec("box", "echo well").as_deref(), Ok("well"));
    as_before(&subject);
    take_groups(&subject);
    as_before(&subject);
    // The limits hold all that is in it, what was there before too.
    subject
        .exec("box", "i=0; while [ $i -lt 320 ]; do sleep 60 & i=$((i + 1)); done")
        .expect_err("300 processes");
    subject.exec("box", "killall sleep").ok();
    // The same while no daemon is there to see it.
    subject.crash();
    take_groups(&subject);
    subject.boot_well();
    until_true("the container to be in its groups again", 10, || is_inside(&subject));
    assert_eq!((groups(&subject), limits(&subject), subject.init_pid("box")), (all, held, init));
    subject.power("box", "stop").expect("a stop");
    assert!(!std::path::Path::new(&format!("/proc/{init}")).exists());
    clean(&subject);
    subject.power("box", "start").expect("a start");
    take_groups(&subject);
    subject.must("DELETE", "/1.0/instances/box?force=true", &Value::Null);
    clean(&subject);
}

#[test]
fn limits_that_somebody_else_writes_are_set_again() {
    let (mut subject, _) = lab();
    let body = json!({ "config": { "limits.memory": "256MiB", "limits.processes": "300" } });
    subject.must("PATCH", "/1.0/instances/box", &body);
    let held = limits(&subject);
    let loosen = || {
        for (file, _) in &held {
            let none = if file.ends_with("memory.limit_in_bytes") { "-1" } else { "max" };
            std::fs::write(file, none).expect("the right to write it");
        }
    };
    loosen();
    until_true("the limits as they were", 10, || limits(&subject) == held);
    repaired(&subject, "/1.0/instances/box");
    subject.crash();
    loosen();
    subject.boot_well();
    assert_eq!(limits(&subject), held);
    clean(&subject);
    // What a user changes is nobody's fault.
    subject.must("PATCH", "/1.0/instances/box", &json!({ "config": { "limits.processes": "400" } }));
    assert!(!subject.log_tail().contains("cannot be put right"), "{}", subject.log_tail());
    assert_ne!(limits(&subject), held);
}

#[test]
fn a_frozen_container_whose_control_groups_are_taken_away_is_frozen_again() {
    let (subject, _) = lab();
    subject.exec("box", "(while :; do date +%s%N >/root/beat; done) >/dev/null 2>&1 &").expect("a loop");
    subject.power("box", "freeze").expect("a freeze");
    take_groups(&subject);
    until_true("the container to be in its groups again", 10, || is_inside(&subject));
    repaired(&subject, "/1.0/instances/box");
    let beat = || subject.call("GET", "/1.0/instances/box/files?path=/root/beat", None).expect("a file").body;
    let first = beat();
    while_others_go_on(std::time::Duration::from_millis(300));
    assert_eq!((subject.status("box").as_str(), beat()), ("Frozen", first));
    subject.power("box", "unfreeze").expect("a thaw");
    assert_eq!(subject.exec("box", "echo well").as_deref(), Ok("well"));
    clean(&subject);
}

#[test]
fn a_runtime_directory_that_is_emptied_or_removed_is_made_again_under_running_containers() {
    let (mut subject, address) = lab();
    let init = subject.init_pid("box");
    let run = subject.dir.join("run");
    for way in ["find run -mindepth 1 -delete", "rm -rf run", "rm unix.socket"] {
        let script = format!("cd {} && {way}", subject.dir.display());
        host(&["sh", "-c", &script]).ok();
        until_true("the container's socket", 10, || run.join("box.sock").exists());
        until_true("the daemon's socket", 10, || subject.socket().exists());
        assert_eq!(subject.init_pid("box"), init, "{way}");
        assert_eq!(subject.exec("box", "echo well").as_deref(), Ok("well"), "{way}");
        subject.call("GET", "/1.0/instances/box/console", None).expect("what the console said");
        reachable(&subject, &address);
        clean(&subject);
    }
    subject.crash();
    subject.boot_well();
    assert_eq!(subject.init_pid("box"), init);
    assert_eq!(subject.exec("box", "echo well").as_deref(), Ok("well"));
    subject.power("box", "restart").expect("a restart");
    subject.power("box", "stop").expect("a stop");
    clean(&subject);
}
