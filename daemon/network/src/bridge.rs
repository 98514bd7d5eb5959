//! The life of a bridge.

use std::net::{IpAddr, Ipv6Addr};

use cabin_undo::{Undo, fault};

use crate::error::{Error, Result};
use crate::firewall::own_addresses;
use crate::inspect::{self, InterfaceState};
use crate::lease::{self, Lease, LeaseKind};
use crate::name::{IfName, Mac};
use crate::reservation::{Origin, read_leases};
use crate::spec::BridgeSpec;
use crate::{Network, netlink, sysctl};

impl Network {
    /// Makes a bridge that is not there yet: filter first, then the link goes up, then the name server.
    ///
    /// # Errors
    /// [`Error::Spec`], [`Error::Program`] and [`Error::LinkExists`] before anything was done.
    pub fn create_bridge(&self, spec: &BridgeSpec, undo: &mut Undo) -> Result<()> {
        spec.check()?;
        self.inner.servers.check(spec)?;
        if netlink::index_of(&spec.name)?.is_some() {
            return Err(Error::LinkExists { name: spec.name.clone() });
        }
        self.inner.netlink.add_bridge(&spec.name, self.mac_of(spec), spec.mtu, self.inner.group)?;
        let (network, name) = (self.clone(), spec.name.clone());
        undo.push(format!("bridge {name}"), move || network.destroy_bridge(&name))?;
        self.set_up(spec, None)?;
        self.inner.servers.ensure(spec)?;
        let (network, name) = (self.clone(), spec.name.clone());
        undo.push(format!("name server of {name}"), move || network.inner.servers.stop(&name))?;
        Ok(())
    }

    /// Makes whatever is missing of a bridge, and leaves what is right: after a restart of daemon or host.
    /// A name server that runs with this configuration goes on.
    ///
    /// # Errors
    /// [`Error::LinkExists`] when the name belongs to an interface that is not this daemon's.
    pub fn ensure_bridge(&self, spec: &BridgeSpec) -> Result<()> {
        spec.check()?;
        self.inner.servers.check(spec)?;
        match self.host_state(&spec.name)? {
            None => {
                self.inner.netlink.add_bridge(&spec.name, self.mac_of(spec), spec.mtu, self.inner.group)?;
            }
            Some(state) if state.group != self.inner.group => {
                return Err(Error::LinkExists { name: spec.name.clone() });
            }
            Some(_) => {}
        }
        self.set_up(spec, None)?;
        self.serve(spec)
    }

    /// Turns a bridge from `old` into `new` (of the same name) while nics are on it. When the subnet
    /// changes, call [`Network::ensure_port`] for each of them afterwards. To take it back, call it with the
    /// two swapped.
    ///
    /// # Errors
    /// The first step that failed; what was before it holds.
    pub fn update_bridge(&self, old: &BridgeSpec, new: &BridgeSpec) -> Result<()> {
        if old.name != new.name {
            return Err(Error::Spec {
                network: old.name.clone(),
                field: "name",
                why: "cannot change on a live bridge",
            });
        }
        new.check()?;
        self.inner.servers.check(new)?;
        if netlink::index_of(&new.name)?.is_none() {
            return Err(Error::NoLink { name: new.name.clone() });
        }
        self.set_up(new, Some(old))?;
        self.serve(new)?;
        self.inner.reservations.prune(&self.inner.servers, new)
    }

    /// The servers of a bridge, and the names that they are to know.
    fn serve(&self, spec: &BridgeSpec) -> Result<()> {
        let inner = &self.inner;
        inner.reservations.name_all(&inner.servers, spec)?;
        inner.servers.ensure(spec)
    }

    /// Removes a bridge: server, filter, link, files. What is gone already is success. A server that cannot be ended
    /// keeps all of it; after another failure it goes on, and the first one is returned.
    ///
    /// # Errors
    /// The first failure.
    pub fn destroy_bridge(&self, name: &IfName) -> Result<()> {
        let left = |what: &str| fault::behind(what).map_err(Error::from);
        left("name server").and_then(|()| self.inner.servers.stop(name))?;
        let removed = left("link of the bridge").and_then(|()| match self.host_state(name)? {
            Some(state) if state.group == self.inner.group => self.inner.netlink.drop_link(name),
            _ => Ok(()),
        });
        // Newer kernels keep a chain whose device is gone.
        let dead = self.dead_ports().unwrap_or_default();
        let filter = left("filter of the bridge").and_then(|()| self.inner.firewall.drop_bridge(name, &dead));
        self.inner.reservations.forget(name);
        let files = left("files of the name server").and_then(|()| self.inner.servers.forget(name));
        removed.and(filter).and(files)
    }

    /// Link settings, switches, filter, addresses, up: everything but the server.
    fn set_up(&self, spec: &BridgeSpec, old: Option<&BridgeSpec>) -> Result<()> {
        let mac = self.mac_of(spec);
        let inner = &self.inner;
        sysctl::apply(spec)?;
        fault::pass("switches of the bridge")?;
        let before = old.map(|old| own_addresses(old, self.mac_of(old))).unwrap_or_default();
        let now = own_addresses(spec, mac);
        let gone: Vec<Ipv6Addr> = before.into_iter().filter(|address| !now.contains(address)).collect();
        inner.firewall.set_bridge(spec, mac, &gone)?;
        fault::pass("filter of the bridge")?;
        let wanted = addresses(spec, mac);
        let have = self.host_state(&spec.name)?.map(|state| state.addresses).unwrap_or_default();
        for address in &have {
            if !wanted.contains(&(address.address, address.prefix)) {
                inner.netlink.drop_address(&spec.name, address.address, address.prefix)?;
            }
        }
        for (address, prefix) in wanted {
            if !have.iter().any(|have| (have.address, have.prefix) == (address, prefix)) {
                inner.netlink.add_address(&spec.name, address, prefix)?;
            }
        }
        fault::pass("addresses of the bridge")?;
        inner.netlink.raise_bridge(&spec.name, mac, spec.mtu, &inner.table)?;
        fault::pass("bridge switched on")?;
        Ok(())
    }

    /// Whether a bridge is there with all its addresses.
    ///
    /// # Errors
    /// [`Error::Connection`].
    pub fn has_addresses(&self, spec: &BridgeSpec) -> Result<bool> {
        let have = self.host_state(&spec.name)?.map(|state| state.addresses).unwrap_or_default();
        let has = |wanted: &(IpAddr, u8)| have.iter().any(|have| (have.address, have.prefix) == *wanted);
        Ok(addresses(spec, self.mac_of(spec)).iter().all(has))
    }

    /// What is wrong with a bridge, as far as can be seen from outside: the first thing found, in words.
    ///
    /// # Errors
    /// When links, filter or processes cannot be listed.
    pub fn broken(&self, spec: &BridgeSpec) -> Result<Option<&'static str>> {
        let Some(state) = self.host_state(&spec.name)? else { return Ok(Some("its bridge was gone")) };
        if !state.up {
            return Ok(Some("its bridge was switched off"));
        }
        if !self.has_addresses(spec)? {
            return Ok(Some("an address of its bridge was gone"));
        }
        if !self.inner.firewall.has_bridge(&spec.name)? {
            return Ok(Some("its packet filter was gone"));
        }
        if !self.serves(spec)? {
            return Ok(Some("its name server had ended"));
        }
        Ok(None)
    }

    /// Who holds which address on a bridge: the bridge itself, what is reserved, what the server gave.
    ///
    /// # Errors
    /// When files or interfaces cannot be read.
    pub fn leases(&self, bridge: &IfName) -> Result<Vec<Lease>> {
        let mut list = Vec::new();
        let state = self.host_state(bridge)?.ok_or_else(|| Error::NoLink { name: bridge.clone() })?;
        for address in state.addresses.iter().filter(|address| address.scope == crate::Scope::Global) {
            list.push(Lease {
                hostname: Some(format!("{bridge}.gw")),
                mac: state.mac,
                address: address.address,
                kind: LeaseKind::Gateway,
            });
        }
        let kept = self.inner.reservations.of(&self.inner.servers, bridge)?;
        for (mac, entry) in kept.iter().filter(|(_, entry)| entry.origin == Origin::Static) {
            for address in entry.ipv4.map(IpAddr::V4).into_iter().chain(entry.ipv6.map(IpAddr::V6)) {
                let hostname = entry.name.as_ref().map(ToString::to_string);
                list.push(Lease { hostname, mac: Some(*mac), address, kind: LeaseKind::Static });
            }
        }
        let given = self
            .inner
            .servers
            .existing_home(bridge)
            .map(|home| lease::parse(&read_leases(&home)))
            .unwrap_or_default();
        for lease in given {
            if !list.iter().any(|other| other.address == lease.address) {
                let name = lease.mac.and_then(|mac| kept.get(&mac)?.name.as_ref().map(ToString::to_string));
                let hostname = name.or(lease.hostname);
                let (mac, address) = (lease.mac, lease.address);
                list.push(Lease { hostname, mac, address, kind: LeaseKind::Dynamic });
            }
        }
        list.sort_by_key(|lease| (lease.kind, lease.address));
        Ok(list)
    }

    /// An interface of the host as it is now; none if there is none of that name.
    ///
    /// # Errors
    /// [`Error::Connection`].
    pub fn host_state(&self, name: &IfName) -> Result<Option<InterfaceState>> {
        inspect::own_link(name)
    }

    /// Every interface of the host.
    ///
    /// # Errors
    /// [`Error::Connection`].
    pub fn host_interfaces(&self) -> Result<Vec<InterfaceState>> {
        inspect::own_state()
    }

    /// The MAC a bridge has, asked for or derived. Without one of its own a bridge would take that of a
    /// port, and change it when that port goes.
    pub(crate) fn mac_of(&self, spec: &BridgeSpec) -> Mac {
        spec.mac.unwrap_or_else(|| {
            let h = crate::hash(format!("{}/{}", self.inner.table, spec.name).as_bytes()).to_be_bytes();
            Mac([0x00, 0x16, 0x3e, h[5], h[6], h[7]])
        })
    }

    /// Port filters whose device is gone.
    pub(crate) fn dead_ports(&self) -> Result<Vec<String>> {
        let links = self.host_interfaces()?;
        let ports = self.inner.firewall.ports()?;
        Ok(ports.into_iter().filter(|port| !links.iter().any(|link| link.name == *port)).collect())
    }
}

fn addresses(spec: &BridgeSpec, mac: Mac) -> Vec<(IpAddr, u8)> {
    let four = spec.ipv4.iter().map(|side| (IpAddr::V4(side.address.addr()), side.address.prefix_len()));
    let six = spec.ipv6.iter().flat_map(|side| {
        [(IpAddr::V6(side.address.addr()), side.address.prefix_len()), (IpAddr::V6(mac.link_local()), 64)]
    });
    four.chain(six).collect()
}
