//! Files of instances over HTTP, running and stopped, and links that point out of them.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use cabin_tests::api;
use cabin_tests::lab::Lab;
use cabin_tests::subject::Subject;
use cabin_tests::wait::until_true;
use serde_json::{Value, json};

fn put(lab: &Lab, name: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> api::Reply {
    let target = format!("/1.0/instances/{name}/files?path={path}");
    api::send(&lab.socket(), "POST", &target, headers, body).unwrap()
}

fn get(lab: &Lab, name: &str, path: &str) -> api::Reply {
    lab.call("GET", &format!("/1.0/instances/{name}/files?path={path}"), None)
}

#[test]
fn files_keep_their_content_owner_and_mode() {
    let lab = Lab::shared();
    lab.busybox("desk");
    for running in [true, false] {
        if !running {
            lab.cabin(&["stop", "-f", "desk"]).ok();
        }
        let path = if running { "/root/warm" } else { "/root/cold" };
        let headers = [
            ("X-Incus-uid", "12"),
            ("X-Incus-gid", "34"),
            ("X-Incus-mode", "0640"),
            ("X-Incus-type", "file"),
        ];
        assert_eq!(put(&lab, "desk", path, &headers, b"content").status, 200);
        let back = get(&lab, "desk", path);
        assert_eq!(back.text(), "content");
        let header = |name: &str| back.header(name).unwrap_or_default().to_owned();
        assert_eq!((header("x-incus-uid"), header("x-incus-gid")), ("12".to_owned(), "34".to_owned()));
        assert_eq!((header("x-incus-mode"), header("x-incus-type")), ("0640".to_owned(), "file".to_owned()));
        assert_eq!(header("x-lxd-type"), "file");

        let append = [("X-Incus-write", "append"), ("X-Incus-type", "file")];
        assert_eq!(put(&lab, "desk", path, &append, b" and more").status, 200);
        assert_eq!(get(&lab, "desk", path).text(), "content and more");

        let folder = format!("{path}-dir");
        assert_eq!(put(&lab, "desk", &folder, &[("X-Incus-type", "directory")], b"").status, 200);
        assert_eq!(
            put(&lab, "desk", &format!("{folder}/leaf"), &[("X-Incus-type", "file")], b"x").status,
            200
        );
        let listed = get(&lab, "desk", &folder);
        assert_eq!(listed.header("x-incus-type"), Some("directory"));
        assert_eq!(listed.json()["metadata"], serde_json::json!(["leaf"]));

        let target = format!("/1.0/instances/desk/files?path={path}");
        assert_eq!(lab.call("DELETE", &target, None).status, 200);
        assert_eq!(get(&lab, "desk", path).status, 404);
        let target = format!("/1.0/instances/desk/files?path={folder}");
        assert_ne!(lab.call("DELETE", &target, None).status, 200, "a folder that is not empty");
        let forced = api::send(&lab.socket(), "DELETE", &target, &[("X-Incus-force", "true")], b"").unwrap();
        assert_eq!(forced.status, 200, "{}", forced.text());
    }
    lab.cabin(&["delete", "desk"]).ok();
}

#[test]
fn a_file_is_described_without_its_content_and_links_are_made_as_clients_of_both_families_ask() {
    let lab = Lab::shared();
    lab.busybox("both");
    let lxd = [("X-LXD-uid", "12"), ("X-LXD-gid", "34"), ("X-LXD-mode", "0604"), ("X-LXD-type", "file")];
    assert_eq!(put(&lab, "both", "/root/file", &lxd, b"content").status, 200);
    assert_eq!(put(&lab, "both", "/root/file", &[("X-LXD-write", "append")], b" more").status, 200);
    assert_eq!(lab.sh("both", "stat -c '%u %g %a' /root/file; cat /root/file"), "12 34 604\ncontent more");
    let head = lab.call("HEAD", "/1.0/instances/both/files?path=/root/file", None);
    assert_eq!((head.status, head.body.len()), (200, 0), "{}", head.text());
    for family in ["x-incus", "x-lxd"] {
        let told = |what: &str| head.header(&format!("{family}-{what}")).unwrap_or_default().to_owned();
        assert_eq!(["uid", "gid", "mode", "type"].map(told), ["12", "34", "0604", "file"], "{family}");
    }
    assert_eq!(lab.call("HEAD", "/1.0/instances/both/files?path=/root/none", None).status, 404);
    let owner = |family: &str| ["uid", "gid"].map(|what| format!("{family}-{what}"));
    for (path, family) in [("/root/own", "X-Incus"), ("/root/lxds", "X-LXD"), ("/root/nowhere", "X-Incus")] {
        let (kind, [uid, gid]) = (format!("{family}-type"), owner(family));
        let target = if path == "/root/nowhere" { "/root/none" } else { "/root/file" };
        let headers = [(kind.as_str(), "symlink"), (uid.as_str(), "56"), (gid.as_str(), "78")];
        assert_eq!(put(&lab, "both", path, &headers, target.as_bytes()).status, 200);
        assert_eq!(
            lab.sh("both", &format!("stat -c '%u %g' {path}; readlink {path}")),
            format!("56 78\n{target}")
        );
    }
    let one = [("X-Incus-type", "symlink"), ("X-Incus-gid", "9")];
    assert_eq!(put(&lab, "both", "/root/groups", &one, b"/root/file").status, 200);
    assert_eq!(lab.sh("both", "stat -c '%u %g' /root/groups /root/file"), "0 9\n12 34");
    for (family, path) in [("X-Incus-type", "/root/link"), ("X-LXD-type", "/root/another")] {
        assert_eq!(put(&lab, "both", path, &[(family, "symlink")], b"/root/file").status, 200);
        assert_eq!(lab.sh("both", &format!("readlink {path}")), "/root/file");
        let link = get(&lab, "both", path);
        assert_eq!((link.header("x-incus-type"), link.text().as_str()), (Some("symlink"), "/root/file"));
    }
    lab.cabin(&["delete", "-f", "both"]).ok();
}

#[test]
fn links_lead_to_the_instances_own_files() {
    let lab = Lab::shared();
    lab.busybox("links");
    let secret = lab.home().join("secret");
    std::fs::write(&secret, "of the host").unwrap();
    let place = lab.home().display().to_string();
    lab.sh(
        "links",
        &format!("mkdir -p /srv; ln -s {place} /srv/out; ln -s /etc/hostname /srv/name; ln -s / /srv/top"),
    );
    lab.sh("links", "ln -s ../../../../../../../../.. /srv/up; ln -s /proc/1/root /srv/proc");
    for running in [true, false] {
        if !running {
            lab.cabin(&["stop", "-f", "links"]).ok();
        }
        for path in ["/srv/out/secret", &format!("/srv/up{place}/secret"), &format!("/srv/top{place}/secret")]
        {
            assert_ne!(get(&lab, "links", path).text(), "of the host", "{path} left the instance");
            let written = put(&lab, "links", path, &[("X-Incus-type", "file")], b"mine");
            assert_eq!(
                std::fs::read_to_string(&secret).unwrap(),
                "of the host",
                "{path}: {}",
                written.text()
            );
        }
        let link = get(&lab, "links", "/srv/name");
        let as_link = link.header("x-incus-type") == Some("symlink");
        assert!(as_link || link.text().trim() == "links", "{}", link.text());
    }
    lab.cabin(&["delete", "links"]).ok();
}

#[test]
fn trees_go_in_and_come_out() {
    let lab = Lab::shared();
    lab.busybox("trees");
    let home = lab.home().join("trees");
    std::fs::create_dir_all(home.join("a/b/c")).unwrap();
    for at in 0..50 {
        std::fs::write(home.join(format!("a/b/{at}")), format!("file {at}")).unwrap();
    }
    let from = home.join("a").display().to_string();
    lab.cabin(&["file", "push", "-r", &from, "trees/root/"]).ok();
    assert_eq!(lab.sh("trees", "ls /root/a/b | wc -l; cat /root/a/b/49"), "51\nfile 49");
    let back = home.join("back").display().to_string();
    std::fs::create_dir(&back).unwrap();
    lab.cabin(&["file", "pull", "-r", "trees/root/a", &back]).ok();
    cabin_tests::cli::host(&["diff", "-r", &from, &format!("{back}/a")]).ok();
    lab.cabin(&["delete", "-f", "trees"]).ok();
}

/// Mounts with `cabin`'s words, looks, and takes it away by the way given.
fn mounted(lab: &Lab, words: &[&str], end: impl Fn(&str, u32), look: impl Fn(&std::path::Path)) {
    let target = lab.home().join(format!("mounted-{}", words.join("-").replace('/', "_")));
    std::fs::create_dir(&target).unwrap();
    let shown = target.display().to_string();
    let words = [words, &[shown.as_str()]].concat();
    let mut client = lab.command(&cabin_tests::binary("cabin"), &words).spawn().unwrap();
    let is_mounted = || std::fs::read_to_string("/proc/self/mounts").unwrap().contains(&shown);
    until_true("the mount", 20, || is_mounted() || client.try_wait().unwrap().is_some());
    look(&target);
    end(&shown, client.id());
    let ended = client.wait().unwrap();
    assert!(!is_mounted() && ended.success(), "{ended}");
}

#[test]
fn files_are_mounted_where_somebody_wants_them() {
    let lab = Lab::shared();
    lab.busybox("mounted");
    let unmount = |target: &str, _: u32| drop(cabin_tests::cli::host(&["fusermount3", "-u", target]).ok());
    let interrupt = |_: &str, client: u32| {
        // To all who have the terminal, as Ctrl-C does.
        let children = std::fs::read_to_string(format!("/proc/{client}/task/{client}/children")).unwrap();
        for pid in children.split_whitespace().chain([client.to_string().as_str()]) {
            cabin_tests::cli::host(&["kill", "-INT", pid]).ok();
        }
    };
    mounted(&lab, &["file", "mount", "mounted/root"], unmount, |at| {
        std::fs::write(at.join("in"), "by mount").unwrap();
        assert_eq!(lab.sh("mounted", "cat /root/in; echo back >/root/out"), "by mount");
        assert_eq!(std::fs::read_to_string(at.join("out")).unwrap(), "back\n");
    });
    lab.cabin(&["stop", "-f", "mounted"]).ok();
    mounted(&lab, &["file", "mount", "mounted"], interrupt, |at| {
        assert_eq!(std::fs::read_to_string(at.join("root/in")).unwrap(), "by mount");
    });
    lab.cabin(&["storage", "volume", "create", "default", "mounted"]).ok();
    mounted(&lab, &["storage", "volume", "file", "mount", "default", "mounted/"], unmount, |at| {
        std::fs::create_dir(at.join("dir")).unwrap();
    });
    let refused = lab.cabin(&["file", "mount", "nobody/", &lab.home().display().to_string()]).refused();
    assert!(refused.contains("nobody") && refused.contains("not found"), "{refused}");
    lab.cabin(&["storage", "volume", "delete", "default", "mounted"]).ok();
    lab.cabin(&["delete", "mounted"]).ok();
}

#[test]
fn what_is_being_written_in_a_volume_goes_with_it() {
    let lab = Lab::shared();
    lab.cabin(&["storage", "volume", "create", "default", "wet"]).ok();
    lab.cabin(&["storage", "create", "wetter", "dir"]).ok();
    let volume = "/1.0/storage-pools/default/volumes/custom/wet";
    let mut upload = UnixStream::connect(lab.socket()).unwrap();
    let head = format!(
        "POST {volume}/files?path=/f HTTP/1.1\r\nHost: cabin\r\nConnection: close\r\nContent-Length: 2\r\n\r\no"
    );
    upload.write_all(head.as_bytes()).unwrap();
    until_true("the file to begin", 20, || {
        lab.dir.join("storage-pools/default/custom/wet/rootfs/f").exists()
    });
    let moved = lab.call("POST", volume, Some(&json!({ "name": "wet", "pool": "wetter" })));
    let operation = moved.json()["operation"].as_str().expect("an operation").to_owned();
    // Far longer than it takes when nobody is in the way.
    for _ in 0..300 {
        let status = lab.get(&operation)["status"].clone();
        assert!(status == "Pending" || status == "Running", "{status}");
    }
    upload.write_all(b"k").unwrap();
    let mut answer = String::new();
    upload.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(lab.get(&format!("{operation}/wait?timeout=60"))["status"], "Success");
    let file = lab.dir.join("storage-pools/wetter/custom/wet/rootfs/f");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "ok");
    lab.cabin(&["storage", "volume", "delete", "wetter", "wet"]).ok();
    lab.cabin(&["storage", "delete", "wetter"]).ok();
}

#[test]
fn no_device_that_a_privileged_guest_made_is_opened_for_it() {
    let lab = Lab::shared();
    lab.image("busybox").launch("busybox", "mighty", &["-c", "security.privileged=true"]);
    lab.sh("mighty", "mkdir -p /root/d; mount -t tmpfs t /root/d; mknod /root/d/null c 1 3; ln -s d/null /root/link; echo x >/root/file");
    assert_eq!(lab.sh("mighty", "echo x >/root/d/null && echo it may itself"), "it may itself");
    for name in ["d/null", "link"] {
        let pushed = put(&lab, "mighty", &format!("/root/{name}"), &[], b"x");
        // Not only what it wrote could not be finished.
        assert!(pushed.text().contains("cannot open"), "{name}: {} {}", pushed.status, pushed.text());
    }
    let pulled = get(&lab, "mighty", "/root/d/null");
    assert!(pulled.status >= 400, "{} {}", pulled.status, pulled.text());
    assert_eq!(lab.cabin(&["file", "pull", "mighty/root/file", "-"]).ok(), "x");
    // Settings of the network are the guest's own.
    let forwards = "proc/sys/net/ipv4/ip_default_ttl";
    let before = cabin_tests::cli::host(&["cat", &format!("/{forwards}")]).ok();
    let mut push =
        lab.command(&cabin_tests::binary("cabin"), &["file", "push", "-", &format!("mighty/{forwards}")]);
    let _ = cabin_tests::cli::run_with(&mut push, b"77");
    assert_eq!(cabin_tests::cli::host(&["cat", &format!("/{forwards}")]).ok(), before);
    lab.cabin(&["delete", "-f", "mighty"]).ok();
}

#[test]
fn what_is_there_keeps_its_owner_and_mode() {
    let lab = Lab::shared();
    lab.busybox("keeper");
    lab.sh(
        "keeper",
        "mkdir -p /root /srv/d; echo a >/root/f; chown 5:6 /root/f; chmod 600 /root/f; \
         chown 9:9 /srv/d; chmod 1777 /srv/d; ln -s d /srv/l",
    );
    let headers = |kind: &'static str| {
        [("X-Incus-type", kind), ("X-Incus-uid", "7"), ("X-Incus-gid", "8"), ("X-Incus-mode", "0644")]
    };
    assert_eq!(put(&lab, "keeper", "/root/f", &headers("file"), b"b").status, 200);
    for place in ["/srv/d", "/srv/l"] {
        assert_eq!(put(&lab, "keeper", place, &headers("directory"), b"").status, 200);
    }
    let shown = lab.sh("keeper", "cat /root/f; echo; stat -c '%u %g %a' /root/f /srv/d");
    assert_eq!(shown, "b\n5 6 600\n9 9 1777");
    let append = [("X-Incus-type", "file"), ("X-Incus-write", "append")];
    assert_eq!(put(&lab, "keeper", "/root/none", &append, b"x").status, 404);
    assert_eq!(put(&lab, "keeper", "/root/f", &append, b"c").status, 200);
    assert_eq!(get(&lab, "keeper", "/root/f").text(), "bc");
    // Whoever says so changes it.
    let local = lab.dir.join("local");
    std::fs::write(&local, "d").unwrap();
    let local = local.display().to_string();
    let push = ["file", "push", "--uid", "7", "--gid", "8", "--mode", "640", &local, "keeper/root/f"];
    lab.cabin(&push).ok();
    assert_eq!(lab.sh("keeper", "cat /root/f; echo; stat -c '%u %g %a' /root/f"), "d\n7 8 640");
    assert_eq!(lab.cabin(&["exec", "keeper", "--env", "HOME=/srv/d", "--", "pwd"]).ok(), "/srv/d");
    lab.cabin(&["delete", "-f", "keeper"]).ok();
}

#[test]
fn the_files_of_one_that_starts_while_they_are_asked_for_are_those_it_runs_with() {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject.create("early", &json!({}));
    let moment = "files of `early`, which does not run";
    subject.arm(&format!("hold:{moment}"));
    std::thread::scope(|scope| {
        let target = "/1.0/instances/early/files?path=/dev";
        let asked = scope.spawn(|| subject.call("GET", target, None).expect("an answer").json());
        subject.wait_held(moment);
        subject.power("early", "start").expect("a start");
        assert!(subject.disarm());
        let found = asked.join().expect("the asking thread")["metadata"].clone();
        // Its root alone, mounted a second time, has no devices.
        let devices: Vec<&str> = found.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert!(devices.contains(&"null"), "{devices:?}");
    });
}

#[test]
fn a_directory_of_more_names_than_are_listed_is_refused_and_deleted_and_the_daemon_stays_small() {
    const MOST: usize = 100_000;
    let subject = Subject::start();
    let volumes = "/1.0/storage-pools/default/volumes/custom";
    subject.must("POST", volumes, &json!({ "name": "crowd" }));
    let place = subject.dir.join("storage-pools/default/custom/crowd");
    let tree = ["u", "rootfs"].map(|tree| place.join(tree)).into_iter().find(|tree| tree.is_dir());
    let many = tree.expect("the volume's tree").join("many");
    std::fs::create_dir_all(many.join("below/below")).expect("a directory");
    let name = |number: usize| many.join(format!("a-name-that-a-guest-chose-{number}"));
    for number in 1..MOST {
        std::fs::File::create(name(number)).expect("a file");
    }
    let target = format!("{volumes}/crowd/files?path=/many");
    let most_memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", subject.pid())).expect("the daemon");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a figure");
        line.trim().trim_end_matches(" kB").trim().parse::<usize>().expect("a number")
    };
    let before = most_memory();
    let listed = subject.call("GET", &target, None).expect("an answer").json();
    assert_eq!(listed["metadata"].as_array().map(Vec::len), Some(MOST));
    std::fs::File::create(name(MOST)).expect("a file");
    let refused = subject.call("GET", &target, None).expect("an answer");
    assert_eq!(refused.status, 400, "{}", refused.text().len());
    assert!(refused.error().contains("more than 100000 names"), "{}", refused.error());
    let forced = [("X-Incus-force", "true")];
    let deleted = api::send(&subject.socket(), "DELETE", &target, &forced, b"").expect("an answer");
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    assert!(!many.exists());
    let grown = most_memory() - before;
    eprintln!("a directory of {MOST} names: the daemon had {grown} KiB more at most");
    assert!(grown < 48 * 1024, "{grown} KiB");
}
