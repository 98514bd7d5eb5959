//! Nic devices as veth pairs on bridges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use cabin_network::{BridgeSpec, DnsLabel, Filter, Isolation, Mac, NicSpec, Rates};
use cabin_profiles::value::{address, number, size};
use cabin_store::rows::{self, Config, Devices};
use cabin_undo::Undo;
use ipnet::IpNet;

use super::{bridge, interface, is_true};
use crate::instance::Expanded;
use crate::live::Plugged;
use crate::{DEFAULT_PROJECT, Error, Host};

/// The networks that nics name must exist.
///
/// # Errors
/// [`Error::NotFound`] for one that does not.
pub(crate) fn check_nics(host: &Host, devices: &Devices) -> Result<(), Error> {
    nic_devices(devices).try_for_each(|(name, device)| {
        let bridge = network_of(host, device)?.map(|(_, bridge)| bridge);
        match bridge.and_then(|bridge| wrong_route(&bridge, &routes(device).ok()?)) {
            Some(why) => Err(Error::invalid(format!("device `{name}`: {why}"))),
            None => Ok(()),
        }
    })
}

/// What is wrong with the networks behind a nic of a bridge.
fn wrong_route(bridge: &BridgeSpec, routes: &[IpNet]) -> Option<String> {
    let ipv4 = bridge.ipv4.as_ref().map(|side| IpAddr::V4(side.address.addr()));
    let ipv6 = bridge.ipv6.as_ref().map(|side| IpAddr::V6(side.address.addr()));
    let own = |route: &&IpNet| ipv4.iter().chain(&ipv6).any(|own| route.contains(own));
    if let Some(route) = routes.iter().find(own) {
        return Some(format!("`{route}` holds the address of network `{}` itself", bridge.name));
    }
    (ipv6.is_none() && routes.iter().any(|route| matches!(route, IpNet::V6(_))))
        .then(|| format!("`ipv6.routes` needs a network with IPv6, and `{}` has none", bridge.name))
}

fn routes(device: &Config) -> Result<Vec<IpNet>, Error> {
    let set = |key: &str| device.get(key).filter(|value| !value.is_empty());
    let ipv4 = set("ipv4.routes").map(|list| address::ipv4_routes(list)).transpose()?;
    let ipv6 = set("ipv6.routes").map(|list| address::ipv6_routes(list)).transpose()?;
    let ipv4 = ipv4.unwrap_or_default().into_iter().map(IpNet::V4);
    Ok(ipv4.chain(ipv6.unwrap_or_default().into_iter().map(IpNet::V6)).collect())
}

fn rates(device: &Config) -> Result<Rates, Error> {
    let rate = |key: &str| -> Result<Option<u64>, Error> {
        let set = device.get("limits.max").filter(|rate| !rate.is_empty()).or_else(|| device.get(key));
        Ok(set.filter(|rate| !rate.is_empty()).map(|rate| size::bits(rate)).transpose()?)
    };
    Ok(Rates { inward: rate("limits.ingress")?, outward: rate("limits.egress")? })
}

fn nic_devices(devices: &Devices) -> impl Iterator<Item = (&String, &Config)> {
    devices.iter().filter(|(_, device)| device.get("type").is_some_and(|kind| kind == "nic"))
}

fn network_of(host: &Host, device: &Config) -> Result<Option<(String, BridgeSpec)>, Error> {
    if device.get("nictype").is_some_and(|kind| kind == "p2p") {
        return Ok(None);
    }
    let name = device.get("network").or_else(|| device.get("parent")).cloned().unwrap_or_default();
    let spec = bridge_of(host, &name)?;
    Ok(Some((name, spec)))
}

/// The bridge of a network.
///
/// # Errors
/// [`Error::NotFound`] when there is no such network; when its config makes no sense.
pub(crate) fn bridge_of(host: &Host, network: &str) -> Result<BridgeSpec, Error> {
    let found = host.store().rows::<rows::Network>().get(DEFAULT_PROJECT, network)?;
    bridge(network, &found.ok_or_else(|| Error::not_found("network", network))?.row)
}

/// A nic of an instance, with the bridge it hangs on. None is for a pair of which the host keeps the other end.
pub(crate) type Nic = (Option<BridgeSpec>, Plugged);

/// The nics of an instance, those left out that are not attached now.
///
/// # Errors
/// When a value makes no sense, or a network is not there.
pub(crate) fn nics(
    host: &Host,
    name: &str,
    row: &rows::Instance,
    expanded: &Expanded,
) -> Result<Vec<Nic>, Error> {
    let mut found = all_nics(host, name, row, expanded)?;
    let devices = &expanded.devices;
    found.retain(|nic| devices.get(&nic.1.device).is_some_and(|device| unless_false(device, "attached")));
    Ok(found)
}

/// The nics of an instance, attached or not.
///
/// # Errors
/// As [`nics`].
pub(crate) fn all_nics(
    host: &Host,
    name: &str,
    row: &rows::Instance,
    expanded: &Expanded,
) -> Result<Vec<Nic>, Error> {
    let mut found = Vec::new();
    for (number, (device, properties)) in nic_devices(&expanded.devices).enumerate() {
        let (network, bridge) = network_of(host, properties)?.unzip();
        let nic = nic(host, name, row, device, properties, number)?;
        found.push((bridge, Plugged { device: device.clone(), network, nic }));
    }
    Ok(found)
}

fn on_bridges(
    host: &Host,
    name: &str,
    row: &rows::Instance,
    expanded: &Expanded,
) -> Result<impl Iterator<Item = (BridgeSpec, Plugged)>, Error> {
    let all = all_nics(host, name, row, expanded)?;
    Ok(all.into_iter().filter_map(|(bridge, plugged)| Some((bridge?, plugged))))
}

/// Keeps the fixed addresses of an instance for it, also while it does not run: nobody else is given them.
///
/// # Errors
/// When an address is taken or lies outside its network.
pub(crate) fn reserve_fixed(
    host: &Arc<Host>,
    name: &str,
    row: &rows::Instance,
    expanded: &Expanded,
    undo: &mut Undo,
) -> Result<(), Error> {
    for place in fixed_nics(host, name, row, expanded)? {
        reserve_one(host, &place, false, undo)?;
    }
    Ok(())
}

/// The nics of an instance that have fixed addresses, attached or not.
///
/// # Errors
/// As [`nics`].
pub(crate) fn fixed_nics(
    host: &Host,
    name: &str,
    row: &rows::Instance,
    expanded: &Expanded,
) -> Result<Vec<Place>, Error> {
    Ok(on_bridges(host, name, row, expanded)?.filter(|(_, it)| has_fixed(&it.nic)).collect())
}

/// What an instance is, by its name, its row, and that with its profiles under it.
pub(crate) type Stand<'a> = (&'a str, &'a rows::Instance, &'a Expanded);

/// The fixed addresses of a stopped instance follow a change of its devices or its name.
///
/// # Errors
/// When an address is taken or lies outside its network.
pub(crate) fn move_fixed(
    host: &Arc<Host>,
    old: Stand<'_>,
    new: Stand<'_>,
    undo: &mut Undo,
) -> Result<(), Error> {
    move_all_fixed(host, FixedMove::of(host, old, new)?, undo)
}

/// The nics of a stopped instance before a change of its fixed addresses, and those that have some after it.
pub(crate) struct FixedMove {
    instance: String,
    old: Vec<Place>,
    new: Vec<Place>,
}

impl FixedMove {
    /// None when none of them changes.
    ///
    /// # Errors
    /// When a value makes no sense, or a network is not there.
    pub fn of(host: &Host, old: Stand<'_>, new: Stand<'_>) -> Result<Option<FixedMove>, Error> {
        let same = fixed_devices(old.2).eq(fixed_devices(new.2)) && made_up(old.1).eq(made_up(new.1));
        if old.0 == new.0 && same {
            return Ok(None);
        }
        let instance = old.0.to_owned();
        let (old, new) =
            (on_bridges(host, old.0, old.1, old.2)?.collect(), fixed_nics(host, new.0, new.1, new.2)?);
        Ok(Some(FixedMove { instance, old, new }))
    }
}

/// Moves the fixed addresses of stopped instances together: they may exchange them.
///
/// # Errors
/// When an address is taken or lies outside its network.
pub(crate) fn move_all_fixed(
    host: &Arc<Host>,
    moves: impl IntoIterator<Item = FixedMove>,
    undo: &mut Undo,
) -> Result<(), Error> {
    let (mut all_old, mut all_new) = (Vec::new(), Vec::new());
    for FixedMove { instance, old, new } in moves {
        let (again, had) = (host.clone(), old.clone());
        undo.push(format!("fixed addresses of `{instance}`"), move || -> Result<(), Error> {
            let mut had = had.iter().filter(|(_, plugged)| has_fixed(&plugged.nic));
            had.try_for_each(|(bridge, plugged)| {
                Ok(again.network().reserve(bridge, &plugged.nic).map(drop)?)
            })
        })?;
        all_old.extend(old);
        all_new.extend(new);
    }
    // What stays a nic's is changed in place: on a full disk what was given up could not be had back. Of nics that
    // exchange their addresses each gives its own up first.
    let (stays, goes): (Vec<_>, Vec<_>) = all_old.iter().partition(|one| {
        let (same, others): (Vec<_>, Vec<_>) = all_new.iter().partition(|other| is_same(one, other));
        !same.is_empty() && !others.iter().any(|other| clash(one, other))
    });
    for (bridge, plugged) in goes {
        host.network().release_own(&bridge.name, &plugged.nic)?;
    }
    for place in &all_new {
        let had = stays.iter().any(|one| has_fixed(&one.1.nic) && is_same(one, place));
        reserve_one(host, place, had, undo)?;
    }
    Ok(())
}

/// Keeps the fixed addresses of one nic. What it had is not given up when this is taken back, but changed again.
fn reserve_one(host: &Arc<Host>, place: &Place, had: bool, undo: &mut Undo) -> Result<(), Error> {
    let (bridge, plugged) = place;
    host.network().reserve(bridge, &plugged.nic)?;
    if !had {
        let (host, bridge, nic) = (host.clone(), bridge.name.clone(), plugged.nic.clone());
        let what = format!("addresses of `{}`", plugged.device);
        undo.push(what, move || host.network().release_own(&bridge, &nic))?;
    }
    Ok(())
}

/// Whether it has an address that is its own also while its instance is stopped.
pub(crate) fn has_fixed(nic: &NicSpec) -> bool {
    nic.ipv4.is_some() || nic.ipv6.is_some()
}

/// Those of which an address may be fixed.
fn fixed_devices(expanded: &Expanded) -> impl Iterator<Item = (&String, &Config)> {
    let says = |device: &Config, key: &str| device.get(key).is_some_and(|address| !address.is_empty());
    nic_devices(&expanded.devices)
        .filter(move |(_, device)| says(device, "ipv4.address") || says(device, "ipv6.address"))
}

/// A nic, and the bridge it is to be plugged into.
pub(crate) type Place = (BridgeSpec, Plugged);

fn is_same(one: &Place, other: &Place) -> bool {
    one.0.name == other.0.name && one.1.nic.mac == other.1.nic.mac
}

/// Whether two nics of one bridge want the same address.
fn clash(one: &Place, other: &Place) -> bool {
    let (a, b) = (&one.1.nic, &other.1.nic);
    one.0.name == other.0.name
        && (a.ipv4.is_some() && a.ipv4 == b.ipv4 || a.ipv6.is_some() && a.ipv6 == b.ipv6)
}

/// The MACs that devices without one of their own have.
fn made_up(row: &rows::Instance) -> impl Iterator<Item = (&String, &String)> {
    row.config.iter().filter(|(key, _)| key.starts_with("volatile.") && key.ends_with(".hwaddr"))
}

/// Gives up what is kept for the nics of an instance.
///
/// # Errors
/// When what is kept cannot be changed.
pub(crate) fn release_fixed(
    host: &Host,
    name: &str,
    row: &rows::Instance,
    expanded: &Expanded,
) -> Result<(), Error> {
    let each = on_bridges(host, name, row, expanded)?
        .map(|(bridge, plugged)| host.network().release_own(&bridge.name, &plugged.nic));
    Ok(each.fold(Ok(()), Result::and)?)
}

fn nic(
    host: &Host,
    instance: &str,
    row: &rows::Instance,
    device: &str,
    properties: &Config,
    number: usize,
) -> Result<NicSpec, Error> {
    let mac_key = format!("volatile.{device}.hwaddr");
    let mac = properties.get("hwaddr").or_else(|| row.config.get(&mac_key)).cloned().unwrap_or_default();
    let guest = properties.get("name").cloned().unwrap_or_else(|| format!("eth{number}"));
    let label: DnsLabel = instance.parse()?;
    Ok(NicSpec {
        instance: label,
        host_name: interface(&host_name(host, instance, device, properties))?,
        guest_name: interface(&guest)?,
        mac: Mac(address::mac(&mac)?),
        mtu: properties.get("mtu").and_then(|mtu| mtu.parse().ok()),
        queue: properties.get("queue.tx.length").and_then(|packets| packets.parse().ok()),
        ipv4: fixed::<Ipv4Addr>(properties, "ipv4.address")?,
        ipv6: fixed::<Ipv6Addr>(properties, "ipv6.address")?,
        filter: Filter {
            mac: unless_false(properties, "security.mac_filtering"),
            ipv4: unless_false(properties, "security.ipv4_filtering"),
            ipv6: unless_false(properties, "security.ipv6_filtering"),
        },
        isolation: match is_true(properties, "security.port_isolation") {
            true => Isolation::Isolated,
            false => Isolation::Shared,
        },
        routes: routes(properties)?,
        rates: rates(properties)?,
        priority: properties.get("limits.priority").and_then(|priority| priority.parse().ok()),
    })
}

fn unless_false(properties: &Config, key: &str) -> bool {
    properties.get(key).is_none_or(|value| number::boolean(value).unwrap_or(true))
}

fn fixed<A: std::str::FromStr>(properties: &Config, key: &str) -> Result<Option<A>, Error> {
    match properties.get(key).map(String::as_str) {
        None | Some("" | "none") => Ok(None),
        Some(text) => match text.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => Err(Error::invalid(format!("`{text}` is not an address for `{key}`"))),
        },
    }
}

/// The host's end is named by daemon, instance and device, so that a stray can be told from ours and two
/// daemons never meet: `cab` and ten hex digits.
fn host_name(host: &Host, instance: &str, device: &str, properties: &Config) -> String {
    if let Some(name) = properties.get("host_name").filter(|name| !name.is_empty()) {
        return name.clone();
    }
    let text = format!("{}/{instance}/{device}", host.settings().prefix);
    format!("cab{}", &cabin_images::digest(text.as_bytes())[..10])
}
