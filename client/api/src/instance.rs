//! Instances, their state, and what is asked of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::StatusCode;
use crate::lenient::{ConfigMap, DevicesMap, null_is_zero};

/// An instance as it is read (recursion 1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// `x86_64` …
    #[serde(default, deserialize_with = "null_is_zero")]
    pub architecture: String,
    /// Its own config.
    #[serde(default)]
    pub config: ConfigMap,
    /// Its own devices.
    #[serde(default)]
    pub devices: DevicesMap,
    /// Whether it is deleted when it stops.
    #[serde(default)]
    pub ephemeral: bool,
    /// Profiles, in order.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub profiles: Vec<String>,
    /// Whether its memory is kept on disk.
    #[serde(default)]
    pub stateful: bool,
    /// For people.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub description: String,
    /// RFC 3339.
    pub created_at: String,
    /// Config with the profiles under it.
    #[serde(default)]
    pub expanded_config: ConfigMap,
    /// Devices with the profiles under them.
    #[serde(default)]
    pub expanded_devices: DevicesMap,
    /// The name.
    pub name: String,
    /// The text of the status.
    pub status: String,
    /// The status.
    pub status_code: StatusCode,
    /// RFC 3339.
    pub last_used_at: String,
    /// The cluster member; `none`.
    #[serde(default)]
    pub location: String,
    /// `container`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The project.
    #[serde(default)]
    pub project: String,
}

/// An instance with all that belongs to it (recursion 2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceFull {
    /// The instance.
    #[serde(flatten)]
    pub instance: Instance,
    /// Backups.
    pub backups: Option<Vec<serde_json::Value>>,
    /// What it does now.
    pub state: Option<InstanceState>,
    /// Snapshots.
    pub snapshots: Option<Vec<crate::snapshot::InstanceSnapshot>>,
}

/// What PUT (and PATCH) change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstancePut {
    /// `x86_64` …
    #[serde(deserialize_with = "null_is_zero")]
    pub architecture: String,
    /// Its own config.
    pub config: ConfigMap,
    /// Its own devices.
    pub devices: DevicesMap,
    /// Whether it is deleted when it stops.
    pub ephemeral: bool,
    /// Profiles, in order. Missing or null means `default` for a new instance, none for a changed one.
    pub profiles: Option<Vec<String>>,
    /// The name of a snapshot to go back to.
    #[serde(deserialize_with = "null_is_zero")]
    pub restore: String,
    /// Whether the config stays as it is when going back to a snapshot.
    #[serde(deserialize_with = "null_is_zero")]
    pub disk_only: bool,
    /// Whether the attached custom volumes go back to their snapshots of that name too. Not Incus's.
    #[serde(deserialize_with = "null_is_zero", skip_serializing_if = "std::ops::Not::not")]
    pub volumes: bool,
    /// Whether its memory is kept on disk.
    pub stateful: bool,
    /// For people.
    #[serde(deserialize_with = "null_is_zero")]
    pub description: String,
}

/// An instance to be made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstancesPost {
    /// What it is.
    #[serde(flatten)]
    pub put: InstancePut,
    /// The name; one is made up when empty.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// What it is made from.
    #[serde(deserialize_with = "null_is_zero")]
    pub source: InstanceSource,
    /// A size such as `c2-m4`.
    #[serde(deserialize_with = "null_is_zero")]
    pub instance_type: String,
    /// `container`.
    #[serde(rename = "type", deserialize_with = "null_is_zero")]
    pub kind: String,
    /// Whether to start it at once.
    pub start: bool,
}

/// What an instance is made from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceSource {
    /// `image`, `none`, `copy`, `migration`.
    #[serde(rename = "type", deserialize_with = "null_is_zero")]
    pub kind: String,
    /// The image's certificate, when remote.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate: String,
    /// An image by alias.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias: String,
    /// An image by fingerprint (or a unique beginning of it).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// An image by its properties.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_zero")]
    pub properties: BTreeMap<String, String>,
    /// The server an image comes from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// A secret for the server.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub secret: String,
    /// How to talk to the server.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// `pull`, `push`, `relay`; `local` when the image is here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// The instance or snapshot to copy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Whether to leave the snapshots out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub instance_only: bool,
    /// Whether a running one is copied without being held still.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_inconsistent: bool,
    /// Whether an existing copy is brought up to date.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refresh: bool,
    /// Whether bringing it up to date leaves out snapshots older than the newest common one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refresh_exclude_older: bool,
    /// The project to copy from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
}

/// A new name (or place) for an instance. Keys without a name of their own are capitalised on the wire.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstancePost {
    /// The new name.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// Whether it moves to another place.
    pub migration: bool,
    /// Whether it goes on running meanwhile.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
    /// Whether its snapshots are left behind, and deleted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub instance_only: bool,
    /// Whether a running one need not stand still.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_inconsistent: bool,
    /// The new pool.
    #[serde(deserialize_with = "null_is_zero")]
    pub pool: String,
    /// The new project.
    #[serde(deserialize_with = "null_is_zero")]
    pub project: String,
    /// Config over its own.
    pub config: ConfigMap,
    /// Devices over its own.
    pub devices: DevicesMap,
    /// Profiles instead of its own.
    pub profiles: Option<Vec<String>>,
    /// Where another server waits for it.
    pub target: Option<serde_json::Value>,
}

/// What `PUT …/state` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceStatePut {
    /// `start`, `stop`, `restart`, `freeze`, `unfreeze`.
    pub action: String,
    /// Seconds to wait for a clean stop; -1 for ever, 0 not to ask the guest, 600 when nothing is said.
    pub timeout: i64,
    /// Whether not to ask the guest.
    pub force: bool,
    /// Whether memory is kept or brought back.
    pub stateful: bool,
}

impl Default for InstanceStatePut {
    fn default() -> InstanceStatePut {
        InstanceStatePut { action: String::new(), timeout: 600, force: false, stateful: false }
    }
}

/// `PUT /1.0/instances`: the state of all of a project at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstancesPut {
    /// What is asked.
    pub state: Option<InstanceStatePut>,
}

/// What an instance does now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceState {
    /// The text of the status.
    pub status: String,
    /// The status's number.
    pub status_code: u16,
    /// Disks by device name.
    pub disk: BTreeMap<String, DiskState>,
    /// Memory.
    pub memory: MemoryState,
    /// Interfaces by their name inside.
    pub network: BTreeMap<String, NetworkInterface>,
    /// The init's pid on the host; 0 when stopped, -1 when not known.
    pub pid: i64,
    /// Processes.
    pub processes: i64,
    /// Processor time.
    pub cpu: CpuState,
    /// RFC 3339.
    pub started_at: String,
    /// What the guest says it is.
    pub os_info: Option<serde_json::Value>,
}

/// A disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskState {
    /// Bytes.
    pub usage: i64,
    /// Bytes; 0 without a limit.
    pub total: i64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryState {
    /// Now.
    pub usage: i64,
    /// Highest so far.
    pub usage_peak: i64,
    /// The limit, or what the host has.
    pub total: i64,
    /// Swap now.
    pub swap_usage: i64,
    /// Swap, highest so far.
    pub swap_usage_peak: i64,
}

/// Processor time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuState {
    /// Nanoseconds used.
    pub usage: i64,
    /// Nanoseconds it may use in each second.
    pub allocated_time: i64,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// Addresses.
    pub addresses: Vec<NetworkAddress>,
    /// Counters.
    pub counters: NetworkCounters,
    /// The MAC address.
    pub hwaddr: String,
    /// Its other end on the host.
    pub host_name: String,
    /// The MTU.
    pub mtu: u32,
    /// `up` or `down`.
    pub state: String,
    /// `broadcast`, `loopback`, `point-to-point`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// An address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAddress {
    /// `inet` or `inet6`.
    pub family: String,
    /// The address.
    pub address: String,
    /// The prefix length.
    pub netmask: String,
    /// `global`, `link`, `local`.
    pub scope: String,
}

/// Counters since the interface was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NetworkCounters {
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub packets_sent: u64,
    pub errors_received: u64,
    pub errors_sent: u64,
    pub packets_dropped_outbound: u64,
    pub packets_dropped_inbound: u64,
}

/// A command to run inside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecPost {
    /// Program and arguments.
    #[serde(deserialize_with = "null_is_zero")]
    pub command: Vec<String>,
    /// Whether to wait until the websockets are connected.
    #[serde(rename = "wait-for-websocket")]
    pub wait_for_websocket: bool,
    /// Whether it gets a terminal.
    pub interactive: bool,
    /// Added environment.
    pub environment: ConfigMap,
    /// Columns.
    pub width: i64,
    /// Rows.
    pub height: i64,
    /// Whether stdout and stderr are kept in files.
    #[serde(rename = "record-output")]
    pub record_output: bool,
    /// The user id.
    pub user: u32,
    /// The group id.
    pub group: u32,
    /// The working directory.
    #[serde(deserialize_with = "null_is_zero")]
    pub cwd: String,
}

/// What clients say on the control websocket of exec and console.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecControl {
    /// `window-resize` or `signal`.
    pub command: String,
    /// `width` and `height`.
    #[serde(deserialize_with = "null_is_zero")]
    pub args: BTreeMap<String, String>,
    /// The signal's number.
    pub signal: i32,
}

/// A console to attach to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsolePost {
    /// Columns.
    pub width: i64,
    /// Rows.
    pub height: i64,
    /// `console`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether to take it from who has it.
    pub force: bool,
}
