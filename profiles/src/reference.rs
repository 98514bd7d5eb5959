//! The tables for people (docs/config.md) and for clients (`GET /1.0/metadata/configuration`).

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::key::{INSTANCE, Key, Restriction, Scope};
use crate::{device, network};

/// The reference as Markdown; what docs/config.md holds.
#[must_use]
pub fn reference_markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\n<!-- Written from the tables in profiles/src; do not edit. -->\n\n\
         A key that is not here is refused. A value that is empty is not set. Keys under *live* reach a running\n\
         instance at once; others count from its next start.\n",
    );
    section(&mut page, "## Instances and profiles", INSTANCE);
    page.push_str("\n## Devices\n");
    for known in device::TYPES {
        section(&mut page, &format!("### {}\n\n{}.", known.name, known.help), known.properties);
    }
    section(&mut page, "## Networks of type bridge", network::BRIDGE);
    let drivers = format!("## Storage pools\n\nDrivers: {}.", network::DRIVERS.join(", "));
    section(&mut page, &drivers, network::POOL);
    section(&mut page, "## Storage volumes", network::VOLUME);
    section(&mut page, "## Server", network::SERVER);
    page
}

fn section(page: &mut String, head: &str, keys: &[Key]) {
    let _ = write!(page, "\n{head}\n");
    if keys.is_empty() {
        return;
    }
    page.push_str("\n| key | type | default | live | meaning |\n|---|---|---|---|---|\n");
    for key in keys {
        let values = key.kind.values();
        let values = if values.is_empty() { String::new() } else { format!(" — {values}") };
        let default = key.default.map_or("—".to_owned(), |value| format!("`{value}`"));
        let live = if key.live { "yes" } else { "no" };
        let note = match key.restriction {
            Restriction::Server => " (written by the daemon)",
            _ if key.scope == Scope::Instance => " (not in profiles)",
            _ => "",
        };
        let _ = writeln!(
            page,
            "| `{}` | {} | {default} | {live} | {}{note}{values} |",
            key.name,
            key.kind.type_name(),
            key.help
        );
    }
}

/// The tables in the shape of Incus's `GET /1.0/metadata/configuration`.
#[must_use]
pub fn metadata_json() -> Value {
    let mut devices = serde_json::Map::new();
    for known in device::TYPES.iter().filter(|known| !known.properties.is_empty()) {
        let name = if known.name == "nic" { "nic_bridged" } else { known.name };
        devices.insert(name.to_owned(), json!({ "device-conf": { "keys": entries(known.properties) } }));
    }
    let mut configs = json!({
        "instance": groups(INSTANCE),
        "network_bridge": { "common": { "keys": entries(network::BRIDGE) } },
        "server": groups(network::SERVER),
    });
    if let Some(map) = configs.as_object_mut() {
        map.extend(devices.into_iter().map(|(name, value)| match name.as_str() {
            "nic_bridged" => ("device-nic-bridged".to_owned(), value),
            other => (format!("device-{other}"), value),
        }));
        for driver in network::DRIVERS {
            map.insert(format!("storage_{driver}"), json!({ "common": { "keys": entries(network::POOL) } }));
        }
    }
    json!({ "configs": configs })
}

fn groups(keys: &[Key]) -> Value {
    let mut groups: BTreeMap<&str, Vec<Key>> = BTreeMap::new();
    for key in keys {
        let group = match key.name.split('.').next().unwrap_or_default() {
            "limits" => "resource-limits",
            "environment" | "user" | "image" => "miscellaneous",
            other => other,
        };
        groups.entry(group).or_default().push(*key);
    }
    groups.into_iter().map(|(group, keys)| (group.to_owned(), json!({ "keys": entries(&keys) }))).collect()
}

fn entries(keys: &[Key]) -> Vec<Value> {
    keys.iter()
        .map(|key| {
            let body = json!({
                "defaultdesc": key.default.map_or(String::new(), |value| format!("`{value}`")),
                "liveupdate": if key.live { "yes" } else { "no" },
                "longdesc": key.kind.values(),
                "shortdesc": key.help,
                "type": key.kind.type_name(),
            });
            json!({ key.name: body })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_reference() {
        let (page, metadata) = (reference_markdown(), metadata_json().to_string());
        let tables = [INSTANCE, network::BRIDGE, network::POOL, network::SERVER];
        for key in tables.into_iter().flatten().chain(device::TYPES.iter().flat_map(|known| known.properties))
        {
            assert!(page.contains(&format!("| `{}` |", key.name)), "{}", key.name);
            assert!(metadata.contains(&format!("\"{}\":{{", key.name)), "{}", key.name);
        }
    }

    #[test]
    fn metadata_has_the_shape_clients_walk() {
        let metadata = metadata_json();
        let keys = &metadata["configs"]["instance"]["resource-limits"]["keys"];
        let memory = keys.as_array().unwrap().iter().find_map(|entry| entry.get("limits.memory")).unwrap();
        assert_eq!(memory["liveupdate"], "yes");
        assert_eq!(memory["type"], "string");
    }
}
