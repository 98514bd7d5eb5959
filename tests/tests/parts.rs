//! What belongs to an instance besides its files and its config: what is kept with its volume, the metadata of its
//! image, its templates.

use cabin_tests::desk::each;
use cabin_tests::lab::Lab;
use serde_json::json;

fn volume(name: &str) -> String {
    format!("/1.0/storage-pools/default/volumes/container/{name}")
}

fn kept(lab: &Lab, name: &str) -> String {
    lab.get(&volume(name))["config"]["user.foo"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn what_is_kept_with_an_instances_volume_goes_where_the_instance_goes() {
    let lab = Lab::own();
    lab.image("busybox").cabin(&["create", "busybox", "own"]).ok();
    let set = |value: &str| {
        lab.cabin(&["storage", "volume", "set", "default", "container/own", &format!("user.foo={value}")])
            .ok()
    };
    set("one");
    lab.cabin(&["storage", "volume", "set", "default", "container/own", "-p", "description=mine"]).ok();
    lab.cabin(&["snapshot", "create", "own", "first"]).ok();
    set("two");
    let snapshot = lab.get(&format!("{}/snapshots/first", volume("own")));
    assert_eq!(snapshot["config"]["user.foo"], "one", "{snapshot}");
    assert_eq!(snapshot["description"], "mine", "{snapshot}");
    let listed = lab.get(&format!("{}/snapshots?recursion=1", volume("own")));
    assert_eq!(listed[0]["name"], "own/first", "{listed}");
    // A copy, another name, and a backup.
    lab.cabin(&["copy", "own", "copied"]).ok();
    lab.cabin(&["move", "copied", "moved"]).ok();
    assert_eq!(kept(&lab, "moved"), "two");
    let file = lab.home().join("own.tar").display().to_string();
    lab.cabin(&["export", "moved", &file, "--compression=none"]).ok();
    lab.cabin(&["import", &file, "again"]).ok();
    assert_eq!(kept(&lab, "again"), "two");
    lab.cabin(&["snapshot", "restore", "again", "first"]).ok();
    assert_eq!(kept(&lab, "again"), "one");
    // The daemon starts anew, and knows it still; the list tells it too.
    let mut lab = lab;
    lab.daemon_mut().terminate();
    lab.daemon_mut().boot();
    assert_eq!(kept(&lab, "own"), "two");
    let all = lab.get("/1.0/storage-pools/default/volumes/container?recursion=1");
    let own = all.as_array().unwrap().iter().find(|one| one["name"] == "own").unwrap();
    assert_eq!((&own["config"]["user.foo"], &own["description"]), (&json!("two"), &json!("mine")));
    lab.cabin(&["snapshot", "restore", "own", "first"]).ok();
    assert_eq!(kept(&lab, "own"), "one");
    lab.cabin(&["delete", "-f", "own", "moved", "again"]).ok();
    assert_eq!(lab.call("GET", &volume("own"), None).status, 404);
}

#[test]
fn an_instances_volume_takes_what_users_keep_and_nothing_else() {
    let lab = Lab::own();
    lab.image("busybox").cabin(&["create", "busybox", "own"]).ok();
    let words = |key: &str| lab.cabin(&["storage", "volume", "set", "default", "container/own", key]);
    assert!(words("size=1GiB").refused().contains("root disk"));
    assert!(words("security.unmapped=true").refused().contains("custom volumes"));
    assert!(words("nonsense=1").refused().contains("nonsense"));
    words("snapshots.expiry=1d").ok();
    // What somebody else changed meanwhile is not overwritten.
    let stale = lab.call("GET", &volume("own"), None);
    let tag = stale.header("etag").unwrap().to_owned();
    words("user.foo=theirs").ok();
    let put = json!({ "config": { "user.foo": "mine" }, "description": "" }).to_string();
    let headers = [("If-Match", tag.as_str()), ("Content-Type", "application/json")];
    let reply =
        cabin_tests::api::send(&lab.socket(), "PUT", &volume("own"), &headers, put.as_bytes()).unwrap();
    assert_eq!(reply.status, 412, "{}", reply.text());
    assert_eq!(kept(&lab, "own"), "theirs");
    // PATCH leaves what it does not name.
    let reply = lab.call("PATCH", &volume("own"), Some(&json!({ "config": { "user.bar": "1" } })));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(kept(&lab, "own"), "theirs");
    // It is made, moved, restored and deleted with the instance, and lies in its pool alone.
    for (method, body) in [("DELETE", None), ("POST", Some(json!({ "name": "other" })))] {
        assert_eq!(lab.call(method, &volume("own"), body.as_ref()).status, 400, "{method}");
    }
    assert_eq!(lab.call("PUT", &volume("own"), Some(&json!({ "restore": "snap" }))).status, 400);
    lab.cabin(&["storage", "create", "other", "dir"]).ok();
    let elsewhere = "/1.0/storage-pools/other/volumes/container/own";
    assert_eq!(lab.call("GET", elsewhere, None).status, 404);
    assert_eq!(lab.call("PUT", elsewhere, Some(&json!({}))).status, 404);
    lab.cabin(&["storage", "delete", "other"]).ok();
    lab.cabin(&["delete", "own"]).ok();
}

#[test]
fn volumes_of_instances_are_set_and_edited_by_every_client() {
    each("own", |desk| {
        let name = desk.name("c");
        let volume = format!("container/{name}");
        let _ = desk.run(&["init", "busybox", &name]).ok();
        let _ = desk.run(&["storage", "volume", "set", "default", &volume, "user.foo", "one"]).ok();
        assert_eq!(desk.run(&["storage", "volume", "get", "default", &volume, "user.foo"]).ok(), "one");
        let shown = desk.run(&["storage", "volume", "show", "default", &volume]).ok();
        let described = |shown: &str, word: &str| {
            let line = |line: &str| match line.starts_with("description:") {
                true => format!("description: {word}\n"),
                false => format!("{line}\n"),
            };
            shown.lines().map(line).collect::<String>()
        };
        let edited = described(&shown, "bar");
        let _ = desk.fed(&["storage", "volume", "edit", "default", &volume], &edited).ok();
        let shown = desk.run(&["storage", "volume", "show", "default", &volume]).ok();
        assert!(shown.contains("description: bar") && shown.contains("user.foo: one"), "{shown}");
        // The snapshot has its own, and begins with the volume's. Older clients have no words for it.
        if desk.stock.is_none() {
            let _ = desk.run(&["snapshot", "create", &name, "s0"]).ok();
            let snapshot = format!("{volume}/s0");
            let shown = desk.run(&["storage", "volume", "show", "default", &snapshot]).ok();
            assert!(shown.contains("description: bar"), "{shown}");
            let edited = described(&shown, "baz");
            let _ = desk.fed(&["storage", "volume", "edit", "default", &snapshot], &edited).ok();
            assert!(desk.run(&["storage", "volume", "show", "default", &snapshot]).ok().contains("baz"));
            assert!(desk.run(&["storage", "volume", "show", "default", &volume]).ok().contains("bar"));
        }
        let _ = desk.run(&["storage", "volume", "unset", "default", &volume, "user.foo"]).ok();
        assert_eq!(desk.run(&["storage", "volume", "get", "default", &volume, "user.foo"]).ok(), "");
        let _ = desk.run(&["delete", &name]).ok();
    });
}

#[test]
fn a_template_of_an_instance_is_made_named_rendered_and_taken_along() {
    let lab = Lab::own();
    lab.image("busybox").cabin(&["create", "busybox", "tpl"]).ok();
    let template = |words: &[&str], text: &str| {
        lab.cabin_with(&[&["config", "template"], words].concat(), text.as_bytes())
    };
    let metadata = "/1.0/instances/tpl/metadata";
    // The metadata cannot name what is not there.
    let entry = json!({ "templates": { "/etc/greeting": {
        "when": ["start"], "template": "greeting.tpl", "properties": { "who": "you" }, "mode": "0600"
    } } });
    assert_eq!(lab.call("PATCH", metadata, Some(&entry)).status, 400);
    template(&["create", "tpl", "greeting.tpl"], "{{ instance.name }} greets {{ properties.who }}\n").ok();
    let before = lab.get(metadata);
    let reply = lab.call("PATCH", metadata, Some(&entry));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let reply = lab.call("PATCH", metadata, Some(&json!({ "properties": { "note": "changed" } })));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let after = lab.get(metadata);
    assert_eq!(after["properties"]["os"], before["properties"]["os"]);
    assert_eq!(after["templates"]["/etc/hostname"], before["templates"]["/etc/hostname"]);
    assert_eq!(after["templates"]["/etc/greeting"]["mode"], "0600");
    lab.cabin(&["start", "tpl"]).ok();
    assert_eq!(lab.sh("tpl", "cat /etc/greeting; stat -c %a /etc/greeting"), "tpl greets you\n600");
    // What is in use stays; the text can be replaced, also while the instance runs.
    assert!(template(&["delete", "tpl", "greeting.tpl"], "").refused().contains("/etc/greeting"));
    template(&["edit", "tpl", "greeting.tpl"], "{{ instance.name }} again\n").ok();
    lab.cabin(&["restart", "-f", "tpl"]).ok();
    assert_eq!(lab.sh("tpl", "cat /etc/greeting"), "tpl again");
    lab.cabin(&["stop", "-f", "tpl"]).ok();
    // A copy, a backup and an image of it have it too.
    lab.cabin(&["copy", "tpl", "copied"]).ok();
    let file = lab.home().join("tpl.tar").display().to_string();
    lab.cabin(&["export", "tpl", &file, "--compression=none"]).ok();
    lab.cabin(&["import", &file, "imported"]).ok();
    lab.cabin(&["publish", "tpl", "--alias", "published"]).ok();
    lab.cabin(&["create", "published", "anew"]).ok();
    for name in ["copied", "imported", "anew"] {
        let found = lab.get(&format!("/1.0/instances/{name}/metadata"));
        assert_eq!(found["properties"]["note"], "changed", "{name}: {found}");
        assert_eq!(found["templates"]["/etc/greeting"]["template"], "greeting.tpl", "{name}: {found}");
        lab.cabin(&["start", name]).ok();
        assert_eq!(lab.sh(name, "cat /etc/greeting"), format!("{name} again"));
    }
    // Named no more it is there still, and can go.
    let put = json!({ "architecture": "x86_64", "properties": {}, "templates": null });
    assert_eq!(lab.call("PUT", metadata, Some(&put)).status, 200);
    assert!(template(&["list", "tpl", "-f", "csv"], "").ok().contains("greeting.tpl"));
    template(&["delete", "tpl", "greeting.tpl"], "").ok();
    assert!(template(&["show", "tpl", "greeting.tpl"], "").refused().contains("not found"));
    lab.cabin(&["delete", "-f", "tpl", "copied", "imported", "anew"]).ok();
}

#[test]
fn what_is_no_template_and_no_metadata_is_refused() {
    let lab = Lab::own();
    lab.image("busybox").cabin(&["create", "busybox", "tpl"]).ok();
    let metadata = "/1.0/instances/tpl/metadata";
    for name in ["../shadow", ".hidden", "a/b", "a b", ""] {
        assert!(
            lab.cabin(&["config", "template", "create", "tpl", name]).refused().contains("template"),
            "{name}"
        );
    }
    let put = |value: serde_json::Value| lab.call("PUT", metadata, Some(&value)).status;
    let entry = |path: &str, when: &str| json!({ "architecture": "x86_64", "templates": { path: { "when": [when], "template": "x" } } });
    lab.cabin(&["config", "template", "create", "tpl", "x"]).ok();
    assert_eq!(put(entry("/etc/../shadow", "start")), 400);
    assert_eq!(put(entry("/etc/x", "never")), 400);
    assert_eq!(put(json!({ "architecture": "" })), 400);
    assert_eq!(put(entry("/etc/x", "start")), 200);
    let tag = lab.call("GET", metadata, None).header("etag").unwrap().to_owned();
    assert_eq!(put(entry("/etc/y", "start")), 200);
    let late = entry("/etc/z", "start").to_string();
    let headers = [("If-Match", tag.as_str()), ("Content-Type", "application/json")];
    let reply = cabin_tests::api::send(&lab.socket(), "PUT", metadata, &headers, late.as_bytes()).unwrap();
    assert_eq!(reply.status, 412, "{}", reply.text());
    let templates = format!("{metadata}/templates?path=x");
    let reply = cabin_tests::api::send(&lab.socket(), "POST", &templates, &[], b"\xff\xfe").unwrap();
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(lab.call("GET", "/1.0/instances/none/metadata", None).status, 404);
    assert_eq!(lab.call("GET", "/1.0/instances/none/metadata/templates", None).status, 404);
    lab.cabin(&["delete", "tpl"]).ok();
}

#[test]
fn metadata_and_templates_are_edited_by_every_client() {
    each("meta", |desk| {
        let name = desk.name("c");
        let _ = desk.run(&["init", "busybox", &name]).ok();
        let shown = desk.run(&["config", "metadata", "show", &name]).ok();
        let edited = shown.replace("properties:\n", "properties:\n  note: BB\n");
        let _ = desk.fed(&["config", "metadata", "edit", &name], &edited).ok();
        let shown = desk.run(&["config", "metadata", "show", &name]).ok();
        assert!(shown.contains("note: BB") && shown.contains("/etc/hostname:"), "{shown}");
        let template =
            |words: &[&str], text: &str| desk.fed(&[&["config", "template"], words].concat(), text).ok();
        let _ = template(&["create", &name, "my.tpl"], "");
        assert!(template(&["list", &name], "").contains("my.tpl"));
        let _ = template(&["edit", &name, "my.tpl"], "some content\n");
        assert_eq!(template(&["show", &name, "my.tpl"], ""), "some content");
        let _ = template(&["delete", &name, "my.tpl"], "");
        assert!(!template(&["list", &name], "").contains("my.tpl"));
        let _ = desk.run(&["delete", &name]).ok();
    });
}
