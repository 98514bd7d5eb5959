//! What instances, profiles, networks, pools, images and the server have in common: an object that is read,
//! changed in parts, and written back if nobody else has changed it.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use cabin_client::{Address, Client, ETag, Error, Kind, Tagged};
use serde_json::{Map, Value};

use super::Context;
use crate::{output, programs, remote, terminal, words};

/// How often a change is tried again when somebody else was faster.
const TRIES: usize = 5;

/// An object on the daemon.
#[derive(Debug, Clone)]
pub struct Target {
    address: Address,
    /// Fields that can be written, in the order people read them.
    writable: &'static [&'static str],
    /// The map of keys within it.
    map: &'static str,
    /// Words at the head of the YAML in the editor.
    about: &'static str,
}

const CONFIG: &[&str] = &["config", "description"];

impl Target {
    /// The server.
    pub fn server() -> Target {
        let about = "The server's config: a map of keys.";
        Target { address: Address::new("/1.0"), writable: &["config"], map: "config", about }
    }

    /// An instance.
    pub fn instance(name: &str) -> anyhow::Result<Target> {
        let writable =
            &["architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description"];
        let about = "The instance's own config; what the profiles give is not shown.";
        Ok(Target { address: address("/1.0/instances", name)?, writable, map: "config", about })
    }

    /// What the image of an instance says about itself.
    pub fn metadata(instance: &str) -> anyhow::Result<Target> {
        let about =
            "What the instance's image says about itself, and which template becomes which file inside.";
        let writable = &["architecture", "creation_date", "expiry_date", "properties", "templates"];
        let address = address("/1.0/instances", instance)?.then("metadata");
        Ok(Target { address, writable, map: "properties", about })
    }

    /// A profile.
    pub fn profile(name: &str) -> anyhow::Result<Target> {
        let about = "A profile: config and devices for the instances that use it.";
        let writable = &["config", "description", "devices"];
        Ok(Target { address: address("/1.0/profiles", name)?, writable, map: "config", about })
    }

    /// A network.
    pub fn network(name: &str) -> anyhow::Result<Target> {
        let about = "A network. Only config and description can be changed.";
        Ok(Target { address: address("/1.0/networks", name)?, writable: CONFIG, map: "config", about })
    }

    /// A storage pool.
    pub fn pool(name: &str) -> anyhow::Result<Target> {
        let about = "A storage pool. Only config and description can be changed.";
        Ok(Target { address: address("/1.0/storage-pools", name)?, writable: CONFIG, map: "config", about })
    }

    /// A storage volume.
    pub fn volume(pool: &str, kind: &str, name: &str) -> Target {
        let about = "A storage volume. Only config and description can be changed.";
        let address = Address::new("/1.0/storage-pools").name(pool).then("volumes").name(kind).name(name);
        Target { address, writable: CONFIG, map: "config", about }
    }

    /// A snapshot of a storage volume.
    pub fn volume_snapshot(pool: &str, kind: &str, volume: &str, name: &str) -> Target {
        let about = "A snapshot of a storage volume. Only description and expiry can be changed.";
        let volume = Address::new("/1.0/storage-pools").name(pool).then("volumes").name(kind).name(volume);
        let address = volume.then("snapshots").name(name);
        Target { address, writable: &["description", "expires_at"], map: "config", about }
    }

    /// An image, by fingerprint.
    pub fn image(fingerprint: &str) -> Target {
        let writable = &["auto_update", "properties", "public", "expires_at", "profiles"];
        let address = Address::new("/1.0/images").name(fingerprint);
        Target { address, writable, map: "properties", about: "An image. Its files cannot be changed." }
    }

    /// Reads it.
    pub async fn read(&self, client: &Client) -> anyhow::Result<Tagged<Map<String, Value>>> {
        Ok(client.get_tagged(self.address.clone()).await?)
    }

    /// Its writable fields as YAML.
    pub fn writable_yaml(&self, object: &Map<String, Value>) -> anyhow::Result<String> {
        output::yaml::ordered(&self.writable_part(object), self.writable)
    }

    fn writable_part(&self, object: &Map<String, Value>) -> Map<String, Value> {
        let fields = object.iter().filter(|(key, _)| self.writable.contains(&key.as_str()));
        fields.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Shows all of it, the named fields first.
    pub async fn show(&self, client: &Client, first: &[&str]) -> anyhow::Result<()> {
        let object = self.read(client).await?.value;
        output::raw(output::yaml::ordered(&object, first)?.as_bytes())?;
        Ok(())
    }

    /// Shows what can be changed of it.
    pub async fn show_writable(&self, client: &Client) -> anyhow::Result<()> {
        let object = self.read(client).await?.value;
        output::raw(self.writable_yaml(&object)?.as_bytes())?;
        Ok(())
    }

    /// Reads, lets `edit` change the writable fields, writes back; again when somebody else was faster.
    pub async fn change(
        &self,
        context: &Context,
        client: &Client,
        edit: impl Fn(&mut Map<String, Value>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for left in (0..TRIES).rev() {
            let Tagged { value, etag } = self.read(client).await?;
            let mut object = self.writable_part(&value);
            edit(&mut object)?;
            match self.write(context, client, &object, etag.as_ref()).await {
                Err(error) if left > 0 && is_changed(&error) => {}
                done => return done,
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        context: &Context,
        client: &Client,
        object: &Map<String, Value>,
        etag: Option<&ETag>,
    ) -> anyhow::Result<()> {
        let reply = client.put(self.address.clone(), object, etag).await?;
        context.finish(client, reply, "Updating").await?;
        Ok(())
    }

    /// Shows the value of a key, or of a property of the object itself.
    pub async fn get(&self, client: &Client, key: &str, part: Part) -> anyhow::Result<()> {
        let object = self.read(client).await?.value;
        let value = match part {
            Part::Key => object.get(self.map).and_then(|map| map.get(key)),
            Part::Expanded => object.get("expanded_config").and_then(|map| map.get(key)),
            Part::Property => match object.get(key) {
                None => bail!("`{key}` is not a property of it"),
                found => found,
            },
        };
        output::line(value.map(plain).transpose()?.unwrap_or_default())?;
        Ok(())
    }

    /// Sets keys, or properties of the object itself.
    pub async fn set(
        &self,
        context: &Context,
        client: &Client,
        pairs: &BTreeMap<String, String>,
        part: Part,
    ) -> anyhow::Result<()> {
        self.change(context, client, |object| {
            for (key, value) in pairs {
                match part {
                    Part::Property => set_property(object, key, value)?,
                    _ => {
                        entry(object, self.map)?.insert(key.clone(), Value::String(value.clone()));
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Takes keys away, or empties properties of the object itself.
    pub async fn unset(
        &self,
        context: &Context,
        client: &Client,
        keys: &[String],
        part: Part,
    ) -> anyhow::Result<()> {
        self.change(context, client, |object| {
            for key in keys {
                match part {
                    Part::Property => set_property(object, key, "")?,
                    _ => {
                        entry(object, self.map)?.remove(key);
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Lets the person edit it, or takes YAML from standard input. A mistake can be corrected.
    pub async fn edit(&self, context: &Context, client: &Client) -> anyhow::Result<()> {
        if !terminal::input_is_terminal() {
            let object = output::yaml::parse(&words::standard_input()?)?;
            return self.write(context, client, &self.writable_part(&object), None).await;
        }
        let Tagged { value, etag } = self.read(client).await?;
        let before = self.writable_yaml(&value)?;
        let mut text = format!("# {}\n# Lines that begin with # are left out.\n\n{before}", self.about);
        loop {
            let edited = String::from_utf8(programs::edit(text.as_bytes(), ".yaml")?).context("not text")?;
            let done = match output::yaml::parse(&edited) {
                Ok(object) if object == self.writable_part(&value) => return Ok(()),
                Ok(object) => self.write(context, client, &self.writable_part(&object), etag.as_ref()).await,
                Err(error) => Err(error),
            };
            let Err(error) = done else { return Ok(()) };
            if is_changed(&error) {
                return Err(error);
            }
            output::note(format!("Error: {}", output::failure::chain(&error)));
            if output::ask("Press enter to edit again, or type `no` to give up: ")?.starts_with('n') {
                bail!("nothing is changed");
            }
            text = edited;
        }
    }
}

/// What a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A key of the config.
    Key,
    /// A key of the config with the profiles under it.
    Expanded,
    /// A field of the object itself.
    Property,
}

impl Part {
    /// As `--property` says.
    pub fn from_flag(property: bool) -> Part {
        if property { Part::Property } else { Part::Key }
    }
}

/// The map in a field, made when it is not there.
pub fn entry<'a>(
    object: &'a mut Map<String, Value>,
    field: &str,
) -> anyhow::Result<&'a mut Map<String, Value>> {
    let value = object.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().with_context(|| format!("`{field}` is not a map"))
}

fn address(root: &str, name: &str) -> anyhow::Result<Address> {
    Ok(Address::new(root).name(remote::local(name)?))
}

fn is_changed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(|error| error.kind() == Kind::Changed)
}

/// A scalar as it is; anything else as YAML.
fn plain(value: &Value) -> anyhow::Result<String> {
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        _ => output::yaml::text(value)?.trim_end().to_owned(),
    })
}

/// Sets a field, in the type it has.
fn set_property(object: &mut Map<String, Value>, key: &str, text: &str) -> anyhow::Result<()> {
    let Some(old) = object.get_mut(key) else {
        bail!("`{key}` is not a property that can be changed");
    };
    *old = match old {
        Value::Bool(_) if text.is_empty() => Value::Bool(false),
        Value::Bool(_) => match text {
            "true" | "1" | "yes" | "on" => Value::Bool(true),
            "false" | "0" | "no" | "off" => Value::Bool(false),
            _ => bail!("`{key}` is true or false, not `{text}`"),
        },
        Value::Object(_) | Value::Array(_) => bail!("`{key}` is not a single value: use edit"),
        _ => Value::String(text.to_owned()),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writable_fields_are_sent_back() {
        let target = Target::profile("p").unwrap();
        let object = output::yaml::parse("{name: p, used_by: [], devices: {}, config: {a: b}}").unwrap();
        assert_eq!(target.writable_yaml(&object).unwrap(), "config:\n  a: b\ndevices: {}\n");
    }

    #[test]
    fn properties_keep_their_type() {
        let mut object = output::yaml::parse("{ephemeral: false, description: a, config: {}}").unwrap();
        set_property(&mut object, "ephemeral", "true").unwrap();
        set_property(&mut object, "description", "").unwrap();
        assert_eq!(object["ephemeral"], true);
        assert_eq!(object["description"], "");
        assert!(set_property(&mut object, "ephemeral", "maybe").is_err());
        assert!(set_property(&mut object, "config", "x").is_err());
        assert!(set_property(&mut object, "nothing", "x").is_err());
    }
}
