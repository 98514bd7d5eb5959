//! Backups: an instance with its snapshots and all that is known of it, written as one tarball in Incus's form.

mod document;
mod kept;

use std::io::Write;
use std::sync::Arc;

use cabin_api::backup::InstanceBackupsPost;
use cabin_images::{BackupWriter, Compression, Metadata};
use cabin_storage::{Activity, Origin, Pool, VolumeName};
use cabin_store::rows;
use cabin_undo::atomically;

use super::snapshot::{activity, held};
use super::{intent, load, turn};
use crate::backup::{Content, Copy, Form, check_sending, chosen_compression, compression};
use crate::busy::Turn;
use crate::{Error, Host, server, storage};

pub(crate) use document::metadata;
pub(crate) use kept::sweep;
pub(super) use kept::{all_rows, delete_expired, moved, remove_file, rendered, rows_of};
pub use kept::{
    backup, backups, check_new_backup, check_rename_backup, create_backup, delete_backup, open_backup,
    rename_backup,
};

/// An export that can begin: the instance's turn is held, and a running one has been copied.
pub struct Export {
    index: String,
    config: String,
    content: Content,
    metadata: Metadata,
    compression: Compression,
    // Goes before the turn: its name is the instance's to give.
    _copy: Option<Copy>,
    turn: Turn,
}

/// Refuses what this version does not do.
///
/// # Errors
/// For a target elsewhere or an unknown compression.
pub fn check_export(post: &InstanceBackupsPost) -> Result<(), Error> {
    if post.target.is_some() {
        let reason = "this version sends backups to who asks for them";
        return Err(Error::Unsupported { what: "a backup to another server".to_owned(), reason });
    }
    compression(&post.compression_algorithm).map(drop)
}

/// Refuses the own form of a storage driver that has none, and of what would not be whole in it.
///
/// # Errors
/// When it is wished for, and the pool's driver is not btrfs or there are subvolumes inside.
pub fn check_form(
    host: &Host,
    project: &str,
    instance: &str,
    post: &InstanceBackupsPost,
) -> Result<(), Error> {
    let pool = storage::pool(host, &load(host, project, instance)?.row.pool)?;
    if !post.optimized_storage {
        return Ok(());
    }
    let snapshots = !(post.instance_only || post.container_only);
    check_sending(&pool, &VolumeName::container(instance)?, snapshots)
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
    check_form(host, project, name, post)?;
    let turn = turn(host, project, name, "export")?;
    let row = load(host, project, name)?.row;
    let templates = host.store().rows::<rows::Templates>().get(project, name)?;
    let templates = templates.map(|found| found.row).unwrap_or_default();
    let document =
        document::document(host, project, &row, name, !(post.instance_only || post.container_only))?;
    let pool = storage::pool(host, &row.pool)?;
    let volume = VolumeName::container(name)?;
    let copy = match activity(host, name) {
        // What is sent is a subvolume that nobody may write in.
        _ if post.optimized_storage => Some(copied(host, project, name, &pool, &volume)?),
        Activity::Running => Some(copied(host, project, name, &pool, &volume)?),
        Activity::Stopped => None,
    };
    let own = copy.as_ref().map_or(&volume, Copy::volume);
    let snapshots: Vec<&str> = document.names().collect();
    Ok(Export {
        index: document.index(post.optimized_storage)?,
        config: document.render()?,
        content: Content::of(&pool, Form::of(post.optimized_storage), (&volume, own), &snapshots)?,
        metadata: metadata(&row, templates, document::seconds(&row.created_at)),
        compression: chosen_compression(host, server::BACKUPS_COMPRESSION, &post.compression_algorithm)?,
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
    Ok(Copy::new(pool, copy))
}

impl Export {
    /// Writes the backup; the instance's turn is given back with what comes back.
    ///
    /// # Errors
    /// When a tree cannot be read, or `out` takes no more; then what was written so far is worth nothing.
    pub fn write(self, out: impl Write) -> Result<Turn, Error> {
        let made_at = self.metadata.creation_date;
        let mut backup = BackupWriter::new(out, self.compression, &self.index, made_at)?;
        self.content.write(&mut backup, Some((&self.config, &self.metadata)))?;
        backup.finish()?;
        Ok(self.turn)
    }

    /// The usual ending of the file's name.
    #[must_use]
    pub fn extension(&self) -> &'static str {
        self.compression.extension()
    }
}
