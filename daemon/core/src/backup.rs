//! What backups of instances and of custom volumes have in common: the files of a volume with its snapshots, on their
//! way out and in, as trees or in the own form of btrfs.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use cabin_images::{
    BackupWriter, Compression, Metadata, Place, RestoreTo, ShiftRun, StreamSource, TreeSource,
};
use cabin_storage::{Destination, Layers, Pool, Staged, VolumeKind, VolumeName};
use cabin_undo::{Undo, fault};

use crate::{Error, Host, server, storage};

/// How backups and images are compressed when nothing is said, nor by the server's keys: as Incus does, for its clients
/// give the file a name that says so.
const COMPRESSION: Compression = Compression::Gzip;

/// The compression of that name; empty is gzip. Options of the program that Incus would run, such as
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

/// The compression that is asked for; when none is, that of the server's key.
///
/// # Errors
/// As [`compression`].
pub(crate) fn chosen_compression(host: &Host, key: &str, asked: &str) -> Result<Compression, Error> {
    match asked {
        "" => compression(&server::setting(host, key)?),
        asked => compression(asked),
    }
}

/// In which form the files of a backup are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Trees of files, which every server and driver can read.
    Trees,
    /// Streams of btrfs.
    Streams,
}

impl Form {
    /// The one with or without `--optimized-storage`.
    pub fn of(optimized: bool) -> Form {
        if optimized { Form::Streams } else { Form::Trees }
    }
}

/// The copy of a volume that somebody may be writing in, as long as it is read.
pub(crate) struct Copy {
    pool: Arc<Pool>,
    volume: VolumeName,
}

impl Copy {
    /// One that was just made.
    pub fn new(pool: &Arc<Pool>, volume: VolumeName) -> Copy {
        Copy { pool: pool.clone(), volume }
    }

    /// What it is in its pool.
    pub fn volume(&self) -> &VolumeName {
        &self.volume
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = self.pool.delete(&self.volume).map_err(Error::from) {
            // The next one that is made removes it, or the next start of the daemon.
            let volume = self.volume.to_string();
            tracing::warn!(volume, error = %error.report(), "left behind: the copy made for an export");
        }
    }
}

/// The files of a volume and its snapshots, on their way out.
pub(crate) enum Content {
    Trees(Vec<(Place, TreeSource)>),
    Streams(Vec<StreamSource>),
}

impl Content {
    /// Those of `volume`, in the order Incus has them; `own` is the volume itself or the copy of it.
    pub fn of(
        pool: &Pool,
        form: Form,
        (volume, own): (&VolumeName, &VolumeName),
        snapshots: &[&str],
    ) -> Result<Content, Error> {
        let snapshots = snapshots.iter().map(|name| (Some(*name), volume));
        let all = snapshots.chain([(None, own)]);
        Ok(match form {
            Form::Trees => Content::Trees(
                all.map(|(snapshot, volume)| -> Result<_, Error> {
                    let layers = match snapshot {
                        Some(snapshot) => pool.snapshot_layers(volume, snapshot)?,
                        None => pool.layers(volume)?,
                    };
                    Ok((place(volume, snapshot), source(layers)))
                })
                .collect::<Result<_, _>>()?,
            ),
            Form::Streams => Content::Streams(
                all.map(|(snapshot, volume)| -> Result<_, Error> {
                    Ok(StreamSource { place: place(volume, snapshot), tree: pool.to_send(volume, snapshot)? })
                })
                .collect::<Result<_, _>>()?,
            ),
        })
    }

    /// Writes them. `about` is what a backup has beside each tree of an instance.
    pub fn write(
        &self,
        backup: &mut BackupWriter<impl Write>,
        about: Option<(&str, &Metadata)>,
    ) -> Result<(), Error> {
        match (self, about) {
            (Content::Trees(trees), Some((config, metadata))) => {
                trees.iter().try_for_each(|(place, tree)| backup.tree(place, config, metadata, tree))?;
            }
            (Content::Trees(trees), None) => {
                trees.iter().try_for_each(|(place, tree)| backup.volume(place, tree))?;
            }
            (Content::Streams(sources), about) => backup.streams(sources, about)?,
        }
        Ok(())
    }
}

/// Whose files they are in a backup.
fn place(volume: &VolumeName, snapshot: Option<&str>) -> Place {
    match (volume.kind(), snapshot.map(str::to_owned)) {
        (VolumeKind::Container, None) => Place::Container,
        (VolumeKind::Container, Some(name)) => Place::Snapshot(name),
        (VolumeKind::Custom, None) => Place::Volume,
        (VolumeKind::Custom, Some(name)) => Place::VolumeSnapshot(name),
    }
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

/// Refuses what cannot be sent as streams, or would not be whole then.
///
/// # Errors
/// When the pool's driver is not btrfs, or there are subvolumes inside.
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

/// Refuses a storage driver's own form where it cannot be had. `backend` is the driver that it is of.
///
/// # Errors
/// When either driver is not btrfs.
pub(crate) fn check_coming(host: &Host, backend: Option<&str>, pool: &str) -> Result<(), Error> {
    if backend != Some("btrfs") {
        let what = "a backup in the own form of another storage driver than btrfs".to_owned();
        let reason = "export it again without `--optimized-storage`";
        return Err(Error::Unsupported { what, reason });
    }
    if !storage::pool(host, pool)?.has_subvolumes() {
        let what = format!("a backup in the own form of btrfs, in pool `{pool}` of another driver,");
        let reason = "name a pool of driver `btrfs`, or export it again without `--optimized-storage`";
        return Err(Error::Unsupported { what, reason });
    }
    Ok(())
}

/// A new volume and its snapshots whose files come in a backup.
pub(crate) struct Coming {
    form: Form,
    staged: Vec<Staged>,
    places: Vec<RestoreTo>,
}

impl Coming {
    /// Places for all of it: each with the shift of ids to be taken back.
    pub fn stage<'a>(
        pool: &Pool,
        volume: &VolumeName,
        form: Form,
        shift: Vec<ShiftRun>,
        snapshots: impl IntoIterator<Item = (&'a str, Vec<ShiftRun>)>,
        undo: &mut Undo,
    ) -> Result<Coming, Error> {
        let mut coming = Coming { form, staged: Vec::new(), places: Vec::new() };
        let snapshots = snapshots.into_iter().map(|(name, shift)| (Some(name), shift));
        for (snapshot, shift) in [(None, shift)].into_iter().chain(snapshots) {
            let to = snapshot.map_or(Destination::New(volume), |name| Destination::Snapshot(volume, name));
            let (staged, tree) = match form {
                Form::Streams => pool.stage_received(to, undo)?,
                Form::Trees => pool.stage_tree(to, undo)?,
            };
            coming.staged.push(staged);
            coming.places.push(RestoreTo { place: place(volume, snapshot), shift, tree });
        }
        fault::pass("places for a backup's trees")?;
        Ok(coming)
    }

    /// Fills them from the whole backup. Gives what is to be shown then, and an instance's metadata.
    pub fn fill(
        self,
        host: &Host,
        input: File,
        progress: &mut dyn FnMut(u64),
        undo: &mut Undo,
    ) -> Result<(Vec<Staged>, Option<Metadata>), Error> {
        let Coming { form, staged, places } = self;
        let (_, metadata) = match form {
            Form::Trees => host.unpacker().restore(input, &places, progress)?,
            Form::Streams => receive(host, input, &places, progress)?,
        };
        drop(places);
        for one in &staged {
            match form {
                Form::Trees => one.filled(undo)?,
                Form::Streams => one.came()?,
            }
        }
        fault::pass("trees of a backup made")?;
        Ok((staged, metadata))
    }
}

/// Has the streams of a backup in the own form of btrfs become subvolumes.
fn receive(
    host: &Host,
    input: File,
    places: &[RestoreTo],
    progress: &mut dyn FnMut(u64),
) -> Result<(cabin_images::UnpackReport, Option<Metadata>), Error> {
    let mut make = |number: usize, from: Option<usize>| -> std::io::Result<()> {
        // The process says the numbers; it is not believed.
        let tree = |number: usize| {
            places.get(number).map(|place| &place.tree).ok_or(std::io::ErrorKind::InvalidInput)
        };
        cabin_storage::make_coming(tree(number)?, from.map(tree).transpose()?)
    };
    Ok(host.unpacker().receive(input, places, progress, &mut make)?)
}
