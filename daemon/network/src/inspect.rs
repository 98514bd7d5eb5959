//! What interfaces there are, with addresses, counters and routes, read over a routing socket.
//!
//! The socket may have been opened in another network namespace: it goes on looking into that one. Nothing
//! is entered and no thread waits; the kernel answers each read at once.

pub mod change;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Error, Result};
use crate::name::{IfName, Mac};

/// How long the kernel may take to answer: it does so at once, but a guest decides how much there is to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// An interface as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceState {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it carries packets (or does not say).
    pub running: bool,
    /// What sort of link it is.
    pub link: LinkType,
    /// What made it (`veth`, `bridge` …), when it is no hardware.
    pub kind: Option<String>,
    /// The number of its other end, in that one's namespace (veth).
    pub peer: Option<u32>,
    /// The number of the bridge or bond it belongs to.
    pub controller: Option<u32>,
    /// The interface group, by which a daemon knows its own.
    pub group: u32,
    /// What it was marked with.
    pub alias: Option<String>,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// What went through it.
    pub counters: Counters,
}

/// What sort of link an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkType {
    /// The loopback.
    Loopback,
    /// Ethernet and what looks like it.
    Broadcast,
    /// Two ends.
    PointToPoint,
    /// Something else.
    Unknown,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
    /// How far it reaches.
    pub scope: Scope,
}

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// This link.
    Link,
    /// This host.
    Local,
}

/// What went through an interface since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Bytes in.
    pub rx_bytes: u64,
    /// Packets in.
    pub rx_packets: u64,
    /// Packets in that were broken.
    pub rx_errors: u64,
    /// Packets in that were thrown away.
    pub rx_dropped: u64,
    /// Bytes out.
    pub tx_bytes: u64,
    /// Packets out.
    pub tx_packets: u64,
    /// Packets out that failed.
    pub tx_errors: u64,
    /// Packets out that were thrown away.
    pub tx_dropped: u64,
}

/// Every interface of the network namespace `socket` was opened in.
///
/// `socket` is a NETLINK_ROUTE socket of type RAW or DGRAM. One caller at a time may use a socket: two
/// would take each other's answers (seen as an error, never as a wrong or missing interface).
///
/// # Errors
/// [`Error::Connection`] when the kernel does not answer as it should.
pub fn guest_state(socket: BorrowedFd<'_>) -> Result<Vec<InterfaceState>> {
    let read = || {
        // Nobody inside may answer in the kernel's place: one of an earlier version is not connected yet.
        net::connect(socket, &SocketAddrNetlink::new(0, 0))?;
        read_interfaces(socket)
    };
    read().map_err(|source| Error::Connection { source })
}

/// Every interface of the calling thread's network namespace.
pub fn own_state() -> Result<Vec<InterfaceState>> {
    let socket = open().map_err(|source| Error::Connection { source })?;
    guest_state(socket.as_fd())
}

/// One interface of the calling thread's network namespace. Only this one is asked for: with a port for each of
/// a thousand containers the list of all of them is a matter of tens of milliseconds.
pub fn own_link(name: &IfName) -> Result<Option<InterfaceState>> {
    let read = || {
        let socket = open()?;
        let mut wanted = LinkMessage::default();
        wanted.attributes.push(LinkAttribute::IfName(name.to_string()));
        let found = match ask(socket.as_fd(), RouteNetlinkMessage::GetLink(wanted), NLM_F_REQUEST) {
            Err(why) if why.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => return Ok(None),
            found => found?.unwrap_or_default(),
        };
        let mut found: Vec<InterfaceState> = found.iter().filter_map(of_link).collect();
        // Ports have none: what this lists are the bridges' and the host's own.
        add_addresses(
            &mut found,
            &dump(socket.as_fd(), RouteNetlinkMessage::GetAddress(AddressMessage::default()))?,
        );
        Ok(found.pop())
    };
    read().map_err(|source| Error::Connection { source })
}

/// The networks the host has a route to, the default routes left out.
pub fn routed() -> Result<Vec<(IpAddr, u8)>> {
    let read = || {
        let socket = open()?;
        let routes = dump(socket.as_fd(), RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
        Ok(routes.iter().filter_map(route_target).collect())
    };
    read().map_err(|source| Error::Connection { source })
}

/// The networks that are reached by an interface over routes of that maker.
pub fn routes_by(name: &IfName, protocol: u8) -> Result<Vec<IpNet>> {
    let Some(index) = own_link(name)?.map(|link| link.index) else { return Ok(Vec::new()) };
    let read = || {
        let socket = open()?;
        let routes = dump(socket.as_fd(), RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
        Ok(routes.iter().filter(|route| is_by(route, index, protocol)).filter_map(route_target).collect())
    };
    let found: Vec<(IpAddr, u8)> = read().map_err(|source| Error::Connection { source })?;
    Ok(found.into_iter().filter_map(|(address, prefix)| IpNet::new(address, prefix).ok()).collect())
}

fn is_by(message: &RouteNetlinkMessage, index: u32, protocol: u8) -> bool {
    let RouteNetlinkMessage::NewRoute(route) = message else { return false };
    u8::from(route.header.protocol) == protocol && route.attributes.contains(&RouteAttribute::Oif(index))
}

fn route_target(message: &RouteNetlinkMessage) -> Option<(IpAddr, u8)> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => {
            Some((IpAddr::V4(*address), route.header.destination_prefix_length))
        }
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
            Some((IpAddr::V6(*address), route.header.destination_prefix_length))
        }
        _ => None,
    })
}

fn open() -> io::Result<OwnedFd> {
    // NETLINK_ROUTE is protocol 0, the one there is without a choice.
    Ok(net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

fn read_interfaces(socket: BorrowedFd<'_>) -> io::Result<Vec<InterfaceState>> {
    let links = dump(socket, RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let addresses = dump(socket, RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let mut found: Vec<InterfaceState> = links.iter().filter_map(of_link).collect();
    found.sort_by_key(|state| state.index);
    add_addresses(&mut found, &addresses);
    Ok(found)
}

fn of_link(message: &RouteNetlinkMessage) -> Option<InterfaceState> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    Some(interface(link))
}

/// `found` is in the order of the numbers.
fn add_addresses(found: &mut [InterfaceState], messages: &[RouteNetlinkMessage]) {
    for message in messages {
        let RouteNetlinkMessage::NewAddress(entry) = message else { continue };
        let at = found.binary_search_by_key(&entry.header.index, |state| state.index);
        if let (Some(state), Some(address)) = (at.ok().and_then(|at| found.get_mut(at)), address(entry)) {
            state.addresses.push(address);
        }
    }
}

fn interface(link: &LinkMessage) -> InterfaceState {
    let flags = link.header.flags;
    let mut state = InterfaceState {
        index: link.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        running: false,
        link: match link.header.link_layer_type {
            LinkLayerType::Loopback => LinkType::Loopback,
            _ if flags.contains(LinkFlags::Pointopoint) => LinkType::PointToPoint,
            _ if flags.contains(LinkFlags::Broadcast) => LinkType::Broadcast,
            _ => LinkType::Unknown,
        },
        kind: None,
        peer: None,
        controller: None,
        group: 0,
        alias: None,
        addresses: Vec::new(),
        counters: Counters::default(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => name.clone_into(&mut state.name),
            LinkAttribute::Address(bytes) => {
                state.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            LinkAttribute::Mtu(mtu) => state.mtu = *mtu,
            LinkAttribute::OperState(oper) => state.running = matches!(oper, State::Up | State::Unknown),
            LinkAttribute::Link(index) => state.peer = Some(*index).filter(|index| *index != 0),
            LinkAttribute::Controller(index) => state.controller = Some(*index),
            LinkAttribute::Group(group) => state.group = *group,
            LinkAttribute::IfAlias(alias) => state.alias = Some(alias.clone()),
            LinkAttribute::LinkInfo(infos) => state.kind = infos.iter().find_map(kind_name),
            LinkAttribute::Stats64(stats) => {
                state.counters = Counters {
                    rx_bytes: stats.rx_bytes,
                    rx_packets: stats.rx_packets,
                    rx_errors: stats.rx_errors,
                    rx_dropped: stats.rx_dropped,
                    tx_bytes: stats.tx_bytes,
                    tx_packets: stats.tx_packets,
                    tx_errors: stats.tx_errors,
                    tx_dropped: stats.tx_dropped,
                };
            }
            _ => {}
        }
    }
    if state.link == LinkType::Loopback {
        state.mac = None;
    }
    state
}

fn kind_name(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(name)) => Some(name.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn address(entry: &AddressMessage) -> Option<Address> {
    // With a peer (point to point) `Address` is the other side's and `Local` the own one.
    let find = |local: bool| {
        entry.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    Some(Address {
        address: find(true).or_else(|| find(false))?,
        prefix: entry.header.prefix_len,
        scope: match entry.header.scope {
            AddressScope::Link => Scope::Link,
            AddressScope::Host | AddressScope::Nowhere => Scope::Local,
            _ => Scope::Global,
        },
    })
}

/// All answers to a dump; asked again when the kernel says the list changed under it.
fn dump(socket: BorrowedFd<'_>, what: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    const TRIES: u32 = 5;
    let mut last = None;
    for _ in 0..TRIES {
        match ask(socket, what.clone(), NLM_F_REQUEST | NLM_F_DUMP) {
            Ok(Some(list)) => return Ok(list),
            Ok(None) => {}
            Err(why) => last = Some(why),
        }
        if last.is_some() {
            break;
        }
    }
    Err(last.unwrap_or_else(|| io::Error::from(io::ErrorKind::Interrupted)))
}

/// One question and its answer: of a dump all there is, or `None` when the list changed under it; without one a
/// single object.
fn ask(
    socket: BorrowedFd<'_>,
    what: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
    static SEQUENCE: AtomicU32 = AtomicU32::new(1);
    const INTERRUPTED: u16 = 0x10;
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let mut request = NetlinkMessage::from(what);
    request.header.flags = flags;
    request.header.sequence_number = sequence;
    request.finalize();
    let mut bytes = vec![0u8; request.buffer_len()];
    request.serialize(&mut bytes);
    net::sendto(socket, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;

    let (mut found, mut whole) = (Vec::new(), true);
    let mut buffer = vec![0u8; 64 * 1024];
    let begun = Instant::now();
    loop {
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        let (_, got) = net::recv(socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT)?;
        let mut rest = buffer.get(..got).unwrap_or_default();
        while rest.len() >= 16 {
            let len = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let Some(one) = rest.get(..len).filter(|_| len >= 16) else {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            };
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            if u32::from_ne_bytes([one[8], one[9], one[10], one[11]]) != sequence {
                continue;
            }
            // A message this library cannot read is of no interface we know: left out.
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) else { continue };
            whole &= message.header.flags & INTERRUPTED == 0;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(whole.then_some(found)),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(inner) => found.push(inner),
                _ => continue,
            }
            if flags & NLM_F_DUMP != NLM_F_DUMP {
                return Ok(Some(found));
            }
        }
    }
}
