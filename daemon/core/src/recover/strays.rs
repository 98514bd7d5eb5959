//! What nothing accounts for after a crash: found by names and marks, removed, and told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cabin_network::Mac;
use cabin_storage::Pool;
use cabin_store::Versioned;
use cabin_store::rows::{self, Intent};
use cabin_undo::fault;
use ipnet::IpNet;

use crate::{DEFAULT_PROJECT, Error, Host, instance, resolve};

fn tell(what: &str, name: &str, result: Result<(), Error>) {
    match result {
        Ok(()) => tracing::info!(what, name, "a stray was removed"),
        Err(error) => tracing::warn!(what, name, error = %error.report(), "a stray cannot be removed"),
    }
    fault::reach(what);
}

/// Takes back renames that were not committed: the tree may lie under a name that no row has.
pub(super) fn finish_renames(host: &Arc<Host>) {
    for intent in host.store().rows::<Intent>().list(DEFAULT_PROJECT).unwrap_or_default() {
        let Intent::Rename { to } = &intent.row else { continue };
        tell("rename", &intent.name, instance::finish_rename(host, &intent.name, to));
    }
}

/// Trees and images in a pool that no row owns.
fn in_pool(host: &Host, pool: &Pool, found: &[Versioned<rows::Instance>]) {
    let unfinished = host.store().rows::<Intent>().list(DEFAULT_PROJECT).unwrap_or_default();
    // The tree of a rename that could not be taken back is somebody's only one.
    let moving = |name: &str| {
        unfinished.iter().any(|intent| matches!(&intent.row, Intent::Rename { to } if to == name))
    };
    // A crash in a move leaves a tree of the same name in another pool.
    let known = |name: &str| found.iter().any(|it| it.name == name && it.row.pool == pool.name());
    for volume in pool.list().unwrap_or_default() {
        let container = volume.kind() == cabin_storage::VolumeKind::Container;
        if container && !known(volume.name()) && !moving(volume.name()) {
            tell("volume", volume.name(), pool.delete(&volume).map_err(Error::from));
        }
    }
    for image in pool.list_images().unwrap_or_default() {
        let row = host.store().rows::<rows::Image>().get(DEFAULT_PROJECT, &image);
        // One that volumes stand on is only marked, and goes with the last of them.
        if row.is_ok_and(|row| row.is_none()) && matches!(pool.is_unwanted(&image), Ok(false)) {
            tell("image", &image, pool.delete_image(&image).map(drop).map_err(Error::from));
        }
    }
}

/// What nothing accounts for in a pool that was not there when the daemon started. Nobody has it yet: whatever lies in it
/// is an earlier daemon's.
pub(crate) fn in_late_pool(host: &Host, pool: &Pool) {
    let swept = instance::sweep_snapshots(host, pool).and_then(|()| crate::volume::sweep(host, pool));
    if let Err(error) = swept {
        tracing::warn!(pool = pool.name(), error = %error.report(), "strays in a pool cannot be removed");
    }
    match host.store().rows::<rows::Instance>().list(DEFAULT_PROJECT) {
        Ok(found) => in_pool(host, pool, &found),
        Err(error) => {
            tracing::error!(error = %Error::from(error).report(), "instances cannot be read");
        }
    }
}

/// Trees, images, cgroups, links, logs and records that no row owns: what a crash between two steps left.
pub(super) fn before(host: &Arc<Host>, found: &[Versioned<rows::Instance>]) {
    let known = |name: &str| found.iter().any(|instance| instance.name == name);
    for pool in host.store().rows::<rows::Pool>().list(DEFAULT_PROJECT).unwrap_or_default() {
        if let Ok(pool) = crate::storage::pool(host, &pool.name) {
            in_pool(host, &pool, found);
        }
    }
    for name in host.runtime().cgroups().list().unwrap_or_default() {
        if !known(&name) {
            let cgroups = host.runtime().cgroups();
            let gone = cgroups.kill(&name).and_then(|()| cgroups.destroy(&name));
            tell("cgroup", &name, gone.map_err(Error::from));
        }
    }
    for name in host.runtime().recorded().unwrap_or_default() {
        if !known(&name) {
            tell("record", &name, host.runtime().forget(&name).map_err(Error::from));
        }
    }
    let names = |dir: &str| host.dir().open_dir(dir).and_then(|dir| dir.list()).unwrap_or_default();
    for link in names("containers").iter().filter(|link| !known(&link.name)) {
        let removed = host.dir().remove_file(&format!("containers/{}", link.name));
        tell("link", &link.name, removed.map_err(Error::io("remove a stray link")));
    }
    for logs in names("logs").iter().filter(|logs| !known(&logs.name)) {
        let removed = host.dir().remove_tree(&format!("logs/{}", logs.name));
        tell("logs", &logs.name, removed.map_err(Error::io("remove stray logs")));
    }
    for instance in found {
        let link = format!("containers/{}", instance.name);
        let target = format!("../storage-pools/{}/{link}", instance.row.pool);
        let now = host.dir().open_dir("containers").and_then(|dir| {
            Ok(rustix::fs::readlinkat(&dir, instance.name.as_str(), Vec::new())?
                .to_string_lossy()
                .into_owned())
        });
        if now.ok().as_ref() != Some(&target) {
            let made = instance::relink(host, &instance.name, &instance.row.pool);
            tell("missing link", &instance.name, made);
        }
    }
}

/// Ports and reserved addresses that no running container has, once all that run are taken up.
pub(super) fn after(host: &Arc<Host>) {
    let mut ports = BTreeSet::new();
    let mut macs: BTreeSet<Mac> = BTreeSet::new();
    let mut routes: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
    let mut all_known = true;
    for live in host.live().list() {
        let nics = live.nics.lock();
        for plugged in nics.iter() {
            ports.insert(plugged.nic.host_name.to_string());
            macs.insert(plugged.nic.mac);
            if let Some(network) = &plugged.network {
                routes.entry(network.clone()).or_default().extend(plugged.nic.routes.iter().copied());
            }
        }
        if !nics.is_empty() {
            continue;
        }
        // One whose nics could not be made out keeps what it was given.
        let row = host.store().rows::<rows::Instance>().get(DEFAULT_PROJECT, &live.name).ok().flatten();
        for (key, value) in row.iter().flat_map(|found| &found.row.config) {
            if key.starts_with("volatile.") && key.ends_with(".host_name") {
                ports.insert(value.clone());
                all_known = false;
            }
        }
    }
    match host.network().marked() {
        Ok(marked) => {
            for port in marked.ports.iter().filter(|port| !ports.contains(port.as_str())) {
                tell("port", port.as_str(), host.network().remove_port(port).map_err(Error::from));
            }
        }
        Err(error) => {
            tracing::warn!(error = %Error::from(error).report(), "the ports of this daemon cannot be listed");
        }
    }
    let (fixed, none) = (fixed_macs(host), BTreeSet::new());
    for network in host.store().rows::<rows::Network>().list(DEFAULT_PROJECT).unwrap_or_default() {
        let Ok(bridge) = resolve::interface(&network.name) else { continue };
        if all_known {
            let wanted = routes.remove(&network.name).unwrap_or_default();
            match host.network().keep_routes(&bridge, &wanted) {
                Ok(gone) => gone.iter().for_each(|route| tell("route", &route.to_string(), Ok(()))),
                Err(error) => tell("route", &network.name, Err(error.into())),
            }
        }
        let fixed = fixed.get(&network.name).unwrap_or(&none);
        let given_up = host.network().keep_only(&bridge, &macs, fixed);
        match given_up {
            Ok(given_up) => {
                for mac in given_up {
                    tell("address", &mac.to_string(), Ok(()));
                }
            }
            Err(error) => tell("address", &network.name, Err(error.into())),
        }
    }
    keep_fixed(host);
}

/// The fixed addresses of what does not run, as the rows say: a change that was cut off may have moved them.
fn keep_fixed(host: &Arc<Host>) {
    let found = host.store().rows::<rows::Instance>().list(DEFAULT_PROJECT).unwrap_or_default();
    let mut all = Vec::new();
    for Versioned { name, row, .. } in found.iter().filter(|found| host.live().get(&found.name).is_none()) {
        let profiles = instance::profiles_of(host, DEFAULT_PROJECT, &row.profiles);
        let nics = profiles
            .and_then(|profiles| resolve::fixed_nics(host, name, row, &instance::expand(row, &profiles)));
        match nics {
            Ok(nics) => all.extend(nics),
            Err(error) => {
                tracing::warn!(instance = name, error = %error.report(), "its fixed addresses cannot be made out");
            }
        }
    }
    let keep = |place: &resolve::Place| host.network().reserve(&place.0, &place.1.nic).map(drop);
    // It may have exchanged some: then each gives up what it has before any gets another.
    let taken: Vec<_> = all.iter().filter(|place| keep(place).is_err()).collect();
    let given_up = taken.iter().map(|(bridge, nic)| host.network().release_own(&bridge.name, &nic.nic));
    let given_up: Vec<_> = given_up.collect();
    for (place, given_up) in taken.into_iter().zip(given_up) {
        if let Err(error) = given_up.and_then(|()| keep(place)).map_err(Error::from) {
            let instance = place.1.nic.instance.as_str();
            tracing::warn!(instance, error = %error.report(), "its fixed addresses are not kept for it");
        }
    }
}

/// The MACs of all nics with fixed addresses, which stay theirs while their instances are stopped, by their networks.
fn fixed_macs(host: &Host) -> BTreeMap<String, BTreeSet<Mac>> {
    let found = host.store().rows::<rows::Instance>().list(DEFAULT_PROJECT).unwrap_or_default();
    let nics = |found: &Versioned<rows::Instance>| {
        let profiles = instance::profiles_of(host, DEFAULT_PROJECT, &found.row.profiles).ok()?;
        resolve::all_nics(host, &found.name, &found.row, &instance::expand(&found.row, &profiles)).ok()
    };
    let mut fixed: BTreeMap<String, BTreeSet<Mac>> = BTreeMap::new();
    for (_, plugged) in found.iter().filter_map(nics).flatten() {
        if let Some(network) = plugged.network.filter(|_| resolve::has_fixed(&plugged.nic)) {
            fixed.entry(network).or_default().insert(plugged.nic.mac);
        }
    }
    fixed
}
