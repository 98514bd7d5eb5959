//! The packet filter: one table of this daemon in each family that is needed, and what stands in it.
//!
//! Table `TABLE` of family inet has, for each bridge BR, the base chains `in.BR` (what of the host is
//! reached), `fwd.BR` (whether packets are routed) and `nat4.BR`, `nat6.BR`. Table `TABLE` of family netdev has
//! one base chain for each port, named as its interface, and for each bridge the sets `held.BR` and
//! `holders.BR` ([`port`]). Foreign tables are neither read nor changed.

mod port;
mod rule;
mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::name::{IfName, Mac};
use crate::spec::{BridgeSpec, HostAccess, NatOrder, NicSpec};
use port::{Port, Serving};
use rule::{Base, Field, Meta, Rule};
pub use wire::foreign_removal;
use wire::{Batch, Family, Hook, SetKind};

/// IPv6 addresses; nft's name for the type is `ipv6_addr`.
const ADDRESSES: SetKind = SetKind { key_type: 8, key_len: 16, size: 65_535 };
/// IPv6 addresses with MACs: `ipv6_addr . ether_addr`.
const PAIRS: SetKind = SetKind { key_type: (8 << 6) | 9, key_len: 24, size: 65_535 };

/// The port chains come before everything else at ingress, traffic control included.
const PORT_PRIORITY: i32 = -500;
const SOURCE_NAT: i32 = 100;

const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const POSTROUTING: u32 = 4;
const V4: [u8; 1] = [2];
const V6: [u8; 1] = [10];

/// The daemon's tables. The kernel takes one batch at a time; so does this.
pub struct Firewall {
    table: String,
    socket: Mutex<OwnedFd>,
}

impl Firewall {
    pub fn open(table: &str) -> Result<Firewall> {
        let socket = wire::open().map_err(|source| Error::Filter {
            act: "open the way to it",
            table: table.to_owned(),
            source,
        })?;
        Ok(Firewall { table: table.to_owned(), socket: Mutex::new(socket) })
    }

    /// The name of the tables.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The number the kernel knows this daemon's socket by: it stands in what it tells of a change.
    pub fn port(&self) -> u32 {
        wire::port(&self.turn()).unwrap_or(0)
    }

    fn turn(&self) -> MutexGuard<'_, OwnedFd> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, act: &'static str, fill: impl FnOnce(&mut Batch<'_>)) -> Result<()> {
        let mut batch = Batch::new(&self.table);
        batch.table(Family::Inet);
        batch.table(Family::Netdev);
        fill(&mut batch);
        batch.commit(&self.turn()).map_err(|source| Error::Filter { act, table: self.table.clone(), source })
    }

    /// Makes a bridge's chains and sets what they should be, whatever they were. `gone` are addresses
    /// that were the bridge's own before.
    pub fn set_bridge(&self, spec: &BridgeSpec, mac: Mac, gone: &[Ipv6Addr]) -> Result<()> {
        let name = spec.name.as_str();
        self.apply("set up a bridge", |batch| {
            let (held, holders) = set_names(name);
            batch.set(Family::Netdev, &held, ADDRESSES);
            batch.set(Family::Netdev, &holders, PAIRS);
            let keys = |list: &[Ipv6Addr]| list.iter().map(|a| a.octets().to_vec()).collect::<Vec<_>>();
            batch.drop_elements(Family::Netdev, &held, &keys(gone));
            batch.elements(Family::Netdev, &held, &keys(&own_addresses(spec, mac)));
            let filter = |number| Hook { kind: "filter", number, priority: 0, device: None };
            set_or_drop(batch, &format!("in.{name}"), filter(INPUT), &input_rules(spec));
            // Always there, be it empty: it says that the bridge exists.
            batch.replace_chain(Family::Inet, &format!("fwd.{name}"), filter(FORWARD), &forward_rules(spec));
            let (four, six) = nat_rules(spec);
            set_or_drop(batch, &format!("nat4.{name}"), nat_hook(four.0), &four.1);
            set_or_drop(batch, &format!("nat6.{name}"), nat_hook(six.0), &six.1);
        })
    }

    /// Removes a bridge's chains and sets, and both tables when nothing else is in them. `dead` are port
    /// chains whose devices are gone.
    pub fn drop_bridge(&self, name: &IfName, dead: &[String]) -> Result<()> {
        self.apply("remove a bridge", |batch| {
            for chain in dead {
                batch.drop_chain(Family::Netdev, chain);
            }
            for chain in ["in", "fwd", "nat4", "nat6"] {
                batch.drop_chain(Family::Inet, &format!("{chain}.{name}"));
            }
            let (held, holders) = set_names(name.as_str());
            batch.drop_set(Family::Netdev, &held, ADDRESSES);
            batch.drop_set(Family::Netdev, &holders, PAIRS);
        })?;
        if self.bridges()?.is_empty() && self.ports()?.is_empty() {
            self.apply("remove the tables", |batch| {
                batch.drop_table(Family::Inet);
                batch.drop_table(Family::Netdev);
            })?;
        }
        Ok(())
    }

    /// Puts the filter of a port in place, at once instead of what was there.
    pub fn set_port(
        &self,
        (bridge, mac): (&BridgeSpec, Mac),
        nic: &NicSpec,
        ipv4: Option<Ipv4Addr>,
    ) -> Result<()> {
        let (held, holders) = set_names(bridge.name.as_str());
        let port = Port {
            mac: nic.mac,
            filter: nic.filter,
            ipv4,
            routes: &nic.routes,
            outward: nic.rates.outward,
            priority: nic.priority,
            serving: Serving {
                mac,
                address: bridge.ipv4.as_ref().map(|side| side.address.addr()),
                dhcp: bridge.ipv4.as_ref().is_some_and(|side| side.dhcp.is_some()),
                advertises: bridge.ipv6.is_some(),
            },
            prefix6: bridge.ipv6.as_ref().map(|side| side.address),
            held: &held,
            holders: &holders,
        };
        self.apply("set up a port", |batch| {
            // There since the bridge was made, unless somebody flushed the rules of the host.
            batch.set(Family::Netdev, &held, ADDRESSES);
            batch.set(Family::Netdev, &holders, PAIRS);
            let (address, pair) = fixed_elements(nic);
            batch.elements(Family::Netdev, &held, &address);
            batch.elements(Family::Netdev, &holders, &pair);
            let name = nic.host_name.as_str();
            let hook = Hook { kind: "filter", number: 0, priority: PORT_PRIORITY, device: Some(name) };
            batch.replace_chain(Family::Netdev, name, hook, &port.rules());
        })
    }

    /// Removes the filter of a port and gives its fixed IPv6 address free.
    pub fn drop_port(&self, bridge: &IfName, nic: &NicSpec) -> Result<()> {
        let (held, holders) = set_names(bridge.as_str());
        self.apply("remove a port", |batch| {
            batch.drop_chain(Family::Netdev, nic.host_name.as_str());
            let (address, pair) = fixed_elements(nic);
            if !address.is_empty() {
                batch.set(Family::Netdev, &held, ADDRESSES);
                batch.set(Family::Netdev, &holders, PAIRS);
                batch.drop_elements(Family::Netdev, &held, &address);
                batch.drop_elements(Family::Netdev, &holders, &pair);
            }
        })
    }

    /// Removes the filter of a port of which only the name is known.
    pub fn drop_port_chain(&self, port: &IfName) -> Result<()> {
        self.apply("remove a port", |batch| batch.drop_chain(Family::Netdev, port.as_str()))
    }

    /// The names of the ports that have a filter.
    pub fn ports(&self) -> Result<Vec<String>> {
        wire::chains(&self.turn(), Family::Netdev, &self.table).map_err(|source| self.unread(source))
    }

    /// The names of the bridges that have a chain.
    pub fn bridges(&self) -> Result<Vec<String>> {
        let chains =
            wire::chains(&self.turn(), Family::Inet, &self.table).map_err(|source| self.unread(source))?;
        let mut names: Vec<String> =
            chains.iter().filter_map(|chain| Some(chain.split_once('.')?.1.to_owned())).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn unread(&self, source: io::Error) -> Error {
        Error::Filter { act: "list chains", table: self.table.clone(), source }
    }
}

fn set_names(bridge: &str) -> (String, String) {
    (format!("held.{bridge}"), format!("holders.{bridge}"))
}

/// The addresses of the host on a bridge, which no guest may take.
pub fn own_addresses(spec: &BridgeSpec, mac: Mac) -> Vec<Ipv6Addr> {
    spec.ipv6.iter().flat_map(|side| [side.address.addr(), mac.link_local()]).collect()
}

fn fixed_elements(nic: &NicSpec) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let address: Vec<Vec<u8>> = nic.ipv6.iter().map(|a| a.octets().to_vec()).collect();
    let pair = address
        .iter()
        .map(|address| {
            let mut key = address.clone();
            key.extend_from_slice(&nic.mac.0);
            key.extend_from_slice(&[0, 0]);
            key
        })
        .collect();
    (address, pair)
}

fn set_or_drop(batch: &mut Batch<'_>, name: &str, hook: Hook<'_>, rules: &[Rule]) {
    if rules.is_empty() {
        batch.drop_chain(Family::Inet, name);
    } else {
        batch.replace_chain(Family::Inet, name, hook, rules);
    }
}

fn input_rules(spec: &BridgeSpec) -> Vec<Rule> {
    let mut rules = Vec::new();
    if spec.host_access == HostAccess::Open {
        return rules;
    }
    let here = || Rule::new().arriving_by(spec.name.as_str());
    let port = Field(Base::Transport, 2, 2);
    rules.push(here().known_connection().accept());
    let mut family = |proto: &[u8], icmp: u8, dhcp: [u8; 2]| {
        let with = |transport: u8| here().meta_is(Meta::Family, proto).meta_is(Meta::Transport, &[transport]);
        rules.push(with(icmp).accept());
        rules.push(with(17).is(port, &dhcp).accept());
        rules.push(with(17).is(port, &[0, 53]).accept());
        rules.push(with(6).is(port, &[0, 53]).accept());
        rules.push(here().meta_is(Meta::Family, proto).count().drop());
    };
    if spec.ipv4.as_ref().is_some_and(|side| side.firewall) {
        family(&V4, 1, [0, 67]);
    }
    if spec.ipv6.as_ref().is_some_and(|side| side.firewall) {
        family(&V6, 58, [2, 0x23]);
    }
    rules
}

/// Only what routing being off asks for: an accepting rule of ours could not overrule a foreign one.
fn forward_rules(spec: &BridgeSpec) -> Vec<Rule> {
    let name = spec.name.as_str();
    let mut rules = Vec::new();
    let mut stop = |proto: &[u8]| {
        let family = || Rule::new().meta_is(Meta::Family, proto);
        // Frames from port to port come by here too when br_netfilter is loaded.
        rules.push(family().arriving_by(name).leaving_elsewhere(name).count().drop());
        rules.push(family().leaving_by(name).arriving_elsewhere(name).count().drop());
    };
    if spec.ipv4.as_ref().is_none_or(|side| !side.routing) {
        stop(&V4);
    }
    if spec.ipv6.as_ref().is_none_or(|side| !side.routing) {
        stop(&V6);
    }
    rules
}

fn nat_hook<'a>(order: NatOrder) -> Hook<'a> {
    let priority = match order {
        NatOrder::Before => SOURCE_NAT - 1,
        NatOrder::After => SOURCE_NAT + 1,
    };
    Hook { kind: "nat", number: POSTROUTING, priority, device: None }
}

type NatChain = (NatOrder, Vec<Rule>);

fn nat_rules(spec: &BridgeSpec) -> (NatChain, NatChain) {
    let name = spec.name.as_str();
    let rule = |proto: &[u8], from: Field, to: Field, mask: &[u8], network: &[u8], address| {
        Rule::new()
            .meta_is(Meta::Family, proto)
            .masked_is(from, mask, network)
            .masked_is_not(to, mask, network)
            .leaving_elsewhere(name)
            .count()
            .source_nat(address)
    };
    let mut four = (NatOrder::Before, Vec::new());
    if let Some((side, nat)) = spec.ipv4.as_ref().and_then(|side| Some((side, side.nat?))) {
        let (mask, network) = (side.address.netmask().octets(), side.address.network().octets());
        let (from, to) = (Field(Base::Network, 12, 4), Field(Base::Network, 16, 4));
        four = (nat.order, vec![rule(&V4, from, to, &mask, &network, nat.address.map(IpAddr::V4))]);
    }
    let mut six = (NatOrder::Before, Vec::new());
    if let Some((side, nat)) = spec.ipv6.as_ref().and_then(|side| Some((side, side.nat?))) {
        let (mask, network) = (side.address.netmask().octets(), side.address.network().octets());
        let (from, to) = (Field(Base::Network, 8, 16), Field(Base::Network, 24, 16));
        six = (nat.order, vec![rule(&V6, from, to, &mask, &network, nat.address.map(IpAddr::V6))]);
    }
    (four, six)
}
