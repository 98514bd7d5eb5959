//! Becoming the container's root user in the container's root directory, and nothing more.
//!
//! All of it happens before there is a second thread: namespaces are joined by the whole process or not
//! at all.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use cabin_runtime::files::FilesStep;
use cabin_runtime::spec::{IdMap, RootSpec};
use cabin_sys::caps::{self, Caps};
use cabin_sys::mount::Depth;
use cabin_sys::namespace::{self, IdRun, Namespaces};
use cabin_sys::{keyring, mount, process};
use rustix::fs::{CWD, Mode};

/// What root needs for files, whoever owns them.
const KEPT: Caps = Caps::CHOWN.union(Caps::DAC_OVERRIDE).union(Caps::FOWNER).union(Caps::FSETID);

/// Enters the user and mount namespaces of a running container's init; the kernel makes the root of that
/// mount namespace this process's root and current directory.
pub fn running(init: &OwnedFd) -> io::Result<()> {
    let theirs = File::open(format!("/proc/{}/ns/user", pid_of(init)?))?;
    let ours = File::open("/proc/self/ns/user")?;
    // A privileged container has the host's user namespace, and the kernel refuses to join it once more.
    // Should the pid have gone to another process since, init has ended, and joining by its pidfd fails.
    let mut what = Namespaces::NEWNS;
    what.set(Namespaces::NEWUSER, !namespace::same(&theirs, &ours)?);
    namespace::enter(init, what)?;
    process::set_ids(0, 0, &[])
}

fn pid_of(pidfd: &OwnedFd) -> io::Result<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.ok_or(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()))
}

/// Mounts a stopped container's root in a mount namespace of its own that holds nothing else, and enters a
/// user namespace with the container's ids. The mounts stay out of that user namespace's reach.
pub fn stopped(root: &RootSpec, ids: IdMap) -> Result<(), (FilesStep, io::Error)> {
    let at = |step| move |source: io::Error| (step, source);
    let userns = mount_root(root, ids).map_err(at(FilesStep::Mount))?;
    if let Some(userns) = userns {
        namespace::enter(&userns, Namespaces::NEWUSER).map_err(at(FilesStep::Enter))?;
    }
    process::set_ids(0, 0, &[]).map_err(at(FilesStep::Enter))
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

/// Where the pieces of a root are put together: a directory every host has and no container's tree lies
/// in, covered in this process's own mount namespace only.
const WORKSHOP: &str = "/sys";

/// Mounts the root, makes it this process's root directory, and gives the container's user namespace.
fn mount_root(root: &RootSpec, ids: IdMap) -> io::Result<Option<OwnedFd>> {
    let userns = match ids {
        IdMap::Isolated(range) => {
            let run = IdRun { inside: 0, outside: range.base, count: range.size };
            Some(namespace::user_namespace(&[run])?)
        }
        IdMap::Privileged => None,
    };
    namespace::unshare(Namespaces::NEWNS)?;
    mount::make_all_private()?;
    let piece = |path: &Path| match &userns {
        Some(userns) => mount::idmapped(path, userns.as_fd()),
        None => mount::clone_tree(CWD, path, Depth::One),
    };
    // The pieces are mounts that only this process sees, held by name below a small filesystem of its own.
    let workshop = mount::filesystem("tmpfs", &[("size", "1m"), ("mode", "0700")], mount::INERT)?;
    let put = |name: &str, tree: OwnedFd| -> io::Result<()> {
        rustix::fs::mkdirat(&workshop, name, Mode::RWXU)?;
        mount::attach(&tree, &workshop, name)
    };
    mount::attach(&workshop, CWD, WORKSHOP)?;
    rustix::process::fchdir(&workshop)?;
    let tree = match root {
        RootSpec::Dir { path } => piece(path)?,
        RootSpec::Overlay { lowers, state } => {
            let mut names = Vec::new();
            for (number, lower) in lowers.iter().enumerate() {
                put(&number.to_string(), piece(lower)?)?;
                names.push(number.to_string());
            }
            put("state", piece(state)?)?;
            overlay(&names.join(":"), ids)?
        }
    };
    mount::set_attributes(&tree, mount::INERT, Depth::One)?;
    put("root", tree.try_clone()?)?;
    mount::pivot_into(&tree)?;
    Ok(userns)
}

/// The overlay makes files as whoever mounts it, who must have a place in the container's ids.
fn overlay(lowers: &str, ids: IdMap) -> io::Result<OwnedFd> {
    let base = match ids {
        IdMap::Isolated(range) => range.base,
        IdMap::Privileged => 0,
    };
    process::keep_caps_over_setuid(true)?;
    process::set_fs_ids(base, base)?;
    let options = [("lowerdir", lowers), ("upperdir", "state/u"), ("workdir", "state/w")];
    let tree = mount::filesystem("overlay", &options, mount::INERT);
    process::set_fs_ids(0, 0)?;
    process::keep_caps_over_setuid(false)?;
    tree
}
