//! What the trees of instances, volumes and their snapshots hold, as far as a sweep must tell an old tree from a new
//! one: one small file in each, that says which it is.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::api;
use crate::subject::Subject;

/// The file.
const FILE: &str = "which-tree";

/// The directories of a pool that hold trees, and whether there are names of snapshots below those of their owners.
const PLACES: &[(&str, bool)] =
    &[("containers", false), ("containers-snapshots", true), ("custom", false), ("custom-snapshots", true)];

/// More layers than any tree stands on.
const LAYERS: usize = 100;

/// Lets an instance of the pool `default` say that its tree is this one.
///
/// # Panics
/// When that cannot be written, for another reason than that there is no room.
pub fn write(subject: &Subject, instance: &str, what: &str) {
    if subject.status(instance) == "Running" {
        // Below what is mounted nobody else may write.
        let target = format!("/1.0/instances/{instance}/files?path=/{FILE}");
        let headers = [("X-Incus-type", "file"), ("X-Incus-mode", "0644")];
        let reply = api::send(&subject.socket(), "POST", &target, &headers, what.as_bytes());
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.text());
        return;
    }
    write_in(subject, &format!("default/containers/{instance}"), what);
}

/// Lets the tree at this place of a pool, `POOL/custom/VOLUME`, say that it is this one. Nobody may have it mounted.
///
/// # Panics
/// As [`write`].
pub fn write_in(subject: &Subject, place: &str, what: &str) {
    let tree = own(&subject.dir.join("storage-pools").join(place));
    let (new, file) = (tree.join(".which-tree"), tree.join(FILE));
    // Another file each time: a copy may share the old one.
    if let Err(why) = std::fs::write(&new, what).and_then(|()| std::fs::rename(&new, &file)) {
        // There may be no room for it: what becomes of the verb then is somebody's question.
        let known = [ErrorKind::StorageFull, ErrorKind::ReadOnlyFilesystem];
        assert!(known.contains(&why.kind()), "{}: {why}", file.display());
    }
}

/// What every tree below the daemon's directory says, a line for each.
#[must_use]
pub fn told(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for pool in below(&dir.join("storage-pools")) {
        for (kind, kept) in PLACES {
            for owner in below(&pool.join(kind)) {
                let trees = if *kept { below(&owner) } else { vec![owner] };
                found.extend(trees.iter().map(|tree| {
                    let name = tree.strip_prefix(dir).unwrap_or(tree);
                    format!("tree {} says {}", name.display(), said(&pool, tree))
                }));
            }
        }
    }
    found
}

/// The directories in a directory, links and files left aside.
fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Where a volume, a snapshot or a layer has what it holds itself.
fn own(place: &Path) -> PathBuf {
    let upper = place.join("u");
    if upper.is_dir() { upper } else { place.join("rootfs") }
}

/// What a tree says, or the topmost of the layers it stands on that says anything.
fn said(pool: &Path, tree: &Path) -> String {
    let mut place = tree.to_owned();
    for _ in 0..LAYERS {
        let file = own(&place).join(FILE);
        match std::fs::symlink_metadata(&file) {
            Ok(meta) if meta.is_file() => {
                return format!("`{}`", std::fs::read_to_string(file).unwrap_or_default());
            }
            // What an overlay puts where a file of a lower layer was deleted.
            Ok(_) => break,
            Err(_) => {}
        }
        let Ok(layer) = std::fs::read_to_string(place.join("below")) else { break };
        place = pool.join("layers").join(layer);
    }
    "nothing".to_owned()
}
