//! An instance's tree and snapshots on their way to another name or pool: within a pool by what its driver does best,
//! to another pool as a stream of files. Everything is staged only; who asked for it shows it.

use std::sync::Arc;

use cabin_images::{Place, RestoreTo};
use cabin_storage::{Activity, Destination, Origin, Pool, Staged, VolumeName};
use cabin_store::rows::{Config, Devices};
use cabin_undo::{Undo, fault};
use serde_json::json;

use super::backup::copied;
use super::snapshot::{activity, held};
use super::{Profiles, expand_parts, is_root};
use crate::backup::{Copy, source};
use crate::{Error, Host, Op, image, storage};

/// What is to be carried.
pub(super) struct Load<'a> {
    pub project: &'a str,
    /// The instance, whose turn the caller holds.
    pub instance: &'a str,
    pub pool: &'a Arc<Pool>,
    /// The snapshot whose tree it is about; the instance's own when none.
    pub snapshot: Option<&'a str>,
    /// Snapshots that come along.
    pub snapshots: &'a [String],
    /// Whether one that runs need not stand still for the moment of the copy.
    pub inconsistent: bool,
}

/// Where it is to go.
pub(super) struct Target<'a> {
    pub pool: &'a Arc<Pool>,
    pub volume: &'a VolumeName,
    /// The mark of a tree that takes the place of the one that is there; none for a new volume.
    pub replaces: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn destination(&self) -> Destination<'a> {
        match self.replaces {
            Some(mark) => Destination::Replaces(self.volume, mark),
            None => Destination::New(self.volume),
        }
    }
}

/// Stages the snapshots, then the tree itself. A running instance stands still for a moment; then its intent is to be
/// removed by the caller's last commit.
pub(super) fn stage(
    host: &Arc<Host>,
    op: &Op,
    load: &Load<'_>,
    to: &Target<'_>,
    undo: &mut Undo,
) -> Result<Vec<Staged>, Error> {
    match load.pool.name() == to.pool.name() {
        true => within(host, op, load, to, undo),
        // Told as what it is when it failed because somebody took the pool away meanwhile.
        false => {
            let alike = to.pool.takes_layers_of(load.pool) || to.pool.may_take_streams_of(load.pool);
            let carried = match alike {
                true => by_driver(host, op, load, to, undo),
                false => across(host, op, load, to, undo, None),
            };
            carried.or_else(|why| storage::pool(host, to.pool.name()).and(Err(why)))
        }
    }
}

fn within(
    host: &Arc<Host>,
    op: &Op,
    load: &Load<'_>,
    to: &Target<'_>,
    undo: &mut Undo,
) -> Result<Vec<Staged>, Error> {
    let from = VolumeName::container(load.instance)?;
    let origin = match load.snapshot {
        Some(snapshot) => Origin::Snapshot(&from, snapshot),
        None => Origin::Volume(&from, activity(host, load.instance)),
    };
    let make = |undo: &mut Undo| -> Result<Staged, Error> {
        Ok(match to.replaces {
            Some(mark) => to.pool.stage_replacing_copy(origin, to.volume, mark, undo)?,
            None => to.pool.stage_copy(origin, to.volume, undo)?,
        })
    };
    let own = match load.snapshot.is_some() || load.inconsistent {
        true => make(undo)?,
        false => {
            let (staged, frozen) = held(host, load.project, load.instance, undo, make)?;
            op.update(json!({ "frozen_us": frozen }));
            staged
        }
    };
    let mut staged = Vec::new();
    for snapshot in load.snapshots {
        staged.push(to.pool.stage_snapshot_copy((&from, snapshot), to.volume, undo)?);
    }
    staged.push(own);
    Ok(staged)
}

fn across(
    host: &Arc<Host>,
    op: &Op,
    load: &Load<'_>,
    to: &Target<'_>,
    undo: &mut Undo,
    copy: Option<Copy>,
) -> Result<Vec<Staged>, Error> {
    let from = VolumeName::container(load.instance)?;
    let (mut staged, mut sources, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    let mut add = |place: Place, layers, (one, tree)| {
        sources.push((place.clone(), source(layers)));
        targets.push(RestoreTo { place, shift: Vec::new(), tree });
        staged.push(one);
    };
    for snapshot in load.snapshots {
        let layers = load.pool.snapshot_layers(&from, snapshot)?;
        let made = to.pool.stage_tree(Destination::Snapshot(to.volume, snapshot), undo)?;
        add(Place::Snapshot(snapshot.clone()), layers, made);
    }
    let copy = match copy {
        None => standing_still(host, load, &from)?,
        made => made,
    };
    let layers = match (load.snapshot, &copy) {
        (Some(snapshot), _) => load.pool.snapshot_layers(&from, snapshot)?,
        (None, Some(copy)) => load.pool.layers(copy.volume())?,
        (None, None) => load.pool.layers(&from)?,
    };
    let made = to.pool.stage_tree(to.destination(), undo)?;
    add(Place::Container, layers, made);
    fault::pass("places for carried trees")?;
    let mut progress = |done: u64| op.progress("copy_progress", format!("Copying: {}", size(done)));
    host.unpacker().carry(&sources, &targets, &mut progress)?;
    for one in &staged {
        one.filled(undo)?;
    }
    fault::pass("trees carried")?;
    Ok(staged)
}

/// Carrying takes its time, so what runs is copied within its pool first: that copy, if it runs.
fn standing_still(host: &Arc<Host>, load: &Load<'_>, from: &VolumeName) -> Result<Option<Copy>, Error> {
    let running = load.snapshot.is_none() && activity(host, load.instance) == Activity::Running;
    match running {
        true => copied(host, load.project, load.instance, load.pool, from).map(Some),
        false => Ok(None),
    }
}

/// To another pool of the same driver. One of layers: with the image and the layers that the trees stand on, but only
/// those that it lacks. One of subvolumes: as what each has otherwise than one that the other pool has by then.
fn by_driver(
    host: &Arc<Host>,
    op: &Op,
    load: &Load<'_>,
    to: &Target<'_>,
    undo: &mut Undo,
) -> Result<Vec<Staged>, Error> {
    let from = VolumeName::container(load.instance)?;
    let copy = standing_still(host, load, &from)?;
    let own = match (load.snapshot, &copy) {
        (Some(snapshot), _) => Origin::Snapshot(&from, snapshot),
        // It is removed at once, and is nothing that others would share.
        (None, Some(copy)) => Origin::Volume(copy.volume(), Activity::Running),
        (None, None) => Origin::Volume(&from, Activity::Stopped),
    };
    let layers = to.pool.takes_layers_of(load.pool);
    let snapshots = load
        .snapshots
        .iter()
        .map(|name| (Origin::Snapshot(&from, name), Destination::Snapshot(to.volume, name)));
    let all: Vec<_> = snapshots.chain([(own, to.destination())]).collect();
    let origins: Vec<_> = all.iter().map(|(origin, _)| *origin).collect();
    if !layers && !to.pool.takes_streams_of(load.pool, &origins)? {
        return across(host, op, load, to, undo, copy);
    }
    let mut done = 0;
    let mut progress = |more: u64| {
        done += more;
        op.progress("copy_progress", format!("Copying: {}", size(done)));
    };
    let mut staged = Vec::new();
    for (origin, destination) in all {
        if !layers {
            staged.push(to.pool.stage_sent(destination, (load.pool, origin, &from), &mut progress, undo)?);
            continue;
        }
        if let Some(image) = load.pool.image_below(origin)? {
            image::ensure_carried(host, (load.pool, to.pool), &image, undo)?;
        }
        staged.push(to.pool.stage_layers(destination, (load.pool, origin), &mut progress, undo)?);
    }
    Ok(staged)
}

#[allow(clippy::cast_precision_loss)]
fn size(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Sees to it that the root disk of these devices, with the profiles under them, lies in that pool.
pub(super) fn root_in(pool: &str, names: &[String], profiles: &Profiles, devices: &mut Devices) {
    let expanded = expand_parts((names, &Config::new(), devices), profiles).devices;
    let Some((name, root)) = expanded.iter().find(|(_, device)| is_root(device)) else { return };
    if root.get("pool").is_none_or(|now| now != pool) {
        let mut root = root.clone();
        root.insert("pool".into(), pool.into());
        devices.insert(name.clone(), root);
    }
}
