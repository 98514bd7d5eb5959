//! All names that a file of a subvolume has, from the tree that keeps them.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use super::nested::{name_at, names_to};
use super::{SearchHead, search, word};

const KEY_INODE_REF: u32 = 12;
const KEY_INODE_EXTREF: u32 = 13;

/// The paths, from the root of the subvolume that `of` is in, of the file with this inode number. When it is gone, it has
/// none.
///
/// # Errors
/// As the ioctl.
pub fn paths(of: impl AsFd, inode: u64) -> io::Result<Vec<Vec<u8>>> {
    let head = SearchHead {
        // The one `of` is in.
        tree: 0,
        objects: [inode, inode],
        offsets: [0, u64::MAX],
        transactions: [0, u64::MAX],
        kinds: [KEY_INODE_REF, KEY_INODE_EXTREF],
        ..SearchHead::default()
    };
    let mut names = Vec::new();
    search(of.as_fd(), head, |key, item| {
        let mut at = 0;
        // One item may have several names.
        while at < item.len() {
            let (directory, length) = match key.kind {
                KEY_INODE_REF => (key.offset, at + 8),
                _ => (word(item, at), at + 16),
            };
            let Some(name) = name_at(item, length) else { break };
            at = length + 2 + name.len();
            names.push((directory, name));
        }
    })?;
    let mut paths = Vec::new();
    for (directory, name) in names {
        let Some(above) = names_to(of.as_fd(), 0, directory)? else { continue };
        let parts = above.iter().rev().chain([&name]).map(|part| part.as_bytes());
        paths.push(parts.collect::<Vec<_>>().join(&b'/'));
    }
    Ok(paths)
}
