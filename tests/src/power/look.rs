//! What a daemon that came up says there is, and whether what lies on its disks is what it says.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::journal::State;
use super::work::words;
use crate::subject::Subject;

/// What belongs to the guest, or is written anew at a start.
const GUESTS_OWN: &[&str] = &["etc", "dev", "proc", "sys", "run", "tmp", "var", "root", "mark"];

/// The files of a tree that only an image brings: mode, and content by its hash.
pub type Files = BTreeMap<String, String>;

/// The directory of a pool.
fn pool_dir(subject: &Subject, far: &Path, pool: &str) -> PathBuf {
    let place = if pool == "far" { far.to_owned() } else { subject.dir.join("storage-pools").join(pool) };
    subject.reach(&place)
}

/// The tree in a pool that holds what is an instance's or snapshot's own.
pub(super) fn tree(subject: &Subject, far: &Path, pool: &str, of: &str) -> PathBuf {
    own(&pool_dir(subject, far, pool).join(of))
}

fn own(place: &Path) -> PathBuf {
    let upper = place.join("u");
    if upper.is_dir() { upper } else { place.join("rootfs") }
}

/// The mark in what lies in a pool, or in the layers below it: `-` when it has none, or half of one, as of a file
/// that was never synced.
fn mark(pool: &Path, of: &str) -> String {
    let mut place = pool.join(of);
    loop {
        let tree = own(&place);
        if !tree.is_dir() {
            return "no-tree".to_owned();
        }
        if let Ok(text) = std::fs::read_to_string(tree.join("mark")) {
            let whole = text.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
            return whole.unwrap_or("-").to_owned();
        }
        match std::fs::read_to_string(place.join("below")) {
            Ok(layer) => place = pool.join("layers").join(layer.trim()),
            Err(_) => return "-".to_owned(),
        }
    }
}

fn list(subject: &Subject, target: &str) -> Vec<Value> {
    subject.get(target).as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What there is.
pub fn state(subject: &Subject, far: &Path) -> State {
    let mut found = State::new();
    for it in list(subject, "/1.0/instances?recursion=1") {
        let (name, pool) = (text(&it["name"]), text(&it["expanded_devices"]["root"]["pool"]));
        let tree_of = |of: &str| mark(&pool_dir(subject, far, &pool), of);
        let note = text(&it["config"]["user.note"]);
        let value = words(&pool, &note, &tree_of(&format!("containers/{name}")));
        found.insert(format!("instance {name}"), value);
        for snapshot in list(subject, &format!("/1.0/instances/{name}/snapshots?recursion=1")) {
            let full = text(&snapshot["name"]);
            let own = full.rsplit('/').next().unwrap_or_default().to_owned();
            let note = text(&snapshot["config"]["user.note"]);
            let value = words(&pool, &note, &tree_of(&format!("containers-snapshots/{name}/{own}")));
            found.insert(format!("snapshot {name}/{own}"), value);
        }
    }
    volumes(subject, far, &mut found);
    for (noun, target) in [("pool", "storage-pools"), ("profile", "profiles"), ("network", "networks")] {
        for it in list(subject, &format!("/1.0/{target}?recursion=1")) {
            let own = it["managed"] != false && !matches!(it["name"].as_str(), Some("default" | "cabinbr0"));
            let usable = it["status"].as_str().is_none_or(|status| status == "Created");
            let value = if usable { text(&it["description"]) } else { text(&it["status"]) };
            let key = format!("{noun} {}", text(&it["name"]));
            if own {
                found.insert(key, value);
            }
        }
    }
    for it in list(subject, "/1.0/images/aliases?recursion=1") {
        let target = text(&it["target"]);
        let file =
            std::fs::read(subject.reach(&subject.dir.join("images").join(&target))).unwrap_or_default();
        let whole = hex::encode(Sha256::digest(&file)) == target;
        found.insert(format!("alias {}", text(&it["name"])), if whole { "whole" } else { "torn" }.to_owned());
    }
    found
}

/// Custom volumes and their snapshots.
fn volumes(subject: &Subject, far: &Path, found: &mut State) {
    for pool in list(subject, "/1.0/storage-pools?recursion=1") {
        let pool = text(&pool["name"]);
        let all = format!("/1.0/storage-pools/{pool}/volumes/custom");
        let place = pool_dir(subject, far, &pool);
        // An unavailable one is told of as such.
        let reply = subject.call("GET", &format!("{all}?recursion=1"), None).expect("an answer");
        for volume in reply.json()["metadata"].as_array().cloned().unwrap_or_default() {
            let (name, note) = (text(&volume["name"]), text(&volume["config"]["user.note"]));
            let value = words(&pool, &note, &mark(&place, &format!("custom/{name}")));
            if name.contains('/') {
                continue;
            }
            found.insert(format!("volume {name}"), value);
            for snapshot in list(subject, &format!("{all}/{name}/snapshots?recursion=1")) {
                let full = text(&snapshot["name"]);
                let own = full.rsplit('/').next().unwrap_or_default().to_owned();
                let value = words(&pool, "", &mark(&place, &format!("custom-snapshots/{name}/{own}")));
                found.insert(format!("part {name}/{own}"), value);
            }
        }
    }
}

/// The trees on the disks that are not whole: unpacked images, and what pools keep as whole trees.
pub fn torn(subject: &Subject, far: &Path, image: &Files) -> Vec<String> {
    let mut found = Vec::new();
    for pool in ["default", "far", "disk"].map(|pool| pool_dir(subject, far, pool)) {
        for kind in ["images", "containers", "containers-snapshots/*"] {
            for place in places(&pool, kind) {
                let rootfs = place.join("rootfs");
                // Of an overlay's volume only the image below it has the files.
                if place.join("u").is_dir() {
                    continue;
                }
                let differ = differences(image, &files(&rootfs));
                if !differ.is_empty() {
                    found.push(format!("    {}: {}", rootfs.display(), differ.join(", ")));
                }
            }
        }
    }
    found
}

/// The directories in one of a pool's; `*` stands for every directory there.
fn places(pool: &Path, kind: &str) -> Vec<PathBuf> {
    let below = |dir: PathBuf| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect()
    };
    match kind.strip_suffix("/*") {
        Some(kind) => below(pool.join(kind)).into_iter().flat_map(below).collect(),
        None => below(pool.join(kind)),
    }
}

fn differences(right: &Files, found: &Files) -> Vec<String> {
    let missing = right.iter().filter(|(path, value)| found.get(*path) != Some(value));
    missing.map(|(path, _)| path.clone()).take(5).collect()
}

/// The files below a directory, without those that are a guest's own.
pub fn files(top: &Path) -> Files {
    let mut found = Files::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(top.join(&dir)).into_iter().flatten().flatten() {
            let relative = dir.join(entry.file_name());
            let path = relative.to_string_lossy().into_owned();
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            if GUESTS_OWN.contains(&path.as_str()) {
                continue;
            }
            let value = if meta.is_symlink() {
                std::fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned()
            } else if meta.is_file() {
                hex::encode(Sha256::digest(std::fs::read(entry.path()).unwrap_or_default()))
            } else {
                String::new()
            };
            if meta.is_dir() {
                open.push(relative);
            }
            found.insert(path, format!("{:o} {value}", meta.permissions().mode()));
        }
    }
    found
}
