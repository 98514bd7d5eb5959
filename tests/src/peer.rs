//! Backups as Incus 7 and LXD 5 write them, made by hand: the members in their order, the index in its words, as
//! recorded from what `incus export` and `lxc export` of Debian wrote. No peer is needed to make one.
//!
//! Both write `backup/index.yaml`, the snapshots, then the instance; before each tree stand `backup.yaml` and
//! `metadata.yaml`, behind it `templates/`. Incus writes owners as they are inside. LXD on a pool that cannot map ids
//! writes them as they are on its disk, and the shift in `volatile.last_state.idmap`.

use std::path::{Path, PathBuf};

use crate::cli::host;

/// Who wrote the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Incus 7.0.
    Incus,
    /// LXD 5.0, on btrfs.
    Lxd,
}

/// The first id on LXD's disk.
const SHIFTED: u32 = 100_000;

impl Peer {
    fn idmap(self) -> String {
        let line = |uid: bool| {
            format!(
                "{{\"Isuid\":{uid},\"Isgid\":{},\"Hostid\":{SHIFTED},\"Nsid\":0,\"Maprange\":10000001}}",
                !uid
            )
        };
        match self {
            Peer::Incus => "[]".to_owned(),
            Peer::Lxd => format!("[{},{}]", line(true), line(false)),
        }
    }

    /// The part of an index that says what an instance or snapshot is, `depth` blanks deep.
    fn described(self, depth: usize, more: &str) -> String {
        let lines = format!(
            "architecture: x86_64\nconfig:\n  image.os: test\n  image.serial: \"20261121_07:35\"\n{more}\
             \x20 volatile.base_image: 46f2a2b17a00a057076a9977ef4d91d68750b3f7c62051a801a276a9e9239e51\n\
             \x20 volatile.cloud-init.instance-id: 139edfc3-36f1-4307-9591-ae59a4d97644\n\
             \x20 volatile.eth0.host_name: veth12345678\n\
             \x20 volatile.eth0.hwaddr: 10:66:6a:00:00:01\n\
             \x20 volatile.idmap.base: \"0\"\n\
             \x20 volatile.last_state.idmap: '{}'\n\
             \x20 volatile.last_state.power: RUNNING\n\
             devices: {{}}\nephemeral: false\nprofiles:\n- default\nstateful: false\ndescription: from afar\n\
             created_at: 2026-11-21T09:54:15.451427052Z\nexpanded_config: {{}}\nexpanded_devices: {{}}\n",
            self.idmap()
        );
        let pad = " ".repeat(depth);
        lines.lines().map(|line| format!("{pad}{line}\n")).collect()
    }

    /// The whole index of an instance `name` with a snapshot `s0`; `more` are lines of its config, two blanks deep.
    #[must_use]
    pub fn index(self, name: &str, more: &str) -> String {
        format!(
            "name: {name}\nbackend: btrfs\npool: btr\nsnapshots:\n- s0\noptimized: false\noptimized_header: false\n\
             type: container\nconfig:\n  container:\n{}    name: {name}\n    status: Stopped\n    status_code: 102\n\
             \x20   last_used_at: 2026-11-21T09:54:15.63693355Z\n    location: none\n    type: container\n\
             \x20   project: default\n  snapshots:\n  - expires_at: 0001-01-01T00:00:00Z\n{}    name: s0\n    size: -1\n\
             \x20 pool:\n    config:\n      source: /var/lib/incus/disks/btr.img\n    description: \"\"\n    name: btr\n\
             \x20   driver: btrfs\n    used_by: []\n    status: Created\n    locations:\n    - none\n",
            self.described(4, more),
            self.described(4, "")
        )
    }

    /// Writes a backup with that index below `place`, packed with gzip as both do, and gives its path. `spoil` is a
    /// script that may change what is packed; it runs in the directory that holds `backup/`.
    ///
    /// # Panics
    /// When a program of the host is missing.
    #[must_use]
    pub fn backup(self, place: &Path, index: &str, spoil: &str) -> PathBuf {
        let _ = std::fs::remove_dir_all(place);
        for part in ["backup/snapshots/s0", "backup/container"] {
            let dir = place.join(part);
            tree(&dir.join("rootfs"), part.contains("s0"));
            std::fs::write(dir.join("backup.yaml"), "container: {name: not-believed}\n").expect("a file");
            let metadata = "architecture: x86_64\ncreation_date: 1700000000\nproperties: {os: test}\ntemplates:\n  \
                            /etc/templated:\n    when: [start]\n    template: note.tpl\n";
            std::fs::write(dir.join("metadata.yaml"), metadata).expect("a file");
            std::fs::create_dir_all(dir.join("templates")).expect("a directory");
            std::fs::write(dir.join("templates/note.tpl"), "for {{ container.name }}").expect("a file");
        }
        std::fs::write(place.join("backup/index.yaml"), index).expect("a file");
        let shift = match self {
            Peer::Incus => String::new(),
            Peer::Lxd => format!(
                "find backup -path '*/rootfs*' -exec sh -c 'for f; do [ $(stat -c %u \"$f\") -ge {SHIFTED} ] || chown -h $(($(stat -c %u \"$f\") + {SHIFTED})):$(($(stat -c %g \"$f\") + {SHIFTED})) \"$f\"; done' sh {{}} +"
            ),
        };
        let script = format!(
            "cd {}; {shift}\n{spoil}\n\
             parts() {{ for part; do for it in backup.yaml metadata.yaml rootfs templates; do\n\
               if [ -e $part/$it ] || [ -L $part/$it ]; then echo $part/$it; fi; done; done; }}\n\
             tar --numeric-owner --xattrs --format=pax -czf ../{}.tar.gz backup/index.yaml \
             $(parts backup/snapshots/* backup/container)",
            place.display(),
            place.file_name().unwrap_or_default().to_string_lossy(),
        );
        host(&["sh", "-ec", &script]).ok();
        place.with_extension("tar.gz")
    }
}

/// A small system of busybox alone, with files of several owners.
fn tree(root: &Path, snapshot: bool) {
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "sbin", "run"] {
        std::fs::create_dir_all(root.join(dir)).expect("a directory");
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox (package busybox-static)");
    for name in ["sh", "cat", "echo", "stat", "ls", "find", "md5sum"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("a link");
    }
    std::os::unix::fs::symlink("../bin/busybox", root.join("sbin/init")).expect("a link");
    std::fs::write(root.join("etc/inittab"), "::sysinit:/bin/busybox true\n").expect("a file");
    // Only beside the trees such a name means something.
    std::fs::write(root.join("etc/hwdb.bin"), "x").expect("a file");
    std::fs::write(root.join("root/note"), if snapshot { "older" } else { "newer" }).expect("a file");
    std::fs::hard_link(root.join("root/note"), root.join("root/again")).expect("a link");
    std::os::unix::fs::chown(root.join("root/note"), Some(1000), Some(2000)).expect("an owner");
}
