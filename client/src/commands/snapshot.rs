//! `snapshot` and `restore`.

use anyhow::{Context as _, bail};
use cabin_api::ZERO_TIME;
use cabin_api::snapshot::InstanceSnapshotsPost;
use cabin_client::Client;
use cabin_profiles::value::snapshot;
use jiff::{Span, Timestamp, Zoned};

use super::Context;
use crate::cli::snapshot::{One, Restore, Snapshot, Take, Verb};
use crate::output::{self, Table, table, text};
use crate::{remote, terminal};

/// `snapshot`.
pub async fn run(context: &Context, args: Snapshot) -> anyhow::Result<()> {
    match (args.command, args.take) {
        (Some(Verb::Create(take)), _) | (None, Some(take)) => create(context, &take).await,
        (Some(Verb::List { instance, format }), _) => {
            let snapshots = context.client().await?.snapshots(remote::local(&instance)?).await?;
            table::show(format.format, &snapshots, || {
                let mut table = Table::new(["NAME", "TAKEN AT", "EXPIRES AT", "SIZE", "STATEFUL"]);
                for snapshot in &snapshots {
                    table.row([
                        snapshot.name.clone(),
                        text::time(&snapshot.created_at),
                        text::time(&snapshot.expires_at),
                        if snapshot.size < 0 { String::new() } else { text::size(snapshot.size) },
                        if snapshot.stateful { "YES" } else { "NO" }.to_owned(),
                    ]);
                }
                table
            })
        }
        (Some(Verb::Show(one)), _) => {
            let (instance, name) = named(&one)?;
            output::yaml::show(&context.client().await?.snapshot(instance, name).await?)
        }
        (Some(Verb::Rename { instance, name, new }), _) => {
            let client = context.client().await?;
            rename(context, &client, remote::local(&instance)?, (&name, &new)).await
        }
        (Some(Verb::Delete { instance, names, interactive }), _) => {
            let client = context.client().await?;
            let instance = remote::local(&instance)?;
            for name in &names {
                let question = format!("Delete {instance}/{name} (yes/no)? ");
                if !interactive || matches!(output::ask(&question)?.as_str(), "y" | "yes") {
                    delete(context, &client, instance, name).await?;
                }
            }
            Ok(())
        }
        (Some(Verb::Restore(args)), _) => restore(context, &args).await,
        (None, None) => bail!("the instance is missing: cabin snapshot create INSTANCE [NAME]"),
    }
}

/// `snapshot delete`, one of them.
pub async fn delete(context: &Context, client: &Client, instance: &str, name: &str) -> anyhow::Result<()> {
    let reply = client.delete_snapshot(instance, name).await?;
    context.finish(client, reply, &format!("Deleting {instance}/{name}")).await?;
    Ok(())
}

/// `snapshot restore`, and `restore`.
pub async fn restore(context: &Context, args: &Restore) -> anyhow::Result<()> {
    if args.stateful {
        bail!("memory is not kept in snapshots yet");
    }
    let (instance, name) = named(&args.one)?;
    let client = context.client().await?;
    let reply = client.restore_snapshot(instance, name, args.diskonly, args.volumes).await?;
    context.finish(&client, reply, &format!("Restoring {instance}")).await?;
    Ok(())
}

async fn create(context: &Context, args: &Take) -> anyhow::Result<()> {
    if args.stateful {
        bail!("memory is not kept in snapshots yet");
    }
    let (instance, name) = match (&args.name, remote::local(&args.instance)?.split_once('/')) {
        (None, Some((instance, name))) => (instance, name),
        (name, _) => (remote::local(&args.instance)?, name.as_deref().unwrap_or_default()),
    };
    let expires_at = match &args.expiry {
        Some(when) => Some(expiry(when)?),
        None if args.no_expiry => Some(ZERO_TIME.to_owned()),
        None => None,
    };
    let client = context.client().await?;
    let mut replaces = args.reuse && exists(&client, instance, name).await?;
    if replaces && args.volumes {
        // Those of its volumes have its name, and keep the one they are made with.
        delete(context, &client, instance, name).await?;
        replaces = false;
    }
    let new = if replaces { stand_in(name) } else { name.to_owned() };
    let post =
        InstanceSnapshotsPost { name: new.clone(), stateful: false, volumes: args.volumes, expires_at };
    let reply = client.create_snapshot(instance, &post).await?;
    let done = context.finish(&client, reply, &format!("Taking a snapshot of {instance}")).await?;
    if let Some(frozen) = done["frozen_us"].as_u64().filter(|frozen| *frozen > 0)
        && terminal::person_watches()
    {
        output::note(format!("{instance} stood still for {}.{} ms", frozen / 1000, frozen % 1000 / 100));
    }
    if replaces {
        take_the_place(context, &client, instance, (&new, name)).await?;
    }
    Ok(())
}

async fn exists(client: &Client, instance: &str, name: &str) -> anyhow::Result<bool> {
    if name.is_empty() {
        bail!("with --reuse the snapshot's name is needed");
    }
    match client.snapshot(instance, name).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What a snapshot is called until the one whose name it will have is gone: that one is not deleted before there is
/// another.
pub fn stand_in(name: &str) -> String {
    format!("{name}.new{}", std::process::id())
}

/// Gives a new snapshot the name of an old one, which goes.
async fn take_the_place(
    context: &Context,
    client: &Client,
    instance: &str,
    (new, name): (&str, &str),
) -> anyhow::Result<()> {
    if let Err(error) = delete(context, client, instance, name).await {
        delete(context, client, instance, new).await?;
        return Err(error);
    }
    rename(context, client, instance, (new, name)).await
}

async fn rename(
    context: &Context,
    client: &Client,
    instance: &str,
    (old, new): (&str, &str),
) -> anyhow::Result<()> {
    let reply = client.rename_snapshot(instance, old, new).await?;
    context.finish(client, reply, &format!("Renaming {instance}/{old}")).await?;
    Ok(())
}

/// The instance and the snapshot, in one word or two.
fn named(one: &One) -> anyhow::Result<(&str, &str)> {
    let instance = remote::local(&one.instance)?;
    match (&one.name, instance.split_once('/')) {
        (Some(name), _) => Ok((instance, name)),
        (None, Some(both)) => Ok(both),
        (None, None) => bail!("which snapshot of `{instance}`? see `cabin snapshot list {instance}`"),
    }
}

/// A span from now, or a time, as it goes over the wire.
pub fn expiry(when: &str) -> anyhow::Result<String> {
    if let Ok(at) = when.parse::<Timestamp>() {
        return Ok(at.to_string());
    }
    let read = snapshot::expiry(when)?;
    let span = Span::new()
        .try_years(read.years)?
        .try_months(read.months)?
        .try_weeks(read.weeks)?
        .try_days(read.days)?
        .try_hours(read.hours)?
        .try_minutes(read.minutes)?
        .try_seconds(read.seconds)?;
    let at = Zoned::now().checked_add(span).with_context(|| format!("`{when}` is too far away"))?;
    Ok(at.timestamp().to_string())
}
