//! Networks, their leases and state.

use serde::{Deserialize, Serialize};

use crate::instance::{NetworkAddress, NetworkCounters};
use crate::lenient::{ConfigMap, null_is_zero};

/// A network as it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Config.
    pub config: ConfigMap,
    /// For people.
    pub description: String,
    /// The name.
    pub name: String,
    /// `bridge`, or what kind of interface an unmanaged one is.
    #[serde(rename = "type")]
    pub kind: String,
    /// Addresses of what uses it.
    #[serde(deserialize_with = "null_is_zero")]
    pub used_by: Vec<String>,
    /// Whether Cabin made it.
    pub managed: bool,
    /// `Created`, `Unavailable`; empty when unmanaged.
    pub status: String,
    /// Cluster members that have it.
    #[serde(deserialize_with = "null_is_zero")]
    pub locations: Vec<String>,
    /// The project.
    pub project: String,
}

/// A network to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworksPost {
    /// Config.
    #[serde(default)]
    pub config: ConfigMap,
    /// For people.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub description: String,
    /// The name.
    #[serde(default)]
    pub name: String,
    /// `bridge` when empty.
    #[serde(rename = "type", default, deserialize_with = "null_is_zero")]
    pub kind: String,
}

/// An address that was given out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who has it.
    pub hostname: String,
    /// The MAC address.
    pub hwaddr: String,
    /// The address.
    pub address: String,
    /// `static`, `dynamic`, `gateway`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The cluster member; `none`.
    #[serde(default)]
    pub location: String,
    /// The project.
    #[serde(default)]
    pub project: String,
}

/// An address that something has: a network, or a nic of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// The address with its prefix.
    #[serde(rename = "addresses")]
    pub address: String,
    /// Who has it: an address of the API.
    pub used_by: String,
    /// `network` or `instance`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it leaves the network as the host's own.
    pub nat: bool,
    /// The MAC address of the nic.
    pub hwaddr: String,
    /// The network.
    #[serde(default)]
    pub network: String,
}

/// What a network's interface does now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// Addresses.
    pub addresses: Vec<NetworkAddress>,
    /// Counters.
    pub counters: NetworkCounters,
    /// The MAC address.
    pub hwaddr: String,
    /// The MTU.
    pub mtu: u32,
    /// `up` or `down`.
    pub state: String,
    /// `broadcast`, `loopback` …
    #[serde(rename = "type")]
    pub kind: String,
}
