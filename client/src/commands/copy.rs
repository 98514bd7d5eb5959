//! `copy`: one request; the daemon takes from the source what is not said.

use anyhow::bail;
use cabin_api::instance::{InstanceSource, InstancesPost};
use cabin_client::Reply;

use super::Context;
use crate::cli::snapshot::Copy;
use crate::{output, remote, words};

/// `copy`.
pub async fn run(context: &Context, args: &Copy) -> anyhow::Result<()> {
    let source = remote::local(&args.source)?;
    if args.target.is_some() {
        bail!("--target: this server is no member of a cluster");
    }
    let client = context.client().await?;
    let mut post = InstancesPost { kind: "container".to_owned(), ..InstancesPost::default() };
    if let Some(name) = &args.name {
        remote::local(name)?.clone_into(&mut post.name);
        if post.name.contains('/') {
            bail!("`{name}`: a copy is an instance, not a snapshot");
        }
    }
    post.source = InstanceSource {
        kind: "copy".to_owned(),
        source: source.to_owned(),
        instance_only: args.instance_only,
        allow_inconsistent: args.allow_inconsistent,
        refresh: args.refresh,
        refresh_exclude_older: args.refresh_exclude_older,
        ..InstanceSource::default()
    };
    post.put.ephemeral = args.ephemeral;
    for word in &args.config {
        let (key, value) = words::pair(word)?;
        post.put.config.0.insert(key, value);
    }
    let overrides = words::devices(&args.device)?;
    if !overrides.is_empty() {
        let instance = source.split('/').next().unwrap_or(source);
        let mut expanded = client.instance(instance).await?.value.expanded_devices;
        for (name, properties) in overrides {
            let mut device = expanded.0.remove(&name).unwrap_or_default();
            device.extend(properties);
            post.put.devices.0.insert(name, device);
        }
    }
    post.put.profiles = profiles(&args.profile, args.no_profiles);
    if let Some(pool) = &args.storage {
        let shown = match source.split_once('/') {
            None => client.instance(source).await?.value.expanded_devices,
            Some((instance, snapshot)) => client.snapshot(instance, snapshot).await?.expanded_devices,
        };
        // Another profile may bring the root disk; then it is the name they all use.
        let root = shown.0.iter().find(|(_, device)| device.get("path").is_some_and(|path| path == "/"));
        let name = root.map_or("root", |(name, _)| name.as_str());
        let given = post.put.devices.0.get(name).or(root.map(|(_, device)| device)).cloned();
        let mut root = given.unwrap_or_default();
        for (key, value) in [("type", "disk"), ("path", "/"), ("pool", pool.as_str())] {
            root.insert(key.to_owned(), value.to_owned());
        }
        post.put.devices.0.insert(name.to_owned(), root);
    }
    let reply = client.create_instance(&post).await?;
    let made = match &reply {
        Reply::Begun(operation) if post.name.is_empty() => {
            super::create::named(operation.resources.get("instances"))
        }
        _ => None,
    };
    context.finish(&client, reply, &format!("Copying {source}")).await?;
    if let Some(name) = made {
        output::line(format!("Instance name is: {name}"))?;
    }
    Ok(())
}

/// The profiles that words ask for; as they are when nothing is said.
pub(super) fn profiles(given: &[String], none: bool) -> Option<Vec<String>> {
    if none {
        return Some(Vec::new());
    }
    let names = given.iter().flat_map(|names| names.split(','));
    (!given.is_empty()).then(|| names.map(str::to_owned).collect())
}
