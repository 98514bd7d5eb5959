//! The root filesystem as the container sees it: layers with shifted ids, and an overlay over them.
//!
//! For single-threaded helpers, as the host's root, in a mount namespace made for this.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cabin_sys::dir::HostDir;
use cabin_sys::mount::{self, Attributes, Depth};
use cabin_sys::process;
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};

use crate::spec::{IdMap, RootSpec};
use crate::step::{self, Step};
use crate::wire::Failure;

/// Mounts the root filesystem and gives its root directory. `userns` is the user namespace with the
/// container's ids; a privileged container has none.
///
/// The mount lies below `workshop`, any directory of the host, over which it puts a small tree of its own
/// first.
///
/// # Errors
/// The step that failed. The mount namespace is to be given up then.
pub fn mount(
    root: &RootSpec,
    ids: IdMap,
    workshop: &Path,
    userns: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Failure> {
    match root {
        RootSpec::Dir { path } => {
            let tree = layer(path, userns)?;
            mount::set_attributes(&tree, Attributes::MOUNT_ATTR_NODEV, Depth::One)
                .step("bar devices from the root filesystem")?;
            let stage = stage(workshop, 0)?;
            attach(&tree, &stage, "root")
        }
        RootSpec::Overlay { lowers, state } => {
            let mut trees = Vec::new();
            for path in lowers {
                trees.push(layer(path, userns)?);
            }
            let state = layer(state, userns)?;
            let stage = stage(workshop, lowers.len())?;
            for (number, tree) in trees.iter().enumerate() {
                attach(tree, &stage, &format!("l{number}"))?;
            }
            attach(&state, &stage, "s")?;
            rustix::process::fchdir(&stage).step("enter the staging directory")?;
            let base = match ids {
                IdMap::Isolated(range) => range.base,
                IdMap::Privileged => 0,
            };
            let tree = overlay(lowers, base)?;
            attach(&tree, &stage, "root")
        }
    }
}

/// A detached mount of a directory of the daemon's, seen through the container's ids.
fn layer(path: &Path, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Failure> {
    let what = || format!("take `{}` for the root filesystem", path.display());
    let dir = HostDir::open(path).step(what())?;
    match userns {
        Some(userns) => mount::clone_idmapped(&dir, "", userns).step(what()),
        None => mount::clone_tree(&dir, "", Depth::One).step(what()),
    }
}

/// A small filesystem over the workshop with the mount points needed. Everything was opened before: what the
/// workshop held is out of sight from here on in this namespace.
fn stage(workshop: &Path, lowers: usize) -> Result<OwnedFd, Failure> {
    let what = "make the staging directory";
    let options = [("size", "64k"), ("mode", "0700")];
    let tree = mount::filesystem("tmpfs", &options, mount::INERT).step(what)?;
    mount::attach(&tree, rustix::fs::CWD, workshop).step(what)?;
    let names = (0..lowers).map(|number| format!("l{number}")).chain(["s".to_owned(), "root".to_owned()]);
    for name in names {
        rustix::fs::mkdirat(&tree, name, Mode::from_raw_mode(0o755)).step(what)?;
    }
    Ok(tree)
}

/// Puts a tree in place and gives its root directory.
fn attach(tree: &OwnedFd, stage: &OwnedFd, name: &str) -> Result<OwnedFd, Failure> {
    let what = || format!("mount the root filesystem's `{name}`");
    mount::attach(tree, stage, name).step(what())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(stage, name, flags, Mode::empty()).step(what())
}

/// The overlay, detached. Names are relative to the staging directory, so that the mount table inside shows
/// no path of the host.
///
/// The kernel works on the writable layer as whoever mounts. The host's root has no place there (its ids are
/// the container's only), so the files are touched as the container's root; the rights stay the host's.
fn overlay(lowers: &[PathBuf], base: u32) -> Result<OwnedFd, Failure> {
    let list = (0..lowers.len()).map(|number| format!("l{number}")).collect::<Vec<_>>().join(":");
    let options = [
        ("source", "cabin"),
        ("lowerdir", list.as_str()),
        ("upperdir", "s/u"),
        ("workdir", "s/w"),
        // Both make the kernel follow attributes in a layer to other files of it.
        ("metacopy", "off"),
        ("redirect_dir", "nofollow"),
        ("index", "off"),
    ];
    process::keep_caps_over_setuid(true).step("keep capabilities")?;
    process::set_fs_ids(base, base).step("touch files as the container's root")?;
    let tree = mount::filesystem("overlay", &options, Attributes::MOUNT_ATTR_NODEV);
    // An overlay whose work directory cannot be used comes up read-only, without an error; one whose upper
    // layer is read-only is called invalid.
    let usable = tree.as_ref().is_ok_and(|tree| {
        rustix::fs::fstatvfs(tree).is_ok_and(|found| !found.f_flag.contains(StatVfsMountFlags::RDONLY))
    });
    let tried = if usable { Ok(()) } else { try_to_write("s/w/probe") };
    process::set_fs_ids(0, 0).step("touch files as the host's root")?;
    process::keep_caps_over_setuid(false).step("restore the secure bits")?;
    tried.step("make the overlay's work directory")?;
    let tree = tree.step("mount the overlay")?;
    if !usable {
        return Err(step::odd("mount the overlay", "its work directory cannot be written"));
    }
    Ok(tree)
}

/// What the kernel says of a new name.
fn try_to_write(path: &str) -> rustix::io::Result<()> {
    rustix::fs::mkdir(path, Mode::RWXU)?;
    rustix::fs::rmdir(path)
}
