//! A new instance from a backup that comes in as a stream: first what it says is looked at, then its trees are
//! made, in one pass and without a copy in between.

pub(crate) mod config;

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::sync::Arc;

use cabin_images::ShiftRun;
use cabin_store::rows;
use cabin_undo::atomically;
use serde_json::Value;

use super::checked::Checked;
use super::create::link;
use super::snapshot::row_name;
use super::{WHAT, address, image_metadata, place};
use crate::backup::{Coming, Form};
use crate::{Error, Host, Op, ids, image, resolve, storage};

/// What the sender wants otherwise than the backup says.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// The instance's name.
    pub name: Option<String>,
    /// The pool its tree goes into.
    pub pool: Option<String>,
    /// Config over the backup's; an empty value leaves the key out.
    pub config: rows::Config,
    /// Properties over those of the backup's devices, by device.
    pub devices: rows::Devices,
}

/// What is going to be made, checked like a new instance.
#[derive(Debug, Clone)]
pub struct Planned {
    name: String,
    row: rows::Instance,
    shift: Vec<ShiftRun>,
    snapshots: Vec<PlannedSnapshot>,
    form: Form,
}

#[derive(Debug, Clone)]
struct PlannedSnapshot {
    name: String,
    row: rows::Snapshot,
    shift: Vec<ShiftRun>,
}

impl Planned {
    /// The name of the instance to be.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Looks at the first bytes of a backup. `None` when more of them are needed.
///
/// # Errors
/// When it is no backup of a container, or what it says cannot be had here.
pub fn look(host: &Host, project: &str, head: &[u8], wishes: &Wishes) -> Result<Option<Planned>, Error> {
    let act = || Error::io("hand the backup's beginning on");
    let memory = rustix::fs::memfd_create("backup", rustix::fs::MemfdFlags::CLOEXEC);
    let mut file = File::from(memory.map_err(|e| act()(e.into()))?);
    file.write_all(head).map_err(act())?;
    file.rewind().map_err(act())?;
    match host.unpacker().index(&file)? {
        Some(index) => config::plan(host, project, &index, wishes).map(Some),
        None => Ok(None),
    }
}

/// Makes the instance with its snapshots. `input` is the whole backup, the beginning included; its other end
/// learns by the usual sign that nobody reads any more.
///
/// # Errors
/// When the backup is damaged or hostile, its name is taken meanwhile, or the host refuses. Then nothing is left.
pub fn import(host: &Arc<Host>, op: &Op, project: &str, planned: Planned, input: File) -> Result<(), Error> {
    let Planned { name, mut row, shift, snapshots, form } = planned;
    let _turn = host.busy().take(&name, "import")?;
    if host.store().rows::<rows::Instance>().get(project, &name)?.is_some() {
        return Err(Error::Exists { what: WHAT, name });
    }
    let pool = storage::pool(host, &row.pool)?;
    let volume = place::clear(host, project, &pool, &name)?;
    atomically(|undo| -> Result<(), Error> {
        row.ids = ids::claim(host, &name, undo)?;
        let shifts = snapshots.iter().map(|it| (it.name.as_str(), it.shift.clone()));
        let coming = Coming::stage(&pool, &volume, form, shift, shifts, undo)?;
        let mut progress = |done: u64| op.progress("import_progress", format!("Import: {}", size(done)));
        let (staged, metadata) = coming.fill(host, input, &mut progress, undo)?;
        // From here on what the instance names must not go away.
        let _kept = host.keep_layout();
        let new = Checked::in_its_pool(host, project, row)?;
        for one in staged {
            one.show(undo)?;
        }
        link(host, &name, &new.row.pool, undo)?;
        resolve::reserve_fixed(host, &name, &new.row, &new.expanded, undo)?;
        let templates = metadata.map(|found| of_backup(&new.row, found)).unwrap_or_default();
        let txn = new.insert(host.store().begin(), project, &name)?;
        let mut txn = txn.write(project, &name, &templates)?;
        for PlannedSnapshot { name: snapshot, row, .. } in snapshots {
            let size = pool.snapshot_usage(&volume, &snapshot)?;
            txn = txn.insert(project, &row_name(&name, &snapshot), &rows::Snapshot { size, ..row })?;
        }
        match txn.commit() {
            Err(cabin_store::Error::Changed { .. }) => Err(Error::Exists { what: WHAT, name: name.clone() }),
            other => Ok(other.map(drop)?),
        }
    })?;
    host.events().lifecycle(project, "instance-created", &address(&name), &name, Value::Null, op.requestor());
    Ok(())
}

/// What a backup says about the image, beyond what the instance's config tells of it.
fn of_backup(row: &rows::Instance, found: cabin_images::Metadata) -> rows::Templates {
    let about = rows::About {
        architecture: found.architecture,
        creation_date: found.creation_date,
        expiry_date: found.expiry_date,
        properties: found.properties,
    };
    let told = image_metadata::properties(&row.config) == about.properties;
    rows::Templates {
        templates: image::templates(found.templates),
        about: (!told).then_some(about),
        ..rows::Templates::default()
    }
}

#[allow(clippy::cast_precision_loss)]
fn size(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
