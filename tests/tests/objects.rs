//! Every kind of object is made, edited, shown and listed by the stock clients and by `cabin` in the same words.

use std::os::unix::fs::PermissionsExt as _;

use cabin_tests::clients::Stock;
use cabin_tests::desk::{Desk, each};
use cabin_tests::lab::Lab;

/// YAML without the quotes that each client sets as it likes.
fn bare(yaml: &str) -> String {
    yaml.replace(['"', '\''], "")
}

#[test]
fn networks_are_edited_shown_and_renamed() {
    each("net", |desk| {
        // An interface has at most 15 letters.
        let name = format!("n{}", desk.prefix.replace('-', ""));
        let _ = desk.run(&["network", "create", &name, "ipv4.address=none", "ipv6.address=none"]).ok();
        let _ = desk.run(&["network", "set", &name, "user.note", "one"]).ok();
        let shown = desk.run(&["network", "show", &name]).ok();
        let _ =
            desk.fed(&["network", "edit", &name], &shown.replace("user.note: one", "user.note: two")).ok();
        assert_eq!(desk.run(&["network", "get", &name, "user.note"]).ok(), "two");
        let _ = desk.run(&["network", "unset", &name, "user.note"]).ok();
        assert_eq!(desk.run(&["network", "get", &name, "user.note"]).ok(), "");
        let info = desk.run(&["network", "info", &name]).ok();
        assert!(info.contains("MAC address: ") && info.contains(&format!("Name: {name}")), "{info}");
        let new = format!("{name}x");
        let _ = desk.run(&["network", "rename", &name, &new]).ok();
        assert!(desk.run(&["network", "list", "-f", "csv"]).ok().contains(&format!("{new},bridge,YES")));
        let _ = desk.run(&["network", "delete", &new]).ok();
        assert!(desk.run(&["network", "show", &new]).refused().contains("not found"));
    });
}

#[test]
fn pools_are_edited_and_their_keys_unset() {
    each("pool", |desk| {
        let name = desk.name("dir");
        let _ = desk.run(&["storage", "create", &name, "dir"]).ok();
        let _ = desk.run(&["storage", "set", &name, "user.note", "one"]).ok();
        let shown = desk.run(&["storage", "show", &name]).ok();
        let edited = shown.replace("user.note: one", "user.note: two");
        let _ = desk.fed(&["storage", "edit", &name], &edited).ok();
        assert_eq!(desk.run(&["storage", "get", &name, "user.note"]).ok(), "two");
        let _ = desk.run(&["storage", "unset", &name, "user.note"]).ok();
        assert_eq!(desk.run(&["storage", "get", &name, "user.note"]).ok(), "");
        let _ = desk.run(&["storage", "delete", &name]).ok();
    });
}

#[test]
fn images_and_profiles_are_edited_and_their_keys_unset() {
    each("edit", |desk| {
        let alias = desk.name("alias");
        let fingerprint = desk.run(&["image", "info", "busybox"]).ok();
        let fingerprint = fingerprint.lines().find_map(|line| line.strip_prefix("Fingerprint: ")).unwrap();
        let _ = desk.run(&["image", "alias", "create", &alias, fingerprint]).ok();
        let key = format!("note-{}", desk.prefix);
        let _ = desk.run(&["image", "set-property", &alias, &key, "one"]).ok();
        let shown = desk.run(&["image", "show", &alias]).ok();
        let edited = shown.replace(&format!("{key}: one"), &format!("{key}: two"));
        let _ = desk.fed(&["image", "edit", &alias], &edited).ok();
        assert_eq!(desk.run(&["image", "get-property", &alias, &key]).ok(), "two");
        let _ = desk.run(&["image", "unset-property", &alias, &key]).ok();
        assert_eq!(
            desk.lab.get(&format!("/1.0/images/{fingerprint}"))["properties"][&key],
            serde_json::Value::Null
        );
        let listed = desk.run(&["image", "alias", "list", &alias, "-f", "csv"]).ok();
        assert!(listed.starts_with(&alias) && listed.lines().count() == 1, "{listed}");
        let _ = desk.run(&["image", "alias", "delete", &alias]).ok();

        let profile = desk.name("profile");
        let _ = desk.run(&["profile", "create", &profile]).ok();
        let _ = desk.run(&["profile", "set", &profile, "limits.processes", "77"]).ok();
        let _ = desk.run(&["profile", "unset", &profile, "limits.processes"]).ok();
        assert_eq!(desk.run(&["profile", "get", &profile, "limits.processes"]).ok(), "");
        // Several at once is new in the newer client.
        if desk.stock != Some(Stock::Trixie) {
            let _ = desk.run(&["profile", "set", &profile, "user.a=1", "user.b=2", "user.c=3"]).ok();
            let _ = desk.run(&["profile", "unset", &profile, "user.a", "user.c"]).ok();
            let left = desk.lab.get(&format!("/1.0/profiles/{profile}"));
            assert_eq!(left["config"], serde_json::json!({ "user.b": "2" }));
        }
        let _ = desk.run(&["profile", "delete", &profile]).ok();
    });
}

#[test]
fn instances_and_profiles_are_attached_to_networks_and_detached() {
    let mut made = Vec::new();
    each("attach", |desk| {
        let (name, profile) = (desk.name("one"), desk.name("profile"));
        let _ = desk.run(&["create", "busybox", &name]).ok();
        let _ = desk.run(&["profile", "create", &profile]).ok();
        let _ = desk.run(&["network", "attach", "cabinbr0", &name]).ok();
        let _ = desk.run(&["network", "attach", "cabinbr0", &name, "second"]).ok();
        let _ = desk.run(&["network", "attach", "cabinbr0", &name, "third", "eth3"]).ok();
        let _ = desk.run(&["network", "attach-profile", "cabinbr0", &profile, "fourth", "eth4"]).ok();
        let devices = |path: &str| desk.lab.get(path)["devices"].clone();
        let of_instance = devices(&format!("/1.0/instances/{name}"));
        made.push((of_instance, devices(&format!("/1.0/profiles/{profile}"))));
        assert!(!desk.run(&["network", "detach", "cabinbr0", &name]).refused().is_empty());
        for device in ["cabinbr0", "third"] {
            let _ = desk.run(&["network", "detach", "cabinbr0", &name, device]).ok();
        }
        let _ = desk.run(&["network", "detach", "cabinbr0", &name]).ok();
        let _ = desk.run(&["network", "detach-profile", "cabinbr0", &profile]).ok();
        assert_eq!(devices(&format!("/1.0/instances/{name}")), serde_json::json!({}));
        assert_eq!(devices(&format!("/1.0/profiles/{profile}")), serde_json::json!({}));
        desk.delete(&name);
        let _ = desk.run(&["profile", "delete", &profile]).ok();
    });
    assert!(made.len() == 3 && made.iter().all(|one| *one == made[0]), "{made:#?}");
}

/// The lists of a daemon of its own, where nothing changes meanwhile.
#[test]
fn lists_have_the_columns_that_are_chosen() {
    let lab = std::sync::Arc::new(Lab::own());
    lab.image("busybox");
    let desks = Desk::all(&lab, "lists");
    let desk = |stock: Option<Stock>| desks.iter().find(|desk| desk.stock == stock).unwrap();
    let (own, sid) = (desk(None), desk(Some(Stock::Sid)));
    for line in [
        "profile list -f csv -c n,ud",
        "profile list -f csv,header --all-projects",
        "network list -f csv,header -c ntm46dse",
        "network list -f csv -c n --all-projects",
        "storage list -f csv,header -c nDds",
        "storage list -f csv -c Sn",
        "profile list de -f csv",
        "profile list name=de -f csv",
        "profile list name=small -f csv",
        "network list type=bridge managed=true -f csv",
        "network list cab -f csv",
        "storage list driver=overlay -f csv -c n",
        "storage list driver=dir -f csv -c n",
        "image list -f csv -c lfF",
        "image list -f csv -c lf --all-projects",
        "image list -f csv,header --all-projects",
        "image alias list busy -f csv,header -c af",
        "image alias list nothing -f csv,header",
        "operation list -f csv,header -c tdscL",
        "operation list -f csv --all-projects",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(own.run(&words).ok(), sid.run(&words).ok(), "{line}");
    }
    assert!(own.run(&["profile", "list", "-c", "nx"]).refused().contains("`x`"));
}

#[test]
fn what_the_server_keeps_and_does_is_shown() {
    each("server", |desk| {
        let _ = desk.run(&["admin", "waitready", "--timeout", "10"]).ok();
        let version = desk.run(&["version"]).ok();
        assert!(version.contains("Client version: ") && version.contains("Server version: "), "{version}");
        let project = desk.run(&["project", "show", "default"]).ok();
        assert!(bare(&project).contains("name: default"), "{project}");
        let name = desk.launch("one");
        let mut command = desk.lab.command(&desk.program(), &["exec", &name, "--", "sleep", "300"]);
        let mut running = command.stdin(std::process::Stdio::null()).spawn().unwrap();
        let id = cabin_tests::wait::until("the operation of a command", 20, || {
            let listed = desk.run(&["operation", "list", "-f", "json"]).json();
            let of = |it: &&serde_json::Value| it["resources"].to_string().contains(&format!("/{name}\""));
            let mut own = listed.as_array()?.iter().filter(of);
            let own = own.find(|it| it["status"] == "Running")?;
            Some(own["id"].as_str()?.to_owned())
        });
        let shown = desk.run(&["operation", "show", &id]).ok();
        assert!(shown.contains(&id) && shown.contains("Running"), "{shown}");
        running.kill().unwrap();
        running.wait().unwrap();
        desk.delete(&name);
        let _ = desk.run(&["warning", "list", "--all", "-f", "json"]).json();
        assert!(!desk.run(&["warning", "show", "01234567-89ab-cdef-0123-456789abcdef"]).refused().is_empty());
    });
}

#[test]
fn instances_are_created_from_yaml_files_and_sizes() {
    each("made", |desk| {
        let file = desk.folder().join("environment");
        std::fs::write(&file, "# of the test\nCOLOUR=green\nTASTE=sour\n").unwrap();
        let name = desk.name("one");
        let file = file.display().to_string();
        let words = ["create", "busybox", &name, "-t", "c1-m0.5", "--environment-file", &file];
        let yaml = "config:\n  user.note: from yaml\ndescription: made of much\n";
        let _ = desk.fed(&words, yaml).ok();
        let made = desk.lab.get(&format!("/1.0/instances/{name}"));
        let config = &made["config"];
        assert_eq!(made["description"], "made of much", "{made}");
        for (key, value) in [
            ("user.note", "from yaml"),
            ("environment.COLOUR", "green"),
            ("environment.TASTE", "sour"),
            ("limits.cpu", "1"),
            ("limits.memory", "512MiB"),
        ] {
            assert_eq!(config[key], value, "{key} of {made}");
        }
        let fast = desk.run(&["list", "--fast", "-f", "csv", &name]).ok();
        assert!(
            fast.starts_with(&format!("{name},STOPPED,")) && fast.contains(",default,CONTAINER"),
            "{fast}"
        );
        assert!(
            !desk.fed(&["delete", "-i", &name], "no\n").err.is_empty() || !desk.lab.status(&name).is_empty()
        );
        assert_eq!(desk.lab.status(&name), "Stopped");
        let _ = desk.fed(&["delete", "-i", &name], "yes\n").ok();
        assert!(desk.run(&["info", &name]).refused().contains("not found"));
    });
}

#[test]
fn an_editor_of_the_persons_own_is_asked() {
    each("editor", |desk| {
        let editor = desk.folder().join("editor");
        std::fs::write(&editor, "#!/bin/sh\ntest -t 0 && exec sed -i s/64MiB/80MiB/ \"$1\"\n").unwrap();
        std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
        let editor = editor.display().to_string();
        let edit =
            |line: &str| desk.on_a_terminal_with(line, "", &[("EDITOR", &editor), ("VISUAL", &editor)]).ok();
        let name = desk.launch("one");
        let _ = desk.run(&["config", "set", &name, "limits.memory=64MiB"]).ok();
        let _ = edit(&format!("config edit {name}"));
        assert_eq!(desk.run(&["config", "get", &name, "limits.memory"]).ok(), "80MiB");
        let _ = desk.lab.sh(&name, "echo 64MiB >/root/note; chmod 600 /root/note");
        let _ = edit(&format!("file edit {name}/root/note"));
        assert_eq!(desk.lab.sh(&name, "cat /root/note; stat -c '%a %u' /root/note"), "80MiB\n600 0");
        // A mistake is told, and who goes away instead of answering has changed nothing.
        std::fs::write(&editor, "#!/bin/sh\nsed -i s/80MiB/much/ \"$1\"\n").unwrap();
        let line = format!("config edit {name}");
        let refused = desk.on_a_terminal_with(&line, "", &[("EDITOR", &editor), ("VISUAL", &editor)]);
        assert!(refused.code != 0 && refused.out.contains("limits.memory"), "{refused:?}");
        assert_eq!(desk.run(&["config", "get", &name, "limits.memory"]).ok(), "80MiB");
        desk.delete(&name);
    });
}

#[test]
fn a_console_is_attached_on_request_and_let_go() {
    each("attached", |desk| {
        let name = desk.name("one");
        let _ = desk.typed_at(&format!("launch busybox {name} --console=console"), "\x01q");
        assert_eq!(desk.lab.status(&name), "Running");
        let _ = desk.run(&["stop", "--force", &name]).ok();
        let shown = desk.typed_at(&format!("start {name} --console"), "\x01q");
        assert!(shown.contains("To detach from the console"), "{shown}");
        assert_eq!(desk.lab.status(&name), "Running");
        desk.delete(&name);
    });
}

#[test]
fn what_is_waited_for_comes_or_does_not() {
    each("wait", |desk| {
        // The older client has no such verb.
        if desk.stock != Some(Stock::Trixie) {
            let name = desk.launch("one");
            let _ = desk.run(&["wait", &name, "ipv4", "--interval", "1", "--timeout", "60"]).ok();
            assert!(!desk.lab.wait_address(&name, 1).is_empty());
            let _ = desk.run(&["wait", &name, "status=running", "--timeout", "20"]).ok();
            let late = desk.run(&["wait", &name, "status=stopped", "--interval", "1", "--timeout", "2"]);
            assert_ne!(late.code, 0, "{late:?}");
            desk.delete(&name);
        }
    });
}
