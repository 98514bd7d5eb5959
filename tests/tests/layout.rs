//! Where things lie under the state directory, as docs/storage.md says, and how a daemon is told where that is.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cabin_tests::cli::{host, run};
use cabin_tests::lab::Lab;
use cabin_tests::wait::until_true;
use cabin_tests::{api, audit, binary};
use sha2::Digest as _;

#[test]
fn what_scripts_look_for_lies_where_the_docs_say() {
    let lab = Lab::own();
    lab.image("busybox").busybox("here");
    lab.wait_address("here", 30);
    lab.exec("here", &["sh", "-c", "echo inside >/root/mark"]).ok();
    let docs = std::fs::read_to_string(cabin_tests::root().join("docs/storage.md")).unwrap();
    let fingerprint = lab.get("/1.0/images/aliases/busybox")["target"].as_str().unwrap().to_owned();
    let pid = lab.init_pid("here").to_string();
    for (told, file) in [
        ("storage-pools/POOL/", "storage-pools/default/containers/here"),
        ("containers/NAME", "containers/here/rootfs"),
        ("images/FINGERPRINT", &format!("images/{fingerprint}")),
        ("logs/NAME/", "logs/here/lxc.log"),
        ("networks/NAME/dnsmasq.leases", "networks/cabinbr0/dnsmasq.leases"),
        ("networks/NAME/dnsmasq.pid", "networks/cabinbr0/dnsmasq.pid"),
    ] {
        assert!(docs.contains(&format!("`{told}`")), "docs/storage.md does not name `{told}`");
        assert!(lab.dir.join(file).exists(), "no `{file}`");
    }
    let image = std::fs::read(lab.dir.join(format!("images/{fingerprint}"))).unwrap();
    assert_eq!(hex::encode(sha2::Sha256::digest(&image)), fingerprint, "the file is not as it came");
    assert_eq!(
        lab.dir.join("containers/here").canonicalize().unwrap(),
        lab.dir.join("storage-pools/default/containers/here")
    );
    // What a running instance sees is to be had by its init, whatever the driver.
    assert!(docs.contains("`/proc/INIT/root`"));
    let seen = std::fs::read_to_string(format!("/proc/{pid}/root/root/mark")).unwrap();
    assert_eq!(seen.trim(), "inside");
    lab.cabin(&["storage", "create", "plain", "dir"]).ok();
    lab.cabin(&["create", "busybox", "flat", "-s", "plain"]).ok();
    assert!(lab.dir.join("containers/flat/rootfs/etc/hostname").exists());
    let overlaid = std::fs::read_dir(lab.dir.join("containers/here/rootfs")).unwrap().count();
    assert_eq!(overlaid, 0, "docs/storage.md says that `rootfs` is empty on `overlay`");
    lab.cabin(&["delete", "flat"]).ok();
    lab.cabin(&["storage", "delete", "plain"]).ok();
}

/// A daemon that is given its socket and directory as a service manager does.
struct Activated {
    dir: PathBuf,
    netns: String,
    child: Child,
}

impl Activated {
    fn start() -> Activated {
        let id = std::process::id();
        let (dir, netns) = (PathBuf::from(format!("/var/tmp/cabin-test-a{id}")), format!("cbta{id}"));
        std::fs::create_dir(&dir).unwrap();
        host(&["ip", "netns", "add", &netns]).ok();
        let passed: OwnedFd = UnixListener::bind(dir.join("unix.socket")).unwrap().into();
        // The shell makes it descriptor 3, and becomes the daemon with the process id that it tells.
        let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --bare --log warn";
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{netns}"))
            .args(["sh", "-c", script])
            .arg(binary("cabind"))
            .env("CABIN_DIR", &dir)
            .stdin(Stdio::from(passed))
            .spawn()
            .unwrap();
        Activated { dir, netns, child }
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        audit::clear(&self.dir, &self.netns);
    }
}

fn inode(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |found| found.ino())
}

#[test]
fn a_daemon_serves_on_the_socket_it_is_passed_and_in_the_directory_of_its_environment() {
    let mut daemon = Activated::start();
    let socket = daemon.dir.join("unix.socket");
    let before = inode(&socket);
    until_true("the daemon to be ready", 30, || {
        assert!(daemon.child.try_wait().unwrap().is_none(), "it has ended");
        api::send(&socket, "GET", "/internal/ready", &[], b"").is_ok_and(|reply| reply.status == 200)
    });
    assert!(daemon.dir.join("database/cabin.db").exists(), "it keeps its state elsewhere");
    let ask = |dir: &Path| {
        let words = ["waitready", "--timeout", "5"];
        run(Command::new(binary("cabind")).args(words).env("CABIN_DIR", dir))
    };
    ask(&daemon.dir).ok();
    ask(Path::new("/var/tmp/cabin-test-none")).refused();
    host(&["kill", "-TERM", &daemon.child.id().to_string()]).ok();
    until_true("its end", 30, || daemon.child.try_wait().unwrap().is_some());
    assert_eq!(inode(&socket), before, "the socket is the service manager's, and not to be taken away");
    let left = audit::leftovers(&daemon.dir, &daemon.netns);
    assert!(left.is_empty(), "{left:?}");
}
