//! The wire as programs rely on it: envelopes, codes, operations, events, recursion.

use cabin_tests::api;
use cabin_tests::lab::Lab;
use serde_json::json;

#[test]
fn answers_come_in_the_envelopes_clients_expect() {
    let lab = Lab::shared();
    let sync = lab.call("GET", "/1.0", None);
    let body = sync.json();
    assert_eq!(
        (&body["type"], &body["status"], &body["status_code"]),
        (&json!("sync"), &json!("Success"), &json!(200))
    );
    assert_eq!(sync.header("content-type"), Some("application/json"));
    assert_eq!(lab.get("/"), json!(["/1.0"]));

    let made = lab.call("POST", "/1.0/profiles", Some(&json!({"name": "enveloped"})));
    assert_eq!((made.status, made.header("location")), (201, Some("/1.0/profiles/enveloped")));
    assert_eq!(lab.call("DELETE", "/1.0/profiles/enveloped", None).status, 200);

    let error = lab.call("GET", "/1.0/instances/absent", None);
    let body = error.json();
    assert_eq!((error.status, &body["type"], &body["error_code"]), (404, &json!("error"), &json!(404)));
}

#[test]
fn the_server_says_what_clients_ask_of_it() {
    let lab = Lab::shared();
    let server = lab.get("/1.0");
    for (key, value) in [("api_status", "stable"), ("api_version", "1.0"), ("auth", "trusted")] {
        assert_eq!(server[key], value, "{key}");
    }
    assert_eq!(server["public"], false);
    let extensions = server["api_extensions"].as_array().unwrap();
    for name in [
        "api_filtering",
        "container_full",
        "instance_create_start",
        "network",
        "storage",
        "console",
        "projects",
    ] {
        assert!(extensions.contains(&json!(name)), "no `{name}`");
    }
    for key in [
        "addresses",
        "architectures",
        "driver",
        "kernel",
        "server",
        "server_name",
        "server_version",
        "storage",
    ] {
        assert!(!server["environment"][key].is_null(), "no environment.{key}");
    }
}

#[test]
fn an_operation_is_told_followed_and_remembered_for_a_while() {
    let lab = Lab::shared();
    lab.image("busybox");
    let body = json!({"name": "op", "source": {"type": "image", "alias": "busybox"}});
    let reply = lab.call("POST", "/1.0/instances", Some(&body));
    let told = reply.json();
    assert_eq!(
        (reply.status, &told["type"], &told["status"]),
        (202, &json!("async"), &json!("Operation created"))
    );
    assert_eq!((&told["status_code"], &told["metadata"]["class"]), (&json!(100), &json!("task")));
    let id = told["operation"].as_str().unwrap();
    assert_eq!(reply.header("location"), Some(id));
    let ended = lab.get(&format!("{id}/wait?timeout=60"));
    assert_eq!(
        (&ended["status"], &ended["status_code"], &ended["err"]),
        (&json!("Success"), &json!(200), &json!(""))
    );
    assert_eq!(ended["resources"]["instances"], json!(["/1.0/instances/op"]));
    assert_eq!(lab.get(id)["status"], "Success");
    assert!(lab.get("/1.0/operations").is_object());
    let done = lab.operate("DELETE", "/1.0/instances/op", &json!({}));
    assert_eq!(done["status_code"], 200);
}

#[test]
fn a_failed_operation_says_why() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "clumsy"]).ok();
    let reply = lab.call("PUT", "/1.0/instances/clumsy/state", Some(&json!({"action": "stop"})));
    let why = if reply.status == 202 {
        let id = reply.json()["operation"].as_str().unwrap().to_owned();
        let ended = lab.get(&format!("{id}/wait?timeout=60"));
        assert_eq!(ended["status"], "Failure");
        ended["err"].as_str().unwrap().to_owned()
    } else {
        reply.error()
    };
    assert!(why.contains("not running") || why.contains("stopped"), "{why}");
    lab.cabin(&["delete", "clumsy"]).ok();
}

#[test]
fn lists_deepen_with_recursion_and_never_hold_null() {
    let lab = Lab::shared();
    lab.busybox("deep");
    assert!(lab.get("/1.0/instances").as_array().unwrap().contains(&json!("/1.0/instances/deep")));
    let find = |level: u8| {
        let list = lab.get(&format!("/1.0/instances?recursion={level}"));
        list.as_array().unwrap().iter().find(|it| it["name"] == "deep").cloned().unwrap()
    };
    assert!(find(1)["state"].is_null());
    let full = find(2);
    assert_eq!(full["state"]["status_code"], 103);
    for full in [full, lab.get("/1.0/instances/deep?recursion=1")] {
        for key in ["config", "devices", "profiles", "expanded_config", "expanded_devices"] {
            assert!(!full[key].is_null(), "{key} is null");
        }
        assert_eq!((&full["backups"], &full["snapshots"]), (&json!([]), &json!([])), "{full}");
    }
    for list in ["images", "networks", "profiles", "storage-pools", "projects", "warnings", "certificates"] {
        let found = lab.get(&format!("/1.0/{list}?recursion=1"));
        assert!(found.is_array(), "/1.0/{list} is {found}");
    }
    lab.cabin(&["delete", "-f", "deep"]).ok();
}

#[test]
fn values_that_are_no_strings_are_taken_as_strings() {
    let lab = Lab::shared();
    let body =
        json!({"name": "loose", "config": {"limits.cpu": 2, "security.nesting": true, "user.none": null}});
    assert_eq!(lab.call("POST", "/1.0/profiles", Some(&body)).status, 201);
    let config = lab.get("/1.0/profiles/loose")["config"].clone();
    assert_eq!((&config["limits.cpu"], &config["security.nesting"]), (&json!("2"), &json!("true")));
    assert_eq!(lab.call("DELETE", "/1.0/profiles/loose", None).status, 200);
}

#[test]
fn the_servers_keys_say_how_is_compressed_what_nobody_asks_about() {
    let lab = Lab::own();
    lab.image("busybox").cabin(&["create", "busybox", "packed"]).ok();
    let set = |pair: &str| lab.cabin(&["config", "set", pair]);
    for taken in ["images.auto_update_interval=0", "core.metrics_authentication=false"] {
        set(taken).ok();
    }
    for wrong in
        ["images.auto_update_interval=often", "core.metrics_authentication=2", "core.trust_password=x"]
    {
        let _ = set(wrong).refused();
    }
    assert!(set("backups.compression_algorithm=lzma").refused().contains("no compression"));
    assert!(set("images.compression_algorithm=gzip -o x").refused().contains("no compression"));
    let export = |body: serde_json::Value| {
        let headers = [("Accept", "application/octet-stream"), ("Content-Type", "application/json")];
        let target = "/1.0/instances/packed/backups";
        let reply = api::send(&lab.socket(), "POST", target, &headers, body.to_string().as_bytes()).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.body
    };
    let publish = || {
        let body = json!({ "source": { "type": "instance", "name": "packed" } });
        let made = lab.operate("POST", "/1.0/images", &body);
        let image = format!("/1.0/images/{}", made["metadata"]["fingerprint"].as_str().unwrap());
        let bytes = api::send(&lab.socket(), "GET", &format!("{image}/export"), &[], b"").unwrap().body;
        let _ = lab.operate("DELETE", &image, &json!({}));
        bytes
    };
    let (gzip, zstd) = ([0x1f, 0x8b], [0x28, 0xb5]);
    assert_eq!((&export(json!({}))[..2], &publish()[..2]), (&gzip[..], &gzip[..]));
    set("backups.compression_algorithm=none").ok();
    set("images.compression_algorithm=zstd -3").ok();
    assert_eq!(&export(json!({}))[257..262], b"ustar");
    assert_eq!(&export(json!({ "compression_algorithm": "zstd" }))[..2], zstd);
    assert_eq!(&publish()[..2], zstd);
    lab.cabin(&["config", "unset", "images.compression_algorithm"]).ok();
    assert_eq!(&publish()[..2], gzip);
    lab.cabin(&["delete", "packed"]).ok();
}
