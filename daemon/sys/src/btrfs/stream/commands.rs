//! The form of streams of btrfs-send(8), version 1 (`fs/btrfs/send.h`): commands one after the other, each with a
//! checksum and attributes. Reading one command at a time.
//!
//! What commands mean, and whether their checksums are worth looking at, others decide.

use std::io::{self, Read};

/// What every stream begins with; the number of its version follows.
pub const MAGIC: &[u8; 13] = b"btrfs-stream\0";
/// The version that is read.
pub const VERSION: u32 = 1;
/// Length, kind and checksum in front of each command.
pub const HEAD: usize = 10;
/// The longest command: the kernel's buffer for version 1 has 64 KiB.
const MAX_COMMAND: usize = 128 * 1024;

/// Kinds of commands.
#[allow(missing_docs)]
pub mod kind {
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
#[allow(missing_docs)]
pub mod attribute {
    pub const UUID: u16 = 1;
    pub const SIZE: u16 = 4;
    pub const MODE: u16 = 5;
    pub const UID: u16 = 6;
    pub const GID: u16 = 7;
    pub const RDEV: u16 = 8;
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
pub type Uuid = [u8; 16];

/// Why a stream cannot be read.
#[derive(Debug)]
pub enum Broken {
    /// It is not of this form.
    Form(&'static str),
    /// No more of it can be had.
    Read(io::Error),
}

/// What is summed up over all these bytes, one after the other.
pub type Checksum = fn(&[&[u8]]) -> u32;

/// One command.
#[derive(Debug)]
pub struct Command<'a> {
    /// Its kind.
    pub kind: u16,
    body: &'a [u8],
}

impl<'a> Command<'a> {
    /// Its attributes in their order.
    pub fn attributes(&self) -> impl Iterator<Item = Result<(u16, &'a [u8]), Broken>> + use<'a> {
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
                    Some(Err(Broken::Form("a command of its stream is cut short")))
                }
            }
        })
    }

    /// An attribute it must have.
    ///
    /// # Errors
    /// When it has none.
    pub fn bytes(&self, wanted: u16) -> Result<&'a [u8], Broken> {
        for attribute in self.attributes() {
            let (kind, value) = attribute?;
            if kind == wanted {
                return Ok(value);
            }
        }
        Err(Broken::Form("a command of its stream lacks an attribute"))
    }

    /// A number it must have.
    ///
    /// # Errors
    /// When it has none.
    pub fn number(&self, wanted: u16) -> Result<u64, Broken> {
        let value = self.bytes(wanted)?;
        let value = <[u8; 8]>::try_from(value)
            .map_err(|_| Broken::Form("a number in its stream has a wrong length"))?;
        Ok(u64::from_le_bytes(value))
    }

    /// The id of a subvolume it must have.
    ///
    /// # Errors
    /// When it has none.
    pub fn uuid(&self, wanted: u16) -> Result<Uuid, Broken> {
        Uuid::try_from(self.bytes(wanted)?)
            .map_err(|_| Broken::Form("an id in its stream has a wrong length"))
    }
}

/// Commands as they come.
#[derive(Debug)]
pub struct Commands<R> {
    input: R,
    checksum: Option<Checksum>,
    buffer: Vec<u8>,
    ended: bool,
}

impl<R: Read> Commands<R> {
    /// Reads what stands in front of the first. `checksum` is that of each command, if it is to be looked at: what comes
    /// from this very kernel needs none.
    ///
    /// # Errors
    /// When it is no stream of this version.
    pub fn begin(mut input: R, checksum: Option<Checksum>) -> Result<Commands<R>, Broken> {
        let mut head = [0u8; MAGIC.len() + 4];
        input.read_exact(&mut head).map_err(Broken::Read)?;
        let version = u32::from_le_bytes([head[13], head[14], head[15], head[16]]);
        if head[..13] != MAGIC[..] {
            return Err(Broken::Form("it is no stream of btrfs"));
        }
        if version != VERSION {
            return Err(Broken::Form("its stream of btrfs is of a newer version than 1"));
        }
        Ok(Commands { input, checksum, buffer: Vec::new(), ended: false })
    }

    /// The next one; none after the last.
    ///
    /// # Errors
    /// When the stream ends early, or is none.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Command<'_>>, Broken> {
        if self.ended {
            return Ok(None);
        }
        let mut head = [0u8; HEAD];
        self.input.read_exact(&mut head).map_err(Broken::Read)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length > MAX_COMMAND {
            return Err(Broken::Form("a command of its stream is longer than 128 KiB"));
        }
        self.buffer.resize(length, 0);
        self.input.read_exact(&mut self.buffer).map_err(Broken::Read)?;
        let said = u32::from_le_bytes([head[6], head[7], head[8], head[9]]);
        head[6..].fill(0);
        if self.checksum.is_some_and(|checksum| checksum(&[&head, &self.buffer]) != said) {
            return Err(Broken::Form("a checksum in its stream does not match"));
        }
        let kind = u16::from_le_bytes([head[4], head[5]]);
        self.ended = kind == kind::END;
        Ok(if self.ended { None } else { Some(Command { kind, body: &self.buffer }) })
    }
}
