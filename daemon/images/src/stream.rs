//! Streams of btrfs-send(8) from anywhere: their commands are read with their checksums, and written.
//!
//! What a stream does to a tree is `receive`'s, how ours becomes one that other servers read is `outgoing`'s.

use std::io::{self, Read, Write};

use cabin_sys::btrfs::stream::commands::{Broken, HEAD, MAGIC, VERSION};
pub(crate) use cabin_sys::btrfs::stream::commands::{Command, Commands, Uuid, attribute, kind};

use crate::error::{Error, Result};

pub(crate) mod outgoing;
pub(crate) mod receive;

/// The checksum of a command: CRC-32C begun with 0 and not inverted.
fn checksum(parts: &[&[u8]]) -> u32 {
    !parts.iter().fold(u32::MAX, |crc, part| crc32c::crc32c_append(crc, part))
}

/// Reads what stands in front of the first command.
pub(crate) fn begin<R: Read>(input: R) -> Result<Commands<R>> {
    Ok(Commands::begin(input, Some(checksum))?)
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Error {
        match broken {
            Broken::Form(why) => Error::Archive { why },
            Broken::Read(source) => Error::reading(source),
        }
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
        let mut commands = begin(bytes.as_slice()).unwrap();
        let command = commands.next().unwrap().unwrap();
        assert_eq!((command.kind, command.bytes(attribute::PATH).unwrap()), (kind::MKDIR, &b"a/b"[..]));
        assert!(command.number(attribute::SIZE).is_err());
        assert!(commands.next().unwrap().is_none());
        for at in 13..bytes.len() - 1 {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let read = begin(changed.as_slice()).and_then(|mut it| {
                while it.next()?.is_some() {}
                Ok(())
            });
            assert!(read.is_err(), "byte {at}");
        }
    }
}
