//! Reading a tree for an archive: a plain one, or one that lies in the layers of an overlay, merged as the
//! kernel would show it.
//!
//! Trees may be hostile guests' own. Everything is reached by descriptor beneath the layers' roots, no link is
//! followed, and nothing but regular files and directories is ever opened for reading.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{self as rfs, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::writer::{Head, TarWriter};
use crate::error::Result;
use crate::tree::Extent;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Bytes of holes below which a file is written as if it had none.
const WORTH: u64 = 64 * 1024;
/// The most runs of data written of one sparse file; one with more is written whole.
const MAX_RUNS: usize = 50_000;

/// A tree to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeSource {
    /// One directory.
    Plain(PathBuf),
    /// The layers of an overlay, topmost first: whiteouts and opaque directories hide what lies below.
    Overlay(Vec<PathBuf>),
}

/// What of a tree goes into the archive, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// The time, in seconds since 1970, that no file's time exceeds.
    pub latest: Option<i64>,
    /// What becomes of device nodes.
    pub devices: Devices,
    /// Whether holes are told. Where they lie is the filesystem's choice, not the file's content.
    pub sparse: bool,
}

/// What becomes of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Devices {
    /// They are left out.
    Left,
    /// They are in the archive.
    Written,
    /// They are left out, and told by [`Walk::nodes`]: who reads the archive may not make any.
    Told,
}

/// A device node of a tree.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// From the tree's root.
    pub path: Vec<u8>,
    pub stat: Stat,
}

pub(crate) struct Walk {
    roots: Vec<OwnedFd>,
    overlay: bool,
    manner: Manner,
    shown: PathBuf,
    linked: HashMap<(u64, u64), Vec<u8>>,
    nodes: Vec<Node>,
    buffer: Vec<u8>,
    names: Vec<u8>,
}

/// A path still to be written, and the layers in which it is to be looked for. Only the first one's entry
/// counts unless all are directories.
struct Open {
    path: Vec<u8>,
    layers: Vec<usize>,
}

impl Walk {
    pub fn open(source: &TreeSource, manner: Manner) -> Result<Walk> {
        let (paths, overlay) = match source {
            TreeSource::Plain(path) => (std::slice::from_ref(path), false),
            TreeSource::Overlay(paths) => (paths.as_slice(), true),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &PathBuf| {
            rfs::open(path, flags, Mode::empty()).map_err(|e| super::packing(path)(e.into()))
        };
        Ok(Walk {
            roots: paths.iter().map(open).collect::<Result<_>>()?,
            overlay,
            manner,
            shown: paths.first().cloned().unwrap_or_default(),
            linked: HashMap::new(),
            nodes: Vec::new(),
            buffer: vec![0; 256 * 1024],
            names: vec![0; 64 * 1024],
        })
    }

    /// Writes the whole tree, its root as `prefix`.
    pub fn write<W: Write>(&mut self, tar: &mut TarWriter<W>, prefix: &str) -> Result<()> {
        // The next one last.
        let mut open = vec![Open { path: Vec::new(), layers: (0..self.roots.len()).collect() }];
        while let Some(next) = open.pop() {
            let shown = self.shown.join(OsStr::from_bytes(&next.path));
            let name = match next.path.as_slice() {
                b"" => prefix.as_bytes().to_vec(),
                path if prefix.is_empty() => path.to_vec(),
                path => [prefix.as_bytes(), b"/", path].concat(),
            };
            self.entry(tar, &next, name, &mut open).map_err(super::packing(&shown))?;
        }
        Ok(())
    }

    /// The device nodes of what was written, when they are to be told.
    pub fn nodes(self) -> Vec<Node> {
        self.nodes
    }

    fn entry<W: Write>(
        &mut self,
        tar: &mut TarWriter<W>,
        next: &Open,
        name: Vec<u8>,
        open: &mut Vec<Open>,
    ) -> io::Result<()> {
        let Some(&top) = next.layers.first() else { return Ok(()) };
        let path = own(&next.path);
        let pinned = self.pin(top, path)?;
        let stat = rfs::fstat(&pinned)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut head = self.head(&stat);
        let device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if device && self.manner.devices != Devices::Written {
            if self.manner.devices == Devices::Told {
                self.nodes.push(Node { path: next.path.clone(), stat });
            }
            return Ok(());
        }
        if kind != FileType::Directory && kind != FileType::Socket && stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                return tar.link(&name, b'1', &head, first);
            }
            self.linked.insert((stat.st_dev, stat.st_ino), name.clone());
        }
        match kind {
            FileType::Directory => {
                let dir = self.reopen(top, path, OFlags::DIRECTORY)?;
                head.xattrs = self.xattrs(&dir)?;
                drop(dir);
                open.extend(self.below(next)?);
                let name = if name.is_empty() { b".".to_vec() } else { name };
                tar.member(&[&name[..], b"/"].concat(), b'5', &head, 0)
            }
            FileType::RegularFile => {
                let file = self.reopen(top, path, OFlags::NONBLOCK)?;
                head.xattrs = self.xattrs(&file)?;
                self.content(tar, File::from(file), &name, &head)
            }
            FileType::Symlink => {
                let target = rfs::readlinkat(&pinned, "", Vec::new())?;
                tar.link(&name, b'2', &head, target.as_bytes())
            }
            FileType::Fifo => tar.member(&name, b'6', &head, 0),
            FileType::CharacterDevice | FileType::BlockDevice => {
                let letter = if kind == FileType::CharacterDevice { b'3' } else { b'4' };
                tar.device(&name, letter, &head, (rfs::major(stat.st_rdev), rfs::minor(stat.st_rdev)))
            }
            // A socket is worth nothing without the process that made it.
            _ => Ok(()),
        }
    }

    /// What lies in a directory, merged, in the order a stack gives it back sorted.
    fn below(&self, dir: &Open) -> io::Result<Vec<Open>> {
        let mut found: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        // Names of which no deeper layer can add anything.
        let mut closed: BTreeSet<Vec<u8>> = BTreeSet::new();
        for &layer in &dir.layers {
            let fd = self.reopen(layer, own(&dir.path), OFlags::DIRECTORY)?;
            for entry in rfs::Dir::read_from(&fd)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                if !self.overlay {
                    found.insert(name.to_vec(), vec![layer]);
                    continue;
                }
                if closed.contains(name) {
                    continue;
                }
                let pinned = rfs::openat2(&fd, OsStr::from_bytes(name), PIN, Mode::empty(), BENEATH)?;
                let stat = rfs::fstat(&pinned)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => {
                        found.entry(name.to_vec()).or_default().push(layer);
                        if Walk::is_opaque(&fd, name)? {
                            closed.insert(name.to_vec());
                        }
                    }
                    // It hides what lies below; below a directory it ends what is merged into that.
                    kind => {
                        closed.insert(name.to_vec());
                        let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
                        if !whiteout && !found.contains_key(name) {
                            found.insert(name.to_vec(), vec![layer]);
                        }
                    }
                }
            }
        }
        Ok(found
            .into_iter()
            .rev()
            .map(|(name, layers)| Open {
                path: match dir.path.as_slice() {
                    b"" => name,
                    path => [path, b"/", &name].concat(),
                },
                layers,
            })
            .collect())
    }

    fn is_opaque(dir: &OwnedFd, name: &[u8]) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rfs::openat2(dir, OsStr::from_bytes(name), flags, Mode::empty(), BENEATH)?;
        let mut value = [0u8; 8];
        match rfs::fgetxattr(&fd, "trusted.overlay.opaque", &mut value[..]) {
            Ok(length) => Ok(value[..length] == *b"y"),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
            // Longer than any mark.
            Err(Errno::RANGE) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn pin(&self, layer: usize, path: &OsStr) -> io::Result<OwnedFd> {
        let root = self.roots.get(layer).ok_or(io::ErrorKind::NotFound)?;
        Ok(rfs::openat2(root, path, PIN, Mode::empty(), BENEATH)?)
    }

    fn reopen(&self, layer: usize, path: &OsStr, kind: OFlags) -> io::Result<OwnedFd> {
        let root = self.roots.get(layer).ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | kind;
        Ok(rfs::openat2(root, path, flags, Mode::empty(), BENEATH)?)
    }

    fn head(&self, stat: &Stat) -> Head {
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let own = (stat.st_mtime, nanoseconds);
        let mtime = self.manner.latest.map_or(own, |latest| own.min((latest, 0)));
        Head { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs: Vec::new() }
    }

    fn xattrs(&mut self, fd: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let length = match rfs::flistxattr(&fd, self.names.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => 0,
            Err(e) => return Err(e.into()),
        };
        let mut list = Vec::new();
        for name in self.names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let kept = name == b"security.capability"
                || name.starts_with(b"user.")
                || name.starts_with(b"system.posix_acl_");
            if !kept {
                continue;
            }
            let length = rfs::fgetxattr(&fd, OsStr::from_bytes(name), &mut self.buffer[..65536])?;
            list.push((name.to_vec(), self.buffer[..length].to_vec()));
        }
        list.sort_unstable();
        Ok(list)
    }

    fn content<W: Write>(
        &mut self,
        tar: &mut TarWriter<W>,
        mut file: File,
        name: &[u8],
        head: &Head,
    ) -> io::Result<()> {
        let stat = rfs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it became another kind of file"));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        let runs = match self.manner.sparse && blocks + WORTH <= size {
            true => runs(&file, size)?
                .filter(|runs| runs.iter().map(|run| run.length).sum::<u64>() + WORTH <= size),
            false => None,
        };
        match runs {
            None => {
                tar.member(name, b'0', head, size)?;
                file.rewind()?;
                copy(tar, &mut file, size, &mut self.buffer)?;
            }
            Some(runs) => {
                tar.sparse(name, head, size, &runs)?;
                for run in &runs {
                    file.seek(io::SeekFrom::Start(run.offset))?;
                    copy(tar, &mut file, run.length, &mut self.buffer)?;
                }
            }
        }
        tar.end()
    }
}

const PIN: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn own(path: &[u8]) -> &OsStr {
    if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) }
}

/// Where a file's data lies; `None` when that is not worth telling.
fn runs(file: &File, size: u64) -> io::Result<Option<Vec<Extent>>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rfs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let end = rfs::seek(file, SeekFrom::Hole(start))?.min(size);
        if start >= end || runs.len() == MAX_RUNS {
            return Ok(None);
        }
        runs.push(Extent { offset: start, length: end - start });
        at = end;
    }
    Ok(Some(runs))
}

fn copy<W: Write>(tar: &mut TarWriter<W>, file: &mut File, size: u64, buffer: &mut [u8]) -> io::Result<()> {
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
