//! Trees that somebody else fills: volumes and snapshots that come from outside, and a new tree for a volume that
//! is there. And where the files of a snapshot are, for who reads them.
//!
//! They are staged and shown as copies are.

use cabin_sys::dir::HostDir;
use cabin_undo::Undo;

use crate::driver::{IMAGE, Layers, Purpose, RESTORED, ROOTFS};
use crate::error::Result;
use crate::name::{VolumeKind, VolumeName, check, check_snapshot};

use super::snapshots::{Pending, Place, Staged, replaced, snapshots_of};
use super::{IMAGES, Pool, STAGING, image_tree};

/// What a tree that comes from elsewhere is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination<'a> {
    /// A new volume.
    New(&'a VolumeName),
    /// A snapshot, by this name, of a volume that is itself not shown yet, or is there.
    Snapshot(&'a VolumeName, &'a str),
    /// The tree of a volume that is there and that nobody uses. The plain word is the mark by which [`Pool::restored`]
    /// tells whether it did.
    Replaces(&'a VolumeName, &'a str),
}

impl Destination<'_> {
    pub(super) fn volume(&self) -> &VolumeName {
        match self {
            Destination::New(volume)
            | Destination::Snapshot(volume, _)
            | Destination::Replaces(volume, _) => volume,
        }
    }

    pub(super) fn purpose(&self) -> Purpose {
        if matches!(self, Destination::Snapshot(..)) { Purpose::Snapshot } else { Purpose::Volume }
    }
}

impl Pool {
    /// An empty directory that is to become the tree of `to`.
    ///
    /// # Errors
    /// Something of that name, or no volume to replace the tree of; or a failure of the disk.
    pub fn stage_tree(&self, to: Destination<'_>, undo: &mut Undo) -> Result<(Staged, HostDir)> {
        let (staged, place) = self.stage_bare(to, undo)?;
        let driver = self.inner.kind.driver();
        let made = match to.volume().kind() {
            VolumeKind::Container => driver.create_to_fill(&place),
            // It stands on nothing, and is mounted as it is.
            VolumeKind::Custom => driver.create_empty(&place).and_then(|()| place.open_dir(ROOTFS)),
        };
        let tree = made.map_err(|source| self.volume_error("create", to.volume(), source))?;
        Ok((staged, tree))
    }

    /// The directory that is to take the place of `to`, with nothing in it yet but its mark.
    pub(super) fn stage_bare(&self, to: Destination<'_>, undo: &mut Undo) -> Result<(Staged, HostDir)> {
        self.alive()?;
        let wrong = |source| self.volume_error("create", to.volume(), source);
        let (place, staging) = match to {
            Destination::New(volume) if self.is_there(volume)? => {
                return Err(self.exists_already(volume));
            }
            Destination::New(volume) => {
                let staging = format!("{}/{STAGING}{}", volume.kind().directory(), volume.name());
                (Place::New(volume.clone()), staging)
            }
            Destination::Snapshot(volume, snapshot) => {
                check_snapshot(snapshot)?;
                self.make_room_for_snapshots(volume, undo)?;
                let staging = format!("{}/{STAGING}{snapshot}", snapshots_of(volume));
                (Place::Snapshot(volume.clone(), snapshot.to_owned()), staging)
            }
            Destination::Replaces(volume, mark) => {
                self.make_way(volume, mark)?;
                (Place::Replaces(volume.clone()), replaced(volume))
            }
        };
        let what = place.to_string();
        let staged = self.stage_place(&place, &staging, &what, undo)?;
        if let Destination::Replaces(_, mark) = to {
            staged.symlink(std::path::Path::new(mark), RESTORED).map_err(wrong)?;
        }
        Ok((Staged { pool: self.clone(), what, staging, place, pending: Pending::Nothing }, staged))
    }

    /// The directory of a volume's snapshots, made when missing.
    pub(super) fn make_room_for_snapshots(&self, volume: &VolumeName, undo: &mut Undo) -> Result<()> {
        let (pool, owner) = (self.clone(), volume.clone());
        self.inner
            .root
            .ensure_dir(&snapshots_of(volume), 0o700)
            .map_err(|source| self.volume_error("snapshot", volume, source))?;
        Ok(undo.push(format!("directory of the snapshots of {volume}"), move || pool.tidy(&owner))?)
    }

    pub(super) fn stage_place(
        &self,
        place: &Place,
        staging: &str,
        what: &str,
        undo: &mut Undo,
    ) -> Result<HostDir> {
        let staged = match self.inner.root.create_dir(staging, 0o700) {
            // Somebody is making it right now.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Err(self.taken(place)),
            other => other.map_err(|source| self.volume_error("create", place.volume(), source))?,
        };
        let (inner, stray) = (self.inner.clone(), staging.to_owned());
        undo.push(format!("stage {what}"), move || inner.discard(&stray))?;
        Ok(staged)
    }

    /// A new tree for a volume that is there, from an image of this pool or empty, to take the place of the old
    /// one. `mark` is a plain word by which [`Pool::restored`] tells later whether this very tree did.
    ///
    /// # Errors
    /// No such volume or image, or a failure of the disk.
    pub fn stage_rebuild(
        &self,
        volume: &VolumeName,
        image: Option<&str>,
        mark: &str,
        undo: &mut Undo,
    ) -> Result<Staged> {
        self.alive()?;
        check(mark)?;
        self.must_exist(volume)?;
        // What an earlier change of this kind could not remove.
        self.forget_replaced(volume)?;
        let wrong = |source| self.volume_error("rebuild", volume, source);
        let place = Place::Replaces(volume.clone());
        let (staging, what) = (replaced(volume), format!("rebuild {volume}"));
        let _kept = self.read_images();
        let staged = self.stage_place(&place, &staging, &what, undo)?;
        match image {
            Some(image) => {
                check(image)?;
                let tree = self.open_image(image)?;
                self.unmark(image)?;
                self.inner.kind.driver().create_from_image(&tree, &staged)?;
                let target = std::path::PathBuf::from(format!("../../{IMAGES}/{image}"));
                staged.symlink(&target, IMAGE).map_err(wrong)?;
            }
            None => self.inner.kind.driver().create_empty(&staged).map_err(wrong)?,
        }
        staged.symlink(std::path::Path::new(mark), RESTORED).map_err(wrong)?;
        Ok(Staged { pool: self.clone(), what, staging, place, pending: Pending::Nothing })
    }

    /// Where the files of a snapshot are.
    ///
    /// # Errors
    /// No such snapshot, or the image it stands on is missing.
    pub fn snapshot_layers(&self, volume: &VolumeName, snapshot: &str) -> Result<Layers> {
        self.alive()?;
        let place = self.path_of(super::Origin::Snapshot(volume, snapshot))?;
        let driver = self.inner.kind.driver();
        let image = match driver.stands_on_image() {
            true => self.image_in(&place).map_err(|source| self.volume_error("read", volume, source))?,
            false => None,
        };
        image.iter().try_for_each(|image| self.must_have(image))?;
        let mut trees = self.trees(&self.chain(&place)?)?;
        trees.extend(image.map(|image| self.path().join(image_tree(&image))));
        Ok(driver.layers(trees, &self.path().join(&place)))
    }
}

impl Staged {
    /// The tree is filled: from here on others can share it, where the driver shares.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn filled(&self, undo: &mut Undo) -> Result<()> {
        self.pool.freeze(&self.staging, undo).map(drop)
    }
}

impl Place {
    fn volume(&self) -> &VolumeName {
        match self {
            Place::New(volume) | Place::Snapshot(volume, _) | Place::Replaces(volume) => volume,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::New(volume) => write!(f, "volume {volume}"),
            Place::Snapshot(volume, snapshot) => write!(f, "snapshot {volume}/{snapshot}"),
            Place::Replaces(volume) => write!(f, "tree of {volume}"),
        }
    }
}
