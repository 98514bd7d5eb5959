//! Managed bridges and the nics on them: links, addresses, filter, NAT, DHCP and names.
//!
//! [`Network`] is the whole of it: one for a daemon, shared by its threads, blocking. `netlink` changes
//! links, `inspect` reads them, `firewall` owns the packet filter's tables, `dnsmasq` the servers,
//! `reservation` who has which address, `slaac` looks for those that guests make up, `watch` what others do to it. What instances, profiles and configuration keys are, is not
//! known here.

#![forbid(unsafe_code)]

mod bridge;
mod dnsmasq;
mod error;
mod firewall;
mod inspect;
mod lease;
mod name;
mod netlink;
mod nic;
mod pair;
mod reservation;
mod slaac;
mod spec;
mod stray;
mod subnet;
mod sysctl;
mod watch;

use std::path::Path;
use std::sync::Arc;

use cabin_sys::command::Programs;
use cabin_sys::dir::HostDir;

pub use error::{Error, Kind, Result};
pub use firewall::dropping;
pub use inspect::{Address, Counters, InterfaceState, LinkType, Scope, guest_state};
pub use lease::{Lease, LeaseKind};
pub use name::{BadName, DnsLabel, Domain, IfName, Mac};
pub use spec::{
    BridgeSpec, Dhcp4, Dhcp6, DnsMode, DnsSpec, Expiry, Filter, HostAccess, Ipv4Side, Ipv6Side, Isolation,
    Nat, NatOrder, NicSpec, Rates,
};
pub use stray::Strays;
pub use watch::{Happened, Watch};

use dnsmasq::Servers;
use firewall::Firewall;
use netlink::Netlink;
use reservation::Reservations;
use slaac::Slaac;

/// The networks of one daemon. Clones are the same one.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    table: String,
    group: u32,
    netlink: Netlink,
    firewall: Firewall,
    servers: Servers,
    reservations: Reservations,
    /// None where the kernel has no IPv6.
    slaac: Option<Slaac>,
}

impl Network {
    /// Opens the networks whose files are beneath `state_dir` (an absolute path, made when missing) and whose
    /// marks in the kernel bear the name `table` (letters, digits, `_`). Other daemons of the host have
    /// other ones. Works on the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::StateDir`] for the directory, [`Error::Connection`] without rtnetlink.
    pub fn new(state_dir: &Path, table: &str, programs: Programs) -> Result<Network> {
        let bad = |why| Error::StateDir { path: state_dir.to_owned(), why };
        let text = state_dir.to_str().ok_or_else(|| bad("is not UTF-8"))?;
        if !state_dir.is_absolute() {
            return Err(bad("is not absolute"));
        }
        // It stands in a line of the name server's configuration.
        if text.chars().any(|c| c.is_control() || "\"'#,\\".contains(c)) {
            return Err(bad("has a character that cannot stand in dnsmasq's configuration"));
        }
        let root = HostDir::ensure(state_dir, 0o711).map_err(|source| Error::File {
            act: "open",
            file: text.to_owned(),
            network: "*".to_owned(),
            source,
        })?;
        Ok(Network {
            inner: Arc::new(Inner {
                table: table.to_owned(),
                group: mark(table),
                netlink: Netlink::open()?,
                firewall: Firewall::open(table)?,
                servers: Servers::new(root, programs).map_err(|source| Error::Connection { source })?,
                reservations: Reservations::default(),
                slaac: Slaac::open().ok(),
            }),
        })
    }
}

/// The interface group of a daemon's links: it can be given when a link is made, so that no link is ever
/// without it.
fn mark(table: &str) -> u32 {
    0x0cab_0000 | (u32::try_from(hash(table.as_bytes()) & 0xffff).unwrap_or(0))
}

/// FNV-1a: the same on every run and version, which the standard library's does not promise.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
