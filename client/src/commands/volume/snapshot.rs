//! `storage volume snapshot`.

use anyhow::bail;
use cabin_api::ZERO_TIME;
use cabin_api::volume::{VolumeSnapshot as Shown, VolumeSnapshotsPost};
use cabin_client::Client;

use super::custom;
use crate::cli::volume::VolumeSnapshot;
use crate::commands::Context;
use crate::commands::snapshot::{expiry, stand_in};
use crate::output::{self, Table, table, text};

/// `storage volume snapshot`.
pub async fn run(context: &Context, client: &Client, command: VolumeSnapshot) -> anyhow::Result<()> {
    match command {
        VolumeSnapshot::Create { place, name, description, expiry: when, no_expiry, reuse } => {
            let (pool, volume) = custom(&place)?;
            let name = name.unwrap_or_default();
            let replaces = reuse && exists(client, (pool, volume), &name).await?;
            let new = if replaces { stand_in(&name) } else { name.clone() };
            let expires_at = match &when {
                Some(when) => Some(expiry(when)?),
                None if no_expiry => Some(ZERO_TIME.to_owned()),
                None => None,
            };
            let post = VolumeSnapshotsPost {
                name: new.clone(),
                description: description.unwrap_or_default(),
                expires_at,
            };
            let reply = client.create_volume_snapshot(pool, volume, &post).await?;
            context.finish(client, reply, &format!("Taking a snapshot of {volume}")).await?;
            if replaces {
                take_the_place(context, client, (pool, volume), (&new, &name)).await?;
            }
            Ok(())
        }
        VolumeSnapshot::Delete { place, name } => {
            let (pool, volume) = custom(&place)?;
            delete(context, client, (pool, volume), &name).await
        }
        VolumeSnapshot::List { place, format } => {
            let (pool, volume) = custom(&place)?;
            let snapshots = client.volume_snapshots(pool, volume).await?;
            table::show(format.format, &snapshots, || rows(&snapshots))
        }
        VolumeSnapshot::Rename { place, name, new } => {
            let (pool, volume) = custom(&place)?;
            rename(context, client, (pool, volume), (&name, &new)).await
        }
        VolumeSnapshot::Restore { place, name } => {
            let (pool, volume) = custom(&place)?;
            let reply = client.restore_volume(pool, volume, &name).await?;
            context.finish(client, reply, &format!("Restoring {volume}")).await?;
            Ok(())
        }
        VolumeSnapshot::Show { place, name } => {
            let (pool, volume) = custom(&place)?;
            output::yaml::show(&client.volume_snapshot(pool, volume, &name).await?)
        }
    }
}

async fn delete(
    context: &Context,
    client: &Client,
    (pool, volume): (&str, &str),
    name: &str,
) -> anyhow::Result<()> {
    let reply = client.delete_volume_snapshot(pool, volume, name).await?;
    context.finish(client, reply, &format!("Deleting {volume}/{name}")).await?;
    Ok(())
}

async fn exists(client: &Client, (pool, volume): (&str, &str), name: &str) -> anyhow::Result<bool> {
    if name.is_empty() {
        bail!("with --reuse the snapshot's name is needed");
    }
    match client.volume_snapshot(pool, volume, name).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a new snapshot the name of an old one, which goes.
async fn take_the_place(
    context: &Context,
    client: &Client,
    (pool, volume): (&str, &str),
    (new, name): (&str, &str),
) -> anyhow::Result<()> {
    if let Err(error) = delete(context, client, (pool, volume), name).await {
        delete(context, client, (pool, volume), new).await?;
        return Err(error);
    }
    rename(context, client, (pool, volume), (new, name)).await
}

async fn rename(
    context: &Context,
    client: &Client,
    (pool, volume): (&str, &str),
    (old, new): (&str, &str),
) -> anyhow::Result<()> {
    let reply = client.rename_volume_snapshot(pool, volume, old, new).await?;
    context.finish(client, reply, &format!("Renaming {volume}/{old}")).await?;
    Ok(())
}

/// Snapshots as a table.
pub fn rows(snapshots: &[Shown]) -> Table {
    let mut table = Table::new(["NAME", "TAKEN AT", "EXPIRES AT", "DESCRIPTION"]);
    for snapshot in snapshots {
        let name = snapshot.name.split_once('/').map_or(snapshot.name.as_str(), |(_, name)| name);
        table.row([
            name.to_owned(),
            text::time(&snapshot.created_at),
            text::time(snapshot.expires_at.as_deref().unwrap_or_default()),
            snapshot.description.clone(),
        ]);
    }
    table
}
