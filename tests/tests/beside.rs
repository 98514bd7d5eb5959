//! Several daemons on one host, a daemon with nothing set up, and the stock client's way of setting one up.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use cabin_tests::cli::{host, run};
use cabin_tests::clients::Stock;
use cabin_tests::daemon::Daemon;
use cabin_tests::lab::Lab;
use cabin_tests::wait::until_true;

#[test]
fn two_daemons_share_a_host() {
    let (one, two) = (Lab::own(), Lab::own());
    for lab in [&one, &two] {
        lab.busybox("same-name");
    }
    assert_ne!(one.init_pid("same-name"), two.init_pid("same-name"));
    one.cabin(&["delete", "-f", "same-name"]).ok();
    assert_eq!(two.sh("same-name", "echo still here"), "still here");
    drop(one);
    assert_eq!(two.sh("same-name", "echo still here"), "still here");
}

#[test]
fn a_daemon_beside_others_makes_a_bridge_of_another_name() {
    let taken = |netns: &str| {
        for name in ["cabinbr0", "cabinbr1"] {
            cabin_tests::cli::host(&["ip", "-n", netns, "link", "add", name, "type", "bridge"]).ok();
        }
    };
    let fresh = Daemon::start_in(&[], taken);
    let bare = Daemon::start_in(&["--bare"], taken);
    bare.cabin(&["admin", "init", "--auto"]).ok();
    for daemon in [fresh, bare] {
        assert_eq!(daemon.get("/1.0/profiles/default")["devices"]["eth0"]["network"], "cabinbr2");
        assert_eq!(daemon.get("/1.0/networks/cabinbr2")["managed"], true);
        assert_eq!(daemon.get("/1.0/networks/cabinbr0")["managed"], false);
        for name in ["cabinbr0", "cabinbr1"] {
            cabin_tests::cli::host(&["ip", "-n", &daemon.netns, "link", "delete", name]).ok();
        }
    }
}

#[test]
fn a_bare_daemon_has_nothing_set_up() {
    let daemon = Daemon::start_with(&["--bare"]);
    assert_eq!(daemon.get("/1.0/storage-pools"), serde_json::json!([]));
    let managed = daemon.get("/1.0/networks?recursion=1");
    assert!(managed.as_array().unwrap().iter().all(|it| it["managed"] == false), "{managed}");
    assert_eq!(daemon.get("/1.0/profiles/default")["devices"], serde_json::json!({}));
}

#[test]
fn the_stock_client_sets_up_a_bare_daemon() {
    for stock in Stock::ALL {
        let daemon = Daemon::start_with(&["--bare"]);
        stock.run(&daemon, &["admin", "init", "--auto"]).ok();
        let pools = stock.run(&daemon, &["storage", "list", "-f", "csv"]).ok();
        assert!(pools.contains("default,dir"), "{pools}");
        let profile = stock.run(&daemon, &["profile", "show", "default"]).ok();
        assert!(profile.contains("pool: default") && profile.contains("network:"), "{profile}");
        // Where a pool lies depends on the daemon's directory; the rest must come out as it went in.
        let dump = |of: &Daemon| {
            let text = stock.run(of, &["admin", "init", "--dump"]).ok();
            let lines: Vec<&str> = text.lines().filter(|line| !line.contains("source:")).collect();
            lines.join("\n")
        };
        let first = dump(&daemon);
        assert!(first.contains("storage_pools:") && first.contains("profiles:"), "{first}");

        let again = Daemon::start_with(&["--bare"]);
        stock.run_with(&again, &["admin", "init", "--preseed"], first.as_bytes()).ok();
        assert_eq!(dump(&again), first);
    }
}

#[test]
fn an_instance_lives_on_a_dir_pool() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["storage", "create", "plain", "dir"]).ok();
    lab.cabin(&["launch", "busybox", "settler", "-s", "plain"]).ok();
    lab.sh("settler", "echo kept >/root/kept");
    lab.cabin(&["restart", "-f", "settler"]).ok();
    assert_eq!(lab.sh("settler", "cat /root/kept; stat -c '%u %g' /root/kept"), "kept\n0 0");
    let root = lab.dir.join("containers/settler");
    assert!(root.exists(), "{} is missing", root.display());
    assert!(lab.cabin(&["storage", "delete", "plain"]).refused().contains("use"));
    lab.cabin(&["delete", "-f", "settler"]).ok();
    lab.cabin(&["storage", "delete", "plain"]).ok();
    assert!(!lab.dir.join("storage-pools/plain").exists());
}

#[test]
fn nobody_but_root_may_look_into_the_state() {
    use std::os::unix::fs::MetadataExt as _;
    let lab = Lab::shared();
    lab.busybox("private");
    let mode = |path: &str| std::fs::metadata(lab.dir.join(path)).unwrap().mode() & 0o777;
    assert_eq!(mode("storage-pools/default") & 0o077, 0);
    let home = lab.dir.display().to_string();
    let find =
        format!("find {home}/storage-pools {home}/images {home}/containers -type f 2>/dev/null | head");
    let seen = run(std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["sh", "-c", &find]));
    assert_eq!(seen.out, "", "a stranger finds files");
    lab.cabin(&["delete", "-f", "private"]).ok();
}

#[test]
fn a_daemon_is_only_activated_when_it_has_work() {
    let mut lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "later"]).ok();
    lab.cabin(&["storage", "volume", "create", "default", "later"]).ok();
    assert!(!is_woken(&mut lab), "nothing is to be done");
    for words in [&["storage", "volume", "set", "default", "later"][..], &["config", "set", "later"]] {
        lab.cabin(&[words, &["snapshots.schedule=@daily"]].concat()).ok();
        assert!(is_woken(&mut lab), "after {words:?}");
        lab.cabin(&[words, &["snapshots.schedule=@never"]].concat()).ok();
    }
    assert!(!is_woken(&mut lab), "nothing is to be done any more");
    // One that runs has the database for itself: it is not read, nor waited for.
    let (dir, cabind) = (lab.dir.display().to_string(), cabin_tests::binary("cabind").display().to_string());
    host(&["timeout", "5", &cabind, "--dir", &dir, "activateifneeded"]).ok();
    lab.cabin(&["config", "set", "later", "boot.autostart=true"]).ok();
    assert!(is_woken(&mut lab), "it is to be started");
    lab.wait_status("later", "Running", 20);
}

/// Whether somebody knocks at the socket of a daemon that is not there, when `activateifneeded` is run at boot.
fn is_woken(lab: &mut Lab) -> bool {
    lab.daemon_mut().terminate();
    let listener = UnixListener::bind(lab.socket()).unwrap();
    let asked = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        // Who only knocks, as we do below, says nothing.
        client.read(&mut [0; 16]).unwrap() > 0
    });
    let net = format!("--net=/run/netns/{}", lab.netns);
    let (dir, cabind) = (lab.dir.display().to_string(), cabin_tests::binary("cabind").display().to_string());
    let _ = host(&["nsenter", &net, &cabind, "--dir", &dir, "activateifneeded"]);
    drop(UnixStream::connect(lab.socket()));
    let woken = asked.join().unwrap();
    std::fs::remove_file(lab.socket()).unwrap();
    lab.daemon_mut().boot();
    woken
}

#[test]
fn a_socket_of_the_dead_is_taken_and_one_of_the_living_is_left_alone() {
    let mut lab = Lab::own();
    lab.daemon_mut().crash();
    let socket = lab.socket().display().to_string();
    // A process listens, and dies while a child that it just made has the socket as well.
    let script = "use Socket; $^F = 100; unlink $ARGV[0]; socket(S, PF_UNIX, SOCK_STREAM, 0); \
                  bind(S, sockaddr_un($ARGV[0])); listen(S, 5); if (my $child = fork) { print $child; exit } \
                  open(STDOUT, '>/dev/null'); open(STDERR, '>/dev/null'); exec 'sleep', '600'";
    let child = host(&["perl", "-e", script, &socket]).ok();
    assert!(UnixStream::connect(lab.socket()).is_ok(), "nobody has it");
    let net = format!("--net=/run/netns/{}", lab.netns);
    let (dir, cabind) = (lab.dir.display().to_string(), cabin_tests::binary("cabind").display().to_string());
    let words = ["nsenter", &net, "unshare", "--mount", "timeout", "20", &cabind, "--dir", &dir];
    // Who connects before it has another socket waits for the one that never answers.
    let old = std::fs::metadata(lab.socket()).unwrap().ino();
    let mut daemon = std::process::Command::new(words[0]).args(&words[1..]).spawn().unwrap();
    until_true("a socket that answers", 20, || {
        assert!(daemon.try_wait().unwrap().is_none(), "the daemon ended");
        std::fs::metadata(lab.socket()).is_ok_and(|it| it.ino() != old)
    });
    assert_eq!(lab.cabin(&["list", "-f", "json"]).ok().trim(), "[]");
    host(&["kill", "-KILL", child.trim()]).ok();
    host(&["kill", "-TERM", &daemon.id().to_string()]).ok();
    daemon.wait().unwrap();
    let listener = UnixListener::bind(lab.socket()).unwrap();
    let said = host(&words);
    assert!(said.code == 1 && format!("{said:?}").contains("another daemon answers"), "{said:?}");
    assert!(listener.accept().is_ok());
    std::fs::remove_file(lab.socket()).unwrap();
    lab.daemon_mut().boot();
}
