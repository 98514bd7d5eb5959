//! Volumes and snapshots that come from another pool of subvolumes, as the kernel sends them: what one has in common with
//! another that came earlier is shared with that here too, and does not come again.
//!
//! The kernel keeps of each snapshot that came what it was made to be like, and when, so that what was written later shows.
//! So it is by what they hold, not by their names, that a snapshot here and one there are known to be the same.

use std::io;

use cabin_sys::btrfs::stream::Content;
use cabin_sys::btrfs::{self, Access, Subvolume};
use cabin_sys::dir::HostDir;
use cabin_undo::{Undo, fault};
use rustix::fs::Mode;

use crate::driver::{Purpose, ROOTFS};
use crate::error::Result;
use crate::kernel_stream::follow;
use crate::name::VolumeName;
use crate::receive::receive;

use super::snapshots::snapshots_of;
use super::{DELETING, Destination, Origin, Pool, Staged};

/// A subvolume and what is known of it.
struct Known {
    tree: HostDir,
    about: Subvolume,
}

impl Known {
    fn open(tree: HostDir) -> io::Result<Known> {
        Ok(Known { about: btrfs::info(&tree)?, tree })
    }

    /// Whether it holds what another one does, of whatever filesystem.
    fn is_like(&self, other: &Known) -> bool {
        let mine = [Some(self.about.state), self.about.received];
        let theirs = [Some(other.about.state), other.about.received];
        mine.iter().flatten().any(|mine| theirs.iter().flatten().any(|theirs| mine == theirs))
    }
}

impl Pool {
    /// Whether what lies in another pool can come here as the kernel sends it, unless there are subvolumes in it.
    #[must_use]
    pub fn may_take_streams_of(&self, other: &Pool) -> bool {
        self.has_subvolumes() && other.has_subvolumes()
    }

    /// Whether all of these, which lie in another pool, can come here as the kernel sends them: subvolumes in them could
    /// not.
    ///
    /// # Errors
    /// No such volume or snapshot, or a failure of the disk.
    pub fn takes_streams_of(&self, other: &Pool, origins: &[Origin<'_>]) -> Result<bool> {
        if !self.may_take_streams_of(other) {
            return Ok(false);
        }
        for origin in origins {
            let tree = other.subvolume_of(*origin)?;
            let inside = btrfs::subvolumes_in(&tree);
            if !inside.map_err(|e| other.volume_error("read", origin.volume(), e))?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn subvolume_of(&self, origin: Origin<'_>) -> Result<HostDir> {
        self.alive()?;
        let tree = format!("{}/{ROOTFS}", self.path_of(origin)?);
        self.inner.root.open_dir(&tree).map_err(|source| self.volume_error("open", origin.volume(), source))
    }

    /// A copy of what lies in another pool: as what it has otherwise than a snapshot of the volume `of` that the
    /// destination has too, if there is one. `progress` hears how many bytes of content came.
    ///
    /// # Errors
    /// As [`Pool::stage_tree`]; no such origin.
    pub fn stage_sent(
        &self,
        to: Destination<'_>,
        (from, origin, of): (&Pool, Origin<'_>, &VolumeName),
        progress: &mut dyn FnMut(u64),
        undo: &mut Undo,
    ) -> Result<Staged> {
        let theirs = |source| from.volume_error("send", origin.volume(), source);
        let tree = from.subvolume_of(origin)?;
        let holding = from.place_to_hold(origin.volume(), undo)?;
        let tree = match origin {
            // Nobody is to write in it anyway.
            Origin::Snapshot(..) => {
                btrfs::set_access(&tree, Access::ReadOnly).map_err(theirs)?;
                tree
            }
            Origin::Volume(..) => from.hold(&tree, &holding, ROOTFS).map_err(theirs)?,
        };
        let sent = Known::open(tree).map_err(theirs)?;
        let bases = self.bases((from, of), to.volume(), &sent);
        let base = bases.map_err(|source| self.volume_error("compare", to.volume(), source))?;
        fault::pass("subvolume to be sent")?;
        let (staged, place) = self.stage_bare(to, undo)?;
        let mut make = || -> io::Result<()> {
            let (parent, base) = base.as_ref().map(|(parent, base)| (&parent.tree, &base.tree)).unzip();
            match base {
                Some(base) => btrfs::snapshot(base, &place, ROOTFS, Access::Writable)?,
                None => {
                    btrfs::create_subvolume(&place, ROOTFS)?;
                    rustix::fs::fchmod(place.open_dir(ROOTFS)?, Mode::from_raw_mode(0o755))?;
                }
            }
            let root = place.open_dir(ROOTFS)?;
            follow(&sent.tree, parent, Content::Whole, |stream| receive(stream, &root, base, progress))?;
            if to.purpose() == Purpose::Snapshot {
                // What is still to be written would be taken for somebody's change later.
                root.sync_filesystem()?;
                btrfs::set_received(&root, sent.about.received.unwrap_or(sent.about.state))?;
                btrfs::set_access(&root, Access::ReadOnly)?;
            }
            Ok(())
        };
        make().map_err(|source| self.volume_error("receive", to.volume(), source))?;
        fault::pass("subvolume received")?;
        from.inner.discard(&holding).map_err(theirs)?;
        Ok(staged)
    }

    /// Of the snapshots of a volume there that a volume here has as well, staged or shown, the one that is nearest to
    /// what is to be sent: there, and here.
    fn bases(
        &self,
        (from, volume): (&Pool, &VolumeName),
        target: &VolumeName,
        sent: &Known,
    ) -> io::Result<Option<(Known, Known)>> {
        let mine = self.known_snapshots(target)?;
        let mut common = Vec::new();
        for theirs in from.known_snapshots(volume)? {
            if theirs.about.id != sent.about.id
                && let Some(alike) = mine.iter().find(|mine| mine.is_like(&theirs))
            {
                common.push((theirs, Known::open(alike.tree.open_dir(".")?)?));
            }
        }
        Ok(common.into_iter().min_by_key(|(theirs, _)| theirs.about.made_in.abs_diff(sent.about.made_in)))
    }

    /// The subvolumes of all snapshots of a volume in which nobody can write, those that are being staged too.
    fn known_snapshots(&self, volume: &VolumeName) -> io::Result<Vec<Known>> {
        let all = match self.inner.root.open_dir(&snapshots_of(volume)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut known = Vec::new();
        for entry in all.list()?.iter().filter(|entry| !entry.name.starts_with(DELETING)) {
            match all.open_dir(&format!("{}/{ROOTFS}", entry.name)).and_then(Known::open) {
                Ok(found) if found.about.read_only => known.push(found),
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(known)
    }
}
