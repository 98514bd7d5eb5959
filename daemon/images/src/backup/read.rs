//! Reading a backup in the confined process: the index from its beginning, then all trees in one pass.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use super::{MAX_INDEX, Place, Wanted, shift};
use crate::decompress::{self, Meter};
use crate::error::{Error, Result};
use crate::extract::{Extract, only_a_file, unexpected};
use crate::format::{Shape, detect};
use crate::message::{Limits, UnpackReport};
use crate::metadata::{MAX_METADATA, MAX_TEMPLATES_SIZE, Metadata, is_template_name};
use crate::tarball::{Member, MemberKind, Tarball, normalize};
use crate::tree::Tree;

/// The index as JSON text, read from the first bytes of a backup; `None` when these bytes do not reach to its
/// end.
pub(crate) fn index(head: &File, limits: Limits, meter: &Meter) -> Result<Option<String>> {
    match read_index(head, limits, meter) {
        Ok(text) => Ok(Some(text)),
        Err(Error::Archive { why: Error::EARLY }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_index(head: &File, limits: Limits, meter: &Meter) -> Result<String> {
    let Shape::Tarball(compression) = detect(head)? else {
        return Err(Error::WrongFormat { found: "squashfs", wanted: "a backup" });
    };
    let mut tarball = Tarball::new(decompress::open(head, compression, limits.expanded, meter)?);
    // Some writers put the directory in front.
    for _ in 0..4 {
        let Some(member) = tarball.next()? else { break };
        if normalize(&member.path)? == b"backup/index.yaml" {
            only_a_file(&member)?;
            let yaml = tarball.read_all(MAX_INDEX, "`index.yaml` is longer than 8 MiB")?;
            let value: serde_json::Value =
                serde_yaml::from_slice(&yaml).map_err(|source| Error::ParseIndex { source })?;
            return Ok(value.to_string());
        }
        if member.kind != MemberKind::Directory {
            return Err(Error::Archive { why: "it is no backup: `backup/index.yaml` is not its first file" });
        }
    }
    if tarball.ended() {
        return Err(Error::Archive { why: "it is no backup: it holds no `backup/index.yaml`" });
    }
    Err(Error::Archive { why: Error::EARLY })
}

/// What was read of a backup beside the trees.
pub(crate) struct Restored {
    pub report: UnpackReport,
    /// The instance's own metadata with its templates, if there was any.
    pub metadata: Option<Metadata>,
}

/// Makes the trees of a backup that comes as a stream. Every place must be in it, and no other.
pub(crate) fn restore(
    input: File,
    mut trees: Vec<(Wanted, Tree)>,
    limits: Limits,
    meter: &Meter,
) -> Result<Restored> {
    let mut tarball = Tarball::new(decompress::stream(input, limits.expanded, meter)?);
    let mut extract = Extract::new(true);
    let mut seen = vec![false; trees.len()];
    let mut about = About { metadata: None, templates: BTreeMap::new(), room: MAX_TEMPLATES_SIZE };
    let (mut members, mut ignored) = (0u64, 0u64);
    while let Some(mut member) = tarball.next()? {
        members += 1;
        if members > limits.entries {
            return Err(Error::TooMany { limit: limits.entries });
        }
        let whole = normalize(&member.path)?;
        let Some((place, rest)) = place_of(&whole)? else {
            ignored += 1;
            continue;
        };
        let found = trees.iter_mut().zip(&mut seen).find(|((known, _), _)| known.place == place);
        let ((wanted, tree), seen) =
            found.ok_or_else(|| unexpected(&whole, "the index names nothing of the kind"))?;
        *seen = true;
        let within = if place.is_bare() { &b""[..] } else { b"rootfs" };
        let path = match rest.strip_prefix(within) {
            Some([]) => Some(&b""[..]),
            Some(path) if place.is_bare() => Some(path),
            Some([b'/', path @ ..]) => Some(path),
            _ => None,
        };
        match path {
            Some(path) => {
                shift::take_back(&mut member.attributes, &wanted.shift);
                let prefix = &whole[..whole.len() - rest.len() + within.len()];
                let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
                extract.member(&mut tarball, &member, (&whole, path, prefix), tree)?;
            }
            None if place == Place::Container => about.take(&mut tarball, &member, rest)?,
            None => ignored += 1,
        }
    }
    if !tarball.ended() {
        return Err(Error::Archive { why: Error::EARLY });
    }
    // The sender is not to be cut off, and a checksum may follow.
    io::copy(&mut tarball.into_inner(), &mut io::sink()).map_err(Error::reading)?;
    let mut report = UnpackReport { ignored, ..UnpackReport::default() };
    for ((Wanted { place, .. }, tree), seen) in trees.into_iter().zip(seen) {
        // A volume may be empty, but not missing.
        if !seen || tree.report.entries == 0 && !place.is_bare() {
            return Err(Error::Archive { why: "a root filesystem that the index names is not in it" });
        }
        report.add(&tree.finish()?);
    }
    Ok(Restored { report, metadata: about.finish()? })
}

/// Whose a member is, and its path in there. What belongs to nobody is passed over.
fn place_of(whole: &[u8]) -> Result<Option<(Place, &[u8])>> {
    let Some(rest) = whole.strip_prefix(b"backup/") else { return Ok(None) };
    if rest == b"container" {
        return Ok(Some((Place::Container, b"")));
    }
    if let Some(rest) = rest.strip_prefix(b"container/") {
        return Ok(Some((Place::Container, rest)));
    }
    let own_form = match rest.strip_prefix(b"snapshots/") {
        Some(name) => name.ends_with(b".bin") && !name.contains(&b'/'),
        None => rest == b"container.bin" || rest == b"optimized_header.yaml",
    };
    if own_form {
        return Err(unexpected(whole, "backups in a storage driver's own form cannot be read by this one"));
    }
    if rest == b"volume" {
        return Ok(Some((Place::Volume, b"")));
    }
    if let Some(rest) = rest.strip_prefix(b"volume/") {
        return Ok(Some((Place::Volume, rest)));
    }
    if let Some(rest) = rest.strip_prefix(b"volume-snapshots/") {
        let (name, rest) = named(whole, rest)?;
        return Ok(Some((Place::VolumeSnapshot(name), rest)));
    }
    if rest.starts_with(b"virtual-machine") || rest.starts_with(b"volume.") || rest.starts_with(b"bucket") {
        return Err(unexpected(whole, "it is not the backup of a container or of its files"));
    }
    let Some(rest) = rest.strip_prefix(b"snapshots/") else { return Ok(None) };
    let (name, rest) = named(whole, rest)?;
    Ok(Some((Place::Snapshot(name), rest)))
}

/// The name of a snapshot, and what comes after it.
fn named<'a>(whole: &[u8], rest: &'a [u8]) -> Result<(String, &'a [u8])> {
    let (name, rest) = match rest.iter().position(|byte| *byte == b'/') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &b""[..]),
    };
    let name =
        std::str::from_utf8(name).map_err(|_| unexpected(whole, "its snapshot's name is not UTF-8"))?;
    Ok((name.to_owned(), rest))
}

/// `metadata.yaml` and `templates/` of the instance. They are read here and never lie beside the tree.
struct About {
    metadata: Option<Metadata>,
    templates: BTreeMap<String, Vec<u8>>,
    room: u64,
}

impl About {
    fn take<R: Read>(&mut self, tarball: &mut Tarball<R>, member: &Member, path: &[u8]) -> Result<()> {
        if path == b"metadata.yaml" {
            only_a_file(member)?;
            if self.metadata.is_some() {
                return Err(unexpected(&member.path, "it is there twice"));
            }
            let yaml = tarball.read_all(MAX_METADATA, "`metadata.yaml` is longer than 1 MiB")?;
            self.metadata = Some(Metadata::parse(&yaml)?);
        } else if path == b"templates" && member.kind != MemberKind::Directory {
            return Err(unexpected(&member.path, "it must be a directory"));
        } else if let Some(name) = path.strip_prefix(b"templates/") {
            only_a_file(member)?;
            let name = std::str::from_utf8(name).ok().filter(|name| is_template_name(name));
            let name = name.ok_or_else(|| unexpected(&member.path, "it must be a plain file name"))?;
            let content = tarball.read_all(self.room, "the templates are longer than 1 MiB together")?;
            self.room -= content.len() as u64;
            if self.templates.insert(name.to_owned(), content).is_some() {
                return Err(unexpected(&member.path, "it is there twice"));
            }
        }
        // `backup.yaml` says again what the index says, and is not believed; neither is anything else.
        Ok(())
    }

    fn finish(self) -> Result<Option<Metadata>> {
        let Some(mut metadata) = self.metadata else { return Ok(None) };
        metadata.fill(&self.templates)?;
        Ok(Some(metadata))
    }
}
