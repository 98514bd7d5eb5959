//! All pools of a daemon: making, opening and deleting them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cabin_sys::dir::HostDir;
use cabin_undo::{Undo, fault};

use crate::disk::{DiskSpec, Disks};
use crate::driver::DriverKind;
use crate::error::{Error, Result};
use crate::name::check;
use crate::pool::{DIRECTORIES, MARK, Pool};

/// The directory in the daemon's that holds pools, and links to those that lie elsewhere.
const POOLS: &str = "storage-pools";
/// The longest mark of a pool, in bytes.
const MAX_MARK: u64 = 256;

/// What a pool is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: DriverKind,
    /// The absolute path of its directory: [`Storage::default_source`], or an empty directory somewhere else.
    pub source: PathBuf,
    /// Its own disk, mounted at [`Storage::default_source`], which `source` must be then.
    pub disk: Option<DiskSpec>,
}

/// Whether disks are still mounted.
#[derive(Debug, Default)]
struct Mounting {
    closed: bool,
}

/// The pools of one daemon.
#[derive(Debug)]
pub struct Storage {
    pools: HostDir,
    disks: Disks,
    /// Held while a disk is looked for and mounted.
    mounting: Mutex<Mounting>,
    open: Arc<Mutex<BTreeMap<String, Arc<Pool>>>>,
}

impl Storage {
    /// Storage beneath the daemon's directory `root`. No pool is open yet.
    ///
    /// # Errors
    /// When the directory of pools cannot be made.
    pub fn new(root: &Path) -> Result<Storage> {
        let pools = HostDir::ensure(&root.join(POOLS), 0o711).map_err(|source| Error::Pool {
            act: "find a place for",
            pool: "*".to_owned(),
            source,
        })?;
        Ok(Storage { pools, disks: Disks::new(root), mounting: Mutex::default(), open: Arc::default() })
    }

    /// The directory a pool has when nobody says otherwise.
    #[must_use]
    pub fn default_source(&self, name: &str) -> PathBuf {
        self.pools.path().join(name)
    }

    /// The file of the disk that a pool of this name has, if it has one.
    #[must_use]
    pub fn disk_file(&self, name: &str) -> PathBuf {
        self.disks.file(name)
    }

    /// Bytes a disk has when nobody says otherwise: a fifth of what is free, between 5 and 30 GiB.
    ///
    /// # Errors
    /// When the filesystem of the daemon's directory cannot be asked.
    pub fn default_disk_size(&self) -> Result<u64> {
        let wrong = |source| Error::Disk { act: "find room for", path: self.disks.file("*"), source };
        self.disks.default_size().map_err(wrong)
    }

    /// Makes a pool and opens it.
    ///
    /// # Errors
    /// A pool of that name, a directory that cannot become one, or a failure of the disk.
    pub fn create_pool(&self, spec: &PoolSpec, undo: &mut Undo) -> Result<Arc<Pool>> {
        check(&spec.name)?;
        let wrong = |source| Error::Pool { act: "create", pool: spec.name.clone(), source };
        if self.pools.exists(&spec.name).map_err(wrong)? {
            return Err(Error::PoolExists { path: self.default_source(&spec.name) });
        }
        if self.disks.exists(&spec.name).map_err(wrong)? {
            return Err(Error::PoolExists { path: self.disks.file(&spec.name) });
        }
        let own = spec.source == self.default_source(&spec.name);
        let mut root =
            if own { self.pools.create_dir(&spec.name, 0o700).map_err(wrong)? } else { adopt(&spec.source)? };
        let (pools, name, source) = (self.pools.path().to_owned(), spec.name.clone(), spec.source.clone());
        let (open, disks) = (self.open.clone(), self.disks.clone());
        undo.push(format!("prepare storage pool {}", spec.name), move || {
            open.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            dismantle(&pools, &disks, &name, &source)
        })?;
        if let Some(disk) = &spec.disk {
            self.disks.create(&spec.name, disk)?;
            self.disks.mount(&spec.name, disk, &spec.source)?;
            root = HostDir::open(&spec.source).map_err(wrong)?;
            rustix::fs::fchmod(&root, 0o700.into()).map_err(|e| wrong(e.into()))?;
            fault::pass("pool's disk mounted")?;
        }
        if let Some(why) = spec.driver.driver().fits(&root).map_err(wrong)? {
            return Err(Error::Filesystem { path: spec.source.clone(), driver: spec.driver.name(), why });
        }
        if !own {
            // Before anything is made there: after a crash only this name leads to it.
            self.pools.symlink(&spec.source, &spec.name).map_err(wrong)?;
            self.pools.sync().map_err(wrong)?;
            fault::pass("link to the pool")?;
        }
        for directory in DIRECTORIES {
            root.create_dir(directory, 0o700).map_err(wrong)?;
        }
        fault::pass("directories of the pool")?;
        self.pools.sync().map_err(wrong)?;
        // Last: what has the mark is whole.
        root.replace(MARK, format!("driver: {}\n", spec.driver.name()).as_bytes(), 0o600).map_err(wrong)?;
        let pool = Arc::new(Pool::new(&spec.name, spec.driver, root, spec.disk.is_some()));
        self.lock().insert(spec.name.clone(), pool.clone());
        fault::pass("mark of the pool")?;
        Ok(pool)
    }

    /// Opens a pool that was made before; one already open is given again.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when its directory is missing or not mounted; another driver's pool.
    pub fn open_pool(&self, spec: &PoolSpec) -> Result<Arc<Pool>> {
        check(&spec.name)?;
        if let Some(pool) = self.lock().get(&spec.name)
            && pool.alive().is_ok()
        {
            return Ok(pool.clone());
        }
        let gone = || Error::Unavailable { pool: spec.name.clone(), path: spec.source.clone() };
        let wrong = |source| Error::Pool { act: "open", pool: spec.name.clone(), source };
        if let Some(disk) = &spec.disk {
            self.mount(spec, disk)?;
        }
        let root = match HostDir::open(&spec.source) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(gone());
            }
            other => other.map_err(wrong)?,
        };
        let mark = match root.read(MARK, MAX_MARK) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(gone()),
            other => String::from_utf8_lossy(&other.map_err(wrong)?).into_owned(),
        };
        let found = mark.lines().find_map(|line| line.strip_prefix("driver: ")).unwrap_or_default();
        if found != spec.driver.name() {
            return Err(Error::WrongDriver {
                pool: spec.name.clone(),
                found: found.to_owned(),
                wanted: spec.driver.name(),
            });
        }
        for directory in DIRECTORIES {
            // An earlier version knew fewer of them.
            root.ensure_dir(directory, 0o700).map_err(wrong)?;
        }
        let pool = Arc::new(Pool::new(&spec.name, spec.driver, root, spec.disk.is_some()));
        self.lock().insert(spec.name.clone(), pool.clone());
        Ok(pool)
    }

    /// Closes all pools and unmounts their disks; they cannot be opened again. Gives those that are still in use.
    pub fn close(&self) -> Vec<Error> {
        let mut mounting = self.mounting.lock().unwrap_or_else(PoisonError::into_inner);
        mounting.closed = true;
        let pools = std::mem::take(&mut *self.lock());
        let mounted: Vec<String> =
            pools.into_iter().filter(|(_, pool)| pool.is_mounted()).map(|(name, _)| name).collect();
        let unmount = |name: &String| {
            let unmounted = self.disks.unmount(&self.default_source(name));
            unmounted.err().map(|source| Error::Disk { act: "unmount", path: self.disks.file(name), source })
        };
        mounted.iter().filter_map(unmount).collect()
    }

    /// Mounts the disk of a pool, if it is not, and finishes what a growing left undone.
    fn mount(&self, spec: &PoolSpec, disk: &DiskSpec) -> Result<()> {
        let mounting = self.mounting.lock().unwrap_or_else(PoisonError::into_inner);
        // A disk that cannot tell is away as well.
        let there =
            matches!((self.disks.exists(&spec.name), self.pools.exists(&spec.name)), (Ok(true), Ok(true)));
        if mounting.closed || !there {
            return Err(Error::Unavailable { pool: spec.name.clone(), path: self.disks.file(&spec.name) });
        }
        self.disks.mount(&spec.name, disk, &spec.source)?;
        self.disks.grow(&spec.name, disk, &spec.source)
    }

    /// Gives the disk of an open pool the size the spec says. What is cut short is finished when the disk is mounted
    /// the next time.
    ///
    /// # Errors
    /// When that is less than it has, or the disk fails.
    pub fn grow_pool(&self, spec: &PoolSpec) -> Result<()> {
        let Some(disk) = &spec.disk else { return Ok(()) };
        self.check_growth(spec)?;
        self.open_pool(spec)?;
        self.disks.grow(&spec.name, disk, &spec.source)
    }

    /// Whether the disk of a pool can have the size the spec says.
    ///
    /// # Errors
    /// When that is less than it has.
    pub fn check_growth(&self, spec: &PoolSpec) -> Result<()> {
        match (&spec.disk, self.disks.size(&spec.name)) {
            (Some(disk), Some(has)) if disk.size < has => {
                Err(Error::DiskSize { size: disk.size, least: has })
            }
            _ => Ok(()),
        }
    }

    /// An open pool.
    ///
    /// # Errors
    /// When none of that name is open.
    pub fn pool(&self, name: &str) -> Result<Arc<Pool>> {
        self.lock().get(name).cloned().ok_or_else(|| Error::NoPool { pool: name.to_owned() })
    }

    /// Deletes a pool without volumes, its images with it; one already gone is success. A directory that was
    /// given stays, empty.
    ///
    /// # Errors
    /// When it holds a volume, or cannot be removed.
    pub fn delete_pool(&self, spec: &PoolSpec) -> Result<()> {
        check(&spec.name)?;
        match self.open_pool(spec) {
            Ok(pool) => {
                if let Some(volume) = pool.list()?.first() {
                    return Err(Error::PoolInUse { pool: spec.name.clone(), volume: volume.to_string() });
                }
            }
            Err(Error::Unavailable { .. }) => {}
            Err(error) => return Err(error),
        }
        self.lock().remove(&spec.name);
        dismantle(self.pools.path(), &self.disks, &spec.name, &spec.source).map_err(|source| Error::Pool {
            act: "delete",
            pool: spec.name.clone(),
            source,
        })
    }

    /// Removes what lies in the directory of pools under a name that nobody knows. Nothing there is success.
    ///
    /// # Errors
    /// When it holds a volume, or cannot be removed.
    pub fn delete_stray(&self, name: &str) -> Result<()> {
        check(name)?;
        let wrong = |source| Error::Pool { act: "delete", pool: name.to_owned(), source };
        let source = match rustix::fs::readlinkat(&self.pools, name, Vec::new()) {
            Ok(target) => PathBuf::from(target.to_string_lossy().into_owned()),
            Err(_) => self.default_source(name),
        };
        if self.disks.exists(name).map_err(wrong)? && self.pools.exists(name).map_err(wrong)? {
            // One that was never formatted cannot be mounted, and holds nothing.
            let any = DiskSpec { size: 0, options: Vec::new() };
            let _alone = self.mounting.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = self.disks.mount(name, &any, &source);
        }
        for kind in ["containers", "custom"] {
            let held =
                HostDir::open(&source).and_then(|root| root.open_dir(kind)?.list()).unwrap_or_default();
            if let Some(volume) = held.first() {
                let volume = format!("{kind}/{}", volume.name);
                return Err(Error::PoolInUse { pool: name.to_owned(), volume });
            }
        }
        self.lock().remove(name);
        dismantle(self.pools.path(), &self.disks, name, &source).map_err(wrong)
    }

    /// Names in the directory of pools, whether a database knows them or not.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names_on_disk(&self) -> Result<Vec<String>> {
        let wrong = |source| Error::Pool { act: "list", pool: "*".to_owned(), source };
        let mut names: Vec<String> =
            self.pools.list().map_err(wrong)?.into_iter().map(|entry| entry.name).collect();
        names.extend(self.disks.names().map_err(wrong)?);
        names.retain(|name| check(name).is_ok());
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pool>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a directory somewhere else that is to become a pool.
fn adopt(source: &Path) -> Result<HostDir> {
    let refused = |why| Error::Source { path: source.to_owned(), why };
    if !source.is_absolute() {
        return Err(refused("the path is not absolute"));
    }
    let root = HostDir::open(source).map_err(|_| refused("it is not a directory that can be opened"))?;
    let entries = root.list().map_err(|_| refused("it cannot be read"))?;
    if entries.iter().any(|entry| entry.name == MARK) {
        return Err(Error::PoolExists { path: source.to_owned() });
    }
    if entries.iter().any(|entry| entry.name != "lost+found") {
        return Err(refused("it is not empty"));
    }
    Ok(root)
}

/// Takes a pool's directories away, its disk, and its name. The mark goes first: what has none is no pool.
fn dismantle(pools: &Path, disks: &Disks, name: &str, source: &Path) -> io::Result<()> {
    let has_disk = disks.exists(name)?;
    match HostDir::open(source) {
        Ok(root) => {
            fault::behind("mark of the pool")?;
            root.remove_file(MARK)?;
            fault::behind("directories of the pool")?;
            // All that is on a disk goes with it.
            for directory in DIRECTORIES.iter().filter(|_| !has_disk) {
                root.remove_tree(directory)?;
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    if has_disk {
        disks.remove(name, source)?;
    }
    fault::behind("name of the pool")?;
    let pools = HostDir::open(pools)?;
    // Its own directory, or the link to the one that was given: remove_tree follows no link.
    pools.remove_tree(name)?;
    pools.sync()
}
