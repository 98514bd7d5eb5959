//! `storage volume`: the parts with verbs of their own have files of their own.

mod attach;
mod file;
mod snapshot;

use anyhow::{Context as _, bail};
use cabin_api::storage::Volume as Shown;
use cabin_api::volume::{VolumeBackupsPost, VolumePost, VolumeSource, VolumesPost};
use cabin_client::{Client, Sent};
use serde_json::{Value, json};

use super::object::{Part, Target};
use super::{Context, backup};
use crate::cli::volume::{Place, Volume};
use crate::output::{self, Table, table, text};
use crate::{remote, words};

const ORDER: &[&str] = &[
    "config",
    "description",
    "name",
    "type",
    "used_by",
    "location",
    "content_type",
    "project",
    "created_at",
];

/// `storage volume`.
pub async fn run(context: &Context, command: Volume) -> anyhow::Result<()> {
    let client = &context.client().await?;
    match command {
        Volume::Attach { place, instance, device, create } => {
            attach::to_instance(context, client, &place, &instance, &device, create).await
        }
        Volume::AttachProfile { place, profile, device } => {
            attach::to_profile(context, client, &place, &profile, &device).await
        }
        Volume::Detach { place, instance, device } => {
            attach::from(context, client, Target::instance(&instance)?, &place, device.as_deref()).await
        }
        Volume::DetachProfile { place, profile, device } => {
            attach::from(context, client, Target::profile(&profile)?, &place, device.as_deref()).await
        }
        Volume::Copy { source, target, volume_only, refresh, refresh_exclude_older } => {
            let refresh = (refresh, refresh_exclude_older);
            copy(context, client, &source, &target, volume_only, refresh).await
        }
        Volume::Create { pool, volume, config, description, kind } => {
            let yaml = words::piped_yaml()?;
            let mut post: VolumesPost = serde_json::from_value(Value::Object(output::yaml::parse(&yaml)?))?;
            post.name.clone_from(&volume);
            post.content_type = kind;
            post.config.0.extend(words::pairs(&config)?);
            post.description = description.unwrap_or(post.description);
            create(context, client, remote::local(&pool)?, &post).await
        }
        Volume::Delete(place) => {
            let (pool, volume) = custom(&place)?;
            let reply = client.delete_volume(pool, volume).await?;
            context.finish(client, reply, &format!("Deleting {volume}")).await?;
            output::line(format!("Storage volume {volume} deleted"))?;
            Ok(())
        }
        Volume::Export { place, target, volume_only, compression, optimized_storage } => {
            let (pool, volume) = custom(&place)?;
            backup::refuse_present(target.as_deref())?;
            let post = VolumeBackupsPost {
                volume_only,
                optimized_storage,
                compression_algorithm: backup::compression(compression.as_deref(), target.as_deref()),
                ..VolumeBackupsPost::default()
            };
            let download = client.export_volume(pool, volume, &post).await?;
            backup::save(context, download, target.as_deref(), volume).await
        }
        Volume::Import { pool, file, name } => {
            let (source, size) = backup::open(&file)?;
            let (sent, shown) = (Sent::default(), file.display().to_string());
            let name = name.unwrap_or_default();
            let work = client.import_volume(source, remote::local(&pool)?, &name, size, &sent);
            let reply = backup::watched(context, &shown, size, &sent, work).await?;
            context.finish(client, reply, &format!("Importing {shown}")).await?;
            Ok(())
        }
        Volume::File(command) => file::run(context, client, command).await,
        Volume::Info(place) => info(client, &place).await,
        Volume::List { pool, format } => {
            let volumes = client.volumes(remote::local(&pool)?).await?;
            table::show(format.format, &volumes, || rows(&volumes))
        }
        Volume::Move { source, target } => move_to(context, client, &source, &target).await,
        Volume::Rename { place, new } => {
            let (pool, volume) = custom(&place)?;
            rename(context, client, (pool, volume), (pool, &new)).await
        }
        Volume::Snapshot(command) => snapshot::run(context, client, command).await,
        other => change(context, client, other).await,
    }
}

/// What works on a volume as on every other object.
async fn change(context: &Context, client: &Client, command: Volume) -> anyhow::Result<()> {
    match command {
        Volume::Edit(place) => target(&place)?.edit(context, client).await,
        Volume::Get { place, key, property } => {
            target(&place)?.get(client, &key, Part::from_flag(property)).await
        }
        Volume::Set { place, words, property } => {
            let pairs = words::pairs(&words)?;
            target(&place)?.set(context, client, &pairs, Part::from_flag(property)).await
        }
        Volume::Show(place) => target(&place)?.show(client, ORDER).await,
        Volume::Unset { place, keys, property } => {
            target(&place)?.unset(context, client, &keys, Part::from_flag(property)).await
        }
        _ => Ok(()),
    }
}

/// Makes a volume, and says so.
async fn create(context: &Context, client: &Client, pool: &str, post: &VolumesPost) -> anyhow::Result<()> {
    let reply = client.create_volume(pool, post).await?;
    context.finish(client, reply, &format!("Creating {}", post.name)).await?;
    output::line(format!("Storage volume {} created", post.name))?;
    Ok(())
}

/// The type and name in `[TYPE/]VOLUME`.
fn typed(volume: &str) -> (&str, &str) {
    match volume.split_once('/') {
        Some((kind @ ("custom" | "container" | "image"), name)) => (kind, name),
        _ => ("custom", volume),
    }
}

/// The pool and name of a custom volume.
fn custom(place: &Place) -> anyhow::Result<(&str, &str)> {
    match typed(&place.volume) {
        ("custom", name) => Ok((remote::local(&place.pool)?, name)),
        (kind, name) => bail!("`{name}` is of type {kind}: it goes with its {}", owner(kind)),
    }
}

fn owner(kind: &str) -> &'static str {
    if kind == "image" { "image" } else { "instance" }
}

fn target(place: &Place) -> anyhow::Result<Target> {
    let (pool, (kind, name)) = (remote::local(&place.pool)?, typed(&place.volume));
    Ok(match name.split_once('/') {
        Some((volume, snapshot)) => Target::volume_snapshot(pool, kind, volume, snapshot),
        None => Target::volume(pool, kind, name),
    })
}

/// `POOL/VOLUME` taken apart.
fn whole(word: &str) -> anyhow::Result<(&str, &str)> {
    let word = remote::local(word)?;
    word.split_once('/')
        .filter(|(pool, _)| !pool.is_empty())
        .with_context(|| format!("`{word}` is not POOL/VOLUME"))
}

async fn copy(
    context: &Context,
    client: &Client,
    source: &str,
    target: &str,
    volume_only: bool,
    (refresh, exclude_older): (bool, bool),
) -> anyhow::Result<()> {
    let ((from, volume), (pool, name)) = (whole(source)?, whole(target)?);
    let source = VolumeSource {
        name: volume.to_owned(),
        kind: "copy".to_owned(),
        pool: from.to_owned(),
        volume_only,
        refresh,
        refresh_exclude_older: exclude_older,
        project: String::new(),
    };
    let post = VolumesPost { name: name.to_owned(), source, ..VolumesPost::default() };
    let reply = client.create_volume(pool, &post).await?;
    context.finish(client, reply, &format!("Copying {from}/{volume}")).await?;
    output::line("Storage volume copied successfully!")?;
    Ok(())
}

async fn move_to(context: &Context, client: &Client, source: &str, target: &str) -> anyhow::Result<()> {
    rename(context, client, whole(source)?, whole(target)?).await
}

async fn rename(
    context: &Context,
    client: &Client,
    (pool, volume): (&str, &str),
    (new_pool, new): (&str, &str),
) -> anyhow::Result<()> {
    let mut post = VolumePost { name: new.to_owned(), ..VolumePost::default() };
    if new_pool != pool {
        new_pool.clone_into(&mut post.pool);
    }
    let reply = client.move_volume(pool, volume, &post).await?;
    context.finish(client, reply, &format!("Moving {pool}/{volume}")).await?;
    match new_pool == pool {
        true => output::line(format!("Renamed storage volume from \"{volume}\" to \"{new}\""))?,
        false => output::line("Storage volume moved successfully!")?,
    }
    Ok(())
}

fn rows(volumes: &[Shown]) -> Table {
    let mut table = Table::new(["TYPE", "NAME", "DESCRIPTION", "CONTENT-TYPE", "USED BY"]);
    for volume in volumes {
        let kind = if volume.name.contains('/') {
            format!("{} (snapshot)", volume.kind)
        } else {
            volume.kind.clone()
        };
        table.row([
            kind,
            volume.name.clone(),
            volume.description.clone(),
            volume.content_type.clone(),
            volume.used_by.len().to_string(),
        ]);
    }
    table
}

async fn info(client: &Client, place: &Place) -> anyhow::Result<()> {
    let pool = remote::local(&place.pool)?;
    let (kind, name) = typed(&place.volume);
    let volume = client.volume(pool, kind, name).await?.value;
    let state = client.volume_state(pool, kind, name).await?;
    let mut info = json!({
        "Name": volume.name, "Type": volume.kind, "Content type": volume.content_type,
        "Created": text::time(&volume.created_at),
    });
    if !volume.description.is_empty() {
        info["Description"] = json!(volume.description);
    }
    if let Some(usage) = state.usage {
        info["Usage"] = json!(text::size_u64(usage.used));
        if usage.total > 0 {
            info["Total"] = json!(text::size_u64(usage.total));
        }
    }
    if kind == "custom" {
        let snapshots = client.volume_snapshots(pool, name).await?;
        let names = snapshots.iter().filter_map(|snapshot| snapshot.name.split_once('/'));
        info["Snapshots"] = names.map(|(_, name)| name).collect();
    }
    if let Value::Object(info) = info {
        let order =
            &["Name", "Description", "Type", "Content type", "Usage", "Total", "Created", "Snapshots"];
        output::raw(output::yaml::ordered(&info, order)?.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_custom_unless_its_type_is_said() {
        assert_eq!(typed("data"), ("custom", "data"));
        assert_eq!(typed("custom/data"), ("custom", "data"));
        assert_eq!(typed("container/web"), ("container", "web"));
        assert_eq!(typed("data/x"), ("custom", "data/x"));
    }

    #[test]
    fn pool_and_volume_are_one_word_where_both_can_differ() {
        assert_eq!(whole("fast/data").unwrap(), ("fast", "data"));
        assert_eq!(whole("fast/data/snap").unwrap(), ("fast", "data/snap"));
        assert!(whole("data").is_err());
        assert!(whole("/data").is_err());
    }
}
