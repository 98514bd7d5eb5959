//! Making of a stream of the kernel one that other servers read. That of an instance is of a root filesystem alone, which
//! they want in `rootfs`, and beside it what they look for there.

use std::io::{Read, Write};

use super::{Uuid, attribute, begin, kind, write_begin, write_command};
use crate::error::{Error, Result};

/// Bytes of content in one command, as the kernel has them.
const PIECE: usize = 48 * 1024;

/// A file beside the root filesystem.
pub(crate) struct Beside {
    pub path: String,
    pub mode: u32,
    pub content: Vec<u8>,
}

/// Copies a stream. `name` is what the subvolume is called. If something is to be `beside` the tree, all paths go below
/// `rootfs`, and it is made in front of all else, unless the stream only says what changed. Gives what the subvolume is
/// sent as.
pub(crate) fn rewrite(
    input: impl Read,
    out: &mut impl Write,
    name: &str,
    beside: Option<&[Beside]>,
) -> Result<Uuid> {
    let mut commands = begin(input)?;
    let sending = |source| Error::Pack { path: "output".to_owned(), source };
    write_begin(out).map_err(sending)?;
    let mut uuid = None;
    while let Some(command) = commands.next()? {
        let attributes = command.attributes().collect::<std::result::Result<Vec<_>, _>>()?;
        if matches!(command.kind, kind::SUBVOL | kind::SNAPSHOT) {
            uuid = Some(command.uuid(attribute::UUID)?);
            let renamed = attributes.iter().map(|(kind, value)| match *kind {
                attribute::PATH => (*kind, name.as_bytes()),
                _ => (*kind, *value),
            });
            write_command(out, command.kind, renamed).map_err(sending)?;
            if let (kind::SUBVOL, Some(beside)) = (command.kind, beside) {
                furnish(out, beside).map_err(sending)?;
            }
            continue;
        }
        let moved: Vec<(u16, Vec<u8>)> = attributes
            .iter()
            .map(|(which, value)| {
                let is_path = matches!(*which, attribute::PATH | attribute::PATH_TO | attribute::CLONE_PATH)
                    // The target of a symbolic link is the guest's own.
                    || *which == attribute::PATH_LINK && command.kind == kind::LINK;
                (*which, if is_path && beside.is_some() { below(value) } else { value.to_vec() })
            })
            .collect();
        let moved = moved.iter().map(|(kind, value)| (*kind, value.as_slice()));
        write_command(out, command.kind, moved).map_err(sending)?;
    }
    write_command(out, kind::END, []).map_err(sending)?;
    uuid.ok_or(Error::Archive { why: "its stream does not say what it is of" })
}

fn below(path: &[u8]) -> Vec<u8> {
    if path.is_empty() { b"rootfs".to_vec() } else { [b"rootfs/", path].concat() }
}

/// Makes `rootfs` and what lies beside it.
fn furnish(out: &mut impl Write, beside: &[Beside]) -> std::io::Result<()> {
    let inode = 0u64.to_le_bytes();
    let mode = |mode: u32| u64::from(mode).to_le_bytes();
    let top = [(attribute::PATH, &b""[..]), (attribute::MODE, &mode(0o100)[..])];
    write_command(out, kind::CHMOD, top)?;
    make(out, kind::MKDIR, b"rootfs", &inode)?;
    for file in beside {
        let path = file.path.as_bytes();
        if let Some((above, _)) = file.path.rsplit_once('/')
            && beside
                .iter()
                .find(|other| other.path.starts_with(&format!("{above}/")))
                .is_some_and(|first| first.path == file.path)
        {
            make(out, kind::MKDIR, above.as_bytes(), &inode)?;
            let rights = [(attribute::PATH, above.as_bytes()), (attribute::MODE, &mode(0o755)[..])];
            write_command(out, kind::CHMOD, rights)?;
        }
        make(out, kind::MKFILE, path, &inode)?;
        for (number, piece) in file.content.chunks(PIECE).enumerate() {
            let offset = ((number * PIECE) as u64).to_le_bytes();
            let parts = [(attribute::PATH, path), (attribute::OFFSET, &offset[..]), (attribute::DATA, piece)];
            write_command(out, kind::WRITE, parts)?;
        }
        let rights = [(attribute::PATH, path), (attribute::MODE, &mode(file.mode)[..])];
        write_command(out, kind::CHMOD, rights)?;
    }
    Ok(())
}

/// Its inode's number is only told; receivers do not use it.
fn make(out: &mut impl Write, what: u16, path: &[u8], inode: &[u8; 8]) -> std::io::Result<()> {
    const INODE: u16 = 3;
    write_command(out, what, [(attribute::PATH, path), (INODE, &inode[..])])
}
