//! Profiles: what an instance gets from them, and what a change of one does to those that use it.

use cabin_tests::lab::Lab;
use serde_json::json;

#[test]
fn later_profiles_and_the_instance_itself_win() {
    let lab = Lab::shared();
    lab.image("busybox");
    for (name, note) in [("first", "1"), ("second", "2")] {
        lab.cabin(&["profile", "create", name]).ok();
        lab.cabin(&["profile", "set", name, &format!("user.note={note}")]).ok();
    }
    lab.cabin(&["profile", "set", "first", "user.only=first"]).ok();
    lab.cabin(&["create", "busybox", "heir", "-p", "default", "-p", "first", "-p", "second"]).ok();
    let expanded = |key: &str| lab.get("/1.0/instances/heir")["expanded_config"][key].clone();
    assert_eq!((expanded("user.note"), expanded("user.only")), ("2".into(), "first".into()));
    lab.cabin(&["config", "set", "heir", "user.note=own"]).ok();
    assert_eq!(expanded("user.note"), "own");
    assert!(lab.cabin(&["profile", "delete", "first"]).refused().contains("use"));
    lab.cabin(&["delete", "heir"]).ok();
    for name in ["first", "second"] {
        lab.cabin(&["profile", "delete", name]).ok();
    }
}

#[test]
fn a_change_of_a_profile_reaches_running_instances() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["profile", "create", "narrow"]).ok();
    lab.cabin(&["launch", "busybox", "live", "-p", "default", "-p", "narrow"]).ok();
    lab.exec("live", &["dd", "if=/dev/zero", "of=/dev/null", "bs=150M", "count=1"]).ok();
    lab.cabin(&["profile", "set", "narrow", "limits.memory=64MiB"]).ok();
    assert_eq!(lab.exec("live", &["dd", "if=/dev/zero", "of=/dev/null", "bs=150M", "count=1"]).code, 137);
    lab.cabin(&["delete", "-f", "live"]).ok();
    lab.cabin(&["profile", "delete", "narrow"]).ok();
}

#[test]
fn a_profile_is_made_from_yaml_and_comes_out_as_yaml() {
    let lab = Lab::shared();
    let yaml = "description: from a file\nconfig:\n  limits.memory: 1GiB\n  limits.cpu: 2\ndevices: {}\n";
    lab.cabin_with(&["profile", "create", "paper"], yaml.as_bytes()).ok();
    let shown = lab.cabin(&["profile", "show", "paper"]).ok();
    let back: serde_yaml::Value = serde_yaml::from_str(&shown).unwrap();
    assert_eq!(back["description"], "from a file");
    assert_eq!(
        (back["config"]["limits.memory"].as_str(), back["config"]["limits.cpu"].as_str()),
        (Some("1GiB"), Some("2"))
    );
    let bad = "config:\n  limits.memory: much\n";
    let said = lab.cabin_with(&["profile", "create", "torn"], bad.as_bytes()).refused();
    assert!(said.contains("limits.memory"), "{said}");
    assert_eq!(lab.call("GET", "/1.0/profiles/torn", None).status, 404);
    lab.cabin(&["profile", "delete", "paper"]).ok();
}

#[test]
fn the_default_profile_is_not_deleted() {
    let lab = Lab::shared();
    assert!(!lab.cabin(&["profile", "delete", "default"]).refused().is_empty());
    assert!(!lab.cabin(&["profile", "rename", "default", "other"]).refused().is_empty());
}

#[test]
fn a_fixed_address_of_a_profile_moves_at_once_with_a_change_of_it_also_for_what_is_stopped() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["network", "create", "prof0", "ipv4.address=10.77.8.1/24", "ipv6.address=none"]).ok();
    let nic =
        |last: u8| json!({ "type": "nic", "network": "prof0", "ipv4.address": format!("10.77.8.{last}") });
    let profile = |last: u8| json!({ "name": "fixed", "devices": { "eth9": nic(last) } });
    let change = |last| lab.call("PUT", "/1.0/profiles/fixed", Some(&profile(last))).status;
    let create = |name: &str, last: u8| {
        let source = json!({ "type": "image", "alias": "busybox" });
        let body = json!({ "name": name, "source": source, "devices": { "eth9": nic(last) } });
        lab.operate("POST", "/1.0/instances", &body)["status"] == "Success"
    };
    assert!(lab.call("POST", "/1.0/profiles", Some(&profile(70))).status < 300);
    lab.cabin(&["create", "busybox", "holder", "-p", "default", "-p", "fixed"]).ok();
    assert!(!create("thief", 70), "what a profile says is kept");
    assert_eq!(change(71), 200);
    assert!(!create("thief", 71), "what a profile says is kept at once");
    assert!(create("second", 70), "and what it said is free");
    // All of it or none.
    assert_ne!(change(70), 200, "an address that another has");
    assert!(!create("thief", 71), "it is kept as before");
    lab.cabin(&["start", "holder"]).ok();
    assert_eq!(lab.get("/1.0/instances/holder")["expanded_devices"]["eth9"]["ipv4.address"], "10.77.8.71");
    lab.cabin(&["delete", "-f", "holder", "second"]).ok();
    lab.cabin(&["profile", "delete", "fixed"]).ok();
    lab.cabin(&["network", "delete", "prof0"]).ok();
}
