//! The unpacking process: takes one job, confines itself, does the job, answers, ends.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use cabin_sys::{process, socket};

use crate::backup::Wanted;
use crate::backup::{read, received};
use crate::confine::confine;
use crate::decompress::{self, Meter};
use crate::error::{Error, Kind, Result};
use crate::extract::{Extract, beneath, only_a_file, unexpected};
use crate::format::{Compression, Shape, detect};
use crate::message::{Answer, Job, Limits, Task, UnpackReport};
use crate::metadata::{MAX_METADATA, MAX_TEMPLATES_SIZE, Metadata, is_template_name};
use crate::squash;
use crate::tarball::{MemberKind, Tarball, normalize};
use crate::tree::Tree;

/// Bytes of metadata in one message.
const PIECE: usize = 64 * 1024;

/// The whole program `cabin-unpack`. The daemon's socket is its standard input.
#[must_use]
pub fn main() -> ExitCode {
    let Ok(daemon) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::from(2);
    };
    let last = match serve(&daemon) {
        Ok(report) => Answer::Done(report),
        Err(error) => {
            let (mut chain, mut number) = (vec![error.to_string()], None);
            let mut cause = error.source();
            while let Some(inner) = cause {
                chain.push(inner.to_string());
                number = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
                cause = inner.source();
            }
            Answer::Failed { invalid: error.kind() == Kind::Invalid, chain, number }
        }
    };
    if send(&daemon, &last).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn send(daemon: &OwnedFd, answer: &Answer) -> Result<()> {
    let bytes = postcard::to_stdvec(answer).map_err(|source| Error::Message { source })?;
    socket::send(daemon, &bytes, &[]).map_err(|source| Error::Talk { source })
}

fn serve(daemon: &OwnedFd) -> Result<UnpackReport> {
    let (bytes, fds) = socket::recv(daemon).map_err(|source| Error::Talk { source })?;
    let job: Job = postcard::from_bytes(&bytes).map_err(|source| Error::Message { source })?;
    let mut fds = fds.into_iter();
    let mut next = || {
        let missing = || Error::Talk { source: io::Error::from(io::ErrorKind::UnexpectedEof) };
        fds.next().ok_or_else(missing)
    };
    let meta = File::from(next()?);
    let rootfs = if job.split && job.task == Task::Unpack { Some(File::from(next()?)) } else { None };
    let mut places = Vec::new();
    let targets = match job.task {
        Task::Inspect | Task::Index => Vec::new(),
        Task::Unpack => vec![next()?],
        Task::Restore { places: count } | Task::Receive { places: count } => {
            let (found, targets) = receive_places(daemon, count)?;
            places = found;
            targets
        }
    };
    let length = |file: &File| file.metadata().map(|m| m.len()).map_err(|source| Error::Read { source });
    let read = match (&rootfs, job.task) {
        (Some(rootfs), Task::Unpack) => rootfs,
        _ => &meta,
    };
    let total = if matches!(job.task, Task::Restore { .. } | Task::Receive { .. }) {
        u64::MAX
    } else {
        length(read)?
    };
    let teller = daemon.try_clone().map_err(|source| Error::Talk { source })?;
    let roots = confine(&targets, job.ids, job.limits, matches!(job.task, Task::Receive { .. }))?;
    drop(targets);
    let meter = Meter::new(total, move |done, total| {
        // Nobody listens any more: nothing is left to do.
        if send(&teller, &Answer::Progress { done, total }).is_err() {
            process::exit_now(3);
        }
    });
    if let Task::Receive { .. } = job.task {
        let make = |place: usize, from: Option<usize>| ask(daemon, place, from);
        let targets = received::Targets {
            places: places.into_iter().zip(roots).collect(),
            ids: job.ids.size,
            make: &make,
        };
        return told(daemon, received::restore(meta, &targets, job.limits, &meter)?);
    }
    let mut trees = roots.into_iter().map(|root| Tree::new(root, job.ids.size, job.limits));
    match job.task {
        Task::Inspect => {
            tell(daemon, &inspect(&meta, job.limits, &meter)?)?;
            Ok(UnpackReport::default())
        }
        Task::Index => {
            // Nothing told is: more is needed.
            if let Some(text) = read::index(&meta, job.limits, &meter)? {
                tell(daemon, &text)?;
            }
            Ok(UnpackReport::default())
        }
        Task::Restore { .. } => {
            told(daemon, read::restore(meta, places.into_iter().zip(trees).collect(), job.limits, &meter)?)
        }
        Task::Receive { .. } => Ok(UnpackReport::default()),
        Task::Unpack => {
            let missing = || Error::Talk { source: io::Error::from(io::ErrorKind::UnexpectedEof) };
            let mut tree = trees.next().ok_or_else(missing)?;
            match (detect(read)?, job.split) {
                (Shape::Squashfs, true) => squash::unpack(read, job.limits, &meter, &mut tree)?,
                (Shape::Tarball(compression), split) => {
                    let prefix: &[u8] = if split { b"" } else { b"rootfs" };
                    unpack(read, compression, prefix, job.limits, &meter, &mut tree)?;
                }
                (Shape::Squashfs, false) => {
                    return Err(Error::WrongFormat { found: "squashfs", wanted: "a unified image" });
                }
            }
            tree.finish()
        }
    }
}

/// Sends what is known of a backup beside its trees.
fn told(daemon: &OwnedFd, restored: read::Restored) -> Result<UnpackReport> {
    if let Some(metadata) = &restored.metadata {
        tell(daemon, metadata)?;
    }
    Ok(restored.report)
}

/// Has the daemon make a subvolume.
fn ask(daemon: &OwnedFd, place: usize, from: Option<usize>) -> Result<()> {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    send(daemon, &Answer::Make { place: number(place), from: from.map(number) })?;
    let (reply, _) = socket::recv(daemon).map_err(|source| Error::Talk { source })?;
    match reply.is_empty() {
        true => Err(Error::Talk { source: io::Error::from(io::ErrorKind::UnexpectedEof) }),
        false => Ok(()),
    }
}

/// Sends something long in pieces.
fn tell(daemon: &OwnedFd, what: &impl serde::Serialize) -> Result<()> {
    let bytes = postcard::to_stdvec(what).map_err(|source| Error::Message { source })?;
    bytes.chunks(PIECE).try_for_each(|piece| send(daemon, &Answer::Piece(piece.to_vec())))
}

/// The places of a backup and the directories for them; one message carries only so many descriptors.
fn receive_places(daemon: &OwnedFd, count: u32) -> Result<(Vec<Wanted>, Vec<OwnedFd>)> {
    let (mut places, mut targets) = (Vec::new(), Vec::new());
    while places.len() < count as usize {
        let (bytes, fds) = socket::recv(daemon).map_err(|source| Error::Talk { source })?;
        let more: Vec<Wanted> = postcard::from_bytes(&bytes).map_err(|source| Error::Message { source })?;
        if more.is_empty() || more.len() != fds.len() {
            return Err(Error::Talk { source: io::Error::from(io::ErrorKind::UnexpectedEof) });
        }
        places.extend(more);
        targets.extend(fds);
    }
    Ok((places, targets))
}

/// Reads `metadata.yaml` and what it names of `templates/`; stops as soon as all of it is there.
fn inspect(file: &File, limits: Limits, meter: &Meter) -> Result<Metadata> {
    let Shape::Tarball(compression) = detect(file)? else {
        return Err(Error::WrongFormat { found: "squashfs", wanted: "an image's metadata" });
    };
    let mut tarball = Tarball::new(decompress::open(file, compression, limits.expanded, meter)?);
    let mut metadata: Option<Metadata> = None;
    let mut templates: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut room = MAX_TEMPLATES_SIZE;
    let mut members = 0;
    while let Some(member) = tarball.next()? {
        members += 1;
        if members > limits.entries {
            return Err(Error::TooMany { limit: limits.entries });
        }
        let path = normalize(&member.path)?;
        if path == b"metadata.yaml" {
            only_a_file(&member)?;
            if metadata.is_some() {
                return Err(unexpected(&path, "it is there twice"));
            }
            let yaml = tarball.read_all(MAX_METADATA, "`metadata.yaml` is longer than 1 MiB")?;
            metadata = Some(Metadata::parse(&yaml)?);
        } else if path == b"templates" {
            if member.kind != MemberKind::Directory {
                return Err(unexpected(&path, "it must be a directory"));
            }
        } else if let Some(name) = path.strip_prefix(b"templates/") {
            only_a_file(&member)?;
            let name = std::str::from_utf8(name).ok().filter(|name| is_template_name(name));
            let name = name.ok_or_else(|| unexpected(&path, "it must be a plain file name"))?;
            let content = tarball.read_all(room, "the templates are longer than 1 MiB together")?;
            room -= content.len() as u64;
            if templates.insert(name.to_owned(), content).is_some() {
                return Err(unexpected(&path, "it is there twice"));
            }
        }
        if metadata.as_ref().is_some_and(|metadata| metadata.satisfied_by(&templates)) {
            break;
        }
    }
    let mut metadata = metadata.ok_or(Error::Archive { why: "it holds no `metadata.yaml`" })?;
    metadata.fill(&templates)?;
    Ok(metadata)
}

/// Makes what lies beneath `prefix` in a tarball.
fn unpack(
    file: &File,
    compression: Compression,
    prefix: &[u8],
    limits: Limits,
    meter: &Meter,
    tree: &mut Tree,
) -> Result<()> {
    let mut tarball = Tarball::new(decompress::open(file, compression, limits.expanded, meter)?);
    let mut extract = Extract::new(false);
    while let Some(member) = tarball.next()? {
        let whole = normalize(&member.path)?;
        let Some(path) = beneath(&whole, prefix) else {
            tree.report.ignored += 1;
            if tree.report.ignored > limits.entries {
                return Err(Error::TooMany { limit: limits.entries });
            }
            continue;
        };
        extract.member(&mut tarball, &member, (&whole, path, prefix), tree)?;
    }
    if tree.report.entries == 0 {
        return Err(Error::Archive { why: "it holds no root filesystem" });
    }
    Ok(())
}
