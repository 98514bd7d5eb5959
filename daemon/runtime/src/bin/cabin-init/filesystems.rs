//! The kernel's filesystems inside a container: /proc, /sys, cgroups, and what is hidden in them.

use std::os::fd::{AsFd, OwnedFd};

use cabin_runtime::spec::{IdMap, InitSpec};
use cabin_runtime::wire::{Failure, GuestCgroups};
use cabin_sys::mount::{self, Attributes, Depth};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::devices::Host;
use crate::step::{Step, odd};

/// Directories hidden even where containers run inside: the kernel made them to be mounted on, so nothing
/// covered by this keeps a nested /sys from being mounted. That they are mount points at all also keeps
/// systemd from trying (and failing) to mount them itself.
const ALWAYS_HIDDEN: &[&str] =
    &["sys/kernel/debug", "sys/kernel/tracing", "sys/kernel/security", "sys/fs/pstore"];

/// What tells a container about the host, or lets it read the host's memory, power use or keys.
const HIDDEN: &[&str] = &[
    "proc/acpi",
    "proc/asound",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/firmware",
    "sys/kernel/slab",
    "sys/devices/virtual/powercap",
];

/// What may be read only.
const READ_ONLY: &[&str] = &["proc/bus", "proc/fs", "proc/irq", "proc/mtrr", "proc/sysrq-trigger"];

/// Mounts fresh /proc and /sys and hides what is not the container's business. With nesting less is hidden:
/// the kernel lets an inner container mount its own /proc only where nothing of the outer one is covered.
pub fn mount_proc_and_sys(root: &OwnedFd, host: &Host, spec: &InitSpec) -> Result<(), Failure> {
    let proc = mount::filesystem("proc", &[], mount::INERT).step("make /proc")?;
    place(root, "proc", &proc)?;
    let mut attributes = mount::INERT;
    if spec.ids == IdMap::Privileged {
        attributes |= Attributes::MOUNT_ATTR_RDONLY;
    }
    let sys = mount::filesystem("sysfs", &[], attributes).step("make /sys")?;
    place(root, "sys", &sys)?;

    let mut cover = Cover { host, empty: None };
    for path in ALWAYS_HIDDEN {
        cover.hide(root, path)?;
    }
    if !spec.nesting {
        for path in HIDDEN {
            cover.hide(root, path)?;
        }
    }
    // Where root inside is root, nothing is gained by leaving these open: what lies over /proc/sys keeps a nested /proc
    // from a user namespace anyway.
    if !spec.nesting || spec.ids == IdMap::Privileged {
        for path in READ_ONLY {
            bind(root, path, Attributes::MOUNT_ATTR_RDONLY)?;
        }
    }
    if spec.ids == IdMap::Privileged {
        // Root inside is root: only this keeps it from the host's own settings.
        // The settings of its own network stay the container's: taken before the cover lies over them, for
        // kernels before 6.15 copy nothing from a tree that is not in place.
        let what = "leave `/proc/sys/net` writable";
        let net = find(root, "proc/sys/net").step(what)?;
        let net = net.map(|net| mount::clone_tree(net, "", Depth::One)).transpose().step(what)?;
        bind(root, "proc/sys", Attributes::MOUNT_ATTR_RDONLY)?;
        if let (Some(net), Some(target)) = (net, find(root, "proc/sys/net").step(what)?) {
            mount::attach(&net, &target, "").step(what)?;
        }
    }
    Ok(())
}

/// Mounts the container's own cgroups.
pub fn mount_cgroups(root: &OwnedFd, guest: GuestCgroups) -> Result<(), Failure> {
    let what = "make the cgroup filesystem";
    match guest {
        GuestCgroups::Unified => {
            let tree = mount::filesystem("cgroup2", &[], mount::INERT).step(what)?;
            place(root, "sys/fs/cgroup", &tree)
        }
        GuestCgroups::Named => {
            let options = [("size", "64k"), ("mode", "0755")];
            let tree = mount::filesystem("tmpfs", &options, mount::INERT).step(what)?;
            place(root, "sys/fs/cgroup", &tree)?;
            directory(&tree, "systemd")?;
            let options = [("none", ""), ("name", "systemd")];
            match mount::filesystem("cgroup", &options, mount::INERT) {
                Ok(named) => place(&tree, "systemd", &named),
                // A host that has no such hierarchy; only an init that wants none can run then.
                Err(_) => Ok(()),
            }
        }
    }
}

/// What lies over hidden things: the null device over files, one empty directory over directories.
struct Cover<'a> {
    host: &'a Host,
    empty: Option<OwnedFd>,
}

impl Cover<'_> {
    fn hide(&mut self, root: &OwnedFd, path: &str) -> Result<(), Failure> {
        let what = || format!("hide `/{path}`");
        let Some(target) = find(root, path).step(what())? else { return Ok(()) };
        let stat = rustix::fs::fstat(&target).step(what())?;
        let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            match &self.empty {
                Some(empty) => mount::clone_tree(empty, "", Depth::One).step(what())?,
                None => {
                    let attributes = mount::INERT | Attributes::MOUNT_ATTR_RDONLY;
                    let options = [("size", "4k"), ("nr_inodes", "2"), ("mode", "0555")];
                    let first = mount::filesystem("tmpfs", &options, attributes).step(what())?;
                    mount::attach(&first, &target, "").step(what())?;
                    self.empty = Some(first);
                    return Ok(());
                }
            }
        } else {
            let null = self.host.null().ok_or_else(|| odd(&what(), "there is no null device"))?;
            mount::clone_tree(null.as_fd(), "", Depth::One).step(what())?
        };
        mount::attach(&cover, &target, "").step(what())
    }
}

/// Binds something over itself with these attributes; what is not there is passed over.
fn bind(root: &OwnedFd, path: &str, attributes: Attributes) -> Result<(), Failure> {
    let what = || format!("restrict `/{path}`");
    let Some(target) = find(root, path).step(what())? else { return Ok(()) };
    let copy = mount::clone_tree(&target, "", Depth::One).step(what())?;
    mount::set_attributes(&copy, attributes | mount::INERT, Depth::One).step(what())?;
    mount::attach(&copy, &target, "").step(what())
}

/// Puts a detached mount at `path` below `root`; a missing directory is made.
pub fn place(root: &OwnedFd, path: &str, tree: &OwnedFd) -> Result<(), Failure> {
    let what = || format!("mount `/{path}`");
    let target = match find(root, path).step(what())? {
        Some(target) => target,
        None => directory(root, path)?,
    };
    mount::attach(tree, &target, "").step(what())
}

/// The directory `name` in `dir`, made when missing.
pub fn directory(dir: &OwnedFd, name: &str) -> Result<OwnedFd, Failure> {
    let what = || format!("make directory `{name}`");
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e).step(what()),
    }
    find(dir, name).step(what())?.ok_or_else(|| odd(&what(), "it is not there"))
}

/// Opens what is at `path`, which neither leaves `root` nor goes through a link: the tree is the guest's.
fn find(root: &OwnedFd, path: &str) -> Result<Option<OwnedFd>, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}
