//! Backups: an instance with its snapshots and all that is known of it, written as one tarball in Incus's form.

mod document;
mod kept;

use std::io::Write;
use std::sync::Arc;

use cabin_api::backup::InstanceBackupsPost;
use cabin_images::{BackupWriter, Compression, Metadata, Place, TreeSource};
use cabin_storage::{Activity, Layers, Origin, Pool, VolumeName};
use cabin_store::rows;
use cabin_undo::atomically;

use super::snapshot::{activity, held};
use super::{intent, load, turn};
use crate::busy::Turn;
use crate::{Error, Host, storage};

pub(crate) use document::metadata;
pub use kept::{
    backup, backups, check_new_backup, check_rename_backup, create_backup, delete_backup, open_backup,
    rename_backup,
};
pub(super) use kept::{delete_expired, remove_file, rows_of};
pub(crate) use kept::{strays, sweep};

/// How backups are compressed when nothing is said.
const COMPRESSION: Compression = Compression::Zstd;

/// An export that can begin: the instance's turn is held, and a running one has been copied.
pub struct Export {
    index: String,
    config: String,
    trees: Vec<(Place, TreeSource)>,
    metadata: Metadata,
    compression: Compression,
    // Goes before the turn: its name is the instance's to give.
    _copy: Option<Copy>,
    turn: Turn,
}

/// The copy of a running instance's tree, as long as it is read.
pub(super) struct Copy {
    pool: Arc<Pool>,
    volume: VolumeName,
}

impl Copy {
    /// What it is in its pool.
    pub(super) fn volume(&self) -> &VolumeName {
        &self.volume
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = self.pool.delete(&self.volume).map_err(Error::from) {
            // The next start of the daemon removes it.
            let volume = self.volume.to_string();
            tracing::warn!(volume, error = %error.report(), "the copy made for an export cannot be removed");
        }
    }
}

/// The compression of that name; empty is this server's choice.
///
/// # Errors
/// For every other name.
pub fn compression(name: &str) -> Result<Compression, Error> {
    if name.is_empty() {
        return Ok(COMPRESSION);
    }
    Compression::from_name(name).ok_or_else(|| {
        let name: String = name.chars().take(40).collect::<String>().escape_debug().to_string();
        Error::invalid(format!("`{name}` is no compression: use none, gzip, xz or zstd"))
    })
}

/// Refuses what this version does not do.
///
/// # Errors
/// For a target elsewhere, a form of the storage driver's own, or an unknown compression.
pub fn check_export(post: &InstanceBackupsPost) -> Result<(), Error> {
    if post.target.is_some() {
        let reason = "this version sends backups to who asks for them";
        return Err(Error::Unsupported { what: "a backup to another server".to_owned(), reason });
    }
    if post.optimized_storage {
        let reason = "this version writes trees of files, which every server and storage driver can read";
        return Err(Error::Unsupported {
            what: "a backup in the storage driver's own form".to_owned(),
            reason,
        });
    }
    compression(&post.compression_algorithm).map(drop)
}

/// Prepares an export. A running instance stands still for the moment in which what it changed is copied.
///
/// # Errors
/// When there is no such instance, or the host refuses.
pub fn export(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    post: &InstanceBackupsPost,
) -> Result<Export, Error> {
    check_export(post)?;
    let turn = turn(host, project, name, "export")?;
    let row = load(host, project, name)?.row;
    let templates = host.store().rows::<rows::Templates>().get(project, name)?;
    let templates = templates.map(|found| found.row.templates).unwrap_or_default();
    let document =
        document::document(host, project, &row, name, !(post.instance_only || post.container_only))?;
    let pool = storage::pool(host, &row.pool)?;
    let volume = VolumeName::container(name)?;
    let mut trees = Vec::new();
    // In the order Incus has them.
    for snapshot in document.names() {
        let layers = pool.snapshot_layers(&volume, snapshot)?;
        trees.push((Place::Snapshot(snapshot.to_owned()), source(layers)));
    }
    let copy = match activity(host, name) {
        Activity::Running => Some(copied(host, project, name, &pool, &volume)?),
        Activity::Stopped => None,
    };
    let own = pool.layers(copy.as_ref().map_or(&volume, |copy| &copy.volume))?;
    trees.push((Place::Container, source(own)));
    Ok(Export {
        index: document.index()?,
        config: document.render()?,
        trees,
        metadata: metadata(&row, templates, document::seconds(&row.created_at)),
        compression: compression(&post.compression_algorithm)?,
        _copy: copy,
        turn,
    })
}

/// Copies the tree of a running instance. A crash leaves a volume that no row has.
pub(super) fn copied(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    pool: &Arc<Pool>,
    volume: &VolumeName,
) -> Result<Copy, Error> {
    // No instance's name holds a dot.
    let copy = VolumeName::container(&format!("{name}.export"))?;
    pool.delete(&copy)?;
    atomically(|undo| -> Result<(), Error> {
        let origin = Origin::Volume(volume, Activity::Running);
        let (staged, _) = held(host, project, name, undo, |undo| Ok(pool.stage_copy(origin, &copy, undo)?))?;
        staged.show(undo)?;
        intent::forget(host, project, name)
    })?;
    Ok(Copy { pool: pool.clone(), volume: copy })
}

/// Where a tree is to be read from.
pub(crate) fn source(layers: Layers) -> TreeSource {
    match layers {
        Layers::Dir { path } => TreeSource::Plain(path),
        Layers::Overlay { lowers, state } => {
            let mut all = vec![state.join(UPPER)];
            all.extend(lowers);
            TreeSource::Overlay(all)
        }
    }
}

/// The writable layer in the directory of an overlay's state.
const UPPER: &str = "u";

impl Export {
    /// Writes the backup; the instance's turn is given back with what comes back.
    ///
    /// # Errors
    /// When a tree cannot be read, or `out` takes no more; then what was written so far is worth nothing.
    pub fn write(self, out: impl Write) -> Result<Turn, Error> {
        let made_at = self.metadata.creation_date;
        let mut backup = BackupWriter::new(out, self.compression, &self.index, made_at)?;
        for (place, tree) in &self.trees {
            backup.tree(place, &self.config, &self.metadata, tree)?;
        }
        backup.finish()?;
        Ok(self.turn)
    }

    /// The usual ending of the file's name.
    #[must_use]
    pub fn extension(&self) -> &'static str {
        self.compression.extension()
    }
}
