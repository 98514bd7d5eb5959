//! A nic without a bridge: a veth pair of which the host keeps one end, for whoever routes or bridges it there (`p2p` of
//! Incus). Nothing is given out on it and nothing filtered.

use std::os::fd::BorrowedFd;

use cabin_undo::{Undo, fault};

use crate::error::Result;
use crate::netlink::{Guest, HostEnd};
use crate::spec::NicSpec;
use crate::{Network, sysctl};

/// Largest packet when none is said, in bytes: the kernel's own for Ethernet.
const MTU: u32 = 1500;

impl Network {
    /// Makes a pair with the guest's end straight in `netns`, and brings the host's end up.
    ///
    /// # Errors
    /// [`crate::Error::LinkExists`], or the kernel's refusal.
    pub fn plug_pair(&self, nic: &NicSpec, netns: BorrowedFd<'_>, undo: &mut Undo) -> Result<()> {
        let inner = &self.inner;
        let mtu = nic.mtu.unwrap_or(MTU);
        let guest = Guest { name: &nic.guest_name, mac: nic.mac, mtu, netns };
        let host = HostEnd { name: &nic.host_name, bridge: None, group: inner.group, mtu, queue: nic.queue };
        inner.netlink.add_veth(host, guest)?;
        let (network, pair) = (self.clone(), nic.clone());
        undo.push(format!("pair {}", nic.host_name), move || network.unplug_pair(&pair))?;
        if let Some(bits) = nic.rates.inward {
            inner.netlink.limit_rate(&nic.host_name, bits)?;
        }
        self.raise_pair(nic)?;
        self.lay_routes(&nic.host_name, &nic.routes, undo)
    }

    /// Changes what a living pair may carry and which networks are behind it, without taking it away.
    ///
    /// # Errors
    /// As [`Network::plug_pair`].
    pub fn adjust_pair(&self, (old, new): (&NicSpec, &NicSpec), undo: &mut Undo) -> Result<()> {
        let (network, before) = (self.clone(), old.clone());
        undo.push(format!("pair {} as it was", old.host_name), move || network.ensure_pair(&before))?;
        self.change_routes(&old.host_name, (&old.routes, &new.routes), undo)?;
        self.ensure_pair(new)
    }

    /// Brings the host's end of a living pair up again, whatever happened to it.
    ///
    /// # Errors
    /// [`crate::Error::NoLink`] when it is gone, [`crate::Error::LinkExists`] when it is somebody else's, or the kernel's refusal.
    pub fn ensure_pair(&self, nic: &NicSpec) -> Result<()> {
        self.own_end(nic)?;
        self.raise_pair(nic)?;
        self.ensure_carrying(&nic.host_name, nic)
    }

    /// Removes a pair; one that is gone is success.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn unplug_pair(&self, nic: &NicSpec) -> Result<()> {
        fault::behind("pair of links")?;
        self.inner.netlink.drop_link(&nic.host_name)
    }

    fn raise_pair(&self, nic: &NicSpec) -> Result<()> {
        sysctl::distrust(nic.host_name.as_str())?;
        self.inner.netlink.raise_link(&nic.host_name, &self.inner.table)
    }
}
