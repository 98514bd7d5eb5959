//! The packet filter: one table of this daemon in each family that is needed, and what stands in it.
//!
//! Table `TABLE` of family inet has, for each bridge BR, the base chains `in.BR` (what of the host is
//! reached), `fwd.BR` (whether packets are routed) and `nat4.BR`, `nat6.BR`. Table `TABLE` of family bridge has the
//! chain `book.BR` with its sets ([`book`]): who holds which IPv6 address. The tables `TABLE.NN` of family netdev have
//! one base chain for each port ([`port`]), named as its interface: few in each, for the kernel goes through all chains
//! of a table whenever a rule of one is changed (`nft_table_validate`). Foreign tables are neither read nor changed.

mod book;
mod port;
mod rule;
mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::name::{IfName, Mac};
use crate::spec::{BridgeSpec, HostAccess, NatOrder, NicSpec};
use book::Book;
use port::{Port, Serving};
use rule::{Base, Field, Meta, Rule};
use wire::{Batch, Family, Hook, Table};

/// The chains of ports come before everything else at ingress, traffic control included, and those of bridges before
/// all others that see a frame next.
const FIRST: i32 = -500;

/// Tables that the chains of ports are spread over.
const SHELVES: u64 = 64;
const SOURCE_NAT: i32 = 100;

const PREROUTING: u32 = 0;
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
    /// Opens the way to it. Tables for ports in which there are none are taken away.
    pub fn open(table: &str) -> Result<Firewall> {
        let socket = wire::open().map_err(|source| Error::Filter {
            act: "open the way to it",
            table: table.to_owned(),
            source,
        })?;
        let firewall = Firewall { table: table.to_owned(), socket: Mutex::new(socket) };
        // A host without a packet filter is no reason not to start: whoever needs it is told then.
        let _ = firewall.drop_shelves(|_| true);
        Ok(firewall)
    }

    /// Whether the kernel tells of something that somebody else took out of these tables.
    pub fn is_foreign_removal(&self, told: &[u8]) -> bool {
        let own = wire::port(&self.turn()).unwrap_or(0);
        wire::foreign_removal(told, |table| table == self.table || self.is_shelf(table), own)
    }

    fn inet(&self) -> Table<'_> {
        Table(Family::Inet, &self.table)
    }

    fn bridging(&self) -> Table<'_> {
        Table(Family::Bridge, &self.table)
    }

    /// The table for a port's chain.
    fn shelf(&self, port: &str) -> String {
        format!("{}.{:02}", self.table, crate::hash(port.as_bytes()) % SHELVES)
    }

    fn is_shelf(&self, table: &str) -> bool {
        table.strip_prefix(&self.table).is_some_and(|rest| rest.starts_with('.'))
    }

    fn turn(&self) -> MutexGuard<'_, OwnedFd> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, act: &'static str, fill: impl FnOnce(&mut Batch)) -> Result<()> {
        let mut batch = Batch::new();
        batch.table(self.inet());
        batch.table(self.bridging());
        fill(&mut batch);
        batch.commit(&self.turn()).map_err(|source| Error::Filter { act, table: self.table.clone(), source })
    }

    /// Makes a bridge's chains and sets what they should be, whatever they were. `gone` are addresses
    /// that were the bridge's own before.
    pub fn set_bridge(&self, spec: &BridgeSpec, mac: Mac, gone: &[Ipv6Addr]) -> Result<()> {
        let name = spec.name.as_str();
        self.apply("set up a bridge", |batch| {
            let (book, table) = (Book::of(name), self.bridging());
            self.set_book(batch, &book);
            let keys = |list: &[Ipv6Addr]| list.iter().map(|a| a.octets().to_vec()).collect::<Vec<_>>();
            batch.drop_elements(table, &book.held, &keys(gone));
            batch.elements(table, &book.held, &keys(&own_addresses(spec, mac)));
            let filter = |number| Hook { kind: "filter", number, priority: 0, device: None };
            self.set_or_drop(batch, &format!("in.{name}"), filter(INPUT), &input_rules(spec));
            // Always there, be it empty: it says that the bridge exists.
            batch.replace_chain(self.inet(), &format!("fwd.{name}"), filter(FORWARD), &forward_rules(spec));
            let (four, six) = nat_rules(spec);
            self.set_or_drop(batch, &format!("nat4.{name}"), nat_hook(four.0), &four.1);
            self.set_or_drop(batch, &format!("nat6.{name}"), nat_hook(six.0), &six.1);
        })
    }

    /// Makes the chain of a bridge's book what it should be; what stands in its sets stays.
    fn set_book(&self, batch: &mut Batch, book: &Book) {
        book.sets(batch, self.bridging());
        let arriving = Hook { kind: "filter", number: PREROUTING, priority: FIRST, device: None };
        batch.replace_chain(self.bridging(), &book.chain, arriving, &book.rules());
    }

    fn set_or_drop(&self, batch: &mut Batch, name: &str, hook: Hook<'_>, rules: &[Rule]) {
        if rules.is_empty() {
            batch.drop_chain(self.inet(), name);
        } else {
            batch.replace_chain(self.inet(), name, hook, rules);
        }
    }

    /// Removes a bridge's chains and sets, and all tables when nothing else is in them. `dead` are ports
    /// whose devices are gone.
    pub fn drop_bridge(&self, name: &IfName, dead: &[String]) -> Result<()> {
        self.apply("remove a bridge", |batch| {
            for port in dead {
                self.drop_chain_of(batch, port);
            }
            for chain in ["in", "fwd", "nat4", "nat6"] {
                batch.drop_chain(self.inet(), &format!("{chain}.{name}"));
            }
            Book::of(name.as_str()).drop(batch, self.bridging());
        })?;
        if self.bridges()?.is_empty() && self.ports()?.is_empty() {
            self.apply("remove the tables", |batch| {
                batch.drop_table(self.inet());
                batch.drop_table(self.bridging());
            })?;
        }
        self.drop_shelves(|_| true)
    }

    /// Puts the filter of a port in place, at once instead of what was there.
    pub fn set_port(
        &self,
        (bridge, mac): (&BridgeSpec, Mac),
        nic: &NicSpec,
        ipv4: Option<Ipv4Addr>,
    ) -> Result<()> {
        let book = Book::of(bridge.name.as_str());
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
            book: book.mark,
        };
        // There since the bridge was made, unless somebody flushed the rules of the host.
        let has_book = self.chains(self.bridging())?.contains(&book.chain);
        self.apply("set up a port", |batch| {
            if !has_book {
                self.set_book(batch, &book);
            }
            self.fixed_address(batch, &book, nic, Batch::elements);
            let name = nic.host_name.as_str();
            let shelf = self.shelf(name);
            let table = Table(Family::Netdev, &shelf);
            batch.table(table);
            let hook = Hook { kind: "filter", number: 0, priority: FIRST, device: Some(name) };
            batch.replace_chain(table, name, hook, &port.rules());
        })
    }

    /// Removes the filter of a port and gives its fixed IPv6 address free.
    pub fn drop_port(&self, bridge: &IfName, nic: &NicSpec) -> Result<()> {
        let name = nic.host_name.as_str();
        self.apply("remove a port", |batch| {
            self.drop_chain_of(batch, name);
            self.fixed_address(batch, &Book::of(bridge.as_str()), nic, Batch::drop_elements);
        })?;
        self.drop_shelf_of(name)
    }

    /// Puts the fixed IPv6 address of a nic into a bridge's book, or takes it out.
    fn fixed_address(
        &self,
        batch: &mut Batch,
        book: &Book,
        nic: &NicSpec,
        change: impl Fn(&mut Batch, Table<'_>, &str, &[Vec<u8>]),
    ) {
        let (address, pair) = fixed_elements(nic);
        if !address.is_empty() {
            // There since the bridge was made, unless somebody flushed the rules of the host.
            book.sets(batch, self.bridging());
            change(batch, self.bridging(), &book.held, &address);
            change(batch, self.bridging(), &book.holders, &pair);
        }
    }

    /// Removes the filter of a port of which only the name is known.
    pub fn drop_port_chain(&self, port: &IfName) -> Result<()> {
        self.apply("remove a port", |batch| self.drop_chain_of(batch, port.as_str()))?;
        self.drop_shelf_of(port.as_str())
    }

    fn drop_chain_of(&self, batch: &mut Batch, port: &str) {
        let shelf = self.shelf(port);
        batch.table(Table(Family::Netdev, &shelf));
        batch.drop_chain(Table(Family::Netdev, &shelf), port);
    }

    fn drop_shelf_of(&self, port: &str) -> Result<()> {
        let shelf = self.shelf(port);
        self.drop_shelves(|table| table == shelf)
    }

    /// Removes those empty tables for ports of which that is true, told their name. Nobody puts a port into one meanwhile,
    /// and the kernel removes none that is not empty.
    fn drop_shelves(&self, which: impl Fn(&str) -> bool) -> Result<()> {
        let socket = self.turn();
        let tables = wire::tables(&socket, Family::Netdev).map_err(|source| self.unread(source))?;
        for (table, used) in tables {
            if used > 0 || !self.is_shelf(&table) || !which(&table) {
                continue;
            }
            let mut batch = Batch::new();
            batch.drop_empty_table(Table(Family::Netdev, &table));
            match batch.commit(&socket) {
                Err(gone) if gone.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
                other => {
                    other.map_err(|source| Error::Filter { act: "remove a table of ports", table, source })?
                }
            }
        }
        Ok(())
    }

    /// The names of the ports that have a filter.
    pub fn ports(&self) -> Result<Vec<String>> {
        let all = wire::chains(&self.turn(), Family::Netdev).map_err(|source| self.unread(source))?;
        Ok(all.into_iter().filter(|(table, _)| self.is_shelf(table)).map(|(_, chain)| chain).collect())
    }

    /// The names of the bridges that have a chain.
    pub fn bridges(&self) -> Result<Vec<String>> {
        let chains = [self.chains(self.inet())?, self.chains(self.bridging())?].concat();
        let mut names: Vec<String> =
            chains.iter().filter_map(|chain| Some(chain.split_once('.')?.1.to_owned())).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Whether a bridge has the chains that each has.
    pub fn has_bridge(&self, name: &IfName) -> Result<bool> {
        let has = |table, chain: String| Ok::<_, Error>(self.chains(table)?.contains(&chain));
        Ok(has(self.inet(), format!("fwd.{name}"))? && has(self.bridging(), Book::of(name.as_str()).chain)?)
    }

    fn chains(&self, Table(family, table): Table<'_>) -> Result<Vec<String>> {
        let all = wire::chains(&self.turn(), family).map_err(|source| self.unread(source))?;
        Ok(all.into_iter().filter(|(found, _)| found == table).map(|(_, chain)| chain).collect())
    }

    fn unread(&self, source: io::Error) -> Error {
        Error::Filter { act: "list tables", table: self.table.clone(), source }
    }
}

/// The chains of the calling thread's network namespace that drop routed packets which none of their rules lets through,
/// whosever they are, each as nft calls it.
///
/// # Errors
/// [`Error::Connection`] when the kernel does not list them.
pub fn dropping() -> Result<Vec<String>> {
    wire::open().and_then(|socket| wire::dropping(&socket)).map_err(|source| Error::Connection { source })
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
