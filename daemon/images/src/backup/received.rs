//! Reading a backup in the own form of btrfs, in the confined process: the streams become subvolumes, which the daemon
//! makes when it is asked, empty or as a snapshot of one that is there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{self as rfs, Mode, OFlags};

use super::read::Restored;
use super::{Place, Wanted};
use crate::decompress::{self, Meter};
use crate::error::{Error, Result};
use crate::extract::{only_a_file, unexpected};
use crate::message::{Limits, UnpackReport};
use crate::metadata::{MAX_METADATA, MAX_TEMPLATES_SIZE, Metadata, is_template_name};
use crate::stream::receive::{Received, Tree};
use crate::stream::{Commands, attribute, begin, kind};
use crate::tarball::{Tarball, normalize};
use crate::tree::BENEATH;

/// The name of the subvolume in each directory that was given for one.
pub(crate) const NAME: &str = "rootfs";

/// What the confined process is given: places with the directories for their subvolumes, and who makes those.
pub(crate) struct Targets<'a> {
    pub places: Vec<(Wanted, OwnedFd)>,
    /// How many ids there are to own files.
    pub ids: u32,
    /// Has the subvolume of a place made, from that of another one if one is given.
    pub make: &'a dyn Fn(usize, Option<usize>) -> Result<()>,
}

/// Makes the subvolumes of a backup that comes as a stream. Every place must be in it once, and no other.
pub(crate) fn restore(input: File, targets: &Targets<'_>, limits: Limits, meter: &Meter) -> Result<Restored> {
    let mut tarball = Tarball::new(decompress::stream(input, limits.expanded, meter)?);
    // By number of the place; those that are made are kept in the order in which they came.
    let mut made: Vec<(usize, Received)> = Vec::new();
    let (mut members, mut ignored) = (0u64, 0u64);
    while let Some(member) = tarball.next()? {
        members += 1;
        if members > limits.entries {
            return Err(Error::TooMany { limit: limits.entries });
        }
        let whole = normalize(&member.path)?;
        let Some(place) = place_of(&whole)? else {
            ignored += 1;
            continue;
        };
        only_a_file(&member)?;
        let number = targets.places.iter().position(|(wanted, _)| wanted.place == place);
        let number = number.ok_or_else(|| unexpected(&whole, "the index names nothing of the kind"))?;
        if made.iter().any(|(known, _)| *known == number) {
            return Err(unexpected(&whole, "it is there twice"));
        }
        let body = Member { tarball: &mut tarball, left: member.size };
        let mut commands = begin(BufReader::with_capacity(128 * 1024, body))?;
        let mut received = first(&mut commands, number, targets, limits, &made)?;
        while let Some(command) = commands.next()? {
            received.apply(&command, &made)?;
        }
        made.push((number, received));
    }
    if !tarball.ended() {
        return Err(Error::Archive { why: Error::EARLY });
    }
    // The sender is not to be cut off, and a checksum may follow.
    io::copy(&mut tarball.into_inner(), &mut io::sink()).map_err(Error::reading)?;
    if made.len() != targets.places.len() {
        return Err(Error::Archive { why: "a root filesystem that the index names is not in it" });
    }
    let mut report = UnpackReport { ignored, ..UnpackReport::default() };
    let mut metadata = None;
    for (number, received) in made {
        if targets.places[number].0.place == Place::Container {
            metadata = about(&received)?;
        }
        report.add(&received.finish()?);
    }
    Ok(Restored { report, metadata })
}

/// The data of one member.
struct Member<'a, R> {
    tarball: &'a mut Tarball<R>,
    left: u64,
}

impl<R: Read> Read for Member<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.tarball.read(&mut buffer[..most]).map_err(io::Error::other)?;
        self.left -= got as u64;
        Ok(got)
    }
}

/// Has the subvolume made that the first command of a stream is about.
fn first<R: Read>(
    commands: &mut Commands<R>,
    number: usize,
    targets: &Targets<'_>,
    limits: Limits,
    made: &[(usize, Received)],
) -> Result<Received> {
    let none = || Error::Archive { why: "its stream does not say what it is of" };
    let command = commands.next()?.ok_or_else(none)?;
    let uuid = command.uuid(attribute::UUID)?;
    let base = match command.kind {
        kind::SUBVOL => None,
        kind::SNAPSHOT => {
            let of = command.uuid(attribute::CLONE_UUID)?;
            let base = made.iter().find(|(_, received)| received.uuid == of);
            Some(base.ok_or(Error::Archive { why: "its stream goes on from a subvolume that was not sent" })?)
        }
        _ => return Err(none()),
    };
    (targets.make)(number, base.map(|(of, _)| *of))?;
    let (wanted, directory) = &targets.places[number];
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rfs::openat2(directory, NAME, flags, Mode::empty(), BENEATH);
    let root = root.map_err(|e| Error::Make { path: NAME.to_owned(), source: e.into() })?;
    match base {
        Some((_, base)) => Ok(Received::on(base, root, wanted.shift.clone(), uuid)),
        None => {
            let form = if wanted.place.is_bare() { Tree::Bare } else { Tree::InRootfs };
            Received::new(root, form, (targets.ids, limits), wanted.shift.clone(), uuid)
        }
    }
}

/// Whose stream a member is. What belongs to nobody is passed over.
fn place_of(whole: &[u8]) -> Result<Option<Place>> {
    let Some(rest) = whole.strip_prefix(b"backup/") else { return Ok(None) };
    match rest {
        b"container.bin" => return Ok(Some(Place::Container)),
        b"volume.bin" => return Ok(Some(Place::Volume)),
        _ => {}
    }
    let named = |directory: &[u8]| rest.strip_prefix(directory).and_then(|rest| rest.strip_suffix(b".bin"));
    let text = |name: &[u8]| -> Result<String> {
        let name =
            std::str::from_utf8(name).map_err(|_| unexpected(whole, "its snapshot's name is not UTF-8"))?;
        Ok(name.to_owned())
    };
    if let Some(name) = named(b"snapshots/") {
        return Ok(Some(Place::Snapshot(text(name)?)));
    }
    if let Some(name) = named(b"volume-snapshots/") {
        return Ok(Some(Place::VolumeSnapshot(text(name)?)));
    }
    let other = rest.ends_with(b".bin") || rest.starts_with(b"container/") || rest.starts_with(b"volume/");
    match other {
        true => {
            let why =
                "only the subvolume of an instance or volume itself can be taken in, none that lies in it";
            Err(unexpected(whole, why))
        }
        false => Ok(None),
    }
}

/// The instance's metadata with its templates, if there is any.
fn about(received: &Received) -> Result<Option<Metadata>> {
    let yaml = received.beside("metadata.yaml", MAX_METADATA, "`metadata.yaml` is longer than 1 MiB")?;
    let Some(yaml) = yaml else { return Ok(None) };
    let mut metadata = Metadata::parse(&yaml)?;
    let (mut templates, mut room) = (BTreeMap::new(), MAX_TEMPLATES_SIZE);
    for name in received.names_beside("templates")? {
        let Some(name) = std::str::from_utf8(&name).ok().filter(|name| is_template_name(name)) else {
            return Err(unexpected(&name, "it must be a plain file name"));
        };
        let why = "the templates are longer than 1 MiB together";
        let content = received.beside(&format!("templates/{name}"), room, why)?.unwrap_or_default();
        room -= content.len() as u64;
        templates.insert(name.to_owned(), content);
    }
    metadata.fill(&templates)?;
    Ok(Some(metadata))
}
