//! Several layers put together into one that shows the same, of the files that they have: nothing is copied.
//!
//! For layers that nobody writes in: their files get another name, not another content.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cabin_sys::dir::HostDir;
use rustix::fs::{self as rfs, AtFlags, Mode, XattrFlags};

use crate::attributes::{Role, carry, times};
use crate::stack::{self, Found, Look, Part};

/// How deep directories are put together.
const MAX_DEPTH: usize = 256;

/// Fills the empty directory `to` so that it shows, over whatever lies below, what `layers`, topmost first, do.
/// False when they cannot be put together; `to` is to be thrown away then.
pub(crate) fn merge(layers: &[HostDir], to: &HostDir) -> io::Result<bool> {
    let part = |layer: &HostDir| -> io::Result<Part> {
        Ok(Part { dir: layer.as_fd().try_clone_to_owned()?, common: false, layered: true })
    };
    let parts: Vec<Part> = layers.iter().map(part).collect::<io::Result<_>>()?;
    let to = to.as_fd().try_clone_to_owned()?;
    let Some(top) = parts.first() else { return Ok(false) };
    let stat = rfs::fstat(&top.dir)?;
    carry(&top.dir, &to, &stat, Role::Upper)?;
    let whole = match directory(&parts, &to, 0) {
        // More names than the filesystem gives one file.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::MLINK.raw_os_error()) => false,
        other => other?,
    };
    rfs::futimens(&to, &times(&stat))?;
    Ok(whole)
}

fn directory(parts: &[Part], to: &OwnedFd, depth: usize) -> io::Result<bool> {
    if depth > MAX_DEPTH {
        return Ok(false);
    }
    let mut names = BTreeSet::new();
    for part in parts {
        stack::names(&part.dir, &mut names)?;
    }
    for name in names {
        let whole = match stack::look(parts, &name)? {
            Look::Absent => true,
            Look::Gone(part) => link(&parts[part], &name, to)?,
            Look::Here(found) if found.stack.is_empty() => link(&parts[found.part], &name, to)?,
            Look::Here(found) => child(&found, &name, to, depth)?,
        };
        if !whole {
            return Ok(false);
        }
    }
    Ok(true)
}

fn link(part: &Part, name: &CStr, to: &OwnedFd) -> io::Result<bool> {
    rfs::linkat(&part.dir, name, to, name, AtFlags::empty())?;
    Ok(true)
}

fn child(found: &Found, name: &CStr, to: &OwnedFd, depth: usize) -> io::Result<bool> {
    rfs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
    let made = stack::enter(to, name)?;
    if let Some(top) = found.stack.first() {
        carry(&top.dir, &made, &found.stat, Role::Upper)?;
    }
    if found.hides {
        // What hid a layer of those put together must hide those below them too.
        rfs::fsetxattr(&made, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
    }
    let whole = directory(&found.stack, &made, depth + 1)?;
    rfs::futimens(&made, &times(&found.stat))?;
    Ok(whole)
}
