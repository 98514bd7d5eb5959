//! Making image files from a tree and its metadata.
//!
//! The same tree and metadata give the same bytes: names are sorted, and no time is later than the metadata's
//! creation date.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use cabin_sys::command::{self, Program, Programs};

use crate::error::{Error, Result};
use crate::format::Compression;
use crate::metadata::Metadata;

mod encoder;
mod layers;
mod writer;

use encoder::Encoder;
use writer::TarWriter;

pub(crate) use layers::{Devices, Manner, Node, Walk};
pub(crate) use writer::Head;

pub use layers::TreeSource;

/// Writes a unified image: `metadata.yaml`, `templates/`, then `tree` as `rootfs/`.
///
/// # Errors
/// When the tree cannot be read or the file not written.
pub fn pack_unified(
    tree: &TreeSource,
    metadata: &Metadata,
    out: &mut File,
    compression: Compression,
) -> Result<()> {
    let mut tar = begin(out, compression)?;
    write_metadata(&mut tar, metadata, "")?;
    Walk::open(tree, Manner::of_image(metadata))?.write(&mut tar, "rootfs")?;
    finish(tar)
}

/// Writes the metadata tarball of a split image.
///
/// # Errors
/// When the file cannot be written.
pub fn pack_metadata(metadata: &Metadata, out: &mut File) -> Result<()> {
    let mut tar = begin(out, Compression::Gzip)?;
    write_metadata(&mut tar, metadata, "")?;
    finish(tar)
}

/// Writes the rootfs of a split image as a tarball.
///
/// # Errors
/// When the tree cannot be read or the file not written.
pub fn pack_rootfs(
    tree: &TreeSource,
    metadata: &Metadata,
    out: &mut File,
    compression: Compression,
) -> Result<()> {
    let mut tar = begin(out, compression)?;
    Walk::open(tree, Manner::of_image(metadata))?.write(&mut tar, "")?;
    finish(tar)
}

/// Writes `tree` as a squashfs (zstd) with mksquashfs; `out` must not exist. `latest` is the time, in seconds
/// since 1970, that no file's time exceeds.
///
/// # Errors
/// When mksquashfs is missing or fails.
pub fn pack_squashfs(programs: &Programs, tree: &Path, out: &Path, latest: i64) -> Result<()> {
    let mut mksquashfs = programs.command(Program::Mksquashfs).map_err(|source| Error::Program { source })?;
    mksquashfs
        .arg(tree)
        .arg(out)
        .args(["-noappend", "-comp", "zstd", "-xattrs", "-no-progress", "-quiet"])
        .env("SOURCE_DATE_EPOCH", latest.to_string());
    command::output(&mut mksquashfs).map(drop).map_err(packing(out))
}

fn packing(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Pack { path: path.clone(), source }
}

fn output(source: io::Error) -> Error {
    Error::Pack { path: "output".to_owned(), source }
}

impl Manner {
    fn of_image(metadata: &Metadata) -> Manner {
        // Devices are the runtime's business; where holes lie would show in the bytes.
        Manner { latest: Some(metadata.creation_date), devices: Devices::Left, sparse: false }
    }
}

/// An archive on its way out, compressed.
pub(crate) type Packing<W> = TarWriter<BufWriter<Encoder<W>>>;

pub(crate) fn begin<W: Write>(out: W, compression: Compression) -> Result<Packing<W>> {
    let encoder = Encoder::new(out, compression).map_err(output)?;
    Ok(TarWriter::new(BufWriter::with_capacity(256 * 1024, encoder)))
}

pub(crate) fn finish<W: Write>(tar: Packing<W>) -> Result<()> {
    let buffer = tar.finish().map_err(output)?;
    let encoder = buffer.into_inner().map_err(|e| output(e.into_error()))?;
    encoder.finish().map_err(output)
}

/// Writes `metadata.yaml` and `templates/` below `place`, which is empty or ends in a slash.
pub(crate) fn write_metadata<W: Write>(
    tar: &mut TarWriter<W>,
    metadata: &Metadata,
    place: &str,
) -> Result<()> {
    let head = |mode| Head { mode, mtime: (metadata.creation_date, 0), ..Head::default() };
    let mut put = |path: &str, content: &[u8]| {
        tar.member(path.as_bytes(), b'0', &head(0o644), content.len() as u64)?;
        tar.data(content)?;
        tar.end()
    };
    put(&format!("{place}metadata.yaml"), metadata.render()?.as_bytes()).map_err(output)?;
    if metadata.templates.is_empty() {
        return Ok(());
    }
    let directory = format!("{place}templates/");
    tar.member(directory.as_bytes(), b'5', &head(0o755), 0).map_err(output)?;
    let mut templates: Vec<_> = metadata.templates.iter().collect();
    templates.sort_by(|a, b| a.name.cmp(&b.name));
    // Two targets may share one template.
    templates.dedup_by(|a, b| a.name == b.name);
    for template in templates {
        let path = format!("{directory}{}", template.name);
        let content = template.content.as_bytes();
        tar.member(path.as_bytes(), b'0', &head(0o644), content.len() as u64)
            .and_then(|()| tar.data(content))
            .and_then(|()| tar.end())
            .map_err(output)?;
    }
    Ok(())
}
