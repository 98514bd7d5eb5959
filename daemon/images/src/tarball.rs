//! Reading tar archives as a stream of members: ustar, GNU and PAX forms, sparse files of all four kinds.
//!
//! The crate `tar` decodes single header blocks; what follows what, and which field wins, is decided here
//! alone, so that no second reader can see another archive. Nothing here touches the filesystem.

use std::io::Read;

use tar::{EntryType, GnuExtSparseHeader, Header};

use crate::error::{Error, Result};
use crate::tree::{Attributes, Extent};

mod pax;

use pax::Pax;

const BLOCK: usize = 512;
/// The most bytes of names and extended headers before one member.
const MAX_EXTENSION: u64 = 1024 * 1024;
/// The most runs of data in one sparse file.
const MAX_EXTENTS: usize = 1_000_000;
/// The longest path, in bytes: what the kernel takes in one call.
pub(crate) const MAX_PATH: usize = 4095;

/// One member of an archive.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its path, as written.
    pub path: Vec<u8>,
    pub kind: MemberKind,
    pub attributes: Attributes,
    /// The size of the file once written, in bytes.
    pub size: u64,
    /// Where its stored bytes go; the rest are holes.
    pub extents: Vec<Extent>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Fifo,
    /// A character device 0:0, which an overlay would take for a deleted file.
    Whiteout,
    Device,
}

/// An archive being read.
pub(crate) struct Tarball<R> {
    input: R,
    /// Bytes of the current member not read yet.
    left: u64,
    padding: u64,
    ended: bool,
}

impl<R: Read> Tarball<R> {
    pub fn new(input: R) -> Tarball<R> {
        Tarball { input, left: 0, padding: 0, ended: false }
    }

    /// Whether the mark of the end was there; without it something may be missing.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// What is behind the archive.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next member, or `None` at the end.
    pub fn next(&mut self) -> Result<Option<Member>> {
        self.skip_rest()?;
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        for _ in 0..8 {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = header.entry_size().map_err(|_| damaged("a size is not a number"))?;
            let slot = match header.entry_type() {
                EntryType::XHeader => {
                    pax.parse(&self.extension(size)?)?;
                    continue;
                }
                EntryType::XGlobalHeader => {
                    let mut global = Pax::default();
                    global.parse(&self.extension(size)?)?;
                    if global.changes_names() {
                        return Err(damaged("a global header names or sizes members"));
                    }
                    continue;
                }
                EntryType::GNULongName => &mut long_name,
                EntryType::GNULongLink => &mut long_link,
                _ => return self.member(&header, size, pax, long_name, long_link).map(Some),
            };
            let mut text = self.extension(size)?;
            while text.last() == Some(&0) {
                text.pop();
            }
            *slot = Some(text);
        }
        Err(damaged("too many extended headers in a row"))
    }

    /// Reads stored bytes of the current member; 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let got = self.input.read(&mut buffer[..wanted]).map_err(Error::reading)?;
        if got == 0 {
            return Err(damaged(Error::EARLY));
        }
        self.left -= got as u64;
        Ok(got)
    }

    /// The whole content of the current member, refused when longer than `limit`.
    pub fn read_all(&mut self, limit: u64, why: &'static str) -> Result<Vec<u8>> {
        if self.left > limit {
            return Err(damaged(why));
        }
        let mut content = vec![0; usize::try_from(self.left).unwrap_or(0)];
        self.input.read_exact(&mut content).map_err(Error::reading)?;
        self.left = 0;
        Ok(content)
    }

    fn skip_rest(&mut self) -> Result<()> {
        let mut scrap = [0u8; 16 * 1024];
        self.left += std::mem::take(&mut self.padding);
        while self.read(&mut scrap)? > 0 {}
        Ok(())
    }

    fn begin(&mut self, size: u64) -> Result<()> {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        if size > i64::MAX as u64 { Err(damaged("a size is beyond all measure")) } else { Ok(()) }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        self.begin(size)?;
        let content = self.read_all(MAX_EXTENSION, "an extended header is too long")?;
        self.skip_rest()?;
        Ok(content)
    }

    /// The next header block; `None` at the mark of the end, or at the end of the file.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]).map_err(Error::reading)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(damaged(Error::EARLY)),
                more => filled += more,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block);
        // The sum counts its own field as blanks.
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(damaged("a header's checksum is wrong"));
        }
        Ok(Some(header.clone()))
    }

    fn member(
        &mut self,
        header: &Header,
        size: u64,
        mut pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Member> {
        let path = pax
            .sparse_name
            .take()
            .or_else(|| pax.path.take())
            .or(long_name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = pax.link.take().or(long_link).unwrap_or_else(|| {
            header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default()
        });
        let attributes = attributes(header, &mut pax)?;
        let entry_type = header.entry_type();
        let kind = match entry_type {
            EntryType::Regular if path.ends_with(b"/") => MemberKind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => MemberKind::File,
            EntryType::Directory => MemberKind::Directory,
            EntryType::Symlink => MemberKind::Symlink(link),
            EntryType::Link => MemberKind::HardLink(link),
            EntryType::Fifo => MemberKind::Fifo,
            EntryType::Char if device_numbers(header) == (0, 0) => MemberKind::Whiteout,
            EntryType::Char | EntryType::Block => MemberKind::Device,
            _ => {
                return Err(Error::Member {
                    path: String::from_utf8_lossy(&path).into_owned(),
                    why: "it is of an unknown kind",
                });
            }
        };
        let is_file = kind == MemberKind::File;
        // Some writers leave the target's size in a link's header; no data follows those.
        self.begin(if is_file { pax.size.unwrap_or(size) } else { 0 })?;
        let (size, extents) = if !is_file {
            (0, Vec::new())
        } else if entry_type == EntryType::GNUSparse {
            self.gnu_sparse(header)?
        } else if let Some(real) = pax.sparse_size {
            let extents = match pax.sparse_major {
                Some(1) => self.pax_sparse_map()?,
                _ => pax.extents()?,
            };
            (real, extents)
        } else {
            (self.left, vec![Extent { offset: 0, length: self.left }])
        };
        check_extents(&extents, size, self.left)?;
        Ok(Member { path, kind, attributes, size, extents })
    }

    /// The old GNU form: four runs in the header, 21 in each block that follows.
    fn gnu_sparse(&mut self, header: &Header) -> Result<(u64, Vec<Extent>)> {
        const WHY: &str = "a sparse file's map is not numbers";
        let gnu = header.as_gnu().ok_or_else(|| damaged("a sparse file in another archive's form"))?;
        let size = gnu.real_size().map_err(|_| damaged(WHY))?;
        let mut extents = Vec::new();
        let mut take = |run: &tar::GnuSparseHeader| {
            if run.is_empty() {
                return Ok(());
            }
            let (offset, length) =
                run.offset().and_then(|o| Ok((o, run.length()?))).map_err(|_| damaged(WHY))?;
            extents.push(Extent { offset, length });
            if extents.len() > MAX_EXTENTS { Err(damaged("a sparse file has too many runs")) } else { Ok(()) }
        };
        gnu.sparse.iter().try_for_each(&mut take)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.input.read_exact(block.as_mut_bytes()).map_err(Error::reading)?;
            block.sparse().iter().try_for_each(&mut take)?;
            more = block.is_extended();
        }
        Ok((size, extents))
    }

    /// The PAX 1.0 form: the map stands in front of the data as lines of decimal numbers, filled up to a block.
    fn pax_sparse_map(&mut self) -> Result<Vec<Extent>> {
        let mut block = [0u8; BLOCK];
        let mut at = BLOCK;
        let mut number = || -> Result<u64> {
            let mut value: Option<u64> = None;
            loop {
                if at == BLOCK {
                    if self.left < BLOCK as u64 {
                        return Err(damaged("a sparse file's map is cut short"));
                    }
                    self.input.read_exact(&mut block).map_err(Error::reading)?;
                    self.left -= BLOCK as u64;
                    at = 0;
                }
                let byte = block[at];
                at += 1;
                value = match (byte, value) {
                    (b'\n', Some(value)) => return Ok(value),
                    (b'0'..=b'9', value) => {
                        value.unwrap_or(0).checked_mul(10).and_then(|v| v.checked_add(u64::from(byte - b'0')))
                    }
                    _ => None,
                };
                if value.is_none() {
                    return Err(damaged("a sparse file's map is not numbers"));
                }
            }
        };
        let count = number()?;
        if count > MAX_EXTENTS as u64 {
            return Err(damaged("a sparse file has too many runs"));
        }
        (0..count).map(|_| Ok(Extent { offset: number()?, length: number()? })).collect()
    }
}

fn check_extents(extents: &[Extent], size: u64, stored: u64) -> Result<()> {
    let (mut end, mut sum) = (0u64, 0u64);
    for extent in extents {
        let next = extent.offset.checked_add(extent.length);
        match next {
            Some(next) if extent.offset >= end && next <= size => end = next,
            _ => return Err(damaged("a sparse file's runs overlap or go beyond its end")),
        }
        sum += extent.length;
    }
    if sum == stored { Ok(()) } else { Err(damaged("a sparse file's map and data differ in size")) }
}

fn attributes(header: &Header, pax: &mut Pax) -> Result<Attributes> {
    const WHY: &str = "an owner, mode or time is not a number";
    let id = |from_pax: Option<u64>, from_header: std::io::Result<u64>| -> Result<u32> {
        let id = from_pax.map_or(from_header, Ok).map_err(|_| damaged(WHY))?;
        u32::try_from(id).map_err(|_| damaged("an owner is beyond 32 bits"))
    };
    let seconds = header.mtime().map_err(|_| damaged(WHY))?;
    Ok(Attributes {
        mode: header.mode().map_err(|_| damaged(WHY))? & 0o7777,
        uid: id(pax.uid, header.uid())?,
        gid: id(pax.gid, header.gid())?,
        mtime: pax.mtime.unwrap_or((i64::try_from(seconds).unwrap_or(0), 0)),
        xattrs: std::mem::take(&mut pax.xattrs),
    })
}

fn device_numbers(header: &Header) -> (u32, u32) {
    let field = |value: std::io::Result<Option<u32>>| value.ok().flatten().unwrap_or(0);
    (field(header.device_major()), field(header.device_minor()))
}

fn damaged(why: &'static str) -> Error {
    Error::Archive { why }
}

/// A member's path cut into plain components beneath the archive's root: no absolute ones, no `..`.
pub(crate) fn normalize(path: &[u8]) -> Result<Vec<u8>> {
    let refuse =
        |why| Err(Error::Member { path: String::from_utf8_lossy(path).chars().take(300).collect(), why });
    if path.starts_with(b"/") {
        return refuse("its path is absolute");
    }
    if path.len() > MAX_PATH {
        return refuse("its path is too long");
    }
    if path.contains(&0) {
        return refuse("its path holds a zero byte");
    }
    let mut plain = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return refuse("its path goes upwards"),
            part => {
                if !plain.is_empty() {
                    plain.push(b'/');
                }
                plain.extend_from_slice(part);
            }
        }
    }
    Ok(plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_their_dots_or_are_refused() {
        for (path, expected) in [
            ("./rootfs/etc/", Some("rootfs/etc")),
            (".", Some("")),
            ("a//b/./c", Some("a/b/c")),
            ("/etc/passwd", None),
            ("a/../../b", None),
            ("..", None),
            ("a\0b", None),
        ] {
            assert_eq!(normalize(path.as_bytes()).ok().as_deref(), expected.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn runs_that_overlap_or_overflow_are_refused() {
        let run = |offset, length| Extent { offset, length };
        check_extents(&[run(0, 5), run(10, 5)], 20, 10).unwrap();
        for (runs, size, stored) in [
            (vec![run(0, 5), run(4, 5)], 20, 10),
            (vec![run(0, 5)], 4, 5),
            (vec![run(u64::MAX, 2)], 20, 2),
            (vec![run(0, 5)], 20, 6),
        ] {
            assert!(check_extents(&runs, size, stored).is_err(), "{runs:?}");
        }
    }
}
