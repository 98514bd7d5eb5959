//! `admin init --preseed` and `--dump`: the whole config as one YAML document.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use cabin_api::network::NetworksPost;
use cabin_api::profile::ProfilesPost;
use cabin_api::storage::PoolsPost;
use cabin_api::{ConfigMap, DevicesMap};
use cabin_client::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Context;
use super::object::{Target, entry};
use crate::output;
use crate::words;

/// All that is configured, instances and images apart.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Preseed {
    config: ConfigMap,
    networks: Vec<NetworksPost>,
    storage_pools: Vec<PoolsPost>,
    profiles: Vec<ProfilesPost>,
    projects: Vec<Named>,
    #[serde(flatten, skip_serializing)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Named {
    config: ConfigMap,
    description: String,
    name: String,
}

/// Writes what is configured.
pub async fn dump(client: &Client) -> anyhow::Result<()> {
    let (server, pools, networks, profiles, projects) = tokio::try_join!(
        client.server(),
        client.pools(),
        client.networks(),
        client.profiles(),
        client.projects()
    )?;
    let networks = networks.into_iter().filter(|network| network.managed);
    let preseed = Preseed {
        config: server.value.config,
        networks: networks
            .map(|it| NetworksPost {
                config: it.config,
                description: it.description,
                name: it.name,
                kind: it.kind,
            })
            .collect(),
        storage_pools: pools
            .into_iter()
            .map(|it| PoolsPost {
                config: it.config,
                description: it.description,
                name: it.name,
                driver: it.driver,
            })
            .collect(),
        profiles: profiles
            .into_iter()
            .map(|it| ProfilesPost {
                config: it.config,
                description: it.description,
                devices: it.devices,
                name: it.name,
            })
            .collect(),
        projects: projects
            .into_iter()
            .map(|it| Named { config: it.config, description: it.description, name: it.name })
            .collect(),
        unknown: BTreeMap::new(),
    };
    output::yaml::show(&preseed)
}

/// Makes what the YAML on standard input names; what is there already takes over its keys.
pub async fn apply(context: &Context, client: &Client) -> anyhow::Result<()> {
    let preseed = parse(&words::standard_input()?)?;
    if !preseed.config.0.is_empty() {
        merge(context, client, Target::server(), &preseed.config, None, None).await.context("config")?;
    }
    let pools = client.pool_names().await?;
    for pool in &preseed.storage_pools {
        let failed = || format!("storage pool `{}`", pool.name);
        if pools.contains(&pool.name) {
            let target = Target::pool(&pool.name)?;
            let description = Some(pool.description.as_str());
            merge(context, client, target, &pool.config, description, None).await.with_context(failed)?;
        } else {
            let reply = client.create_pool(pool).await.with_context(failed)?;
            context.finish(client, reply, &failed()).await.with_context(failed)?;
        }
    }
    let networks = client.network_names().await?;
    for network in &preseed.networks {
        let failed = || format!("network `{}`", network.name);
        if networks.contains(&network.name) {
            let target = Target::network(&network.name)?;
            let description = Some(network.description.as_str());
            merge(context, client, target, &network.config, description, None).await.with_context(failed)?;
        } else {
            let reply = client.create_network(network).await.with_context(failed)?;
            context.finish(client, reply, &failed()).await.with_context(failed)?;
        }
    }
    let profiles = client.profile_names().await?;
    for profile in &preseed.profiles {
        let failed = || format!("profile `{}`", profile.name);
        if profiles.contains(&profile.name) {
            let target = Target::profile(&profile.name)?;
            let (description, devices) = (Some(profile.description.as_str()), Some(&profile.devices));
            merge(context, client, target, &profile.config, description, devices)
                .await
                .with_context(failed)?;
        } else {
            client.create_profile(profile).await.with_context(failed)?;
        }
    }
    Ok(())
}

fn parse(yaml: &str) -> anyhow::Result<Preseed> {
    let preseed: Preseed = serde_json::from_value(Value::Object(output::yaml::parse(yaml)?))
        .context("this is not the config of a server")?;
    let nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    if let Some((key, _)) = preseed.unknown.iter().find(|(_, value)| !nothing(value)) {
        bail!("`{key}` is not supported here yet");
    }
    if let Some(project) = preseed.projects.iter().find(|project| project.name != "default") {
        bail!("project `{}`: only the project `default` is supported yet", project.name);
    }
    Ok(preseed)
}

async fn merge(
    context: &Context,
    client: &Client,
    target: Target,
    config: &ConfigMap,
    description: Option<&str>,
    devices: Option<&DevicesMap>,
) -> anyhow::Result<()> {
    target
        .change(context, client, |object| {
            let keys = entry(object, "config")?;
            keys.extend(config.0.iter().map(|(key, value)| (key.clone(), json!(value))));
            if let Some(description) = description.filter(|text| !text.is_empty()) {
                object.insert("description".to_owned(), json!(description));
            }
            if let Some(devices) = devices {
                let own = entry(object, "devices")?;
                own.extend(devices.0.iter().map(|(name, device)| (name.clone(), json!(device))));
            }
            Ok(())
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preseed_of_incus_is_read() {
        let yaml = "config: {}\nnetworks:\n- {name: br0, type: bridge, config: {ipv4.nat: true}}\n\
            storage_pools:\n- {name: p, driver: dir}\nprofiles:\n- name: default\n  devices:\n    \
            root: {path: /, pool: p, type: disk}\nprojects: []\ncluster: null\n";
        let preseed = parse(yaml).unwrap();
        assert_eq!(preseed.networks[0].config.0["ipv4.nat"], "true");
        assert_eq!(preseed.profiles[0].devices.0["root"]["pool"], "p");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let error = parse("cluster: {enabled: true}").unwrap_err().to_string();
        assert!(error.contains("`cluster`"), "{error}");
        let error = parse("projects: [{name: other}]").unwrap_err().to_string();
        assert!(error.contains("`other`"), "{error}");
    }
}
