//! Which verb of the sweeps stands for each route that changes something, or why none does.

use crate::verbs::Verb;
use crate::{
    backup_verbs, carry_verbs, clock_verbs, pool_verbs, power_verbs, snapshot_verbs, verbs, volume_verbs,
};

/// How a route is swept.
#[derive(Debug, Clone, Copy)]
pub enum Swept {
    /// By verbs of these names.
    By(&'static [&'static str]),
    /// As PUT of the same address is: what is sent is merged with what there is first.
    AsPut,
    /// Not at all, for this reason.
    Not(&'static str),
}

use Swept::{AsPut, By, Not};

/// Every list of verbs. Those of one stand on each other, in their order.
pub const LISTS: &[&[Verb]] = &[
    verbs::LIFE,
    verbs::LIVE,
    verbs::ROWS,
    verbs::NETWORKS,
    verbs::POOLS,
    power_verbs::VERBS,
    snapshot_verbs::KEPT,
    backup_verbs::VERBS,
    clock_verbs::VERBS,
    carry_verbs::CARRIED,
    carry_verbs::REFRESHED,
    carry_verbs::LAYERED,
    carry_verbs::MORE,
    pool_verbs::DISKS,
    pool_verbs::INSTANCES,
    volume_verbs::VERBS,
    volume_verbs::MORE,
    volume_verbs::TOGETHER,
    volume_verbs::DISKS,
    &[snapshot_verbs::RESTORE_RUNNING],
];

/// Every verb there is.
pub fn all() -> impl Iterator<Item = &'static Verb> {
    LISTS.iter().copied().flatten()
}

/// Lists whose verbs have to do with trees in the pool `default`, in the parts in which they are swept with one of each
/// driver. All the others do the same whatever that pool is: pools themselves, and instances on btrfs, name theirs.
pub const LIVES: &[&[Verb]] = &[verbs::LIFE, IMAGES];

/// Images, and what is unpacked of them: the last of [`verbs::ROWS`]. The others are rows alone.
const IMAGES: &[Verb] = verbs::ROWS.split_at(10).1;

/// As [`LIVES`].
pub const SNAPSHOTS: &[&[Verb]] = &[snapshot_verbs::KEPT, clock_verbs::VERBS];

/// As [`LIVES`]. To a pool of layers one comes from another driver's by a stream.
pub const COPIES: &[&[Verb]] =
    &[carry_verbs::CARRIED, carry_verbs::MORE, carry_verbs::REFRESHED, carry_verbs::LAYERED];

/// As [`LIVES`].
pub const BACKUPS: &[&[Verb]] = &[backup_verbs::VERBS];

/// As [`LIVES`].
pub const VOLUMES: &[&[Verb]] =
    &[volume_verbs::VERBS, volume_verbs::MORE, volume_verbs::TOGETHER, volume_verbs::DISKS];

/// A route that changes something: method, address, and how it is swept.
pub type Entry = (&'static str, &'static str, Swept);

const MEMORY: Swept = Not("kept in memory alone, and seen anew by the next daemon");
const NOTHING: Swept = Not("refused, or accepted only where it changes nothing");
const ONE_FILE: Swept = Not("one file of a guest's tree or of its logs, in one step");
const ONE_ROW: Swept = Not("one row, in one commit, and nothing beside it");
const GUESTS: Swept = Not("what it changes is the guest's: `absence` and `hostile_clients` look at its end");

/// Server, warnings, projects, operations, and what is for the tools that come with the daemon.
pub const SERVER: &[Entry] = &[
    ("PUT", "/1.0", By(&["server update"])),
    ("PATCH", "/1.0", AsPut),
    ("PUT", "/1.0/warnings/{uuid}", MEMORY),
    ("PATCH", "/1.0/warnings/{uuid}", MEMORY),
    ("DELETE", "/1.0/warnings/{uuid}", MEMORY),
    ("POST", "/1.0/certificates", NOTHING),
    ("PUT", "/1.0/certificates/{fingerprint}", NOTHING),
    ("PATCH", "/1.0/certificates/{fingerprint}", NOTHING),
    ("DELETE", "/1.0/certificates/{fingerprint}", NOTHING),
    ("PUT", "/1.0/projects/{name}", NOTHING),
    ("PATCH", "/1.0/projects/{name}", NOTHING),
    ("DELETE", "/1.0/operations/{id}", MEMORY),
    (
        "PUT",
        "/internal/shutdown",
        Not("each stop in it is `instance stop`, and the end is looked at by every test"),
    ),
    ("POST", "/internal/doctor", Not("settings of the kernel, of which any may be raised by itself")),
    (
        "PUT",
        "/internal/clock",
        By(&[
            "scheduled snapshot, stopped",
            "scheduled snapshot, running",
            "snapshot that is over",
            "backup that is over",
            "scheduled snapshot of a volume",
            "snapshot of a volume that is over",
            "backup of a volume that is over",
        ]),
    ),
    ("PUT", "/internal/fault", Not("for tests alone")),
];

/// Instances and what they have.
pub const INSTANCES: &[Entry] = &[
    (
        "POST",
        "/1.0/instances",
        By(&[
            "instance create",
            "instance create, empty",
            "copy with snapshots",
            "copy of a snapshot",
            "copy of a running one to another pool",
            "refresh of a copy in another pool",
            "copy to another pool of layers",
            "copy of a running one to another pool of layers",
            "refresh of a copy in another pool of layers",
            "import",
            "import of streams",
        ]),
    ),
    ("PUT", "/1.0/instances", By(&["all instances stop"])),
    (
        "PUT",
        "/1.0/instances/{name}",
        By(&[
            "instance update, stopped",
            "snapshot restore, stopped",
            "restore with volumes",
            "disk attach, running",
        ]),
    ),
    ("PATCH", "/1.0/instances/{name}", AsPut),
    (
        "POST",
        "/1.0/instances/{name}",
        By(&["instance rename", "move to another pool and name", "move to another pool of layers"]),
    ),
    ("DELETE", "/1.0/instances/{name}", By(&["instance delete"])),
    ("POST", "/1.0/instances/{name}/rebuild", By(&["rebuild from an image", "rebuild, empty"])),
    ("PUT", "/1.0/instances/{name}/metadata", ONE_ROW),
    ("PATCH", "/1.0/instances/{name}/metadata", ONE_ROW),
    ("POST", "/1.0/instances/{name}/metadata/templates", ONE_ROW),
    ("DELETE", "/1.0/instances/{name}/metadata/templates", ONE_ROW),
    (
        "PUT",
        "/1.0/instances/{name}/state",
        By(&[
            "instance start",
            "instance stop",
            "instance restart",
            "instance stop, by its own init",
            "instance freeze",
            "instance unfreeze",
        ]),
    ),
    ("POST", "/1.0/instances/{name}/exec", GUESTS),
    ("POST", "/1.0/instances/{name}/console", GUESTS),
    ("POST", "/1.0/instances/{name}/files", ONE_FILE),
    ("DELETE", "/1.0/instances/{name}/files", ONE_FILE),
    ("DELETE", "/1.0/instances/{name}/console", ONE_FILE),
    ("DELETE", "/1.0/instances/{name}/logs/{file}", ONE_FILE),
    ("DELETE", "/1.0/instances/{name}/logs/exec-output/{file}", ONE_FILE),
    (
        "POST",
        "/1.0/instances/{name}/backups",
        By(&["backup create, stopped", "backup create, running", "backup in streams"]),
    ),
    ("POST", "/1.0/instances/{name}/backups/{backup}", By(&["backup rename"])),
    ("DELETE", "/1.0/instances/{name}/backups/{backup}", By(&["backup delete"])),
    (
        "POST",
        "/1.0/instances/{name}/snapshots",
        By(&["snapshot create, stopped", "snapshot create, running", "snapshot with volumes"]),
    ),
    ("PUT", "/1.0/instances/{name}/snapshots/{snapshot}", By(&["snapshot change"])),
    ("PATCH", "/1.0/instances/{name}/snapshots/{snapshot}", AsPut),
    ("POST", "/1.0/instances/{name}/snapshots/{snapshot}", By(&["snapshot rename"])),
    ("DELETE", "/1.0/instances/{name}/snapshots/{snapshot}", By(&["snapshot delete"])),
];

/// Images, networks, profiles.
pub const OBJECTS: &[Entry] = &[
    (
        "POST",
        "/1.0/images",
        By(&["image import", "image import, of two files", "publish", "publish of an instance"]),
    ),
    ("PUT", "/1.0/images/{fingerprint}", By(&["image update"])),
    ("PATCH", "/1.0/images/{fingerprint}", AsPut),
    ("DELETE", "/1.0/images/{fingerprint}", By(&["image delete", "image delete, used"])),
    ("POST", "/1.0/images/{fingerprint}/export", NOTHING),
    ("POST", "/1.0/images/{fingerprint}/refresh", NOTHING),
    ("POST", "/1.0/images/{fingerprint}/secret", NOTHING),
    ("POST", "/1.0/images/aliases", By(&["alias create"])),
    ("PUT", "/1.0/images/aliases/{*name}", By(&["alias update"])),
    ("PATCH", "/1.0/images/aliases/{*name}", AsPut),
    ("POST", "/1.0/images/aliases/{*name}", By(&["alias rename"])),
    ("DELETE", "/1.0/images/aliases/{*name}", By(&["alias delete"])),
    ("POST", "/1.0/networks", By(&["network create"])),
    ("PUT", "/1.0/networks/{name}", By(&["network update"])),
    ("PATCH", "/1.0/networks/{name}", AsPut),
    ("POST", "/1.0/networks/{name}", By(&["network rename"])),
    ("DELETE", "/1.0/networks/{name}", By(&["network delete"])),
    ("POST", "/1.0/profiles", By(&["profile create"])),
    (
        "PUT",
        "/1.0/profiles/{name}",
        By(&["profile update, used by running ones", "profile update, used by stopped ones"]),
    ),
    ("PATCH", "/1.0/profiles/{name}", AsPut),
    ("POST", "/1.0/profiles/{name}", By(&["profile rename"])),
    ("DELETE", "/1.0/profiles/{name}", By(&["profile delete"])),
];

const POOL: &str = "/1.0/storage-pools/{name}";
const NEW_VOLUME: Swept =
    By(&["volume create", "volume copy", "volume copy brought up to date", "volume import"]);

/// Pools and volumes; the addresses of [`POOL`] and below.
pub const STORAGE: &[Entry] = &[
    ("PUT", "", By(&["pool update", "pool update, a disk that grows"])),
    ("PATCH", "", AsPut),
    ("DELETE", "", By(&["pool delete", "pool delete, with a disk"])),
    ("POST", "/volumes", NEW_VOLUME),
    ("POST", "/volumes/{type}", NEW_VOLUME),
    ("PUT", "/volumes/{type}/{volume}", By(&["volume restore"])),
    ("PATCH", "/volumes/{type}/{volume}", By(&["volume change"])),
    ("POST", "/volumes/{type}/{volume}", By(&["volume rename", "rename of a mounted volume", "volume move"])),
    ("DELETE", "/volumes/{type}/{volume}", By(&["volume delete"])),
    ("POST", "/volumes/{type}/{volume}/snapshots", By(&["volume snapshot"])),
    ("PUT", "/volumes/{type}/{volume}/snapshots/{snapshot}", By(&["volume snapshot change"])),
    ("PATCH", "/volumes/{type}/{volume}/snapshots/{snapshot}", AsPut),
    ("POST", "/volumes/{type}/{volume}/snapshots/{snapshot}", By(&["volume snapshot rename"])),
    ("DELETE", "/volumes/{type}/{volume}/snapshots/{snapshot}", By(&["volume snapshot delete"])),
    ("POST", "/volumes/{type}/{volume}/backups", By(&["volume backup", "backup of a volume in streams"])),
    ("POST", "/volumes/{type}/{volume}/backups/{backup}", By(&["volume backup rename"])),
    ("DELETE", "/volumes/{type}/{volume}/backups/{backup}", By(&["volume backup delete"])),
    ("POST", "/volumes/{type}/{volume}/files", ONE_FILE),
    ("DELETE", "/volumes/{type}/{volume}/files", ONE_FILE),
];

/// All of them, with whole addresses.
#[must_use]
pub fn table() -> Vec<(&'static str, String, Swept)> {
    let plain = [SERVER, INSTANCES, OBJECTS].into_iter().flatten();
    let mut rows: Vec<_> = plain.map(|(method, path, how)| (*method, (*path).to_owned(), *how)).collect();
    rows.push(("POST", "/1.0/storage-pools".to_owned(), By(&["pool create", "pool create, with a disk"])));
    rows.extend(STORAGE.iter().map(|(method, below, how)| (*method, format!("{POOL}{below}"), *how)));
    rows
}

/// What the table lacks of the routes of this source, has too much, or names that is not there.
#[must_use]
pub fn wrong(routes: &str) -> Vec<String> {
    let mut left = table();
    let mut wrong = Vec::new();
    for row in routes.split("row!(").skip(1) {
        let mut words = row.splitn(3, ['"']);
        let (Some(method), Some(path)) = (words.next().map(str::trim), words.next()) else { continue };
        if !["POST", "PUT", "PATCH", "DELETE"].contains(&method) {
            continue;
        }
        let at = left.iter().position(|(has, place, _)| (*has, place.as_str()) == (method, path));
        let Some((_, _, how)) = at.map(|at| left.swap_remove(at)) else {
            wrong.push(format!("{method} {path}: no verb is named that sweeps it, and no reason why not"));
            continue;
        };
        let names = if let By(names) = how { names } else { &[] };
        let unknown = names.iter().filter(|name| !all().any(|verb| verb.name == **name));
        wrong.extend(unknown.map(|name| format!("{method} {path}: there is no verb `{name}`")));
        if matches!(how, AsPut)
            && !table().iter().any(|(has, place, how)| *has == "PUT" && place == path && matches!(how, By(_)))
        {
            wrong.push(format!("{method} {path}: PUT of it is not swept"));
        }
    }
    wrong.extend(left.iter().map(|(method, path, _)| format!("{method} {path}: there is no such route")));
    wrong
}
