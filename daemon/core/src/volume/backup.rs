//! Backups of volumes: one with its snapshots and all that is known of it, written as one tarball in Incus's form.

use std::io::Write;
use std::sync::Arc;

use cabin_api::backup::InstanceBackupsPost;
use cabin_api::storage::Volume;
use cabin_api::volume::{VolumeBackupsPost, VolumeSnapshot};
use cabin_images::{BackupWriter, Compression, Place, TreeSource};
use cabin_storage::{Activity, Origin, Pool, VolumeName};
use cabin_undo::atomically;
use jiff::Timestamp;
use serde::Serialize;

use super::snapshot::{rows_of, snapshots};
use super::{get, turn};
use crate::busy::Turn;
use crate::instance::{check_export, compression, source};
use crate::{Error, Host, storage};

#[derive(Serialize)]
struct Index<'a> {
    name: &'a str,
    backend: &'a str,
    pool: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    snapshots: Vec<&'a str>,
    optimized: bool,
    optimized_header: bool,
    #[serde(rename = "type")]
    kind: &'a str,
    config: Document,
}

/// Everything the server knows of the volume.
#[derive(Serialize)]
struct Document {
    volume: Volume,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volume_snapshots: Vec<VolumeSnapshot>,
}

/// An export that can begin: the volume's turn is held, and one that somebody has attached has been copied.
pub struct Export {
    index: String,
    made_at: i64,
    trees: Vec<(Place, TreeSource)>,
    compression: Compression,
    // Goes before the turn: its name is the volume's to give.
    _copy: Option<Copy>,
    turn: Turn,
}

/// The copy of a volume, as long as it is read.
struct Copy {
    pool: Arc<Pool>,
    volume: VolumeName,
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

/// Refuses what this version does not do.
///
/// # Errors
/// As for instances.
pub fn check_new_export(post: &VolumeBackupsPost) -> Result<(), Error> {
    if post.optimized_storage {
        let what = "a backup of a volume in the storage driver's own form".to_owned();
        let reason = "volumes are written as trees of files, which every server and storage driver can read";
        return Err(Error::Unsupported { what, reason });
    }
    check_export(&InstanceBackupsPost {
        compression_algorithm: post.compression_algorithm.clone(),
        target: post.target.clone(),
        ..InstanceBackupsPost::default()
    })
}

/// Prepares an export. What an instance has attached is copied first, so that nobody writes in what is read.
///
/// # Errors
/// When there is no such volume, or the host refuses.
pub fn export(
    host: &Arc<Host>,
    project: &str,
    pool: &str,
    volume: &str,
    post: &VolumeBackupsPost,
) -> Result<Export, Error> {
    check_new_export(post)?;
    let turn = turn(host, project, pool, volume, "export")?;
    let shown = get(host, project, pool, volume)?;
    let (disk, name) = (storage::pool(host, pool)?, VolumeName::custom(volume)?);
    let copy = if shown.used_by.is_empty() { None } else { Some(copied(&disk, &name)?) };
    let mut all = Vec::new();
    let mut trees = Vec::new();
    if !post.volume_only {
        all = snapshots(host, project, pool, volume)?;
        for snapshot in rows_of(host, project, pool, volume)? {
            let layers = disk.snapshot_layers(&name, &snapshot.name)?;
            trees.push((Place::VolumeSnapshot(snapshot.name), source(layers)));
        }
    }
    trees.push((Place::Volume, source(disk.layers(copy.as_ref().map_or(&name, |copy| &copy.volume))?)));
    let made_at = shown.created_at.parse::<Timestamp>().unwrap_or_else(|_| Timestamp::now()).as_second();
    Ok(Export {
        index: index(pool, disk.driver().name(), shown, all)?,
        made_at,
        trees,
        compression: compression(&post.compression_algorithm)?,
        _copy: copy,
        turn,
    })
}

fn index(
    pool: &str,
    backend: &str,
    mut volume: Volume,
    mut snapshots: Vec<VolumeSnapshot>,
) -> Result<String, Error> {
    // Who uses it is nobody's business who gets the backup.
    volume.used_by.clear();
    for snapshot in &mut snapshots {
        if let Some((_, name)) = snapshot.name.split_once('/') {
            snapshot.name = name.to_owned();
        }
        // LXD 5 believes that every snapshot has a time here, and crashes without.
        snapshot.expires_at.get_or_insert_with(|| cabin_api::ZERO_TIME.to_owned());
    }
    let (name, names) = (volume.name.clone(), snapshots.iter().map(|it| it.name.clone()).collect::<Vec<_>>());
    let index = Index {
        name: &name,
        backend,
        pool,
        snapshots: names.iter().map(String::as_str).collect(),
        optimized: false,
        optimized_header: false,
        kind: "custom",
        config: Document { volume, volume_snapshots: snapshots },
    };
    serde_yaml::to_string(&index).map_err(|source| Error::Document { source })
}

/// Copies a volume that somebody may be writing in. A crash leaves a volume that no row has.
fn copied(pool: &Arc<Pool>, volume: &VolumeName) -> Result<Copy, Error> {
    // No volume's name ends like this.
    let copy = VolumeName::custom(&format!("{}.export-", volume.name()))?;
    pool.delete(&copy)?;
    atomically(|undo| -> Result<(), Error> {
        let mut staged = pool.stage_copy(Origin::Volume(volume, Activity::Running), &copy, undo)?;
        staged.catch_up()?;
        Ok(staged.show(undo)?)
    })?;
    Ok(Copy { pool: pool.clone(), volume: copy })
}

impl Export {
    /// Writes the backup; the volume's turn is given back with what comes back.
    ///
    /// # Errors
    /// When a tree cannot be read, or `out` takes no more; then what was written so far is worth nothing.
    pub fn write(self, out: impl Write) -> Result<Turn, Error> {
        let mut backup = BackupWriter::new(out, self.compression, &self.index, self.made_at)?;
        for (place, tree) in &self.trees {
            backup.volume(place, tree)?;
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
