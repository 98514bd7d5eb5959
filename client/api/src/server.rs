//! The server itself: `GET /1.0`, `/1.0/resources`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::lenient::{ConfigMap, null_is_zero};

/// `GET /1.0`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Server config.
    #[serde(default)]
    pub config: ConfigMap,
    /// What the API can do beyond 1.0.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub api_extensions: Vec<String>,
    /// `stable`.
    #[serde(default)]
    pub api_status: String,
    /// `1.0`.
    #[serde(default)]
    pub api_version: String,
    /// `trusted` or `untrusted`.
    #[serde(default)]
    pub auth: String,
    /// Whether the server is public.
    #[serde(default)]
    pub public: bool,
    /// `tls` …
    #[serde(default, deserialize_with = "null_is_zero")]
    pub auth_methods: Vec<String>,
    /// Who asks.
    #[serde(default)]
    pub auth_user_name: String,
    /// `unix` or `tls`.
    #[serde(default)]
    pub auth_user_method: String,
    /// The host and the daemon.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub environment: Environment,
}

/// The host and the daemon.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Addresses the API listens on.
    pub addresses: Vec<String>,
    /// Architectures that run here, the native one first.
    pub architectures: Vec<String>,
    /// The server's certificate (PEM).
    pub certificate: String,
    /// Its SHA-256.
    pub certificate_fingerprint: String,
    /// Instance drivers: `cabin`.
    pub driver: String,
    /// Their versions.
    pub driver_version: String,
    /// `nftables`.
    pub firewall: String,
    /// `Linux`.
    pub kernel: String,
    /// `x86_64`.
    pub kernel_architecture: String,
    /// Feature to `true` or `false`.
    pub kernel_features: BTreeMap<String, String>,
    /// `uname -r`.
    pub kernel_version: String,
    /// Feature to `true` or `false`.
    pub lxc_features: BTreeMap<String, String>,
    /// From os-release.
    pub os_name: String,
    /// From os-release.
    pub os_version: String,
    /// The project asked in.
    pub project: String,
    /// `cabin`.
    pub server: String,
    /// Whether there is a cluster.
    pub server_clustered: bool,
    /// `full-mesh`.
    pub server_event_mode: String,
    /// The host's name.
    pub server_name: String,
    /// The daemon's pid.
    pub server_pid: u32,
    /// The daemon's version.
    pub server_version: String,
    /// Drivers in use, joined by ` | `.
    pub storage: String,
    /// Their versions.
    pub storage_version: String,
    /// Drivers that work here.
    pub storage_supported_drivers: Vec<StorageDriver>,
}

/// A storage driver (the field names are capitalised on the wire).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct StorageDriver {
    /// The name.
    #[serde(alias = "name")]
    pub name: String,
    /// Its version.
    #[serde(alias = "version")]
    pub version: String,
    /// Whether it lies on other machines.
    #[serde(alias = "remote")]
    pub remote: bool,
}

/// `PUT` and `PATCH /1.0`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPut {
    /// Server config.
    #[serde(default)]
    pub config: ConfigMap,
}
