//! Streams of btrfs-send(8), version 1 (`fs/btrfs/send.h`): commands one after the other, each with a checksum and
//! attributes. Reading one command at a time, and writing it.
//!
//! What a stream does to a tree is `receive`'s, how ours becomes one that other servers read is `outgoing`'s.

use std::io::{self, Read, Write};

use crate::error::{Error, Result};

pub(crate) mod outgoing;
pub(crate) mod receive;

const MAGIC: &[u8; 13] = b"btrfs-stream\0";
const VERSION: u32 = 1;
/// Length, kind and checksum in front of each command.
const HEAD: usize = 10;
/// The longest command: the kernel's buffer for version 1 has 64 KiB.
const MAX_COMMAND: usize = 128 * 1024;

/// Kinds of commands.
pub(crate) mod kind {
    pub const SUBVOL: u16 = 1;
    pub const SNAPSHOT: u16 = 2;
    pub const MKFILE: u16 = 3;
    pub const MKDIR: u16 = 4;
    pub const MKNOD: u16 = 5;
    pub const MKFIFO: u16 = 6;
    pub const MKSOCK: u16 = 7;
    pub const SYMLINK: u16 = 8;
    pub const RENAME: u16 = 9;
    pub const LINK: u16 = 10;
    pub const UNLINK: u16 = 11;
    pub const RMDIR: u16 = 12;
    pub const SET_XATTR: u16 = 13;
    pub const REMOVE_XATTR: u16 = 14;
    pub const WRITE: u16 = 15;
    pub const CLONE: u16 = 16;
    pub const TRUNCATE: u16 = 17;
    pub const CHMOD: u16 = 18;
    pub const CHOWN: u16 = 19;
    pub const UTIMES: u16 = 20;
    pub const END: u16 = 21;
}

/// Kinds of attributes.
pub(crate) mod attribute {
    pub const UUID: u16 = 1;
    pub const SIZE: u16 = 4;
    pub const MODE: u16 = 5;
    pub const UID: u16 = 6;
    pub const GID: u16 = 7;
    pub const MTIME: u16 = 10;
    pub const ATIME: u16 = 11;
    pub const XATTR_NAME: u16 = 13;
    pub const XATTR_DATA: u16 = 14;
    pub const PATH: u16 = 15;
    pub const PATH_TO: u16 = 16;
    pub const PATH_LINK: u16 = 17;
    pub const OFFSET: u16 = 18;
    pub const DATA: u16 = 19;
    pub const CLONE_UUID: u16 = 20;
    pub const CLONE_PATH: u16 = 22;
    pub const CLONE_OFFSET: u16 = 23;
    pub const CLONE_LENGTH: u16 = 24;
}

/// What a filesystem calls a subvolume that was sent.
pub(crate) type Uuid = [u8; 16];

fn wrong(why: &'static str) -> Error {
    Error::Archive { why }
}

/// The checksum of a command: CRC-32C begun with 0 and not inverted.
fn checksum(parts: &[&[u8]]) -> u32 {
    !parts.iter().fold(u32::MAX, |crc, part| crc32c::crc32c_append(crc, part))
}

/// One command.
pub(crate) struct Command<'a> {
    pub kind: u16,
    body: &'a [u8],
}

impl<'a> Command<'a> {
    /// Its attributes in their order.
    pub fn attributes(&self) -> impl Iterator<Item = Result<(u16, &'a [u8])>> {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let cut = rest.split_at_checked(4).and_then(|(head, tail)| {
                let length = u16::from_le_bytes([head[2], head[3]]);
                let (value, tail) = tail.split_at_checked(usize::from(length))?;
                Some((u16::from_le_bytes([head[0], head[1]]), value, tail))
            });
            match cut {
                Some((kind, value, tail)) => {
                    rest = tail;
                    Some(Ok((kind, value)))
                }
                None => {
                    rest = &[];
                    Some(Err(wrong("a command of its stream is cut short")))
                }
            }
        })
    }

    /// An attribute it must have.
    pub fn bytes(&self, wanted: u16) -> Result<&'a [u8]> {
        for attribute in self.attributes() {
            let (kind, value) = attribute?;
            if kind == wanted {
                return Ok(value);
            }
        }
        Err(wrong("a command of its stream lacks an attribute"))
    }

    /// A number it must have.
    pub fn number(&self, wanted: u16) -> Result<u64> {
        let value = self.bytes(wanted)?;
        let value =
            <[u8; 8]>::try_from(value).map_err(|_| wrong("a number in its stream has a wrong length"))?;
        Ok(u64::from_le_bytes(value))
    }

    /// The id of a subvolume it must have.
    pub fn uuid(&self, wanted: u16) -> Result<Uuid> {
        Uuid::try_from(self.bytes(wanted)?).map_err(|_| wrong("an id in its stream has a wrong length"))
    }
}

/// Commands as they come.
pub(crate) struct Commands<R> {
    input: R,
    buffer: Vec<u8>,
    ended: bool,
}

impl<R: Read> Commands<R> {
    /// Reads what stands in front of the first.
    pub fn begin(mut input: R) -> Result<Commands<R>> {
        let mut head = [0u8; MAGIC.len() + 4];
        input.read_exact(&mut head).map_err(Error::reading)?;
        let version = u32::from_le_bytes([head[13], head[14], head[15], head[16]]);
        if head[..13] != MAGIC[..] {
            return Err(wrong("it is no stream of btrfs"));
        }
        if version != VERSION {
            return Err(wrong("its stream of btrfs is of a newer version than 1"));
        }
        Ok(Commands { input, buffer: Vec::new(), ended: false })
    }

    /// The next one; none after the last.
    pub fn next(&mut self) -> Result<Option<Command<'_>>> {
        if self.ended {
            return Ok(None);
        }
        let mut head = [0u8; HEAD];
        self.input.read_exact(&mut head).map_err(Error::reading)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length > MAX_COMMAND {
            return Err(wrong("a command of its stream is longer than 128 KiB"));
        }
        self.buffer.resize(length, 0);
        self.input.read_exact(&mut self.buffer).map_err(Error::reading)?;
        let said = u32::from_le_bytes([head[6], head[7], head[8], head[9]]);
        head[6..].fill(0);
        if checksum(&[&head, &self.buffer]) != said {
            return Err(wrong("a checksum in its stream does not match"));
        }
        let kind = u16::from_le_bytes([head[4], head[5]]);
        self.ended = kind == kind::END;
        Ok(if self.ended { None } else { Some(Command { kind, body: &self.buffer }) })
    }
}

/// Writes what stands in front of the first command.
fn write_begin(out: &mut impl Write) -> io::Result<()> {
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())
}

/// Writes one command.
fn write_command<'a>(
    out: &mut impl Write,
    kind: u16,
    attributes: impl IntoIterator<Item = (u16, &'a [u8])>,
) -> io::Result<()> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        let length = u16::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        body.extend(kind.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(value);
    }
    let mut head = [0u8; HEAD];
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..6].copy_from_slice(&kind.to_le_bytes());
    let sum = checksum(&[&head, &body]);
    head[6..].copy_from_slice(&sum.to_le_bytes());
    out.write_all(&head)?;
    out.write_all(&body)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_written_is_read_again_and_a_changed_one_is_not() {
        let mut bytes = Vec::new();
        write_begin(&mut bytes).unwrap();
        write_command(&mut bytes, kind::MKDIR, [(attribute::PATH, &b"a/b"[..])]).unwrap();
        write_command(&mut bytes, kind::END, []).unwrap();
        // As the kernel of Linux 6.18 ends each stream: checksum included.
        assert_eq!(bytes[bytes.len() - HEAD..], [0, 0, 0, 0, 21, 0, 0x50, 0x6c, 0xc9, 0x9d]);
        let mut commands = Commands::begin(bytes.as_slice()).unwrap();
        let command = commands.next().unwrap().unwrap();
        assert_eq!((command.kind, command.bytes(attribute::PATH).unwrap()), (kind::MKDIR, &b"a/b"[..]));
        assert!(command.number(attribute::SIZE).is_err());
        assert!(commands.next().unwrap().is_none());
        for at in 13..bytes.len() - 1 {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let read = Commands::begin(changed.as_slice()).and_then(|mut it| {
                while it.next()?.is_some() {}
                Ok(())
            });
            assert!(read.is_err(), "byte {at}");
        }
    }
}
