//! Frozen layers: what a volume held when it was first shared, read-only from then on and stood on by all that
//! share it.
//!
//! `layers/ID` is the very directory that was the volume; `layers/ID.ref` is a file that says ID. Whatever stands
//! on the layer (a volume, a snapshot, another layer) has a hard link to that file, named `below`. So the
//! filesystem itself counts who needs a layer, whatever is renamed, removed or half made, and a layer whose file
//! has only one name left goes.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cabin_sys::dir::{EntryKind, HostDir};
use cabin_undo::{Undo, fault};
use rustix::fs::{self as rfs, AtFlags};

use crate::driver::{BELOW, DriverKind, IMAGE, RESTORED};
use crate::error::{Error, Result};
use crate::merge::merge;
use crate::name::check;
use crate::usage;

use super::{DELETING, Pool, STAGING};

/// Where frozen layers lie in a pool.
pub(crate) const LAYERS: &str = "layers";
/// How many layers a volume may stand on, its image not counted. Each costs a lookup of whatever is not there, and
/// the kernel takes their list as a string of 255 bytes.
pub(crate) const MAX_LAYERS: usize = 20;

/// The ending of the file that says a layer's name.
const REF: &str = ".ref";
/// The file in a layer that says how much it takes, once that is known.
const SIZE: &str = "size";
/// The longest of these files, in bytes.
const MAX_REF: u64 = 64;

pub(super) fn place_of(layer: &str) -> String {
    format!("{LAYERS}/{layer}")
}

fn ref_of(layer: &str) -> String {
    format!("{LAYERS}/{layer}{REF}")
}

impl Pool {
    /// Freezes what the volume or snapshot at `place` holds: it becomes a layer, and a volume that stands on it
    /// takes its place, in one act. Nobody may be using it. False when it cannot be shared, and must be copied.
    ///
    /// A volume that has nothing of its own stays as it is.
    pub(super) fn freeze(&self, place: &str, undo: &mut Undo) -> Result<bool> {
        let kind = self.inner.kind;
        let wrong = |source| self.layer_error("freeze", place, source);
        let volume = self.inner.root.open_dir(place).map_err(wrong)?;
        if !kind.driver().shares(&volume).map_err(wrong)? {
            return Ok(false);
        }
        if kind.driver().is_bare(&volume).map_err(wrong)? {
            return Ok(true);
        }
        let chain = self.chain(place)?;
        if chain.len() >= MAX_LAYERS {
            return self.fold(place, &volume, chain, undo);
        }
        let layer = uuid::Uuid::new_v4().to_string();
        let (pool, from, made) = (self.clone(), place.to_owned(), layer.clone());
        // Recorded first: what is made halfway is taken back as well.
        undo.push(format!("freeze {place}"), move || pool.thaw(&from, &made))?;
        let prepare = || -> io::Result<()> {
            self.create_ref(&layer)?;
            let made = self.inner.root.create_dir(&place_of(&layer), 0o700)?;
            self.prepare(&volume, &made, &layer)
        };
        prepare().map_err(wrong)?;
        fault::pass("layer prepared")?;
        // Before this the new directory is a stray: a layer that would stand on itself. After it, all is done.
        self.inner.root.exchange(&place_of(&layer), place).map_err(wrong)?;
        fault::pass("layer frozen")?;
        Ok(true)
    }

    /// What it says may come to disk later than its name: [`Pool::sweep_layers`] puts that right.
    fn create_ref(&self, layer: &str) -> io::Result<()> {
        self.inner.root.create_file(&ref_of(layer), 0o600)?.write_all(layer.as_bytes())
    }

    /// Fills the new directory `made` so that it can take the place of `volume` and stands on the layer.
    fn prepare(&self, volume: &HostDir, made: &HostDir, layer: &str) -> io::Result<()> {
        let root = &self.inner.root;
        let driver = self.inner.kind.driver();
        driver.branch(volume, made)?;
        if let Some(most) = driver.limit_of(volume)? {
            driver.limit(made, Some(most))?;
        }
        for link in [IMAGE, RESTORED] {
            match rfs::readlinkat(volume, link, Vec::new()) {
                Ok(target) => made.symlink(Path::new(OsStr::from_bytes(target.as_bytes())), link)?,
                Err(rustix::io::Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.link_ref(layer, made)?;
        // What a guest wrote and never synced becomes the layer's, and that is promised to be on disk.
        root.sync_filesystem()
    }

    /// As [`Pool::freeze`], for a volume that stands on as many layers as there may be: the topmost are put together
    /// with what it holds into one layer. If those are nobody else's, nothing is copied; else the upper half is.
    fn fold(&self, place: &str, volume: &HostDir, chain: Vec<String>, undo: &mut Undo) -> Result<bool> {
        let wrong = |source| self.layer_error("fold", place, source);
        let (root, driver) = (&self.inner.root, self.inner.kind.driver());
        let layer = uuid::Uuid::new_v4().to_string();
        let staging = format!("{LAYERS}/{STAGING}{layer}");
        let (pool, made, from) = (self.clone(), layer.clone(), place.to_owned());
        undo.push(format!("fold {place}"), move || pool.unfold(&from, &made))?;
        // Nobody else comes to stand on what is put together without being copied.
        let mut decided = Some(self.lock_layers());
        let mut alone = 0;
        for layer in &chain {
            if self.standing(layer).map_err(wrong)? != Some(1) {
                break;
            }
            alone += 1;
        }
        if alone == 0 {
            decided = None;
        }
        let taken = if alone > 0 { alone } else { MAX_LAYERS / 2 };
        let own = driver.own(volume).map_err(wrong)?;
        let mut trees = vec![volume.open_dir(own).map_err(wrong)?];
        for layer in self.layer_trees(place)?.iter().take(taken) {
            trees.push(root.open_dir(layer).map_err(wrong)?);
        }
        let fill = || -> io::Result<bool> {
            self.create_ref(&layer)?;
            let dir = root.create_dir(&place_of(&layer), 0o700)?;
            let merged = dir.create_dir(own, 0o700)?;
            if !merge(&trees, 1 + alone, &merged)? {
                return Ok(false);
            }
            if let Some(lower) = chain.get(taken) {
                self.link_ref(lower, &dir)?;
            }
            let made = root.create_dir(&staging, 0o700)?;
            self.prepare(volume, &made, &layer)?;
            Ok(true)
        };
        if !fill().map_err(wrong)? {
            self.unfold(place, &layer)?;
            return Ok(false);
        }
        fault::pass("layers folded")?;
        root.exchange(&staging, place).map_err(wrong)?;
        drop(decided);
        fault::reach("folded layer in place");
        self.inner.discard(&staging).map_err(wrong)?;
        self.release(chain.into_iter().next())?;
        Ok(true)
    }

    /// Takes away what folding made, unless it is in place by now: it shows the same. What it replaced goes in any case.
    fn unfold(&self, place: &str, layer: &str) -> Result<()> {
        let wrong = |source| self.layer_error("take back", layer, source);
        self.inner.discard(&format!("{LAYERS}/{STAGING}{layer}")).map_err(wrong)?;
        if self.below(place)?.as_deref() == Some(layer) {
            return Ok(());
        }
        self.inner.discard(&place_of(layer)).map_err(wrong)?;
        self.inner.root.remove_file(&ref_of(layer)).map_err(wrong)
    }

    /// The inverse of freezing, as long as nobody else stands on the layer and nothing was written above it.
    fn thaw(&self, place: &str, layer: &str) -> Result<()> {
        let wrong = |source| self.layer_error("take back", layer, source);
        let root = &self.inner.root;
        let frozen = self.below(place)?.as_deref() == Some(layer);
        if frozen {
            let volume = root.open_dir(place).map_err(wrong)?;
            let alone = self.standing(layer).map_err(wrong)? == Some(1);
            if !alone || !self.inner.kind.driver().is_bare(&volume).map_err(wrong)? {
                return Ok(());
            }
            // It is going to change again.
            root.remove_file(&format!("{}/{SIZE}", place_of(layer))).map_err(wrong)?;
            root.exchange(&place_of(layer), place).map_err(wrong)?;
        }
        self.inner.discard(&place_of(layer)).map_err(wrong)?;
        root.remove_file(&ref_of(layer)).map_err(wrong)
    }

    /// Makes `to` stand on what `from` stands on.
    pub(super) fn stand_alike(&self, from: &HostDir, to: &HostDir) -> io::Result<()> {
        match rfs::linkat(from, BELOW, to, BELOW, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes `to` stand on a layer, and no more on what it stood on before; false when there is no such layer.
    pub(super) fn stand_on(&self, layer: &str, to: &HostDir) -> Result<bool> {
        let _decided = self.lock_layers();
        self.stand_on_decided(layer, to).map_err(|source| self.layer_error("stand on", layer, source))
    }

    fn stand_on_decided(&self, layer: &str, to: &HostDir) -> io::Result<bool> {
        if !self.inner.root.exists(&place_of(layer))? || self.standing(layer)?.is_none() {
            return Ok(false);
        }
        to.remove_file(BELOW)?;
        self.link_ref(layer, to)?;
        Ok(true)
    }

    /// Lets what is in a directory of layers become the layer of that name, and `to` stand on it as
    /// [`Pool::stand_on`] does. When there is that layer by now it is the same, and the other one is not needed.
    ///
    /// Whoever finds a layer of that name later takes it for whole, so all of it is on disk before it has the name.
    pub(super) fn place_layer(&self, made: &str, layer: &str, to: &HostDir) -> io::Result<()> {
        let root = &self.inner.root;
        root.sync_filesystem()?;
        {
            let _decided = self.lock_layers();
            if !self.stand_on_decided(layer, to)? {
                // That of one that went may be left.
                root.remove_file(&ref_of(layer))?;
                self.create_ref(layer)?;
                root.rename(made, &place_of(layer))?;
                self.stand_on_decided(layer, to)?;
            }
        }
        self.inner.discard(made)
    }

    /// Makes `to`, which stands on nothing, stand on a layer.
    pub(super) fn link_ref(&self, layer: &str, to: &HostDir) -> io::Result<()> {
        let layers = self.inner.root.open_dir(LAYERS)?;
        Ok(rfs::linkat(&layers, format!("{layer}{REF}"), to, BELOW, AtFlags::empty())?)
    }

    /// The layer that what lies at `place` stands on, if any.
    pub(super) fn below(&self, place: &str) -> Result<Option<String>> {
        if self.inner.kind != DriverKind::Overlay {
            return Ok(None);
        }
        let said = match self.inner.root.read(&format!("{place}/{BELOW}"), MAX_REF) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| self.layer_error("find", place, source))?,
        };
        let said = String::from_utf8_lossy(&said).into_owned();
        check(&said)?;
        Ok(Some(said))
    }

    /// All layers that what lies at `place` stands on, topmost first.
    pub(super) fn chain(&self, place: &str) -> Result<Vec<String>> {
        let mut chain = Vec::new();
        let mut next = self.below(place)?;
        while let Some(layer) = next {
            next = self.below(&place_of(&layer))?;
            chain.push(layer);
            // Only somebody's hand could bring this about.
            if chain.len() > 4 * MAX_LAYERS {
                return Err(self.layer_error("find", place, io::ErrorKind::InvalidData.into()));
            }
        }
        Ok(chain)
    }

    /// The trees of these layers.
    pub(super) fn trees(&self, chain: &[String]) -> Result<Vec<PathBuf>> {
        let tree = |layer: &String| Ok(self.path().join(self.layer_tree(layer)?));
        chain.iter().map(tree).collect()
    }

    /// The trees of the layers that what lies at `place` stands on, topmost first, as paths in the pool.
    pub(super) fn layer_trees(&self, place: &str) -> Result<Vec<String>> {
        self.chain(place)?.iter().map(|layer| self.layer_tree(layer)).collect()
    }

    fn layer_tree(&self, layer: &str) -> Result<String> {
        let own =
            self.inner.root.open_dir(&place_of(layer)).and_then(|dir| self.inner.kind.driver().own(&dir));
        let own = own.map_err(|source| self.layer_error("open", layer, source))?;
        Ok(format!("{}/{own}", place_of(layer)))
    }

    /// Bytes a layer takes on disk. They are counted once: nothing changes in a layer.
    pub(super) fn layer_usage(&self, layer: &str) -> Result<u64> {
        let wrong = |source| self.layer_error("measure", layer, source);
        let dir = self.inner.root.open_dir(&place_of(layer)).map_err(wrong)?;
        let known = dir.read(SIZE, MAX_REF).ok().and_then(|text| String::from_utf8(text).ok()?.parse().ok());
        if let Some(bytes) = known {
            return Ok(bytes);
        }
        let own = self.inner.kind.driver().own(&dir).and_then(|own| dir.open_dir(own));
        let bytes = usage::bytes(own.map_err(wrong)?).map_err(wrong)?;
        // Where that cannot be kept, as when somebody else keeps it right now, it is counted again.
        let _ = dir.replace(SIZE, bytes.to_string().as_bytes(), 0o600);
        Ok(bytes)
    }

    /// How many stand on a layer; `None` when there is no such layer.
    fn standing(&self, layer: &str) -> io::Result<Option<u64>> {
        let layers = self.inner.root.open_dir(LAYERS)?;
        match rfs::statat(&layers, format!("{layer}{REF}"), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_nlink.saturating_sub(1))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes a layer that nobody stands on any more, and those below it that nobody stands on then.
    pub(super) fn release(&self, layer: Option<String>) -> Result<()> {
        let root = &self.inner.root;
        let mut next = layer;
        while let Some(layer) = next {
            let wrong = |source| self.layer_error("delete", &layer, source);
            // A layer of this name may come again while this one is still being removed.
            let condemned = format!("{LAYERS}/{DELETING}{layer}-{}", uuid::Uuid::new_v4());
            {
                let _decided = self.lock_layers();
                if self.standing(&layer).map_err(wrong)? != Some(0) {
                    break;
                }
                next = self.below(&place_of(&layer))?;
                fault::behind("name of a layer")?;
                match root.rename(&place_of(&layer), &condemned) {
                    // Somebody else is at it.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    other => other.map_err(wrong)?,
                }
                fault::behind("count of a layer")?;
                root.remove_file(&ref_of(&layer)).map_err(wrong)?;
            }
            self.inner.discard(&condemned).map_err(wrong)?;
        }
        Ok(())
    }

    /// As [`Pool::release`], for each of these, the topmost first, and whether the others are there or not.
    pub(super) fn release_each(&self, layers: &[String]) -> Result<()> {
        let mut done = Ok(());
        for layer in layers {
            done = done.and(self.release(Some(layer.clone())));
        }
        done
    }

    /// Removes the layers that nobody stands on, and what was to become one. Gives their names.
    pub(super) fn sweep_layers(&self) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        let root = &self.inner.root;
        let entries = root.open_dir(LAYERS).and_then(|dir| dir.list());
        let entries = entries.map_err(|source| self.pool_error("sweep", source))?;
        for layer in entries.iter().filter_map(|entry| entry.name.strip_suffix(REF)) {
            self.restore_ref(layer).map_err(|source| self.layer_error("put right", layer, source))?;
        }
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Dir) {
            let layer = &entry.name;
            let wrong = |source| self.layer_error("delete", layer, source);
            // A volume that never took its place.
            let stray = self.below(&place_of(layer))?.as_ref() == Some(layer);
            if stray || self.standing(layer).map_err(wrong)?.is_none() {
                self.inner.discard(&place_of(layer)).map_err(wrong)?;
                removed.push(place_of(layer));
            }
        }
        for layer in entries.iter().filter_map(|entry| entry.name.strip_suffix(REF)) {
            let wrong = |source| self.layer_error("delete", layer, source);
            // What was freed just now frees those below, whose turn is over or comes.
            if self.standing(layer).map_err(wrong)? == Some(0) {
                self.release(Some(layer.to_owned()))?;
                removed.push(ref_of(layer));
            }
        }
        Ok(removed)
    }

    /// Lets the file of a layer say its name, if the host went down before that was on disk. All that stand on the layer
    /// have the very file.
    fn restore_ref(&self, layer: &str) -> io::Result<()> {
        let file = ref_of(layer);
        if self.inner.root.read(&file, MAX_REF)? == layer.as_bytes() {
            return Ok(());
        }
        let mut file = self.inner.root.open_file_writable(&file)?;
        file.set_len(0)?;
        file.write_all(layer.as_bytes())?;
        file.sync_all()
    }

    pub(super) fn layer_error(&self, act: &'static str, layer: &str, source: io::Error) -> Error {
        Error::Layer { act, pool: self.name().to_owned(), layer: layer.to_owned(), source }
    }
}
