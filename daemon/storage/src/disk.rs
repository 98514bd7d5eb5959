//! The disk of a pool: a file of ours with btrfs in it, attached as a loop device and mounted.
//!
//! `disks/NAME.img` belongs to the pool of that name and is mounted at `storage-pools/NAME`. The mount outlives the
//! daemon, since containers use it; the device goes with the mount. Which pools have a disk, and what is in it, is
//! not known here.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cabin_sys::command::{self, Program, Programs};
use cabin_sys::dir::HostDir;
use cabin_sys::mount::{self, Attributes};
use cabin_sys::{btrfs, loopdev};
use cabin_undo::fault;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};

use crate::error::{Error, Result};

/// Where disks lie in the daemon's directory.
const DISKS: &str = "disks";
const ENDING: &str = ".img";
const GIB: u64 = 1 << 30;
/// The smallest disk, in bytes: btrfs itself takes about half of that.
pub const MIN_DISK: u64 = 256 << 20;

/// What the disk of a pool is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// Bytes. It never becomes smaller.
    pub size: u64,
    /// Options of the mount: name, and a value or nothing.
    pub options: Vec<(String, String)>,
}

/// What an option of every mount asks for; none for one of the filesystem.
fn attribute(option: &str) -> Option<Attributes> {
    match option {
        "rw" => Some(Attributes::empty()),
        "relatime" => Some(Attributes::MOUNT_ATTR_RELATIME),
        "noatime" => Some(Attributes::MOUNT_ATTR_NOATIME),
        "strictatime" => Some(Attributes::MOUNT_ATTR_STRICTATIME),
        "nodiratime" => Some(Attributes::MOUNT_ATTR_NODIRATIME),
        _ => None,
    }
}

/// The disks of one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Disks {
    root: PathBuf,
}

impl Disks {
    pub(crate) fn new(root: &Path) -> Disks {
        Disks { root: root.to_owned() }
    }

    /// The file of a pool's disk.
    pub(crate) fn file(&self, pool: &str) -> PathBuf {
        self.root.join(DISKS).join(format!("{pool}{ENDING}"))
    }

    fn dir(&self) -> io::Result<Option<HostDir>> {
        match HostDir::open(&self.root.join(DISKS)) {
            Ok(dir) => Ok(Some(dir)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The pools that disks are there for.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let Some(dir) = self.dir()? else { return Ok(Vec::new()) };
        let names = dir.list()?.into_iter();
        Ok(names.filter_map(|entry| entry.name.strip_suffix(ENDING).map(str::to_owned)).collect())
    }

    pub(crate) fn exists(&self, pool: &str) -> io::Result<bool> {
        self.dir()?.map_or(Ok(false), |dir| dir.exists(&format!("{pool}{ENDING}")))
    }

    /// Makes and formats the disk of a pool. What fails leaves a file that [`Disks::remove`] takes away.
    pub(crate) fn create(&self, pool: &str, spec: &DiskSpec) -> Result<()> {
        let wrong = |act| move |source| Error::Disk { act, path: self.file(pool), source };
        if spec.size < MIN_DISK {
            return Err(Error::DiskSize { size: spec.size, least: MIN_DISK });
        }
        let dir = HostDir::ensure(&self.root.join(DISKS), 0o700).map_err(wrong("make"))?;
        let file = dir.create_file(&format!("{pool}{ENDING}"), 0o600).map_err(wrong("make"))?;
        fault::pass("file of the pool's disk")?;
        file.set_len(spec.size).map_err(wrong("make"))?;
        let programs = Programs::find();
        let mut format =
            programs.command(Program::MkfsBtrfs).map_err(|e| wrong("format")(io::Error::other(e)))?;
        // The file is sparse: there is nothing to discard.
        format.args(["--quiet", "--nodiscard", "--"]).arg(self.file(pool));
        command::output(&mut format).map_err(wrong("format"))?;
        file.sync_all().and_then(|()| dir.sync()).map_err(wrong("format"))?;
        Ok(fault::pass("pool's disk formatted")?)
    }

    /// Mounts the disk of a pool at its place, if it is not there.
    pub(crate) fn mount(&self, pool: &str, spec: &DiskSpec, at: &Path) -> Result<()> {
        let wrong = |act| move |source| Error::Disk { act, path: self.file(pool), source };
        let place = HostDir::open(at).map_err(wrong("find the place of"))?;
        if is_mount(at).map_err(wrong("find the place of"))? {
            return Ok(());
        }
        let file = self.open(pool).map_err(wrong("open"))?;
        let attached = match loopdev::of(&file).map_err(wrong("attach"))? {
            Some(attached) => attached,
            None => loopdev::attach(&file).map_err(wrong("attach"))?,
        };
        fault::pass("pool's disk attached")?;
        let device = attached.path().to_string_lossy().into_owned();
        let mut options = vec![("source", device.as_str())];
        let (of_mount, of_btrfs): (Vec<_>, Vec<_>) =
            spec.options.iter().partition(|(name, _)| attribute(name).is_some());
        options.extend(of_btrfs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let attributes = of_mount.iter().filter_map(|(name, _)| attribute(name)).collect();
        let mounted = mount::filesystem("btrfs", &options, attributes).map_err(wrong("mount"))?;
        mount::attach(&mounted, &place, "").map_err(wrong("mount"))?;
        // What is mounted beneath later is nobody else's business.
        let private = rustix::mount::MountPropagationFlags::PRIVATE;
        mount::set_propagation(&mounted, private, mount::Depth::One).map_err(wrong("mount"))
    }

    /// Gives a mounted disk the size it should have, if that is more than it has.
    pub(crate) fn grow(&self, pool: &str, spec: &DiskSpec, at: &Path) -> Result<()> {
        let wrong = |source| Error::Disk { act: "grow", path: self.file(pool), source };
        let file = self.open(pool).map_err(wrong)?;
        let has = file.metadata().map_err(wrong)?.len();
        if has < spec.size {
            fault::behind("size of the pool's disk").map_err(|e| wrong(e.into()))?;
            file.set_len(spec.size).and_then(|()| file.sync_all()).map_err(wrong)?;
        }
        fault::behind("size of the pool's filesystem").map_err(|e| wrong(e.into()))?;
        // What an earlier try began is finished as well: both take what is there already for done.
        let attached =
            loopdev::of(&file).map_err(wrong)?.ok_or_else(|| wrong(io::ErrorKind::NotFound.into()))?;
        loopdev::take_new_size(&attached).map_err(wrong)?;
        HostDir::open(at).and_then(btrfs::grow).map_err(wrong)
    }

    /// Bytes of a disk's file.
    pub(crate) fn size(&self, pool: &str) -> Option<u64> {
        Some(self.open(pool).ok()?.metadata().ok()?.len())
    }

    /// Unmounts the disk of a pool, if it is mounted there and nobody uses it.
    pub(crate) fn unmount(&self, at: &Path) -> io::Result<()> {
        if is_mount(at)? { mount::unmount(at) } else { Ok(()) }
    }

    /// Unmounts the disk of a pool and removes it; what is gone already is success.
    pub(crate) fn remove(&self, pool: &str, at: &Path) -> io::Result<()> {
        fault::behind("mount of the pool's disk")?;
        while is_mount(at)? {
            match mount::unmount(at) {
                // Whoever has a file open in it keeps it until then; nobody finds it any more.
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                    mount::detach(at)?
                }
                other => other?,
            }
        }
        fault::behind("file of the pool's disk")?;
        match self.dir()? {
            Some(dir) => {
                dir.remove_file(&format!("{pool}{ENDING}"))?;
                dir.sync()
            }
            None => Ok(()),
        }
    }

    fn open(&self, pool: &str) -> io::Result<File> {
        let dir = self.dir()?.ok_or(io::ErrorKind::NotFound)?;
        dir.open_file_writable(&format!("{pool}{ENDING}"))
    }

    /// The size a disk has when nobody says: a fifth of what is free, between 5 and 30 GiB.
    pub(crate) fn default_size(&self) -> io::Result<u64> {
        let seen = rustix::fs::statvfs(&self.root)?;
        let fifth = seen.f_bavail.saturating_mul(seen.f_frsize) / 5;
        Ok((fifth / GIB * GIB).clamp(5 * GIB, 30 * GIB))
    }
}

/// Whether something is mounted at a path.
fn is_mount(path: &Path) -> io::Result<bool> {
    match rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
        Ok(seen) => Ok(seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether an open directory is still what lies at its path.
pub(crate) fn is_in_place(dir: &HostDir) -> bool {
    match (rustix::fs::fstat(dir), rustix::fs::stat(dir.path())) {
        (Ok(open), Ok(seen)) => (open.st_dev, open.st_ino) == (seen.st_dev, seen.st_ino),
        _ => false,
    }
}
