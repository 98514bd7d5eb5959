//! Which trees make up a state of a volume, for telling two states apart.

use std::io;

use cabin_sys::dir::HostDir;

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
    /// layers, only those are looked at that the two do not share.
    ///
    /// # Errors
    /// No such volume or snapshot, no image where one is asked for, or a failure of the disk.
    pub fn diff(
        &self,
        volume: &VolumeName,
        before: Moment<'_>,
        after: Moment<'_>,
        give: &mut dyn FnMut(Difference),
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
        compare(&before, &after, common, give).map_err(wrong)
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
