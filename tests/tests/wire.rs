//! What clients of Incus and LXD count on beyond the words of the API: tags, empty values, envelopes, names of files,
//! who is named in events.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use cabin_tests::api::{self, Reply};
use cabin_tests::lab::Lab;
use cabin_tests::monitor::Monitor;
use serde_json::{Value, json};

fn send(lab: &Lab, method: &str, target: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
    let mut all = vec![("Content-Type", "application/json")];
    all.extend(headers);
    api::send(&lab.socket(), method, target, &all, body.to_string().as_bytes()).unwrap()
}

/// How an answer ended: its code, or that of the operation it began.
fn ended(lab: &Lab, reply: &Reply) -> u64 {
    if reply.status != 202 {
        return reply.status.into();
    }
    let id = reply.json()["operation"].as_str().unwrap().to_owned();
    lab.get(&format!("{id}/wait?timeout=60"))["status_code"].as_u64().unwrap()
}

/// An instance, a profile, a network, a pool, a volume and an image of that prefix.
fn furnish(lab: &Lab, prefix: &str) -> Vec<String> {
    lab.image("busybox");
    lab.cabin(&["create", "busybox", prefix]).ok();
    lab.cabin(&["snapshot", "create", prefix, "s0"]).ok();
    lab.cabin(&["profile", "create", prefix]).ok();
    lab.cabin(&["network", "create", prefix, "ipv4.address=none", "ipv6.address=none"]).ok();
    lab.cabin(&["storage", "create", prefix, "dir"]).ok();
    lab.cabin(&["storage", "volume", "create", prefix, "vol"]).ok();
    vec![
        format!("/1.0/instances/{prefix}"),
        format!("/1.0/profiles/{prefix}"),
        format!("/1.0/networks/{prefix}"),
        format!("/1.0/storage-pools/{prefix}"),
        format!("/1.0/storage-pools/{prefix}/volumes/custom/vol"),
    ]
}

fn clear(lab: &Lab, prefix: &str) {
    lab.cabin(&["delete", prefix]).ok();
    lab.cabin(&["profile", "delete", prefix]).ok();
    lab.cabin(&["network", "delete", prefix]).ok();
    lab.cabin(&["storage", "volume", "delete", prefix, "vol"]).ok();
    lab.cabin(&["storage", "delete", prefix]).ok();
}

#[test]
fn a_change_is_made_only_to_what_the_client_has_read() {
    let lab = Lab::shared();
    let mut targets = furnish(&lab, "tagged");
    let image = lab.get("/1.0/images/aliases/busybox")["target"].as_str().unwrap().to_owned();
    targets.extend([
        "/1.0".to_owned(),
        "/1.0/projects/default".to_owned(),
        "/1.0/instances/tagged/snapshots/s0".to_owned(),
        "/1.0/images/aliases/busybox".to_owned(),
        format!("/1.0/images/{image}"),
    ]);
    for target in &targets {
        let read = lab.call("GET", target, None);
        let tag = read.header("etag").unwrap_or_else(|| panic!("{target} has no tag")).to_owned();
        assert!(tag.len() > 60 && tag.starts_with('"') && tag.ends_with('"'), "{target}: {tag}");
        let body = read.json()["metadata"].clone();
        for method in ["PUT", "PATCH"] {
            let stale = send(&lab, method, target, &[("If-Match", "\"0123\"")], &body);
            assert_eq!(stale.status, 412, "{method} {target}: {}", stale.text());
            // LXD's clients send it without quotes, and whoever sends none does not care.
            for sent in [Some(tag.as_str()), Some(tag.trim_matches('"')), Some("*"), None] {
                let headers: Vec<_> = sent.iter().map(|tag| ("If-Match", *tag)).collect();
                let reply = send(&lab, method, target, &headers, &body);
                assert_eq!(ended(&lab, &reply), 200, "{method} {target} if {sent:?}: {}", reply.text());
            }
        }
    }
    clear(&lab, "tagged");
}

#[test]
fn an_empty_value_unsets_a_key_wherever_it_is_sent() {
    let lab = Lab::shared();
    for target in furnish(&lab, "unset") {
        for method in ["PUT", "PATCH"] {
            let mut body = lab.get(&target);
            body["config"]["user.kept"] = json!("yes");
            body["config"]["user.gone"] = json!("yes");
            assert_eq!(ended(&lab, &send(&lab, "PUT", &target, &[], &body)), 200, "{target}");
            body["config"]["user.gone"] = json!("");
            body["config"]["no.such.key"] = Value::Null;
            let reply = send(&lab, method, &target, &[], &body);
            assert_eq!(ended(&lab, &reply), 200, "{method} {target}: {}", reply.text());
            let config = lab.get(&target)["config"].clone();
            assert_eq!(config["user.kept"], "yes", "{method} {target}");
            assert!(config.get("user.gone").is_none(), "{method} {target}: {config}");
        }
    }
    let nothing = json!({ "devices": { "none": { "type": "none", "no-such-property": "" } } });
    for target in ["/1.0/instances/unset", "/1.0/profiles/unset"] {
        assert_eq!(ended(&lab, &send(&lab, "PATCH", target, &[], &nothing)), 200, "{target}");
        assert_eq!(lab.get(target)["devices"]["none"], json!({ "type": "none" }), "{target}");
    }
    clear(&lab, "unset");
}

#[test]
fn what_failed_is_told_in_the_same_envelope_as_what_was_done() {
    let lab = Lab::shared();
    let fields = |reply: &Reply| reply.json().as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let (done, failed) = (lab.call("GET", "/1.0", None), lab.call("GET", "/1.0/instances/absent", None));
    assert_eq!(fields(&done), fields(&failed));
    assert_eq!((&failed.json()["status_code"], &failed.json()["operation"]), (&json!(0), &json!("")));
}

#[test]
fn who_sends_more_than_is_wanted_hears_why_it_is_refused() {
    let lab = Lab::shared();
    for connection in ["close", "keep-alive"] {
        let mut stream = UnixStream::connect(lab.socket()).unwrap();
        let target = "/1.0/instances/nobody/files?path=/x";
        let size = 8 << 20;
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: cabin\r\nConnection: {connection}\r\nContent-Length: {size}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // As clients do that look for an answer only when all is sent.
        stream.write_all(&vec![0; size]).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 404", "{connection}");
    }
}

#[test]
fn a_page_of_another_site_is_refused() {
    let lab = Lab::shared();
    for (site, code) in [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403)] {
        let reply = send(&lab, "GET", "/1.0", &[("Sec-Fetch-Site", site)], &Value::Null);
        assert_eq!(reply.status, code, "{site}: {}", reply.text());
    }
}

#[test]
fn whoever_asked_for_a_change_is_named_in_its_event() {
    let lab = Lab::shared();
    lab.busybox("told");
    let monitor = Monitor::of_lifecycle(&lab);
    lab.cabin(&["config", "set", "told", "user.x=1"]).ok();
    lab.cabin(&["exec", "told", "--", "true"]).ok();
    let file = "/1.0/instances/told/files?path=/root/f";
    for method in ["POST", "GET", "DELETE"] {
        let reply = api::send(&lab.socket(), method, file, &[], b"words").unwrap();
        assert_eq!(reply.status, 200, "{method}: {}", reply.text());
    }
    lab.cabin(&["storage", "create", "told", "dir"]).ok();
    lab.cabin(&["storage", "delete", "told"]).ok();
    lab.cabin(&["delete", "-f", "told"]).ok();
    let told = monitor.wait_for(&[
        "instance-updated",
        "instance-exec",
        "instance-file-pushed",
        "instance-file-retrieved",
        "instance-file-deleted",
        "storage-pool-created",
        "storage-pool-deleted",
        "instance-deleted",
    ]);
    for life in told {
        assert_eq!(life["requestor"]["username"], "root", "{life}");
        assert_eq!(life["requestor"]["protocol"], "unix", "{life}");
    }
}

#[test]
fn a_command_that_nobody_watches_gets_no_terminal_and_runs() {
    let lab = Lab::shared();
    lab.busybox("alone");
    let body = json!({ "command": ["sh", "-c", "tty >/root/tty; exit 6"], "interactive": true });
    let ended = lab.operate("POST", "/1.0/instances/alone/exec", &body);
    assert_eq!((&ended["class"], &ended["metadata"]["return"]), (&json!("task"), &json!(6)), "{ended}");
    assert_eq!(lab.sh("alone", "cat /root/tty"), "not a tty");
    // As pylxd sends it: null for what it has no word for.
    let body = json!({
        "command": ["true"], "environment": { "A": null }, "user": null, "group": null, "cwd": null, "width": null,
    });
    assert_eq!(lab.operate("POST", "/1.0/instances/alone/exec", &body)["metadata"]["return"], 0);
    let watched = json!({ "command": ["true"], "wait-for-websocket": true });
    let begun = lab.call("POST", "/1.0/instances/alone/exec", Some(&watched)).json();
    assert_eq!(begun["metadata"]["may_cancel"], true, "{begun}");
    let id = begun["operation"].as_str().unwrap();
    assert_eq!(lab.call("DELETE", id, None).status, 200);
    lab.cabin(&["delete", "-f", "alone"]).ok();
}

#[test]
fn a_disk_of_a_path_that_is_not_there_is_refused_at_once() {
    let lab = Lab::shared();
    lab.image("busybox");
    let missing = lab.home().join("missing").display().to_string();
    let source = format!("source={missing}");
    let made = lab.cabin(&["create", "busybox", "diskless", "-d", &format!("d,type=disk,{source},path=/d")]);
    assert!(made.refused().contains(&missing));
    lab.cabin(&["create", "busybox", "diskless"]).ok();
    let add = ["config", "device", "add", "diskless", "d", "disk", &source, "path=/d"];
    assert!(lab.cabin(&add).refused().contains(&missing));
    lab.cabin(&[&add[..], &["required=false"]].concat()).ok();
    lab.cabin(&["config", "device", "remove", "diskless", "d"]).ok();
    // One that went away later does not stand in the way of other changes.
    std::fs::create_dir(&missing).unwrap();
    lab.cabin(&add).ok();
    std::fs::remove_dir(&missing).unwrap();
    lab.cabin(&["config", "set", "diskless", "user.x=1"]).ok();
    lab.cabin(&["delete", "diskless"]).ok();
}

#[test]
fn an_image_is_exported_under_its_fingerprint() {
    let lab = Lab::shared();
    lab.image("busybox");
    let fingerprint = lab.get("/1.0/images/aliases/busybox")["target"].as_str().unwrap().to_owned();
    let image = lab.get(&format!("/1.0/images/{fingerprint}"));
    assert_eq!((&image["locations"], &image["profiles"]), (&json!(["none"]), &json!(["default"])));
    let reply = lab.call("GET", &format!("/1.0/images/{fingerprint}/export"), None);
    let name = reply.header("content-disposition").unwrap();
    assert!(name.contains(&format!("{fingerprint}.tar.")), "{name}");
}

#[test]
fn an_image_gives_its_profiles_to_whom_asks_for_none() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "giver"]).ok();
    lab.cabin(&["publish", "giver", "--alias", "giving", "user.mine=yes"]).ok();
    lab.cabin(&["profile", "create", "gift"]).ok();
    let image = lab.get("/1.0/images/aliases/giving")["target"].as_str().unwrap().to_owned();
    let body = json!({ "profiles": ["default", "gift"] });
    assert_eq!(lab.call("PATCH", &format!("/1.0/images/{image}"), Some(&body)).status, 200);
    lab.cabin(&["create", "giving", "taker"]).ok();
    assert_eq!(lab.get("/1.0/instances/taker")["profiles"], json!(["default", "gift"]));
    lab.cabin(&["create", "giving", "chooser", "-p", "default"]).ok();
    assert_eq!(lab.get("/1.0/instances/chooser")["profiles"], json!(["default"]));
    lab.cabin(&["delete", "giver", "taker", "chooser"]).ok();
    lab.cabin(&["image", "delete", "giving"]).ok();
    lab.cabin(&["profile", "delete", "gift"]).ok();
}

#[test]
fn a_backup_is_gzip_unless_something_else_is_asked_for() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "packed"]).ok();
    lab.cabin(&["storage", "volume", "create", "default", "packed"]).ok();
    let (gzip, zstd) = ([0x1f, 0x8b], [0x28, 0xb5]);
    for target in
        ["/1.0/instances/packed/backups", "/1.0/storage-pools/default/volumes/custom/packed/backups"]
    {
        let sent = send(&lab, "POST", target, &[("Accept", "application/octet-stream")], &json!({}));
        assert_eq!(sent.body[..2], gzip, "{target}");
    }
    for (name, wanted) in [("a.tar.gz", gzip), ("a.tar.zst", zstd), ("a", zstd)] {
        let file = lab.home().join(format!("packed-{name}"));
        lab.cabin(&["export", "packed", &file.display().to_string()]).ok();
        assert_eq!(std::fs::read(&file).unwrap()[..2], wanted, "{name}");
        std::fs::remove_file(&file).unwrap();
    }
    // Where the older clients of both look for the name.
    let kept = "/1.0/storage-pools/default/volumes/custom/packed/backups";
    let made = lab.operate("POST", kept, &json!({ "name": "b0" }));
    let wanted = json!(["/1.0/backups/b0", format!("{kept}/b0")]);
    assert_eq!(made["resources"]["backups"], wanted, "{made}");
    lab.cabin(&["storage", "volume", "delete", "default", "packed"]).ok();
    lab.cabin(&["delete", "packed"]).ok();
}

#[test]
fn what_never_was_is_told_as_clients_expect_it() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "never"]).ok();
    assert_eq!(lab.get("/1.0/instances/never")["last_used_at"], "1970-01-01T00:00:00Z");
    let volume = "/1.0/storage-pools/default/volumes/custom/never";
    lab.cabin(&["storage", "volume", "create", "default", "never"]).ok();
    let full = lab.get(&format!("{volume}?recursion=1"));
    assert_eq!((&full["snapshots"], &full["backups"]), (&json!([]), &json!([])));
    lab.cabin(&["storage", "volume", "snapshot", "create", "default", "never", "s0"]).ok();
    assert_eq!(lab.get(&format!("{volume}/snapshots?recursion=1"))[0]["expires_at"], Value::Null);
    assert_eq!(lab.get(&format!("{volume}/snapshots/s0"))["expires_at"], "0001-01-01T00:00:00Z");
    lab.cabin(&["storage", "volume", "delete", "default", "never"]).ok();
    lab.cabin(&["delete", "never"]).ok();
}
