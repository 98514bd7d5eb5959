//! `profile`.

use anyhow::bail;
use cabin_api::profile::ProfilesPost;
use cabin_client::Client;
use serde_json::{Map, Value, json};

use super::object::{Part, Target};
use super::{Context, all, device};
use crate::cli::profile::Profile;
use crate::output::{self, columns::Column};
use crate::{remote, words};

const ORDER: &[&str] = &["config", "description", "devices", "name", "used_by", "project"];

const COLUMNS: &[Column<cabin_api::profile::Profile>] = &[
    Column { letter: 'n', head: "NAME", cell: |it| it.name.clone() },
    Column { letter: 'd', head: "DESCRIPTION", cell: |it| it.description.clone() },
    Column { letter: 'u', head: "USED BY", cell: |it| it.used_by.len().to_string() },
    Column { letter: 'e', head: "PROJECT", cell: |it| it.project.clone() },
];

/// `profile`.
pub async fn run(context: &Context, command: Profile) -> anyhow::Result<()> {
    let client = &context.client().await?;
    match command {
        Profile::Add { instance, profile } => {
            assign(context, client, &instance, |list| {
                if list.contains(&profile) {
                    bail!("profile `{profile}` is applied to `{instance}` already");
                }
                list.push(profile.clone());
                Ok(())
            })
            .await?;
            output::line(format!("Profile {profile} added to {instance}"))?;
        }
        Profile::Remove { instance, profile } => {
            assign(context, client, &instance, |list| {
                if !list.contains(&profile) {
                    bail!("profile `{profile}` is not applied to `{instance}`");
                }
                list.retain(|name| *name != profile);
                Ok(())
            })
            .await?;
            output::line(format!("Profile {profile} removed from {instance}"))?;
        }
        Profile::Assign { instance, profiles, no_profiles: _ } => {
            let names = profiles.iter().flat_map(|word| word.split(',')).filter(|name| !name.is_empty());
            let names: Vec<String> = names.map(str::to_owned).collect();
            assign(context, client, &instance, |list| {
                list.clone_from(&names);
                Ok(())
            })
            .await?;
            output::line(format!("Profiles {} applied to {instance}", names.join(", ")))?;
        }
        Profile::Copy { name, new } => {
            copy(client, remote::local(&name)?, remote::local(&new)?).await?;
        }
        Profile::Create { name, description } => create(client, &name, description).await?,
        Profile::Delete { names } => {
            for name in &names {
                client.delete_profile(remote::local(name)?).await?;
                output::line(format!("Profile {name} deleted"))?;
            }
        }
        Profile::Device(command) => {
            device::run(context, client, device::Owner::Profile, command).await?;
        }
        Profile::Edit { name } => Target::profile(&name)?.edit(context, client).await?,
        Profile::Get { name, key, property } => {
            Target::profile(&name)?.get(client, &key, Part::from_flag(property)).await?;
        }
        Profile::List { filters, list } => {
            let profiles: Vec<_> = all(client, "/1.0/profiles", list.all_projects, &filters).await?;
            list.show(COLUMNS, "ndu", &profiles)?;
        }
        Profile::Rename { name, new } => {
            client.rename_profile(remote::local(&name)?, &new).await?;
            output::line(format!("Profile {name} renamed to {new}"))?;
        }
        Profile::Set { name, words, property } => {
            let pairs = words::pairs(&words)?;
            Target::profile(&name)?.set(context, client, &pairs, Part::from_flag(property)).await?;
        }
        Profile::Show { name } => Target::profile(&name)?.show(client, ORDER).await?,
        Profile::Unset { name, keys, property } => {
            Target::profile(&name)?.unset(context, client, &keys, Part::from_flag(property)).await?;
        }
    }
    Ok(())
}

async fn copy(client: &Client, name: &str, new: &str) -> anyhow::Result<()> {
    let old = client.profile(name).await?.value;
    let name = new.to_owned();
    let post = ProfilesPost { config: old.config, description: old.description, devices: old.devices, name };
    client.create_profile(&post).await?;
    Ok(())
}

async fn create(client: &Client, name: &str, description: Option<String>) -> anyhow::Result<()> {
    let yaml = words::piped_yaml()?;
    let mut post: ProfilesPost = serde_json::from_value(Value::Object(output::yaml::parse(&yaml)?))?;
    remote::local(name)?.clone_into(&mut post.name);
    if let Some(description) = description {
        post.description = description;
    }
    client.create_profile(&post).await?;
    output::line(format!("Profile {name} created"))?;
    Ok(())
}

/// Changes the list of an instance's profiles.
async fn assign(
    context: &Context,
    client: &Client,
    instance: &str,
    edit: impl Fn(&mut Vec<String>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let change = |object: &mut Map<String, Value>| {
        let list = object.get("profiles").cloned().unwrap_or_default();
        let mut list: Vec<String> = serde_json::from_value::<Option<_>>(list)?.unwrap_or_default();
        edit(&mut list)?;
        object.insert("profiles".to_owned(), json!(list));
        Ok(())
    };
    Target::instance(instance)?.change(context, client, change).await
}
