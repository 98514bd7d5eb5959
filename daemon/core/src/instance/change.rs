//! What a running container must be changed by when its config changes: limits, nics and disks, each with its
//! inverse.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};

use cabin_network::NicSpec;
use cabin_runtime::spec::CgroupLimits;
use cabin_storage::VolumeName;
use cabin_store::{Transaction, rows};
use cabin_undo::{Undo, atomically};

use super::mac::{self, Claim};
use super::{Expanded, intent, plug};
use crate::live::{Live, Plugged};
use crate::resolve::{Mounted, Nic};
use crate::{Error, Host, quota, resolve};

/// The difference between what a container has and what it is to have; nothing for one that does not run.
pub(crate) struct Change(Option<Difference>);

struct Difference {
    live: Arc<Live>,
    limits: Option<(CgroupLimits, CgroupLimits)>,
    /// The pool, and the most the root disk could and can hold.
    size: Option<(String, Option<u64>, Option<u64>)>,
    adjusted: Vec<(Plugged, Nic)>,
    unplugged: Vec<Nic>,
    plugged: Vec<Nic>,
    after: Vec<Plugged>,
    detached: Vec<Mounted>,
    attached: Vec<Mounted>,
    /// Until the container is known to have the nics.
    claim: OnceLock<Claim>,
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.limits.is_none()
            && self.size.is_none()
            && self.adjusted.is_empty()
            && self.unplugged.is_empty()
            && self.plugged.is_empty()
            && self.detached.is_empty()
            && self.attached.is_empty()
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
        let new_state = after.1;
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
        let (old, new) = (quota::of_root(before.1)?, quota::of_root(after.1)?);
        let size = (old != new).then(|| (after.0.pool.clone(), old, new));
        let old = by_device(resolve::nics(host, name, before.0, before.1)?);
        let new = by_device(resolve::nics(host, name, after.0, after.1)?);
        let adjusted = old.values().filter_map(|nic| {
            let other = new.get(&nic.1.device).filter(|other| nic.1 != other.1 && stays(nic, other));
            Some((nic.1.clone(), other?.clone()))
        });
        let adjusted = adjusted.collect();
        let differs = |one: &Nic, other: Option<&Nic>| other.is_none_or(|other| !stays(one, other));
        let unplugged = old.values().filter(|nic| differs(nic, new.get(&nic.1.device))).cloned().collect();
        let plugged = new.values().filter(|nic| differs(nic, old.get(&nic.1.device))).cloned().collect();
        let after: Vec<Plugged> = new.into_values().map(|(_, plugged)| plugged).collect();
        let (detached, attached) = disks_differ(host, name, before.1, new_state)?;
        Ok(Change(Some(Difference {
            live,
            limits,
            size,
            adjusted,
            unplugged,
            plugged,
            after,
            detached,
            attached,
            claim: OnceLock::new(),
        })))
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
        // Before any of them goes.
        let claim = mac::claim(host, name, change.plugged.iter().map(|nic| &nic.1))?;
        let _ = change.claim.set(claim);
        // A nic that was taken away looks like one that was never there: a start must know what was going on.
        let going_on = match change.attached.is_empty() && change.detached.is_empty() {
            true => rows::Intent::Update,
            false => rows::Intent::Disks {
                mounted: change.attached.iter().map(|disk| disk.spec.path.clone()).collect(),
            },
        };
        intent::note(host, project, name, &going_on, undo)?;
        if let Some((old, new)) = &change.limits {
            let (again, name, old) = (host.clone(), name.clone(), old.clone());
            // A limit that cannot be set may follow some that could, so the inverse is recorded first.
            undo.push(format!("limits of `{name}`"), move || again.runtime().cgroups().set(&name, &old))?;
            host.runtime().cgroups().set(&change.live.name, new)?;
        }
        if let Some((pool, old, new)) = &change.size {
            quota::change(host, pool, &VolumeName::container(name)?, (*old, *new), undo)?;
        }
        for (old, new) in &change.adjusted {
            plug::adjust(host, new.0.as_ref(), (old, &new.1), undo)?;
        }
        for nic in &change.unplugged {
            let (again, live, old) = (host.clone(), change.live.clone(), nic.clone());
            undo.push(format!("unplug `{}` of `{name}`", nic.1.device), move || -> Result<(), Error> {
                plug::unplug(&again, &old.1)?;
                Ok(atomically(|undo| put_in(&again, &live, &old, undo))?)
            })?;
            plug::unplug(host, &nic.1)?;
            change.give_up(host, nic)?;
        }
        for nic in &change.plugged {
            put_in(host, &change.live, nic, undo)?;
        }
        change.mount(undo)
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

impl Difference {
    /// A fixed address is kept for a MAC while that is its nic's, and no longer.
    fn give_up(&self, host: &Host, (bridge, old): &Nic) -> Result<(), Error> {
        let has = |new: &Plugged| new.network == old.network && new.nic.mac == old.nic.mac;
        if let Some(bridge) = bridge.as_ref().filter(|_| !self.after.iter().any(has)) {
            host.network().release(&bridge.name, old.nic.mac)?;
        }
        Ok(())
    }

    /// Outer disks are mounted before those in them, and taken away after them.
    fn mount(&self, undo: &mut Undo) -> Result<(), Error> {
        for disk in self.detached.iter().rev() {
            let (live, old) = (self.live.clone(), disk.spec.clone());
            undo.push(format!("detach `{}` of `{}`", disk.device, live.name), move || {
                live.supervisor.change_disks(&[], std::slice::from_ref(&old))
            })?;
            self.live.supervisor.change_disks(std::slice::from_ref(&disk.spec.path), &[])?;
        }
        for disk in &self.attached {
            self.live.supervisor.change_disks(&[], std::slice::from_ref(&disk.spec))?;
            let (live, path) = (self.live.clone(), disk.spec.path.clone());
            undo.push(format!("attach `{}` of `{}`", disk.device, live.name), move || {
                live.supervisor.change_disks(std::slice::from_ref(&path), &[])
            })?;
        }
        Ok(())
    }
}

/// The disks that go and those that come, when an instance's devices change. One that stays as it is stays
/// mounted.
fn disks_differ(
    host: &Host,
    name: &str,
    before: &Expanded,
    after: &Expanded,
) -> Result<(Vec<Mounted>, Vec<Mounted>), Error> {
    let same = |device: &String| before.devices.get(device) == after.devices.get(device);
    let only = |devices: &rows::Devices| -> rows::Devices {
        devices.iter().filter(|(name, _)| !same(name)).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let old = resolve::disks_before(host, name, &only(&before.devices))?;
    let new = resolve::disks(host, name, &only(&after.devices))?;
    let without = |list: &[Mounted], others: &[Mounted]| -> Vec<Mounted> {
        list.iter().filter(|disk| others.iter().all(|other| other.spec != disk.spec)).cloned().collect()
    };
    Ok((without(&old, &new), without(&new, &old)))
}

fn put_in(host: &Host, live: &Live, nic: &Nic, undo: &mut Undo) -> Result<(), Error> {
    let netns = live.netns()?;
    plug::plug(host, nic.0.as_ref(), &nic.1, netns.as_fd(), undo)
}

/// Whether a nic becomes another while the instance keeps it: only what the host makes of it differs.
fn stays(one: &Nic, other: &Nic) -> bool {
    let (before, after) = (&one.1.nic, &other.1.nic);
    let as_after = NicSpec {
        filter: after.filter,
        isolation: after.isolation,
        routes: after.routes.clone(),
        rates: after.rates,
        priority: after.priority,
        ..before.clone()
    };
    one.1.network == other.1.network && as_after == *after
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
