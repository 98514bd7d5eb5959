//! Unused subnets for new bridges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::Network;
use crate::error::{Error, Result};
use crate::inspect;

const TRIES: u32 = 100;

impl Network {
    /// The first address of a random /24 of 10.0.0.0/8 the host has no address or route in.
    ///
    /// # Errors
    /// [`Error::NoSubnetLeft`] after a hundred tries.
    pub fn free_ipv4_subnet(&self) -> Result<Ipv4Net> {
        let used = self.used_networks()?;
        for _ in 0..TRIES {
            let [b, c]: [u8; 2] = rand::random();
            if let Ok(net) = Ipv4Net::new(Ipv4Addr::new(10, b, c, 1), 24)
                && free(IpNet::V4(net), &used)
            {
                return Ok(net);
            }
        }
        Err(Error::NoSubnetLeft { tries: TRIES })
    }

    /// The first address of a random /64 of fd42::/16 the host has no address or route in.
    ///
    /// # Errors
    /// [`Error::NoSubnetLeft`] after a hundred tries.
    pub fn free_ipv6_subnet(&self) -> Result<Ipv6Net> {
        let used = self.used_networks()?;
        for _ in 0..TRIES {
            let [b, c, d]: [u16; 3] = rand::random();
            if let Ok(net) = Ipv6Net::new(Ipv6Addr::new(0xfd42, b, c, d, 0, 0, 0, 1), 64)
                && free(IpNet::V6(net), &used)
            {
                return Ok(net);
            }
        }
        Err(Error::NoSubnetLeft { tries: TRIES })
    }

    fn used_networks(&self) -> Result<Vec<IpNet>> {
        let addresses = self.host_interfaces()?.into_iter().flat_map(|state| state.addresses);
        let addresses = addresses.map(|address| (address.address, address.prefix));
        let all = addresses.chain(inspect::routed()?);
        Ok(all.filter_map(|(address, prefix): (IpAddr, u8)| IpNet::new(address, prefix).ok()).collect())
    }
}

fn free(net: IpNet, used: &[IpNet]) -> bool {
    used.iter().all(|other| !other.contains(&net.network()) && !net.contains(&other.network()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_free_only_when_nothing_reaches_into_it_or_over_it() {
        let check = |net: &str, other: &str, wanted: bool| {
            assert_eq!(free(net.parse().unwrap(), &[other.parse().unwrap()]), wanted, "{net} {other}");
        };
        check("10.1.2.1/24", "10.1.2.128/25", false);
        check("10.1.2.1/24", "10.1.0.0/16", false);
        check("10.1.2.1/24", "10.1.3.1/24", true);
        check("10.1.2.1/24", "fd42::/64", true);
    }
}
