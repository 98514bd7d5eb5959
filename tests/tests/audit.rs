//! The auditor that every test daemon is looked at with finds what it is there to find.

use std::path::PathBuf;

use cabin_tests::audit;
use cabin_tests::cli::host;
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
    let mut process = std::process::Command::new("nsenter").args([&net, "sleep", "1000"]).spawn().unwrap();

    assert_eq!(audit::links(&netns), ["stray0"]);
    assert_eq!(audit::tables(&netns), ["table inet cabin_stray"]);
    assert_eq!(audit::mounts(&dir).into_iter().collect::<Vec<_>>(), [point]);
    until_true("the stray process to be seen", 5, || audit::processes(&dir, &netns).len() == 1);

    audit::clear(&dir, &netns);
    process.wait().unwrap();
    assert!(audit::mounts(&dir).is_empty() && audit::processes(&dir, &netns).is_empty() && !dir.exists());
}
