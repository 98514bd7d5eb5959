//! PAX extended headers: the records of one member, and the text form of ACLs some writers use.

use crate::error::{Error, Result};
use crate::tree::Extent;

/// What the extended headers in front of a member say. The last record of a name wins.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The real name of a sparse file; the member's own name is a stand-in for other readers.
    pub sparse_name: Option<Vec<u8>>,
    pub sparse_size: Option<u64>,
    pub sparse_major: Option<u64>,
    sparse_map: Option<Vec<u8>>,
    sparse_runs: Vec<u64>,
}

impl Pax {
    /// Reads records `LENGTH KEY=VALUE\n`; values may hold any byte.
    pub fn parse(&mut self, mut records: &[u8]) -> Result<()> {
        while !records.is_empty() && records[0] != 0 {
            let blank = records.iter().take(20).position(|b| *b == b' ').ok_or_else(damaged)?;
            let length = usize::try_from(decimal(&records[..blank])?).map_err(|_| damaged())?;
            if length <= blank + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(damaged());
            }
            let record = &records[blank + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(damaged)?;
            self.record(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse_size = Some(decimal(value)?),
            b"GNU.sparse.major" => self.sparse_major = Some(decimal(value)?),
            b"GNU.sparse.map" => self.sparse_map = Some(value.to_vec()),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse_runs.push(decimal(value)?),
            b"SCHILY.acl.access" => self.acl(b"system.posix_acl_access", value),
            b"SCHILY.acl.default" => self.acl(b"system.posix_acl_default", value),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.")
                    && !name.is_empty()
                    && name.len() <= 255
                    && value.len() <= 65536
                {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    fn acl(&mut self, name: &[u8], text: &[u8]) {
        // Entries that name users by name mean nothing here: names belong to the image's own files.
        if let Some(value) = acl_from_text(text) {
            self.xattrs.push((name.to_vec(), value));
        }
    }

    /// Whether there is anything that would say for every member what only one may have.
    pub fn changes_names(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.sparse_name.is_some()
            || self.sparse_size.is_some()
    }

    /// The map of a sparse file in the forms 0.0 and 0.1.
    pub fn extents(&self) -> Result<Vec<Extent>> {
        let numbers = match &self.sparse_map {
            Some(map) => map.split(|b| *b == b',').map(decimal).collect::<Result<Vec<_>>>()?,
            None => self.sparse_runs.clone(),
        };
        if numbers.len() % 2 != 0 {
            return Err(damaged());
        }
        Ok(numbers.chunks_exact(2).map(|run| Extent { offset: run[0], length: run[1] }).collect())
    }
}

fn damaged() -> Error {
    Error::Archive { why: "an extended header is not in its form" }
}

fn decimal(digits: &[u8]) -> Result<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(damaged());
    }
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or_else(damaged)
}

/// Seconds with an optional fraction and sign.
fn time(text: &[u8]) -> Result<(i64, u32)> {
    let text = std::str::from_utf8(text).map_err(|_| damaged())?;
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let seconds = i64::try_from(decimal(whole.as_bytes())?).map_err(|_| damaged())?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds = u32::try_from(decimal(digits.as_bytes())?).map_err(|_| damaged())?;
    Ok(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

/// The kernel's form (version 2, little endian) of an ACL written as `user::rwx,user:1000:r--,…`. Of the two
/// ids a writer may give (`user:name:rwx:1000`), only the number is used.
fn acl_from_text(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut entries = Vec::new();
    for entry in text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty()) {
        let mut fields = entry.split(':');
        let (kind, who, bits) = (fields.next()?, fields.next()?, fields.next()?);
        let id = fields.next().or(Some(who)).and_then(|id| id.parse::<u32>().ok());
        let (tag, id) = match (kind, who) {
            ("user" | "u", "") => (0x01u16, u32::MAX),
            ("user" | "u", _) => (0x02, id?),
            ("group" | "g", "") => (0x04, u32::MAX),
            ("group" | "g", _) => (0x08, id?),
            ("mask" | "m", _) => (0x10, u32::MAX),
            ("other" | "o", _) => (0x20, u32::MAX),
            _ => return None,
        };
        let bit = |letter, value| if bits.contains(letter) { value } else { 0u16 };
        entries.push((tag, id, bit('r', 4) | bit('w', 2) | bit('x', 1)));
    }
    entries.sort_unstable();
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, id, bits) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    Some(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_broken_ones_refused() {
        let mut pax = Pax::default();
        pax.parse(b"9 path=x\n21 SCHILY.xattr.a=b=c\n").unwrap_err();
        pax.parse(b"11 path=x\n\x00").unwrap_err();
        let mut pax = Pax::default();
        pax.parse(b"9 path=x\n23 SCHILY.xattr.a=b\n=c\n12 uid=1000\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(b"x".as_slice()));
        assert_eq!(pax.xattrs, [(b"a".to_vec(), b"b\n=c".to_vec())]);
        assert_eq!(pax.uid, Some(1000));
        for bad in [&b"x path=x\n"[..], b"99 path=x\n", b"3 =\n", b"9 path:x\n", b"12 uid=1e10\n"] {
            assert!(Pax::default().parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_keep_their_fraction() {
        assert_eq!(time(b"12.5").unwrap(), (12, 500_000_000));
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time(b"7").unwrap(), (7, 0));
        assert!(time(b"1.x").is_err());
    }

    #[test]
    fn an_acl_in_text_becomes_the_kernels_form() {
        let value = acl_from_text(b"user::rw-,user:1000:r--,group::r--,mask::r--,other::---").unwrap();
        assert_eq!(value.len(), 4 + 5 * 8);
        assert_eq!(&value[12..20], [2, 0, 4, 0, 0xe8, 3, 0, 0]);
        assert!(acl_from_text(b"user:alice:r--").is_none());
        assert!(acl_from_text(b"user:alice:r--:7").is_some());
    }
}
