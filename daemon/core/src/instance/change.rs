//! What a running container must be changed by when its config changes: limits and nics, each with its inverse.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use cabin_network::BridgeSpec;
use cabin_runtime::spec::CgroupLimits;
use cabin_store::{Transaction, rows};
use cabin_undo::{Undo, atomically};

use super::{Expanded, intent};
use crate::live::{Live, Plugged};
use crate::{Error, Host, resolve};

type Nic = (BridgeSpec, Plugged);

/// The difference between what a container has and what it is to have; nothing for one that does not run.
pub(crate) struct Change(Option<Difference>);

struct Difference {
    live: Arc<Live>,
    limits: Option<(CgroupLimits, CgroupLimits)>,
    unplugged: Vec<Nic>,
    plugged: Vec<Nic>,
    after: Vec<Plugged>,
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.limits.is_none() && self.unplugged.is_empty() && self.plugged.is_empty()
    }
}

impl Change {
    /// Compares two states of an instance whose turn the caller holds. Nothing is touched.
    ///
    /// # Errors
    /// When the new state makes no sense on this host.
    pub fn of(
        host: &Host,
        name: &str,
        before: (&rows::Instance, &Expanded),
        after: (&rows::Instance, &Expanded),
    ) -> Result<Change, Error> {
        let Some(live) = host.live().get(name).filter(|live| live.exit().is_none()) else {
            return Ok(Change(None));
        };
        let limits = match limits_differ(&before.1.config, &after.1.config) {
            true => {
                let limits = |expanded: &Expanded| resolve::limits(host, &expanded.config);
                Some((limits(before.1)?, limits(after.1)?))
            }
            false => None,
        };
        let old = by_device(resolve::nics(host, name, before.0, before.1)?);
        let new = by_device(resolve::nics(host, name, after.0, after.1)?);
        let differs = |one: &Nic, other: Option<&Nic>| {
            other.is_none_or(|other| other.1.nic != one.1.nic || other.1.network != one.1.network)
        };
        let unplugged = old.values().filter(|nic| differs(nic, new.get(&nic.1.device))).cloned().collect();
        let plugged = new.values().filter(|nic| differs(nic, old.get(&nic.1.device))).cloned().collect();
        let after = new.into_values().map(|(_, plugged)| plugged).collect();
        Ok(Change(Some(Difference { live, limits, unplugged, plugged, after })))
    }

    /// Writes into the row by which names the host will know the container's nics.
    pub fn note(&self, row: &mut rows::Instance) {
        if let Some(change) = &self.0 {
            row.config.retain(|key, _| !is_host_name(key));
            let names = change.after.iter().map(host_name);
            row.config.extend(names);
        }
    }

    /// Changes the container. The caller commits in the same undo.
    ///
    /// # Errors
    /// When the host refuses a step.
    pub fn make(&self, host: &Arc<Host>, project: &str, undo: &mut Undo) -> Result<(), Error> {
        let Some(change) = self.0.as_ref().filter(|change| !change.is_empty()) else { return Ok(()) };
        let name = &change.live.name;
        // A nic that was taken away looks like one that was never there: a start must know what was going on.
        intent::note(host, project, name, &rows::Intent::Update, undo)?;
        if let Some((old, new)) = &change.limits {
            let (again, name, old) = (host.clone(), name.clone(), old.clone());
            // A limit that cannot be set may follow some that could, so the inverse is recorded first.
            undo.push(format!("limits of `{name}`"), move || again.runtime().cgroups().set(&name, &old))?;
            host.runtime().cgroups().set(&change.live.name, new)?;
        }
        for nic in &change.unplugged {
            let (again, live, old) = (host.clone(), change.live.clone(), nic.clone());
            undo.push(format!("unplug `{}` of `{name}`", nic.1.device), move || -> Result<(), Error> {
                super::stop::unplug(&again, &old.1)?;
                Ok(atomically(|undo| plug(&again, &live, &old, undo))?)
            })?;
            super::stop::unplug(host, &nic.1)?;
        }
        for nic in &change.plugged {
            plug(host, &change.live, nic, undo)?;
        }
        Ok(())
    }

    /// The commit of the change says that it is no longer under way.
    pub fn forget<'a>(&self, project: &str, txn: Transaction<'a>) -> Transaction<'a> {
        match &self.0 {
            Some(change) if !change.is_empty() => txn.remove::<rows::Intent>(project, &change.live.name),
            _ => txn,
        }
    }

    /// The change is committed: the daemon's own picture of the container follows.
    pub fn done(self) {
        if let Some(change) = self.0 {
            *change.live.nics.lock() = change.after;
        }
    }
}

fn plug(host: &Host, live: &Live, nic: &Nic, undo: &mut Undo) -> Result<(), Error> {
    let netns = live.netns()?;
    host.network().plug(&nic.0, &nic.1.nic, netns.as_fd(), undo)?;
    Ok(())
}

/// Whether a key says by which name the host knows a nic of the running container.
pub(super) fn is_host_name(key: &str) -> bool {
    key.starts_with("volatile.") && key.ends_with(".host_name")
}

/// That key, and the name.
pub(super) fn host_name(plugged: &Plugged) -> (String, String) {
    (format!("volatile.{}.host_name", plugged.device), plugged.nic.host_name.to_string())
}

fn by_device(nics: Vec<Nic>) -> BTreeMap<String, Nic> {
    nics.into_iter().map(|nic| (nic.1.device.clone(), nic)).collect()
}

/// Counts of processors are spread by chance: only a changed text is a changed limit.
fn limits_differ(before: &rows::Config, after: &rows::Config) -> bool {
    let limits = |config: &rows::Config| -> Vec<(String, String)> {
        let wanted = config.iter().filter(|(key, _)| key.starts_with("limits."));
        wanted.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    limits(before) != limits(after)
}
