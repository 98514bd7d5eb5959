//! Disks of pools: files of ours, and the loop devices they are attached to.

use std::io;
use std::path::Path;

use cabin_sys::dir::HostDir;
use cabin_sys::loopdev;

use super::{Findings, Known};
use crate::{Error, Host};

pub(super) fn look(host: &Host, known: &Known, findings: &mut Findings) -> Result<(), Error> {
    let dir = host.settings().dir.join("disks");
    let listed = match HostDir::open(&dir).and_then(|dir| dir.list()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(Error::io("list `disks`"))?,
    };
    let has_pool = |file: &str| {
        let pool = file.strip_suffix(".img").unwrap_or_default();
        known.pools.iter().any(|found| found.name == pool && found.row.driver == "btrfs")
    };
    for entry in listed.iter().filter(|entry| !has_pool(&entry.name)) {
        findings.add("disk", &entry.name, "no storage pool is of that name");
    }
    for (device, file) in loopdev::all().map_err(Error::io("list the loop devices"))? {
        let Some(ours) = Path::new(&file).strip_prefix(&dir).ok().and_then(Path::to_str) else { continue };
        if !has_pool(ours) {
            findings.add(
                "loop device",
                device.display().to_string(),
                format!("its file `{file}` is no pool's"),
            );
        }
    }
    Ok(())
}
