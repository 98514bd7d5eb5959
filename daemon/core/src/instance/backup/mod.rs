//! Backups: an instance with its snapshots and all that is known of it, written as one tarball in Incus's form.

mod document;
mod kept;

use std::io::Write;
use std::sync::Arc;

use cabin_api::backup::InstanceBackupsPost;
use cabin_images::{BackupWriter, Compression, Metadata, Place, StreamSource, TreeSource};
use cabin_storage::{Activity, Layers, Origin, Pool, VolumeName};
use cabin_store::rows;
use cabin_undo::atomically;

use super::snapshot::{activity, held};
use super::{intent, load, turn};
use crate::busy::Turn;
use crate::{Error, Host, storage};

pub(crate) use document::metadata;
pub(super) use kept::{all_rows, delete_expired, moved, remove_file, rendered, rows_of};
pub use kept::{
    backup, backups, check_new_backup, check_rename_backup, create_backup, delete_backup, open_backup,
    rename_backup,
};
pub(crate) use kept::{strays, sweep};

/// How backups and images are compressed when nothing is said: as Incus does (`backups.compression_algorithm`), for
/// its clients give the file a name that says so.
const COMPRESSION: Compression = Compression::Gzip;

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

/// In which form the files are written.
enum Content {
    /// Trees of files, which every server and driver can read.
    Trees(Vec<(Place, TreeSource)>),
    /// Streams of btrfs.
    Streams(Vec<StreamSource>),
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

/// The compression of that name; empty is this server's choice. Options of the program that Incus would run, such as
/// `gzip -9 --rsyncable`, are understood where they change nothing but size and speed, and left aside.
///
/// # Errors
/// For every other name and option.
pub fn compression(name: &str) -> Result<Compression, Error> {
    if name.is_empty() {
        return Ok(COMPRESSION);
    }
    let harmless = |option: &str| {
        let level = option.strip_prefix('-').is_some_and(|level| level.parse::<u8>().is_ok());
        level || matches!(option, "--rsyncable" | "--fast" | "--best")
    };
    let (program, options) = name.split_once(' ').unwrap_or((name, ""));
    let known = options.split_whitespace().all(harmless).then(|| Compression::from_name(program)).flatten();
    known.ok_or_else(|| {
        let name: String = name.chars().take(40).collect::<String>().escape_debug().to_string();
        Error::invalid(format!("`{name}` is no compression: use none, gzip, bzip2, xz or zstd, alone or with a level such as `-9`"))
    })
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

/// Refuses what cannot be sent as streams, or would not be whole then.
pub(crate) fn check_sending(pool: &Pool, volume: &VolumeName, snapshots: bool) -> Result<(), Error> {
    if !pool.has_subvolumes() {
        let what = format!("a backup in the own form of a storage driver, of pool `{}`,", pool.name());
        let reason = "only the driver `btrfs` has one; export it without `--optimized-storage`";
        return Err(Error::Unsupported { what, reason });
    }
    pool.check_sending(volume, None)?;
    let snapshots = if snapshots { pool.list_snapshots(volume)? } else { Vec::new() };
    snapshots.iter().try_for_each(|snapshot| Ok(pool.check_sending(volume, Some(snapshot)).map(drop)?))
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
    let templates = templates.map(|found| found.row.templates).unwrap_or_default();
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
    let own = copy.as_ref().map_or(&volume, |copy| &copy.volume);
    let snapshots: Vec<&str> = document.names().collect();
    let content = match post.optimized_storage {
        true => Content::Streams(streams(&pool, &volume, own, &snapshots)?),
        false => Content::Trees(trees(&pool, &volume, own, &snapshots)?),
    };
    Ok(Export {
        index: document.index(post.optimized_storage)?,
        config: document.render()?,
        content,
        metadata: metadata(&row, templates, document::seconds(&row.created_at)),
        compression: compression(&post.compression_algorithm)?,
        _copy: copy,
        turn,
    })
}

/// The trees of an instance, in the order Incus has them.
fn trees(
    pool: &Pool,
    volume: &VolumeName,
    own: &VolumeName,
    snapshots: &[&str],
) -> Result<Vec<(Place, TreeSource)>, Error> {
    let mut trees = Vec::new();
    for snapshot in snapshots {
        let layers = pool.snapshot_layers(volume, snapshot)?;
        trees.push((Place::Snapshot((*snapshot).to_owned()), source(layers)));
    }
    trees.push((Place::Container, source(pool.layers(own)?)));
    Ok(trees)
}

/// Its subvolumes, in the same order.
fn streams(
    pool: &Pool,
    volume: &VolumeName,
    own: &VolumeName,
    snapshots: &[&str],
) -> Result<Vec<StreamSource>, Error> {
    let mut sources = Vec::new();
    for snapshot in snapshots {
        let (place, tree) = (Place::Snapshot((*snapshot).to_owned()), pool.to_send(volume, Some(snapshot))?);
        sources.push(StreamSource { place, tree });
    }
    sources.push(StreamSource { place: Place::Container, tree: pool.to_send(own, None)? });
    Ok(sources)
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
        match &self.content {
            Content::Trees(trees) => {
                for (place, tree) in trees {
                    backup.tree(place, &self.config, &self.metadata, tree)?;
                }
            }
            Content::Streams(sources) => backup.streams(sources, &self.config, &self.metadata)?,
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
