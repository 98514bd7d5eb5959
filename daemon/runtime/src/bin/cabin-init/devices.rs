//! The container's /dev: always fresh, with the few nodes that mean nothing to the host, and a console on
//! a terminal of the container's own.

use std::os::fd::{AsFd, OwnedFd};

use cabin_runtime::wire::Failure;
use cabin_sys::mount::{self, Attributes, Depth};
use cabin_sys::pty;
use rustix::fs::{FileType, Mode, OFlags};

use crate::filesystems::{directory, place};
use crate::step::{Step, odd};

/// Name, major and minor number of each node.
const NODES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// How much /dev/shm takes, of the host's memory, and how many files: what systemd-nspawn gives. The kernel would give
/// half of the memory to each container. It counts towards `limits.memory`, and root inside may remount it with more.
const SHARED_MEMORY: (&str, &str) = ("10%", "400k");

/// The host's nodes, each proved to be the device its name says.
pub struct Host {
    nodes: Vec<OwnedFd>,
}

impl Host {
    /// Opens the host's nodes. A user namespace cannot make any, so these are what the container gets.
    pub fn open() -> Result<Host, Failure> {
        let mut nodes = Vec::new();
        for (name, major, minor) in NODES {
            let path = format!("/dev/{name}");
            let what = || format!("open `{path}`");
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = rustix::fs::open(&path, flags, Mode::empty()).step(what())?;
            let stat = rustix::fs::fstat(&node).step(what())?;
            let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice
                || device != (*major, *minor)
            {
                return Err(odd(&what(), "it is not that device"));
            }
            nodes.push(node);
        }
        Ok(Host { nodes })
    }

    /// The host's null device.
    pub fn null(&self) -> Option<&OwnedFd> {
        self.nodes.first()
    }
}

/// Mounts /dev with everything in it but the console, and gives the root of its devpts.
pub fn mount(root: &OwnedFd, host: &Host) -> Result<OwnedFd, Failure> {
    let options = [("size", "512k"), ("nr_inodes", "1k"), ("mode", "0755")];
    let quiet = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NOEXEC;
    let dev = mount::filesystem("tmpfs", &options, quiet).step("make /dev")?;
    place(root, "dev", &dev)?;
    for ((name, ..), node) in NODES.iter().zip(&host.nodes) {
        empty_file(&dev, name)?;
        let copy = mount::clone_tree(node, "", Depth::One).step(format!("take device `{name}`"))?;
        place(&dev, name, &copy)?;
    }
    for (target, name) in LINKS {
        rustix::fs::symlinkat(*target, &dev, *name).step(format!("make link `/dev/{name}`"))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        directory(&dev, name)?;
    }
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5"), ("max", "1024")];
    let devpts = mount::filesystem("devpts", &options, quiet).step("make /dev/pts")?;
    place(&dev, "pts", &devpts)?;
    let inert = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV;
    let options = [("mode", "1777"), ("size", SHARED_MEMORY.0), ("nr_inodes", SHARED_MEMORY.1)];
    let shm = mount::filesystem("tmpfs", &options, inert).step("make /dev/shm")?;
    place(&dev, "shm", &shm)?;
    let mqueue = mount::filesystem("mqueue", &[], mount::INERT).step("make /dev/mqueue")?;
    place(&dev, "mqueue", &mqueue)?;
    Ok(devpts)
}

/// The two ends of the console.
pub struct Console {
    /// The supervisor's end.
    pub master: OwnedFd,
    /// The container's end.
    pub peer: OwnedFd,
}

/// Opens a terminal in the container's devpts and makes it /dev/console. The container can find it there
/// under its own name too, which newer systemd wants.
pub fn console(root: &OwnedFd, devpts: &OwnedFd) -> Result<Console, Failure> {
    let what = "make /dev/console";
    let master = pty::open_master(devpts).step(what)?;
    let peer = pty::open_peer(&master).step(what)?;
    let dev = directory(root, "dev")?;
    empty_file(&dev, "console")?;
    let copy = mount::clone_tree(peer.as_fd(), "", Depth::One).step(what)?;
    place(&dev, "console", &copy)?;
    Ok(Console { master, peer })
}

fn empty_file(dir: &OwnedFd, name: &str) -> Result<(), Failure> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))
        .map(drop)
        .step(format!("make `/dev/{name}`"))
}
