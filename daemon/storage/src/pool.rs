//! A pool: its directories, and making, naming, finding and removing what lies in them.
//!
//! Whatever is made is made under a name that starts with `.staging-`, synced, and renamed; whatever is
//! removed is renamed to `.deleting-` first. A crash leaves the whole thing, or nothing, or a stray of such
//! a name that [`Pool::sweep`] takes away.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cabin_sys::dir::{EntryKind, HostDir};
use cabin_undo::{Undo, fault};

use crate::disk::is_in_place;
use crate::driver::{DriverKind, IMAGE, Layers, ROOTFS};
use crate::error::{Error, Result};
use crate::name::{VolumeKind, VolumeName, check, check_snapshot};
use crate::usage::{self, Resources};

mod carried;
mod custom;
mod diff;
mod fill;
mod hold;
mod images;
mod layers;
mod limits;
mod received;
mod replace;
mod sent;
mod snapshots;

pub use diff::Moment;
pub use fill::Destination;
use layers::LAYERS;
pub use received::make_coming;
pub use snapshots::{Activity, Origin, Staged};

/// Where unpacked images lie in a pool.
pub(crate) const IMAGES: &str = "images";
/// The directories of a pool.
pub(crate) const DIRECTORIES: &[&str] =
    &["containers", "containers-snapshots", "custom", "custom-snapshots", IMAGES, LAYERS];
/// The file in a pool that says which driver made it.
pub(crate) const MARK: &str = ".cabin-pool";

const STAGING: &str = ".staging-";
const DELETING: &str = ".deleting-";
/// What a restoring took the place of, until it is known to hold.
const REPLACED: &str = ".replaced-";

/// What became of an image that was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageGone {
    /// Its tree is removed, or never was in this pool.
    Removed,
    /// Volumes stand on it. Its tree goes with the last of them.
    Kept,
}

/// An open storage pool. Cloning the handle costs nothing; all verbs may be called from several threads.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    kind: DriverKind,
    root: HostDir,
    /// Whether `root` is the root of a mount of our own.
    mounted: bool,
    /// Held for reading while a volume is made from an image, for writing while an image may be removed.
    images: RwLock<()>,
    /// Held while it is decided whether a layer goes, or is one that something new stands on.
    layers: Mutex<()>,
}

/// What a volume stood on.
#[derive(Default)]
struct StoodOn {
    image: Option<String>,
    layer: Option<String>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} in {})", self.inner.name, self.inner.root.path().display())
    }
}

impl Inner {
    /// Removes the tree of a volume, snapshot, layer or image, and before it what the filesystem remembers of how much
    /// it may hold; nothing there is success.
    fn discard(&self, place: &str) -> io::Result<()> {
        if let Ok(tree) = self.root.open_dir(place) {
            fault::behind("limit of a tree")?;
            self.kind.driver().forget(&tree)?;
            fault::behind("tree")?;
        }
        self.root.remove_tree(place)
    }
}

impl Pool {
    pub(crate) fn new(name: &str, kind: DriverKind, root: HostDir, mounted: bool) -> Pool {
        Pool {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                kind,
                root,
                mounted,
                images: RwLock::new(()),
                layers: Mutex::new(()),
            }),
        }
    }

    /// Whether its directory is the root of a mount of our own.
    pub(crate) fn is_mounted(&self) -> bool {
        self.inner.mounted
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its driver.
    #[must_use]
    pub fn driver(&self) -> DriverKind {
        self.inner.kind
    }

    /// Its directory, for messages.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.inner.root.path()
    }

    /// Makes the volume of an instance from an image of this pool. When this returns, it is on disk.
    ///
    /// # Errors
    /// No such image, a volume of that name, or a failure of the disk.
    pub fn create_from_image(&self, volume: &VolumeName, image: &str, undo: &mut Undo) -> Result<()> {
        self.alive()?;
        check(image)?;
        let _kept = self.read_images();
        let tree = self.open_image(image)?;
        self.unmark(image)?;
        self.create(volume, undo, |staged| {
            let wrong = |source| self.volume_error("create", volume, source);
            // A link needs no content of its own to be flushed, and says it to people as well.
            let target = PathBuf::from(format!("../../{IMAGES}/{image}"));
            staged.symlink(&target, IMAGE).map_err(wrong)?;
            let driver = self.inner.kind.driver();
            driver.create_from_image(&tree, staged)?;
            if driver.lands() { Ok(()) } else { staged.sync().map_err(wrong) }
        })
    }

    /// Makes an empty volume. When this returns, it is on disk.
    ///
    /// # Errors
    /// A volume of that name, or a failure of the disk.
    pub fn create_empty(&self, volume: &VolumeName, undo: &mut Undo) -> Result<()> {
        self.alive()?;
        self.create(volume, undo, |staged| {
            let made = self.inner.kind.driver().create_empty(staged).and_then(|()| staged.sync());
            made.map_err(|source| self.volume_error("create", volume, source))
        })
    }

    /// Stages, fills and shows a new volume; what fills it takes it to disk.
    fn create(
        &self,
        volume: &VolumeName,
        undo: &mut Undo,
        fill: impl FnOnce(&HostDir) -> Result<()>,
    ) -> Result<()> {
        let root = &self.inner.root;
        let wrong = |source| self.volume_error("create", volume, source);
        if self.is_there(volume)? {
            return Err(self.exists_already(volume));
        }
        let staging = format!("{}/{STAGING}{}", volume.kind().directory(), volume.name());
        let staged = match root.create_dir(&staging, 0o700) {
            // Somebody is making it right now.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(self.exists_already(volume)),
            other => other.map_err(wrong)?,
        };
        let (inner, stray) = (self.inner.clone(), staging.clone());
        undo.push(format!("stage volume {volume}"), move || inner.discard(&stray))?;
        fill(&staged)?;
        match root.rename(&staging, &volume.path()) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(self.exists_already(volume)),
            other => other.map_err(wrong)?,
        }
        let (pool, made) = (self.clone(), volume.clone());
        Ok(undo.push(format!("create volume {volume}"), move || pool.delete(&made))?)
    }

    /// Gives a volume, and the directory of its snapshots, another name.
    ///
    /// # Errors
    /// No such volume, one of the new name, or a failure of the disk.
    pub fn rename(&self, old: &VolumeName, new: &VolumeName, undo: &mut Undo) -> Result<()> {
        self.alive()?;
        if old.kind() != new.kind() {
            return Err(Error::Name { name: new.to_string() });
        }
        // What a failed removal left there is somebody else's.
        if !self.list_snapshots(new)?.is_empty() {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(self.volume_error("rename the snapshots of", old, source));
        }
        self.rename_tree(old, new)?;
        let (pool, from, to) = (self.clone(), new.clone(), old.clone());
        // Forgotten under a name that no row has, it would be a stray.
        undo.push_saving(format!("rename volume {old} to {new}"), move || pool.rename_tree(&from, &to))?;
        self.move_snapshots(old, new)?;
        let (pool, from, to) = (self.clone(), new.clone(), old.clone());
        Ok(undo.push_saving(format!("rename snapshots of {old}"), move || pool.move_snapshots(&from, &to))?)
    }

    /// Takes back a rename that ended anywhere between its steps. What is under the old name already is success.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn take_back_rename(&self, old: &VolumeName, new: &VolumeName) -> Result<()> {
        self.alive()?;
        if self.exists(new)? && !self.exists(old)? {
            self.rename_tree(new, old)?;
        }
        match self.list_snapshots(old)?.is_empty() {
            true => self.move_snapshots(new, old),
            false => Ok(()),
        }
    }

    fn rename_tree(&self, old: &VolumeName, new: &VolumeName) -> Result<()> {
        let root = &self.inner.root;
        self.must_exist(old)?;
        // See `Staged::show`.
        let _looked = self.read_images();
        match root.rename(&old.path(), &new.path()) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(self.exists_already(new)),
            other => other.map_err(|source| self.volume_error("rename", old, source)),
        }
    }

    /// Removes a volume with all that is in it; one already gone is success. An image that was deleted
    /// before goes with the last volume that stands on it.
    ///
    /// # Errors
    /// A failure of the disk, or something mounted inside. The volume's name is free again even then,
    /// unless the first step failed.
    pub fn delete(&self, volume: &VolumeName) -> Result<()> {
        self.alive()?;
        let stood_on = self.stood_on(&volume.path());
        let wrong = |source| self.volume_error("delete", volume, source);
        self.remove(volume.kind().directory(), volume.name()).map_err(wrong)?;
        self.let_go(stood_on)
    }

    /// What a volume or snapshot that is to be removed stands on.
    fn stood_on(&self, place: &str) -> StoodOn {
        StoodOn { image: self.image_in(place).ok().flatten(), layer: self.below(place).ok().flatten() }
    }

    /// Removes what one that is removed now stood on, when nobody else does or wants it.
    fn let_go(&self, stood_on: StoodOn) -> Result<()> {
        let released = self.release(stood_on.layer);
        let reaped = stood_on.image.map_or(Ok(()), |image| self.reap(&image));
        released.and(reaped)
    }

    /// Takes a name away first, so that nobody sees a half removed thing, and then what was behind it.
    fn remove(&self, directory: &str, name: &str) -> io::Result<()> {
        let root = &self.inner.root;
        let condemned = format!("{directory}/{DELETING}{name}");
        // Left over from a crash, or an earlier try.
        self.inner.discard(&condemned)?;
        fault::behind("name of a tree")?;
        match root.rename(&format!("{directory}/{name}"), &condemned) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => self.inner.discard(&condemned),
        }
    }

    /// Whether there is such a volume.
    ///
    /// # Errors
    /// When the pool is unavailable.
    pub fn exists(&self, volume: &VolumeName) -> Result<bool> {
        self.alive()?;
        self.is_there(volume)
    }

    /// All volumes, sorted.
    ///
    /// # Errors
    /// When the pool is unavailable or cannot be read.
    pub fn list(&self) -> Result<Vec<VolumeName>> {
        self.alive()?;
        let mut volumes = Vec::new();
        for kind in [VolumeKind::Container, VolumeKind::Custom] {
            let names = self.names(kind.directory())?;
            volumes.extend(names.iter().filter_map(|name| VolumeName::new(kind, name).ok()));
        }
        Ok(volumes)
    }

    /// Where the files of a volume are.
    ///
    /// # Errors
    /// No such volume, or the image it stands on is missing.
    pub fn layers(&self, volume: &VolumeName) -> Result<Layers> {
        self.alive()?;
        let state = self.path().join(volume.path());
        self.must_exist(volume)?;
        let driver = self.inner.kind.driver();
        let image = if driver.stands_on_image() { self.image_of(volume)? } else { None };
        image.iter().try_for_each(|image| self.must_have(image))?;
        let mut trees = self.trees(&self.chain(&volume.path())?)?;
        trees.extend(image.map(|image| self.path().join(image_tree(&image))));
        Ok(driver.layers(trees, &state))
    }

    /// The image a volume was made from, as the volume itself says.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn image_of(&self, volume: &VolumeName) -> Result<Option<String>> {
        self.image_in(&volume.path()).map_err(|source| self.volume_error("read", volume, source))
    }

    fn image_in(&self, path: &str) -> io::Result<Option<String>> {
        let target = self.inner.root.open_dir(path).and_then(|dir| {
            Ok(rustix::fs::readlinkat(&dir, IMAGE, Vec::new())?.to_string_lossy().into_owned())
        });
        match target {
            Ok(target) => Ok(target.rsplit('/').next().filter(|id| check(id).is_ok()).map(str::to_owned)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Bytes a volume takes on disk beyond what it shares.
    ///
    /// # Errors
    /// No such volume, or the disk cannot be read.
    pub fn usage(&self, volume: &VolumeName) -> Result<u64> {
        self.alive()?;
        let dir = match self.inner.root.open_dir(&volume.path()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(self.no_volume(volume)),
            other => other.map_err(|source| self.volume_error("measure", volume, source))?,
        };
        let used = self.inner.kind.driver().used(&dir);
        used.map_err(|source| self.volume_error("measure", volume, source))
    }

    /// Sends all that was written in the pool so far to disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> Result<()> {
        self.alive()?;
        self.inner.root.sync_filesystem().map_err(|source| self.pool_error("sync", source))
    }

    /// What the pool's filesystem has and what of it is taken.
    ///
    /// # Errors
    /// When the pool is unavailable.
    pub fn resources(&self) -> Result<Resources> {
        self.alive()?;
        usage::resources(&self.inner.root).map_err(|source| self.pool_error("measure", source))
    }

    /// Removes what crashes left half made or half removed, and images kept for volumes that are gone. Only
    /// while nothing else is done in the pool: at the start. Gives the names of what was removed.
    ///
    /// # Errors
    /// When something cannot be removed; the rest is, up to there.
    pub fn sweep(&self) -> Result<Vec<String>> {
        self.sweep_but(&[])
    }

    /// As [`Pool::sweep`], but what a restoring has put aside of the volumes `undecided` stays: it may have to come back.
    ///
    /// # Errors
    /// As [`Pool::sweep`].
    pub fn sweep_but(&self, undecided: &[VolumeName]) -> Result<Vec<String>> {
        self.alive()?;
        let aside: Vec<String> = undecided.iter().map(snapshots::replaced).collect();
        let mut removed = Vec::new();
        let mut directories: Vec<String> = DIRECTORIES.iter().map(|&name| name.to_owned()).collect();
        for kind in [VolumeKind::Container, VolumeKind::Custom] {
            let owners = self.names(kind.snapshots())?;
            directories.extend(owners.iter().map(|name| format!("{}/{name}", kind.snapshots())));
        }
        for directory in &directories {
            let dir = self.inner.root.open_dir(directory).map_err(|e| self.pool_error("sweep", e))?;
            for entry in dir.list().map_err(|e| self.pool_error("sweep", e))? {
                let passing =
                    [STAGING, DELETING, REPLACED].iter().any(|prefix| entry.name.starts_with(prefix));
                if passing && !aside.contains(&format!("{directory}/{}", entry.name)) {
                    let stray = format!("{directory}/{}", entry.name);
                    self.inner.discard(&stray).map_err(|e| self.pool_error("sweep", e))?;
                    removed.push(stray);
                }
            }
        }
        if self.inner.mounted {
            self.inner.kind.driver().sweep(&self.inner.root).map_err(|e| self.pool_error("sweep", e))?;
        }
        for owner in self.owners_of_snapshots()? {
            self.tidy(&owner).map_err(|e| self.pool_error("sweep", e))?;
        }
        removed.extend(self.sweep_layers()?);
        for image in self.list_images()? {
            self.reap(&image)?;
            if !self.is_unpacked(&image)? {
                removed.push(format!("{IMAGES}/{image}"));
            }
        }
        Ok(removed)
    }

    /// Names of directories in one of the pool's directories, strays left out.
    fn names(&self, directory: &str) -> Result<Vec<String>> {
        self.names_if(directory, |name| check(name).is_ok())
    }

    /// Names of the snapshots in a directory of snapshots, strays left out.
    fn snapshot_names(&self, directory: &str) -> Result<Vec<String>> {
        self.names_if(directory, |name| check_snapshot(name).is_ok())
    }

    fn names_if(&self, directory: &str, good: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let entries = match self.inner.root.open_dir(directory).and_then(|dir| dir.list()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|source| self.pool_error("list", source))?,
        };
        Ok(entries
            .into_iter()
            .filter(|entry| entry.kind == EntryKind::Dir && good(&entry.name))
            .map(|entry| entry.name)
            .collect())
    }

    /// Whether what is behind the open handle is still a pool: it may be deleted or unmounted under us.
    pub(crate) fn alive(&self) -> Result<()> {
        let root = &self.inner.root;
        // A disk that cannot tell is away as well.
        if matches!(root.exists(MARK), Ok(true)) && (!self.inner.mounted || is_in_place(root)) {
            Ok(())
        } else {
            Err(Error::Unavailable { pool: self.name().to_owned(), path: self.path().to_owned() })
        }
    }

    fn is_there(&self, volume: &VolumeName) -> Result<bool> {
        let found = self.inner.root.exists(&volume.path());
        found.map_err(|source| self.volume_error("look for", volume, source))
    }

    fn must_exist(&self, volume: &VolumeName) -> Result<()> {
        if self.is_there(volume)? { Ok(()) } else { Err(self.no_volume(volume)) }
    }

    fn is_unpacked(&self, image: &str) -> Result<bool> {
        let found = self.inner.root.exists(&image_tree(image));
        found.map_err(|source| self.image_error("look for", image, source))
    }

    fn open_image(&self, image: &str) -> Result<HostDir> {
        match self.inner.root.open_dir(&image_tree(image)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(self.no_image(image)),
            other => other.map_err(|source| self.image_error("open", image, source)),
        }
    }

    fn must_have(&self, image: &str) -> Result<()> {
        if self.is_unpacked(image)? { Ok(()) } else { Err(self.no_image(image)) }
    }

    fn read_images(&self) -> RwLockReadGuard<'_, ()> {
        self.inner.images.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_images(&self) -> RwLockWriteGuard<'_, ()> {
        self.inner.images.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_layers(&self) -> MutexGuard<'_, ()> {
        self.inner.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pool_error(&self, act: &'static str, source: io::Error) -> Error {
        Error::Pool { act, pool: self.name().to_owned(), source }
    }

    fn volume_error(&self, act: &'static str, volume: &VolumeName, source: io::Error) -> Error {
        Error::Volume { act, pool: self.name().to_owned(), volume: volume.to_string(), source }
    }

    fn image_error(&self, act: &'static str, image: &str, source: io::Error) -> Error {
        Error::Image { act, pool: self.name().to_owned(), image: image.to_owned(), source }
    }

    fn no_image(&self, image: &str) -> Error {
        Error::NoImage { pool: self.name().to_owned(), image: image.to_owned() }
    }

    fn no_volume(&self, volume: &VolumeName) -> Error {
        Error::NoVolume { pool: self.name().to_owned(), volume: volume.to_string() }
    }

    fn exists_already(&self, volume: &VolumeName) -> Error {
        Error::VolumeExists { pool: self.name().to_owned(), volume: volume.to_string() }
    }
}

/// The path of an image's tree in the pool.
fn image_tree(image: &str) -> String {
    format!("{IMAGES}/{image}/{ROOTFS}")
}
