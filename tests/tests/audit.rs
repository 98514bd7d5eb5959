//! The auditor that every test daemon is looked at with finds what it is there to find.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use cabin_tests::audit;
use cabin_tests::cli::host;
use cabin_tests::descriptors::{grown, held};
use cabin_tests::host_state::{HostState, Look};
use cabin_tests::subject::Subject;
use cabin_tests::wait::until_true;

#[test]
fn links_tables_processes_and_mounts_left_behind_are_found_and_cleared() {
    let id = format!("{}-audit", std::process::id());
    let (dir, netns) = (PathBuf::from(format!("/var/tmp/cabin-test-{id}")), format!("cbt{id}"));
    std::fs::create_dir(&dir).unwrap();
    let mount = dir.join("mnt");
    std::fs::create_dir(&mount).unwrap();
    let point = mount.display().to_string();
    host(&["ip", "netns", "add", &netns]).ok();
    host(&["ip", "-n", &netns, "link", "add", "stray0", "type", "bridge"]).ok();
    let net = format!("--net=/run/netns/{netns}");
    host(&["nsenter", &net, "nft", "add", "table", "inet", "cabin_stray"]).ok();
    host(&["mount", "-t", "tmpfs", "tmpfs", &point]).ok();
    let mut process = Command::new("nsenter").args([&net, "sleep", "1000"]).spawn().unwrap();

    assert_eq!(audit::links(&netns), ["stray0"]);
    assert_eq!(audit::tables(&netns), ["table inet cabin_stray"]);
    assert_eq!(audit::mounts(&dir).into_iter().collect::<Vec<_>>(), [point]);
    until_true("the stray process to be seen", 5, || audit::processes(&dir, &netns).len() == 1);

    audit::clear(&dir, &netns);
    process.wait().unwrap();
    assert!(audit::mounts(&dir).is_empty() && audit::processes(&dir, &netns).is_empty() && !dir.exists());
}

#[test]
fn what_is_there_twice_or_without_a_name_of_a_file_or_held_open_is_seen() {
    let subject = Subject::start();
    let state = || HostState::of(&subject, Look::Exact);
    let logs = subject.dir.join("logs").display().to_string();
    let bare = state();
    host(&["mount", "-t", "tmpfs", "tmpfs", &logs]).ok();
    let once = state();
    host(&["mount", "-t", "tmpfs", "tmpfs", &logs]).ok();
    let twice = state();
    host(&["umount", &logs]).ok();
    assert_ne!(bare, once);
    assert!(once.difference(&twice).contains(&logs), "{}", once.difference(&twice));
    host(&["mount", "-o", "remount,bind,nosuid", &logs]).ok();
    assert!(once.difference(&state()).contains("nosuid"), "{}", once.difference(&state()));
    host(&["umount", &logs]).ok();
    assert_eq!(bare.difference(&state()), "");

    let net = format!("--net=/run/netns/{}", subject.netns);
    let bind =
        r#"use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, pack_sockaddr_un("\0stray")); sleep 1000"#;
    let mut binder = Command::new("nsenter").args([&net, "perl", "-e", bind]).spawn().unwrap();
    until_true("the socket to be seen", 5, || bare.difference(&state()).contains("socket @stray"));
    binder.kill().unwrap();
    binder.wait().unwrap();

    let before = held(&subject);
    let line = UnixStream::connect(subject.socket()).unwrap();
    until_true("the daemon to take it", 5, || held(&subject).get("socket") > before.get("socket"));
    drop(line);
    assert_eq!(grown(&subject, &before), Vec::<String>::new());
}
