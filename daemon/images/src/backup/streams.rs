//! A backup in the own form of btrfs on its way out: one stream for each subvolume, read from the kernel twice, once
//! to know how long it is and once to be written, so that nothing is kept in between.

use std::io::{self, BufReader, Write};
use std::os::fd::AsFd;

use cabin_sys::btrfs::stream::{Content, Sending};
use cabin_sys::dir::HostDir;
use serde::Serialize;

use super::{BackupWriter, Place, sending};
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::pack::Head;
use crate::stream::Uuid;
use crate::stream::outgoing::{Beside, rewrite};

/// A read-only subvolume that is to be sent.
#[derive(Debug)]
pub struct StreamSource {
    /// Whose it is.
    pub place: Place,
    /// Its root.
    pub tree: HostDir,
}

/// `optimized_header.yaml`.
#[derive(Serialize)]
struct Header<'a> {
    subvolumes: Vec<Subvolume<'a>>,
}

#[derive(Serialize)]
struct Subvolume<'a> {
    path: &'static str,
    snapshot: &'a str,
    readonly: bool,
    uuid: String,
}

/// Counts, and keeps nothing.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The data of a member of the archive, of which no more bytes come than were told.
struct Body<'a, W: Write> {
    backup: &'a mut BackupWriter<W>,
    left: u64,
}

impl<W: Write> Write for Body<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| io::Error::other("the stream is longer than when it was counted"))?;
        self.backup.tar.data(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> BackupWriter<W> {
    /// Adds all subvolumes, in this order, each after the first as what it has otherwise than the one before it. Those
    /// of an instance have files `about` it beside them: `backup.yaml` and those of the metadata.
    ///
    /// # Errors
    /// When the kernel does not send one, or `out` takes no more.
    pub fn streams(&mut self, sources: &[StreamSource], about: Option<(&str, &Metadata)>) -> Result<()> {
        let beside = about.map(|(config, metadata)| beside(config, metadata)).transpose()?;
        let beside = beside.as_deref();
        let mut told = Vec::new();
        for (number, _) in sources.iter().enumerate() {
            let mut counter = Counter(0);
            let uuid = sent(sources, number, beside, &mut counter)?;
            told.push((uuid, counter.0));
        }
        let subvolumes = sources.iter().zip(&told).map(|(source, (uuid, _))| Subvolume {
            path: "/",
            snapshot: snapshot_of(&source.place),
            readonly: !snapshot_of(&source.place).is_empty(),
            uuid: dashed(uuid),
        });
        let header = Header { subvolumes: subvolumes.collect() };
        let header = serde_yaml::to_string(&header).map_err(|source| Error::RenderMetadata { source })?;
        self.file("backup/optimized_header.yaml", 0o644, &header)?;
        for (number, (source, (_, length))) in sources.iter().zip(&told).enumerate() {
            let path = format!("{}.bin", source.place.directory());
            let head = Head { mode: 0o600, mtime: (self.made_at, 0), ..Head::default() };
            self.tar.member(path.as_bytes(), b'0', &head, *length).map_err(sending)?;
            let mut body = Body { backup: self, left: *length };
            sent(sources, number, beside, &mut body)?;
            if body.left > 0 {
                let source = io::Error::other("the stream is shorter than when it was counted");
                return Err(Error::Pack { path, source });
            }
            self.tar.end().map_err(sending)?;
        }
        Ok(())
    }
}

fn snapshot_of(place: &Place) -> &str {
    match place {
        Place::Snapshot(name) | Place::VolumeSnapshot(name) => name,
        Place::Container | Place::Volume => "",
    }
}

/// What other servers look for beside a root filesystem.
fn beside(config: &str, metadata: &Metadata) -> Result<Vec<Beside>> {
    let file =
        |path: String, mode, content: &str| Beside { path, mode, content: content.as_bytes().to_vec() };
    let mut files = vec![
        file("backup.yaml".to_owned(), 0o400, config),
        file("metadata.yaml".to_owned(), 0o644, &metadata.render()?),
    ];
    let mut templates: Vec<_> = metadata.templates.iter().collect();
    templates.sort_by(|a, b| a.name.cmp(&b.name));
    // Two targets may share one template.
    templates.dedup_by(|a, b| a.name == b.name);
    files.extend(templates.iter().map(|it| file(format!("templates/{}", it.name), 0o644, &it.content)));
    Ok(files)
}

/// Has the kernel send one, from the one before it, and writes what becomes of that.
fn sent(
    sources: &[StreamSource],
    number: usize,
    beside: Option<&[Beside]>,
    out: &mut impl Write,
) -> Result<Uuid> {
    let source = &sources[number];
    let parent = number.checked_sub(1).map(|before| &sources[before].tree);
    let name = match snapshot_of(&source.place) {
        "" => ".backup",
        name => name,
    };
    let sending = Sending::begin(&source.tree, parent.map(|it| it as &dyn AsFd), Content::Whole);
    let sending = sending.map_err(|source| Error::Talk { source })?;
    rewrite(BufReader::with_capacity(256 * 1024, sending), out, name, beside)
}

/// As ids of subvolumes are written.
fn dashed(uuid: &Uuid) -> String {
    let hex = hex::encode(uuid);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
