//! What belongs to something that stands before it on the line: snapshots, volumes, devices.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use cabin_client::Client;
use clap_complete::CompletionCandidate;

use super::line::Line;
use super::{ask, instances, known};

/// Devices by name, each its properties by name.
pub type Devices = BTreeMap<String, BTreeMap<String, String>>;

/// Snapshots of the instance.
pub fn snapshots(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, line| {
        let instance = line.first("instance")?;
        of_instance(client, instance.split('/').next()?).await
    })
}

/// INSTANCE or INSTANCE/SNAPSHOT.
pub fn instances_and_snapshots(current: &OsStr) -> Vec<CompletionCandidate> {
    let word = current.to_string_lossy();
    let Some((instance, _)) = word.split_once('/') else { return instances(current) };
    ask(current, async |client, _| {
        let names = of_instance(client, instance).await?;
        Some(names.into_iter().map(|name| format!("{instance}/{name}")).collect())
    })
}

async fn of_instance(client: &Client, instance: &str) -> Option<Vec<String>> {
    let found = client.snapshots(instance).await.ok()?;
    Some(found.into_iter().map(|snapshot| snapshot.name).collect())
}

/// Templates of the instance.
pub fn templates(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, line| client.templates(&line.first("instance")?).await.ok())
}

/// Custom volumes of the pool.
pub fn volumes(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, line| custom(client, &line.first("pool")?).await)
}

/// Snapshots of the volume.
pub fn volume_snapshots(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, line| of_volume(client, &line.first("pool")?, &line.first("volume")?).await)
}

/// POOL/VOLUME, and POOL/VOLUME/SNAPSHOT when it goes on.
pub fn pools_and_volumes(current: &OsStr) -> Vec<CompletionCandidate> {
    let word = current.to_string_lossy();
    let parts: Vec<&str> = word.split('/').collect();
    ask(current, async |client, _| {
        let (before, names) = match parts.as_slice() {
            [pool, _] => (format!("{pool}/"), custom(client, pool).await?),
            [pool, volume, _] => (format!("{pool}/{volume}/"), of_volume(client, pool, volume).await?),
            _ => {
                let pools = client.pool_names().await.ok()?;
                return Some(pools.into_iter().map(|pool| format!("{pool}/")).collect());
            }
        };
        Some(names.into_iter().map(|name| format!("{before}{name}")).collect())
    })
}

/// Names of the custom volumes of a pool.
pub async fn custom(client: &Client, pool: &str) -> Option<Vec<String>> {
    let found = client.volumes(pool).await.ok()?;
    // Snapshots stand in the list too, as VOLUME/SNAPSHOT.
    let custom = found.into_iter().filter(|volume| volume.kind == "custom" && !volume.name.contains('/'));
    Some(custom.map(|volume| volume.name).collect())
}

async fn of_volume(client: &Client, pool: &str, volume: &str) -> Option<Vec<String>> {
    let found = client.volume_snapshots(pool, volume).await.ok()?;
    let own = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    Some(found.iter().map(|snapshot| own(&snapshot.name)).collect())
}

/// Devices of the instance or profile: its own, and for `override` those it has from profiles.
pub fn devices(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, line| {
        let (own, whole) = devices_of(client, line).await?;
        let inherited = line.is_under("override");
        let names = if inherited {
            whole.keys().filter(|name| !own.contains_key(*name)).collect()
        } else {
            own.keys().collect::<Vec<_>>()
        };
        Some(names.into_iter().cloned().collect())
    })
}

/// Devices of the instance or profile that show the volume, or are on the network.
pub fn attached(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, line| {
        let (own, _) = devices_of(client, line).await?;
        let (pool, volume, network) = (line.first("pool"), line.first("volume"), line.first("network"));
        let fits = |device: &BTreeMap<String, String>| {
            let has =
                |key: &str, wanted: &Option<String>| wanted.is_some() && device.get(key) == wanted.as_ref();
            let source = device.get("source").and_then(|source| source.split('/').next());
            has("network", &network)
                || has("parent", &network)
                || (has("pool", &pool) && source == volume.as_deref())
        };
        Some(own.into_iter().filter(|(_, device)| fits(device)).map(|(name, _)| name).collect())
    })
}

/// The devices of the owner that stands on the line: its own, and all with the profiles under them.
pub async fn devices_of(client: &Client, line: &Line) -> Option<(Devices, Devices)> {
    let profile = if line.is_under("profile") { line.first("owner") } else { line.first("profile") };
    if let Some(name) = profile {
        let own = client.profile(&name).await.ok()?.value.devices.0;
        return Some((own.clone(), own));
    }
    let name = line.first("owner").or_else(|| line.first("instance"))?;
    let instance = client.instance(&name).await.ok()?.value;
    Some((instance.devices.0, instance.expanded_devices.0))
}

/// Types of devices.
pub fn device_types(current: &OsStr) -> Vec<CompletionCandidate> {
    let names: Vec<&str> = cabin_profiles::device::TYPES.iter().map(|known| known.name).collect();
    known(current, &names)
}
