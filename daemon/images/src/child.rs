//! The unpacking process: takes one job, confines itself, does the job, answers, ends.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use cabin_sys::{process, socket};

use crate::confine::confine;
use crate::decompress::{self, Meter};
use crate::error::{Error, Kind, Result};
use crate::format::{Compression, Shape, detect};
use crate::message::{Answer, Job, Limits, Task, UnpackReport};
use crate::metadata::{MAX_METADATA, MAX_TEMPLATES_SIZE, Metadata, is_template_name};
use crate::squash;
use crate::tarball::{Member, MemberKind, Tarball, normalize};
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
            let mut chain = vec![error.to_string()];
            let mut cause = error.source();
            while let Some(inner) = cause {
                chain.push(inner.to_string());
                cause = inner.source();
            }
            Answer::Failed { invalid: error.kind() == Kind::Invalid, chain }
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
    let target = if job.task == Task::Unpack { Some(next()?) } else { None };
    let length = |file: &File| file.metadata().map(|m| m.len()).map_err(|source| Error::Read { source });
    let read = match (&rootfs, job.task) {
        (Some(rootfs), Task::Unpack) => rootfs,
        _ => &meta,
    };
    let total = length(read)?;
    let teller = daemon.try_clone().map_err(|source| Error::Talk { source })?;
    let root = confine(target.as_ref().map(AsFd::as_fd), job.ids, job.limits)?;
    drop(target);
    let meter = Meter::new(total, move |done, total| {
        // Nobody listens any more: nothing is left to do.
        if send(&teller, &Answer::Progress { done, total }).is_err() {
            process::exit_now(3);
        }
    });
    match job.task {
        Task::Inspect => {
            let metadata = inspect(&meta, job.limits, &meter)?;
            let bytes = postcard::to_stdvec(&metadata).map_err(|source| Error::Message { source })?;
            for piece in bytes.chunks(PIECE) {
                send(daemon, &Answer::Piece(piece.to_vec()))?;
            }
            Ok(UnpackReport::default())
        }
        Task::Unpack => {
            let mut tree = Tree::new(root, job.ids.size, job.limits);
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

fn only_a_file(member: &Member) -> Result<()> {
    let whole = match member.extents.as_slice() {
        [] => member.size == 0,
        [one] => one.offset == 0 && one.length == member.size,
        _ => false,
    };
    if member.kind == MemberKind::File && whole {
        Ok(())
    } else {
        Err(unexpected(&member.path, "it must be a plain file"))
    }
}

fn unexpected(path: &[u8], why: &'static str) -> Error {
    Error::Member { path: String::from_utf8_lossy(path).chars().take(300).collect(), why }
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
    let mut buffer = vec![0; 256 * 1024];
    while let Some(member) = tarball.next()? {
        let whole = normalize(&member.path)?;
        let Some(path) = beneath(&whole, prefix) else {
            tree.report.ignored += 1;
            if tree.report.ignored > limits.entries {
                return Err(Error::TooMany { limit: limits.entries });
            }
            continue;
        };
        if path.is_empty() && member.kind != MemberKind::Directory {
            return Err(unexpected(&whole, "the root must be a directory"));
        }
        let attributes = &member.attributes;
        match &member.kind {
            MemberKind::Directory => tree.directory(path, attributes)?,
            MemberKind::Symlink(target) => tree.symlink(path, target, attributes)?,
            MemberKind::Fifo => tree.fifo(path, attributes)?,
            MemberKind::HardLink(target) => {
                let target = normalize(target)?;
                let inside = beneath(&target, prefix).filter(|target| !target.is_empty());
                tree.hard_link(path, inside.ok_or_else(|| unexpected(&whole, "it links outside the root"))?)?;
            }
            MemberKind::Device => tree.report.devices_skipped += 1,
            MemberKind::Whiteout => {
                return Err(unexpected(&whole, "it is the mark an overlay takes for a deleted file"));
            }
            MemberKind::File => {
                let made = tree.file(path, member.size)?;
                for extent in &member.extents {
                    let (mut at, end) = (extent.offset, extent.offset + extent.length);
                    while at < end {
                        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
                        let got = tarball.read(&mut buffer[..most])?;
                        if got == 0 {
                            return Err(Error::Archive { why: "it ends too early" });
                        }
                        tree.write(&made, path, at, &buffer[..got])?;
                        at += got as u64;
                    }
                }
                tree.close(&made, path, attributes)?;
            }
        }
    }
    if tree.report.entries == 0 {
        return Err(Error::Archive { why: "it holds no root filesystem" });
    }
    Ok(())
}

/// `path` as seen from `prefix`; `None` when it lies elsewhere.
fn beneath<'p>(path: &'p [u8], prefix: &[u8]) -> Option<&'p [u8]> {
    if prefix.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(prefix)? {
        [] => Some(b""),
        rest => rest.strip_prefix(b"/"),
    }
}
