//! Changes of interfaces and addresses, by one rtnetlink connection on a thread of its own.
//!
//! The crate's only asynchronous part: whoever calls sends a future to the thread and waits for its end,
//! so callers may be any blocking thread. Reading state is `inspect`'s.

mod queue;
mod route;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::mpsc;
use std::thread::JoinHandle;

use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::link::{
    BridgeMulticastRouterType, BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoVeth, LinkAttribute,
    LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use crate::error::{Error, Result};
use crate::name::{IfName, Mac};

pub use route::PROTOCOL as ROUTES;

/// The connection. Dropping it ends the thread.
pub struct Netlink {
    runtime: tokio::runtime::Handle,
    handle: Option<Handle>,
    thread: Option<JoinHandle<()>>,
}

/// How a port stands on its bridge.
#[derive(Debug, Clone, Copy)]
pub struct PortFlags {
    /// Frames from other MACs than the given one are refused by the bridge too.
    pub locked: bool,
    /// Kept from other isolated ports.
    pub isolated: bool,
}

impl Netlink {
    /// Connects to the network namespace of the calling thread.
    pub fn open() -> Result<Netlink> {
        let failed = |source| Error::Connection { source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let (connection, handle, _) = {
            let _inside = runtime.enter();
            rtnetlink::new_connection().map_err(failed)?
        };
        let shared = runtime.handle().clone();
        let thread = std::thread::Builder::new()
            .name("netlink".to_owned())
            .spawn(move || runtime.block_on(connection))
            .map_err(failed)?;
        Ok(Netlink { runtime: shared, handle: Some(handle), thread: Some(thread) })
    }

    /// Runs a future on the thread and waits for it.
    fn run<T, F>(&self, work: impl FnOnce(Handle) -> F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, rtnetlink::Error>> + Send + 'static,
    {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let handle = self.handle.clone().ok_or_else(gone)?;
        let (answer, wait) = mpsc::sync_channel(1);
        let work = work(handle);
        self.runtime.spawn(async move {
            let _ = answer.send(work.await);
        });
        wait.recv().map_err(|_| gone())?.map_err(kernel_error)
    }

    /// Makes a bridge, down.
    pub fn add_bridge(&self, name: &IfName, mac: Mac, mtu: u32, group: u32) -> Result<()> {
        let message = LinkBridge::new(name.as_str())
            .mtu(mtu)
            .address(mac.0.to_vec())
            .append_extra_attribute(LinkAttribute::Group(group))
            .set_info_data(InfoData::Bridge(vec![
                InfoBridge::StpState(BridgeStpState::Disabled),
                InfoBridge::ForwardDelay(0),
            ]))
            .build();
        match self.run(|handle| async move { handle.link().add(message).execute().await }) {
            Err(why) if why.raw_os_error() == Some(17) => Err(Error::LinkExists { name: name.clone() }),
            done => done.map_err(link_error("make", name)),
        }
    }

    /// Makes a veth pair, down: one end here, a port of the bridge if there is one; the other straight in `netns`
    /// with the name and the address it will keep.
    pub fn add_veth(&self, host: HostEnd<'_>, guest: Guest<'_>) -> Result<()> {
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(guest.name.as_str().to_owned())
            .mtu(guest.mtu)
            .address(guest.mac.0.to_vec())
            .setns_by_fd(guest.netns.as_raw_fd());
        let mut pair = LinkVeth::new(host.name.as_str(), guest.name.as_str()).mtu(host.mtu);
        if let Some(bridge) = host.bridge {
            pair = pair.controller(bridge);
        }
        if let Some(packets) = host.queue {
            peer = peer.append_extra_attribute(LinkAttribute::TxQueueLen(packets));
            pair = pair.append_extra_attribute(LinkAttribute::TxQueueLen(packets));
        }
        let message = pair
            .append_extra_attribute(LinkAttribute::Group(host.group))
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
            .build();
        match self.run(|handle| async move { handle.link().add(message).execute().await }) {
            Err(why) if why.raw_os_error() == Some(17) => Err(Error::LinkExists { name: host.name.clone() }),
            done => done.map_err(link_error("make", host.name)),
        }
    }

    /// Sets what the bridge does at a port, tells it the one MAC behind it, and brings the port up.
    pub fn raise_port(&self, host: &IfName, mac: Mac, flags: PortFlags, alias: &str) -> Result<()> {
        let Some(index) = index_of(host)? else { return Err(Error::NoLink { name: host.clone() }) };
        let message = LinkBridgePort::new(index)
            .append_info_data(InfoBridgePort::Learning(!flags.locked))
            .append_info_data(InfoBridgePort::Locked(flags.locked))
            .append_info_data(InfoBridgePort::Isolated(flags.isolated))
            .append_info_data(InfoBridgePort::Guard(true))
            .append_info_data(InfoBridgePort::Protect(true))
            // No question of a guest's turns all multicast of the bridge its way.
            .append_info_data(InfoBridgePort::MulticastRouter(BridgeMulticastRouterType::Disabled))
            .append_extra_attribute(LinkAttribute::IfAlias(alias.to_owned()))
            .up()
            .build();
        self.run(|handle| async move {
            if flags.locked {
                let entry = handle.neighbours().add_bridge(index, &mac.0);
                entry
                    .state(NeighbourState::Noarp)
                    .flags(NeighbourFlags::Controller)
                    .replace()
                    .execute()
                    .await?;
            }
            handle.link().set_port(message).execute().await
        })
        .map_err(link_error("raise", host))
    }

    /// Brings an interface up that is no port. `alias` says whose it is.
    pub fn raise_link(&self, name: &IfName, alias: &str) -> Result<()> {
        let alias = LinkAttribute::IfAlias(alias.to_owned());
        let message = LinkUnspec::new_with_name(name.as_str()).append_extra_attribute(alias).up().build();
        self.change("raise", name, message)
    }

    /// Makes an existing veth a port of a bridge again.
    pub fn set_controller(&self, name: &IfName, bridge: u32) -> Result<()> {
        let message = LinkUnspec::new_with_name(name.as_str()).controller(bridge).build();
        self.change("attach", name, message)
    }

    /// Sets MTU and address of a bridge and brings it up. `alias` says whose it is.
    pub fn raise_bridge(&self, name: &IfName, mac: Mac, mtu: u32, alias: &str) -> Result<()> {
        let message = LinkUnspec::new_with_name(name.as_str())
            .mtu(mtu)
            .address(mac.0.to_vec())
            .append_extra_attribute(LinkAttribute::IfAlias(alias.to_owned()))
            .up()
            .build();
        self.change("set up", name, message)
    }

    fn change(&self, act: &'static str, name: &IfName, message: LinkMessage) -> Result<()> {
        self.run(|handle| async move { handle.link().change(message).execute().await })
            .map_err(link_error(act, name))
    }

    /// Gives an interface an address; one it has already is success.
    pub fn add_address(&self, name: &IfName, address: IpAddr, prefix: u8) -> Result<()> {
        let Some(index) = index_of(name)? else { return Err(Error::NoLink { name: name.clone() }) };
        self.run(|handle| async move {
            let mut request = handle.address().add(index, address, prefix).replace();
            // Nobody else may hold it, and the name server binds to it at once.
            if address.is_ipv6() {
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            request.execute().await
        })
        .map_err(link_error("give an address to", name))
    }

    /// Takes an address from an interface; one it has not is success.
    pub fn drop_address(&self, name: &IfName, address: IpAddr, prefix: u8) -> Result<()> {
        let Some(index) = index_of(name)? else { return Ok(()) };
        let message = match address {
            IpAddr::V4(address) => {
                AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix).build()
            }
            IpAddr::V6(address) => {
                AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, prefix).build()
            }
        };
        let done = self.run(|handle| async move { handle.address().del(message).execute().await });
        match done {
            Err(why) if matches!(why.raw_os_error(), Some(99 | 19)) => Ok(()),
            done => done.map_err(link_error("take an address from", name)),
        }
    }

    /// Removes an interface; one already gone is success.
    pub fn drop_link(&self, name: &IfName) -> Result<()> {
        let Some(index) = index_of(name)? else { return Ok(()) };
        match self.run(|handle| async move { handle.link().del(index).execute().await }) {
            Err(why) if why.raw_os_error() == Some(19) => Ok(()),
            done => done.map_err(link_error("remove", name)),
        }
    }
}

/// The end of a veth pair that the host keeps.
#[derive(Clone, Copy)]
pub struct HostEnd<'a> {
    /// Its name.
    pub name: &'a IfName,
    /// The number of the bridge it is a port of.
    pub bridge: Option<u32>,
    /// The interface group that marks it.
    pub group: u32,
    /// Its largest packet: the bridge's, whatever the instance's is.
    pub mtu: u32,
    /// Packets that wait at each end, when they must; the kernel's default without one.
    pub queue: Option<u32>,
}

/// The end of a veth pair that is in an instance.
#[derive(Clone, Copy)]
pub struct Guest<'a> {
    /// Its name.
    pub name: &'a IfName,
    /// Its address.
    pub mac: Mac,
    /// Its largest packet.
    pub mtu: u32,
    /// Where it is made.
    pub netns: BorrowedFd<'a>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        // The connection ends with its last handle, and the thread with it.
        self.handle = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The number of an interface, if it is there.
pub fn index_of(name: &IfName) -> Result<Option<u32>> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|source| Error::Connection { source: source.into() })?;
    match netdevice::name_to_index(&socket, name.as_str()) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(source) => Err(link_error("look up", name)(source.into())),
    }
}

fn link_error<'a>(act: &'static str, name: &'a IfName) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Link { act, name: name.to_string(), source }
}

fn kernel_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
