//! What the objects of the API look like, taken from the types themselves: an example of each is written as
//! JSON, and its schema is read off that. So the description cannot say anything the types do not.

use cabin_api::{
    image, instance, network, operation, profile, project, server, snapshot, storage, volume, warning,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// An object of the API.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Its name in the description.
    pub name: &'static str,
    /// One of its kind, with zero values.
    pub example: fn() -> Value,
}

macro_rules! shapes {
    ($($constant:ident = $name:literal, $example:expr;)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub const $constant: Shape = Shape { name: $name, example: || $example };
        )*
    };
}

shapes! {
    ANY = "Any", Value::Null;
    VERSIONS = "Versions", json!(["/1.0"]);
    ADDRESSES = "Addresses", json!(["/1.0/…"]);
    NAMES = "Names", json!([""]);
    CLUSTER = "Cluster", json!({"server_name": "", "enabled": false, "member_config": []});
    SERVER = "Server", zero(server::Server::default());
    SERVER_PUT = "ServerPut", zero(server::ServerPut::default());
    WARNING = "Warning", zero(warning::Warning::default());
    WARNING_PUT = "WarningPut", zero(warning::WarningPut::default());
    PROJECT = "Project", zero(project::Project::default());
    INSTANCE = "Instance", read::<instance::Instance>(&json!({
        "created_at": "", "name": "", "status": "Stopped", "status_code": 102, "last_used_at": "",
        "type": "container",
    }));
    BACKUPS_POST = "InstanceBackupsPost", zero(cabin_api::backup::InstanceBackupsPost::default());
    BACKUP = "InstanceBackup", zero(cabin_api::backup::InstanceBackup::default());
    INSTANCE_REBUILD_POST = "InstanceRebuildPost", zero(cabin_api::rebuild::InstanceRebuildPost::default());
    INSTANCES_POST = "InstancesPost", zero(instance::InstancesPost::default());
    INSTANCES_PUT = "InstancesPut", zero(instance::InstancesPut { state: Some(instance::InstanceStatePut::default()) });
    INSTANCE_PUT = "InstancePut", zero(instance::InstancePut { profiles: Some(vec![String::new()]), ..Default::default() });
    INSTANCE_POST = "InstancePost", zero(instance::InstancePost::default());
    INSTANCE_DIFF = "InstanceDiff", zero(cabin_api::diff::InstanceDiff { entries: vec![Default::default()], ..Default::default() });
    INSTANCE_STATE = "InstanceState", zero(instance::InstanceState::default());
    INSTANCE_STATE_PUT = "InstanceStatePut", zero(instance::InstanceStatePut::default());
    SNAPSHOT = "InstanceSnapshot", zero(snapshot::InstanceSnapshot::default());
    SNAPSHOTS_POST = "InstanceSnapshotsPost", zero(snapshot::InstanceSnapshotsPost { expires_at: Some(String::new()), ..Default::default() });
    SNAPSHOT_POST = "InstanceSnapshotPost", zero(snapshot::InstanceSnapshotPost::default());
    SNAPSHOT_PUT = "InstanceSnapshotPut", zero(snapshot::InstanceSnapshotPut::default());
    EXEC_POST = "InstanceExecPost", zero(instance::ExecPost { command: vec![String::new()], ..Default::default() });
    CONSOLE_POST = "InstanceConsolePost", zero(instance::ConsolePost::default());
    IMAGE = "Image", zero(image::Image::default());
    IMAGE_METADATA = "ImageMetadata", zero(image::ImageMetadata {
        templates: [(String::new(), image::ImageMetadataTemplate::default())].into(),
        ..Default::default()
    });
    IMAGES_POST = "ImagesPost", zero(image::ImagesPost::default());
    IMAGE_PUT = "ImagePut", zero(image::ImagePut::default());
    ALIAS = "ImageAliasesEntry", zero(image::ImageAliasesEntry::default());
    ALIAS_PUT = "ImageAliasPut", zero(image::ImageAliasPut { description: Some(String::new()), target: Some(String::new()) });
    NETWORK = "Network", zero(network::Network::default());
    NETWORKS_POST = "NetworksPost", zero(network::NetworksPost::default());
    NETWORK_STATE = "NetworkState", zero(network::NetworkState::default());
    ALLOCATIONS = "NetworkAllocations", zero([network::Allocation::default()]);
    LEASES = "NetworkLeases", zero([network::Lease::default()]);
    PROFILE = "Profile", zero(profile::Profile::default());
    PROFILES_POST = "ProfilesPost", zero(profile::ProfilesPost::default());
    PROFILE_PUT = "ProfilePut", zero(profile::ProfilePut::default());
    RENAME = "RenamePost", zero(profile::RenamePost::default());
    POOL = "StoragePool", zero(storage::Pool::default());
    POOLS_POST = "StoragePoolsPost", zero(storage::PoolsPost::default());
    POOL_RESOURCES = "StoragePoolResources", zero(storage::PoolResources::default());
    CONFIG_PUT = "ConfigPut", zero(storage::ConfigPut::default());
    VOLUME = "StorageVolume", zero(storage::Volume::default());
    VOLUMES_POST = "StorageVolumesPost", zero(volume::VolumesPost::default());
    VOLUME_PUT = "StorageVolumePut", zero(volume::VolumePut { restore: "-".to_owned(), ..Default::default() });
    VOLUME_POST = "StorageVolumePost", zero(volume::VolumePost { pool: "-".to_owned(), project: "-".to_owned(), ..Default::default() });
    VOLUME_STATE = "StorageVolumeState", zero(volume::VolumeState { usage: Some(storage::Usage::default()) });
    VOLUME_BACKUP = "StorageVolumeBackup", zero(volume::VolumeBackup::default());
    VOLUME_BACKUPS_POST = "StorageVolumeBackupsPost", zero(volume::VolumeBackupsPost::default());
    VOLUME_SNAPSHOT = "StorageVolumeSnapshot", zero(volume::VolumeSnapshot::default());
    VOLUME_SNAPSHOTS_POST = "StorageVolumeSnapshotsPost", zero(volume::VolumeSnapshotsPost { expires_at: Some(String::new()), ..Default::default() });
    VOLUME_SNAPSHOT_POST = "StorageVolumeSnapshotPost", zero(volume::VolumeSnapshotPost::default());
    VOLUME_SNAPSHOT_PUT = "StorageVolumeSnapshotPut", zero(volume::VolumeSnapshotPut::default());
    OPERATION = "Operation", read::<operation::Operation>(&json!({
        "id": "", "class": "task", "description": "", "created_at": "", "updated_at": "",
        "status": "Running", "status_code": 103, "metadata": {}, "may_cancel": false, "err": "",
    }));
}

fn zero(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn read<T: DeserializeOwned + Serialize>(value: &Value) -> Value {
    T::deserialize(value).ok().and_then(|object| serde_json::to_value(object).ok()).unwrap_or_default()
}

/// The schema of an example.
#[must_use]
pub fn schema(example: &Value) -> Value {
    match example {
        Value::Null => json!({}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(_) => json!({"type": "integer"}),
        Value::String(_) => json!({"type": "string"}),
        Value::Array(list) => {
            json!({"type": "array", "items": list.first().map_or_else(|| json!({}), schema)})
        }
        Value::Object(map) if map.is_empty() => json!({"type": "object", "additionalProperties": true}),
        Value::Object(map) => {
            let properties: Map<_, _> = map.iter().map(|(key, value)| (key.clone(), schema(value))).collect();
            json!({"type": "object", "properties": properties})
        }
    }
}
