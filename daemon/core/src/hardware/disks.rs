//! Disks and their partitions. What no device is behind (loop, zram, device mapper) is none.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::place::{Place, pci_address};

/// Sysfs counts in these, whatever the disk's own are.
const SECTOR: u64 = 512;

/// Names that udev gives, by what they lead to.
struct Known {
    ids: HashMap<String, String>,
    paths: HashMap<String, String>,
    filesystems: HashMap<String, String>,
    /// `major:minor` of what is mounted.
    mounted: HashSet<String>,
}

pub(super) fn all() -> Vec<Value> {
    let block = Place::at("/sys/class/block");
    let known = Known {
        ids: links("/dev/disk/by-id"),
        paths: links("/dev/disk/by-path"),
        filesystems: links("/dev/disk/by-uuid"),
        mounted: mounted(&Place::at("/proc/self").text("mountinfo")),
    };
    let is_disk = |name: &&String| {
        let disk = block.then(name);
        disk.then("device").exists() && !disk.then("partition").exists() && !disk.flag("hidden")
    };
    let shown = |name: &String| shown(name, &block.way(name), &block.then(name), &known);
    block.list().iter().filter(is_disk).map(shown).collect()
}

fn shown(name: &str, way: &[String], disk: &Place, known: &Known) -> Value {
    let device = disk.then("device");
    let partitions: Vec<Value> = disk
        .list()
        .iter()
        .filter(|part| disk.then(part).then("partition").exists())
        .map(|part| partition(part, &disk.then(part), known))
        .collect();
    let first = |places: [String; 2]| places.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    let mut shown = json!({
        "id": name, "device": disk.text("dev"),
        "type": kind(way, &device), "model": device.text("model"),
        "serial": first([device.text("serial"), disk.text("serial")]),
        "wwn": first([disk.text("wwid"), device.text("wwid")]),
        "firmware_version": first([device.text("firmware_rev"), device.text("rev")]),
        "numa_node": device.numa_node(), "pci_address": pci_address(way),
        "block_size": disk.number::<u64>("queue/physical_block_size"), "size": disk.number::<u64>("size") * SECTOR,
        // How fast it turns is not told; 1 says that it does.
        "rpm": disk.number::<u64>("queue/rotational"),
        "read_only": disk.flag("ro"), "removable": disk.flag("removable"),
        "mounted": known.mounted.contains(&disk.text("dev")),
        "partitions": partitions,
    });
    let more =
        [("device_id", &known.ids), ("device_path", &known.paths), ("device_fs_uuid", &known.filesystems)];
    for (key, names) in more {
        if let Some(found) = names.get(name) {
            shown[key] = found.as_str().into();
        }
    }
    shown
}

fn partition(name: &str, part: &Place, known: &Known) -> Value {
    let mut shown = json!({
        "id": name, "device": part.text("dev"), "partition": part.number::<u64>("partition"),
        "size": part.number::<u64>("size") * SECTOR, "read_only": part.flag("ro"),
        "mounted": known.mounted.contains(&part.text("dev")),
    });
    if let Some(uuid) = known.filesystems.get(name) {
        shown["device_fs_uuid"] = uuid.as_str().into();
    }
    shown
}

/// How the disk is connected.
fn kind(way: &[String], device: &Place) -> String {
    let passes = |prefix: &str| {
        way.iter().any(|part| part.strip_prefix(prefix).is_some_and(|rest| rest.parse::<u32>().is_ok()))
    };
    match device.linked("subsystem") {
        scsi if scsi == "scsi" && passes("usb") => "usb".to_owned(),
        scsi if scsi == "scsi" && passes("ata") => "sata".to_owned(),
        other => other,
    }
}

/// The first link, in the order of names, to each device.
fn links(folder: &str) -> HashMap<String, String> {
    let place = Place::at(folder);
    // Later ones are replaced by earlier ones.
    let pair = |name: String| (place.linked(&name), name);
    place.list().into_iter().rev().map(pair).collect()
}

fn mounted(mountinfo: &str) -> HashSet<String> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(2)).map(str::to_owned).collect()
}
