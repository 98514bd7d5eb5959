//! Several layers put together into one that shows the same.
//!
//! Nobody writes in them any more, so where a layer will be removed its files only get another name. Those of a
//! layer that stays are copied: a guest can see how many names a file has, and some programs mind.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cabin_sys::dir::HostDir;
use rustix::fs::{self as rfs, AtFlags, Mode, XattrFlags};

use crate::attributes::{Role, carry, times};
use crate::copy::Files;
use crate::stack::{self, Look, Part};

/// How deep directories are put together.
const MAX_DEPTH: usize = 256;

/// Fills the empty directory `to` so that it shows, over whatever lies below, what `layers`, topmost first, do. The
/// first `leaving` of them will be removed.
/// False when they cannot be put together; `to` is to be thrown away then.
pub(crate) fn merge(layers: &[HostDir], leaving: usize, to: &HostDir) -> io::Result<bool> {
    let part = |(at, layer): (usize, &HostDir)| -> io::Result<Part> {
        let dir = layer.as_fd().try_clone_to_owned()?;
        Ok(Part { dir, common: at < leaving, layered: true })
    };
    let parts: Vec<Part> = layers.iter().enumerate().map(part).collect::<io::Result<_>>()?;
    let to = to.as_fd().try_clone_to_owned()?;
    let Some(top) = parts.first() else { return Ok(false) };
    let stat = rfs::fstat(&top.dir)?;
    carry(&top.dir, &to, &stat, Role::Upper)?;
    let mut files = Files::new(to.as_fd())?;
    let whole = match directory(&parts, &to, &mut files, 0) {
        // More names than the filesystem gives one file.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::MLINK.raw_os_error()) => false,
        other => other?,
    };
    files.end()?;
    rfs::futimens(&to, &times(&stat))?;
    Ok(whole)
}

fn directory(parts: &[Part], to: &OwnedFd, files: &mut Files, depth: usize) -> io::Result<bool> {
    if depth > MAX_DEPTH {
        return Ok(false);
    }
    let mut names = BTreeSet::new();
    for part in parts {
        stack::names(&part.dir, &mut names)?;
    }
    for name in names {
        match stack::look(parts, &name)? {
            Look::Absent => {}
            // What says that a name is gone has no content to copy, and no guest sees it.
            Look::Gone(part) => rfs::linkat(&parts[part].dir, &*name, to, &*name, AtFlags::empty())?,
            Look::Here(found) if found.stack.is_empty() => match found.common {
                true => rfs::linkat(&parts[found.part].dir, &*name, to, &*name, AtFlags::empty())?,
                false => files.copy(&parts[found.part].dir, &name, to)?,
            },
            Look::Here(found) => {
                rfs::mkdirat(to, &*name, Mode::from_raw_mode(0o700))?;
                let made = stack::enter(to, &name)?;
                if let Some(top) = found.stack.first() {
                    carry(&top.dir, &made, &found.stat, Role::Upper)?;
                }
                if found.hides {
                    // What hid a layer of those put together must hide those below them too.
                    rfs::fsetxattr(&made, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
                }
                if !directory(&found.stack, &made, files, depth + 1)? {
                    return Ok(false);
                }
                rfs::futimens(&made, &times(&found.stat))?;
            }
        }
    }
    Ok(true)
}
