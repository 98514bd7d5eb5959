//! The stock Incus clients of Debian 13 (6.0) and sid (7.0) do their whole daily work against cabind, and `cabin` does
//! the same in the same words.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::Arc;

use cabin_tests::clients::Stock;
use cabin_tests::desk::{Desk, each};
use cabin_tests::lab::Lab;
use cabin_tests::wait::until_true;

#[test]
fn it_launches_lists_shows_and_deletes() {
    each("life", |desk| {
        let name = desk.launch("one");
        let csv = desk.run(&["list", "-f", "csv", "-c", "ns", &name]).ok();
        assert_eq!(csv, format!("{name},RUNNING"));
        let table = desk.run(&["list"]).ok();
        assert!(table.contains(&name) && table.contains(" RUNNING "), "{table}");
        let json = desk.run(&["list", "-f", "json", &name]).json();
        assert_eq!(json[0]["name"], name.as_str());
        assert_eq!(json[0]["status"], "Running");
        let yaml = desk.run(&["list", "-f", "yaml", &name]).ok();
        assert!(yaml.contains(&format!("name: {name}")), "{yaml}");
        let info = desk.run(&["info", &name]).ok();
        assert!(info.contains("Status: RUNNING") && info.contains("PID:"), "{info}");
        let refused = desk.run(&["delete", &name]).refused();
        assert!(refused.contains("running"), "{refused}");
        desk.delete(&name);
        let gone = desk.run(&["info", &name]).refused();
        assert!(gone.contains("not found"), "{gone}");
    });
}

#[test]
fn it_stops_starts_restarts_pauses_and_renames() {
    each("verbs", |desk| {
        let name = desk.launch("one");
        desk.run(&["pause", &name]).ok();
        assert_eq!(desk.lab.status(&name), "Frozen");
        desk.run(&["resume", &name]).ok();
        assert_eq!(desk.lab.status(&name), "Running");
        let before = desk.lab.init_pid(&name);
        desk.run(&["restart", &name]).ok();
        assert_ne!(desk.lab.init_pid(&name), before);
        desk.run(&["stop", &name]).ok();
        assert_eq!(desk.lab.status(&name), "Stopped");
        let new = desk.name("two");
        desk.run(&["rename", &name, &new]).ok();
        desk.run(&["start", &new]).ok();
        assert_eq!(desk.run(&["exec", &new, "--", "hostname"]).ok(), new);
        desk.run(&["stop", "--force", &new]).ok();
        desk.run(&["delete", &new]).ok();
        let empty = desk.run(&["list", "-f", "csv", "-c", "n", &new]).ok();
        assert_eq!(empty, "");
    });
}

#[test]
fn it_runs_commands() {
    each("exec", |desk| {
        let name = desk.launch("one");
        assert_eq!(desk.run(&["exec", &name, "--", "sh", "-c", "exit 7"]).code, 7);
        assert_eq!(desk.fed(&["exec", &name, "--", "wc", "-c"], "twelve bytes").ok(), "12");
        let apart = desk.run(&["exec", &name, "--", "sh", "-c", "echo out; echo err >&2"]);
        assert_eq!((apart.out.as_str(), apart.err.as_str(), apart.code), ("out\n", "err\n", 0));
        let env = desk.run(&[
            "exec",
            &name,
            "--env",
            "WHO=you",
            "--cwd",
            "/tmp",
            "--",
            "sh",
            "-c",
            "echo $WHO $PWD",
        ]);
        assert_eq!(env.ok(), "you /tmp");
        let id =
            desk.run(&["exec", &name, "--user", "1000", "--group", "1001", "--", "sh", "-c", "id -u; id -g"]);
        assert_eq!(id.ok(), "1000\n1001");
        let missing = desk.run(&["exec", &name, "--", "no-such-program"]);
        assert_eq!(missing.code, 127, "{missing:?}");
        let tty = desk.on_a_terminal(&format!("exec {name} -t -- sh -c 'tty; exit 5'"), "");
        assert!(tty.out.contains("/dev/pts/"), "{tty:?}");
        assert_eq!(tty.code, 5, "{tty:?}");
        desk.delete(&name);
    });
}

#[test]
fn it_gives_a_shell() {
    each("shell", |desk| {
        let name = desk.launch("one");
        let shell = desk.on_a_terminal(&format!("shell {name}"), "echo sum-$((40 + 2))\nexit 3\n");
        assert!(shell.out.contains("sum-42"), "{shell:?}");
        assert_eq!(shell.code, 3, "{shell:?}");
        desk.delete(&name);
    });
}

#[test]
fn it_configures_instances() {
    each("config", |desk| {
        let name = desk.launch("one");
        desk.run(&["config", "set", &name, "limits.memory=64MiB", "user.note=hello there"]).ok();
        assert_eq!(desk.run(&["config", "get", &name, "limits.memory"]).ok(), "64MiB");
        assert_eq!(desk.run(&["config", "get", &name, "user.note"]).ok(), "hello there");
        let shown = desk.run(&["config", "show", &name]).ok();
        assert!(shown.contains("limits.memory: 64MiB"), "{shown}");
        let expanded = desk.run(&["config", "show", &name, "--expanded"]).ok();
        assert!(expanded.contains("eth0:") && expanded.contains("type: nic"), "{expanded}");
        desk.fed(&["config", "edit", &name], &shown.replace("64MiB", "80MiB")).ok();
        assert_eq!(desk.run(&["config", "get", &name, "limits.memory"]).ok(), "80MiB");
        desk.run(&["config", "unset", &name, "user.note"]).ok();
        assert_eq!(desk.run(&["config", "get", &name, "user.note"]).ok(), "");
        let refused = desk.run(&["config", "set", &name, "limits.memory=much"]).refused();
        assert!(refused.contains("limits.memory"), "{refused}");
        let refused = desk.run(&["config", "set", &name, "limits.imagination=1"]).refused();
        assert!(refused.contains("limits.imagination"), "{refused}");
        desk.run(&["stop", "--force", &name]).ok();
        desk.run(&["config", "device", "override", &name, "eth0", "mtu=1400"]).ok();
        let devices = desk.run(&["config", "device", "show", &name]).ok();
        assert!(devices.replace(['"', '\''], "").contains("mtu: 1400"), "{devices}");
        desk.run(&["config", "device", "set", &name, "eth0", "mtu", "1300"]).ok();
        assert_eq!(desk.run(&["config", "device", "get", &name, "eth0", "mtu"]).ok(), "1300");
        desk.run(&["config", "device", "remove", &name, "eth0"]).ok();
        assert_eq!(desk.run(&["config", "device", "list", &name]).ok(), "");
        desk.delete(&name);
    });
}

#[test]
fn it_keeps_profiles() {
    each("profile", |desk| {
        let (name, profile) = (desk.launch("one"), desk.name("small"));
        desk.run(&["profile", "create", &profile]).ok();
        desk.run(&["profile", "set", &profile, "limits.processes=77"]).ok();
        assert_eq!(desk.run(&["profile", "get", &profile, "limits.processes"]).ok(), "77");
        desk.run(&["profile", "add", &name, &profile]).ok();
        let expanded = desk.run(&["config", "show", &name, "--expanded"]).ok();
        assert!(expanded.replace('\'', "\"").contains("limits.processes: \"77\""), "{expanded}");
        let shown = desk.run(&["profile", "show", &profile]).ok();
        assert!(shown.contains(&format!("/1.0/instances/{name}")), "{shown}");
        desk.fed(&["profile", "edit", &profile], &shown.replace("77", "88")).ok();
        assert_eq!(desk.run(&["profile", "get", &profile, "limits.processes"]).ok(), "88");
        assert!(!desk.run(&["profile", "delete", &profile]).refused().is_empty());
        desk.run(&["profile", "remove", &name, &profile]).ok();
        let both = format!("default,{profile}");
        // The newer client takes them as words, the older one as one word; ours takes both.
        if desk.stock != Some(Stock::Trixie) {
            desk.run(&["profile", "assign", &name, "default", &profile]).ok();
        }
        if desk.stock != Some(Stock::Sid) {
            desk.run(&["profile", "assign", &name, &both]).ok();
        }
        assert_eq!(desk.lab.get(&format!("/1.0/instances/{name}"))["profiles"][1], profile.as_str());
        assert!(desk.run(&["profile", "list", "-f", "csv"]).ok().contains(&profile));
        desk.run(&["profile", "assign", &name, "default"]).ok();
        let copy = desk.name("copy");
        desk.run(&["profile", "copy", &profile, &copy]).ok();
        let renamed = desk.name("renamed");
        desk.run(&["profile", "rename", &copy, &renamed]).ok();
        for one in [&profile, &renamed] {
            desk.run(&["profile", "delete", one]).ok();
        }
        desk.delete(&name);
    });
}

#[test]
fn it_pushes_and_pulls_files() {
    each("file", |desk| {
        let name = desk.launch("one");
        let home = desk.lab.home().join(&desk.prefix);
        std::fs::create_dir_all(home.join("tree/below")).unwrap();
        let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        std::fs::write(home.join("big"), &content).unwrap();
        std::fs::write(home.join("tree/below/leaf"), "green").unwrap();
        std::os::unix::fs::symlink("below/leaf", home.join("tree/link")).unwrap();
        let at = |path: &str| home.join(path).display().to_string();
        let inside = |path: &str| format!("{name}/{path}");

        desk.run(&[
            "file",
            "push",
            &at("big"),
            &inside("root/big"),
            "--mode",
            "640",
            "--uid",
            "5",
            "--gid",
            "6",
        ])
        .ok();
        assert_eq!(desk.lab.sh(&name, "stat -c '%a %u %g %s' /root/big"), "640 5 6 3000000");
        desk.run(&["file", "pull", &inside("root/big"), &at("back")]).ok();
        assert!(std::fs::read(home.join("back")).unwrap() == content, "the file that came back is another");
        desk.fed(&["file", "push", "-", &inside("root/fed")], "from stdin").ok();
        assert_eq!(desk.run(&["file", "pull", &inside("root/fed"), "-"]).ok(), "from stdin");
        // The folder is there, for the two clients differ in what they make of one that is not.
        desk.lab.sh(&name, "mkdir -p /srv/deep");
        desk.run(&["file", "push", "-r", "-p", &at("tree"), &inside("srv/deep/")]).ok();
        assert_eq!(
            desk.lab.sh(&name, "cat /srv/deep/tree/below/leaf; readlink /srv/deep/tree/link"),
            "greenbelow/leaf"
        );
        std::fs::create_dir(home.join("out")).unwrap();
        desk.run(&["file", "pull", "-r", &inside("srv/deep/tree"), &at("out")]).ok();
        assert_eq!(std::fs::read_to_string(home.join("out/tree/below/leaf")).unwrap(), "green");
        desk.run(&["file", "delete", &inside("root/fed")]).ok();
        assert!(!desk.run(&["file", "pull", &inside("root/fed"), "-"]).refused().is_empty());

        desk.run(&["stop", "--force", &name]).ok();
        assert_eq!(desk.run(&["file", "pull", &inside("srv/deep/tree/below/leaf"), "-"]).ok(), "green");
        desk.fed(&["file", "push", "-", &inside("root/while-stopped")], "asleep").ok();
        desk.run(&["start", &name]).ok();
        assert_eq!(
            desk.lab.sh(&name, "cat /root/while-stopped; stat -c ' %u %g' /root/while-stopped"),
            "asleep 0 0"
        );
        desk.delete(&name);
    });
}

#[test]
fn it_reads_the_console_and_the_log() {
    each("console", |desk| {
        let name = desk.launch("one");
        desk.run(&["exec", &name, "--", "sh", "-c", "echo spoken-on-the-console >/dev/console"]).ok();
        until_true("the line to be in the console's log", 10, || {
            desk.run(&["console", "--show-log", &name]).ok().contains("spoken-on-the-console")
        });
        let info = desk.run(&["info", "--show-log", &name]).ok();
        assert!(info.contains("init is process"), "{info}");
        desk.delete(&name);
    });
}

#[test]
fn it_takes_part_in_the_console_and_leaves_it() {
    each("attach", |desk| {
        let name = desk.launch("one");
        let init = desk.lab.init_pid(&name);
        let mut typist = desk.sit_at(&format!("console {name}"));
        typist.types_until("echo sum-$((40 + 2))\n", "sum-42");
        until_true("the size of the window inside", 20, || {
            desk.lab.sh(&name, "stty size </dev/console") == "37 101"
        });
        let shown = typist.leaves_with("\x01q");
        assert!(shown.contains("<ctrl>+a q"), "it does not say how to leave: {shown}");
        assert_eq!((desk.lab.status(&name).as_str(), desk.lab.init_pid(&name)), ("Running", init));
        // Whoever comes next finds the same shell.
        let mut again = desk.sit_at(&format!("console {name}"));
        again.types_until("echo more-$((50 + 2))\n", "more-52");
        drop(again.leaves_with("\x01q"));
        desk.delete(&name);
    });
}

#[test]
fn it_keeps_images() {
    each("image", |desk| {
        let files = cabin_tests::images::files("busybox");
        let fingerprint = desk.run(&["image", "list", "-f", "json", "busybox"]).json()[0]["fingerprint"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert_eq!(fingerprint.len(), 64);
        let home = desk.lab.home().join(&desk.prefix);
        std::fs::create_dir_all(&home).unwrap();
        let target = home.join("out").display().to_string();
        desk.run(&["image", "export", "busybox", &target]).ok();
        let exported: Vec<Vec<u8>> = {
            let mut paths: Vec<_> =
                std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path()).collect();
            paths.sort_by_key(|path| path.extension().is_some_and(|it| it == "root" || it == "squashfs"));
            paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
        };
        let kept: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
        assert!(exported == kept, "the exported bytes are not the imported ones");

        let alias = desk.name("alias");
        desk.run(&["image", "alias", "create", &alias, &fingerprint]).ok();
        assert!(desk.run(&["image", "alias", "list", "-f", "csv"]).ok().contains(&alias));
        let info = desk.run(&["image", "info", &alias]).ok();
        assert!(info.contains(&fingerprint), "{info}");
        let renamed = desk.name("renamed");
        desk.run(&["image", "alias", "rename", &alias, &renamed]).ok();
        desk.run(&["image", "set-property", &renamed, "note", "kept"]).ok();
        assert_eq!(desk.run(&["image", "get-property", &renamed, "note"]).ok(), "kept");
        desk.run(&["image", "alias", "delete", &renamed]).ok();
    });
}

/// Deleting an image takes it away from every other test, so this one has a daemon of its own.
#[test]
fn it_imports_and_deletes_images() {
    let lab = Arc::new(Lab::own());
    for desk in Desk::all(&lab, "import") {
        let files = cabin_tests::images::files("busybox");
        let mut words = vec!["image".to_owned(), "import".to_owned()];
        words.extend(files.iter().map(|path| path.display().to_string()));
        words.extend(["--alias".to_owned(), "bb".to_owned(), "note=own".to_owned()]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = desk.run(&words).ok();
        assert!(said.contains("fingerprint"), "{said}");
        assert_eq!(desk.run(&["image", "get-property", "bb", "note"]).ok(), "own");
        desk.run(&["launch", "bb", "one"]).ok();
        assert_eq!(desk.run(&["exec", "one", "--", "echo", "here"]).ok(), "here");
        desk.run(&["image", "delete", "bb"]).ok();
        assert_eq!(desk.run(&["exec", "one", "--", "echo", "still"]).ok(), "still");
        desk.run(&["restart", "--force", "one"]).ok();
        desk.delete("one");
        assert_eq!(desk.run(&["image", "list", "-f", "csv"]).ok(), "");
    }
}

#[test]
fn it_shows_networks_and_pools() {
    each("host", |desk| {
        let name = desk.launch("one");
        desk.lab.wait_address(&name, 20);
        assert!(desk.run(&["network", "list", "-f", "csv"]).ok().contains("cabinbr0,bridge,YES"));
        assert!(desk.run(&["network", "show", "cabinbr0"]).ok().contains("ipv4.address:"));
        assert!(desk.run(&["network", "info", "cabinbr0"]).ok().contains("MAC address:"));
        // The name server writes a lease down a moment after it has given it.
        until_true("the lease among those of the network", 10, || {
            desk.run(&["network", "list-leases", "cabinbr0", "-f", "csv"]).ok().contains(&name)
        });
        assert!(desk.run(&["network", "get", "cabinbr0", "ipv4.address"]).ok().contains('/'));
        assert!(desk.run(&["storage", "list", "-f", "csv"]).ok().contains("default,"));
        assert!(desk.run(&["storage", "show", "default"]).ok().contains("driver: overlay"));
        assert!(desk.run(&["storage", "info", "default"]).ok().contains("total space:"));
        assert!(desk.run(&["storage", "volume", "list", "default", "-f", "csv"]).ok().contains(&name));
        desk.delete(&name);
    });
}

#[test]
fn it_follows_events() {
    each("monitor", |desk| {
        let mut command =
            desk.lab.command(&desk.program(), &["monitor", "--type", "lifecycle", "--format", "json"]);
        let mut monitor = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        // The listener is there once it hears of a change that is made again and again until then.
        let quick = desk.name("quick");
        until_true("an event of a new profile", 20, || {
            desk.run(&["profile", "create", &quick]).ok();
            desk.run(&["profile", "delete", &quick]).ok();
            told.try_iter().any(|line| line.contains("profile-created") && line.contains(&quick))
        });
        let name = desk.launch("one");
        until_true("the event of its start", 20, || {
            told.try_iter().any(|line| line.contains("instance-started") && line.contains(&name))
        });
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        desk.delete(&name);
    });
}

#[test]
fn it_asks_the_api_as_it_is() {
    each("query", |desk| {
        let server = desk.run(&["query", "/1.0"]).json();
        assert_eq!((&server["api_version"], &server["auth"]), (&"1.0".into(), &"trusted".into()));
        let name = desk.name("one");
        let body =
            format!(r#"{{"name":"{name}","source":{{"type":"image","alias":"busybox"}},"start":true}}"#);
        desk.run(&["query", "-X", "POST", "-d", &body, "--wait", "/1.0/instances"]).ok();
        let state = desk.run(&["query", &format!("/1.0/instances/{name}/state")]).json();
        assert_eq!(state["status"], "Running");
        assert!(desk.run(&["query", "/1.0/instances/none"]).refused().contains("not found"));
        desk.delete(&name);
    });
}

#[test]
fn it_is_told_what_the_server_is() {
    each("server", |desk| {
        let info = desk.run(&["info"]).ok().replace('\'', "\"");
        for word in ["api_extensions", "api_version: \"1.0\"", "auth: trusted", "server_name:"] {
            assert!(info.contains(word), "no `{word}` in\n{info}");
        }
        let _ = desk.run(&["version"]).ok();
        assert!(desk.run(&["project", "list", "-f", "csv"]).ok().contains("default"));
        let _ = desk.run(&["operation", "list", "-f", "csv"]).ok();
        let _ = desk.run(&["warning", "list", "-f", "csv"]).ok();
        let _ = desk.run(&["config", "show"]).ok();
        if desk.stock.is_some() {
            let _ = desk.run(&["remote", "list"]).ok();
        }
    });
}

#[test]
fn it_exports_imports_publishes_and_rebuilds() {
    each("files", |desk| {
        let name = desk.launch("one");
        let _ = desk.run(&["exec", &name, "--", "sh", "-c", "echo mine >/root/note"]).ok();
        let _ = desk.run(&["snapshot", "create", &name, "s0"]).ok();
        let file = desk.lab.home().join(format!("{name}.tar.zst")).display().to_string();
        // Running, with snapshots; by the newer client in one stream, by the older one as a kept backup.
        let _ = desk.run(&["export", &name, &file]).ok();
        let left = desk.lab.get(&format!("/1.0/instances/{name}/backups"));
        assert_eq!(left, serde_json::json!([]), "the client deletes what it has fetched");
        let plain = format!("{file}.plain");
        let _ = desk.run(&["export", &name, &plain, "--instance-only", "--compression", "none"]).ok();
        let (again, bare) = (desk.name("again"), desk.name("bare"));
        let _ = desk.run(&["import", &file, &again, "--storage", "default"]).ok();
        let _ = desk.run(&["import", &plain, &bare]).ok();
        let _ = desk.run(&["start", &again]).ok();
        assert_eq!(desk.run(&["exec", &again, "--", "cat", "/root/note"]).ok(), "mine");
        let csv = desk.run(&["list", "-f", "csv", "-c", "nS", &again]).ok();
        assert_eq!(csv, format!("{again},1"));
        let csv = desk.run(&["list", "-f", "csv", "-c", "nS", &bare]).ok();
        assert_eq!(csv, format!("{bare},0"));

        let alias = desk.name("image");
        let refused = desk.run(&["publish", &name, "--alias", &alias]).refused();
        assert!(refused.contains("running"), "{refused}");
        let _ = desk.run(&["publish", &name, "--force", "--alias", &alias, "--public", "os=mine"]).ok();
        assert_eq!(desk.lab.status(&name), "Running");
        let shown = desk.run(&["image", "show", &alias]).ok();
        assert!(shown.contains("os: mine") && shown.contains("public: true"), "{shown}");
        let from = format!("{name}/s0");
        let second = format!("{alias}-s0");
        let _ = desk.run(&["publish", &from, "--alias", &second, "--compression", "xz"]).ok();

        let _ = desk.run(&["exec", &again, "--", "sh", "-c", "echo lost >/root/lost"]).ok();
        let refused = desk.run(&["rebuild", "busybox", &again]).refused();
        assert!(refused.contains("running"), "{refused}");
        let _ = desk.run(&["rebuild", &alias, &again, "--force"]).ok();
        if desk.lab.status(&again) != "Running" {
            let _ = desk.run(&["start", &again]).ok();
        }
        assert_eq!(desk.run(&["exec", &again, "--", "ls", "/root"]).ok(), "note");
        let _ = desk.run(&["snapshot", "restore", &again, "s0"]).ok();
        let _ = desk.run(&["stop", "--force", &again]).ok();
        let _ = desk.run(&["rebuild", "--empty", &again]).ok();
        for image in [&alias, &second] {
            let _ = desk.run(&["image", "delete", image]).ok();
        }
        for instance in [&name, &again, &bare] {
            desk.delete(instance);
        }
    });
}
