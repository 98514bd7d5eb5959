//! Images that were built before, by what they were built from.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cabin_sys::dir::HostDir;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::build::{Built, Options};
use crate::definition::Definition;
use crate::error::{Error, Result, io};

/// Raise it when the same definition would give another image.
const VERSION: &str = "1";

/// What is remembered beside the files.
#[derive(Serialize, Deserialize)]
struct Memory {
    meta: String,
    rootfs: Option<String>,
    alias: String,
    expires: i64,
}

/// One place of the cache, locked against every other builder.
pub struct Place {
    dir: HostDir,
    root: HostDir,
    key: String,
    name: String,
    _lock: File,
}

impl Place {
    /// Finds the place for an image and waits until nobody else builds it.
    ///
    /// # Errors
    /// As the files' calls.
    pub fn lock(cache: &Path, definition: &Definition, options: &Options) -> Result<Place> {
        let root = HostDir::ensure(cache, 0o755).map_err(io("make", cache))?;
        sweep(&root)?;
        let mut definition = definition.clone();
        definition.image.serial.clear();
        let told = |source| Error::Remember { name: definition.image.distribution.clone(), source };
        let text = serde_json::to_string(&definition).map_err(told)?;
        let asked = format!("{VERSION}\n{:?}\n{:?}\n{text}", options.layout, options.compression);
        let image = &definition.image;
        let hash = hex::encode(Sha256::digest(asked.as_bytes()));
        let key = format!("{}-{}-{}-{}", image.distribution, image.release, image.variant, &hash[..16]);
        let lock_name = format!("{key}.lock");
        let lock = root.append_file(&lock_name, 0o600).map_err(io("make", cache.join(&lock_name)))?;
        lock.lock().map_err(io("lock", cache.join(&lock_name)))?;
        let dir = root.ensure_dir(&key, 0o755).map_err(io("make", cache.join(&key)))?;
        Ok(Place { dir, root, name: image.distribution.clone(), key, _lock: lock })
    }

    /// An empty directory to build in.
    ///
    /// # Errors
    /// As the files' calls.
    pub fn staging(&self) -> Result<Staging<'_>> {
        let name = format!("staging-{}", std::process::id());
        self.root.remove_tree(&name).map_err(io("remove", self.root.path().join(&name)))?;
        let dir = self.root.create_dir(&name, 0o755).map_err(io("make", self.root.path().join(&name)))?;
        Ok(Staging { root: &self.root, name, dir })
    }

    /// The files of a build that is still good at `now`, put into `out`.
    ///
    /// # Errors
    /// When they are there but cannot be copied.
    pub fn recall(&self, now: i64, out: &Path) -> Result<Option<Built>> {
        let Ok(text) = self.dir.read("memory.json", 64 * 1024) else { return Ok(None) };
        let Ok(memory) = serde_json::from_slice::<Memory>(&text) else { return Ok(None) };
        let there = |file: &String| matches!(self.dir.exists(file), Ok(true));
        let files_there = there(&memory.meta) && memory.rootfs.iter().all(there);
        if memory.expires <= now || !files_there {
            return Ok(None);
        }
        let built = Built {
            meta: self.hand_out(&memory.meta, out)?,
            rootfs: memory.rootfs.as_deref().map(|file| self.hand_out(file, out)).transpose()?,
            alias: memory.alias,
            cached: true,
        };
        Ok(Some(built))
    }

    /// Takes the files of a build in.
    ///
    /// # Errors
    /// As the files' calls.
    pub fn remember(
        &self,
        staging: &Staging<'_>,
        meta: &str,
        rootfs: Option<&str>,
        alias: &str,
        expires: i64,
    ) -> Result<()> {
        for file in [Some(meta), rootfs].into_iter().flatten() {
            self.dir.remove_file(file).map_err(io("remove", self.dir.path().join(file)))?;
            self.root
                .rename(&format!("{}/{file}", staging.name), &format!("{}/{file}", self.key))
                .map_err(io("keep", staging.dir.path().join(file)))?;
        }
        let memory = Memory {
            meta: meta.to_owned(),
            rootfs: rootfs.map(str::to_owned),
            alias: alias.to_owned(),
            expires,
        };
        let text = serde_json::to_vec(&memory)
            .map_err(|source| Error::Remember { name: self.name.clone(), source })?;
        self.dir
            .replace("memory.json", &text, 0o644)
            .map_err(io("write", self.dir.path().join("memory.json")))
    }

    /// Puts one file into `out`: as a link where it can be, so that nothing is written twice.
    fn hand_out(&self, file: &str, out: &Path) -> Result<PathBuf> {
        let (from, to) = (self.dir.path().join(file), out.join(file));
        let (dir, fresh) = (HostDir::open(out).map_err(io("open", out))?, format!(".{file}.new"));
        dir.remove_file(&fresh).map_err(io("remove", out.join(&fresh)))?;
        if fs::hard_link(&from, out.join(&fresh)).is_err() {
            fs::copy(&from, out.join(&fresh)).map_err(io("copy", &from))?;
        }
        // Renamed over the old one, so that whoever looks always finds one or the other. Two links to one file
        // are left both by rename(2): the second removal is for them.
        fs::rename(out.join(&fresh), &to).map_err(io("replace", &to))?;
        dir.remove_file(&fresh).map_err(io("remove", out.join(&fresh)))?;
        Ok(to)
    }
}

/// Removes what builders left that were killed.
fn sweep(root: &HostDir) -> Result<()> {
    for entry in root.list().map_err(io("list", root.path()))? {
        let Some(builder) = entry.name.strip_prefix("staging-") else { continue };
        if !Path::new("/proc").join(builder).exists() {
            root.remove_tree(&entry.name).map_err(io("remove", root.path().join(&entry.name)))?;
        }
    }
    Ok(())
}

/// A directory to build in.
pub struct Staging<'a> {
    root: &'a HostDir,
    name: String,
    /// The directory.
    pub dir: HostDir,
}

impl Staging<'_> {
    /// Removes it.
    ///
    /// # Errors
    /// As the files' calls.
    pub fn destroy(self) -> Result<()> {
        self.root.remove_tree(&self.name).map_err(io("remove", self.dir.path()))
    }
}
