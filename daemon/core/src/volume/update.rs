//! Changing what a volume is described and configured by.

use std::sync::Arc;

use cabin_api::volume::VolumePut;
use cabin_storage::VolumeName;
use cabin_store::rows::{self, Config};
use cabin_undo::atomically;
use serde_json::Value;

use super::create::{limit_of, refuse_size, tell};
use super::snapshot::commit;
use super::{WHAT, get, load, row_name, tag, turn};
use crate::{Error, Host, etag, storage};

/// Keys that count only when a volume is made, or that cannot change while it is mounted.
const FIXED: &[&str] = &["initial.uid", "initial.gid", "initial.mode"];

/// Replaces description and config.
///
/// # Errors
/// When there is none, somebody else changed it, or the config makes no sense.
pub fn update(
    host: &Arc<Host>,
    project: &str,
    pool: &str,
    volume: &str,
    put: VolumePut,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let _turn = turn(host, project, pool, volume, "update")?;
    change(host, project, pool, volume, put, if_match)
}

fn change(
    host: &Arc<Host>,
    project: &str,
    pool: &str,
    volume: &str,
    put: VolumePut,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let _alone = host.change_layout();
    let shown = get(host, project, pool, volume)?;
    etag::check(WHAT, volume, &tag(&shown), if_match)?;
    let old = load(host, project, pool, volume)?;
    let config = put.config.given();
    cabin_profiles::validate_volume(&config)?;
    refuse_size(host, pool, &config)?;
    for key in FIXED {
        if config.get(*key) != old.row.config.get(*key) {
            return Err(Error::invalid(format!("`{key}` counts only when a volume is made")));
        }
    }
    if config.get("security.unmapped") != old.row.config.get("security.unmapped") && !shown.used_by.is_empty()
    {
        return Err(Error::invalid(format!(
            "`security.unmapped` of storage volume `{volume}` cannot be changed while something uses it"
        )));
    }
    let (before, after) = (limit_of(&old.row.config)?, limit_of(&config)?);
    let row = rows::Volume { description: put.description, config, ..old.row };
    atomically(|undo| -> Result<(), Error> {
        if before != after {
            let (disk, name) = (storage::pool(host, pool)?, VolumeName::custom(volume)?);
            let (again, same) = (disk.clone(), name.clone());
            undo.push(format!("limit of {name}"), move || again.limit(&same, before))?;
            disk.limit(&name, after)?;
        }
        let txn = host.store().begin().update(project, &row_name(pool, volume), old.revision, &row)?;
        commit(txn, || Error::Changed { what: WHAT, name: volume.to_owned() })
    })?;
    tell(host, project, "storage-volume-updated", pool, volume, Value::Null);
    Ok(())
}

/// Merges a body into description and config.
///
/// # Errors
/// As [`update`].
pub fn patch(
    host: &Arc<Host>,
    project: &str,
    pool: &str,
    volume: &str,
    body: Value,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let _turn = turn(host, project, pool, volume, "update")?;
    let old = load(host, project, pool, volume)?.row;
    let put = VolumePut { restore: String::new(), ..merged(old.config, old.description, body)? };
    change(host, project, pool, volume, put, if_match)
}

/// What a PATCH makes of a config and a description.
pub(super) fn merged(mut config: Config, description: String, body: Value) -> Result<VolumePut, Error> {
    let named = body.get("description").is_some();
    let sent: VolumePut = serde_json::from_value(body).map_err(|source| Error::Body { source })?;
    config.extend(sent.config.0);
    let description = if named { sent.description } else { description };
    Ok(VolumePut { config: cabin_api::ConfigMap(config), description, restore: sent.restore })
}
