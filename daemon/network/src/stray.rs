//! What bears this daemon's marks, for the clean-up after a crash.

use std::collections::BTreeSet;

use crate::Network;
use crate::error::Result;
use crate::name::{IfName, Mac};
use crate::reservation::Origin;
use crate::spec::BridgeSpec;

/// Everything in the kernel and on disk that is this daemon's, whatever its store says. Whoever knows what
/// should be there takes the rest away with [`Network::destroy_bridge`] and [`Network::remove_port`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Strays {
    /// Bridges: links, filter chains, name servers or directories of that name.
    pub bridges: Vec<IfName>,
    /// Ports: links or filter chains of that name.
    pub ports: Vec<IfName>,
}

impl Network {
    /// Lists what bears this daemon's marks.
    ///
    /// # Errors
    /// When links, filter or files cannot be listed.
    pub fn marked(&self) -> Result<Strays> {
        let mut found = Strays::default();
        for link in self.host_interfaces()?.into_iter().filter(|link| link.group == self.inner.group) {
            let Ok(name) = link.name.parse::<IfName>() else { continue };
            let bridge = link.kind.as_deref() == Some("bridge");
            if bridge { &mut found.bridges } else { &mut found.ports }.push(name);
        }
        let parsed = |names: Vec<String>| names.into_iter().filter_map(|name| name.parse().ok());
        found.bridges.extend(parsed(self.inner.firewall.bridges()?));
        found.bridges.extend(self.inner.servers.known()?);
        found.ports.extend(parsed(self.inner.firewall.ports()?));
        for list in [&mut found.bridges, &mut found.ports] {
            list.sort();
            list.dedup();
        }
        Ok(found)
    }

    /// Lists the bridges and ports that have a filter of this daemon's.
    ///
    /// # Errors
    /// When the filter cannot be listed.
    pub fn filtered(&self) -> Result<Strays> {
        let parsed = |names: Vec<String>| names.into_iter().filter_map(|name| name.parse().ok()).collect();
        Ok(Strays {
            bridges: parsed(self.inner.firewall.bridges()?),
            ports: parsed(self.inner.firewall.ports()?),
        })
    }

    /// Removes a port of which only the name is known. One already gone, or not this daemon's, is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_port(&self, name: &IfName) -> Result<()> {
        let link = match self.host_state(name)? {
            Some(state) if state.group == self.inner.group => self.inner.netlink.drop_link(name),
            _ => Ok(()),
        };
        let filter = if self.inner.firewall.ports()?.iter().any(|port| port == name.as_str()) {
            self.inner.firewall.drop_port_chain(name)
        } else {
            Ok(())
        };
        link.and(filter)
    }

    /// Gives up the addresses that were picked for nics other than `plugged`, and those that were fixed for
    /// nics other than `known`. Gives the MACs they were kept for.
    ///
    /// # Errors
    /// When the files cannot be changed or the server cannot be told.
    pub fn keep_only(
        &self,
        bridge: &IfName,
        plugged: &BTreeSet<Mac>,
        known: &BTreeSet<Mac>,
    ) -> Result<Vec<Mac>> {
        let kept = self.inner.reservations.of(&self.inner.servers, bridge)?;
        let mut given_up = Vec::new();
        for (mac, entry) in kept {
            let wanted = match entry.origin {
                Origin::Automatic => plugged.contains(&mac),
                Origin::Static => known.contains(&mac),
            };
            if !wanted {
                self.release(bridge, mac)?;
                given_up.push(mac);
            }
        }
        Ok(given_up)
    }

    /// Whether the servers run that a bridge needs.
    ///
    /// # Errors
    /// When processes cannot be listed.
    pub fn serves(&self, bridge: &BridgeSpec) -> Result<bool> {
        self.inner.servers.run(bridge)
    }
}
