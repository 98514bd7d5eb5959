//! What a bridge and a nic are to be, as plain checked values. Whoever resolves configuration fills them in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::{Error, Result};
use crate::name::{DnsLabel, Domain, IfName, Mac};

/// A managed bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// The bridge's interface name.
    pub name: IfName,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Its Ethernet address; without one it is derived from the table and the name, so it never changes.
    pub mac: Option<Mac>,
    /// IPv4, or none of it.
    pub ipv4: Option<Ipv4Side>,
    /// IPv6, or none of it (then the bridge has it switched off on the host's side).
    pub ipv6: Option<Ipv6Side>,
    /// Names.
    pub dns: DnsSpec,
    /// What of the host the nics reach.
    pub host_access: HostAccess,
    /// Lines an administrator adds to the name server's configuration, as they are. They run with root's
    /// power: the caller decides who may set them.
    pub raw_dnsmasq: Option<String>,
}

/// IPv4 of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv4Side {
    /// The host's address on the bridge, with the prefix.
    pub address: Ipv4Net,
    /// Whether packets that leave the subnet get the host's address.
    pub nat: Option<Nat<Ipv4Addr>>,
    /// Addresses by DHCP.
    pub dhcp: Option<Dhcp4>,
    /// Whether the bridge has filter rules for this family (those of [`HostAccess`]).
    pub firewall: bool,
    /// Whether packets pass between the bridge and other interfaces.
    pub routing: bool,
}

/// IPv6 of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv6Side {
    /// The host's address on the bridge, with the prefix.
    pub address: Ipv6Net,
    /// Whether packets that leave the prefix get the host's address.
    pub nat: Option<Nat<Ipv6Addr>>,
    /// What DHCPv6 gives; router advertisements are always sent.
    pub dhcp: Dhcp6,
    /// Whether the bridge has filter rules for this family (those of [`HostAccess`]).
    pub firewall: bool,
    /// Whether packets pass between the bridge and other interfaces.
    pub routing: bool,
}

/// How source addresses are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat<A> {
    /// The address to leave with; the outgoing interface's own without one.
    pub address: Option<A>,
    /// Before or after other tables' rules at the same hook.
    pub order: NatOrder,
}

/// Where the translation stands among other tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NatOrder {
    /// Ahead of the usual place.
    #[default]
    Before,
    /// Behind it.
    After,
}

/// IPv4 DHCP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dhcp4 {
    /// First and last address of each range; the whole subnet when empty.
    pub ranges: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// How long a lease holds.
    pub expiry: Expiry,
    /// The gateway told to clients, when it is not the bridge.
    pub gateway: Option<Ipv4Addr>,
}

/// DHCPv6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Dhcp6 {
    /// Router advertisements alone.
    Off,
    /// Addresses by SLAAC, name servers by DHCPv6.
    #[default]
    Stateless,
    /// Addresses by DHCPv6.
    Stateful {
        /// First and last address of each range; the whole prefix when empty.
        ranges: Vec<(Ipv6Addr, Ipv6Addr)>,
        /// How long a lease holds.
        expiry: Expiry,
    },
}

/// How long a lease holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Seconds, 120 at least (what the server takes).
    Seconds(u32),
    /// For ever.
    Never,
}

impl Default for Expiry {
    fn default() -> Expiry {
        Expiry::Seconds(3600)
    }
}

/// Names on a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsSpec {
    /// Who makes names.
    pub mode: DnsMode,
    /// The domain names are in.
    pub domain: Option<Domain>,
    /// Servers told to clients instead of the bridge.
    pub nameservers: Vec<IpAddr>,
    /// The search list; the domain alone when empty.
    pub search: Vec<Domain>,
}

/// Who makes names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DnsMode {
    /// Instances answer to their own names; what clients call themselves is ignored.
    #[default]
    Managed,
    /// Clients name themselves over DHCP.
    Dynamic,
    /// Nobody.
    None,
}

/// What of the host the nics of a bridge reach, where the family's `firewall` is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostAccess {
    /// Everything that listens there, as in LXD and Incus.
    #[default]
    Open,
    /// DHCP, DNS, ICMP and answers to what the host began; the rest is dropped.
    Essential,
}

/// One end of a veth pair in an instance, the other on a managed bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSpec {
    /// The instance's name, by which others find it.
    pub instance: DnsLabel,
    /// The end on the host.
    pub host_name: IfName,
    /// The end in the instance.
    pub guest_name: IfName,
    /// The instance's Ethernet address.
    pub mac: Mac,
    /// Largest packet in the instance; the bridge's without one.
    pub mtu: Option<u32>,
    /// Packets that wait at each of its ends, when they must; the kernel's default without one.
    pub queue: Option<u32>,
    /// A fixed address. Without one and with DHCP on the bridge, one is picked and reserved.
    pub ipv4: Option<Ipv4Addr>,
    /// A fixed address.
    pub ipv6: Option<Ipv6Addr>,
    /// What the nic may send.
    pub filter: Filter,
    /// Whether it is kept from other isolated nics of the bridge.
    pub isolation: Isolation,
    /// Networks behind the instance: the host reaches them by the bridge (by its end of a pair), and their addresses
    /// are the nic's own.
    pub routes: Vec<IpNet>,
    /// How much it may carry.
    pub rates: Rates,
    /// The priority that the host's queues give to what it sends; what it sends has none without one.
    pub priority: Option<u32>,
}

/// How much a nic may carry, in bits a second; none is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// To the instance: what comes faster waits, as long as there is room.
    pub inward: Option<u64>,
    /// From the instance: what comes faster is dropped.
    pub outward: Option<u64>,
}

/// What a nic may send as its own. IPv4 or IPv6 filtering brings MAC filtering with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Only its own Ethernet address.
    pub mac: bool,
    /// Only its own IPv4 address.
    pub ipv4: bool,
    /// Only IPv6 addresses nobody else holds.
    pub ipv6: bool,
}

impl Filter {
    /// Everything checked: the default on managed bridges.
    pub const ALL: Filter = Filter { mac: true, ipv4: true, ipv6: true };
    /// Nothing checked, as nics that carry nested containers' own addresses may need.
    pub const NONE: Filter = Filter { mac: false, ipv4: false, ipv6: false };

    pub(crate) fn pins_mac(self) -> bool {
        self.mac || self.ipv4 || self.ipv6
    }
}

/// Whether nics of one bridge see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// They do.
    #[default]
    Shared,
    /// An isolated nic sees only those that are not.
    Isolated,
}

impl BridgeSpec {
    /// A bridge of that name with nothing on it.
    #[must_use]
    pub fn bare(name: IfName) -> BridgeSpec {
        BridgeSpec {
            name,
            mtu: 1500,
            mac: None,
            ipv4: None,
            ipv6: None,
            dns: DnsSpec::default(),
            host_access: HostAccess::Open,
            raw_dnsmasq: None,
        }
    }

    /// Whether anything needs a name server here.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.ipv4.is_some() || self.ipv6.is_some()
    }

    /// Whether names have a server of their own. dnsmasq writes all names anew for every lease that comes or goes, at a cost
    /// that grows with the square of their number (`lease_update_dns` of its version 2.90); names that are known before any lease need not
    /// come with it. Names that guests choose do, and addresses that only a lease tells; and whoever adds lines of their
    /// own may mean either server.
    #[must_use]
    pub fn names_apart(&self) -> bool {
        let leased6 = self.ipv6.as_ref().is_some_and(|side| matches!(side.dhcp, Dhcp6::Stateful { .. }));
        self.dns.mode == DnsMode::Managed
            && self.raw_dnsmasq.is_none()
            && self.ipv4.as_ref().is_some_and(|side| side.dhcp.is_some())
            && !leased6
    }

    /// Looks for what cannot work together. Creating or changing a bridge does this first.
    ///
    /// # Errors
    /// [`Error::Spec`] that names the field.
    pub fn check(&self) -> Result<()> {
        let wrong = |field: &'static str, why: &'static str| {
            Err(Error::Spec { network: self.name.clone(), field, why })
        };
        let least = if self.ipv6.is_some() { 1280 } else { 68 };
        if !(least..=65535).contains(&self.mtu) {
            return wrong("mtu", "must be 68 (with IPv6 1280) to 65535 bytes");
        }
        if let Some(side) = &self.ipv4 {
            let net = side.address;
            if !(8..=30).contains(&net.prefix_len()) {
                return wrong("ipv4.address", "the prefix must be /8 to /30");
            }
            if net.addr() == net.network() || net.addr() == net.broadcast() || net.addr().is_loopback() {
                return wrong("ipv4.address", "is not an address of a host");
            }
            if let Some(dhcp) = &side.dhcp {
                if dhcp.ranges.iter().any(|(a, b)| a > b || !net.contains(a) || !net.contains(b)) {
                    return wrong("ipv4.dhcp.ranges", "must be FIRST-LAST inside the subnet");
                }
                if matches!(dhcp.expiry, Expiry::Seconds(s) if s < 120) {
                    return wrong("ipv4.dhcp.expiry", "must be two minutes at least");
                }
            }
        }
        if let Some(side) = &self.ipv6 {
            let net = side.address;
            if !(64..=126).contains(&net.prefix_len()) || net.addr() == net.network() {
                return wrong("ipv6.address", "is not an address of a host in a prefix of /64 to /126");
            }
            if net.prefix_len() != 64 && !matches!(side.dhcp, Dhcp6::Stateful { .. }) {
                return wrong("ipv6.address", "needs stateful DHCP unless its prefix is /64");
            }
            if net.addr().is_unicast_link_local() || net.addr().is_multicast() {
                return wrong("ipv6.address", "must be a routable address");
            }
            if let Dhcp6::Stateful { ranges, expiry } = &side.dhcp {
                if ranges.iter().any(|(a, b)| a > b || !net.contains(a) || !net.contains(b)) {
                    return wrong("ipv6.dhcp.ranges", "must be FIRST-LAST inside the prefix");
                }
                if matches!(expiry, Expiry::Seconds(s) if *s < 120) {
                    return wrong("ipv6.dhcp.expiry", "must be two minutes at least");
                }
            }
        }
        if self.raw_dnsmasq.as_ref().is_some_and(|raw| raw.contains('\0') || raw.len() > 64 * 1024) {
            return wrong("raw.dnsmasq", "must be text of at most 64 KiB");
        }
        Ok(())
    }
}
