//! `cabin admin audit` tells of one thing of each kind that is left over, or that is missing.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use cabin_tests::cli::host;
use cabin_tests::lab::Lab;
use cabin_tests::wait::until_true;
use cabin_tests::{audit, binary};

/// What is found, as lines of kind, name and reason.
fn found(lab: &Lab) -> Vec<String> {
    let told = lab.cabin(&["admin", "audit", "-f", "json"]);
    let list: serde_json::Value = serde_json::from_str(&told.out).unwrap_or_default();
    let word = |it: &serde_json::Value, key: &str| it[key].as_str().unwrap_or_default().to_owned();
    let list = list.as_array().cloned().unwrap_or_default();
    let lines: Vec<String> = list
        .iter()
        .map(|it| format!("{} {} {}", word(it, "kind"), word(it, "name"), word(it, "why")))
        .collect();
    assert_eq!(told.code, i32::from(!lines.is_empty()), "{told:?}");
    lines
}

/// Something is told by these words, and nothing is any more when `mend` has been done.
#[track_caller]
fn told(lab: &Lab, words: &[&str], mend: impl FnOnce()) {
    let lines = found(lab);
    let has = lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
    mend();
    assert!(has, "nobody tells of {words:?}: {lines:?}");
    until_true("nothing to be told of", 10, || found(lab).is_empty());
}

/// A file or directory that nobody has is told of.
#[track_caller]
fn stray(lab: &Lab, place: &str, words: &[&str]) {
    let path = lab.dir.join(place);
    fs::create_dir(&path).unwrap();
    told(lab, words, || fs::remove_dir(&path).unwrap());
}

/// Something that is taken away is missed.
#[track_caller]
fn missed(lab: &Lab, place: &str, words: &[&str]) {
    let (path, aside) = (lab.dir.join(place), lab.dir.join("aside"));
    fs::rename(&path, &aside).unwrap();
    told(lab, words, || fs::rename(&aside, &path).unwrap());
}

/// The only name in a directory of the daemon's.
fn only(lab: &Lab, dir: &str) -> String {
    let names: Vec<_> = fs::read_dir(lab.dir.join(dir)).unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "{dir}: {names:?}");
    names[0].file_name().to_string_lossy().into_owned()
}

#[test]
fn trees_files_and_links_without_an_owner_are_told_of() {
    let lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "kept"]).ok();
    lab.cabin(&["snapshot", "create", "kept", "s"]).ok();
    lab.cabin(&["storage", "volume", "create", "default", "disk"]).ok();
    lab.cabin(&["storage", "volume", "snapshot", "create", "default", "disk", "s"]).ok();
    assert_eq!(found(&lab), Vec::<String>::new());
    assert_eq!(lab.cabin(&["admin", "audit", "-f", "json"]).ok().trim(), "[]");

    let pool = "storage-pools/default";
    for (place, kind) in [
        ("images", "image file"),
        ("backups", "backup"),
        ("logs", "logs"),
        ("networks", "network directory"),
        ("storage-pools", "pool directory"),
        ("storage-pools/default/containers", "tree"),
        ("storage-pools/default/containers-snapshots", "tree"),
        ("storage-pools/default/containers-snapshots/kept", "snapshot"),
        ("storage-pools/default/images", "unpacked image"),
        ("storage-pools/default/custom", "volume"),
        ("storage-pools/default/custom-snapshots/disk", "snapshot of a volume"),
        ("storage-pools/default/layers", "layer"),
    ] {
        stray(&lab, &format!("{place}/nobodys"), &[kind, "nobodys"]);
    }
    stray(&lab, "run/nobodys.sock", &["control socket", "nobodys"]);
    stray(&lab, "run/nobodys.exit", &["record", "nobodys"]);
    let link = lab.dir.join("containers/nobodys");
    symlink("/nowhere", &link).unwrap();
    told(&lab, &["link to a tree", "nobodys"], || fs::remove_file(&link).unwrap());
    // A frozen layer that would stand on itself.
    let layer = lab.dir.join(pool).join("layers/half");
    fs::create_dir(&layer).unwrap();
    fs::write(layer.with_extension("ref"), "half").unwrap();
    fs::hard_link(layer.with_extension("ref"), layer.join("below")).unwrap();
    told(&lab, &["layer", "half made"], || {
        fs::remove_dir_all(&layer).unwrap();
        fs::remove_file(layer.with_extension("ref")).unwrap();
    });
    // The ids of the instance are somebody else's by what the host's registry says.
    let of_kept = |run: &PathBuf| fs::read_to_string(run).unwrap().lines().nth(1) == Some("kept");
    let run = audit::ids(&lab.dir).into_iter().find(of_kept).unwrap();
    let text = fs::read_to_string(&run).unwrap();
    fs::write(&run, text.replace("kept", "nobodys")).unwrap();
    told(&lab, &["ids", "nobodys"], || fs::write(&run, &text).unwrap());

    lab.cabin(&["storage", "volume", "delete", "default", "disk"]).ok();
}

#[test]
fn what_a_row_names_and_is_not_there_is_missed() {
    let lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "kept"]).ok();
    lab.cabin(&["snapshot", "create", "kept", "s"]).ok();
    lab.cabin(&["storage", "volume", "create", "default", "disk"]).ok();
    lab.cabin(&["storage", "volume", "snapshot", "create", "default", "disk", "s"]).ok();
    for (place, kind) in [
        ("containers/kept", "tree"),
        ("containers-snapshots/kept/s", "snapshot"),
        ("custom/disk", "volume"),
        ("custom-snapshots/disk/s", "snapshot of a volume"),
    ] {
        missed(
            &lab,
            &format!("storage-pools/default/{place}"),
            &[kind, place.rsplit('/').next().unwrap(), "missing"],
        );
    }
    let image = fs::read_dir(lab.dir.join("images")).unwrap().flatten().next().unwrap().file_name();
    let image = image.to_string_lossy().into_owned();
    missed(&lab, &format!("images/{image}"), &["image file", &image, "missing"]);
    for (target, owner) in [
        ("/1.0/instances/kept", "kept/b"),
        ("/1.0/storage-pools/default/volumes/custom/disk", "default/disk/b"),
    ] {
        let body = serde_json::json!({ "name": "b", "compression_algorithm": "none" });
        let reply = lab.call("POST", &format!("{target}/backups"), Some(&body));
        assert_eq!(reply.status, 202, "{}", reply.text());
        let ended = format!("{}/wait?timeout=30", reply.json()["operation"].as_str().unwrap());
        assert_eq!(lab.get(&ended)["status"], "Success");
        missed(&lab, &format!("backups/{}", only(&lab, "backups")), &["backup", owner, "missing"]);
        let reply = lab.call("DELETE", &format!("{target}/backups/b"), None);
        let ended = format!("{}/wait?timeout=30", reply.json()["operation"].as_str().unwrap());
        assert_eq!(lab.get(&ended)["status"], "Success");
    }
    lab.cabin(&["storage", "volume", "delete", "default", "disk"]).ok();
}

/// A process of ours, ended when it is let go.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Process {
        Process(command.spawn().unwrap())
    }

    fn id(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn processes_mounts_and_control_groups_of_nobody_are_told_of() {
    let lab = Lab::own();
    lab.busybox("on");
    assert_eq!(found(&lab), Vec::<String>::new());
    let dir = lab.dir.display();

    let hold = format!("exec sleep 1000 3<{dir}/run");
    let holder = Process::start(Command::new("sh").args(["-c", &hold]));
    told(&lab, &["process", &holder.id(), "run directory"], || drop(holder));
    // What unpacks for a daemon that is gone and does not notice.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let unpack = format!("exec {} 3<{dir}/storage-pools", binary("cabin-unpack").display());
    let socket = Stdio::from(OwnedFd::from(theirs));
    let helper = Process::start(Command::new("sh").args(["-c", &unpack]).stdin(socket));
    let line = format!("/proc/{}/cmdline", helper.id());
    until_true("the helper to run", 5, || !fs::read_to_string(&line).unwrap().contains("exec"));
    told(&lab, &["process", &helper.id(), "cabin-unpack"], || drop(helper));
    drop(ours);
    let conf = format!("--conf-file={dir}/networks/nobodys/dnsmasq.conf");
    let server = Process::start(Command::new("sleep").arg0(conf).arg("1000"));
    told(&lab, &["name server", &server.id(), "nobodys"], || drop(server));

    for group in audit::cgroups(&lab.dir) {
        let stray = group.with_file_name("nobodys");
        fs::create_dir(&stray).unwrap();
        told(&lab, &["cgroup", "nobodys"], || fs::remove_dir(&stray).unwrap());
    }
    let place = lab.dir.join("logs/on");
    host(&["mount", "-t", "tmpfs", "tmpfs", &place.display().to_string()]).ok();
    told(&lab, &["mount", "logs/on"], || drop(host(&["umount", &place.display().to_string()]).ok()));
}

#[test]
fn links_filters_and_name_servers_are_told_of_and_missed() {
    let lab = Lab::own();
    lab.busybox("on");
    let net = format!("--net=/run/netns/{}", lab.netns);
    let bridge = "cabinbr0";
    let shown = host(&["ip", "-n", &lab.netns, "-d", "-j", "link", "show", bridge]).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let group = shown[0]["group"].as_str().unwrap().to_owned();
    for (kind, word) in [("bridge", "bridge"), ("veth", "port")] {
        host(&["ip", "-n", &lab.netns, "link", "add", "nobodys0", "group", &group, "type", kind]).ok();
        told(&lab, &[word, "nobodys0"], || {
            host(&["ip", "-n", &lab.netns, "link", "delete", "nobodys0"]).ok();
        });
    }
    // What is put right at once the first time is not as soon when it breaks again.
    let port = lab.get("/1.0/instances/on")["config"]["volatile.eth0.host_name"].clone();
    let port = port.as_str().unwrap().to_owned();
    for (name, of) in [(bridge, "network"), (port.as_str(), "port")] {
        until_true(&format!("the missing filter of {name} to be told of"), 60, || {
            host(&["nsenter", &net, "nft", "flush", "ruleset"]).ok();
            found(&lab).iter().any(|line| ["filter", name, of].iter().all(|word| line.contains(word)))
        });
        until_true("nothing to be told of", 90, || found(&lab).is_empty());
    }
    let server = format!("--conf-file={}/networks/", lab.dir.display());
    until_true("the missing name server to be told of", 60, || {
        for (pid, line) in audit::processes(&lab.dir, &lab.netns) {
            if line.contains(&server) {
                // One may be gone that was just made again.
                let _ = host(&["kill", "-KILL", &pid.to_string()]);
            }
        }
        let is_it =
            |line: &String| line.contains(&format!("name server {bridge}")) && line.contains("is missing");
        found(&lab).iter().any(is_it)
    });
    until_true("nothing to be told of", 90, || found(&lab).is_empty());
}

#[test]
fn disks_of_no_pool_are_told_of() {
    let lab = Lab::own();
    let disks = lab.dir.join("disks");
    fs::create_dir_all(&disks).unwrap();
    let disk = disks.join("nobodys.img");
    fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let device = host(&["losetup", "--find", "--show", &disk.display().to_string()]).ok();
    assert!(found(&lab).iter().any(|line| line.starts_with("disk nobodys.img")), "{:?}", found(&lab));
    told(&lab, &["loop device", device.trim()], || {
        host(&["losetup", "--detach", device.trim()]).ok();
        fs::remove_file(&disk).unwrap();
    });
}
