//! Volumes and snapshots that come from another pool of layers: each layer comes once, whoever stands on it, and those
//! that are here already, since they came with an earlier copy, do not come again.
//!
//! A layer keeps its name on the way. It is unique, and what is in a layer never changes, so a layer of that name is
//! that layer. What comes stands on its layers from the lowest to the topmost as they come, so that none of them can be
//! taken away meanwhile.

use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};

use cabin_sys::dir::HostDir;
use cabin_undo::{Undo, fault};

use crate::attributes::Role;
use crate::copy;
use crate::driver::{DriverKind, Purpose};
use crate::error::Result;
use crate::name::check;

use super::layers::{LAYERS, place_of};
use super::snapshots::{Activity, link_to_image};
use super::{Destination, Origin, Pool, STAGING, Staged};

/// Bytes that must be free where something is to be frozen.
const ROOM_TO_FREEZE: u64 = 16 << 20;

impl Pool {
    /// Whether what lies in another pool can come here layer by layer.
    #[must_use]
    pub fn takes_layers_of(&self, other: &Pool) -> bool {
        (self.inner.kind, other.inner.kind) == (DriverKind::Overlay, DriverKind::Overlay)
    }

    /// The image that a volume or snapshot stands on, if any.
    ///
    /// # Errors
    /// No such volume or snapshot, or the disk cannot be read.
    pub fn image_below(&self, origin: Origin<'_>) -> Result<Option<String>> {
        self.alive()?;
        let place = self.path_of(origin)?;
        self.image_in(&place).map_err(|source| self.volume_error("read", origin.volume(), source))
    }

    /// Unpacks an image as it lies in another pool. One that nobody wants any more there is not wanted here either: it
    /// goes with the last volume that stands on it.
    ///
    /// # Errors
    /// As [`Pool::create_image`]; no such image in the other pool.
    pub fn take_image(&self, from: &Pool, image: &str, undo: &mut Undo) -> Result<()> {
        from.alive()?;
        check(image)?;
        let theirs = from.open_image(image)?;
        self.create_image(image, |tree| copy::tree(theirs.as_fd(), tree.as_fd(), Role::Whole), undo)?;
        if from.is_unwanted(image)? { self.mark(image) } else { Ok(()) }
    }

    /// A copy of what lies in another pool, of the image it stands on, which is in this pool already, and of its layers.
    /// What nobody uses becomes a layer there first, if there is room. `progress` hears how many bytes each layer has that
    /// came.
    ///
    /// # Errors
    /// As [`Pool::stage_tree`]; no such origin; its image is not here.
    pub fn stage_layers(
        &self,
        to: Destination<'_>,
        (from, origin): (&Pool, Origin<'_>),
        progress: &mut dyn FnMut(u64),
        undo: &mut Undo,
    ) -> Result<Staged> {
        from.alive()?;
        let source = from.path_of(origin)?;
        let wrong = |source| from.volume_error("copy", origin.volume(), source);
        // Taken back after what stood on them.
        let (pool, layers) = (self.clone(), Arc::new(OnceLock::<Vec<String>>::new()));
        let taken = layers.clone();
        undo.push(format!("layers of {}", to.volume()), move || {
            pool.release_each(taken.get().map_or(&[], Vec::as_slice))
        })?;
        let (staged, place) = self.stage_bare(to, undo)?;
        if let Some(image) = from.image_in(&source).map_err(wrong)? {
            self.stand_on_image(&image, &place, to)?;
        }
        let still = !matches!(origin, Origin::Volume(_, Activity::Running));
        let shared = still && from.has_room_to_freeze()? && from.freeze(&source, undo)?;
        let chain = from.chain(&source)?;
        let _ = layers.set(chain.clone());
        for (at, layer) in chain.iter().enumerate().rev() {
            if self.take_layer((from, layer), chain.get(at + 1), &place, undo)? {
                progress(self.layer_usage(layer)?);
            }
        }
        let (volume, driver) = (from.inner.root.open_dir(&source).map_err(wrong)?, self.inner.kind.driver());
        match shared {
            true => driver.branch(&volume, &place).map_err(wrong)?,
            false => driver.copy(&volume, &place, to.purpose())?,
        }
        fault::pass("tree over carried layers")?;
        Ok(staged)
    }

    /// From now on the image stays, whatever becomes of its name.
    fn stand_on_image(&self, image: &str, place: &HostDir, to: Destination<'_>) -> Result<()> {
        let _kept = self.read_images();
        self.must_have(image)?;
        let linked = link_to_image(image, place, to.purpose());
        linked.map_err(|source| self.volume_error("copy", to.volume(), source))
    }

    /// Whether there is room for what freezing makes: someone may be leaving this pool because it is full.
    fn has_room_to_freeze(&self) -> Result<bool> {
        let has = self.resources()?;
        Ok(has.space_total.saturating_sub(has.space_used) >= ROOM_TO_FREEZE)
    }

    /// Sees to it that a layer of another pool is here, above another one that is, and lets what comes stand on it.
    /// Whether it had to come.
    fn take_layer(
        &self,
        (from, layer): (&Pool, &str),
        below: Option<&String>,
        place: &HostDir,
        undo: &mut Undo,
    ) -> Result<bool> {
        if self.stand_on(layer, place)? {
            return Ok(false);
        }
        let wrong = |source| self.layer_error("copy", layer, source);
        let root = &self.inner.root;
        // Somebody else may be at the same layer.
        let staging = format!("{LAYERS}/{STAGING}{}", uuid::Uuid::new_v4());
        let (inner, stray) = (self.inner.clone(), staging.clone());
        undo.push(format!("carry layer {layer}"), move || inner.discard(&stray))?;
        let made = root.create_dir(&staging, 0o700).map_err(wrong)?;
        let theirs = from.inner.root.open_dir(&place_of(layer)).map_err(wrong)?;
        self.inner.kind.driver().copy(&theirs, &made, Purpose::Snapshot)?;
        if let Some(below) = below {
            self.link_ref(below, &made).map_err(wrong)?;
        }
        fault::pass("layer carried")?;
        self.place_layer(&staging, layer, place).map_err(wrong)?;
        fault::pass("carried layer in place")?;
        Ok(true)
    }
}
