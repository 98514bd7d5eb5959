//! A new volume from a backup that comes in as a stream: first what it says is looked at, then its trees are made, in
//! one pass. None of what it says is believed: it passes the checks of a new volume.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::sync::Arc;

use cabin_api::volume::VolumesPost;
use cabin_api::{ConfigMap, ZERO_TIME};
use cabin_images::ShiftRun;
use cabin_store::rows::{self, Config};
use cabin_undo::atomically;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::create::{check_new, limit_of};
use super::snapshot::{commit, snapshot_row};
use super::{WHAT, address, busy_name, place, row_name};
use crate::backup::{Coming, Form, check_coming};
use crate::instance::import::config::shift_in;
use crate::{Error, Host, Op, clock, limits, storage};

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    snapshots: Option<Vec<String>>,
    #[serde(default)]
    optimized: Option<bool>,
    #[serde(default)]
    backend: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    config: Option<Document>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    volume: Option<Described>,
    #[serde(default)]
    volume_snapshots: Option<Vec<Described>>,
}

/// A volume or snapshot.
#[derive(Deserialize, Default)]
struct Described {
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    config: ConfigMap,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
}

/// What is going to be made, checked like a new volume.
#[derive(Debug, Clone)]
pub struct Planned {
    pool: String,
    post: VolumesPost,
    created_at: String,
    shift: Vec<ShiftRun>,
    snapshots: Vec<(String, rows::VolumeSnapshot, Vec<ShiftRun>)>,
    form: Form,
}

impl Planned {
    /// The name of the volume to be.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.post.name
    }
}

/// Looks at the first bytes of a backup. `None` when more of them are needed. A name that is not empty goes over
/// the backup's.
///
/// # Errors
/// When it is no backup of a volume, or what it says cannot be had here.
pub fn look(
    host: &Host,
    project: &str,
    pool: &str,
    name: &str,
    head: &[u8],
) -> Result<Option<Planned>, Error> {
    let act = || Error::io("hand the backup's beginning on");
    let memory = rustix::fs::memfd_create("backup", rustix::fs::MemfdFlags::CLOEXEC);
    let mut file = File::from(memory.map_err(|e| act()(e.into()))?);
    file.write_all(head).map_err(act())?;
    file.rewind().map_err(act())?;
    match host.unpacker().index(&file)? {
        Some(index) => plan(host, project, pool, name, &index).map(Some),
        None => Ok(None),
    }
}

fn plan(host: &Host, project: &str, pool: &str, name: &str, index: &str) -> Result<Planned, Error> {
    let index: Index = serde_json::from_str(index).map_err(|source| Error::Index { source })?;
    if index.kind.as_deref() != Some("custom") {
        return Err(Error::invalid("it is not the backup of a custom volume"));
    }
    let form = Form::of(index.optimized == Some(true));
    if form == Form::Streams {
        check_coming(host, index.backend.as_deref(), pool)?;
    }
    let missing = || Error::invalid("the backup's index does not describe a volume");
    let document = index.config.ok_or_else(missing)?;
    let volume = document.volume.ok_or_else(missing)?;
    if volume.content_type.as_deref().is_some_and(|kind| !matches!(kind, "" | "filesystem")) {
        return Err(Error::invalid("it is the backup of a block device, not of files"));
    }
    let limited = storage::pool(host, pool)?.lacks_limits().is_none();
    let post = VolumesPost {
        name: if name.is_empty() { index.name.unwrap_or_default() } else { name.to_owned() },
        description: volume.description.unwrap_or_default(),
        config: ConfigMap(kept(&volume.config.0, limited)),
        ..VolumesPost::default()
    };
    check_new(host, project, pool, &post)?;
    let mut described = document.volume_snapshots.unwrap_or_default();
    let listed = index.snapshots.unwrap_or_default();
    limits::one_more("snapshots of a volume", listed.len().saturating_sub(1), limits::SNAPSHOTS)?;
    let mut seen = BTreeSet::new();
    let mut snapshots = Vec::new();
    for name in listed {
        crate::instance::snapshot::create::check_name(&name)?;
        if !seen.insert(name.clone()) {
            return Err(Error::invalid(format!("the backup names snapshot `{name}` twice")));
        }
        let own = |found: &Described| found.name == name || found.name.ends_with(&format!("/{name}"));
        let found = described.iter().position(own).map(|at| described.swap_remove(at)).unwrap_or_default();
        let shift = shift_in(&found.config.0, MAP)?;
        let row = rows::VolumeSnapshot {
            description: found.description.unwrap_or_default(),
            config: kept(&found.config.0, true),
            created_at: time(found.created_at).unwrap_or_else(clock::now),
            expires_at: time(found.expires_at).unwrap_or_default(),
        };
        snapshots.push((name, row, shift));
    }
    Ok(Planned {
        pool: pool.to_owned(),
        post,
        created_at: time(volume.created_at).unwrap_or_else(clock::now),
        shift: shift_in(&volume.config.0, MAP)?,
        snapshots,
        form,
    })
}

/// What another server remembers about the ids on its disk.
const MAP: &str = "volatile.idmap.last";

/// The keys that mean something here: those of other drivers, and what another server remembers, do not.
fn kept(config: &Config, limited: bool) -> Config {
    let mine = |key: &str| {
        !key.starts_with("volatile.")
            && (limited || key != "size")
            && cabin_profiles::key::find(cabin_profiles::network::VOLUME, key).is_some()
    };
    let set = config.iter().filter(|(key, value)| mine(key) && !value.is_empty());
    set.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A time as it is kept, if it is one.
fn time(text: Option<String>) -> Option<String> {
    let text = text.filter(|text| text != ZERO_TIME)?;
    Some(text.parse::<Timestamp>().ok()?.to_string())
}

/// Makes the volume with its snapshots. `input` is the whole backup, the beginning included.
///
/// # Errors
/// When the backup is damaged or hostile, its name is taken meanwhile, or the host refuses. Then nothing is left.
pub fn import(host: &Arc<Host>, op: &Op, project: &str, planned: Planned, input: File) -> Result<(), Error> {
    let Planned { pool, post, created_at, shift, snapshots, form } = planned;
    let _turn = host.busy().take(&busy_name(&pool, &post.name), "import")?;
    check_new(host, project, &pool, &post)?;
    let row = rows::Volume { description: post.description, config: post.config.0, created_at };
    let disk = storage::pool(host, &pool)?;
    let volume = place::clear(host, project, &disk, &post.name)?;
    atomically(|undo| -> Result<(), Error> {
        let shifts = snapshots.iter().map(|(name, _, shift)| (name.as_str(), shift.clone()));
        let coming = Coming::stage(&disk, &volume, form, shift, shifts, undo)?;
        let mut progress =
            |done: u64| op.progress("import_progress", format!("Import: {} MB", done / 1_000_000));
        let (staged, _) = coming.fill(host, input, &mut progress, undo)?;
        let _kept = host.keep_layout();
        storage::pool(host, &pool)?;
        for one in staged {
            one.show(undo)?;
        }
        if let Some(bytes) = limit_of(&row.config)? {
            disk.limit(&volume, Some(bytes))?;
        }
        let mut txn = host.store().begin().insert(project, &row_name(&pool, &post.name), &row)?;
        for (snapshot, row, _) in &snapshots {
            txn = txn.insert(project, &snapshot_row(&pool, &post.name, snapshot), row)?;
        }
        commit(txn, || Error::Exists { what: WHAT, name: post.name.clone() })
    })?;
    let address = address(&pool, &post.name);
    let requestor = op.requestor();
    host.events().lifecycle(project, "storage-volume-created", &address, &post.name, Value::Null, requestor);
    Ok(())
}
