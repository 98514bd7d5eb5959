//! `config device` and `profile device`.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use cabin_client::Client;
use serde_json::{Map, Value};

use super::Context;
use super::object::{Target, entry};
use crate::cli::config::Device;
use crate::{output, words};

/// Whose devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// An instance's.
    Instance,
    /// A profile's.
    Profile,
}

impl Owner {
    fn target(self, name: &str) -> anyhow::Result<Target> {
        match self {
            Owner::Instance => Target::instance(name),
            Owner::Profile => Target::profile(name),
        }
    }
}

/// `device`.
pub async fn run(context: &Context, client: &Client, kind: Owner, command: Device) -> anyhow::Result<()> {
    match command {
        Device::Add { owner, device, kind: device_kind, properties } => {
            let mut properties = words::pairs(&properties)?;
            properties.insert("type".to_owned(), device_kind);
            let edit = |object: &mut Map<String, Value>| add(object, &device, &properties);
            kind.target(&owner)?.change(context, client, edit).await?;
            output::line(format!("Device {device} added to {owner}"))?;
        }
        Device::Override { owner, device, properties } => {
            if kind != Owner::Instance {
                bail!("only devices of instances can override others");
            }
            let properties = words::pairs(&properties)?;
            override_device(context, client, &owner, &device, properties).await?;
        }
        Device::Remove { owner, devices } => {
            let edit = |object: &mut Map<String, Value>| remove(object, &devices);
            kind.target(&owner)?.change(context, client, edit).await?;
            output::line(format!("Device {} removed from {owner}", devices.join(", ")))?;
        }
        Device::Set { owner, device, properties } => {
            let pairs = words::pairs(&properties)?;
            let edit = |object: &mut Map<String, Value>| {
                let device = found(object, &device)?;
                device.extend(pairs.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))));
                Ok(())
            };
            kind.target(&owner)?.change(context, client, edit).await?;
        }
        Device::Unset { owner, device, keys } => {
            let edit = |object: &mut Map<String, Value>| {
                let device = found(object, &device)?;
                for key in &keys {
                    device.remove(key);
                }
                Ok(())
            };
            kind.target(&owner)?.change(context, client, edit).await?;
        }
        Device::Get { owner, device, key } => {
            let mut object = kind.target(&owner)?.read(client).await?.value;
            let value = found(&mut object, &device)?.get(&key).and_then(Value::as_str);
            output::line(value.unwrap_or_default())?;
        }
        Device::List { owner } => {
            let mut object = kind.target(&owner)?.read(client).await?.value;
            for name in entry(&mut object, "devices")?.keys() {
                output::line(name)?;
            }
        }
        Device::Show { owner } => {
            let mut object = kind.target(&owner)?.read(client).await?.value;
            output::yaml::show(entry(&mut object, "devices")?)?;
        }
    }
    Ok(())
}

fn add(
    object: &mut Map<String, Value>,
    device: &str,
    properties: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let devices = entry(object, "devices")?;
    if devices.contains_key(device) {
        bail!("there is a device `{device}` already");
    }
    devices.insert(device.to_owned(), serde_json::to_value(properties)?);
    Ok(())
}

fn remove(object: &mut Map<String, Value>, names: &[String]) -> anyhow::Result<()> {
    let devices = entry(object, "devices")?;
    for name in names {
        if devices.remove(name).is_none() {
            bail!("there is no device `{name}` of its own (those of profiles are theirs)");
        }
    }
    Ok(())
}

fn found<'a>(object: &'a mut Map<String, Value>, device: &str) -> anyhow::Result<&'a mut Map<String, Value>> {
    let devices = entry(object, "devices")?;
    let missing =
        || format!("there is no device `{device}` of its own (`override` copies one from a profile)");
    devices.get_mut(device).and_then(Value::as_object_mut).with_context(missing)
}

async fn override_device(
    context: &Context,
    client: &Client,
    owner: &str,
    device: &str,
    properties: BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let target = Target::instance(owner)?;
    let whole = target.read(client).await?.value;
    let inherited = whole.get("expanded_devices").and_then(|devices| devices.get(device));
    let inherited = inherited.with_context(|| format!("the profiles have no device `{device}`"))?;
    let mut merged: BTreeMap<String, String> = serde_json::from_value(inherited.clone())?;
    merged.extend(properties);
    target.change(context, client, |object| add(object, device, &merged)).await?;
    output::line(format!("Device {device} overridden for {owner}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_added_once_and_removed_by_name() {
        let mut object = Map::new();
        let properties = BTreeMap::from([("type".to_owned(), "none".to_owned())]);
        add(&mut object, "x", &properties).unwrap();
        assert!(add(&mut object, "x", &properties).is_err());
        found(&mut object, "x").unwrap();
        assert!(found(&mut object, "y").unwrap_err().to_string().contains("`y`"));
        remove(&mut object, &["x".to_owned()]).unwrap();
        assert!(remove(&mut object, &["x".to_owned()]).is_err());
    }
}
