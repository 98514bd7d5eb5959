//! `config`.

use serde_json::Value;

use super::object::{Part, Target};
use super::{Context, device, template};
use crate::cli::config::{Config, Metadata};
use crate::{output, words};

/// `config`.
pub async fn run(context: &Context, command: Config) -> anyhow::Result<()> {
    let client = &context.client().await?;
    match command {
        Config::Device(command) => device::run(context, client, device::Owner::Instance, command).await,
        Config::Edit { name } => target(name.as_deref())?.edit(context, client).await,
        Config::Get { words, expanded, property } => {
            let (name, key) = words::owner_and_key(&words)?;
            let part = if expanded { Part::Expanded } else { Part::from_flag(property) };
            target(name)?.get(client, key, part).await
        }
        Config::Metadata(Metadata::Edit { instance }) => {
            Target::metadata(&instance)?.edit(context, client).await
        }
        Config::Metadata(Metadata::Show { instance }) => Target::metadata(&instance)?.show(client, &[]).await,
        Config::Template(command) => template::run(client, command).await,
        Config::Set { words, property } => {
            let (name, pairs) = words::owner_and_pairs(&words)?;
            target(name)?.set(context, client, &pairs, Part::from_flag(property)).await
        }
        Config::Unset { words, property } => {
            let (name, keys) = words::owner_and_keys(&words)?;
            target(name)?.unset(context, client, keys, Part::from_flag(property)).await
        }
        Config::Show { name, expanded } => {
            let target = target(name.as_deref())?;
            let mut object = target.read(client).await?.value;
            if expanded {
                for (own, whole) in [("config", "expanded_config"), ("devices", "expanded_devices")] {
                    let value = object.get(whole).cloned().unwrap_or(Value::Null);
                    object.insert(own.to_owned(), value);
                }
            }
            output::raw(target.writable_yaml(&object)?.as_bytes())?;
            Ok(())
        }
    }
}

fn target(name: Option<&str>) -> anyhow::Result<Target> {
    match name {
        Some(name) => Target::instance(name),
        None => Ok(Target::server()),
    }
}
