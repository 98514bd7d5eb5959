//! Making a volume: empty, with the owner and mode its config asks for.

use std::sync::Arc;

use cabin_api::volume::VolumesPost;
use cabin_profiles::value::{number, size};
use cabin_storage::VolumeName;
use cabin_store::rows::{self, Config};
use cabin_undo::atomically;
use serde_json::Value;

use super::{WHAT, address, busy_name, place, row_name};
use crate::{Error, Host, clock, limits, storage};

/// The mode of a new volume's root: others may pass through, and see nothing.
const MODE: u32 = 0o711;

/// Refuses at once what can be seen to fail.
///
/// # Errors
/// For a bad or taken name, a missing pool, unknown keys, and kinds of volume this version does not have.
pub fn check_new(host: &Host, project: &str, pool: &str, post: &VolumesPost) -> Result<(), Error> {
    storage::look_up(host, pool)?;
    if !matches!(post.kind.as_str(), "" | "custom") {
        return Err(Error::invalid(format!("volumes of type `{}` are not made by themselves", post.kind)));
    }
    if !matches!(post.content_type.as_str(), "" | "filesystem") {
        let reason = "containers have filesystems only";
        return Err(Error::Unsupported { what: format!("content type `{}`", post.content_type), reason });
    }
    check_name(&post.name)?;
    let config = config_of(post);
    cabin_profiles::validate_volume(&config)?;
    refuse_size(host, pool, &config)?;
    let present = host.store().rows::<rows::Volume>().list_from(project, &row_name(pool, ""))?;
    if present.iter().any(|found| found.name == row_name(pool, &post.name)) {
        return Err(Error::Exists { what: WHAT, name: post.name.clone() });
    }
    limits::one_more("volumes of a storage pool", present.len(), limits::VOLUMES)
}

pub(super) fn check_name(name: &str) -> Result<(), Error> {
    cabin_profiles::value::name::object(name)?;
    VolumeName::custom(name)?;
    Ok(())
}

/// A limit that nothing holds is none.
pub(super) fn refuse_size(host: &Host, pool: &str, config: &Config) -> Result<(), Error> {
    if limit_of(config)?.is_none() {
        return Ok(());
    }
    let found = storage::pool(host, pool)?;
    match found.lacks_limits() {
        None => Ok(()),
        Some(reason) => {
            let what = format!("`size` of a volume on driver `{}`", found.driver().name());
            Err(Error::Unsupported { what, reason })
        }
    }
}

/// The most bytes a volume may hold by its config.
pub(super) fn limit_of(config: &Config) -> Result<Option<u64>, Error> {
    let size = config.get("size").filter(|size| !size.is_empty());
    Ok(size.map(|size| size::bytes(size)).transpose()?)
}

/// The config of a new volume: what is empty is not set.
pub(super) fn config_of(post: &VolumesPost) -> Config {
    post.config.clone().given()
}

/// Makes an empty volume. When this returns, it is on disk.
///
/// # Errors
/// As [`check_new`], or when the host refuses.
pub fn create(host: &Arc<Host>, project: &str, pool: &str, post: &VolumesPost) -> Result<(), Error> {
    check_new(host, project, pool, post)?;
    let _turn = host.busy().take(&busy_name(pool, &post.name), "create")?;
    let _kept = host.keep_layout();
    check_new(host, project, pool, post)?;
    let row = rows::Volume {
        description: post.description.clone(),
        config: config_of(post),
        created_at: clock::now(),
    };
    let disk = storage::pool(host, pool)?;
    let volume = place::clear(host, project, &disk, &post.name)?;
    let id = |key: &str| row.config.get(key).and_then(|value| value.parse().ok()).unwrap_or(0);
    let mode = row.config.get("initial.mode").map(|mode| number::mode(mode)).transpose()?.unwrap_or(MODE);
    atomically(|undo| -> Result<(), Error> {
        disk.create_custom(&volume, (id("initial.uid"), id("initial.gid"), mode), undo)?;
        if let Some(bytes) = limit_of(&row.config)? {
            disk.limit(&volume, Some(bytes))?;
        }
        let txn = host.store().begin().insert(project, &row_name(pool, &post.name), &row)?;
        match txn.commit() {
            Err(cabin_store::Error::Changed { .. }) => {
                Err(Error::Exists { what: WHAT, name: post.name.clone() })
            }
            other => Ok(other.map(drop)?),
        }
    })?;
    tell(host, project, "storage-volume-created", pool, &post.name, Value::Null);
    Ok(())
}

/// Says to everybody who listens what became of a volume.
pub(super) fn tell(host: &Host, project: &str, action: &str, pool: &str, volume: &str, context: Value) {
    host.events().lifecycle(project, action, &address(pool, volume), volume, context, None);
}
