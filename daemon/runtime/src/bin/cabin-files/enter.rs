//! Becoming the container's root user in the container's root directory, and nothing more.
//!
//! All of it happens before there is a second thread: namespaces are joined by the whole process or not
//! at all.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use cabin_runtime::rootfs;
use cabin_runtime::spec::{IdMap, RootSpec};
use cabin_runtime::step::Step;
use cabin_runtime::wire::Failure;
use cabin_sys::caps::{self, Caps};
use cabin_sys::mount::Depth;
use cabin_sys::namespace::{self, IdRun, Namespaces};
use cabin_sys::{keyring, mount, process};

/// Where the pieces of a root are put together: a directory every host has and no container's tree lies
/// in, covered in this process's own mount namespace only.
const WORKSHOP: &str = "/sys";

/// What root needs for files, whoever owns them.
const KEPT: Caps = Caps::CHOWN.union(Caps::DAC_OVERRIDE).union(Caps::FOWNER).union(Caps::FSETID);

/// Enters the user and mount namespaces of a running container's init; the kernel makes the root of that
/// mount namespace this process's root and current directory.
pub fn running(init: &OwnedFd) -> io::Result<()> {
    let theirs = File::open(format!("/proc/{}/ns/user", pid_of(init)?))?;
    let ours = File::open("/proc/self/ns/user")?;
    // A privileged container has the host's user namespace, and the kernel refuses to join it once more.
    // Should the pid have gone to another process since, init has ended, and joining by its pidfd fails.
    let privileged = namespace::same(&theirs, &ours)?;
    // Its network too: files below /proc/sys/net are those of whoever opens them.
    let mut what = Namespaces::NEWNS | Namespaces::NEWNET;
    what.set(Namespaces::NEWUSER, !privileged);
    namespace::enter(init, what)?;
    if privileged {
        // What keeps the guest from the host's devices is its cgroup, in which this process is not.
        namespace::unshare(Namespaces::NEWNS)?;
        mount::make_all_private()?;
        mount::set_attributes(File::open("/")?, mount::Attributes::MOUNT_ATTR_NODEV, Depth::All)?;
    }
    process::set_ids(0, 0, &[])
}

fn pid_of(pidfd: &OwnedFd) -> io::Result<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.ok_or(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()))
}

/// Mounts a stopped container's root in a mount namespace of its own that holds nothing else, and enters a
/// user namespace with the container's ids. The mounts stay out of that user namespace's reach.
pub fn stopped(root: &RootSpec, ids: IdMap) -> Result<(), Failure> {
    let userns = match ids {
        IdMap::Isolated(range) => {
            let run = IdRun { inside: 0, outside: range.base, count: range.size };
            Some(namespace::user_namespace(&[run]).step("make a user namespace")?)
        }
        IdMap::Privileged => None,
    };
    namespace::unshare(Namespaces::NEWNS).step("make a mount namespace")?;
    mount::make_all_private().step("make the mounts private")?;
    let tree = rootfs::mount(root, ids, Path::new(WORKSHOP), userns.as_ref().map(AsFd::as_fd))?;
    mount::set_attributes(&tree, mount::INERT, Depth::One).step("bar programs from the root filesystem")?;
    mount::pivot_into(&tree).step("make the root filesystem its root")?;
    if let Some(userns) = userns {
        namespace::enter(&userns, Namespaces::NEWUSER).step("enter the user namespace")?;
    }
    process::set_ids(0, 0, &[]).step("become the container's root")
}

/// Sheds what a file server has no use for: other capabilities, keys, cores, being traced, new programs'
/// rights.
pub fn confine() -> io::Result<()> {
    keyring::join_new_session().or_else(|e| match e.raw_os_error() {
        Some(code) if code == rustix::io::Errno::NOSYS.raw_os_error() => Ok(()),
        _ => Err(e),
    })?;
    process::set_rlimit("core", Some(0), Some(0))?;
    process::set_dumpable(false)?;
    caps::drop_for_good(Caps::all().difference(KEPT))?;
    process::set_no_new_privs()
}
