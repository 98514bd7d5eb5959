//! `network attach` and `detach`: devices of instances and profiles that are on a network.

use anyhow::bail;
use cabin_client::Client;
use serde_json::{Map, Value, json};

use super::Context;
use super::object::{Target, entry};
use crate::remote;

/// `attach` and `attach-profile`. `words` are the new device's name (the network's when left out) and its name inside.
pub async fn attach(
    context: &Context,
    client: &Client,
    network: &str,
    target: Target,
    words: &[String],
) -> anyhow::Result<()> {
    let name = remote::local(network)?;
    let network = client.network(name).await?.value;
    let mut properties = match network.managed {
        true => json!({ "type": "nic", "network": name }),
        false if network.kind == "bridge" => json!({ "type": "nic", "nictype": "bridged", "parent": name }),
        false => bail!("`{name}` is not a bridge, so nothing can be attached to it"),
    };
    if let Some(inside) = words.get(1) {
        properties["name"] = json!(inside);
    }
    let device = words.first().map_or(name, String::as_str);
    let add = |object: &mut Map<String, Value>| {
        let devices = entry(object, "devices")?;
        if devices.contains_key(device) {
            bail!("there is a device `{device}` already");
        }
        devices.insert(device.to_owned(), properties.clone());
        Ok(())
    };
    target.change(context, client, add).await
}

/// `detach` and `detach-profile`.
pub async fn detach(
    context: &Context,
    client: &Client,
    network: &str,
    target: Target,
    device: Option<&str>,
) -> anyhow::Result<()> {
    let network = remote::local(network)?;
    let remove = |object: &mut Map<String, Value>| {
        let devices = entry(object, "devices")?;
        let device = on_network(devices, network, device)?;
        devices.remove(&device);
        Ok(())
    };
    target.change(context, client, remove).await
}

/// The one device that is on a network; the named one when there are several.
fn on_network(devices: &Map<String, Value>, network: &str, device: Option<&str>) -> anyhow::Result<String> {
    let is = |it: &Value, key: &str, wanted: &str| it.get(key).and_then(Value::as_str) == Some(wanted);
    let fits =
        |it: &Value| is(it, "type", "nic") && (is(it, "network", network) || is(it, "parent", network));
    let found: Vec<&String> = devices.iter().filter(|(_, it)| fits(it)).map(|(name, _)| name).collect();
    match (device, found.as_slice()) {
        (Some(device), found) if found.iter().any(|name| *name == device) => Ok(device.to_owned()),
        (Some(device), _) => bail!("it has no device `{device}` of its own on network `{network}`"),
        (None, [one]) => Ok((*one).clone()),
        (None, []) => {
            bail!("it has no device of its own on network `{network}` (those of profiles are theirs)")
        }
        (None, _) => bail!("several of its devices are on network `{network}`: name the device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_on_a_network_is_found_when_there_is_one() {
        let mut devices = Map::new();
        devices.insert("root".into(), json!({ "type": "disk", "path": "/" }));
        assert!(on_network(&devices, "br", None).is_err());
        devices.insert("a".into(), json!({ "type": "nic", "network": "br" }));
        assert_eq!(on_network(&devices, "br", None).unwrap(), "a");
        assert!(on_network(&devices, "br", Some("root")).is_err());
        assert!(on_network(&devices, "other", None).is_err());
        devices.insert("b".into(), json!({ "type": "nic", "nictype": "bridged", "parent": "br" }));
        assert!(on_network(&devices, "br", None).unwrap_err().to_string().contains("several"));
        assert_eq!(on_network(&devices, "br", Some("b")).unwrap(), "b");
    }
}
