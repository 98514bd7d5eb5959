//! Directories, files and links below the daemon's own directory and its pools.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cabin_store::rows;
use cabin_sys::dir::{Entry, EntryKind, HostDir};

use super::{Findings, Known};
use crate::{Error, Host};

pub(super) fn look(host: &Host, known: &Known, findings: &mut Findings) -> Result<(), Error> {
    let names = |dir: &str| -> Result<Vec<String>, Error> {
        let listed = host.dir().open_dir(dir).and_then(|dir| dir.list());
        let listed = listed.map_err(Error::io(format!("list `{dir}`")))?;
        Ok(listed.into_iter().map(|entry| entry.name).collect())
    };
    for file in names("images")? {
        let base = file.strip_suffix(".rootfs").unwrap_or(&file);
        if !known.images.contains(base) {
            findings.add("image file", &file, "no image is of that name");
        }
    }
    let files: BTreeSet<String> = names("images")?.into_iter().collect();
    for image in known.images.difference(&files) {
        findings.add("image file", image, "is missing");
    }
    backups(known, &names("backups")?, findings);
    for link in names("containers")? {
        if !known.instances.contains_key(&link) {
            findings.add("link to a tree", &link, "no instance is of that name");
        }
    }
    for logs in names("logs")? {
        if !known.instances.contains_key(&logs) {
            findings.add("logs", &logs, "no instance is of that name");
        }
    }
    for network in names("networks")? {
        if !known.networks.contains_key(&network) {
            findings.add("network directory", &network, "no network is of that name");
        }
    }
    for pool in names("storage-pools")? {
        if !known.pools.iter().any(|found| found.name == pool) {
            findings.add("pool directory", &pool, "no storage pool is of that name");
        }
    }
    super::disks::look(host, known, findings)?;
    for pool in &known.pools {
        look_into(host, known, &pool.name, &pool.row, findings);
    }
    records(host, known, findings)
}

/// Each file is a backup's of something that is there.
fn backups(known: &Known, files: &[String], findings: &mut Findings) {
    for file in files.iter().filter(|file| !known.backups.iter().any(|backup| backup.file == **file)) {
        findings.add("backup", file, "nothing has such a backup");
    }
    for backup in &known.backups {
        if !files.contains(&backup.file) {
            findings.add("backup", &backup.name, format!("its file `{}` is missing", backup.file));
        }
        if !backup.has_owner {
            findings.add("backup", &backup.name, "what it is a backup of is gone");
        }
    }
}

/// What lies in a pool. A pool that is not there is told by its status, not here.
fn look_into(host: &Host, known: &Known, name: &str, row: &rows::Pool, findings: &mut Findings) {
    let Ok(root) = crate::storage::spec(host, name, row).map(|spec| HostDir::open(&spec.source)) else {
        return;
    };
    let Ok(root) = root else { return };
    // Of what a disk does not tell nothing is said here.
    let exists = |path: &str| !matches!(root.exists(path), Ok(false));
    let dirs = |dir: &str| root.open_dir(dir).and_then(|dir| dir.list()).unwrap_or_default();
    let mine = |instance: &str| known.instances.get(instance).is_some_and(|row| row.pool == name);
    for kind in ["containers", "containers-snapshots"] {
        for entry in dirs(kind) {
            if !mine(&entry.name) {
                findings.add("tree", format!("{name}/{kind}/{}", entry.name), "no instance lies there");
            }
        }
    }
    for instance in known.instances.iter().filter(|(_, row)| row.pool == name).map(|(name, _)| name) {
        if !exists(&format!("containers/{instance}")) {
            findings.add("tree", format!("{name}/containers/{instance}"), "is missing");
        }
        for entry in dirs(&format!("containers-snapshots/{instance}")) {
            let row = format!("{instance}/{}", entry.name);
            if !known.snapshots.contains(&row) {
                findings.add("snapshot", format!("{name}/{row}"), "no snapshot is of that name");
            }
        }
    }
    for row in &known.snapshots {
        let owner = row.split('/').next().unwrap_or(row);
        if mine(owner) && !exists(&format!("containers-snapshots/{row}")) {
            findings.add("snapshot", format!("{name}/{row}"), "is missing");
        }
    }
    for entry in dirs("images") {
        let kept = exists(&format!("images/{}/unwanted", entry.name));
        if entry.kind != EntryKind::Dir || !(known.images.contains(&entry.name) || kept) {
            findings.add("unpacked image", format!("{name}/{}", entry.name), "no image is of that name");
        }
    }
    layers(name, &root, &dirs("layers"), findings);
    for entry in dirs("custom") {
        if !known.volumes.contains(&format!("{name}/{}", entry.name)) {
            findings.add("volume", format!("{name}/custom/{}", entry.name), "no volume is of that name");
        }
    }
    for volume in known.volumes.iter().filter_map(|row| row.strip_prefix(&format!("{name}/"))) {
        if !exists(&format!("custom/{volume}")) {
            findings.add("volume", format!("{name}/custom/{volume}"), "is missing");
        }
    }
    for owner in dirs("custom-snapshots") {
        for entry in dirs(&format!("custom-snapshots/{}", owner.name)) {
            let row = format!("{name}/{}/{}", owner.name, entry.name);
            if !known.volume_snapshots.contains(&row) {
                findings.add("snapshot of a volume", row, "no snapshot is of that name");
            }
        }
    }
    for row in known.volume_snapshots.iter().filter_map(|row| row.strip_prefix(&format!("{name}/"))) {
        if !exists(&format!("custom-snapshots/{row}")) {
            findings.add("snapshot of a volume", format!("{name}/{row}"), "is missing");
        }
    }
}

/// Frozen layers: each has the file that all that stand on it have a link to.
fn layers(pool: &str, root: &HostDir, entries: &[Entry], findings: &mut Findings) {
    for entry in entries {
        let layer = entry.name.strip_suffix(".ref").unwrap_or(&entry.name);
        let told = || format!("{pool}/layers/{}", entry.name);
        let standing = root.open_file(&format!("layers/{layer}.ref")).and_then(|file| file.metadata());
        let below = root.read(&format!("layers/{layer}/below"), 64).unwrap_or_default();
        match standing {
            _ if below == layer.as_bytes() => findings.add("layer", told(), "was left half made"),
            Ok(file) if file.nlink() > 1 && !matches!(root.exists(&format!("layers/{layer}")), Ok(false)) => {
            }
            Ok(file) if file.nlink() > 1 => findings.add("layer", told(), "is missing"),
            _ => findings.add("layer", told(), "nothing stands on it"),
        }
    }
}

/// Sockets and records of supervisors.
fn records(host: &Host, known: &Known, findings: &mut Findings) -> Result<(), Error> {
    let place = host.settings().containers_dir();
    let listed = HostDir::open(Path::new(&place)).and_then(|dir| dir.list());
    for entry in listed.map_err(Error::io("list the run directory"))? {
        let Some((name, ending)) = entry.name.rsplit_once('.') else { continue };
        let running = known.live.contains_key(name);
        match ending {
            "sock" if !running => findings.add("control socket", name, "nothing runs under that name"),
            "exit" | "console" if !known.instances.contains_key(name) => {
                findings.add("record", &entry.name, "no instance is of that name");
            }
            _ => {}
        }
    }
    Ok(())
}
