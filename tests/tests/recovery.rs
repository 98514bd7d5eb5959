//! The daemon goes, by crash or by order; the containers do not notice, and the next daemon takes them over.

use cabin_tests::lab::Lab;
use cabin_tests::subject::Subject;
use cabin_tests::sweep::{Again, Tally, kill_each};
use cabin_tests::verbs::{self, Verb};

#[test]
fn containers_outlive_a_crash_of_the_daemon_and_are_adopted() {
    outlived_by_containers(|lab| lab.daemon_mut().crash());
}

#[test]
fn containers_outlive_an_orderly_end_of_the_daemon_and_are_adopted() {
    outlived_by_containers(|lab| lab.daemon_mut().terminate());
}

fn outlived_by_containers(end: impl Fn(&mut Lab)) {
    let mut lab = Lab::own();
    lab.busybox("survivor").busybox("sleeper");
    lab.cabin(&["stop", "-f", "sleeper"]).ok();
    let address = lab.wait_address("survivor", 20);
    let init = lab.init_pid("survivor");
    lab.sh("survivor", "echo before >/run/mark");
    end(&mut lab);
    assert!(std::path::Path::new(&format!("/proc/{init}")).exists(), "its init ended with the daemon");
    lab.daemon_mut().boot();

    assert_eq!(lab.init_pid("survivor"), init);
    assert_eq!((lab.status("survivor"), lab.status("sleeper")), ("Running".into(), "Stopped".into()));
    assert_eq!(lab.sh("survivor", "cat /run/mark"), "before");
    assert_eq!(lab.wait_address("survivor", 20), address);
    lab.cabin(&["config", "set", "survivor", "limits.memory=64MiB"]).ok();
    assert_eq!(lab.exec("survivor", &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]).code, 137);
    lab.cabin(&["restart", "survivor"]).ok();
    assert_ne!(lab.init_pid("survivor"), init);
    lab.cabin(&["start", "sleeper"]).ok();
    lab.cabin(&["delete", "-f", "survivor", "sleeper"]).ok();
}

#[test]
fn a_container_that_ends_while_nobody_looks_is_found_stopped() {
    let mut lab = Lab::own();
    lab.busybox("ghost");
    let init = lab.init_pid("ghost");
    lab.daemon_mut().crash();
    cabin_tests::cli::host(&["kill", "-KILL", &init.to_string()]).ok();
    lab.daemon_mut().boot();
    lab.wait_status("ghost", "Stopped", 10);
    lab.cabin(&["start", "ghost"]).ok();
    assert_eq!(lab.status("ghost"), "Running");
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let mut lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "kept", "-c", "user.note=written"]).ok();
    lab.cabin(&["profile", "create", "kept-too"]).ok();
    lab.daemon_mut().crash();
    lab.daemon_mut().boot();
    assert_eq!(lab.get("/1.0/instances/kept")["config"]["user.note"], "written");
    assert_eq!(lab.get("/1.0/profiles/kept-too")["name"], "kept-too");
    lab.cabin(&["start", "kept"]).ok();
}

#[test]
fn many_readers_at_once_are_all_answered() {
    let lab = Lab::shared();
    let pid = lab.pid();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(lab.call("GET", "/1.0/instances?recursion=2", None).status, 200);
                }
            });
        }
    });
    assert_eq!(lab.pid(), pid);
    assert_eq!(lab.call("GET", "/1.0", None).status, 200);
}

fn swept(what: &str, verbs: &[Verb], again: Again) {
    let mut subject = Subject::start();
    subject.import("busybox").expect("the image");
    let mut tally = Tally::default();
    kill_each(&mut subject, verbs, again, &mut tally);
    tally.close(what);
}

#[test]
fn a_daemon_that_dies_in_an_instances_life_leaves_the_old_or_the_new() {
    swept("deaths in an instance's life", verbs::LIFE, Again::Once);
}

#[test]
fn a_daemon_that_dies_changing_a_running_instance_leaves_the_old_or_the_new() {
    swept("deaths in changes of running instances", verbs::LIVE, Again::Once);
}

#[test]
fn a_daemon_that_dies_changing_profiles_and_images_leaves_the_old_or_the_new() {
    swept("deaths in changes of profiles, images, aliases", verbs::ROWS, Again::Once);
}

#[test]
fn a_daemon_that_dies_changing_networks_leaves_the_old_or_the_new() {
    swept("deaths in changes of networks", verbs::NETWORKS, Again::Once);
}

#[test]
fn a_daemon_that_dies_changing_pools_leaves_the_old_or_the_new() {
    swept("deaths in changes of storage pools", verbs::POOLS, Again::Once);
}

#[test]
fn a_daemon_that_dies_while_it_recovers_leaves_the_old_or_the_new() {
    let chosen = |name: &str| verbs::LIFE.iter().chain(verbs::LIVE).find(|verb| verb.name == name);
    let names = ["instance rename", "instance restart", "instance update, a changed nic in a running one"];
    let mut subject = Subject::start();
    subject.import("busybox").expect("the image");
    let mut tally = Tally::default();
    for verb in names.iter().filter_map(|name| chosen(name)) {
        kill_each(&mut subject, std::slice::from_ref(verb), Again::Dying, &mut tally);
    }
    tally.close("deaths in recovery");
}
