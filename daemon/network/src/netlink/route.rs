//! The host's ways to networks behind nics.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::RouteMessageBuilder;

use super::{Netlink, index_of};
use crate::error::{Error, Result};
use crate::inspect;
use crate::name::IfName;

/// Who made a route, as the kernel keeps it and `ip route` shows it: by this number ours are known among those that
/// others lay over the same interface.
pub const PROTOCOL: u8 = 203;

impl Netlink {
    /// Has the host reach a network by an interface.
    ///
    /// # Errors
    /// [`Error::RouteExists`] when there is a way to it already, whoever laid it.
    pub fn add_route(&self, by: &IfName, to: IpNet) -> Result<()> {
        let index = index_of(by)?.ok_or_else(|| Error::NoLink { name: by.clone() })?;
        let message = message(index, to);
        match self.run(|handle| async move { handle.route().add(message).execute().await }) {
            Err(why) if why.raw_os_error() == Some(17) => Err(Error::RouteExists { route: to }),
            done => done.map_err(route_error("add", by, to)),
        }
    }

    /// The same where it may be there already, laid by this daemon over that interface.
    pub fn ensure_route(&self, by: &IfName, to: IpNet) -> Result<()> {
        match self.add_route(by, to) {
            Err(Error::RouteExists { .. }) if inspect::routes_by(by, PROTOCOL)?.contains(&to) => Ok(()),
            done => done,
        }
    }

    /// Takes a route of ours away; one that is gone is success, and another's stays.
    pub fn drop_route(&self, by: &IfName, to: IpNet) -> Result<()> {
        let Some(index) = index_of(by)? else { return Ok(()) };
        let message = message(index, to);
        match self.run(|handle| async move { handle.route().del(message).execute().await }) {
            // Not there, or the interface has gone meanwhile.
            Err(why) if matches!(why.raw_os_error(), Some(3 | 19)) => Ok(()),
            done => done.map_err(route_error("remove", by, to)),
        }
    }
}

fn message(index: u32, to: IpNet) -> RouteMessage {
    let protocol = RouteProtocol::Other(PROTOCOL);
    match to {
        IpNet::V4(to) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .output_interface(index)
            .scope(RouteScope::Link)
            .protocol(protocol)
            .build(),
        IpNet::V6(to) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .output_interface(index)
            .protocol(protocol)
            .build(),
    }
}

fn route_error<'a>(act: &'static str, by: &'a IfName, route: IpNet) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Route { act, route, name: by.clone(), source }
}
