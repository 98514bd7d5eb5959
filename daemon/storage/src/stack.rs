//! A directory that lies in several layers, as an overlay shows it.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{self as rfs, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

pub(crate) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A directory of a tree that both states have, or that one of them has alone.
pub(crate) struct Part {
    pub(crate) dir: OwnedFd,
    /// Whether it is of a tree that two states have in common; of layers that are put together, whether it is of
    /// one that will be removed.
    pub(crate) common: bool,
    /// Whether there are layers at all, and names in them that only say that another is gone.
    pub(crate) layered: bool,
}

/// A directory as one state shows it: its parts, topmost first.
pub(crate) type Stack = Vec<Part>;

/// A name as one state shows it.
pub(crate) struct Found {
    pub(crate) stat: Stat,
    /// For a directory.
    pub(crate) stack: Stack,
    /// Whether it was found in a part that both have: then it is the same in both.
    pub(crate) common: bool,
    /// The part it was found in.
    pub(crate) part: usize,
    /// For a directory: whether what lies in lower parts by its name is hidden.
    pub(crate) hides: bool,
}

/// The kind of a file.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// A file of which the kernel notes that a name of the layers below is gone.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Opens a directory in another.
pub(crate) fn enter(dir: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rfs::openat2(dir, name, flags, Mode::empty(), BENEATH)?)
}

/// Whether a directory of a layer hides those below it.
pub(crate) fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0u8; 8];
    let length = rfs::fgetxattr(dir, "trusted.overlay.opaque", value.as_mut_slice());
    length.is_ok_and(|length| &value[..length] == b"y")
}

/// Whether an error only means that the file is gone by now: the later state may be in use.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::STALE]
        .iter()
        .any(|gone| error.raw_os_error() == Some(gone.raw_os_error()))
}

/// What is found by a name.
pub(crate) enum Look {
    /// No layer has it.
    Absent,
    /// A layer, this part, says that it is gone.
    Gone(usize),
    /// It is there.
    Here(Found),
}

/// Looks a name up, in the topmost layer first.
pub(crate) fn look(stack: &[Part], name: &CStr) -> io::Result<Look> {
    let mut found: Option<Found> = None;
    for (at, part) in stack.iter().enumerate() {
        let stat = match rfs::statat(&part.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let gone = part.layered && is_whiteout(&stat);
        if gone || kind(&stat) != FileType::Directory {
            return Ok(match found {
                // A directory above it hides it, and whatever lies below.
                Some(found) => Look::Here(Found { hides: true, ..found }),
                None if gone => Look::Gone(at),
                None => {
                    Look::Here(Found { stat, stack: Vec::new(), common: part.common, part: at, hides: true })
                }
            });
        }
        let dir = enter(&part.dir, name)?;
        let hides = is_opaque(&dir);
        let found = found.get_or_insert(Found {
            stat,
            stack: Vec::new(),
            common: part.common,
            part: at,
            hides: false,
        });
        found.stack.push(Part { dir, common: part.common, layered: part.layered });
        found.hides = hides;
        if hides {
            break;
        }
    }
    Ok(found.map_or(Look::Absent, Look::Here))
}

/// What a name is in a state, if it is.
pub(crate) fn find(stack: &[Part], name: &CStr) -> io::Result<Option<Found>> {
    Ok(match look(stack, name)? {
        Look::Here(found) => Some(found),
        Look::Absent | Look::Gone(_) => None,
    })
}

/// The names in a directory.
pub(crate) fn names(dir: &OwnedFd, names: &mut BTreeSet<CString>) -> io::Result<()> {
    for entry in rfs::Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.insert(entry.file_name().to_owned());
        }
    }
    Ok(())
}
