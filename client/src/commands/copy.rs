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
    if args.no_profiles {
        post.put.profiles = Some(Vec::new());
    } else if !args.profile.is_empty() {
        let names = args.profile.iter().flat_map(|names| names.split(','));
        post.put.profiles = Some(names.map(str::to_owned).collect());
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
