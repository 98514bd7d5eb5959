//! Making image files from a tree and its metadata.
//!
//! The same tree and metadata give the same bytes: names are sorted, and no time is later than the metadata's
//! creation date. Packing reads trees the host's own builder made; it follows no link in them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cabin_sys::command::{self, Program, Programs};
use rustix::fs::{self as rfs, FileType, Mode, OFlags, ResolveFlags, Stat};

use crate::error::{Error, Result};
use crate::format::Compression;
use crate::metadata::Metadata;

mod encoder;
mod writer;

use encoder::Encoder;
use writer::{Head, TarWriter};

/// Writes a unified image: `metadata.yaml`, `templates/`, then `tree` as `rootfs/`.
///
/// # Errors
/// When the tree cannot be read or the file not written.
pub fn pack_unified(
    tree: &Path,
    metadata: &Metadata,
    out: &mut File,
    compression: Compression,
) -> Result<()> {
    let mut tar = TarWriter::new(BufWriter::with_capacity(256 * 1024, encoder(out, compression)?));
    write_metadata(&mut tar, metadata)?;
    write_tree(&mut tar, tree, metadata.creation_date)?;
    finish(tar)
}

/// Writes the metadata tarball of a split image.
///
/// # Errors
/// When the file cannot be written.
pub fn pack_metadata(metadata: &Metadata, out: &mut File) -> Result<()> {
    let mut tar = TarWriter::new(BufWriter::new(encoder(out, Compression::Gzip)?));
    write_metadata(&mut tar, metadata)?;
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

fn encoder(out: &mut File, compression: Compression) -> Result<Encoder<'_>> {
    Encoder::new(out, compression).map_err(output)
}

fn finish(tar: TarWriter<BufWriter<Encoder<'_>>>) -> Result<()> {
    let buffer = tar.finish().map_err(output)?;
    let encoder = buffer.into_inner().map_err(|e| output(e.into_error()))?;
    encoder.finish().map_err(output)
}

fn write_metadata<W: Write>(tar: &mut TarWriter<W>, metadata: &Metadata) -> Result<()> {
    let head = |mode| Head { mode, mtime: (metadata.creation_date, 0), ..Head::default() };
    let mut put = |path: &str, content: &[u8]| {
        tar.member(path.as_bytes(), b'0', &head(0o644), content.len() as u64)?;
        tar.data(content)?;
        tar.end()
    };
    put("metadata.yaml", metadata.render()?.as_bytes()).map_err(output)?;
    if metadata.templates.is_empty() {
        return Ok(());
    }
    tar.member(b"templates/", b'5', &head(0o755), 0).map_err(output)?;
    let mut templates: Vec<_> = metadata.templates.iter().collect();
    templates.sort_by(|a, b| a.name.cmp(&b.name));
    // Two targets may share one template.
    templates.dedup_by(|a, b| a.name == b.name);
    for template in templates {
        let path = format!("templates/{}", template.name);
        let content = template.content.as_bytes();
        tar.member(path.as_bytes(), b'0', &head(0o644), content.len() as u64)
            .and_then(|()| tar.data(content))
            .and_then(|()| tar.end())
            .map_err(output)?;
    }
    Ok(())
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

struct Source {
    root: OwnedFd,
    latest: i64,
}

fn write_tree<W: Write>(tar: &mut TarWriter<W>, tree: &Path, latest: i64) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rfs::open(tree, flags, Mode::empty()).map_err(|e| packing(tree)(e.into()))?;
    let source = Source { root, latest };
    let mut linked: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    // Relative paths still to be written, the next one last.
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let shown = tree.join(OsStr::from_bytes(&path));
        source.write(tar, &path, &mut linked, &mut open).map_err(packing(&shown))?;
    }
    Ok(())
}

impl Source {
    fn write<W: Write>(
        &self,
        tar: &mut TarWriter<W>,
        path: &[u8],
        linked: &mut HashMap<(u64, u64), Vec<u8>>,
        open: &mut Vec<Vec<u8>>,
    ) -> io::Result<()> {
        let own = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
        let name = match path {
            b"" => b"rootfs".to_vec(),
            path => [b"rootfs/", path].concat(),
        };
        let pinned = rfs::openat2(
            &self.root,
            own,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            BENEATH,
        )?;
        let stat = rfs::fstat(&pinned)?;
        let mut head = self.head(&stat);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = linked.get(&(stat.st_dev, stat.st_ino)) {
                return tar.link(&name, b'1', &head, first);
            }
            linked.insert((stat.st_dev, stat.st_ino), name.clone());
        }
        match kind {
            FileType::Directory => {
                let dir = self.open(own, OFlags::DIRECTORY)?;
                head.xattrs = xattrs(&dir)?;
                open.extend(below(&dir, path)?);
                tar.member(&[&name[..], b"/"].concat(), b'5', &head, 0)
            }
            FileType::RegularFile => {
                let file = File::from(self.open(own, OFlags::NONBLOCK)?);
                head.xattrs = xattrs(&file)?;
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                tar.member(&name, b'0', &head, size)?;
                copy(tar, file, size)?;
                tar.end()
            }
            FileType::Symlink => {
                let target = rfs::readlinkat(&pinned, "", Vec::new())?;
                tar.link(&name, b'2', &head, target.as_bytes())
            }
            FileType::Fifo => tar.member(&name, b'6', &head, 0),
            // Devices are the runtime's business, sockets their makers'.
            _ => Ok(()),
        }
    }

    fn open(&self, path: &OsStr, kind: OFlags) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | kind;
        Ok(rfs::openat2(&self.root, path, flags, Mode::empty(), BENEATH)?)
    }

    fn head(&self, stat: &Stat) -> Head {
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let mtime = (stat.st_mtime, nanoseconds).min((self.latest, 0));
        Head { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs: Vec::new() }
    }
}

/// Paths in a directory, in the order a stack gives them back sorted.
fn below(dir: &OwnedFd, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    for entry in rfs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        paths.push(if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() });
    }
    paths.sort_unstable_by(|a, b| b.cmp(a));
    Ok(paths)
}

fn xattrs(fd: impl std::os::fd::AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0u8; 65536];
    let length = match rfs::flistxattr(&fd, names.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(e) => return Err(e.into()),
    };
    let mut list = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let kept = name == b"security.capability"
            || name.starts_with(b"user.")
            || name.starts_with(b"system.posix_acl_");
        if !kept {
            continue;
        }
        let mut value = vec![0u8; 65536];
        let length = rfs::fgetxattr(&fd, OsStr::from_bytes(name), value.as_mut_slice())?;
        value.truncate(length);
        list.push((name.to_vec(), value));
    }
    list.sort_unstable();
    Ok(list)
}

fn copy<W: Write>(tar: &mut TarWriter<W>, mut file: File, size: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match file.read(&mut buffer[..most])? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it shrank while it was read")),
            got => {
                tar.data(&buffer[..got])?;
                left -= got as u64;
            }
        }
    }
    Ok(())
}
