//! Copies of volumes: snapshots, the trees that snapshots bring back, and new volumes made from either.
//!
//! All of them are staged first, which is when a running instance must hold still, and then shown: synced and
//! put in their place by one rename. A snapshot has the form of a volume.

use std::io;
use std::path::Path;

use cabin_sys::dir::HostDir;
use cabin_undo::Undo;

use crate::copy::{Ahead, noted};
use crate::driver::{Driver, IMAGE, Purpose, RESTORED};
use crate::error::{Error, Result};
use crate::name::{VolumeKind, VolumeName, check, check_snapshot};

use super::{IMAGES, Pool, REPLACED, STAGING};

/// Whether somebody may be writing in a volume while it is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Nobody has it mounted: what it holds may be shared with the copy.
    Stopped,
    /// It is mounted, though it may hold still for the moment.
    Running,
}

/// What a copy is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A volume as it is now.
    Volume(&'a VolumeName, Activity),
    /// A snapshot of a volume.
    Snapshot(&'a VolumeName, &'a str),
}

impl Origin<'_> {
    pub(super) fn volume(&self) -> &VolumeName {
        match self {
            Origin::Volume(volume, _) | Origin::Snapshot(volume, _) => volume,
        }
    }
}

/// A copy that lies beside its place, not synced and seen by nobody. It goes with the undo stack it was made
/// with.
#[must_use = "a staged copy is nothing yet"]
#[derive(Debug)]
pub struct Staged {
    pub(super) pool: Pool,
    pub(super) what: String,
    pub(super) staging: String,
    pub(super) place: Place,
    pub(super) pending: Pending,
}

/// What is still to be copied.
#[derive(Debug)]
pub(super) enum Pending {
    /// Nothing.
    Nothing,
    /// What changed since it was copied.
    Changes(Ahead),
    /// Nothing, but what was needed for copying is still there.
    Caught(Ahead),
    /// Nothing, and all is on disk.
    Landed,
    /// All of it: it takes no time.
    All { from: HostDir, to: HostDir, purpose: Purpose },
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    New(VolumeName),
    Snapshot(VolumeName, String),
    Replaces(VolumeName),
}

impl Pool {
    /// Copies what a volume holds now, to become its snapshot.
    ///
    /// # Errors
    /// No such volume, a snapshot of that name, or a failure of the disk.
    pub fn stage_snapshot(
        &self,
        volume: &VolumeName,
        activity: Activity,
        snapshot: &str,
        undo: &mut Undo,
    ) -> Result<Staged> {
        self.alive()?;
        check_snapshot(snapshot)?;
        self.must_exist(volume)?;
        if self.has_snapshot(volume, snapshot)? {
            return Err(self.snapshot_exists(volume, snapshot));
        }
        self.make_room_for_snapshots(volume, undo)?;
        let staging = format!("{}/{STAGING}{snapshot}", snapshots_of(volume));
        let place = Place::Snapshot(volume.clone(), snapshot.to_owned());
        let what = format!("snapshot {volume}/{snapshot}");
        self.stage(Origin::Volume(volume, activity), what, staging, place, undo)
    }

    /// Copies a volume or snapshot of this pool, to become a new volume.
    ///
    /// # Errors
    /// No such origin, a volume of that name, or a failure of the disk.
    pub fn stage_copy(&self, origin: Origin<'_>, target: &VolumeName, undo: &mut Undo) -> Result<Staged> {
        self.alive()?;
        if self.is_there(target)? {
            return Err(self.exists_already(target));
        }
        let staging = format!("{}/{STAGING}{}", target.kind().directory(), target.name());
        self.stage(origin, format!("copy {target}"), staging, Place::New(target.clone()), undo)
    }

    /// Copies a snapshot of another volume of this pool, to become a snapshot of `target` by the same name.
    ///
    /// # Errors
    /// As [`Pool::stage_snapshot`].
    pub fn stage_snapshot_copy(
        &self,
        origin: (&VolumeName, &str),
        target: &VolumeName,
        undo: &mut Undo,
    ) -> Result<Staged> {
        let (volume, snapshot) = origin;
        self.alive()?;
        self.make_room_for_snapshots(target, undo)?;
        let staging = format!("{}/{STAGING}{snapshot}", snapshots_of(target));
        let place = Place::Snapshot(target.clone(), snapshot.to_owned());
        let what = format!("snapshot {target}/{snapshot}");
        self.stage(Origin::Snapshot(volume, snapshot), what, staging, place, undo)
    }

    /// Copies a snapshot, to take the place of its volume. `mark` is a plain word by which
    /// [`Pool::restored`] tells later whether this very copy did.
    ///
    /// # Errors
    /// No such volume or snapshot, or a failure of the disk.
    pub fn stage_restore(
        &self,
        volume: &VolumeName,
        snapshot: &str,
        mark: &str,
        undo: &mut Undo,
    ) -> Result<Staged> {
        self.alive()?;
        check(mark)?;
        self.must_exist(volume)?;
        // What an earlier restoring could not remove.
        self.forget_replaced(volume)?;
        let place = Place::Replaces(volume.clone());
        let what = format!("restore {volume} from {snapshot}");
        let mut staged =
            self.stage(Origin::Snapshot(volume, snapshot), what, replaced(volume), place, undo)?;
        let marked = self.inner.root.open_dir(&staged.staging);
        marked
            .and_then(|dir| dir.symlink(Path::new(mark), RESTORED))
            .map_err(|source| self.volume_error("restore", volume, source))?;
        if matches!(staged.pending, Pending::Landed) {
            staged.pending = Pending::Nothing;
        }
        Ok(staged)
    }

    pub(super) fn stage(
        &self,
        origin: Origin<'_>,
        what: String,
        staging: String,
        place: Place,
        undo: &mut Undo,
    ) -> Result<Staged> {
        let root = &self.inner.root;
        let volume = origin.volume();
        let path = self.path_of(origin)?;
        let wrong = |source| self.volume_error("copy", volume, source);
        let still = !matches!(origin, Origin::Volume(_, Activity::Running));
        let shared = still && self.freeze(&path, undo)?;
        let from = root.open_dir(&path).map_err(wrong)?;
        let to = match root.create_dir(&staging, 0o700) {
            // Somebody is making it right now.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(self.taken(&place)),
            other => other.map_err(wrong)?,
        };
        let (inner, stray) = (self.inner.clone(), staging.clone());
        undo.push(format!("stage {what}"), move || inner.discard(&stray))?;
        let driver = self.inner.kind.driver();
        let kept = matches!(place, Place::Snapshot(..));
        let purpose = if kept { Purpose::Snapshot } else { Purpose::Volume };
        self.stand_alike(&from, &to).map_err(wrong)?;
        self.link_image(&path, &to, purpose)?;
        let mut pending = Pending::Nothing;
        match (shared, still) {
            (true, _) => driver.branch(&from, &to).map_err(wrong)?,
            (false, true) => pending = copy_now(driver, &from, &to, purpose)?,
            (false, false) => {
                let earlier = if kept { self.newest_noted(volume) } else { None };
                pending = match driver.copy_ahead(&from, &to, purpose, earlier.as_ref())? {
                    Some(ahead) => Pending::Changes(ahead),
                    None => Pending::All { from, to, purpose },
                };
            }
        }
        Ok(Staged { pool: self.clone(), what, staging, place, pending })
    }

    /// Where what is to be copied lies, if it is there.
    pub(super) fn path_of(&self, origin: Origin<'_>) -> Result<String> {
        let (path, there) = match origin {
            Origin::Volume(volume, _) => (volume.path(), self.is_there(volume)?),
            Origin::Snapshot(volume, snapshot) => {
                check_snapshot(snapshot)?;
                (snapshot_path(volume, snapshot), self.has_snapshot(volume, snapshot)?)
            }
        };
        if there { Ok(path) } else { Err(self.no_origin(origin)) }
    }

    /// Whether there is such a snapshot.
    ///
    /// # Errors
    /// When the pool cannot be read.
    pub fn has_snapshot(&self, volume: &VolumeName, snapshot: &str) -> Result<bool> {
        let found = self.inner.root.exists(&snapshot_path(volume, snapshot));
        found.map_err(|source| self.volume_error("look for a snapshot of", volume, source))
    }

    /// The snapshot of a volume of which it was noted last what was copied into it when.
    fn newest_noted(&self, volume: &VolumeName) -> Option<HostDir> {
        let names = self.list_snapshots(volume).ok()?;
        let open = |name: &String| self.inner.root.open_dir(&snapshot_path(volume, name)).ok();
        let noted = names.iter().filter_map(|name| {
            let dir = open(name)?;
            Some((noted(&dir)?, dir))
        });
        noted.max_by_key(|(at, _)| *at).map(|(_, dir)| dir)
    }

    fn link_image(&self, path: &str, to: &HostDir, purpose: Purpose) -> Result<()> {
        let linked = self.image_in(path).and_then(|image| match image {
            Some(image) => link_to_image(&image, to, purpose),
            None => Ok(()),
        });
        linked.map_err(|source| Error::Copy { path: IMAGE.to_owned(), source })
    }

    /// The snapshots of a volume, sorted by name. A volume that is not there has none.
    ///
    /// # Errors
    /// When the pool is unavailable or cannot be read.
    pub fn list_snapshots(&self, volume: &VolumeName) -> Result<Vec<String>> {
        self.alive()?;
        self.snapshot_names(&snapshots_of(volume))
    }

    /// Whether nothing lies under the name of a volume, neither a tree nor snapshots.
    ///
    /// # Errors
    /// When the pool is unavailable or cannot be read.
    pub fn is_free(&self, volume: &VolumeName) -> Result<bool> {
        Ok(!self.exists(volume)? && self.list_snapshots(volume)?.is_empty())
    }

    /// Removes a volume with its snapshots, and goes on when one of them cannot be removed.
    ///
    /// # Errors
    /// The first failure; see [`Pool::delete`].
    pub fn delete_with_snapshots(&self, volume: &VolumeName) -> Result<()> {
        let mut first = Ok(());
        for snapshot in self.list_snapshots(volume)? {
            first = first.and(self.delete_snapshot(volume, &snapshot));
        }
        first.and(self.delete(volume))
    }

    /// The volumes that have snapshots, or a directory for them, whether they are there themselves or not.
    ///
    /// # Errors
    /// When the pool is unavailable or cannot be read.
    pub fn owners_of_snapshots(&self) -> Result<Vec<VolumeName>> {
        self.alive()?;
        let mut owners = Vec::new();
        for kind in [VolumeKind::Container, VolumeKind::Custom] {
            let names = self.names(kind.snapshots())?;
            owners.extend(names.iter().filter_map(|name| VolumeName::new(kind, name).ok()));
        }
        Ok(owners)
    }

    /// Gives a snapshot another name.
    ///
    /// # Errors
    /// No such snapshot, one of the new name, or a failure of the disk.
    pub fn rename_snapshot(&self, volume: &VolumeName, old: &str, new: &str, undo: &mut Undo) -> Result<()> {
        self.alive()?;
        check_snapshot(old)?;
        check_snapshot(new)?;
        self.rename_one_snapshot(volume, old, new)?;
        let (pool, owner, from, to) = (self.clone(), volume.clone(), new.to_owned(), old.to_owned());
        Ok(undo.push_saving(format!("rename snapshot {volume}/{old} to {new}"), move || {
            pool.rename_one_snapshot(&owner, &from, &to)
        })?)
    }

    fn rename_one_snapshot(&self, volume: &VolumeName, old: &str, new: &str) -> Result<()> {
        let (from, to) = (snapshot_path(volume, old), snapshot_path(volume, new));
        // See `Staged::show`.
        let _looked = self.read_images();
        match self.inner.root.rename(&from, &to) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(self.snapshot_exists(volume, new)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(self.no_origin(Origin::Snapshot(volume, old)))
            }
            other => other.map_err(|source| self.volume_error("rename a snapshot of", volume, source)),
        }
    }

    /// Removes a snapshot; one already gone is success. The others, older and newer, are as before.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn delete_snapshot(&self, volume: &VolumeName, snapshot: &str) -> Result<()> {
        self.alive()?;
        check_snapshot(snapshot)?;
        let wrong = |source| self.volume_error("delete a snapshot of", volume, source);
        let stood_on = self.stood_on(&snapshot_path(volume, snapshot));
        self.remove(&snapshots_of(volume), snapshot).map_err(wrong)?;
        self.tidy(volume).map_err(wrong)?;
        self.let_go(stood_on)
    }

    /// Moves the snapshots of one volume to another name; none is success.
    ///
    /// # Errors
    /// When there are some of the new name, or the disk fails.
    pub(super) fn move_snapshots(&self, old: &VolumeName, new: &VolumeName) -> Result<()> {
        let root = &self.inner.root;
        let wrong = |source| self.volume_error("rename the snapshots of", old, source);
        if !root.exists(&snapshots_of(old)).map_err(wrong)? {
            return Ok(());
        }
        self.tidy(new).map_err(wrong)?;
        // See `Staged::show`.
        let _looked = self.read_images();
        root.rename(&snapshots_of(old), &snapshots_of(new)).map_err(wrong)
    }

    /// Bytes that came with a snapshot: what it holds beyond the image and the snapshots before it.
    ///
    /// # Errors
    /// No such snapshot, or the disk cannot be read.
    pub fn snapshot_usage(&self, volume: &VolumeName, snapshot: &str) -> Result<u64> {
        self.alive()?;
        check_snapshot(snapshot)?;
        let place = snapshot_path(volume, snapshot);
        let wrong = |source| self.volume_error("measure", volume, source);
        let dir = match self.inner.root.open_dir(&place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(self.no_origin(Origin::Snapshot(volume, snapshot)));
            }
            other => other.map_err(wrong)?,
        };
        let driver = self.inner.kind.driver();
        match self.below(&place)? {
            Some(layer) if driver.is_bare(&dir).map_err(wrong)? => self.layer_usage(&layer),
            _ => driver.used(&dir).map_err(wrong),
        }
    }

    /// The mark of the last restoring whose tree the volume has.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn restored(&self, volume: &VolumeName) -> Result<Option<String>> {
        self.alive()?;
        let mark = self.inner.root.open_dir(&volume.path()).and_then(|dir| {
            Ok(rustix::fs::readlinkat(&dir, RESTORED, Vec::new())?.to_string_lossy().into_owned())
        });
        match mark {
            Ok(mark) => Ok(Some(mark)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.volume_error("read", volume, source)),
        }
    }

    /// Puts back the tree that a restoring with this mark took the place of, if it did, and removes what it brought or
    /// was going to bring.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn take_back_restored(&self, volume: &VolumeName, mark: &str) -> Result<()> {
        if self.restored(volume)?.as_deref() == Some(mark) {
            let back = self.inner.root.exchange(&replaced(volume), &volume.path());
            back.map_err(|source| self.volume_error("take back the old tree of", volume, source))?;
        }
        self.forget_replaced(volume)
    }

    /// Removes the tree that a restoring took the place of; none is success.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn forget_replaced(&self, volume: &VolumeName) -> Result<()> {
        self.alive()?;
        let stood_on = self.stood_on(&replaced(volume));
        self.inner
            .discard(&replaced(volume))
            .map_err(|source| self.volume_error("remove the old tree of", volume, source))?;
        self.let_go(stood_on)
    }

    /// The directory of a volume's snapshots goes with the last of them.
    pub(super) fn tidy(&self, volume: &VolumeName) -> io::Result<()> {
        self.inner.root.remove_empty(&snapshots_of(volume)).map(drop)
    }

    pub(super) fn no_origin(&self, origin: Origin<'_>) -> Error {
        match origin {
            Origin::Volume(volume, _) => self.no_volume(volume),
            Origin::Snapshot(volume, snapshot) => Error::NoSnapshot {
                pool: self.name().to_owned(),
                volume: volume.to_string(),
                snapshot: snapshot.to_owned(),
            },
        }
    }

    fn snapshot_exists(&self, volume: &VolumeName, snapshot: &str) -> Error {
        Error::SnapshotExists {
            pool: self.name().to_owned(),
            volume: volume.to_string(),
            snapshot: snapshot.to_owned(),
        }
    }

    pub(super) fn taken(&self, place: &Place) -> Error {
        match place {
            Place::New(volume) | Place::Replaces(volume) => self.exists_already(volume),
            Place::Snapshot(volume, snapshot) => self.snapshot_exists(volume, snapshot),
        }
    }
}

/// Says in a volume or snapshot which image it stands on.
pub(super) fn link_to_image(image: &str, to: &HostDir, purpose: Purpose) -> io::Result<()> {
    let up = match purpose {
        Purpose::Snapshot => "../../..",
        Purpose::Volume => "../..",
    };
    to.symlink(Path::new(&format!("{up}/{IMAGES}/{image}")), IMAGE)
}

/// Copies what stands still. Gives what is left to do.
fn copy_now(driver: &dyn Driver, from: &HostDir, to: &HostDir, purpose: Purpose) -> Result<Pending> {
    driver.copy(from, to, purpose)?;
    Ok(if driver.lands() { Pending::Landed } else { Pending::Nothing })
}

impl Staged {
    /// Copies what changed in a running volume since it was staged, or all of it when that takes no time. Nobody
    /// may be writing in the volume now. Without this the copy is what could be had from under the writer's hands.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn catch_up(&mut self) -> Result<()> {
        self.pending = match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Changes(mut ahead) => {
                ahead.catch_up()?;
                Pending::Caught(ahead)
            }
            Pending::All { from, to, purpose } => {
                copy_now(self.pool.inner.kind.driver(), &from, &to, purpose)?
            }
            other => other,
        };
        Ok(())
    }

    /// Whether what is still to be copied is of one moment by itself: then nobody needs to stand still for it.
    #[must_use]
    pub fn is_of_one_moment(&self) -> bool {
        let driver = self.pool.inner.kind.driver();
        matches!(&self.pending, Pending::All { from, .. } if driver.is_of_one_moment(from))
    }

    /// Makes what must be done while the writers stand still short: a snapshot of a filesystem first writes what is
    /// dirty.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn settle(&self) -> Result<()> {
        if matches!(self.pending, Pending::All { .. }) { self.pool.sync() } else { Ok(()) }
    }

    /// Puts the copy in its place. When this returns, all of it is on disk.
    ///
    /// The tree that a restoring takes the place of is kept until [`Pool::forget_replaced`], so that it can
    /// be taken back.
    ///
    /// # Errors
    /// When something is in its place by now, or the disk fails.
    pub fn show(self, undo: &mut Undo) -> Result<()> {
        let Staged { pool, what, staging, place, pending } = self;
        let landed = match pending {
            Pending::Changes(mut ahead) => {
                ahead.catch_up()?;
                ahead.clean()?;
                false
            }
            Pending::Caught(ahead) => {
                if matches!(place, Place::Snapshot(..)) {
                    let beside = pool.inner.root.open_dir(&staging);
                    ahead.remember(&beside.map_err(|source| Error::Copy { path: what.clone(), source })?)?;
                }
                ahead.clean()?;
                false
            }
            Pending::All { from, to, purpose } => {
                matches!(copy_now(pool.inner.kind.driver(), &from, &to, purpose)?, Pending::Landed)
            }
            Pending::Landed => true,
            Pending::Nothing => false,
        };
        let root = &pool.inner.root;
        let (Place::New(volume) | Place::Snapshot(volume, _) | Place::Replaces(volume)) = &place;
        let wrong = |source| pool.volume_error("copy", volume, source);
        // Many files: flushing the filesystem once is cheaper than each of them, and takes the directories
        // above along.
        if !landed {
            root.sync_filesystem().map_err(wrong)?;
        }
        // Whoever looks what stands on an image finds it by the one name or by the other.
        let looked = pool.read_images();
        let shown = match &place {
            Place::New(volume) => root.rename(&staging, &volume.path()),
            Place::Snapshot(volume, snapshot) => root.rename(&staging, &snapshot_path(volume, snapshot)),
            Place::Replaces(volume) => root.exchange(&staging, &volume.path()),
        };
        drop(looked);
        match shown {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(pool.taken(&place)),
            other => other.map_err(wrong)?,
        }
        let made = pool.clone();
        let pushed = match place {
            Place::New(volume) => undo.push(what, move || made.delete(&volume)),
            Place::Snapshot(volume, snapshot) => {
                undo.push(what, move || made.delete_snapshot(&volume, &snapshot))
            }
            // What lies beside is the only old tree until it is back.
            Place::Replaces(volume) => undo.push_saving(what, move || {
                let back = made.inner.root.exchange(&staging, &volume.path());
                back.map_err(|source| made.volume_error("take back the old tree of", &volume, source))
            }),
        };
        Ok(pushed?)
    }
}

pub(super) fn snapshots_of(volume: &VolumeName) -> String {
    format!("{}/{}", volume.kind().snapshots(), volume.name())
}

pub(super) fn snapshot_path(volume: &VolumeName, snapshot: &str) -> String {
    format!("{}/{snapshot}", snapshots_of(volume))
}

pub(super) fn replaced(volume: &VolumeName) -> String {
    format!("{}/{REPLACED}{}", volume.kind().directory(), volume.name())
}
