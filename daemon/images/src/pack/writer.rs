//! Writing tar archives: ustar headers, with a PAX header in front where they do not suffice.

use std::io::{self, Write};

use tar::Header;

use crate::tree::Extent;

const BLOCK: usize = 512;
/// The largest size and ids an octal field of a header holds.
const MAX_SIZE: u64 = 0o77_777_777_777;
const MAX_ID: u32 = 0o7_777_777;

/// What a member has besides name and content.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(crate) struct TarWriter<W> {
    out: W,
    /// Bytes of the current member so far.
    written: u64,
}

impl<W: Write> TarWriter<W> {
    pub fn new(out: W) -> TarWriter<W> {
        TarWriter { out, written: 0 }
    }

    /// Begins a member; `size` bytes of data must follow, then [`TarWriter::end`].
    pub fn member(&mut self, path: &[u8], kind: u8, head: &Head, size: u64) -> io::Result<()> {
        self.header(path, kind, head, size, b"")
    }

    /// A device node: character (`3`) or block (`4`).
    pub fn device(&mut self, path: &[u8], kind: u8, head: &Head, numbers: (u32, u32)) -> io::Result<()> {
        self.extended(&records(path, head, 0, b""))?;
        let mut header = ustar(path, kind, head, 0, b"");
        // Numbers beyond the field do not exist in Linux (20 bits for the minor).
        header.set_device_major(numbers.0)?;
        header.set_device_minor(numbers.1)?;
        self.block(header)
    }

    /// Begins a sparse file in the form that GNU tar calls PAX 1.0: the map stands in front of the data, which
    /// is that of the runs alone, one after the other; then [`TarWriter::end`].
    pub fn sparse(&mut self, path: &[u8], head: &Head, size: u64, runs: &[Extent]) -> io::Result<()> {
        let mut map = format!("{}\n", runs.len());
        for run in runs {
            map.push_str(&format!("{}\n{}\n", run.offset, run.length));
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        let stored = map.len() as u64 + runs.iter().map(|run| run.length).sum::<u64>();
        let mut extended = records(b"", head, stored, b"");
        record(&mut extended, b"GNU.sparse.major", b"1");
        record(&mut extended, b"GNU.sparse.minor", b"0");
        record(&mut extended, b"GNU.sparse.name", path);
        record(&mut extended, b"GNU.sparse.realsize", size.to_string().as_bytes());
        self.extended(&extended)?;
        // What readers that know nothing of holes make of it must not take the file's own name.
        self.block(ustar(b"GNUSparseFile.0/data", b'0', head, stored, b""))?;
        self.data(&map)
    }

    /// A hard (`1`) or symbolic (`2`) link.
    pub fn link(&mut self, path: &[u8], kind: u8, head: &Head, target: &[u8]) -> io::Result<()> {
        self.header(path, kind, head, 0, target)
    }

    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Fills the last block of a member's data.
    pub fn end(&mut self) -> io::Result<()> {
        let rest = usize::try_from(std::mem::take(&mut self.written) % BLOCK as u64).unwrap_or(0);
        self.out.write_all(&[0; BLOCK][..(BLOCK - rest) % BLOCK])
    }

    /// Writes the mark of the end.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn header(&mut self, path: &[u8], kind: u8, head: &Head, size: u64, link: &[u8]) -> io::Result<()> {
        self.extended(&records(path, head, size, link))?;
        self.block(ustar(path, kind, head, size, link))
    }

    fn extended(&mut self, records: &[u8]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let head = Head { mode: 0o644, ..Head::default() };
        self.block(ustar(b"pax", b'x', &head, records.len() as u64, b""))?;
        self.data(records)?;
        self.end()
    }

    fn block(&mut self, mut header: Header) -> io::Result<()> {
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }
}

fn ustar(path: &[u8], kind: u8, head: &Head, size: u64, link: &[u8]) -> Header {
    let mut header = Header::new_ustar();
    let old = header.as_old_mut();
    fill(&mut old.name, path);
    fill(&mut old.linkname, link);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(head.mode);
    header.set_uid(head.uid.min(MAX_ID).into());
    header.set_gid(head.gid.min(MAX_ID).into());
    header.set_size(size.min(MAX_SIZE));
    header.set_mtime(u64::try_from(head.mtime.0).unwrap_or(0).min(MAX_SIZE));
    header
}

fn fill(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// What the header itself cannot say.
fn records(path: &[u8], head: &Head, size: u64, link: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    let mut put = |key: &[u8], value: &[u8]| record(&mut records, key, value);
    if path.len() > 100 {
        put(b"path", path);
    }
    if link.len() > 100 {
        put(b"linkpath", link);
    }
    if size > MAX_SIZE {
        put(b"size", size.to_string().as_bytes());
    }
    if head.uid > MAX_ID {
        put(b"uid", head.uid.to_string().as_bytes());
    }
    if head.gid > MAX_ID {
        put(b"gid", head.gid.to_string().as_bytes());
    }
    match head.mtime {
        (0.., 0) => {}
        (seconds @ 0.., nanoseconds) => put(b"mtime", format!("{seconds}.{nanoseconds:09}").as_bytes()),
        (seconds, _) => put(b"mtime", seconds.to_string().as_bytes()),
    }
    for (name, value) in &head.xattrs {
        put(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend(length.to_string().bytes());
    records.push(b' ');
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}
