//! Frames as a guest could write them, byte by byte. The last four bytes, behind what any protocol looks
//! at, are `CB` and a number by which a listener knows the frame.

use std::net::{Ipv4Addr, Ipv6Addr};

pub type Mac = [u8; 6];

pub fn marked(mut frame: Vec<u8>, mark: u16) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame.extend_from_slice(b"CB");
    frame.extend_from_slice(&mark.to_be_bytes());
    frame
}

pub fn ether(to: Mac, from: Mac, kind: u16, body: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), body].concat()
}

pub fn vlan(id: u16, kind: u16, body: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &kind.to_be_bytes(), body].concat()
}

pub fn arp(op: u16, mac: Mac, ip: &str, target: &str) -> Vec<u8> {
    let v4 = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    [&[0, 1, 8, 0, 6, 4][..], &op.to_be_bytes(), &mac, &v4(ip), &[0; 6], &v4(target)].concat()
}

pub fn ipv4(from: &str, to: &str, proto: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
    let v4 = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    let len = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    let head = [0x45, 0, len[0], len[1], 0, 1];
    let mut head = [&head[..], &fragment.to_be_bytes(), &[64, proto, 0, 0], &v4(from), &v4(to)].concat();
    // Where br_netfilter is on, the bridge itself drops a header whose sum is wrong.
    let sum: u32 = head.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    head[10..12].copy_from_slice(&(!folded).to_be_bytes());
    [&head[..], body].concat()
}

pub fn udp(from: u16, to: u16, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + body.len()).unwrap();
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &len.to_be_bytes(), &[0, 0], body].concat()
}

/// A DHCP message: what it is from byte 0 on, the relay, the hardware address.
pub fn dhcp(head: [u8; 4], relay: [u8; 4], mac: Mac) -> Vec<u8> {
    let mut body = vec![0u8; 240];
    body[..4].copy_from_slice(&head);
    body[24..28].copy_from_slice(&relay);
    body[28..34].copy_from_slice(&mac);
    body[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    body.extend_from_slice(&[53, 1, 1, 255]);
    body
}

pub fn ipv6(from: &str, to: &str, next: u8, body: &[u8]) -> Vec<u8> {
    let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], next, 255][..], &v6(from), &v6(to), body].concat()
}

pub fn icmp6(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0][..], body].concat()
}

/// A neighbour solicitation (135) or advertisement (136) with these options.
pub fn neighbour(kind: u8, target: &str, options: &[(u8, Mac)]) -> Vec<u8> {
    let mut body = vec![0u8; 4];
    body.extend_from_slice(&target.parse::<Ipv6Addr>().unwrap().octets());
    for (option, mac) in options {
        body.extend_from_slice(&[*option, 1]);
        body.extend_from_slice(mac);
    }
    icmp6(kind, &body)
}
