//! Making the members of an archive in a tree, for images and backups alike.

use std::io::Read;

use crate::error::{Error, Result};
use crate::tarball::{Member, MemberKind, Tarball, normalize};
use crate::tree::Tree;

/// Makes members; holds the buffer their data goes through.
pub(crate) struct Extract {
    buffer: Vec<u8>,
    /// Whether the mark of a deleted file is passed over like a device, and not refused.
    pub pass_whiteouts: bool,
}

impl Extract {
    pub fn new(pass_whiteouts: bool) -> Extract {
        Extract { buffer: vec![0; 256 * 1024], pass_whiteouts }
    }

    /// Makes one member at `path` in the tree. `whole` is its normalized name in the archive, and `prefix`
    /// the part of that which stands for the root of the tree, for links.
    pub fn member<R: Read>(
        &mut self,
        tarball: &mut Tarball<R>,
        member: &Member,
        (whole, path, prefix): (&[u8], &[u8], &[u8]),
        tree: &mut Tree,
    ) -> Result<()> {
        if path.is_empty() && member.kind != MemberKind::Directory {
            return Err(unexpected(whole, "the root must be a directory"));
        }
        let attributes = &member.attributes;
        match &member.kind {
            MemberKind::Directory => tree.directory(path, attributes),
            MemberKind::Symlink(target) => tree.symlink(path, target, attributes),
            MemberKind::Fifo => tree.fifo(path, attributes),
            MemberKind::HardLink(target) => {
                let target = normalize(target)?;
                let inside = beneath(&target, prefix).filter(|target| !target.is_empty());
                tree.hard_link(path, inside.ok_or_else(|| unexpected(whole, "it links outside the root"))?)
            }
            MemberKind::Whiteout if !self.pass_whiteouts => {
                Err(unexpected(whole, "it is the mark an overlay takes for a deleted file"))
            }
            MemberKind::Device | MemberKind::Whiteout => {
                tree.report.devices_skipped += 1;
                Ok(())
            }
            MemberKind::File => self.file(tarball, member, path, tree),
        }
    }

    fn file<R: Read>(
        &mut self,
        tarball: &mut Tarball<R>,
        member: &Member,
        path: &[u8],
        tree: &mut Tree,
    ) -> Result<()> {
        let made = tree.file(path, member.size)?;
        for extent in &member.extents {
            let (mut at, end) = (extent.offset, extent.offset + extent.length);
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
                let got = tarball.read(&mut self.buffer[..most])?;
                if got == 0 {
                    return Err(Error::Archive { why: Error::EARLY });
                }
                tree.write(&made, path, at, &self.buffer[..got])?;
                at += got as u64;
            }
        }
        tree.close(&made, path, &member.attributes)
    }
}

/// `path` as seen from `prefix`; `None` when it lies elsewhere.
pub(crate) fn beneath<'p>(path: &'p [u8], prefix: &[u8]) -> Option<&'p [u8]> {
    if prefix.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(prefix)? {
        [] => Some(b""),
        rest => rest.strip_prefix(b"/"),
    }
}

pub(crate) fn only_a_file(member: &Member) -> Result<()> {
    let whole = match member.extents.as_slice() {
        [] => member.size == 0,
        [one] => one.offset == 0 && one.length == member.size,
        _ => false,
    };
    if member.kind == MemberKind::File && whole {
        Ok(())
    } else {
        Err(unexpected(&member.path, "it must be a plain file"))
    }
}

pub(crate) fn unexpected(path: &[u8], why: &'static str) -> Error {
    Error::Member { path: String::from_utf8_lossy(path).chars().take(300).collect(), why }
}
