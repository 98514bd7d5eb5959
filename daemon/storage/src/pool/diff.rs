//! Which trees make up a state of a volume, for telling two states apart.
//!
//! Of two subvolumes the kernel tells what changed, if nobody can write in them: of one that somebody may write in, a
//! snapshot is taken for as long as that takes.

use std::io;

use cabin_sys::btrfs;
use cabin_sys::dir::HostDir;
use cabin_undo::{Undo, fault};

use crate::changed::Changed;
use crate::diff::{Depth, Difference, compare};
use crate::driver::ROOTFS;
use crate::error::Result;
use crate::name::VolumeName;

use super::{Origin, Pool, image_tree};

/// A state of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment<'a> {
    /// As its image was.
    Image,
    /// As a snapshot keeps it.
    Snapshot(&'a str),
    /// As it is.
    Now,
}

impl Pool {
    /// Tells what differs between two states of a container's volume, in the order of the paths. Where there are
    /// layers, only those are looked at that the two do not share; of subvolumes, only what changed.
    ///
    /// # Errors
    /// No such volume or snapshot, no image where one is asked for, or a failure of the disk.
    pub fn diff(
        &self,
        volume: &VolumeName,
        before: Moment<'_>,
        after: Moment<'_>,
        give: &mut dyn FnMut(Difference),
        undo: &mut Undo,
    ) -> Result<Depth> {
        self.alive()?;
        self.must_exist(volume)?;
        let (before, after) = (self.trees_at(volume, before)?, self.trees_at(volume, after)?);
        let common = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
        let wrong = |source| self.volume_error("compare", volume, source);
        let open = |trees: Vec<String>| -> io::Result<Vec<HostDir>> {
            trees.iter().map(|tree| self.inner.root.open_dir(tree)).collect()
        };
        let (before, after) = (open(before).map_err(wrong)?, open(after).map_err(wrong)?);
        if let ([old], [new], 0, true) = (before.as_slice(), after.as_slice(), common, self.has_subvolumes())
            && let Some(depth) = self.diff_subvolumes(volume, (old, new), give, undo)?
        {
            return Ok(depth);
        }
        compare(&before, &after, common, None, give).map_err(wrong)
    }

    /// As [`Pool::diff`], of two subvolumes. None where the kernel cannot tell: when there are others in them, which are
    /// in no stream, or too much changed, or there is no room.
    fn diff_subvolumes(
        &self,
        volume: &VolumeName,
        (before, after): (&HostDir, &HostDir),
        give: &mut dyn FnMut(Difference),
        undo: &mut Undo,
    ) -> Result<Option<Depth>> {
        let wrong = |source| self.volume_error("compare", volume, source);
        for tree in [before, after] {
            if !btrfs::subvolumes_in(tree).map_err(wrong)?.is_empty() {
                return Ok(None);
            }
        }
        let holding = self.place_to_hold(volume, undo)?;
        let tell = || -> io::Result<_> {
            let (before, after) =
                (self.hold(before, &holding, "before")?, self.hold(after, &holding, "after")?);
            let known = Changed::between(&before, &after)?;
            Ok((before, after, known))
        };
        let told = tell();
        fault::pass("two states compared by the kernel")?;
        let depth = match told {
            Ok((before, after, known)) => {
                Some(compare(&[before], &[after], 0, Some(&known), give).map_err(wrong)?)
            }
            // All can be looked at instead.
            Err(_) => None,
        };
        self.inner.discard(&holding).map_err(wrong)?;
        Ok(depth)
    }

    /// The trees of a state, topmost first, as paths in the pool.
    fn trees_at(&self, volume: &VolumeName, moment: Moment<'_>) -> Result<Vec<String>> {
        let driver = self.inner.kind.driver();
        let place = match moment {
            Moment::Image | Moment::Now => volume.path(),
            Moment::Snapshot(snapshot) => self.path_of(Origin::Snapshot(volume, snapshot))?,
        };
        let image = self.image_of(volume)?;
        if moment == Moment::Image {
            let image = image.ok_or_else(|| self.no_image(volume.name()))?;
            self.must_have(&image)?;
            return Ok(vec![image_tree(&image)]);
        }
        let dir = self.inner.root.open_dir(&place);
        let dir = dir.map_err(|source| self.volume_error("open", volume, source))?;
        let own = driver.own(&dir).map_err(|source| self.volume_error("read", volume, source))?;
        let mut trees = vec![format!("{place}/{own}")];
        if driver.stands_on_image() && own != ROOTFS {
            trees.extend(self.layer_trees(&place)?);
            // A snapshot may be of another image than the volume is by now.
            let image = self.image_in(&place).map_err(|source| self.volume_error("read", volume, source))?;
            trees.extend(image.map(|image| image_tree(&image)));
        }
        Ok(trees)
    }
}
