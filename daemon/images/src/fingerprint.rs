//! The name of an image: the sha256 of its file or files.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// 64 lower case hexadecimal digits. Nothing else can be one, so it is safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(hash: Sha256) -> Fingerprint {
        Fingerprint(hex::encode(hash.finalize()))
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Fingerprint> {
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(lower_hex) {
            Ok(Fingerprint(text.to_owned()))
        } else {
            Err(Error::Fingerprint { text: text.chars().take(80).collect() })
        }
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = Error;

    fn try_from(text: String) -> Result<Fingerprint> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.0
    }
}

impl AsRef<str> for Fingerprint {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fingerprint of an image: of the one file of a unified image, or of metadata and rootfs one after
/// the other. The files' positions are neither used nor moved.
///
/// # Errors
/// When a file cannot be read.
pub fn fingerprint(meta: &File, rootfs: Option<&File>) -> Result<Fingerprint> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    for file in [Some(meta), rootfs].into_iter().flatten() {
        let mut offset = 0;
        loop {
            let got = file.read_at(&mut buffer, offset).map_err(|source| Error::Read { source })?;
            if got == 0 {
                break;
            }
            hash.update(&buffer[..got]);
            offset += got as u64;
        }
    }
    Ok(Fingerprint::of(hash))
}

/// The SHA-256 of some bytes, in hex.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Hashes what is written through it, so that an upload is hashed while it arrives. For a split image write
/// the metadata first and hand the same hash on with [`HashingWriter::next`].
pub struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
    written: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Starts a hash.
    pub fn new(inner: W) -> HashingWriter<W> {
        HashingWriter { inner, hash: Sha256::new(), written: 0 }
    }

    /// Goes on with the same hash into another file; gives back the first one.
    pub fn next<V: Write>(self, inner: V) -> (HashingWriter<V>, W) {
        (HashingWriter { inner, hash: self.hash, written: 0 }, self.inner)
    }

    /// Bytes written into the current file.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The fingerprint of everything written, and the file.
    pub fn finish(self) -> (Fingerprint, W) {
        (Fingerprint::of(self.hash), self.inner)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.inner.write(bytes)?;
        self.hash.update(&bytes[..done]);
        self.written += done as u64;
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_64_lower_case_digits_are_a_fingerprint() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(good.parse::<Fingerprint>().unwrap().as_str(), good);
        for bad in [
            "",
            &good[1..],
            &format!("{good}0"),
            &good.to_uppercase(),
            &format!("../{}", &good[3..]),
            &format!("{}\n", &good[1..]),
        ] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_split_image_hashes_as_both_files_in_a_row_however_it_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let (meta, root) = (dir.path().join("m"), dir.path().join("r"));
        std::fs::write(&meta, b"ab").unwrap();
        std::fs::write(&root, b"c").unwrap();
        let both = fingerprint(&File::open(meta).unwrap(), Some(&File::open(root).unwrap())).unwrap();
        assert_eq!(both.as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let mut first = HashingWriter::new(Vec::new());
        first.write_all(b"ab").unwrap();
        let (mut second, kept) = first.next(Vec::new());
        second.write_all(b"c").unwrap();
        assert_eq!((kept.as_slice(), second.written()), (b"ab".as_slice(), 1));
        assert_eq!(second.finish().0, both);
    }
}
