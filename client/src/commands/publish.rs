//! `publish` and `rebuild`.

use anyhow::bail;
use cabin_api::StatusCode;
use cabin_api::image::{ImageAlias, ImagesPost};
use cabin_api::instance::{InstanceSource, InstanceStatePut};
use cabin_api::rebuild::InstanceRebuildPost;
use cabin_client::Client;
use serde_json::{Value, json};

use super::{Context, create};
use crate::cli::publish::{Publish, Rebuild};
use crate::{output, remote, words};

/// `publish`.
pub async fn publish(context: &Context, args: &Publish) -> anyhow::Result<()> {
    let source = remote::local(&args.source)?;
    let client = &context.client().await?;
    let kind = if source.contains('/') { "snapshot" } else { "instance" };
    let mut from = vec![("type", json!(kind)), ("name", json!(source))];
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        let Ok(epoch) = epoch.parse::<i64>() else {
            bail!("SOURCE_DATE_EPOCH is `{epoch}`: it must be seconds since 1970");
        };
        from.push(("creation_date", json!(epoch)));
    }
    let mut post = ImagesPost {
        source: from.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        public: args.public,
        compression_algorithm: super::backup::compression(args.compression.as_deref(), None),
        format: args.format.clone(),
        expires_at: args.expire.clone().unwrap_or_default(),
        ..ImagesPost::default()
    };
    for word in &args.properties {
        let (key, value) = words::pair(word)?;
        post.properties.0.insert(key, value);
    }
    for name in &args.alias {
        if args.reuse {
            match client.delete_image_alias(name).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        post.aliases.push(ImageAlias { name: name.clone(), description: String::new() });
    }
    let again = match kind {
        "instance" => stopped(context, client, source, args.force).await?,
        _ => false,
    };
    let made = async {
        let reply = client.create_image(&post).await?;
        context.finish(client, reply, &format!("Publishing {source}")).await
    };
    let made = made.await;
    started(context, client, source, again).await?;
    let fingerprint = made?["fingerprint"].as_str().unwrap_or("not told").to_owned();
    output::line(format!("Instance published with fingerprint: {fingerprint}"))?;
    Ok(())
}

/// `rebuild`.
pub async fn rebuild(context: &Context, args: &Rebuild) -> anyhow::Result<()> {
    let client = &context.client().await?;
    let (source, name) = match (args.words.as_slice(), args.empty) {
        ([name], true) => (InstanceSource { kind: "none".to_owned(), ..InstanceSource::default() }, name),
        ([image, name], false) => (create::source(Some(image))?, name),
        (_, true) => bail!("with --empty there is no image: name the instance alone"),
        (_, false) => bail!("name the image and the instance, or use --empty"),
    };
    let name = remote::local(name)?;
    let again = stopped(context, client, name, args.force).await?;
    let rebuilt = async {
        let reply = client.rebuild_instance(name, &InstanceRebuildPost { source }).await?;
        context.finish(client, reply, &format!("Rebuilding {name}")).await
    };
    let rebuilt = rebuilt.await;
    started(context, client, name, again).await?;
    rebuilt.map(drop)
}

/// Stops an instance that runs, if that may be; whether it is to be started again.
async fn stopped(context: &Context, client: &Client, name: &str, force: bool) -> anyhow::Result<bool> {
    if client.instance(name).await?.value.status_code == StatusCode::Stopped {
        return Ok(false);
    }
    if !force {
        bail!("instance `{name}` is running; --force stops it and starts it again");
    }
    change(context, client, name, "stop").await?;
    Ok(true)
}

async fn started(context: &Context, client: &Client, name: &str, again: bool) -> anyhow::Result<()> {
    match again {
        true => change(context, client, name, "start").await.map(drop),
        false => Ok(()),
    }
}

async fn change(context: &Context, client: &Client, name: &str, action: &str) -> anyhow::Result<Value> {
    let put = InstanceStatePut { action: action.to_owned(), timeout: -1, ..InstanceStatePut::default() };
    let reply = client.set_instance_state(name, &put).await?;
    context.finish(client, reply, &format!("Changing {name}")).await
}
