//! `storage volume attach` and `detach`: devices of instances and profiles that name a volume.

use anyhow::bail;
use cabin_api::volume::VolumesPost;
use cabin_client::Client;
use serde_json::{Map, Value, json};

use super::{create, custom};
use crate::cli::volume::Place;
use crate::commands::Context;
use crate::commands::object::{Target, entry};

/// `attach`.
pub async fn to_instance(
    context: &Context,
    client: &Client,
    place: &Place,
    instance: &str,
    device: &[String],
    missing: bool,
) -> anyhow::Result<()> {
    let (pool, volume) = custom(place)?;
    if missing {
        match client.volume(pool, "custom", volume).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {
                let post = VolumesPost { name: volume.to_owned(), ..VolumesPost::default() };
                create(context, client, pool, &post).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    to(context, client, Target::instance(instance)?, place, device).await
}

/// `attach-profile`.
pub async fn to_profile(
    context: &Context,
    client: &Client,
    place: &Place,
    profile: &str,
    device: &[String],
) -> anyhow::Result<()> {
    to(context, client, Target::profile(profile)?, place, device).await
}

async fn to(
    context: &Context,
    client: &Client,
    target: Target,
    place: &Place,
    words: &[String],
) -> anyhow::Result<()> {
    let (pool, source) = custom(place)?;
    let volume = source.split('/').next().unwrap_or(source);
    let (device, path) = match words {
        [device, path] => (device.as_str(), path.as_str()),
        [path] if path.starts_with('/') => (volume, path.as_str()),
        _ => bail!("where is it to be mounted? give a path inside, such as /srv/{volume}"),
    };
    let properties = json!({ "type": "disk", "pool": pool, "source": source, "path": path });
    target
        .change(context, client, |object| {
            let devices = entry(object, "devices")?;
            if devices.contains_key(device) {
                bail!("there is a device `{device}` already");
            }
            devices.insert(device.to_owned(), properties.clone());
            Ok(())
        })
        .await
}

/// `detach` and `detach-profile`.
pub async fn from(
    context: &Context,
    client: &Client,
    target: Target,
    place: &Place,
    device: Option<&str>,
) -> anyhow::Result<()> {
    let (pool, volume) = custom(place)?;
    target
        .change(context, client, |object| {
            let devices = entry(object, "devices")?;
            let found = match device {
                Some(device) => device.to_owned(),
                None => only(devices, pool, volume)?,
            };
            match devices.remove(&found) {
                Some(_) => Ok(()),
                None => bail!("there is no device `{found}` of its own (those of profiles are theirs)"),
            }
        })
        .await
}

/// The one device that shows a volume.
fn only(devices: &Map<String, Value>, pool: &str, volume: &str) -> anyhow::Result<String> {
    let shows = |device: &Value| {
        let text = |key: &str| device.get(key).and_then(Value::as_str).unwrap_or_default();
        let source = text("source");
        text("type") == "disk" && text("pool") == pool && source.split('/').next() == Some(volume)
    };
    let found: Vec<&String> =
        devices.iter().filter(|(_, device)| shows(device)).map(|(name, _)| name).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => bail!("storage volume `{volume}` is not attached to it"),
        _ => bail!("storage volume `{volume}` is attached more than once: name the device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_a_volume_is_found_when_there_is_one() {
        let disk = |source: &str| json!({ "type": "disk", "pool": "p", "source": source, "path": "/x" });
        let mut devices = Map::new();
        devices.insert("root".into(), json!({ "type": "disk", "pool": "p", "path": "/" }));
        assert!(only(&devices, "p", "v").is_err());
        devices.insert("a".into(), disk("v/sub"));
        assert_eq!(only(&devices, "p", "v").unwrap(), "a");
        assert!(only(&devices, "q", "v").is_err());
        devices.insert("b".into(), disk("v"));
        assert!(only(&devices, "p", "v").unwrap_err().to_string().contains("more than once"));
    }
}
