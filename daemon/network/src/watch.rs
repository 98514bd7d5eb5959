//! Noticing that somebody else changed what is this daemon's: a link or an address taken away, a filter
//! flushed, a name server that ended.
//!
//! The kernel tells of each change of links, addresses and filters of the host; here is sorted out what may
//! matter. Whether something is really wrong, and what to do, is for whoever asked.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType};

use crate::Network;
use crate::error::{Error, Result};
use crate::inspect::change;
use crate::name::IfName;
use crate::slaac::Slaac;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR`.
const LINKS: u32 = 1 | 0x10 | 0x100;

/// `NFNLGRP_NFTABLES` (7), as a bit.
const FILTERS: u32 = 1 << 6;

/// What may have to be put right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Happened {
    /// Links of this daemon that went, or went down.
    pub links: BTreeSet<String>,
    /// Bridges whose name server ended.
    pub servers: BTreeSet<IfName>,
    /// The filter was changed, by somebody else.
    pub filter: bool,
    /// An address was taken away, from whatever interface.
    pub address: bool,
    /// So much happened that the kernel could not tell all of it.
    pub anything: bool,
}

impl Happened {
    /// Whether nothing happened.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Happened::default()
    }

    /// Adds what happened later.
    pub fn add(&mut self, later: Happened) {
        self.links.extend(later.links);
        self.servers.extend(later.servers);
        self.filter |= later.filter;
        self.address |= later.address;
        self.anything |= later.anything;
    }
}

/// What the kernel tells.
pub struct Watch {
    network: Network,
    links: OwnedFd,
    filters: OwnedFd,
}

impl Network {
    /// Begins to listen to what the kernel tells of the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Connection`] when it does not.
    pub fn watch(&self) -> Result<Watch> {
        let failed = |source| Error::Connection { source };
        let links = listen(None, LINKS).map_err(failed)?;
        let filters = listen(Some(netlink::NETFILTER), FILTERS).map_err(failed)?;
        Ok(Watch { network: self.clone(), links, filters })
    }
}

/// No protocol is `NETLINK_ROUTE`.
fn listen(protocol: Option<net::Protocol>, groups: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

impl Watch {
    /// Waits until something may have happened, or the time is over. Meanwhile addresses are looked for that guests made for
    /// themselves.
    ///
    /// # Errors
    /// [`Error::Connection`] when the kernel tells nothing any more.
    pub fn wait(&self, within: Duration) -> Result<Happened> {
        self.listen(within).map_err(|source| Error::Connection { source })
    }

    fn listen(&self, within: Duration) -> io::Result<Happened> {
        let inner = &self.network.inner;
        let slaac = inner.slaac.as_ref();
        let rest = slaac.and_then(Slaac::rest).unwrap_or(within).min(within);
        let time = Timespec::try_from(rest).map_err(io::Error::other)?;
        let mut sources = vec![self.links.as_fd(), self.filters.as_fd(), inner.servers.ends()];
        sources.extend(slaac.map(Slaac::wake));
        sources.extend(slaac.and_then(Slaac::answers));
        let mut sources: Vec<PollFd<'_>> =
            sources.iter().map(|source| PollFd::new(source, PollFlags::IN)).collect();
        match poll(&mut sources, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut happened = Happened::default();
        read_all(&self.links, &mut happened, |bytes, happened| {
            let change = change::read(bytes, inner.group);
            happened.links.extend(change.links);
            happened.address |= change.address;
        })?;
        read_all(&self.filters, &mut happened, |bytes, happened| {
            happened.filter |= inner.firewall.is_foreign_removal(bytes);
        })?;
        happened.servers = inner.servers.ended();
        for found in slaac.map(Slaac::look).unwrap_or_default() {
            // A disk without room: the name leads to the other address alone.
            let _ = inner.reservations.learn(&inner.servers, &found);
        }
        Ok(happened)
    }
}

fn read_all(
    socket: &OwnedFd,
    happened: &mut Happened,
    mut take: impl FnMut(&[u8], &mut Happened),
) -> io::Result<()> {
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        match net::recv(socket.as_fd(), buffer.as_mut_slice(), RecvFlags::empty()) {
            Ok((got, _)) => take(buffer.get(..got).unwrap_or_default(), happened),
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => {}
            // More than the socket holds: some of it is lost.
            Err(Errno::NOBUFS) => happened.anything = true,
            Err(error) => return Err(error.into()),
        }
    }
}
