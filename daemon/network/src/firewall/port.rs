//! The rules of one port: what a nic may send, checked on the host's end before the bridge sees the frame.
//!
//! The chain hangs at the device's ingress hook (family netdev), so nothing the guest sends passes
//! unlooked: no connection tracking, no earlier "established" rule (the mistake of CVE-2025-52889 and -52890).
//!
//! IPv4 is simple: the address is reserved before the port comes up, so it is known. With IPv6 the guest
//! makes its own addresses: what a frame says by itself is looked at here, and whether somebody else holds the address it
//! shows is looked up in the bridge's book ([`super::book`]). Addresses made from a MAC belong to that MAC from the start.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::book::{ADVERTISED, ND_TARGET, SENDER, SOURCE6, WANTED};
use super::rule::{Base, ETHER_SOURCE, ETHER_TARGET, ETHER_TYPE, Field, Meta, Rule};
use crate::name::Mac;
use crate::spec::Filter;

/// Frames to many (broadcast and multicast) that a port may send in a second, and at once: each goes to every other
/// port and to the host. Looking for neighbours, names and addresses takes a few.
const TO_MANY_PER_SECOND: u64 = 1000;
const TO_MANY_AT_ONCE: u32 = 1000;

/// The highest rate the kernel reckons with in nanoseconds, in bytes a second.
const MOST_BYTES: u64 = u64::MAX / 1_000_000_000;

const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;

const SOURCE4: Field = Field(Base::Network, 12, 4);
const LENGTH6: Field = Field(Base::Network, 4, 2);

/// What the host does for the guests of a bridge.
pub struct Serving {
    /// The bridge's own Ethernet address.
    pub mac: Mac,
    /// Its IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// Whether it gives out IPv4 addresses.
    pub dhcp: bool,
    /// Whether it sends router advertisements.
    pub advertises: bool,
}

/// What the rules of a port are made from.
pub struct Port<'a> {
    /// The guest's address.
    pub mac: Mac,
    /// What is checked.
    pub filter: Filter,
    /// The IPv4 address it has, if any.
    pub ipv4: Option<Ipv4Addr>,
    /// Networks behind it, whose addresses are its own.
    pub routes: &'a [IpNet],
    /// The priority of what it sends.
    pub priority: Option<u32>,
    /// Bits a second it may send.
    pub outward: Option<u64>,
    /// What the host answers itself.
    pub serving: Serving,
    /// The bridge's IPv6 prefix, if any.
    pub prefix6: Option<Ipv6Net>,
    /// What frames are marked with that have to be looked up in the bridge's book.
    pub book: u32,
}

impl Port<'_> {
    /// The rules, in order.
    pub fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if let Some(priority) = self.priority {
            rules.push(Rule::new().set_priority(priority));
        }
        if let Some(bits) = self.outward {
            rules.push(Rule::new().over_bytes_per_second((bits / 8).clamp(1, MOST_BYTES)).drop());
        }
        if !self.filter.pins_mac() {
            return rules;
        }
        rules.push(Rule::new().is_not(ETHER_SOURCE, &self.mac.0).drop());
        // Frames for bridges alone (spanning tree, LLDP, pause) are no business of a guest.
        rules.push(
            Rule::new()
                .masked_is(ETHER_TARGET, &[255, 255, 255, 255, 255, 0xf0], &[1, 0x80, 0xc2, 0, 0, 0])
                .drop(),
        );
        // The lowest bit of the first byte of the address sent to.
        rules.push(
            Rule::new()
                .masked_is(Field(Base::Link, 0, 1), &[1], &[1])
                .over_per_second(TO_MANY_PER_SECOND, TO_MANY_AT_ONCE)
                .drop(),
        );
        rules.push(arp().is_not(Field(Base::Network, 8, 6), &self.mac.0).drop());
        self.ask_the_host(&mut rules);
        if self.filter.ipv4 {
            self.ipv4_rules(&mut rules);
        }
        if self.filter.ipv6 {
            self.ipv6_rules(&mut rules);
        }
        if self.filter.ipv4 || self.filter.ipv6 {
            // What a filter looked at was let through by it; VLAN tags and other protocols would go round it.
            for kind in [ARP, IPV4].iter().filter(|_| !self.filter.ipv4) {
                rules.push(Rule::new().is(ETHER_TYPE, kind).accept());
            }
            if !self.filter.ipv6 {
                rules.push(ipv6().accept());
            }
            rules.push(Rule::new().drop());
        }
        rules
    }

    /// What only the host answers goes to it alone instead of to every port: with a thousand of them one such frame costs
    /// milliseconds. It also keeps a false DHCP server or router among the guests from hearing the questions.
    fn ask_the_host(&self, rules: &mut Vec<Rule>) {
        let Serving { mac, address, dhcp, advertises } = &self.serving;
        let to_all = |rule: Rule| rule.is(ETHER_TARGET, &[0xff; 6]);
        if let Some(address) = address {
            let request = to_all(arp()).is(Field(Base::Network, 6, 2), &[0, 1]);
            rules
                .push(request.is(Field(Base::Network, 24, 4), &address.octets()).write(ETHER_TARGET, &mac.0));
        }
        if *dhcp {
            let udp = to_all(ipv4()).is(Field(Base::Network, 9, 1), &[17]);
            rules.push(udp.is(Field(Base::Transport, 2, 2), &[0, 67]).write(ETHER_TARGET, &mac.0));
        }
        if *advertises {
            let solicitation = icmp6_type(133).is(ETHER_TARGET, &[0x33, 0x33, 0, 0, 0, 2]);
            rules.push(solicitation.write(ETHER_TARGET, &mac.0));
        }
    }

    fn ipv4_rules(&self, rules: &mut Vec<Rule>) {
        let routed = self.routes.iter().filter_map(|route| match route {
            IpNet::V4(route) => Some(*route),
            IpNet::V6(_) => None,
        });
        let own: Vec<Ipv4Net> = self.ipv4.map(Ipv4Net::from).into_iter().chain(routed).collect();
        let sent_from = |rule: Rule, at: u32, net: &Ipv4Net| {
            let field = Field(Base::Network, at, 4);
            match net.prefix_len() {
                32 => rule.is(field, &net.addr().octets()),
                _ => rule.masked_is(field, &net.netmask().octets(), &net.network().octets()),
            }
        };
        if let Some(address) = self.ipv4 {
            // Most of what is sent, and nothing below is about it.
            let tcp = ipv4().is(SOURCE4, &address.octets()).is(Field(Base::Network, 9, 1), &[6]);
            rules.push(tcp.accept());
        }
        if !own.is_empty() {
            rules.push(arp().is_not(Field(Base::Network, 0, 6), &[0, 1, 8, 0, 6, 4]).drop());
            rules.extend(own.iter().map(|net| sent_from(arp(), 14, net).accept()));
            let request = || arp().is(Field(Base::Network, 6, 2), &[0, 1]);
            rules.push(request().is(Field(Base::Network, 14, 4), &[0; 4]).accept());
            self.dhcp_rules(rules);
            rules.extend(own.iter().map(|net| sent_from(ipv4(), 12, net).accept()));
        }
        rules.push(arp().drop());
        rules.push(ipv4().drop());
    }

    /// DHCP: in one piece, from a client, for the own MAC and with its length, not through a relay.
    fn dhcp_rules(&self, rules: &mut Vec<Rule>) {
        let udp = || ipv4().is(Field(Base::Network, 9, 1), &[17]);
        let to_server = || udp().is(Field(Base::Transport, 2, 2), &[0, 67]);
        let fragment = Field(Base::Network, 6, 2);
        rules.push(to_server().masked_is_not(fragment, &[0x3f, 0xff], &[0, 0]).drop());
        rules.push(udp().is(Field(Base::Transport, 0, 2), &[0, 67]).drop());
        rules.push(to_server().is_not(Field(Base::Transport, 8, 3), &[1, 1, 6]).drop());
        rules.push(to_server().is_not(Field(Base::Transport, 32, 4), &[0; 4]).drop());
        rules.push(to_server().is_not(Field(Base::Transport, 36, 6), &self.mac.0).drop());
        rules.push(
            udp()
                .is(SOURCE4, &[0; 4])
                .is(Field(Base::Network, 16, 4), &[255; 4])
                .is(Field(Base::Transport, 0, 4), &[0, 68, 0, 67])
                .accept(),
        );
    }

    /// A rule about none of the IPv6 networks behind the nic.
    fn not_routed(&self, rule: Rule, address: Field) -> Rule {
        self.routes.iter().fold(rule, |rule, route| match route {
            IpNet::V6(net) => rule.masked_is_not(address, &net.netmask().octets(), &net.network().octets()),
            IpNet::V4(_) => rule,
        })
    }

    fn ipv6_rules(&self, rules: &mut Vec<Rule>) {
        // Neighbour discovery behind extension headers or in fragments is refused (RFC 6980).
        rules.push(
            icmp6()
                .between(Field(Base::Transport, 0, 1), &[133], &[137])
                .is_not(Field(Base::Network, 6, 1), &[ICMPV6])
                .drop(),
        );
        rules.push(icmp6_type(134).drop());
        rules.push(icmp6_type(137).drop());
        let udp = ipv6().meta_is(Meta::Transport, &[17]);
        rules.push(udp.is(Field(Base::Transport, 0, 2), &[2, 0x23]).drop());
        // Most of what is sent, and nothing below is about it.
        let tcp = || ipv6().meta_is(Meta::Transport, &[6]);
        self.in_scope(rules, &|| self.not_routed(tcp(), SOURCE6), SOURCE6);
        rules.push(self.not_routed(tcp(), SOURCE6).set_mark(self.book | SENDER).accept());

        // Looking for a duplicate.
        let unspecified = || ipv6().is(SOURCE6, &[0; 16]);
        let looking = || icmp6_type(135).is(SOURCE6, &[0; 16]);
        let probe = || self.not_routed(looking(), ND_TARGET);
        self.in_scope(rules, &probe, ND_TARGET);
        rules.push(probe().set_mark(self.book | WANTED).accept());
        // Of the networks behind the nic every address is its own, and nobody keeps book of them.
        rules.extend(self.routes.iter().filter_map(|route| match route {
            IpNet::V6(net) => {
                let (mask, network) = (net.netmask().octets(), net.network().octets());
                Some(looking().masked_is(ND_TARGET, &mask, &network).accept())
            }
            IpNet::V4(_) => None,
        }));
        for kind in [143, 131, 133] {
            rules.push(icmp6_type(kind).is(SOURCE6, &[0; 16]).accept());
        }
        rules.push(unspecified().drop());

        // The link-layer address in neighbour discovery is the own one, in the one option there may be.
        for (kind, option_at, option) in [(133, 8, 1), (135, 24, 1), (136, 24, 2)] {
            let mut expected = vec![option, 1];
            expected.extend_from_slice(&self.mac.0);
            let bare = [0, option_at];
            let with = [0, option_at + 8];
            let value = Field(Base::Transport, u32::from(option_at), 8);
            rules.push(icmp6_type(kind).is(LENGTH6, &with).is_not(value, &expected).drop());
            rules.push(icmp6_type(kind).is_not(LENGTH6, &with).is_not(LENGTH6, &bare).drop());
        }
        let advertising = || self.not_routed(icmp6_type(136), ND_TARGET);
        self.in_scope(rules, &|| self.not_routed(ipv6(), SOURCE6), SOURCE6);
        self.in_scope(rules, &advertising, ND_TARGET);
        rules.push(advertising().set_mark(self.book | ADVERTISED));
        rules.push(self.not_routed(ipv6(), SOURCE6).set_mark(self.book | SENDER));
        rules.push(self.not_routed(advertising(), SOURCE6).set_mark(self.book | SENDER | ADVERTISED));
        rules.push(ipv6().accept());
    }

    /// Drops addresses that are neither of the prefix nor link-local, or made from another MAC.
    fn in_scope(&self, rules: &mut Vec<Rule>, about: &dyn Fn() -> Rule, address: Field) {
        let Field(base, offset, _) = address;
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).octets();
        let ten_bits = Ipv6Addr::new(0xffc0, 0, 0, 0, 0, 0, 0, 0).octets();
        let mut rule = about().masked_is_not(address, &ten_bits, &link_local);
        if let Some(prefix) = self.prefix6 {
            let (mask, network) = (prefix.netmask().octets(), prefix.network().octets());
            rule = rule.masked_is_not(address, &mask, &network);
        }
        rules.push(rule.drop());
        rules.push(
            about()
                .is(Field(base, offset + 11, 2), &[0xff, 0xfe])
                .is_not(Field(base, offset + 8, 8), &self.mac.eui64())
                .drop(),
        );
    }
}

fn arp() -> Rule {
    Rule::new().is(ETHER_TYPE, &ARP)
}

fn ipv4() -> Rule {
    Rule::new().is(ETHER_TYPE, &IPV4)
}

fn ipv6() -> Rule {
    Rule::new().is(ETHER_TYPE, &IPV6)
}

fn icmp6() -> Rule {
    ipv6().meta_is(Meta::Transport, &[ICMPV6])
}

fn icmp6_type(kind: u8) -> Rule {
    icmp6().is(Field(Base::Transport, 0, 1), &[kind])
}
