//! Mounts as descriptors: made detached, given their options, then put in place (mount(2), open_tree(2),
//! fsopen(2), mount_setattr(2)).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    self, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

pub use rustix::mount::MountAttrFlags as Attributes;

const ATTR_IDMAP: u64 = 0x0010_0000;

/// How much of a tree a call concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The one mount.
    One,
    /// The mount and all beneath it.
    All,
}

#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A detached copy (a bind mount not yet in place) of what lies at `path` below `dir`; an empty path is
/// `dir` itself. A link at the end is followed only in the last-but-one components.
///
/// The copy is private. The kernel makes it a peer of what it was copied from, which on a host that systemd runs
/// is shared: what is mounted beneath would show on the host, and a shared mount cannot become a root.
///
/// # Errors
/// As open_tree(2) and mount_setattr(2).
pub fn clone_tree(dir: impl AsFd, path: impl AsRef<Path>, depth: Depth) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if depth == Depth::All {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = mount::open_tree(dir, path.as_ref(), flags)?;
    set_propagation(&tree, MountPropagationFlags::PRIVATE, depth)?;
    Ok(tree)
}

/// A detached copy of `path` below `dir` in which ids are shown through the user namespace `userns`: what is
/// 0 on disk is the namespace's 0.
///
/// # Errors
/// As open_tree(2) and mount_setattr(2); `EINVAL` when the filesystem cannot be idmapped.
pub fn clone_idmapped(dir: impl AsFd, path: impl AsRef<Path>, userns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let tree = clone_tree(dir, path, Depth::One)?;
    show_through(&tree, userns, Depth::One)?;
    Ok(tree)
}

/// Shows ids in a detached mount, seen by nobody yet, through the user namespace `userns`.
///
/// # Errors
/// As mount_setattr(2); `EINVAL` when the filesystem cannot be idmapped, `EPERM` when it is already.
pub fn show_through(tree: impl AsFd, userns: BorrowedFd<'_>, depth: Depth) -> io::Result<()> {
    let userns_fd = u64::try_from(userns.as_raw_fd()).map_err(io::Error::other)?;
    setattr(tree.as_fd(), depth, &MountAttr { set: ATTR_IDMAP, userns_fd, ..MountAttr::default() })
}

/// Like [`clone_idmapped`] for an absolute path of the daemon's own.
///
/// # Errors
/// As [`clone_idmapped`].
pub fn idmapped(path: &Path, userns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    clone_idmapped(CWD, path, userns)
}

/// Puts a detached mount in place at `path` below `dir`; an empty path is `dir` itself.
///
/// # Errors
/// As move_mount(2).
pub fn attach(tree: impl AsFd, dir: impl AsFd, path: impl AsRef<Path>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(mount::move_mount(tree, "", dir, path.as_ref(), flags)?)
}

/// Sets mount attributes (read-only, nosuid …) of the mount that `at` is the root of.
///
/// # Errors
/// As mount_setattr(2).
pub fn set_attributes(at: impl AsFd, set: Attributes, depth: Depth) -> io::Result<()> {
    setattr(at.as_fd(), depth, &MountAttr { set: u64::from(set.bits()), ..MountAttr::default() })
}

/// Makes the mount that `at` is the root of private or a slave (`MountPropagationFlags::PRIVATE`, …).
///
/// # Errors
/// As mount_setattr(2).
pub fn set_propagation(at: impl AsFd, to: MountPropagationFlags, depth: Depth) -> io::Result<()> {
    setattr(at.as_fd(), depth, &MountAttr { propagation: u64::from(to.bits()), ..MountAttr::default() })
}

fn setattr(at: BorrowedFd<'_>, depth: Depth, attr: &MountAttr) -> io::Result<()> {
    let recursive = if depth == Depth::All { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `attr` has the layout and the length given, and both are only read.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A new filesystem (`proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, `cgroup2`, `overlay` …) as a detached mount.
/// Options are key and value; an empty value is a flag. Paths among them are relative to the current directory.
///
/// # Errors
/// As fsopen(2), fsconfig(2) and fsmount(2).
pub fn filesystem(kind: &str, options: &[(&str, &str)], attributes: Attributes) -> io::Result<OwnedFd> {
    let context = mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            mount::fsconfig_set_flag(context.as_fd(), *key)?;
        } else {
            mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
    }
    mount::fsconfig_create(context.as_fd())?;
    Ok(mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Whether the kernel knows the filesystem, with its module loaded should it be one.
///
/// # Errors
/// As fsopen(2): `EPERM` without the right to mount.
pub fn is_known(kind: &str) -> io::Result<bool> {
    match mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NODEV) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The classic mount(2).
///
/// # Errors
/// As mount(2).
pub fn mount(source: &Path, target: &Path, kind: &str, flags: MountFlags, data: &CStr) -> io::Result<()> {
    Ok(mount::mount(source, target, kind, flags, data)?)
}

/// Binds `source` over `target`.
///
/// # Errors
/// As mount(2).
pub fn bind(source: &Path, target: &Path, depth: Depth) -> io::Result<()> {
    match depth {
        Depth::One => Ok(mount::mount_bind(source, target)?),
        Depth::All => Ok(mount::mount_bind_recursive(source, target)?),
    }
}

/// Cuts the whole mount tree of the caller's namespace off from any other: nothing propagates in or out.
///
/// # Errors
/// As mount(2).
pub fn make_all_private() -> io::Result<()> {
    Ok(mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Takes what is mounted at `target` off at once, whoever still uses it (`MNT_DETACH`). A link at the end
/// is not followed.
///
/// # Errors
/// As umount2(2).
pub fn detach(target: impl AsRef<Path>) -> io::Result<()> {
    Ok(mount::unmount(target.as_ref(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

/// Takes what is mounted at `target` off, if nobody uses it.
///
/// # Errors
/// As umount2(2): `EBUSY` while it is in use.
pub fn unmount(target: impl AsRef<Path>) -> io::Result<()> {
    Ok(mount::unmount(target.as_ref(), UnmountFlags::NOFOLLOW)?)
}

/// Makes the directory `root`, which must be the root of a mount, the root of the caller's mount namespace,
/// and lets go of the old one. The current directory is the new root afterwards.
///
/// # Errors
/// As pivot_root(2): `EINVAL` when `root` is no mount of this namespace, or locked.
pub fn pivot_into(root: impl AsFd) -> io::Result<()> {
    let old = rustix::fs::openat(
        CWD,
        "/",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    rustix::process::fchdir(root.as_fd())?;
    rustix::process::pivot_root(".", ".")?;
    // The old root now lies over the new one; from inside it, taking it off reveals ours.
    rustix::process::fchdir(&old)?;
    mount::mount_change(".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::fchdir(root)?;
    Ok(())
}

/// Attributes most filesystems in a container have: no setuid, no devices, no programs.
pub const INERT: Attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_is_known_or_not() {
        assert!(is_known("tmpfs").unwrap());
        assert!(!is_known("nosuchfs").unwrap());
    }
}
