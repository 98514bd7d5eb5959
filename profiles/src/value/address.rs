//! Addresses: MAC, IPv4, IPv6, subnets and ranges of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::Invalid;

/// Reads a MAC address of one station: six pairs of hex digits with `:` between.
///
/// # Errors
/// When it is not that, is a group address (first byte odd), or all zero.
pub fn mac(text: &str) -> Result<[u8; 6], Invalid> {
    let wrong = || Invalid::new(text, "a MAC address such as `10:66:6a:01:02:03`");
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
        if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    if parts.next().is_some() {
        return Err(wrong());
    }
    if bytes[0] & 1 == 1 || bytes == [0; 6] {
        return Err(Invalid::new(text, "the MAC address of one station"));
    }
    Ok(bytes)
}

/// A MAC address with `x` for each digit that is made up.
///
/// # Errors
/// When none can be made after it.
pub fn mac_pattern(text: &str) -> Result<(), Invalid> {
    let fixed = text.replace(['x', 'X'], "2");
    match mac(&fixed) {
        Ok(_) => Ok(()),
        Err(_) => Err(Invalid::new(text, "a pattern of MAC addresses such as `10:66:6a:xx:xx:xx`")),
    }
}

/// A setting that is an address with its subnet, made up on creation, or switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subnet<Net> {
    /// `none`: this family is off.
    Off,
    /// `auto`: choose a free one.
    Auto,
    /// This address in this subnet.
    At(Net),
}

/// Reads the IPv4 address of a bridge: `auto`, `none`, or an address with its prefix length.
///
/// # Errors
/// When it is none of these, the prefix leaves no room for hosts, or the address is the network's own
/// or its broadcast, or no unicast address.
pub fn ipv4_subnet(text: &str) -> Result<Subnet<Ipv4Net>, Invalid> {
    let wrong =
        || Invalid::new(text, "an IPv4 address with its prefix such as `10.1.2.1/24`, `auto` or `none`");
    match text {
        "none" => Ok(Subnet::Off),
        "auto" => Ok(Subnet::Auto),
        _ => {
            let net: Ipv4Net = text.parse().map_err(|_| wrong())?;
            let host = net.addr() != net.network() && net.addr() != net.broadcast();
            let fits = (8..=30).contains(&net.prefix_len());
            if host && fits && unicast_v4(net.addr()) { Ok(Subnet::At(net)) } else { Err(wrong()) }
        }
    }
}

/// Reads the IPv6 address of a bridge: `auto`, `none`, or an address with its prefix length.
///
/// # Errors
/// When it is none of these, the prefix is not 8 to 126, or the address is no unicast host's.
pub fn ipv6_subnet(text: &str) -> Result<Subnet<Ipv6Net>, Invalid> {
    let wrong =
        || Invalid::new(text, "an IPv6 address with its prefix such as `fd42:1::1/64`, `auto` or `none`");
    match text {
        "none" => Ok(Subnet::Off),
        "auto" => Ok(Subnet::Auto),
        _ => {
            let net: Ipv6Net = text.parse().map_err(|_| wrong())?;
            let host = net.addr() != net.network();
            let fits = (8..=126).contains(&net.prefix_len());
            if host && fits && unicast_v6(net.addr()) { Ok(Subnet::At(net)) } else { Err(wrong()) }
        }
    }
}

fn unicast_v4(address: Ipv4Addr) -> bool {
    !address.is_multicast() && !address.is_loopback() && !address.is_unspecified() && !address.is_broadcast()
}

fn unicast_v6(address: Ipv6Addr) -> bool {
    !address.is_multicast()
        && !address.is_loopback()
        && !address.is_unspecified()
        && !address.is_unicast_link_local()
}

/// Reads the fixed IPv4 address of a nic; `none` (given as `None`) allows it none at all.
///
/// # Errors
/// When it is neither.
pub fn ipv4_host(text: &str) -> Result<Option<Ipv4Addr>, Invalid> {
    if text == "none" {
        return Ok(None);
    }
    match text.parse() {
        Ok(address) if unicast_v4(address) => Ok(Some(address)),
        _ => Err(Invalid::new(text, "an IPv4 address of a host, or `none`")),
    }
}

/// Reads the fixed IPv6 address of a nic; `none` (given as `None`) allows it none at all.
///
/// # Errors
/// When it is neither.
pub fn ipv6_host(text: &str) -> Result<Option<Ipv6Addr>, Invalid> {
    if text == "none" {
        return Ok(None);
    }
    match text.parse() {
        Ok(address) if unicast_v6(address) => Ok(Some(address)),
        _ => Err(Invalid::new(text, "an IPv6 address of a host, or `none`")),
    }
}

/// Reads one IPv4 address.
///
/// # Errors
/// When it is not one.
pub fn ipv4(text: &str) -> Result<Ipv4Addr, Invalid> {
    text.parse().map_err(|_| Invalid::new(text, "an IPv4 address"))
}

/// Reads a list of addresses of either family, with commas between.
///
/// # Errors
/// When one is no address.
pub fn addresses(text: &str) -> Result<Vec<IpAddr>, Invalid> {
    text.split(',').map(|part| part.trim().parse().map_err(|_| Invalid::new(part, "an IP address"))).collect()
}

/// The most networks one list of routes has.
const MOST_ROUTES: usize = 32;

/// Reads a list of IPv4 networks: `192.0.2.0/24,198.51.100.7/32`.
///
/// # Errors
/// When one is no network, all there is, or not of hosts; when there are more than 32, or one twice.
pub fn ipv4_routes(text: &str) -> Result<Vec<Ipv4Net>, Invalid> {
    routes(text, |net: &Ipv4Net| {
        net.addr() == net.network() && net.prefix_len() > 0 && unicast_v4(net.addr())
    })
}

/// Reads a list of IPv6 networks.
///
/// # Errors
/// As [`ipv4_routes`].
pub fn ipv6_routes(text: &str) -> Result<Vec<Ipv6Net>, Invalid> {
    routes(text, |net: &Ipv6Net| {
        net.addr() == net.network() && net.prefix_len() > 0 && unicast_v6(net.addr())
    })
}

fn routes<N: std::str::FromStr + PartialEq>(
    text: &str,
    is_good: impl Fn(&N) -> bool,
) -> Result<Vec<N>, Invalid> {
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim) {
        let net = part.parse().ok().filter(|net| is_good(net) && !found.contains(net));
        let wrong = "networks with their prefix, such as `192.0.2.0/24`, at most 32 and each once";
        found.push(net.filter(|_| found.len() < MOST_ROUTES).ok_or_else(|| Invalid::new(part, wrong))?);
    }
    Ok(found)
}

/// Reads a list of ranges of IPv4 addresses: `10.1.2.10-10.1.2.50,10.1.2.100-10.1.2.110`.
///
/// # Errors
/// When one is no range, or runs backwards.
pub fn ipv4_ranges(text: &str) -> Result<Vec<(Ipv4Addr, Ipv4Addr)>, Invalid> {
    ranges(text)
}

/// Reads a list of ranges of IPv6 addresses.
///
/// # Errors
/// When one is no range, or runs backwards.
pub fn ipv6_ranges(text: &str) -> Result<Vec<(Ipv6Addr, Ipv6Addr)>, Invalid> {
    ranges(text)
}

fn ranges<A: std::str::FromStr + PartialOrd>(text: &str) -> Result<Vec<(A, A)>, Invalid> {
    let range = |part: &str| {
        let (first, last) = part.trim().split_once('-')?;
        let (first, last): (A, A) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first <= last).then_some((first, last))
    };
    text.split(',')
        .map(|part| range(part).ok_or_else(|| Invalid::new(part, "a range of addresses, FIRST-LAST")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_is_of_one_station() {
        assert_eq!(mac("10:66:6a:01:02:FF"), Ok([0x10, 0x66, 0x6a, 1, 2, 0xff]));
        for text in [
            "",
            "10:66:6a:01:02",
            "10:66:6a:01:02:03:04",
            "1:66:6a:01:02:03",
            "10-66-6a-01-02-03",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "10:66:6a:01:02:0g",
            "10:66:6a:01:02:+3",
        ] {
            assert!(mac(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bridge_has_an_address_of_a_host() {
        let good = |text: &str| assert!(ipv4_subnet(text).is_ok(), "{text}");
        let bad = |text: &str| assert!(ipv4_subnet(text).is_err(), "{text}");
        ["none", "auto", "10.1.2.1/24", "192.168.0.9/30", "10.0.0.1/8"].into_iter().for_each(good);
        [
            "",
            "10.1.2.1",
            "10.1.2.0/24",
            "10.1.2.255/24",
            "10.1.2.1/31",
            "127.0.0.1/8",
            "224.0.0.1/8",
            "10.1.2.1/33",
            "fd42::1/64",
            "Auto",
        ]
        .into_iter()
        .for_each(bad);
        assert!(ipv6_subnet("fd42:1::1/64").is_ok());
        for text in
            ["fd42:1::/64", "fe80::1/64", "ff02::1/64", "::1/64", "fd42::1", "fd42::1/127", "10.1.2.1/24"]
        {
            assert!(ipv6_subnet(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_nic_has_an_address_or_none() {
        assert_eq!(ipv4_host("none"), Ok(None));
        assert_eq!(ipv4_host("10.1.2.3"), Ok(Some(Ipv4Addr::new(10, 1, 2, 3))));
        assert!(ipv4_host("10.1.2.3/24").is_err());
        assert!(ipv4_host("255.255.255.255").is_err());
        assert!(ipv6_host("fd42::5").is_ok());
        assert!(ipv6_host("fe80::5").is_err());
    }

    #[test]
    fn ranges_run_forwards() {
        assert_eq!(ipv4_ranges("10.0.0.2-10.0.0.9, 10.0.0.20-10.0.0.20").map(|list| list.len()), Ok(2));
        for text in ["", "10.0.0.9-10.0.0.2", "10.0.0.1", "10.0.0.1-fd42::1", "10.0.0.1-10.0.0.2,"] {
            assert!(ipv4_ranges(text).is_err(), "{text}");
        }
        assert!(ipv6_ranges("fd42::2-fd42::ff").is_ok());
        assert!(addresses("1.1.1.1, fd42::1").is_ok());
        assert!(addresses("1.1.1.1,").is_err());
    }
}
