//! What the tests of this crate share: a scratch directory, an unpacker, archives made by hand, snapshots of trees.

#![allow(dead_code, clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use cabin_images::{Error, IdRange, ImageFiles, Limits, UnpackReport, Unpacker};
use cabin_sys::dir::HostDir;

/// A directory of a test's own, gone with it. It lies beside the build, on a disk, as pools do.
pub fn scratch() -> tempfile::TempDir {
    assert!(rustix::process::geteuid().is_root(), "these tests need root: run them with sudo");
    tempfile::Builder::new()
        .prefix(&format!("cabin-images-{}-", std::process::id()))
        .tempdir_in("/var/tmp")
        .unwrap()
}

pub fn unpacker() -> Unpacker {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let slot = (std::process::id() % 200) * 64 + NEXT.fetch_add(1, Ordering::Relaxed) % 64;
    Unpacker {
        helper: PathBuf::from(env!("CARGO_BIN_EXE_cabin-unpack")),
        ids: IdRange { base: 1_500_000_000 + slot * 65536, size: 65536 },
        limits: Limits::default(),
    }
}

/// Unpacks into a new directory `name` of `dir`.
pub fn unpack_with(
    unpacker: &Unpacker,
    dir: &Path,
    name: &str,
    meta: &Path,
    rootfs: Option<&Path>,
) -> Result<(PathBuf, UnpackReport), Error> {
    let target = HostDir::ensure(&dir.join(name), 0o755).unwrap();
    let files =
        ImageFiles { meta: File::open(meta).unwrap(), rootfs: rootfs.map(|path| File::open(path).unwrap()) };
    let report = unpacker.unpack(&files, &target, &mut |_, _| {})?;
    Ok((dir.join(name), report))
}

pub fn unpack(dir: &Path, name: &str, archive: &Path) -> Result<(PathBuf, UnpackReport), Error> {
    unpack_with(&unpacker(), dir, name, archive, None)
}

/// The error and all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Runs a program of the host to its end.
pub fn run(program: &str, args: &[&str]) {
    let done =
        Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} is needed: {e}"));
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An archive made header by header, as no sane program would write it.
#[derive(Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    pub fn member(mut self, kind: u8, path: &str, link: &str, data: &[u8]) -> Raw {
        self.push(kind, path, link, data, data.len() as u64);
        self
    }

    pub fn file(self, path: &str, data: &[u8]) -> Raw {
        self.member(b'0', path, "", data)
    }

    pub fn dir(self, path: &str) -> Raw {
        self.member(b'5', path, "", b"")
    }

    pub fn symlink(self, path: &str, to: &str) -> Raw {
        self.member(b'2', path, to, b"")
    }

    pub fn hard_link(self, path: &str, to: &str) -> Raw {
        self.member(b'1', path, to, b"")
    }

    pub fn pax(self, records: &[(&str, &str)]) -> Raw {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|n| rest + n.to_string().len() == *n).unwrap();
            data.extend(format!("{length} {key}={value}\n").bytes());
        }
        self.member(b'x', "pax", "", &data)
    }

    /// `claim` is the size in the header, whatever follows.
    pub fn push(&mut self, kind: u8, path: &str, link: &str, data: &[u8], claim: u64) {
        self.push_device(kind, path, link, data, claim, (0, 0));
    }

    pub fn push_device(
        &mut self,
        kind: u8,
        path: &str,
        link: &str,
        data: &[u8],
        claim: u64,
        device: (u32, u32),
    ) {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..path.len().min(100)].copy_from_slice(&path.as_bytes()[..path.len().min(100)]);
        old.linkname[..link.len().min(100)].copy_from_slice(&link.as_bytes()[..link.len().min(100)]);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(claim);
        header.set_mtime(1_700_000_000);
        header.set_device_major(device.0).unwrap();
        header.set_device_minor(device.1).unwrap();
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub fn save(&self, path: &Path) -> PathBuf {
        let mut file = File::create(path).unwrap();
        file.write_all(&self.0).unwrap();
        file.write_all(&[0; 1024]).unwrap();
        path.to_owned()
    }
}

/// Everything that must be the same in two trees, by path.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        let relative = path.strip_prefix(root).unwrap().to_owned();
        let first = first_names.entry(meta.ino()).or_insert_with(|| relative.clone()).clone();
        let content = if meta.is_symlink() {
            format!("{:?}", std::fs::read_link(&path).unwrap())
        } else if meta.is_file() {
            let hash = cabin_images::fingerprint(&File::open(&path).unwrap(), None).unwrap();
            format!("{} {hash}", meta.len())
        } else {
            String::new()
        };
        let xattrs: Vec<String> = if meta.is_symlink() { Vec::new() } else { xattrs(&path) };
        let mut mtime = meta.mtime();
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path).unwrap() {
                open.push(entry.unwrap().path());
            }
            open.sort_by(|a, b| b.cmp(a));
        }
        if relative.as_os_str().as_bytes().is_empty() {
            mtime = 0;
        }
        seen.insert(
            relative,
            format!(
                "{:o} {} {}:{} {} {content} {} {xattrs:?}",
                meta.mode(),
                if meta.is_dir() { 0 } else { meta.nlink() },
                meta.uid(),
                meta.gid(),
                mtime,
                if meta.nlink() > 1 && !meta.is_dir() { first.display().to_string() } else { String::new() }
            ),
        );
    }
    seen
}

pub fn xattrs(path: &Path) -> Vec<String> {
    let mut names = vec![0u8; 65536];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let mut list: Vec<String> = names[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0u8; 65536];
            let name = std::str::from_utf8(name).unwrap();
            let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
            format!("{name}={:02x?}", &value[..length])
        })
        .collect();
    list.sort();
    list
}
