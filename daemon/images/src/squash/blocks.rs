//! The blocks of a squashfs: read, decompressed, bounded, and the last ones kept.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use crate::decompress::{MAX_WINDOW, Meter};
use crate::error::{Error, Result};

/// The most bytes a block of metadata holds.
const METADATA: usize = 8192;
/// How many blocks of metadata are kept (8 MiB).
const KEPT: usize = 1024;

#[derive(Clone, Copy)]
enum Compressor {
    Gzip,
    Xz,
    Zstd,
}

/// Where something stands in metadata: a block's place in the file, and bytes into it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub block: u64,
    pub offset: u32,
}

type Kept = (Rc<Vec<u8>>, u64);

pub(super) struct Blocks<'a> {
    file: &'a File,
    /// Its length.
    length: u64,
    compressor: Compressor,
    /// Bytes that may still come out.
    left: u64,
    limit: u64,
    meter: &'a Meter,
    metadata: HashMap<u64, Kept>,
    fragment: Option<(u64, Rc<Vec<u8>>)>,
    /// The reference of the root's inode.
    pub root: u64,
}

impl<'a> Blocks<'a> {
    pub fn new(file: &'a File, compressor: u16, limit: u64, meter: &'a Meter) -> Result<Blocks<'a>> {
        let compressor = match compressor {
            1 => Compressor::Gzip,
            4 => Compressor::Xz,
            6 => Compressor::Zstd,
            _ => return Err(damaged("a squashfs compressed otherwise than by gzip, xz or zstd")),
        };
        let length = file.metadata().map_err(|source| Error::Read { source })?.len();
        Ok(Blocks {
            file,
            length,
            compressor,
            left: limit,
            limit,
            meter,
            metadata: HashMap::new(),
            fragment: None,
            root: 0,
        })
    }

    /// Bytes of the file as they stand.
    pub fn raw(&mut self, at: u64, length: usize) -> Result<Vec<u8>> {
        if at.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(damaged("something lies beyond its end"));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at).map_err(Error::reading)?;
        self.meter.add(length as u64);
        Ok(bytes)
    }

    /// The places of the blocks that hold `count` records of `size` bytes.
    pub fn lookup_table(&mut self, at: u64, count: u32, size: u32) -> Result<Vec<u64>> {
        let blocks = (u64::from(count) * u64::from(size)).div_ceil(METADATA as u64);
        let length = usize::try_from(blocks * 8).ok().filter(|length| *length <= 16 << 20);
        let raw = self.raw(at, length.ok_or_else(|| damaged("a table is too long"))?)?;
        let mut cursor = Cursor::new(&raw);
        (0..blocks).map(|_| cursor.u64()).collect()
    }

    /// A table of 32-bit numbers.
    pub fn read_numbers(&mut self, table: &[u64], count: u32) -> Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for block in table {
            let wanted = (count as usize - numbers.len()).min(METADATA / 4);
            let raw = self.metadata(&mut Place { block: *block, offset: 0 }, wanted * 4)?;
            numbers.extend(raw.chunks_exact(4).map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]])));
        }
        Ok(numbers)
    }

    /// Reads metadata and moves on behind it, into following blocks if need be.
    pub fn metadata(&mut self, place: &mut Place, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let (block, next) = self.metadata_block(place.block)?;
            let offset = place.offset as usize;
            let rest = block.get(offset..).ok_or_else(|| damaged("metadata lies beyond its block"))?;
            if rest.is_empty() {
                if block.is_empty() {
                    return Err(damaged("a block of metadata is empty"));
                }
                *place = Place { block: next, offset: 0 };
                continue;
            }
            let part = &rest[..rest.len().min(length - bytes.len())];
            bytes.extend_from_slice(part);
            place.offset += u32::try_from(part.len()).unwrap_or(0);
        }
        Ok(bytes)
    }

    fn metadata_block(&mut self, at: u64) -> Result<Kept> {
        if let Some(kept) = self.metadata.get(&at) {
            return Ok(kept.clone());
        }
        let head = self.raw(at, 2)?;
        let head = u16::from_le_bytes([head[0], head[1]]);
        let length = usize::from(head & 0x7fff);
        let stored = self.raw(at.saturating_add(2), length)?;
        let plain = if head & 0x8000 == 0 { self.decompress(&stored, METADATA)? } else { stored };
        let kept = (Rc::new(plain), at.saturating_add(2 + length as u64));
        if self.metadata.len() >= KEPT {
            self.metadata.clear();
        }
        self.metadata.insert(at, kept.clone());
        Ok(kept)
    }

    /// A block of file data; bit 24 of its size says that it is stored as it is.
    pub fn data(&mut self, at: u64, size: u32, block_size: u32) -> Result<Vec<u8>> {
        let length = size & 0xff_ffff;
        if length > block_size {
            return Err(damaged("a block is too long"));
        }
        let stored = self.raw(at, length as usize)?;
        if size & 1 << 24 == 0 { self.decompress(&stored, block_size as usize) } else { self.charge(stored) }
    }

    /// A block many files share; the last one is kept.
    pub fn shared_data(&mut self, at: u64, size: u32, block_size: u32) -> Result<Rc<Vec<u8>>> {
        if let Some((known, data)) = &self.fragment
            && *known == at
        {
            return Ok(data.clone());
        }
        let data = Rc::new(self.data(at, size, block_size)?);
        self.fragment = Some((at, data.clone()));
        Ok(data)
    }

    fn charge(&mut self, plain: Vec<u8>) -> Result<Vec<u8>> {
        self.left = self.left.checked_sub(plain.len() as u64).ok_or(Error::TooLarge { limit: self.limit })?;
        Ok(plain)
    }

    fn decompress(&mut self, stored: &[u8], most: usize) -> Result<Vec<u8>> {
        const WHY: &str = "its compressed data is wrong";
        let mut plain = Vec::with_capacity(most);
        // One byte more than there may be shows a block that is too long.
        let bound = most as u64 + 1;
        let done = match self.compressor {
            Compressor::Gzip => flate2::read::ZlibDecoder::new(stored).take(bound).read_to_end(&mut plain),
            Compressor::Xz => liblzma::stream::Stream::new_stream_decoder(MAX_WINDOW, 0)
                .map_err(Into::into)
                .and_then(|stream| {
                    liblzma::read::XzDecoder::new_stream(stored, stream).take(bound).read_to_end(&mut plain)
                }),
            Compressor::Zstd => zstd::bulk::decompress(stored, most).map(|data| {
                plain = data;
                plain.len()
            }),
        };
        match done {
            Ok(length) if length <= most => self.charge(plain),
            _ => Err(damaged(WHY)),
        }
    }
}

/// Little-endian numbers one after the other.
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| damaged("a record is cut short"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub fn u16(&mut self) -> Result<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

fn damaged(why: &'static str) -> Error {
    Error::Archive { why }
}
