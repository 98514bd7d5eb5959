//! Leases: what the server gave out, read from its file, and given back when a nic goes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};

use crate::name::{IfName, Mac};

/// An address somebody holds on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The holder's name, if it has one.
    pub hostname: Option<String>,
    /// The holder's Ethernet address; with DHCPv6 it may be unknown.
    pub mac: Option<Mac>,
    /// The address.
    pub address: IpAddr,
    /// How it came to it.
    pub kind: LeaseKind,
}

/// How a holder came to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseKind {
    /// It is the bridge's own.
    Gateway,
    /// It was fixed.
    Static,
    /// The server gave it.
    Dynamic,
}

/// One line of the server's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The holder (none for IPv6, where the file has no Ethernet address).
    pub mac: Option<Mac>,
    /// The address.
    pub address: IpAddr,
    /// The name the server knows it by.
    pub hostname: Option<String>,
    /// The holder's client identifier, as bytes.
    pub client: Option<Vec<u8>>,
}

/// The leases in the text of dnsmasq's file; lines of another form are left out.
pub fn parse(text: &str) -> Vec<Given> {
    text.lines().filter_map(line).collect()
}

/// The lease of a MAC, looked for in the text as it is: of a thousand lines one is of interest.
pub fn of(text: &str, mac: Mac) -> Option<Given> {
    lines_with(text, &mac.to_string()).filter_map(line).find(|given| given.mac == Some(mac))
}

/// Whether an address is given to somebody else than that MAC.
pub fn is_given_to_others(text: &str, address: Ipv4Addr, mac: Mac) -> bool {
    let held = |given: Given| given.address == IpAddr::V4(address) && given.mac != Some(mac);
    lines_with(text, &address.to_string()).filter_map(line).any(held)
}

/// The lines that hold a word.
fn lines_with<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(word).filter_map(move |(at, _)| {
        let begin = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
        text.get(begin..)?.lines().next()
    })
}

fn line(line: &str) -> Option<Given> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [_expiry, holder, address, name, client, ..] = fields[..] else { return None };
    Some(Given {
        mac: holder.parse().ok(),
        address: address.parse().ok()?,
        hostname: (name != "*").then(|| name.to_owned()),
        client: client.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect(),
    })
}

/// Tells the server that a holder gives its address back (DHCPRELEASE), in the holder's place.
pub fn release(bridge: &IfName, server: Ipv4Addr, mac: Mac, given: &Given) -> io::Result<()> {
    let IpAddr::V4(address) = given.address else { return Ok(()) };
    let mut packet = vec![0u8; 240];
    packet[..3].copy_from_slice(&[1, 1, 6]);
    packet[4..8].copy_from_slice(&rand::random::<[u8; 4]>());
    packet[12..16].copy_from_slice(&address.octets());
    packet[28..34].copy_from_slice(&mac.0);
    packet[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    packet.extend_from_slice(&[53, 1, 7, 54, 4]);
    packet.extend_from_slice(&server.octets());
    if let Some((client, len)) = given.client.as_ref().and_then(|c| Some((c, u8::try_from(c.len()).ok()?))) {
        packet.extend_from_slice(&[61, len]);
        packet.extend_from_slice(client);
    }
    packet.push(255);
    packet.resize(packet.len().max(300), 0);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Looped back, it still counts as come from the bridge: the server listens only there.
    let device = std::ffi::OsString::from(bridge.as_str());
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::BindToDevice, &device)?;
    socket.send_to(&packet, SocketAddrV4::new(server, 67))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_file_is_read_and_broken_lines_left_out() {
        let text = "1700000000 00:16:3e:11:22:33 10.1.2.9 web 01:00:16:3e:11:22:33\n\
                    1700000000 00:16:3e:11:22:34 10.1.2.10 * *\nduid 00:01:00:01\nrubbish\n\
                    1700000000 12345 fd42::9 web 00:01:00:01:aa\n";
        let found = parse(text);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].hostname.as_deref(), Some("web"));
        assert_eq!(found[0].client.as_deref(), Some(&[1, 0, 0x16, 0x3e, 0x11, 0x22, 0x33][..]));
        assert_eq!((found[1].hostname.as_ref(), found[1].client.as_ref()), (None, None));
        assert_eq!(found[2].mac, None);
        let mac: Mac = "00:16:3e:11:22:34".parse().unwrap();
        assert_eq!(of(text, mac).as_ref(), Some(&found[1]));
        assert_eq!(of(text, "00:16:3e:11:22:35".parse().unwrap()), None);
        let given = |address: &str| is_given_to_others(text, address.parse().unwrap(), mac);
        assert!(given("10.1.2.9"));
        assert!(!given("10.1.2.10"), "its own");
        assert!(!given("10.1.2.1"), "a beginning of another one");
    }
}
