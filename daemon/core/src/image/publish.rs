//! An image from an instance or a snapshot.

use std::sync::Arc;

use cabin_api::image as api;
use cabin_images::{Compression, TreeSource, pack_metadata, pack_rootfs, pack_unified};
use cabin_storage::VolumeName;
use cabin_store::rows;
use jiff::Timestamp;
use serde_json::Value;

use super::import::{Hints, import, stage};
use crate::backup::chosen_compression;
use crate::{DEFAULT_PROJECT, Error, Host, Op, instance, limits, server, storage};

/// What is to become an image, and how.
#[derive(Debug, Clone)]
pub struct Publication {
    instance: String,
    snapshot: Option<String>,
    compression: Compression,
    split: bool,
    /// Seconds since 1970.
    made_at: i64,
    expires_at: i64,
    properties: rows::Config,
    hints: Hints,
}

/// Reads from a request what is to be published.
///
/// # Errors
/// When there is no such instance or snapshot, it runs, or what is asked makes no sense.
pub fn check_publish(host: &Host, project: &str, post: api::ImagesPost) -> Result<Publication, Error> {
    let text = |key: &str| post.source.get(key).and_then(Value::as_str).unwrap_or_default();
    let named = text("name");
    let (instance, snapshot) = match (text("type"), named.split_once('/')) {
        ("snapshot", Some((instance, snapshot))) => (instance, Some(snapshot)),
        ("snapshot", None) => return Err(Error::invalid("`source.name` must be INSTANCE/SNAPSHOT")),
        (_, None) => (named, None),
        (_, Some(_)) => return Err(Error::invalid("`source.name` must be an instance's name")),
    };
    match snapshot {
        Some(snapshot) => drop(instance::snapshot(host, project, instance, snapshot)?),
        None => check_stopped(host, project, instance)?,
    }
    let split = match post.format.as_str() {
        "" | "unified" => false,
        "split" => true,
        other => {
            let other: String = other.chars().take(40).collect();
            return Err(Error::invalid(format!(
                "`{}` is no form of an image: use unified or split",
                other.escape_debug()
            )));
        }
    };
    let present = host.store().rows::<rows::Image>().list(DEFAULT_PROJECT)?.len();
    limits::one_more("images", present, limits::IMAGES)?;
    let seconds = |time: &str| time.parse::<Timestamp>().map(Timestamp::as_second);
    let expires_at = match instance::expiry(&post.expires_at)?.as_str() {
        "" => 0,
        time => seconds(time).unwrap_or(0).max(0),
    };
    // Whoever builds the same twice says what time it is.
    let made_at = match post.source.get("creation_date") {
        None | Some(Value::Null) => Timestamp::now().as_second(),
        Some(said) => said
            .as_i64()
            .filter(|at| (0..=253_402_300_799).contains(at))
            .ok_or_else(|| Error::invalid("`source.creation_date` must be seconds since 1970"))?,
    };
    Ok(Publication {
        instance: instance.to_owned(),
        snapshot: snapshot.map(str::to_owned),
        compression: chosen_compression(host, server::IMAGES_COMPRESSION, &post.compression_algorithm)?,
        split,
        made_at,
        expires_at,
        properties: post.properties.0.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
        hints: Hints {
            public: post.public,
            filename: post.filename,
            aliases: post.aliases,
            profiles: post.profiles,
            ..Hints::default()
        },
    })
}

fn check_stopped(host: &Host, project: &str, name: &str) -> Result<(), Error> {
    if instance::get(host, project, name)?.status_code != cabin_api::StatusCode::Stopped {
        return Err(Error::WrongStatus { name: name.to_owned(), action: "publish", status: "running" });
    }
    Ok(())
}

/// Makes the image.
///
/// # Errors
/// As [`check_publish`]; when the same image is there already, an alias is taken, or the host refuses.
pub fn publish(host: &Arc<Host>, op: &Op, project: &str, what: Publication) -> Result<api::Image, Error> {
    let mut staging = stage(host)?;
    {
        let _turn = instance::turn(host, project, &what.instance, "publish")?;
        let row = instance::load(host, project, &what.instance)?.row;
        let pool = storage::pool(host, &row.pool)?;
        let volume = VolumeName::container(&what.instance)?;
        let (layers, config) = match &what.snapshot {
            Some(snapshot) => {
                let found = instance::load_snapshot(host, project, &what.instance, snapshot)?;
                (pool.snapshot_layers(&volume, snapshot)?, found.row.config)
            }
            None => {
                check_stopped(host, project, &what.instance)?;
                (pool.layers(&volume)?, row.config.clone())
            }
        };
        let templates = host.store().rows::<rows::Templates>().get(project, &what.instance)?;
        let templates = templates.map(|found| found.row).unwrap_or_default();
        let row = rows::Instance { config, ..row };
        let mut metadata = instance::metadata(&row, templates, what.made_at);
        metadata.expiry_date = what.expires_at;
        metadata.properties.extend(what.properties.clone());
        op.progress("create_image_from_container_pack_progress", "Image pack".to_owned());
        pack(&mut staging, &crate::backup::source(layers), &metadata, what.compression, what.split)?;
    }
    import(host, op, &staging, what.hints)
}

fn pack(
    staging: &mut super::Staging,
    tree: &TreeSource,
    metadata: &cabin_images::Metadata,
    compression: Compression,
    split: bool,
) -> Result<(), Error> {
    let mut meta = staging.meta()?;
    match split {
        false => Ok(pack_unified(tree, metadata, &mut meta, compression)?),
        true => {
            pack_metadata(metadata, &mut meta)?;
            Ok(pack_rootfs(tree, metadata, &mut staging.rootfs()?, compression)?)
        }
    }
}
