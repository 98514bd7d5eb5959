//! The fourteen forms of a squashfs inode.

use crate::error::{Error, Result};

use super::NONE;
use super::blocks::{Blocks, Cursor, Place};

/// The most blocks of one file that are taken in at once: 8 TiB of the default block size.
const MAX_BLOCKS: u64 = 1 << 26;

pub(super) struct Inode {
    pub mode: u16,
    /// Indices into the table of ids.
    pub uid: u16,
    pub gid: u16,
    pub mtime: u32,
    pub links: u32,
    /// Index of its extended attributes.
    pub xattrs: u32,
    pub node: Node,
}

pub(super) enum Node {
    Directory { start: u32, offset: u16, size: u32 },
    File { start: u64, size: u64, fragment: u32, fragment_offset: u32, sizes: Vec<u32> },
    Symlink { target: Vec<u8> },
    Character { device: u32 },
    Block,
    Fifo,
    Socket,
}

struct Source<'s, 'a> {
    blocks: &'s mut Blocks<'a>,
    place: Place,
}

impl Source<'_, '_> {
    fn bytes(&mut self, length: usize) -> Result<Vec<u8>> {
        self.blocks.metadata(&mut self.place, length)
    }

    fn u16(&mut self) -> Result<u16> {
        Cursor::new(&self.bytes(2)?).u16()
    }

    fn u32(&mut self) -> Result<u32> {
        Cursor::new(&self.bytes(4)?).u32()
    }

    fn u64(&mut self) -> Result<u64> {
        Cursor::new(&self.bytes(8)?).u64()
    }

    /// The sizes of a file's blocks.
    fn sizes(&mut self, size: u64, fragment: u32, block_size: u32) -> Result<Vec<u32>> {
        let block_size = u64::from(block_size);
        let count = if fragment == NONE { size.div_ceil(block_size) } else { size / block_size };
        if count > MAX_BLOCKS {
            return Err(Error::Archive { why: "a file is beyond all measure" });
        }
        // Bit by bit, so that a claim alone takes no memory: the list must really be there.
        let mut sizes = Vec::new();
        while (sizes.len() as u64) < count {
            let part = usize::try_from(count - sizes.len() as u64).unwrap_or(0).min(2048);
            let raw = self.bytes(part * 4)?;
            sizes.extend(raw.chunks_exact(4).map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]])));
        }
        Ok(sizes)
    }
}

pub(super) fn read(blocks: &mut Blocks<'_>, place: Place, block_size: u32) -> Result<Inode> {
    let mut from = Source { blocks, place };
    let raw = from.bytes(16)?;
    let mut head = Cursor::new(&raw);
    let (kind, mode, uid, gid, mtime) = (head.u16()?, head.u16()?, head.u16()?, head.u16()?, head.u32()?);
    let mut inode = Inode { mode: mode & 0o7777, uid, gid, mtime, links: 1, xattrs: NONE, node: Node::Fifo };
    match kind {
        1 => {
            let (start, _links, size) = (from.u32()?, from.u32()?, from.u16()?);
            inode.node = Node::Directory { start, offset: from.u16()?, size: size.into() };
        }
        2 => {
            let (start, fragment, fragment_offset) = (from.u32()?.into(), from.u32()?, from.u32()?);
            let size = u64::from(from.u32()?);
            let sizes = from.sizes(size, fragment, block_size)?;
            inode.node = Node::File { start, size, fragment, fragment_offset, sizes };
        }
        8 => {
            let (_links, size, start, _parent) = (from.u32()?, from.u32()?, from.u32()?, from.u32()?);
            let (_index, offset) = (from.u16()?, from.u16()?);
            inode.xattrs = from.u32()?;
            inode.node = Node::Directory { start, offset, size };
        }
        9 => {
            let (start, size, _sparse) = (from.u64()?, from.u64()?, from.u64()?);
            inode.links = from.u32()?;
            let (fragment, fragment_offset) = (from.u32()?, from.u32()?);
            inode.xattrs = from.u32()?;
            let sizes = from.sizes(size, fragment, block_size)?;
            inode.node = Node::File { start, size, fragment, fragment_offset, sizes };
        }
        3 | 10 => {
            inode.links = from.u32()?;
            let length = from.u32()? as usize;
            if length > crate::tarball::MAX_PATH {
                return Err(Error::Archive { why: "a link's target is too long" });
            }
            inode.node = Node::Symlink { target: from.bytes(length)? };
            if kind == 10 {
                inode.xattrs = from.u32()?;
            }
        }
        4 | 5 | 11 | 12 => {
            inode.links = from.u32()?;
            let device = from.u32()?;
            inode.node = if matches!(kind, 5 | 12) { Node::Character { device } } else { Node::Block };
        }
        6 | 7 | 13 | 14 => {
            inode.links = from.u32()?;
            inode.node = if matches!(kind, 6 | 13) { Node::Fifo } else { Node::Socket };
        }
        _ => return Err(Error::Archive { why: "an inode of an unknown kind" }),
    }
    Ok(inode)
}
