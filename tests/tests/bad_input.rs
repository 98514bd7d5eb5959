//! Input that no honest client sends: every route answers with the right code and a message that names the thing,
//! and the daemon goes on.

use cabin_tests::api::{self, Reply};
use cabin_tests::lab::Lab;
use serde_json::Value;

/// What the daemon says its routes are: method, path with its `{parts}`, and whether it takes a body.
fn described(lab: &Lab) -> Vec<(String, String, bool)> {
    let page = lab.call("GET", "/1.0/openapi.json", None).json();
    let paths = page["paths"].as_object().expect("paths").clone();
    let mut routes = Vec::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            routes.push((method.to_uppercase(), path.clone(), !operation["requestBody"].is_null()));
        }
    }
    assert!(routes.len() > 60, "only {} routes are described", routes.len());
    routes
}

/// The name of something that exists, of the kind that a described path is about.
fn known(path: &str) -> &'static str {
    match path.split('/').nth(2).unwrap_or_default() {
        "instances" => "there",
        "networks" => "cabinbr0",
        "images" => "busybox",
        _ => "default",
    }
}

/// A described path with its parts filled by things that exist.
fn filled(lab: &Lab, path: &str) -> String {
    let fingerprint =
        lab.get("/1.0/images/aliases/busybox")["target"].as_str().unwrap_or_default().to_owned();
    path.replace("{name}", known(path)).replace("{fingerprint}", &fingerprint)
}

/// The routes that take a JSON object, filled. Trust in clients is not built yet and refuses all alike, and what
/// is internal may not be there at all.
fn bodies(lab: &Lab) -> Vec<(String, String)> {
    let taking = described(lab).into_iter().filter(|(_, path, body)| {
        *body && path.starts_with("/1.0") && !path.starts_with("/1.0/certificates")
    });
    let found: Vec<(String, String)> = taking.map(|(method, path, _)| (method, filled(lab, &path))).collect();
    assert!(found.len() > 25, "only {} routes take a body", found.len());
    found
}

/// Objects that do not exist, and the word that the message must hold.
const MISSING: &[(&str, &str, &str)] = &[
    ("GET", "/1.0/instances/absent", "absent"),
    ("DELETE", "/1.0/instances/absent", "absent"),
    ("GET", "/1.0/instances/absent/state", "absent"),
    ("GET", "/1.0/instances/absent/console", "absent"),
    ("GET", "/1.0/instances/absent/logs", "absent"),
    ("GET", "/1.0/instances/absent/files?path=/etc/hostname", "absent"),
    ("GET", "/1.0/instances/there/files?path=/no/such/file", "no/such/file"),
    ("GET", "/1.0/instances/there/logs/none.log", "none.log"),
    ("GET", "/1.0/profiles/absent", "absent"),
    ("DELETE", "/1.0/profiles/absent", "absent"),
    ("GET", "/1.0/networks/absent", "absent"),
    ("GET", "/1.0/networks/absent/state", "absent"),
    ("GET", "/1.0/networks/absent/leases", "absent"),
    ("DELETE", "/1.0/networks/absent", "absent"),
    ("GET", "/1.0/storage-pools/absent", "absent"),
    ("GET", "/1.0/storage-pools/absent/resources", "absent"),
    ("DELETE", "/1.0/storage-pools/absent", "absent"),
    ("GET", "/1.0/images/0123456789abcdef", "0123456789abcdef"),
    ("GET", "/1.0/images/0123456789abcdef/export", "0123456789abcdef"),
    ("DELETE", "/1.0/images/0123456789abcdef", "0123456789abcdef"),
    ("GET", "/1.0/images/aliases/absent", "absent"),
    ("DELETE", "/1.0/images/aliases/absent", "absent"),
    ("GET", "/1.0/operations/00000000-0000-0000-0000-000000000000", ""),
    ("GET", "/1.0/operations/00000000-0000-0000-0000-000000000000/wait", ""),
    ("GET", "/1.0/projects/absent", "absent"),
    ("GET", "/1.0/nowhere", ""),
    ("GET", "/2.0", ""),
];

#[track_caller]
fn refused(reply: &Reply, code: u16, what: &str) {
    let body = reply.json();
    assert_eq!(reply.status, code, "{what}: {}", reply.text());
    assert_eq!((&body["type"], &body["error_code"]), (&"error".into(), &code.into()), "{what}: {body}");
    assert!(!reply.error().is_empty(), "{what}: no message");
}

fn lab() -> std::sync::Arc<Lab> {
    let lab = Lab::shared();
    lab.image("busybox");
    // Whoever comes first makes it; it is never started.
    static MAKING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if lab.call("GET", "/1.0/instances/there", None).status == 404 {
        lab.cabin(&["create", "busybox", "there"]).ok();
        lab.cabin(&["storage", "volume", "create", "default", "there"]).ok();
    }
    lab
}

fn post(lab: &Lab, method: &str, target: &str, body: &[u8]) -> Reply {
    api::send(&lab.socket(), method, target, &[("Content-Type", "application/json")], body)
        .unwrap_or_else(|why| panic!("{method} {target}: {why}"))
}

#[test]
fn wrong_json_is_a_bad_request() {
    let lab = lab();
    for (method, target) in &bodies(&lab) {
        for body in ["", "{", "nonsense", "{\"a\":}", "\u{0}", "{\"a\":1}{"] {
            refused(
                &post(&lab, method, target, body.as_bytes()),
                400,
                &format!("{method} {target} with {body:?}"),
            );
        }
        let latin = post(&lab, method, target, b"{\"name\":\"\xff\xfe\"}");
        refused(&latin, 400, &format!("{method} {target} with bytes that are no UTF-8"));
    }
}

#[test]
fn wrong_types_are_a_bad_request() {
    let lab = lab();
    let wrong = [
        "[]",
        "7",
        "\"text\"",
        "{\"config\":7,\"name\":7,\"action\":7,\"command\":7,\"source\":7,\"width\":\"x\",\"target\":7,\"properties\":7,\"expires_at\":7}",
        "{\"config\":[],\"name\":[],\"action\":[],\"command\":{},\"source\":[],\"width\":[],\"target\":[],\"properties\":[],\"expires_at\":[]}",
        "{\"name\":{\"a\":1},\"config\":{\"a\":{\"b\":1}},\"action\":{},\"command\":[1],\"source\":\"x\",\"width\":{},\"target\":{},\"properties\":\"x\",\"expires_at\":{}}",
    ];
    for (method, target) in &bodies(&lab) {
        for body in wrong {
            refused(
                &post(&lab, method, target, body.as_bytes()),
                400,
                &format!("{method} {target} with {body}"),
            );
        }
    }
}

#[test]
fn too_much_is_refused() {
    let lab = lab();
    let large = format!("{{\"description\":\"{}\"}}", "a".repeat(8 << 20));
    let deep = format!("{{\"config\":{}1{}}}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    let list = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (method, target) in &bodies(&lab) {
        let what = format!("{method} {target}");
        let reply = post(&lab, method, target, large.as_bytes());
        assert!([400, 413].contains(&reply.status), "{what} with 8 MiB: {} {}", reply.status, reply.text());
        refused(&post(&lab, method, target, deep.as_bytes()), 400, &format!("{what} with deep objects"));
        refused(&post(&lab, method, target, list.as_bytes()), 400, &format!("{what} with deep lists"));
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let lab = lab();
    for (method, target, word) in MISSING {
        let reply = lab.call(method, target, None);
        refused(&reply, 404, &format!("{method} {target}"));
        assert!(
            reply.error().contains(word),
            "{method} {target}: `{}` does not name `{word}`",
            reply.error()
        );
    }
}

#[test]
fn every_described_route_names_what_is_missing() {
    let lab = lab();
    let mut asked = 0;
    for (method, path, _) in described(&lab) {
        // Server-wide routes have nothing that could be missing, and a type is no name.
        let mut target = path.replace("{type}", "custom");
        while let (Some(from), Some(to)) = (target.find('{'), target.find('}')) {
            names_the_first(&lab, &method, &all_absent(&target));
            asked += 1;
            // The next round is about the part behind this one.
            let there = match &target[from..=to] {
                "{name}" => known(&path),
                "{volume}" => "there",
                _ => break,
            };
            target.replace_range(from..=to, there);
        }
    }
    assert!(asked > 100, "only {asked} addresses were asked for");
}

const FIRST_ABSENT: &str = "0123456789abcdef";

/// An address whose first open part names nothing, and neither do those behind it.
fn all_absent(target: &str) -> String {
    let mut target = target.to_owned();
    let mut names = std::iter::once(FIRST_ABSENT).chain(std::iter::repeat("later"));
    while let (Some(from), Some(to), Some(name)) = (target.find('{'), target.find('}'), names.next()) {
        target.replace_range(from..=to, name);
    }
    target
}

#[track_caller]
fn names_the_first(lab: &Lab, method: &str, target: &str) {
    let body = serde_json::json!({
        "name": "other", "action": "start", "command": ["true"], "status": "acknowledged",
    });
    let upgrade = if target.ends_with("/sftp") { "sftp" } else { "none" };
    let headers = [("Content-Type", "application/json"), ("Upgrade", upgrade)];
    let asked = format!("{target}?path=/etc/hostname");
    let reply = api::send(&lab.socket(), method, &asked, &headers, body.to_string().as_bytes()).unwrap();
    let what = format!("{method} {target}: {} {}", reply.status, reply.text());
    match reply.status {
        // What is not built yet says so before it looks for anything.
        501 => assert!(reply.error().contains("not supported yet"), "{what}"),
        status => {
            assert!((400..500).contains(&status), "{what}");
            assert!(reply.error().contains(FIRST_ABSENT), "{what}");
        }
    }
}

#[test]
fn bad_names_are_refused() {
    let lab = lab();
    let long = "a".repeat(64);
    let instance = ["-a", "a-", "1234", "a_b", "a b", "a/b", "a.b", "..", "ä", "a\n", &long];
    for name in instance {
        let body = serde_json::json!({"name": name, "source": {"type": "image", "alias": "busybox"}});
        refused(&lab.call("POST", "/1.0/instances", Some(&body)), 400, &format!("instance {name:?}"));
        let body = serde_json::json!({"name": name});
        refused(&lab.call("POST", "/1.0/instances/there", Some(&body)), 400, &format!("rename to {name:?}"));
    }
    for name in ["a/b", "..", ".", "a b", "", "a'b", "a\u{0}b"] {
        let body = serde_json::json!({"name": name});
        refused(&lab.call("POST", "/1.0/profiles", Some(&body)), 400, &format!("profile {name:?}"));
        let body = serde_json::json!({"name": name, "driver": "dir"});
        refused(&lab.call("POST", "/1.0/storage-pools", Some(&body)), 400, &format!("pool {name:?}"));
    }
    for name in ["a/b", "..", "a b", "", "a", "sixteen-letters-x", "a\nb", "lo"] {
        let body = serde_json::json!({"name": name, "type": "bridge"});
        refused(&lab.call("POST", "/1.0/networks", Some(&body)), 400, &format!("network {name:?}"));
    }
}

#[test]
fn bad_paths_do_not_leave_the_rootfs() {
    let lab = lab();
    for path in [
        "../../../../etc/shadow",
        "/../../../etc/shadow",
        "/proc/self/root/etc/shadow",
        "/..%2f..%2fetc/shadow",
    ] {
        let reply = lab.call("GET", &format!("/1.0/instances/there/files?path={path}"), None);
        let text = reply.text();
        let host = std::fs::read_to_string("/etc/shadow").unwrap_or_default();
        assert!(reply.status != 200 || text != host, "{path} gave the host's file");
    }
    for target in [
        "/1.0/instances/there/logs/..%2f..%2f..%2fetc%2fpasswd",
        "/1.0/instances/%2e%2e",
        "/1.0/images/..%2f..",
    ] {
        let reply = lab.call("GET", target, None);
        assert!((400..500).contains(&reply.status), "{target}: {} {}", reply.status, reply.text());
    }
    refused(&lab.call("GET", "/1.0/instances/there/files", None), 400, "files without a path");
}

#[test]
fn bad_values_are_named_in_the_message() {
    let lab = lab();
    let cases: &[(&str, Value)] = &[
        ("limits.memory", serde_json::json!({"config": {"limits.memory": "lots"}})),
        ("limits.cpu", serde_json::json!({"config": {"limits.cpu": "-1"}})),
        ("limits.processes", serde_json::json!({"config": {"limits.processes": "many"}})),
        ("limits.unheard", serde_json::json!({"config": {"limits.unheard": "1"}})),
        ("raw.lxc", serde_json::json!({"config": {"raw.lxc": "lxc.hook.pre-start=/bin/sh"}})),
        ("eth9", serde_json::json!({"devices": {"eth9": {"type": "teleporter"}}})),
        ("no-such", serde_json::json!({"devices": {"eth9": {"type": "nic", "network": "no-such"}}})),
        ("no-such", serde_json::json!({"profiles": ["no-such"]})),
    ];
    for (word, body) in cases {
        let reply = lab.call("PATCH", "/1.0/instances/there", Some(body));
        assert!((400..=404).contains(&reply.status), "{body}: {} {}", reply.status, reply.text());
        assert!(reply.error().contains(word), "{body}: `{}` does not name `{word}`", reply.error());
    }
    let state = |body: Value| lab.call("PUT", "/1.0/instances/there/state", Some(&body));
    refused(&state(serde_json::json!({"action": "explode"})), 400, "an action that is none");
    let source = serde_json::json!({"name": "never", "source": {"type": "image", "alias": "no/such/image"}});
    let reply = lab.call("POST", "/1.0/instances", Some(&source));
    let said = if reply.status == 202 {
        let id = reply.json()["operation"].as_str().unwrap().to_owned();
        lab.get(&format!("{id}/wait?timeout=30"))["err"].as_str().unwrap_or_default().to_owned()
    } else {
        reply.error()
    };
    assert!(said.contains("no/such/image"), "`{said}` does not name the image");
    assert_eq!(lab.call("GET", "/1.0/instances/never", None).status, 404);
}

#[test]
fn wrong_methods_are_said_to_be_wrong() {
    let lab = lab();
    for (method, target) in
        [("DELETE", "/1.0"), ("PATCH", "/1.0/instances"), ("PUT", "/1.0/operations"), ("BREW", "/1.0")]
    {
        let reply = post(&lab, method, target, b"{}");
        assert!(
            [404, 405, 501].contains(&reply.status),
            "{method} {target}: {} {}",
            reply.status,
            reply.text()
        );
    }
}

#[test]
fn what_is_no_http_ends_the_connection_alone() {
    let lab = lab();
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(200_000));
    let header = format!("GET /1.0 HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "b".repeat(2_000_000));
    let bytes: &[&[u8]] = &[
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /1.0 HTTP/9.9\r\n\r\n",
        b"POST /1.0/instances HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /1.0/instances HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        long.as_bytes(),
        header.as_bytes(),
    ];
    for bytes in bytes {
        if let Ok(reply) = api::raw(&lab.socket(), bytes) {
            assert!((400..=505).contains(&reply.status), "{}: {}", reply.status, reply.text());
        }
        assert_eq!(lab.call("GET", "/1.0", None).status, 200);
    }
}
