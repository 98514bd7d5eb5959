//! Looking for the IPv6 addresses that guests make for themselves from the bridge's prefix and their MAC (RFC 4862), so
//! that their names lead there too.
//!
//! Nobody tells of such an address, and a guest may as well have chosen another one: it is asked with an echo request
//! (RFC 4443 §4.1), again and again at growing distances, until it answers. dnsmasq's `ra-names` does the same where names come with
//! leases. [`crate::Watch::wait`] does the asking.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use crate::name::{IfName, Mac};
use crate::spec::{BridgeSpec, Dhcp6, NicSpec};

/// How often one is asked, a second after it was plugged in and then each time twice as long after the time before: a
/// quarter of an hour in all.
const TIMES: u32 = 10;

/// Types of messages.
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// Those that are looked for.
pub struct Slaac {
    socket: OwnedFd,
    wake: OwnedFd,
    sought: Mutex<BTreeMap<Ipv6Addr, Sought>>,
}

struct Sought {
    found: Found,
    asked: u32,
    next: Instant,
}

/// Whose address it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The bridge.
    pub bridge: IfName,
    /// The nic.
    pub mac: Mac,
    /// The address.
    pub address: Ipv6Addr,
}

impl Slaac {
    /// In the network namespace of the calling thread.
    ///
    /// # Errors
    /// As socket(2) and eventfd(2).
    pub fn open() -> io::Result<Slaac> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::INET6, SocketType::RAW, flags, Some(ipproto::ICMPV6))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Slaac { socket, wake, sought: Mutex::default() })
    }

    fn sought(&self) -> MutexGuard<'_, BTreeMap<Ipv6Addr, Sought>> {
        self.sought.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the address that this nic makes for itself is looked for, if it is one that makes any.
    pub fn seek(&self, bridge: &BridgeSpec, nic: &NicSpec) {
        let Some(address) = own_address(bridge, nic) else { return };
        let found = Found { bridge: bridge.name.clone(), mac: nic.mac, address };
        let next = Instant::now() + Duration::from_secs(1);
        self.sought().insert(address, Sought { found, asked: 0, next });
        // Full or not, it can be read.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Nobody needs to know any more.
    pub fn forget(&self, mac: Mac) {
        self.sought().retain(|_, sought| sought.found.mac != mac);
    }

    /// Can be read when there is more to look for.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Can be read when somebody may have answered; none while nobody is asked.
    pub fn answers(&self) -> Option<BorrowedFd<'_>> {
        (!self.sought().is_empty()).then(|| self.socket.as_fd())
    }

    /// How long it is until somebody is to be asked.
    pub fn rest(&self) -> Option<Duration> {
        let now = Instant::now();
        self.sought().values().map(|sought| sought.next.saturating_duration_since(now)).min()
    }

    /// Asks those whose time has come, and gives those that have answered. They are not looked for any more.
    pub fn look(&self) -> Vec<Found> {
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        let mut sought = self.sought();
        if sought.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut packet = [0u8; 64];
        // Whatever cannot be read or sent is asked for once more.
        while let Ok((_, got, from)) = net::recvfrom(&self.socket, &mut packet[..], RecvFlags::TRUNC) {
            let from = from.and_then(|from| SocketAddrV6::try_from(from).ok());
            if got > 0
                && packet[0] == ECHO_REPLY
                && let Some(from) = from
            {
                found.extend(sought.remove(from.ip()).map(|sought| sought.found));
            }
        }
        let now = Instant::now();
        sought.retain(|_, one| one.asked < TIMES);
        for (address, one) in sought.iter_mut().filter(|(_, one)| one.next <= now) {
            one.next = now + Duration::from_secs(1 << one.asked);
            one.asked += 1;
            let request = [ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 0];
            let _ = net::sendto(
                &self.socket,
                &request,
                SendFlags::empty(),
                &SocketAddrV6::new(*address, 0, 0, 0),
            );
        }
        found
    }
}

/// The address that a nic makes for itself, where its name does not come with a lease.
fn own_address(bridge: &BridgeSpec, nic: &NicSpec) -> Option<Ipv6Addr> {
    let side = bridge.ipv6.as_ref()?;
    let makes =
        bridge.names_apart() && matches!(side.dhcp, Dhcp6::Stateless) && side.address.prefix_len() == 64;
    (makes && nic.ipv6.is_none()).then(|| nic.mac.address_in(side.address.network()))
}
