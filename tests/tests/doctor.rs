//! `cabin doctor` names the kernel's limits that many containers meet, and raises them when it is asked to.

use std::path::PathBuf;
use std::process::Command;

use cabin_tests::binary;
use cabin_tests::cli::run;
use cabin_tests::lab::Lab;
use serde_json::Value;

/// Of the limits the one that nobody but this test comes near.
const KEY: &str = "kernel.keys.maxbytes";

/// The limits of the host, put back at the end.
struct Limits(Vec<(PathBuf, String)>);

impl Limits {
    fn now() -> Limits {
        let wanted = std::fs::read_to_string(cabin_tests::root().join("dist/90-cabin.conf")).unwrap();
        let keys = wanted.lines().filter_map(|line| Some(line.split_once(" = ")?.0.to_owned()));
        let files = keys.map(|key| PathBuf::from(format!("/proc/sys/{}", key.replace('.', "/"))));
        Limits(files.filter_map(|file| Some((file.clone(), std::fs::read_to_string(file).ok()?))).collect())
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        // From the last to the first: of three that must rise in order the highest goes down last.
        for (file, value) in self.0.iter().rev() {
            let _ = std::fs::write(file, value);
        }
    }
}

/// `cabind doctor` where nothing it keeps for the next boot is the host's.
fn doctor(words: &str) -> (Value, String) {
    let script = format!(
        "mount -t tmpfs none /etc/sysctl.d && '{}' doctor --json {words} && echo ---- && cat /etc/sysctl.d/* 2>/dev/null; true",
        binary("cabind").display()
    );
    std::fs::create_dir_all("/etc/sysctl.d").unwrap();
    let said = run(Command::new("unshare").args(["--mount", "sh", "-c", &script])).ok();
    let (report, kept) = said.split_once("----").unwrap_or_else(|| panic!("{said}"));
    (serde_json::from_str(report).unwrap(), kept.trim().to_owned())
}

fn found(report: &Value, name: &str) -> Value {
    let check = report.as_array().unwrap().iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no `{name}` in {report}")).clone()
}

#[test]
fn ids_that_root_was_given_and_that_are_not_used_are_named() {
    let told = |users: &str, groups: &str| {
        let script = format!(
            "mount -t tmpfs none /mnt; printf '{users}' >/mnt/u; printf '{groups}' >/mnt/g; touch /etc/subuid /etc/subgid
             mount --bind /mnt/u /etc/subuid; mount --bind /mnt/g /etc/subgid; '{}' doctor --json",
            binary("cabind").display()
        );
        let said = run(Command::new("unshare").args(["--mount", "sh", "-c", &script])).ok();
        found(&serde_json::from_str(&said).unwrap(), "host ids")
    };
    for (users, groups) in [("root:100000:65536", "root:100000:65536"), ("root:100000:6553600", "")] {
        let check = told(users, groups);
        assert_eq!(check["state"], "lacking", "{check}");
        assert!(check["advice"].as_str().unwrap().contains("131072"), "{check}");
    }
    let enough = told("root:100000:6553600", "root:100000:6553600");
    assert_eq!((&enough["state"], &enough["advice"]), (&"good".into(), &"".into()));
}

#[test]
fn a_limit_that_is_too_low_is_named_and_raised_on_request_for_good() {
    let _put_back = Limits::now();
    std::fs::write("/proc/sys/kernel/keys/maxbytes", "19999").unwrap();
    let (report, kept) = doctor("");
    let low = found(&report, KEY);
    assert_eq!((&low["state"], &low["found"]), (&"lacking".into(), &"19999".into()));
    assert!(low["advice"].as_str().unwrap().contains("cabin doctor --raise"), "{low}");
    assert_eq!(kept, "", "nothing is changed by looking");

    let (report, kept) = doctor("--raise");
    assert_eq!(found(&report, KEY)["state"], "good");
    assert!(kept.contains(&format!("{KEY} = ")), "{kept}");
    let still = report.as_array().unwrap().iter().filter(|check| {
        check["state"] != "good" && check["advice"].as_str().unwrap_or_default().contains("--raise")
    });
    assert_eq!(still.count(), 0, "{report}");

    std::fs::write("/proc/sys/kernel/keys/maxbytes", "5000000").unwrap();
    doctor("--raise");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/keys/maxbytes").unwrap().trim(), "5000000");
}

#[test]
fn the_ports_of_a_bridge_are_counted() {
    let netns = format!("cbdoctor{}", std::process::id());
    let ip = |words: &[&str]| run(Command::new("ip").args(words)).ok();
    ip(&["netns", "add", &netns]);
    ip(&["-n", &netns, "link", "add", "cbfull", "type", "bridge"]);
    ip(&["-n", &netns, "link", "add", "cbport", "type", "veth", "peer", "name", "cbother"]);
    ip(&["-n", &netns, "link", "set", "cbport", "master", "cbfull"]);
    let said = run(Command::new("ip")
        .args(["netns", "exec", &netns])
        .arg(binary("cabind"))
        .args(["doctor", "--json"]));
    ip(&["netns", "del", &netns]);
    assert_eq!(found(&said.json(), "ports of bridge cbfull")["found"], "1 of 1023");
}

#[test]
fn a_chain_that_drops_what_is_routed_is_named() {
    let netns = format!("cbforward{}", std::process::id());
    let inside = |words: &[&str]| run(Command::new("ip").args(["netns", "exec", &netns]).args(words));
    run(Command::new("ip").args(["netns", "add", &netns])).ok();
    let cabind = binary("cabind").display().to_string();
    let look = || found(&inside(&[&cabind, "doctor", "--json"]).json(), "forwarding");
    let before = look();
    for chain in [
        "FORWARD { type filter hook forward priority 0; policy drop; }",
        "other { type filter hook input priority 0; policy drop; }",
    ] {
        inside(&["nft", &format!("add table ip filter; add chain ip filter {chain}")]).ok();
    }
    let after = look();
    run(Command::new("ip").args(["netns", "del", &netns])).ok();
    assert_eq!((&before["state"], &after["state"]), (&"good".into(), &"lacking".into()), "{before} {after}");
    assert!(after["found"].as_str().unwrap().ends_with(": ip filter FORWARD"), "{after}");
}

#[test]
fn the_client_shows_what_the_daemon_says_or_without_one_its_program() {
    let lab = Lab::own();
    let names = |report: &Value| -> Vec<String> {
        let checks = report.as_array().unwrap().iter();
        checks.map(|check| check["name"].as_str().unwrap().to_owned()).collect()
    };
    let report = lab.get("/internal/doctor");
    assert_eq!(names(&lab.cabin(&["doctor", "--json"]).json()), names(&report));
    let said = lab.cabin(&["doctor"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    for name in names(&report) {
        let line =
            said.out.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{name}: {said:?}"));
        assert!(["ok", "lacking"].iter().any(|mark| line.starts_with(mark)), "{line}");
    }
    let verdict = said.out.lines().last().unwrap();
    assert!(verdict.starts_with("Containers run") || verdict == "Everything works.", "{verdict}");

    let alone =
        run(Command::new(binary("cabin")).args(["doctor", "--json"]).env("CABIN_DIR", "/nonexistent"));
    assert!(alone.err.contains("/nonexistent") && alone.err.contains("instead"), "{alone:?}");
    let found = names(&alone.json());
    assert!(
        ["kernel", "cgroups", "user namespaces"].iter().all(|name| found.iter().any(|it| it == name)),
        "{found:?}"
    );
}
