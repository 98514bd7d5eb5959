//! The life of a nic: a veth pair between a bridge and an instance.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use cabin_undo::{Undo, fault};
use ipnet::IpNet;

use crate::error::{Error, Result};
use crate::lease::{self, Given};
use crate::name::{IfName, Mac};
use crate::netlink::{Guest, HostEnd, PortFlags, ROUTES, index_of};
use crate::reservation::{Release, Until};
use crate::spec::{BridgeSpec, Isolation, NicSpec};
use crate::{InterfaceState, Network, inspect, sysctl};

impl Network {
    /// Makes a nic: its address is reserved, the pair made down with the guest's end straight in `netns`, the
    /// filter set, and only then the port goes up. Gives the IPv4 address the nic will get.
    ///
    /// # Errors
    /// [`Error::NoLink`] without the bridge, [`Error::LinkExists`], [`Error::Taken`], [`Error::Address`],
    /// [`Error::NoAddressLeft`], or the kernel's refusal.
    pub fn plug(
        &self,
        bridge: &BridgeSpec,
        nic: &NicSpec,
        netns: BorrowedFd<'_>,
        undo: &mut Undo,
    ) -> Result<Option<Ipv4Addr>> {
        let inner = &self.inner;
        let missing = || Error::NoLink { name: bridge.name.clone() };
        let controller = index_of(&bridge.name)?.ok_or_else(missing)?;
        let kept = inner.reservations.keep(&inner.servers, bridge, nic, Until::Unplugged)?;
        if kept.fresh {
            let (network, name, mac) = (self.clone(), bridge.name.clone(), nic.mac);
            undo.push(format!("reservation of {mac}"), move || network.release(&name, mac))?;
        }
        let mtu = nic.mtu.unwrap_or(bridge.mtu);
        let guest = Guest { name: &nic.guest_name, mac: nic.mac, mtu, netns };
        let host = HostEnd {
            name: &nic.host_name,
            bridge: Some(controller),
            group: inner.group,
            mtu: bridge.mtu,
            queue: nic.queue,
        };
        inner.netlink.add_veth(host, guest)?;
        let (network, name, port) = (self.clone(), bridge.name.clone(), nic.clone());
        undo.push(format!("port {}", nic.host_name), move || network.drop_port(&name, &port))?;
        if let Some(bits) = nic.rates.inward {
            inner.netlink.limit_rate(&nic.host_name, bits)?;
        }
        self.raise(bridge, nic, kept.ipv4)?;
        self.lay_routes(&bridge.name, &nic.routes, undo)?;
        Ok(kept.ipv4)
    }

    /// Lays the host's ways to the networks behind a nic.
    pub(crate) fn lay_routes(&self, by: &IfName, routes: &[IpNet], undo: &mut Undo) -> Result<()> {
        for route in routes.iter().copied() {
            self.inner.netlink.add_route(by, route)?;
            let (network, by) = (self.clone(), by.clone());
            undo.push(format!("route to {route}"), move || network.inner.netlink.drop_route(&by, route))?;
        }
        Ok(())
    }

    /// Changes what a living nic may send and carry and which networks are behind it, without taking it away. All
    /// else of the two is the same.
    ///
    /// # Errors
    /// As [`Network::plug`].
    pub fn adjust_port(
        &self,
        bridge: &BridgeSpec,
        (old, new): (&NicSpec, &NicSpec),
        undo: &mut Undo,
    ) -> Result<()> {
        let (network, same, before) = (self.clone(), bridge.clone(), old.clone());
        undo.push(format!("port {} as it was", old.host_name), move || {
            network.ensure_port(&same, &before).map(drop)
        })?;
        self.change_routes(&bridge.name, (&old.routes, &new.routes), undo)?;
        self.ensure_port(bridge, new).map(drop)
    }

    /// Lays the routes that are new and takes those away that are no more.
    pub(crate) fn change_routes(
        &self,
        by: &IfName,
        (old, new): (&[IpNet], &[IpNet]),
        undo: &mut Undo,
    ) -> Result<()> {
        let only = |these: &[IpNet], those: &[IpNet]| -> Vec<IpNet> {
            these.iter().filter(|route| !those.contains(route)).copied().collect()
        };
        self.lay_routes(by, &only(new, old), undo)?;
        for route in only(old, new) {
            let (network, same) = (self.clone(), by.clone());
            undo.push(format!("route to {route} as it was"), move || {
                network.inner.netlink.ensure_route(&same, route)
            })?;
            self.inner.netlink.drop_route(by, route)?;
        }
        Ok(())
    }

    /// Takes the routes by a bridge or a pair away that this daemon laid and that are not among `wanted`. Gives them.
    ///
    /// # Errors
    /// When routes cannot be listed, or the kernel refuses.
    pub fn keep_routes(&self, by: &IfName, wanted: &[IpNet]) -> Result<Vec<IpNet>> {
        let mut gone = inspect::routes_by(by, ROUTES)?;
        gone.retain(|route| !wanted.contains(route));
        for route in &gone {
            self.inner.netlink.drop_route(by, *route)?;
        }
        Ok(gone)
    }

    /// Puts filter, bridge membership and flags of a living port right again, whatever happened to them; also
    /// after a change of the bridge's subnet or of the nic's filter. There is no moment without a filter.
    ///
    /// # Errors
    /// As [`Network::plug`].
    pub fn ensure_port(&self, bridge: &BridgeSpec, nic: &NicSpec) -> Result<Option<Ipv4Addr>> {
        let inner = &self.inner;
        let missing = || Error::NoLink { name: bridge.name.clone() };
        let controller = index_of(&bridge.name)?.ok_or_else(missing)?;
        let state = self.own_end(nic)?;
        let kept = inner.reservations.keep(&inner.servers, bridge, nic, Until::Unplugged)?;
        inner.firewall.set_port((bridge, self.mac_of(bridge)), nic, kept.ipv4)?;
        if state.controller != Some(controller) {
            inner.netlink.set_controller(&nic.host_name, controller)?;
        }
        self.raise(bridge, nic, kept.ipv4)?;
        self.ensure_carrying(&bridge.name, nic)?;
        Ok(kept.ipv4)
    }

    /// Puts the rate and the routes of a living nic right again.
    pub(crate) fn ensure_carrying(&self, by: &IfName, nic: &NicSpec) -> Result<()> {
        let netlink = &self.inner.netlink;
        match nic.rates.inward {
            Some(bits) => netlink.limit_rate(&nic.host_name, bits)?,
            None => netlink.unlimit_rate(&nic.host_name)?,
        }
        nic.routes.iter().try_for_each(|route| netlink.ensure_route(by, *route))
    }

    /// The host's end of a nic that was plugged in.
    pub(crate) fn own_end(&self, nic: &NicSpec) -> Result<InterfaceState> {
        let state = self.host_state(&nic.host_name)?;
        let state = state.ok_or_else(|| Error::NoLink { name: nic.host_name.clone() })?;
        match state.group == self.inner.group {
            true => Ok(state),
            false => Err(Error::LinkExists { name: nic.host_name.clone() }),
        }
    }

    fn raise(&self, bridge: &BridgeSpec, nic: &NicSpec, ipv4: Option<Ipv4Addr>) -> Result<()> {
        let inner = &self.inner;
        sysctl::silence_port(nic.host_name.as_str())?;
        inner.firewall.set_port((bridge, self.mac_of(bridge)), nic, ipv4)?;
        fault::pass("filter of the port")?;
        if let Some(slaac) = &inner.slaac {
            slaac.seek(bridge, nic);
        }
        let flags =
            PortFlags { locked: nic.filter.pins_mac(), isolated: nic.isolation == Isolation::Isolated };
        inner.netlink.raise_port(&nic.host_name, nic.mac, flags, &inner.table)
    }

    /// Removes a nic's port, and with it what was reserved for it, unless [`Network::reserve`] asked for that to
    /// stay until [`Network::release`]. What is gone already is success; after a failure it goes on.
    ///
    /// # Errors
    /// The first failure.
    pub fn unplug(&self, bridge: &IfName, nic: &NicSpec) -> Result<()> {
        let port = self.drop_port(bridge, nic);
        let routes = self.drop_routes(bridge, nic);
        let address = fault::behind("address of the port").map_err(Error::from);
        let address = address.and_then(|()| self.give_up(bridge, nic.mac, Release::WithPort));
        port.and(routes).and(address)
    }

    fn drop_routes(&self, by: &IfName, nic: &NicSpec) -> Result<()> {
        let one = |route: &IpNet| {
            fault::behind("route of the nic")?;
            self.inner.netlink.drop_route(by, *route)
        };
        nic.routes.iter().map(one).fold(Ok(()), Result::and)
    }

    fn drop_port(&self, bridge: &IfName, nic: &NicSpec) -> Result<()> {
        let left = |what: &str| fault::behind(what).map_err(Error::from);
        let link = left("link of the port").and_then(|()| self.inner.netlink.drop_link(&nic.host_name));
        let filter = left("filter of the port").and_then(|()| self.inner.firewall.drop_port(bridge, nic));
        link.and(filter)
    }

    /// Keeps an address and a name for a nic, plugged in or not, until [`Network::release`]: for one with a
    /// fixed address, so that nobody else gets it while its instance is stopped. Gives the IPv4 address.
    ///
    /// # Errors
    /// [`Error::Taken`], [`Error::Address`] for one outside, [`Error::NoAddressLeft`].
    pub fn reserve(&self, bridge: &BridgeSpec, nic: &NicSpec) -> Result<Option<Ipv4Addr>> {
        Ok(self.inner.reservations.keep(&self.inner.servers, bridge, nic, Until::Released)?.ipv4)
    }

    /// Gives up what is kept for a MAC, fixed or picked, and its lease. None is success.
    ///
    /// # Errors
    /// When the files cannot be changed or the server cannot be told.
    pub fn release(&self, bridge: &IfName, mac: Mac) -> Result<()> {
        self.give_up(bridge, mac, Release::Any)
    }

    /// Gives up what is kept for a nic that is not plugged in. What another instance has by the same MAC stays.
    ///
    /// # Errors
    /// As [`Network::release`].
    pub fn release_own(&self, bridge: &IfName, nic: &NicSpec) -> Result<()> {
        self.give_up(bridge, nic.mac, Release::Of(&nic.instance))
    }

    fn give_up(&self, bridge: &IfName, mac: Mac, what: Release<'_>) -> Result<()> {
        let inner = &self.inner;
        if let Some(slaac) = &inner.slaac {
            slaac.forget(mac);
        }
        let released = inner.reservations.release(&inner.servers, bridge, mac, what)?;
        if let Some(time) = released.reload_in {
            self.reload_in(bridge, time)?;
        }
        match released.lease {
            Some(given) => self.release_lease(bridge, mac, &given),
            None => Ok(()),
        }
    }

    /// Tells the server a little later, together with whatever goes until then.
    fn reload_in(&self, bridge: &IfName, time: Duration) -> Result<()> {
        let (network, name) = (self.clone(), bridge.clone());
        let later = std::thread::Builder::new().name("reload".to_owned()).stack_size(64 * 1024);
        let spawned = later.spawn(move || {
            // Woken too early it tells the server too early.
            std::thread::park_timeout(time);
            // A server that cannot be told has ended; the next one reads what there is.
            let _ = network.inner.servers.reload(&name);
        });
        match spawned {
            Ok(_) => Ok(()),
            Err(_) => self.inner.servers.reload(bridge),
        }
    }

    /// A lease left to itself would keep its address from others until it ends.
    fn release_lease(&self, bridge: &IfName, mac: Mac, given: &Given) -> Result<()> {
        let state = self.host_state(bridge)?;
        let server = state.iter().flat_map(|state| &state.addresses).find_map(|have| match have.address {
            std::net::IpAddr::V4(address) => Some(address),
            std::net::IpAddr::V6(_) => None,
        });
        let (Some(server), std::net::IpAddr::V4(address)) = (server, given.address) else { return Ok(()) };
        lease::release(bridge, server, mac, given).map_err(|source| Error::ReleaseLease {
            address,
            network: bridge.clone(),
            source,
        })
    }
}
