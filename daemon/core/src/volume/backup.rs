//! Backups of volumes: one with its snapshots and all that is known of it, written as one tarball in Incus's form.

use std::io::Write;
use std::sync::Arc;

use cabin_api::backup::InstanceBackupsPost;
use cabin_api::storage::Volume;
use cabin_api::volume::{VolumeBackupsPost, VolumeSnapshot};
use cabin_images::{BackupWriter, Compression};
use cabin_storage::{Activity, Origin, Pool, VolumeName};
use cabin_undo::atomically;
use jiff::Timestamp;
use serde::Serialize;

use super::snapshot::{rows_of, snapshots};
use super::{get, turn};
use crate::backup::{Content, Copy, Form, check_sending, chosen_compression};
use crate::busy::Turn;
use crate::instance::check_export;
use crate::{Error, Host, server, storage};

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
    content: Content,
    compression: Compression,
    // Goes before the turn: its name is the volume's to give.
    _copy: Option<Copy>,
    turn: Turn,
}

/// Refuses what this version does not do.
///
/// # Errors
/// As for instances.
pub fn check_new_export(
    host: &Host,
    pool: &str,
    volume: &str,
    post: &VolumeBackupsPost,
) -> Result<(), Error> {
    if post.optimized_storage {
        check_sending(&*storage::pool(host, pool)?, &VolumeName::custom(volume)?, !post.volume_only)?;
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
    let turn = turn(host, project, pool, volume, "export")?;
    let shown = get(host, project, pool, volume)?;
    check_new_export(host, pool, volume, post)?;
    let (disk, name) = (storage::pool(host, pool)?, VolumeName::custom(volume)?);
    // What is sent is a subvolume that nobody may write in.
    let copy = match shown.used_by.is_empty() && !post.optimized_storage {
        true => None,
        false => Some(copied(&disk, &name)?),
    };
    let (mut all, mut rows) = (Vec::new(), Vec::new());
    if !post.volume_only {
        all = snapshots(host, project, pool, volume)?;
        rows = rows_of(host, project, pool, volume)?;
    }
    let names: Vec<&str> = rows.iter().map(|snapshot| snapshot.name.as_str()).collect();
    let own = copy.as_ref().map_or(&name, Copy::volume);
    let content = Content::of(&disk, Form::of(post.optimized_storage), (&name, own), &names)?;
    let made_at = shown.created_at.parse::<Timestamp>().unwrap_or_else(|_| Timestamp::now()).as_second();
    Ok(Export {
        index: index((pool, disk.driver().name()), post.optimized_storage, shown, all)?,
        made_at,
        content,
        compression: chosen_compression(host, server::BACKUPS_COMPRESSION, &post.compression_algorithm)?,
        _copy: copy,
        turn,
    })
}

fn index(
    (pool, backend): (&str, &str),
    optimized: bool,
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
        optimized,
        optimized_header: optimized,
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
    Ok(Copy::new(pool, copy))
}

impl Export {
    /// Writes the backup; the volume's turn is given back with what comes back.
    ///
    /// # Errors
    /// When a tree cannot be read, or `out` takes no more; then what was written so far is worth nothing.
    pub fn write(self, out: impl Write) -> Result<Turn, Error> {
        let mut backup = BackupWriter::new(out, self.compression, &self.index, self.made_at)?;
        self.content.write(&mut backup, None)?;
        backup.finish()?;
        Ok(self.turn)
    }

    /// The usual ending of the file's name.
    #[must_use]
    pub fn extension(&self) -> &'static str {
        self.compression.extension()
    }
}
