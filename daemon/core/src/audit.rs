//! What on this host belongs to this daemon and should not be there, or should be and is not.
//!
//! Looks at rows on one side and at /proc, control groups, links, filters and directories on the other, by
//! itself: nothing here is shared with the code that makes or removes them. A change that is under way shows
//! as well, so what is listed counts only when nothing is being changed.

mod disks;
mod kernel;
mod trees;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cabin_store::Versioned;
use cabin_store::rows;
use serde::Serialize;

use crate::live::Live;
use crate::{DEFAULT_PROJECT, Error, Host};

/// Something that no row accounts for, or that a row lacks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Stray {
    /// `mount`, `cgroup`, `link` …
    pub kind: &'static str,
    /// Which one.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

/// What the rows and the daemon's own tables say there is.
struct Known {
    instances: BTreeMap<String, rows::Instance>,
    /// `INSTANCE/SNAPSHOT`.
    snapshots: BTreeSet<String>,
    images: BTreeSet<String>,
    pools: Vec<Versioned<rows::Pool>>,
    /// `POOL/VOLUME`.
    volumes: BTreeSet<String>,
    /// `POOL/VOLUME/SNAPSHOT`.
    volume_snapshots: BTreeSet<String>,
    backups: Vec<Backup>,
    networks: BTreeMap<String, rows::Network>,
    live: BTreeMap<String, Arc<Live>>,
}

/// A backup that is kept.
struct Backup {
    /// `INSTANCE/BACKUP` or `POOL/VOLUME/BACKUP`.
    name: String,
    file: String,
    has_owner: bool,
}

/// The list as it grows.
#[derive(Default)]
struct Findings {
    found: BTreeSet<Stray>,
}

impl Findings {
    fn add(&mut self, kind: &'static str, name: impl Into<String>, why: impl Into<String>) {
        self.found.insert(Stray { kind, name: name.into(), why: why.into() });
    }
}

/// Lists what is wrong.
///
/// # Errors
/// When the rows or the kernel's lists cannot be read.
pub fn strays(host: &Host) -> Result<Vec<Stray>, Error> {
    let store = host.store();
    let known = Known::of(host)?;
    let mut findings = Findings::default();
    for intent in store.rows::<rows::Intent>().all()? {
        findings.add("intent", intent.name, "a change was begun and not ended");
    }
    for intent in store.rows::<rows::VolumeIntent>().all()? {
        findings.add("intent", intent.name, "a change was begun and not ended");
    }
    ids(host, &known, &mut findings)?;
    trees::look(host, &known, &mut findings)?;
    kernel::look(host, &known, &mut findings)?;
    Ok(findings.found.into_iter().collect())
}

impl Known {
    fn of(host: &Host) -> Result<Known, Error> {
        let store = host.store();
        let named = |found: Versioned<rows::Instance>| (found.name, found.row);
        let instances: BTreeMap<String, rows::Instance> =
            store.rows::<rows::Instance>().all()?.into_iter().map(named).collect();
        let volumes: BTreeSet<String> =
            store.rows::<rows::Volume>().all()?.into_iter().map(|found| found.name).collect();
        let mut backups = Vec::new();
        for Versioned { name, row, .. } in store.rows::<rows::Backup>().all()? {
            let has_owner = name.split_once('/').is_some_and(|(owner, _)| instances.contains_key(owner));
            backups.push(Backup { name, file: row.file, has_owner });
        }
        for Versioned { name, row, .. } in store.rows::<rows::VolumeBackup>().all()? {
            let has_owner = name.rsplit_once('/').is_some_and(|(owner, _)| volumes.contains(owner));
            backups.push(Backup { name, file: row.file, has_owner });
        }
        Ok(Known {
            snapshots: store.rows::<rows::Snapshot>().all()?.into_iter().map(|found| found.name).collect(),
            images: store.rows::<rows::Image>().all()?.into_iter().map(|found| found.name).collect(),
            pools: store.rows::<rows::Pool>().list(DEFAULT_PROJECT)?,
            volume_snapshots: {
                let found = store.rows::<rows::VolumeSnapshot>().all()?;
                found.into_iter().map(|found| found.name).collect()
            },
            networks: {
                let found = store.rows::<rows::Network>().all()?;
                found.into_iter().map(|found| (found.name, found.row)).collect()
            },
            live: host.live().list().into_iter().map(|live| (live.name.clone(), live)).collect(),
            instances,
            volumes,
            backups,
        })
    }
}

/// Host ids are one instance's alone, and registered as long as it has them.
fn ids(host: &Host, known: &Known, findings: &mut Findings) -> Result<(), Error> {
    let mut runs: Vec<_> =
        known.instances.iter().map(|(name, row)| (row.ids.base, row.ids.size, name)).collect();
    runs.sort();
    for pair in runs.windows(2) {
        if let [(base, size, one), (next, _, other)] = pair
            && u64::from(*base) + u64::from(*size) > u64::from(*next)
        {
            findings.add("ids", one.as_str(), format!("share host ids with `{other}`"));
        }
    }
    let claims = host.ids().claims()?;
    for (base, owner) in &claims {
        if known.instances.get(owner).is_none_or(|row| row.ids.base != *base) {
            findings.add(
                "ids",
                base.to_string(),
                format!("are kept for `{owner}`, which has others or is gone"),
            );
        }
    }
    for (name, row) in &known.instances {
        if !claims.contains(&(row.ids.base, name.clone())) {
            findings.add("ids", row.ids.base.to_string(), format!("of `{name}` are not registered"));
        }
    }
    Ok(())
}
