//! Streams of btrfs made by hand, good and hostile ones, in backups as other servers write them.

use std::path::{Path, PathBuf};

use crate::cli::host;
use crate::peer::Peer;

/// Kinds of commands, by their numbers in `fs/btrfs/send.h`.
pub mod kind {
    /// Begins a whole subvolume.
    pub const SUBVOL: u16 = 1;
    /// Begins one that goes on from another.
    pub const SNAPSHOT: u16 = 2;
    /// Makes an empty file.
    pub const MKFILE: u16 = 3;
    /// Makes a directory.
    pub const MKDIR: u16 = 4;
    /// Makes a device node.
    pub const MKNOD: u16 = 5;
    /// Makes a symbolic link.
    pub const SYMLINK: u16 = 8;
    /// Moves something.
    pub const RENAME: u16 = 9;
    /// Gives something a second name.
    pub const LINK: u16 = 10;
    /// Removes an empty directory.
    pub const RMDIR: u16 = 12;
    /// Writes in a file.
    pub const WRITE: u16 = 15;
    /// Lets a file have a part of another one.
    pub const CLONE: u16 = 16;
    /// Cuts a file, or makes it longer.
    pub const TRUNCATE: u16 = 17;
    /// Changes rights.
    pub const CHMOD: u16 = 18;
    /// Changes owners.
    pub const CHOWN: u16 = 19;
}

/// The subvolume all these streams say they are of.
const UUID: [u8; 16] = *b"a made up volume";

/// CRC-32C begun with 0 and not inverted, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 },
        )
    })
}

/// A stream.
#[derive(Clone)]
pub struct Stream(pub Vec<u8>);

impl Stream {
    /// One of a subvolume with a root filesystem, in which nothing is yet.
    #[must_use]
    pub fn rooted() -> Stream {
        Stream::bare()
            .with(kind::MKDIR, &[(15, b"o257-7-0")])
            .with(kind::RENAME, &[(15, b"o257-7-0"), (16, b"rootfs")])
    }

    /// One of an empty subvolume.
    #[must_use]
    pub fn bare() -> Stream {
        Stream(b"btrfs-stream\0\x01\0\0\0".to_vec())
            .with(kind::SUBVOL, &[(15, b"any"), (1, &UUID), (2, &7u64.to_le_bytes())])
    }

    /// One that goes on from a subvolume of that id.
    #[must_use]
    pub fn on(uuid: &[u8; 16]) -> Stream {
        let begin = Stream(b"btrfs-stream\0\x01\0\0\0".to_vec());
        let number = 7u64.to_le_bytes();
        begin.with(
            kind::SNAPSHOT,
            &[(15, b"any"), (1, b"another volume !"), (2, &number), (20, uuid), (21, &number)],
        )
    }

    /// With one command more: attributes by their numbers.
    #[must_use]
    pub fn with(mut self, kind: u16, attributes: &[(u16, &[u8])]) -> Stream {
        let mut body = Vec::new();
        for (number, value) in attributes {
            body.extend(number.to_le_bytes());
            body.extend(u16::try_from(value.len()).expect("a short value").to_le_bytes());
            body.extend(*value);
        }
        let mut command = u32::try_from(body.len()).expect("a short command").to_le_bytes().to_vec();
        command.extend(kind.to_le_bytes());
        command.extend([0; 4]);
        command.extend(body);
        let sum = checksum(&command);
        command[6..10].copy_from_slice(&sum.to_le_bytes());
        self.0.extend(command);
        self
    }

    /// With a file that holds this.
    #[must_use]
    pub fn file(self, path: &[u8], content: &[u8]) -> Stream {
        self.with(kind::MKFILE, &[(15, path)])
            .with(kind::WRITE, &[(15, path), (18, &0u64.to_le_bytes()), (19, content)])
    }

    /// Ended, in a backup of an instance `name` without snapshots; gives the path of its file.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn backup(self, place: &Path, name: &str) -> PathBuf {
        let index = Peer::Incus.index(name, "").replace("optimized: false", "optimized: true");
        self.written(place, &index.replace("snapshots:\n- s0\n", ""), "container.bin")
    }

    /// Ended, as `member` in a backup of a custom volume `name` without snapshots; gives the path of its file.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn volume_backup(self, place: &Path, name: &str, member: &str) -> PathBuf {
        let index = format!(
            "name: {name}\nbackend: btrfs\npool: btr\noptimized: true\noptimized_header: true\ntype: custom\n\
             config:\n  volume:\n    config: {{}}\n    description: \"\"\n    name: {name}\n    type: custom\n    \
             used_by: []\n    location: none\n    content_type: filesystem\n    project: default\n    \
             created_at: 2026-11-21T09:54:15.451427052Z\n"
        );
        self.written(place, &index, member)
    }

    fn written(self, place: &Path, index: &str, member: &str) -> PathBuf {
        let _ = std::fs::remove_dir_all(place);
        std::fs::create_dir_all(place.join("backup")).expect("a directory");
        let member = format!("backup/{member}");
        std::fs::write(place.join("backup/index.yaml"), index).expect("a file");
        std::fs::write(place.join(&member), self.with(21, &[]).0).expect("a file");
        let file = place.with_extension("tar");
        let (to, from) = (file.display().to_string(), place.display().to_string());
        host(&["tar", "-C", &from, "-cf", &to, "backup/index.yaml", &member]).ok();
        file
    }
}
