//! What can go wrong with networks.

use std::io;
use std::net::Ipv4Addr;

use cabin_sys::command::Missing;
use ipnet::IpNet;

use crate::name::IfName;

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something about a network failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory for networks cannot be used.
    #[error("state directory `{}` {why}", path.display())]
    StateDir {
        /// The directory.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A value of a bridge cannot work.
    #[error("network `{network}`: `{field}` {why}")]
    Spec {
        /// The network.
        network: IfName,
        /// The field, as the configuration key it comes from.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An address that was asked for is kept for another nic.
    #[error("address `{address}` on network `{network}` is taken already by {holder}: choose another")]
    Taken {
        /// The network.
        network: IfName,
        /// The address.
        address: std::net::IpAddr,
        /// Whose it is, as a reader is told.
        holder: String,
    },
    /// An address that was asked for lies outside, or belongs to the bridge.
    #[error("address `{address}` is {why} on network `{network}`")]
    Address {
        /// The network.
        network: IfName,
        /// The address.
        address: String,
        /// Why it cannot be had.
        why: &'static str,
    },
    /// Every address is taken.
    #[error("network `{network}` has no free address left")]
    NoAddressLeft {
        /// The network.
        network: IfName,
    },
    /// No unused subnet was found.
    #[error("no unused subnet was found in {tries} tries")]
    NoSubnetLeft {
        /// How many were tried.
        tries: u32,
    },
    /// A program is not there.
    #[error("network `{network}` cannot serve addresses and names")]
    Program {
        /// The network.
        network: IfName,
        /// The program and its package.
        #[source]
        source: Missing,
    },
    /// An interface of that name is there and is not ours.
    #[error("interface `{name}` exists already")]
    LinkExists {
        /// The interface.
        name: IfName,
    },
    /// An interface is not there.
    #[error("interface `{name}` does not exist")]
    NoLink {
        /// The interface.
        name: IfName,
    },
    /// The kernel refused a change of an interface.
    #[error("cannot {act} interface `{name}`")]
    Link {
        /// What was tried.
        act: &'static str,
        /// The interface.
        name: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// There is a way to a network already.
    #[error("the host has a route to `{route}` already")]
    RouteExists {
        /// The network.
        route: IpNet,
    },
    /// The kernel refused a route.
    #[error("cannot {act} the route to `{route}` by interface `{name}`")]
    Route {
        /// What was tried.
        act: &'static str,
        /// Where it leads.
        route: IpNet,
        /// The interface.
        name: IfName,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel does not limit how fast packets leave by an interface.
    #[error("cannot limit the rate of interface `{name}` (the kernel's `sch_htb` is needed)")]
    Rate {
        /// The interface.
        name: IfName,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The connection to the kernel's routing tables broke.
    #[error("cannot talk to the kernel's network configuration")]
    Connection {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a filter batch; nothing of it holds.
    #[error("cannot {act} in the packet filter (table `{table}`)")]
    Filter {
        /// What was tried.
        act: &'static str,
        /// The table.
        table: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A kernel setting could not be written.
    #[error("cannot set `{setting}` of interface `{name}`")]
    Setting {
        /// The setting's path beneath /proc/sys/net.
        setting: &'static str,
        /// The interface.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of a network could not be used.
    #[error("cannot {act} {} of network `{network}`", shown(file))]
    File {
        /// What was tried.
        act: &'static str,
        /// The file, relative to the network's directory; empty for the directory itself.
        file: String,
        /// The network.
        network: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name server did not start.
    #[error("cannot start dnsmasq for network `{network}`")]
    StartServer {
        /// The network.
        network: IfName,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The name server could not be signalled or did not end.
    #[error("cannot {act} dnsmasq of network `{network}`")]
    SignalServer {
        /// What was tried.
        act: &'static str,
        /// The network.
        network: IfName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A lease could not be given back.
    #[error("cannot release lease `{address}` of network `{network}`")]
    ReleaseLease {
        /// The address.
        address: Ipv4Addr,
        /// The network.
        network: IfName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A test made a step fail.
    #[error("a step was made to fail")]
    Injected {
        /// Which.
        #[from]
        source: cabin_undo::Injected,
    },
}

fn shown(file: &str) -> String {
    if file.is_empty() { "the directory".to_owned() } else { format!("file `{file}`") }
}

/// What sort of failure it is, for whoever answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is not there.
    NotFound,
    /// Something else is in the way.
    Conflict,
    /// What was asked makes no sense.
    Invalid,
    /// The host lacks what it takes.
    Unsupported,
    /// Anything else.
    Internal,
}

impl Error {
    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoLink { .. } => Kind::NotFound,
            Error::LinkExists { .. }
            | Error::RouteExists { .. }
            | Error::NoAddressLeft { .. }
            | Error::Taken { .. }
            | Error::Address { .. } => Kind::Conflict,
            Error::Spec { .. } => Kind::Invalid,
            Error::Program { .. } => Kind::Unsupported,
            // A kind of queue that the kernel does not have.
            Error::Rate { source, .. } if source.raw_os_error() == Some(2) => Kind::Unsupported,
            _ => Kind::Internal,
        }
    }
}
