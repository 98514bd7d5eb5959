//! A network's config as a bridge.

use cabin_network::{
    BridgeSpec, Dhcp4, Dhcp6, DnsMode, DnsSpec, Expiry, HostAccess, Ipv4Side, Ipv6Side, Mac, Nat, NatOrder,
};
use cabin_profiles::value::{address, number};
use cabin_store::rows::{self, Config};

use super::{interface, is_true};
use crate::{Error, Host};

/// The bridge a network row describes.
///
/// # Errors
/// When a value makes no sense.
pub(crate) fn bridge(name: &str, row: &rows::Network) -> Result<BridgeSpec, Error> {
    let config = &row.config;
    let spec = BridgeSpec {
        mtu: text(config, "bridge.mtu").and_then(|mtu| mtu.parse().ok()).unwrap_or(1500),
        mac: text(config, "bridge.hwaddr").map(|mac| address::mac(mac).map(Mac)).transpose()?,
        ipv4: ipv4(config)?,
        ipv6: ipv6(config)?,
        dns: dns(config)?,
        host_access: match text(config, "security.host_access") {
            Some("essential") => HostAccess::Essential,
            _ => HostAccess::Open,
        },
        raw_dnsmasq: text(config, "raw.dnsmasq").map(str::to_owned),
        ..BridgeSpec::bare(interface(name)?)
    };
    spec.check()?;
    Ok(spec)
}

fn text<'a>(config: &'a Config, key: &str) -> Option<&'a str> {
    config.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// A bool whose default is true.
fn unless_false(config: &Config, key: &str) -> bool {
    text(config, key).is_none_or(|value| number::boolean(value).unwrap_or(true))
}

fn expiry(config: &Config, key: &str) -> Result<Expiry, Error> {
    Ok(match text(config, key).map(number::lease_time).transpose()? {
        None => Expiry::default(),
        Some(None) => Expiry::Never,
        Some(Some(seconds)) => Expiry::Seconds(u32::try_from(seconds).unwrap_or(u32::MAX)),
    })
}

fn nat<A>(config: &Config, key: &str) -> Option<Nat<A>> {
    is_true(config, key).then_some(Nat { address: None, order: NatOrder::Before })
}

fn ipv4(config: &Config) -> Result<Option<Ipv4Side>, Error> {
    let Some(found) = text(config, "ipv4.address") else { return Ok(None) };
    let address::Subnet::At(net) = address::ipv4_subnet(found)? else { return Ok(None) };
    let dhcp = unless_false(config, "ipv4.dhcp").then(|| -> Result<Dhcp4, Error> {
        Ok(Dhcp4 {
            ranges: text(config, "ipv4.dhcp.ranges")
                .map(address::ipv4_ranges)
                .transpose()?
                .unwrap_or_default(),
            expiry: expiry(config, "ipv4.dhcp.expiry")?,
            gateway: text(config, "ipv4.dhcp.gateway").map(address::ipv4).transpose()?,
        })
    });
    Ok(Some(Ipv4Side {
        address: net,
        nat: nat(config, "ipv4.nat"),
        dhcp: dhcp.transpose()?,
        firewall: unless_false(config, "ipv4.firewall"),
        routing: unless_false(config, "ipv4.routing"),
    }))
}

fn ipv6(config: &Config) -> Result<Option<Ipv6Side>, Error> {
    let Some(found) = text(config, "ipv6.address") else { return Ok(None) };
    let address::Subnet::At(net) = address::ipv6_subnet(found)? else { return Ok(None) };
    let dhcp = if !unless_false(config, "ipv6.dhcp") {
        Dhcp6::Off
    } else if is_true(config, "ipv6.dhcp.stateful") {
        let ranges =
            text(config, "ipv6.dhcp.ranges").map(address::ipv6_ranges).transpose()?.unwrap_or_default();
        Dhcp6::Stateful { ranges, expiry: expiry(config, "ipv6.dhcp.expiry")? }
    } else {
        Dhcp6::Stateless
    };
    Ok(Some(Ipv6Side {
        address: net,
        nat: nat(config, "ipv6.nat"),
        dhcp,
        firewall: unless_false(config, "ipv6.firewall"),
        routing: unless_false(config, "ipv6.routing"),
    }))
}

fn dns(config: &Config) -> Result<DnsSpec, Error> {
    let domain = |text: &str| text.trim().parse().map_err(Error::from);
    Ok(DnsSpec {
        mode: match text(config, "dns.mode") {
            Some("none") => DnsMode::None,
            Some("dynamic") => DnsMode::Dynamic,
            _ => DnsMode::Managed,
        },
        domain: Some(domain(text(config, "dns.domain").unwrap_or("incus"))?),
        nameservers: text(config, "dns.nameservers").map(address::addresses).transpose()?.unwrap_or_default(),
        search: match text(config, "dns.search") {
            Some(list) => list.split(',').map(domain).collect::<Result<_, _>>()?,
            None => Vec::new(),
        },
    })
}

/// Chooses addresses where a new or changed network leaves them to us: `auto`, or nothing said.
///
/// # Errors
/// When no free subnet is left.
pub(crate) fn resolve_auto(host: &Host, config: &mut Config, new: bool) -> Result<(), Error> {
    for (family, wanted) in [("ipv4", "ipv4.address"), ("ipv6", "ipv6.address")] {
        let missing = text(config, wanted).is_none();
        if text(config, wanted) != Some("auto") && !(new && missing) {
            continue;
        }
        let chosen = match family {
            "ipv4" => host.network().free_ipv4_subnet()?.to_string(),
            _ => host.network().free_ipv6_subnet()?.to_string(),
        };
        config.insert(wanted.to_owned(), chosen);
        config.entry(format!("{family}.nat")).or_insert("true".to_owned());
    }
    Ok(())
}
