//! The server as a whole: what it can, what it runs on, its own config.

use std::collections::BTreeMap;

use cabin_api::ConfigMap;
use cabin_api::event::Requestor;
use cabin_api::server as api;
use cabin_store::rows;
use serde_json::Value;

use crate::backup::compression;
use crate::{DEFAULT_PROJECT, Error, Host, etag, storage};

/// The version of the API's behaviour that clients see.
const API_VERSION: &str = "1.0";

/// What the API can do beyond 1.0. A name is here only once it works.
const EXTENSIONS: &[&str] = &[
    "api_filtering",
    "api_filtering_extended",
    "backup_compression_algorithm",
    "backup_override_config",
    "backup_override_name",
    "boot_delay",
    "cabin_instance_diff",
    "console",
    "console_force",
    "container_backup",
    "container_backup_override_pool",
    "container_disk_shift",
    "container_edit_metadata",
    "container_exec_recording",
    "container_exec_signal_handling",
    "container_exec_user_group_cwd",
    "container_copy_project",
    "container_incremental_copy",
    "container_full",
    "container_only_migration",
    "container_cpu_time",
    "container_stateless_copy",
    "custom_volume_backup",
    "custom_volume_refresh",
    "custom_volume_sftp",
    "custom_volume_snapshot_expiry",
    "direct_backup",
    "custom_volume_refresh_exclude_older_snapshots",
    "directory_manipulation",
    "entity_description",
    "etag",
    "event_lifecycle",
    "event_lifecycle_requestor_address",
    "event_location",
    "event_project",
    "file_append",
    "file_delete",
    "file_get_symlink",
    "file_storage_volume",
    "file_symlinks",
    "image_compression_algorithm",
    "image_create_aliases",
    "image_info",
    "image_types",
    "images_all_projects",
    "init_preseed",
    "instance_all_projects",
    "instance_bulk_state_change",
    "instance_create_start",
    "instance_get_full",
    "instances_state_selective_recursion",
    "instance_nic_network",
    "instance_allow_inconsistent_copy",
    "instance_move_config",
    "instance_pool_move",
    "instance_pool_project",
    "instance_snapshot_disk_only_restore",
    "instance_state_started_at",
    "instances",
    "instances_rebuild",
    "kernel_limits",
    "metadata_configuration",
    "network",
    "network_allocations",
    "network_leases",
    "network_state",
    "networks_all_projects",
    "operation_description",
    "operation_wait",
    "operations_get_query_all_projects",
    "patch",
    "profiles_all_projects",
    "projects",
    "resources",
    "resources_v2",
    "snapshot_expiry",
    "snapshot_expiry_creation",
    "snapshot_manual_expiry",
    "snapshot_schedule_aliases",
    "snapshot_scheduling",
    "storage",
    "storage_api_local_volume_handling",
    "storage_api_project",
    "storage_api_volume_rename",
    "storage_api_volume_snapshots",
    "storage_btrfs_mount_options",
    "storage_driver_overlay",
    "storage_shifted",
    "storage_volume_full",
    "storage_volume_state",
    "storage_volumes_all_projects",
    "storage_volumes_created_at",
    "usedby_consistency",
    "warnings",
];

/// The names of the API's extensions.
#[must_use]
pub fn extensions() -> &'static [&'static str] {
    EXTENSIONS
}

/// `GET /1.0` for somebody who is trusted.
///
/// # Errors
/// When the rows cannot be read.
pub fn get(host: &Host, who: &Requestor, project: &str) -> Result<api::Server, Error> {
    Ok(api::Server {
        config: ConfigMap(config(host)?.row.config),
        api_extensions: EXTENSIONS.iter().map(|name| (*name).to_owned()).collect(),
        api_status: "stable".to_owned(),
        api_version: API_VERSION.to_owned(),
        auth: "trusted".to_owned(),
        public: false,
        auth_methods: vec!["tls".to_owned()],
        auth_user_name: who.username.clone(),
        auth_user_method: who.protocol.clone(),
        environment: environment(host, project)?,
    })
}

fn config(host: &Host) -> Result<cabin_store::Versioned<rows::Server>, Error> {
    let found = host.store().rows::<rows::Server>().get(DEFAULT_PROJECT, "server")?;
    found.ok_or_else(|| Error::not_found("server config", "server"))
}

fn environment(host: &Host, project: &str) -> Result<api::Environment, Error> {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let (os_name, os_version) = os_release();
    let pools = host.store().rows::<rows::Pool>().list(DEFAULT_PROJECT)?;
    let mut drivers: Vec<_> = pools.into_iter().map(|pool| pool.row.driver).collect();
    drivers.sort();
    drivers.dedup();
    let versions: Vec<_> = drivers.iter().map(|_| "1").collect();
    let machine = text(uname.machine());
    let features = |names: &[&str]| {
        names.iter().map(|name| ((*name).to_owned(), "true".to_owned())).collect::<BTreeMap<_, _>>()
    };
    Ok(api::Environment {
        addresses: Vec::new(),
        architectures: match machine.as_str() {
            "x86_64" => vec![machine.clone(), "i686".to_owned()],
            _ => vec![machine.clone()],
        },
        certificate: String::new(),
        certificate_fingerprint: String::new(),
        driver: "cabin".to_owned(),
        driver_version: env!("CARGO_PKG_VERSION").to_owned(),
        firewall: "nftables".to_owned(),
        kernel: text(uname.sysname()),
        kernel_architecture: machine,
        kernel_features: features(&["idmapped_mounts", "seccomp_listener"]),
        kernel_version: text(uname.release()),
        lxc_features: features(&["cgroup2", "devpts_fd", "idmapped_mounts_v2", "pidfd"]),
        os_name,
        os_version,
        project: project.to_owned(),
        server: "cabin".to_owned(),
        server_clustered: false,
        server_event_mode: "full-mesh".to_owned(),
        server_name: text(uname.nodename()),
        server_pid: std::process::id(),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        storage: drivers.join(" | "),
        storage_version: versions.join(" | "),
        storage_supported_drivers: storage::DRIVERS
            .iter()
            .map(|(name, version)| api::StorageDriver {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                remote: false,
            })
            .collect(),
    })
}

fn os_release() -> (String, String) {
    let text = cabin_sys::dir::HostDir::open(std::path::Path::new("/usr/lib"))
        .and_then(|dir| dir.read("os-release", 1 << 16))
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let field = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
            .unwrap_or_default()
    };
    (field("NAME"), field("VERSION_ID"))
}

/// Who asks for no compression gets that of these keys.
pub(crate) const BACKUPS_COMPRESSION: &str = "backups.compression_algorithm";
pub(crate) const IMAGES_COMPRESSION: &str = "images.compression_algorithm";

/// The value of a key of the server's config; empty when it has none.
///
/// # Errors
/// When the row cannot be read.
pub(crate) fn setting(host: &Host, key: &str) -> Result<String, Error> {
    Ok(config(host)?.row.config.remove(key).unwrap_or_default())
}

/// The tag of what PUT changes.
#[must_use]
pub fn tag(server: &api::Server) -> String {
    etag::etag(&server.config)
}

/// Replaces the server's config.
///
/// # Errors
/// When somebody else changed it, or it makes no sense.
pub fn update(host: &Host, put: api::ServerPut, if_match: Option<&str>) -> Result<(), Error> {
    replace(host, if_match, |_| put.config.0.clone())
}

fn replace(
    host: &Host,
    if_match: Option<&str>,
    new: impl Fn(rows::Config) -> rows::Config,
) -> Result<(), Error> {
    loop {
        let old = config(host)?;
        etag::check("server config", "server", &etag::etag(&ConfigMap(old.row.config.clone())), if_match)?;
        let mut config = new(old.row.config.clone());
        config.retain(|_, value| !value.is_empty());
        cabin_profiles::validate_server(&config)?;
        for key in [BACKUPS_COMPRESSION, IMAGES_COMPRESSION] {
            compression(config.get(key).map_or("", String::as_str))?;
        }
        let row = rows::Server { config, ..old.row };
        match host.store().begin().update(DEFAULT_PROJECT, "server", old.revision, &row)?.commit() {
            // Somebody else was first: the change is made to what that one left.
            Err(cabin_store::Error::Changed { .. }) => {}
            done => break done.map(drop)?,
        }
    }
    host.events().lifecycle(DEFAULT_PROJECT, "config-updated", "/1.0", "", Value::Null, None);
    Ok(())
}

/// Merges into the server's config.
///
/// # Errors
/// As [`update`].
pub fn patch(host: &Host, put: api::ServerPut, if_match: Option<&str>) -> Result<(), Error> {
    replace(host, if_match, |mut config| {
        config.extend(put.config.0.clone());
        config
    })
}

/// Every config key, as clients' completion wants it.
#[must_use]
pub fn metadata_configuration() -> Value {
    serde_json::to_value(cabin_profiles::metadata_json()).unwrap_or_default()
}
