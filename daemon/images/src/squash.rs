//! Reading squashfs 4.0 images, in the confined process, into a [`Tree`].
//!
//! An own reader, because the alternatives put more at stake: a loop mount hands hostile bytes to the
//! kernel, and `unsquashfs` would need the host's libraries, threads and exec inside the confinement, and
//! keeps none of our limits. Compression gzip, xz and zstd; lzo and lz4 are not used for images.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::decompress::Meter;
use crate::error::{Error, Result};
use crate::message::Limits;
use crate::tree::{Attributes, Tree};

mod blocks;
mod inode;

use blocks::{Blocks, Cursor, Place};
use inode::{Inode, Node};

/// The mark of a file without a fragment, and of an inode without extended attributes.
const NONE: u32 = u32::MAX;

struct Squash<'a> {
    blocks: Blocks<'a>,
    inode_table: u64,
    dir_table: u64,
    block_size: u32,
    fragments: Vec<u64>,
    fragment_count: u32,
    ids: Vec<u32>,
    xattrs: Option<XattrTable>,
}

struct XattrTable {
    start: u64,
    index: Vec<u64>,
    count: u32,
}

/// Makes the tree of a squashfs image beneath `tree`.
pub(crate) fn unpack(file: &File, limits: Limits, meter: &Meter, tree: &mut Tree) -> Result<()> {
    let mut squash = Squash::open(file, limits, meter)?;
    squash.walk(tree)
}

fn damaged(why: &'static str) -> Error {
    Error::Archive { why }
}

impl<'a> Squash<'a> {
    fn open(file: &'a File, limits: Limits, meter: &'a Meter) -> Result<Squash<'a>> {
        let mut raw = [0u8; 96];
        file.read_exact_at(&mut raw, 0).map_err(Error::reading)?;
        let mut head = Cursor::new(&raw);
        let magic = head.u32()?;
        let (_inodes, _time, block_size, fragment_count) =
            (head.u32()?, head.u32()?, head.u32()?, head.u32()?);
        let (compressor, block_log) = (head.u16()?, head.u16()?);
        let (_flags, id_count, major, _minor) = (head.u16()?, head.u16()?, head.u16()?, head.u16()?);
        let (root, used) = (head.u64()?, head.u64()?);
        let (id_table, xattr_table) = (head.u64()?, head.u64()?);
        let (inode_table, dir_table, fragment_table) = (head.u64()?, head.u64()?, head.u64()?);
        if magic != u32::from_le_bytes(*b"hsqs") || major != 4 {
            return Err(damaged("not a squashfs of version 4"));
        }
        if !(12..=20).contains(&block_log) || block_size != 1 << block_log {
            return Err(damaged("a block size squashfs does not have"));
        }
        if used > file.metadata().map_err(|source| Error::Read { source })?.len() {
            return Err(damaged("it ends too early"));
        }
        let mut blocks = Blocks::new(file, compressor, limits.expanded, meter)?;
        let ids = blocks.lookup_table(id_table, id_count.into(), 4)?;
        let ids = blocks.read_numbers(&ids, id_count.into())?;
        let fragments = match fragment_count {
            0 => Vec::new(),
            count => blocks.lookup_table(fragment_table, count, 16)?,
        };
        let xattrs = match xattr_table {
            u64::MAX => None,
            at => Some(XattrTable::open(&mut blocks, at)?),
        };
        let mut squash =
            Squash { blocks, inode_table, dir_table, block_size, fragments, fragment_count, ids, xattrs };
        squash.blocks.root = root;
        Ok(squash)
    }

    fn walk(&mut self, tree: &mut Tree) -> Result<()> {
        // Files with several names, and directories, which may have only one.
        let mut linked: HashMap<u64, Vec<u8>> = HashMap::new();
        let mut seen: HashSet<u64> = HashSet::new();
        let mut open = vec![(Vec::new(), self.blocks.root)];
        while let Some((path, reference)) = open.pop() {
            let inode = self.inode(reference)?;
            let Node::Directory { start, offset, size } = inode.node else {
                return Err(damaged("the root, or what a directory calls one, is none"));
            };
            if !seen.insert(reference) {
                return Err(damaged("a directory has two names"));
            }
            tree.directory(&path, &self.attributes(&inode)?)?;
            for (name, child) in self.entries(start, offset, size)? {
                let mut below = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(&name);
                let inode = self.inode(child)?;
                if matches!(inode.node, Node::Directory { .. }) {
                    if below.len() > crate::tarball::MAX_PATH {
                        return Err(damaged("a path is too long"));
                    }
                    open.push((below, child));
                    continue;
                }
                if inode.links > 1
                    && let Some(first) = linked.get(&child)
                {
                    tree.hard_link(&below, first)?;
                    continue;
                }
                if self.leaf(tree, &below, &inode)? && inode.links > 1 {
                    linked.insert(child, below);
                }
            }
        }
        Ok(())
    }

    /// Makes anything but a directory; false when it was left out.
    fn leaf(&mut self, tree: &mut Tree, path: &[u8], inode: &Inode) -> Result<bool> {
        let attributes = self.attributes(inode)?;
        match &inode.node {
            Node::File { .. } => self.file(tree, path, inode, &attributes)?,
            Node::Symlink { target } => tree.symlink(path, target, &attributes)?,
            Node::Fifo => tree.fifo(path, &attributes)?,
            Node::Character { device: 0 } => {
                return Err(Error::Member {
                    path: String::from_utf8_lossy(path).into_owned(),
                    why: "it is the mark an overlay takes for a deleted file",
                });
            }
            Node::Character { .. } | Node::Block | Node::Socket => {
                tree.report.devices_skipped += 1;
                return Ok(false);
            }
            Node::Directory { .. } => return Err(damaged("a directory where none can be")),
        }
        Ok(true)
    }

    fn file(&mut self, tree: &mut Tree, path: &[u8], inode: &Inode, attributes: &Attributes) -> Result<()> {
        let Node::File { start, size, fragment, fragment_offset, ref sizes } = inode.node else {
            return Err(damaged("not a file"));
        };
        let file = tree.file(path, size)?;
        let (mut at, mut offset) = (start, 0u64);
        for stored in sizes {
            let wanted = (size - offset).min(self.block_size.into());
            let length = *stored & 0xff_ffff;
            if length != 0 {
                let data = self.blocks.data(at, *stored, self.block_size)?;
                if (data.len() as u64) < wanted {
                    return Err(damaged("a block is too short"));
                }
                tree.write(&file, path, offset, &data[..usize::try_from(wanted).unwrap_or(data.len())])?;
            }
            at += u64::from(length);
            offset += wanted;
        }
        if fragment != NONE {
            let (from, length) =
                (fragment_offset as usize, usize::try_from(size - offset).unwrap_or(usize::MAX));
            let block = self.fragment(fragment)?;
            let data = from.checked_add(length).and_then(|end| block.get(from..end));
            let data = data.ok_or_else(|| damaged("a file lies beyond its fragment"))?;
            tree.write(&file, path, offset, data)?;
        }
        tree.close(&file, path, attributes)
    }

    fn fragment(&mut self, index: u32) -> Result<std::rc::Rc<Vec<u8>>> {
        if index >= self.fragment_count {
            return Err(damaged("a fragment that is not there"));
        }
        let block = self.fragments[index as usize / 512];
        let mut place = Place { block, offset: (index % 512) * 16 };
        let raw = self.blocks.metadata(&mut place, 16)?;
        let mut entry = Cursor::new(&raw);
        let (start, size) = (entry.u64()?, entry.u32()?);
        self.blocks.shared_data(start, size, self.block_size)
    }

    fn inode(&mut self, reference: u64) -> Result<Inode> {
        let block =
            self.inode_table.checked_add(reference >> 16).ok_or_else(|| damaged("an inode lies nowhere"))?;
        let offset = u32::try_from(reference & 0xffff).unwrap_or(0);
        inode::read(&mut self.blocks, Place { block, offset }, self.block_size)
    }

    /// Names and inodes of a directory.
    fn entries(&mut self, start: u32, offset: u16, size: u32) -> Result<Vec<(Vec<u8>, u64)>> {
        let mut place = Place { block: self.dir_table + u64::from(start), offset: offset.into() };
        // The size counts `.` and `..`, which are not written.
        let mut left = size.saturating_sub(3) as usize;
        let mut entries = Vec::new();
        while left > 0 {
            let raw = self.blocks.metadata(&mut place, 12)?;
            let mut head = Cursor::new(&raw);
            let (count, block) = (head.u32()?, head.u32()?);
            if count >= 256 {
                return Err(damaged("a directory run is too long"));
            }
            left = left.checked_sub(12).ok_or_else(|| damaged("a directory is cut short"))?;
            for _ in 0..=count {
                let raw = self.blocks.metadata(&mut place, 8)?;
                let mut entry = Cursor::new(&raw);
                let (offset, _number, _kind, length) =
                    (entry.u16()?, entry.u16()?, entry.u16()?, entry.u16()?);
                let length = usize::from(length) + 1;
                let name = self.blocks.metadata(&mut place, length)?;
                left = left.checked_sub(8 + length).ok_or_else(|| damaged("a directory is cut short"))?;
                if name.len() > 255
                    || name.iter().any(|b| matches!(b, 0 | b'/'))
                    || name == b"."
                    || name == b".."
                {
                    return Err(Error::Member {
                        path: String::from_utf8_lossy(&name).into_owned(),
                        why: "it is no plain name",
                    });
                }
                entries.push((name, u64::from(block) << 16 | u64::from(offset)));
            }
        }
        Ok(entries)
    }

    fn attributes(&mut self, inode: &Inode) -> Result<Attributes> {
        let id = |index: u16| {
            self.ids.get(usize::from(index)).copied().ok_or_else(|| damaged("an owner that is not there"))
        };
        let (uid, gid) = (id(inode.uid)?, id(inode.gid)?);
        Ok(Attributes {
            mode: inode.mode.into(),
            uid,
            gid,
            mtime: (inode.mtime.into(), 0),
            xattrs: if inode.xattrs == NONE { Vec::new() } else { self.xattrs(inode.xattrs)? },
        })
    }

    fn xattrs(&mut self, index: u32) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let table = self.xattrs.as_ref().filter(|table| index < table.count);
        let table = table.ok_or_else(|| damaged("an attribute list that is not there"))?;
        let start = table.start;
        let mut place = Place { block: table.index[index as usize / 512], offset: (index % 512) * 16 };
        let raw = self.blocks.metadata(&mut place, 16)?;
        let mut entry = Cursor::new(&raw);
        let (reference, count) = (entry.u64()?, entry.u32()?);
        if count > 1024 {
            return Err(damaged("too many attributes"));
        }
        let mut place = at(start, reference)?;
        let mut list = Vec::new();
        for _ in 0..count {
            let raw = self.blocks.metadata(&mut place, 4)?;
            let mut head = Cursor::new(&raw);
            let (kind, length) = (head.u16()?, head.u16()?);
            let prefix: &[u8] = match kind & 0xff {
                0 => b"user.",
                1 => b"trusted.",
                2 => b"security.",
                _ => return Err(damaged("an attribute of an unknown kind")),
            };
            let name = self.blocks.metadata(&mut place, length.into())?;
            let value = self.value(&mut place)?;
            let value = if kind & 0x100 == 0 {
                value
            } else {
                // The value stands elsewhere; what stands here is where.
                let elsewhere = Cursor::new(&value).u64()?;
                self.value(&mut at(start, elsewhere)?)?
            };
            list.push(([prefix, &name].concat(), value));
        }
        Ok(list)
    }

    fn value(&mut self, place: &mut Place) -> Result<Vec<u8>> {
        let length = Cursor::new(&self.blocks.metadata(place, 4)?).u32()?;
        if length > 65536 {
            return Err(damaged("an attribute is too long"));
        }
        self.blocks.metadata(place, length as usize)
    }
}

fn at(start: u64, reference: u64) -> Result<Place> {
    let block = start.checked_add(reference >> 16).ok_or_else(|| damaged("an attribute lies nowhere"))?;
    Ok(Place { block, offset: u32::try_from(reference & 0xffff).unwrap_or(0) })
}

impl XattrTable {
    fn open(blocks: &mut Blocks<'_>, table: u64) -> Result<XattrTable> {
        let raw = blocks.raw(table, 16)?;
        let mut head = Cursor::new(&raw);
        let (start, count) = (head.u64()?, head.u32()?);
        let index = blocks.lookup_table(table.saturating_add(16), count, 16)?;
        Ok(XattrTable { start, index, count })
    }
}
