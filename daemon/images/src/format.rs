//! Telling image files apart by their first bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result};

/// How an image is cut into files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One tarball: `metadata.yaml`, `templates/`, `rootfs/`.
    Unified,
    /// A tarball of metadata and templates, and a rootfs as squashfs or tarball.
    Split,
}

/// How a tarball is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// The compression of that name, as servers and their users call it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Compression> {
        Some(match name {
            "none" => Compression::None,
            "gzip" | "pigz" => Compression::Gzip,
            "bzip2" | "pbzip2" => Compression::Bzip2,
            "xz" | "pxz" => Compression::Xz,
            "zstd" | "pzstd" => Compression::Zstd,
            _ => return None,
        })
    }

    /// The usual ending of a tarball's file name.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Compression::None => ".tar",
            Compression::Gzip => ".tar.gz",
            Compression::Bzip2 => ".tar.bz2",
            Compression::Xz => ".tar.xz",
            Compression::Zstd => ".tar.zst",
        }
    }
}

/// What one image file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A tar archive.
    Tarball(Compression),
    /// A squashfs filesystem.
    Squashfs,
}

impl Shape {
    /// The usual ending of the file's name.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Shape::Tarball(compression) => compression.extension(),
            Shape::Squashfs => ".squashfs",
        }
    }
}

/// Looks at the first bytes of a file. Its position is neither used nor moved.
///
/// # Errors
/// When it cannot be read, or is none of the forms we know.
pub fn detect(file: &File) -> Result<Shape> {
    let mut head = [0u8; HEAD];
    let mut filled = 0;
    while filled < head.len() {
        match file.read_at(&mut head[filled..], filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(source) => return Err(Error::Read { source }),
        }
    }
    identify(&head[..filled])
}

/// How many bytes [`identify`] looks at.
pub(crate) const HEAD: usize = 512;

/// Looks at the first bytes of something.
pub(crate) fn identify(head: &[u8]) -> Result<Shape> {
    if head.starts_with(b"hsqs") {
        return Ok(Shape::Squashfs);
    }
    let compression = if head.starts_with(&[0x1f, 0x8b]) {
        Compression::Gzip
    } else if head.starts_with(b"BZh") && head.get(3).is_some_and(|level| (b'1'..=b'9').contains(level)) {
        Compression::Bzip2
    } else if head.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        Compression::Xz
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Compression::Zstd
    } else if head.len() == HEAD && &head[257..262] == b"ustar" {
        Compression::None
    } else {
        return Err(Error::UnknownFormat);
    };
    Ok(Shape::Tarball(compression))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_say_what_a_file_is() {
        let mut tar = vec![0u8; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let cases: [(&[u8], Option<Shape>); 9] = [
            (b"hsqs....", Some(Shape::Squashfs)),
            (&[0x1f, 0x8b, 8], Some(Shape::Tarball(Compression::Gzip))),
            (b"BZh91AY&SY", Some(Shape::Tarball(Compression::Bzip2))),
            (b"BZh", None),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Some(Shape::Tarball(Compression::Xz))),
            (&[0x28, 0xb5, 0x2f, 0xfd], Some(Shape::Tarball(Compression::Zstd))),
            (&tar, Some(Shape::Tarball(Compression::None))),
            (b"", None),
            (b"#!/bin/sh", None),
        ];
        let dir = tempfile::tempdir().unwrap();
        for (bytes, expected) in cases {
            let path = dir.path().join("f");
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(detect(&File::open(path).unwrap()).ok(), expected, "{bytes:?}");
        }
    }
}
