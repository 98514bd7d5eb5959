//! Networks as users see them; what a bridge does is the network crate's.

use std::sync::Arc;

use cabin_api::ConfigMap;
use cabin_api::network as api;
use cabin_api::storage::ConfigPut;
use cabin_network::{InterfaceState, LeaseKind, LinkType};
use cabin_store::{Versioned, rows};
use cabin_undo::{atomically, fault};
use serde_json::{Value, json};

use crate::warning::Trouble;
use crate::{DEFAULT_PROJECT, Error, Host, etag, instance, limits, resolve};

const WHAT: &str = "network";

/// Makes every network usable again after the daemon or the host started. One that cannot be makes only
/// itself unavailable.
///
/// # Errors
/// When the rows cannot be read.
pub(crate) fn ensure_all(host: &Host) -> Result<(), Error> {
    for found in host.store().rows::<rows::Network>().list(DEFAULT_PROJECT)? {
        let ensured = resolve::bridge(&found.name, &found.row)
            .and_then(|spec| Ok(host.network().ensure_bridge(&spec)?));
        if let Err(error) = ensured {
            tracing::error!(network = found.name, error = %error.report(), "network is unavailable");
            let entity = format!("/1.0/networks/{}", found.name);
            host.warnings().raise(Trouble::Network, &entity, &error.report());
        }
    }
    Ok(())
}

/// Removes bridges that no row knows: what a daemon left that died while it made or renamed one.
///
/// # Errors
/// When the rows cannot be read. A bridge that cannot be removed is only logged.
pub(crate) fn sweep(host: &Host) -> Result<(), Error> {
    let known = host.store().rows::<rows::Network>().list(DEFAULT_PROJECT)?;
    for name in host.network().marked()?.bridges {
        if !known.iter().any(|network| network.name == name.as_str()) {
            match host.network().destroy_bridge(&name) {
                Ok(()) => tracing::info!(network = %name, "a stray bridge was removed"),
                Err(error) => {
                    let error = Error::from(error);
                    tracing::warn!(network = %name, error = %error.report(), "a stray bridge cannot be removed");
                }
            }
        }
    }
    Ok(())
}

/// Takes every network's bridge away, not its row.
pub(crate) fn take_down_all(host: &Host) {
    // Whoever is putting one right ends first, and begins no more.
    let _alone = host.change_layout();
    let found = host.store().rows::<rows::Network>().list(DEFAULT_PROJECT);
    for network in found.unwrap_or_default() {
        let gone =
            resolve::interface(&network.name).and_then(|name| Ok(host.network().destroy_bridge(&name)?));
        if let Err(error) = gone {
            tracing::warn!(network = network.name, error = %error.report(), "network could not be taken down");
        }
    }
}

fn load(host: &Host, name: &str) -> Result<Versioned<rows::Network>, Error> {
    let found = host.store().rows::<rows::Network>().get(DEFAULT_PROJECT, name)?;
    found.ok_or_else(|| Error::not_found(WHAT, name))
}

fn address(name: &str) -> String {
    format!("/1.0/networks/{name}")
}

/// Who uses which network: instances by their expanded devices, profiles by their own.
fn used_by(host: &Host) -> Result<Vec<(String, String)>, Error> {
    let profiles = instance::profiles(host, DEFAULT_PROJECT)?;
    let mut used = Vec::new();
    let mut note = |devices: &rows::Devices, user: String| {
        for device in devices.values() {
            if let Some(network) = device.get("network").or_else(|| device.get("parent")) {
                used.push((network.clone(), user.clone()));
            }
        }
    };
    for found in host.store().rows::<rows::Instance>().list(DEFAULT_PROJECT)? {
        note(&instance::expand(&found.row, &profiles).devices, format!("/1.0/instances/{}", found.name));
    }
    for (name, profile) in &profiles {
        note(&profile.devices, format!("/1.0/profiles/{name}"));
    }
    Ok(used)
}

fn render(found: Versioned<rows::Network>, used: &[(String, String)]) -> api::Network {
    api::Network {
        config: ConfigMap(found.row.config),
        description: found.row.description,
        kind: found.row.kind,
        used_by: used.iter().filter(|(name, _)| *name == found.name).map(|(_, user)| user.clone()).collect(),
        name: found.name,
        managed: true,
        status: "Created".to_owned(),
        locations: vec!["none".to_owned()],
        project: DEFAULT_PROJECT.to_owned(),
    }
}

/// Every managed network, and the host's other interfaces.
///
/// # Errors
/// When the rows or the kernel's interfaces cannot be read.
pub fn list(host: &Host) -> Result<Vec<api::Network>, Error> {
    let used = used_by(host)?;
    let found = host.store().rows::<rows::Network>().list(DEFAULT_PROJECT)?;
    let mut networks: Vec<_> = found.into_iter().map(|network| render(network, &used)).collect();
    for interface in host.network().host_interfaces()? {
        let ours = networks.iter().any(|network| network.name == interface.name);
        if !ours && !interface.name.starts_with("cab") {
            let kind = network_type(&interface);
            networks.push(unmanaged(interface.name, kind));
        }
    }
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(networks)
}

/// What Incus calls an interface it does not manage.
fn network_type(interface: &InterfaceState) -> &'static str {
    match (interface.kind.as_deref(), interface.link) {
        (_, LinkType::Loopback) => "loopback",
        (Some("bridge"), _) => "bridge",
        (Some("vlan"), _) => "vlan",
        (Some("bond"), _) => "bond",
        (None, LinkType::Broadcast) => "physical",
        _ => "unknown",
    }
}

fn unmanaged(name: String, kind: &str) -> api::Network {
    api::Network {
        name,
        kind: kind.to_owned(),
        project: DEFAULT_PROJECT.to_owned(),
        ..api::Network::default()
    }
}

/// One network, or one of the host's other interfaces.
///
/// # Errors
/// When there is none of that name.
pub fn get(host: &Host, name: &str) -> Result<api::Network, Error> {
    match load(host, name) {
        Ok(found) => Ok(render(found, &used_by(host)?)),
        Err(missing) => match host.network().host_state(&resolve::interface(name).map_err(|_| missing)?)? {
            Some(interface) => {
                let kind = network_type(&interface);
                Ok(unmanaged(interface.name, kind))
            }
            None => Err(Error::not_found(WHAT, name)),
        },
    }
}

/// The tag of what PUT changes.
#[must_use]
pub fn tag(network: &api::Network) -> String {
    etag::etag(&(&network.name, network.managed, &network.kind, &network.description, &network.config))
}

/// Makes a network.
///
/// # Errors
/// For a bad or taken name, an unknown type or key, or when the host refuses.
pub fn create(host: &Arc<Host>, post: api::NetworksPost) -> Result<(), Error> {
    cabin_profiles::value::name::network(&post.name)?;
    let kind = if post.kind.is_empty() { "bridge".to_owned() } else { post.kind };
    let mut config = post.config.given();
    cabin_profiles::validate_network(&kind, &config)?;
    let _alone = host.change_layout();
    let present = host.store().rows::<rows::Network>().list(DEFAULT_PROJECT)?;
    if present.iter().any(|network| network.name == post.name) {
        return Err(Error::Exists { what: WHAT, name: post.name });
    }
    limits::one_more("networks", present.len(), limits::NETWORKS)?;
    if host.network().host_state(&resolve::interface(&post.name)?)?.is_some() {
        return Err(Error::Exists { what: "host interface", name: post.name });
    }
    resolve::resolve_auto(host, &mut config, true)?;
    let row = rows::Network { description: post.description, kind, config };
    let spec = resolve::bridge(&post.name, &row)?;
    atomically(|undo| -> Result<(), Error> {
        host.network().create_bridge(&spec, undo)?;
        host.store().begin().insert(DEFAULT_PROJECT, &post.name, &row)?.commit()?;
        Ok(())
    })?;
    host.events().lifecycle(
        DEFAULT_PROJECT,
        "network-created",
        &address(&post.name),
        &post.name,
        Value::Null,
        None,
    );
    Ok(())
}

/// Replaces a network's config, live. If the host refuses, the old one is put back.
///
/// # Errors
/// When there is none, somebody else changed it, or the config makes no sense.
pub fn update(host: &Arc<Host>, name: &str, put: ConfigPut, if_match: Option<&str>) -> Result<(), Error> {
    replace(host, name, if_match, |_| Ok(put))
}

fn replace(
    host: &Arc<Host>,
    name: &str,
    if_match: Option<&str>,
    new: impl FnOnce(rows::Network) -> Result<ConfigPut, Error>,
) -> Result<(), Error> {
    let _alone = host.change_layout();
    let old = load(host, name)?;
    etag::check(WHAT, name, &tag(&render(old.clone(), &[])), if_match)?;
    let put = new(old.row.clone())?;
    let mut config = put.config.given();
    cabin_profiles::validate_network(&old.row.kind, &config)?;
    resolve::resolve_auto(host, &mut config, false)?;
    let row = rows::Network { description: put.description, kind: old.row.kind.clone(), config };
    let (before, after) = (resolve::bridge(name, &old.row)?, resolve::bridge(name, &row)?);
    atomically(|undo| -> Result<(), Error> {
        let (again, old_spec, new_spec) = (host.clone(), before.clone(), after.clone());
        // Recorded first: the change has many steps, and the inverse puts right whichever were done.
        undo.push(format!("bridge `{name}` as it was"), move || -> Result<(), Error> {
            if again.network().update_bridge(&new_spec, &old_spec).is_err() {
                again.network().ensure_bridge(&old_spec)?;
            }
            ensure_ports(&again, &old_spec)
        })?;
        host.network().update_bridge(&before, &after)?;
        fault::pass("bridge changed")?;
        ensure_ports(host, &after)?;
        fault::pass("ports changed")?;
        host.store().begin().update(DEFAULT_PROJECT, name, old.revision, &row)?.commit()?;
        Ok(())
    })?;
    host.events().lifecycle(DEFAULT_PROJECT, "network-updated", &address(name), name, Value::Null, None);
    Ok(())
}

/// Puts the ports of running instances right after their bridge changed. One that somebody took away does not
/// hold up the others.
pub(crate) fn ensure_ports(host: &Host, spec: &cabin_network::BridgeSpec) -> Result<(), Error> {
    for live in host.live().list().into_iter().filter(|live| live.exit().is_none()) {
        for plugged in
            live.nics.lock().iter().filter(|plugged| plugged.network.as_deref() == Some(spec.name.as_str()))
        {
            match host.network().ensure_port(spec, &plugged.nic) {
                Err(cabin_network::Error::NoLink { name }) if name == plugged.nic.host_name => {}
                other => other.map(drop)?,
            }
        }
    }
    Ok(())
}

/// Merges into a network's config.
///
/// # Errors
/// As [`update`].
pub fn patch(host: &Arc<Host>, name: &str, body: Value, if_match: Option<&str>) -> Result<(), Error> {
    replace(host, name, if_match, |old| merged(old.config, old.description, body))
}

/// A PATCH body laid over what is there.
pub(crate) fn merged(mut config: rows::Config, description: String, body: Value) -> Result<ConfigPut, Error> {
    let named = body.get("description").is_some();
    let sent: ConfigPut = serde_json::from_value(body).map_err(|source| Error::Body { source })?;
    config.extend(sent.config.0);
    config.retain(|_, value| !value.is_empty());
    let description = if named { sent.description } else { description };
    Ok(ConfigPut { config: ConfigMap(config), description })
}

/// Gives an unused network another name.
///
/// # Errors
/// When there is none, it is in use, or the new name is bad or taken.
pub fn rename(host: &Arc<Host>, name: &str, new: &str) -> Result<(), Error> {
    cabin_profiles::value::name::network(new)?;
    let _alone = host.change_layout();
    let old = load(host, name)?;
    refuse_used(host, name)?;
    if host.network().host_state(&resolve::interface(new)?)?.is_some() {
        return Err(Error::Exists { what: "host interface", name: new.to_owned() });
    }
    let (before, after) = (resolve::bridge(name, &old.row)?, resolve::bridge(new, &old.row)?);
    atomically(|undo| -> Result<(), Error> {
        remove_bridge(host, &before, undo)?;
        host.network().create_bridge(&after, undo)?;
        host.store()
            .begin()
            .check::<rows::Network>(DEFAULT_PROJECT, name, Some(old.revision))
            .remove::<rows::Network>(DEFAULT_PROJECT, name)
            .insert(DEFAULT_PROJECT, new, &old.row)?
            .commit()?;
        Ok(())
    })?;
    let context = json!({ "old_name": name });
    host.events().lifecycle(DEFAULT_PROJECT, "network-renamed", &address(new), new, context, None);
    Ok(())
}

/// Removes a bridge so that a failure later on brings it back. Nothing uses it, so nothing notices.
fn remove_bridge(
    host: &Arc<Host>,
    spec: &cabin_network::BridgeSpec,
    undo: &mut cabin_undo::Undo,
) -> Result<(), Error> {
    let (again, gone) = (host.clone(), spec.clone());
    undo.push(format!("bridge `{}`", spec.name), move || again.network().ensure_bridge(&gone))?;
    host.network().destroy_bridge(&spec.name)?;
    fault::pass("bridge removed")?;
    Ok(())
}

fn refuse_used(host: &Host, name: &str) -> Result<(), Error> {
    match used_by(host)?.into_iter().find(|(network, _)| network == name) {
        Some((_, by)) => Err(Error::InUse { what: WHAT, name: name.to_owned(), by }),
        None => Ok(()),
    }
}

/// Deletes an unused network.
///
/// # Errors
/// When there is none, it is in use, or the host refuses.
pub fn delete(host: &Arc<Host>, name: &str) -> Result<(), Error> {
    let _alone = host.change_layout();
    let old = load(host, name)?;
    refuse_used(host, name)?;
    atomically(|undo| -> Result<(), Error> {
        // The bridge first: a network that could not be taken down can be deleted again.
        remove_bridge(host, &resolve::bridge(name, &old.row)?, undo)?;
        host.store()
            .begin()
            .check::<rows::Network>(DEFAULT_PROJECT, name, Some(old.revision))
            .remove::<rows::Network>(DEFAULT_PROJECT, name)
            .commit()?;
        Ok(())
    })?;
    host.warnings().forget(&address(name));
    host.events().lifecycle(DEFAULT_PROJECT, "network-deleted", &address(name), name, Value::Null, None);
    Ok(())
}

/// The addresses a network has given out.
///
/// # Errors
/// When there is no such managed network.
pub fn leases(host: &Host, name: &str) -> Result<Vec<api::Lease>, Error> {
    load(host, name)?;
    let found = host.network().leases(&resolve::interface(name)?)?;
    Ok(found
        .into_iter()
        .map(|lease| api::Lease {
            hostname: lease.hostname.unwrap_or_default(),
            hwaddr: lease.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            address: lease.address.to_string(),
            kind: match lease.kind {
                LeaseKind::Static => "static",
                LeaseKind::Dynamic => "dynamic",
                LeaseKind::Gateway => "gateway",
            }
            .to_owned(),
            location: "none".to_owned(),
            project: DEFAULT_PROJECT.to_owned(),
        })
        .collect())
}

/// The addresses that the managed networks have, and those they have given out.
///
/// # Errors
/// When the rows or the leases cannot be read.
pub fn allocations(host: &Host) -> Result<Vec<api::Allocation>, Error> {
    let mut found = Vec::new();
    for network in host.store().rows::<rows::Network>().list(DEFAULT_PROJECT)? {
        let config = &network.row.config;
        let nat = |address: &str| {
            resolve::is_true(config, if address.contains(':') { "ipv6.nat" } else { "ipv4.nat" })
        };
        let one = |address: &str, used_by: String, kind: &str, hwaddr: String| api::Allocation {
            address: address.to_owned(),
            used_by,
            kind: kind.to_owned(),
            nat: nat(address),
            hwaddr,
            network: network.name.clone(),
        };
        for key in ["ipv4.address", "ipv6.address"] {
            if let Some(address) = config.get(key).filter(|address| address.contains('/')) {
                found.push(one(address, format!("/1.0/networks/{}", network.name), "network", String::new()));
            }
        }
        for lease in leases(host, &network.name)?.into_iter().filter(|lease| lease.kind != "gateway") {
            let bits = if lease.address.contains(':') { 128 } else { 32 };
            let user = format!("/1.0/instances/{}", lease.hostname);
            found.push(one(&format!("{}/{bits}", lease.address), user, "instance", lease.hwaddr));
        }
    }
    Ok(found)
}

/// What a network's interface does now.
///
/// # Errors
/// When there is no such interface.
pub fn state(host: &Host, name: &str) -> Result<api::NetworkState, Error> {
    let found = host.network().host_state(&resolve::interface(name)?)?;
    let interface = found.ok_or_else(|| Error::not_found(WHAT, name))?;
    let shown = instance::rendered_interface(interface);
    Ok(api::NetworkState {
        addresses: shown.addresses,
        counters: shown.counters,
        hwaddr: shown.hwaddr,
        mtu: shown.mtu,
        state: shown.state,
        kind: shown.kind,
    })
}
