//! Custom volumes and other disks: in several instances at once, hot and cold, through links a guest lays, with
//! ours and the stock clients.

use std::path::{Path, PathBuf};

use cabin_tests::lab::Lab;
use serde_json::json;

/// Where the files of a custom volume lie on the host.
fn on_disk(lab: &Lab, volume: &str) -> PathBuf {
    lab.dir.join("storage-pools/default/custom").join(volume)
}

fn create(lab: &Lab, volume: &str) {
    let reply = lab.call("POST", "/1.0/storage-pools/default/volumes/custom", Some(&json!({ "name": volume })));
    assert_eq!(reply.status, 201, "{}", reply.text());
}

fn delete(lab: &Lab, volume: &str) {
    let target = format!("/1.0/storage-pools/default/volumes/custom/{volume}");
    let reply = lab.call("DELETE", &target, None);
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Adds a disk device with these properties.
fn attach(lab: &Lab, instance: &str, device: &str, properties: &[&str]) -> cabin_tests::cli::Outcome {
    let mut words = vec!["config", "device", "add", instance, device, "disk"];
    words.extend(properties);
    lab.cabin(&words)
}

fn detach(lab: &Lab, instance: &str, device: &str) {
    lab.cabin(&["config", "device", "remove", instance, device]).ok();
}

fn owner(path: &Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::symlink_metadata(path).expect("a file on the host");
    (found.uid(), found.gid())
}

#[test]
fn a_volume_looks_right_in_several_instances_at_once() {
    let lab = Lab::shared();
    lab.busybox("one").busybox("two");
    create(&lab, "shared");
    for name in ["one", "two"] {
        attach(&lab, name, "data", &["pool=default", "source=shared", "path=/srv/data"]).ok();
    }
    lab.sh("one", "echo from-one >/srv/data/file; chown 1000:1001 /srv/data/file; chmod 640 /srv/data/file");
    let seen = lab.sh("two", "stat -c '%u:%g %a' /srv/data/file; cat /srv/data/file; stat -c %u /srv/data");
    assert_eq!(seen, "1000:1001 640\nfrom-one\n0");
    assert_eq!(owner(&on_disk(&lab, "shared").join("file")), (1000, 1001));
    let used = lab.get("/1.0/storage-pools/default/volumes/custom/shared")["used_by"].clone();
    assert_eq!(used, json!(["/1.0/instances/one", "/1.0/instances/two"]));
    let refused = lab.call("DELETE", "/1.0/storage-pools/default/volumes/custom/shared", None);
    assert_eq!(refused.status, 409, "{}", refused.text());
    // It is there again after a start, and gone once it is taken away.
    lab.cabin(&["restart", "-f", "one"]).ok();
    assert_eq!(lab.sh("one", "cat /srv/data/file"), "from-one");
    detach(&lab, "one", "data");
    assert_eq!(lab.sh("one", "ls /srv/data"), "");
    assert_eq!(lab.sh("two", "cat /srv/data/file"), "from-one");
    lab.cabin(&["delete", "-f", "one", "two"]).ok();
    delete(&lab, "shared");
    assert!(!on_disk(&lab, "shared").exists());
}
