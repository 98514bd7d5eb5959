//! Images of a pool: unpacked once, shared by the volumes made from them, removed with the last of them.

use std::io;

use cabin_sys::dir::HostDir;
use cabin_undo::Undo;

use crate::error::{Error, Result};
use crate::name::{VolumeKind, check};

use super::{DELETING, IMAGES, ImageGone, Pool, STAGING};

/// The file beside an image's tree that says it was deleted while volumes stood on it.
const UNWANTED: &str = "unwanted";

impl Pool {
    /// Whether an image is unpacked in this pool.
    ///
    /// # Errors
    /// When the pool is unavailable.
    pub fn has_image(&self, image: &str) -> Result<bool> {
        self.alive()?;
        check(image)?;
        self.is_unpacked(image)
    }

    /// Unpacks an image: `fill` gets an empty directory (root's, 0755) for the tree. When this returns, all
    /// of it is on disk; if `fill` or anything else fails, nothing is left.
    ///
    /// # Errors
    /// What `fill` failed with; an image of that name; a failure of the disk.
    pub fn create_image<E: From<Error>>(
        &self,
        image: &str,
        fill: impl FnOnce(&HostDir) -> std::result::Result<(), E>,
        undo: &mut Undo,
    ) -> std::result::Result<(), E> {
        self.alive()?;
        check(image)?;
        let exists = || Error::ImageExists { pool: self.name().to_owned(), image: image.to_owned() };
        let wrong = |source| self.image_error("unpack", image, source);
        let root = &self.inner.root;
        let (place, staging) = (format!("{IMAGES}/{image}"), format!("{IMAGES}/{STAGING}{image}"));
        if root.exists(&place).map_err(wrong)? {
            return Err(exists().into());
        }
        let staged = match root.create_dir(&staging, 0o700) {
            // Somebody unpacks it right now.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(exists().into()),
            other => other.map_err(wrong)?,
        };
        let (inner, stray) = (self.inner.clone(), staging.clone());
        undo.push(format!("stage image {image}"), move || inner.root.remove_tree(&stray))
            .map_err(Error::from)?;
        let tree = self.inner.kind.driver().create_image(&staged).map_err(wrong)?;
        fill(&tree)?;
        tree.sync_filesystem().map_err(wrong)?;
        match root.rename(&staging, &place) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(exists().into()),
            other => other.map_err(wrong)?,
        }
        let (pool, made) = (self.clone(), image.to_owned());
        let undone = undo.push(format!("unpack image {image}"), move || pool.delete_image(&made).map(drop));
        Ok(undone.map_err(Error::from)?)
    }

    /// Removes the tree of an image; one already gone is success. While volumes stand on it the tree stays,
    /// until the last of them is deleted or a new volume is made from it.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn delete_image(&self, image: &str) -> Result<ImageGone> {
        self.alive()?;
        check(image)?;
        let root = &self.inner.root;
        let _alone = self.write_images();
        let place = format!("{IMAGES}/{image}");
        if !root.exists(&place).map_err(|source| self.image_error("delete", image, source))? {
            return Ok(ImageGone::Removed);
        }
        if self.is_stood_on(image)? {
            self.mark(image)?;
            return Ok(ImageGone::Kept);
        }
        self.remove(IMAGES, image).map_err(|source| self.image_error("delete", image, source))?;
        Ok(ImageGone::Removed)
    }

    /// Whether an image was deleted while volumes stood on it.
    ///
    /// # Errors
    /// When the disk cannot tell.
    pub fn is_unwanted(&self, image: &str) -> Result<bool> {
        check(image)?;
        let marked = self.inner.root.exists(&format!("{IMAGES}/{image}/{UNWANTED}"));
        marked.map_err(|source| self.image_error("look for", image, source))
    }

    /// The images unpacked in this pool, sorted.
    ///
    /// # Errors
    /// When the pool is unavailable or cannot be read.
    pub fn list_images(&self) -> Result<Vec<String>> {
        self.alive()?;
        self.names(IMAGES)
    }

    /// An image a volume is made from is wanted again.
    pub(super) fn unmark(&self, image: &str) -> Result<()> {
        self.inner
            .root
            .remove_file(&format!("{IMAGES}/{image}/{UNWANTED}"))
            .map_err(|source| self.image_error("open", image, source))
    }

    /// Removes an image that nobody wants and nothing stands on any more.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn reap(&self, image: &str) -> Result<()> {
        if !self.is_unwanted(image)? {
            return Ok(());
        }
        let _alone = self.write_images();
        if self.is_unwanted(image)? && !self.is_stood_on(image)? {
            self.remove(IMAGES, image).map_err(|source| self.image_error("delete", image, source))?;
        }
        Ok(())
    }

    /// Says that an image is not wanted any more, but by the volumes that stand on it or are about to.
    pub(super) fn mark(&self, image: &str) -> Result<()> {
        self.inner
            .root
            .replace(&format!("{IMAGES}/{image}/{UNWANTED}"), b"", 0o600)
            .map_err(|source| self.image_error("mark", image, source))
    }

    /// Whether a volume or snapshot, as these say themselves, needs this image's tree, or one that is being made.
    fn is_stood_on(&self, image: &str) -> Result<bool> {
        if !self.inner.kind.driver().stands_on_image() {
            return Ok(false);
        }
        let (containers, snapshots) = (VolumeKind::Container.directory(), VolumeKind::Container.snapshots());
        let stays = |name: &str| !name.starts_with(DELETING);
        let mut places: Vec<String> =
            self.names_if(containers, stays)?.iter().map(|name| format!("{containers}/{name}")).collect();
        for name in self.names(snapshots)? {
            let place = format!("{snapshots}/{name}");
            places.extend(self.names_if(&place, stays)?.iter().map(|snapshot| format!("{place}/{snapshot}")));
        }
        for place in places {
            let stands =
                self.image_in(&place).map_err(|source| self.image_error("find users of", image, source))?;
            if stands.as_deref() == Some(image) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
