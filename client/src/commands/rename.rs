//! `rename` and `move`.

use anyhow::bail;
use cabin_api::instance::InstancePost;

use super::{Context, copy};
use crate::cli::instance::{Move, Rename};
use crate::{remote, words};

/// `rename`.
pub async fn run(context: &Context, args: &Rename) -> anyhow::Result<()> {
    let (name, new) = (remote::local(&args.name)?, remote::local(&args.new)?);
    let client = context.client().await?;
    let reply = client.rename_instance(name, new).await?;
    context.finish(&client, reply, &format!("Renaming {name}")).await?;
    Ok(())
}

/// `move`.
pub async fn relocate(context: &Context, args: &Move) -> anyhow::Result<()> {
    let name = remote::local(&args.name)?;
    let new = args.new.as_deref().map(remote::local).transpose()?;
    if args.target.is_some() {
        bail!("--target: this server is no member of a cluster");
    }
    let Some(pool) = &args.storage else {
        return run(context, &Rename { name: args.name.clone(), new: args.new.clone().unwrap_or_default() })
            .await;
    };
    let client = context.client().await?;
    let mut post = InstancePost {
        name: new.filter(|new| *new != name).unwrap_or_default().to_owned(),
        migration: true,
        instance_only: args.instance_only,
        pool: pool.clone(),
        profiles: copy::profiles(&args.profile, args.no_profiles),
        ..InstancePost::default()
    };
    for word in &args.config {
        let (key, value) = words::pair(word)?;
        post.config.0.insert(key, value);
    }
    let overrides = words::devices(&args.device)?;
    if !overrides.is_empty() {
        let mut expanded = client.instance(name).await?.value.expanded_devices;
        for (name, properties) in overrides {
            let mut device = expanded.0.remove(&name).unwrap_or_default();
            device.extend(properties);
            post.devices.0.insert(name, device);
        }
    }
    let reply = client.move_instance(name, &post).await?;
    context.finish(&client, reply, &format!("Moving {name}")).await?;
    Ok(())
}
