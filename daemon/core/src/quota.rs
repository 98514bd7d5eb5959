//! How much the root disks of instances and custom volumes may hold: `size`, brought to the pools that can keep it.

use cabin_profiles::value::size;
use cabin_storage::VolumeName;
use cabin_store::rows;
use cabin_undo::Undo;

use crate::instance::Expanded;
use crate::{DEFAULT_PROJECT, Error, Host, storage};

/// The `size` of an instance's root disk, in bytes.
///
/// # Errors
/// When it is none.
pub(crate) fn of_root(expanded: &Expanded) -> Result<Option<u64>, Error> {
    let root = expanded.devices.values().find(|device| {
        device.get("type").is_some_and(|kind| kind == "disk")
            && device.get("path").is_some_and(|path| cabin_profiles::disk::is_root(path))
    });
    of(root.and_then(|root| root.get("size")))
}

/// The `size` of a config.
///
/// # Errors
/// When it is none.
pub(crate) fn of(size: Option<&String>) -> Result<Option<u64>, Error> {
    match size.filter(|size| !size.is_empty()) {
        Some(size) => Ok(Some(size::bytes(size)?)),
        None => Ok(None),
    }
}

/// Refuses a limit that nothing would hold. A pool that is not there now may have any.
///
/// # Errors
/// When the pool keeps no limits.
pub(crate) fn check(host: &Host, pool: &str, size: Option<u64>) -> Result<(), Error> {
    if size.is_none() {
        return Ok(());
    }
    match storage::pool(host, pool).ok().and_then(|found| Some((found.driver(), found.lacks_limits()?))) {
        None => Ok(()),
        Some((driver, reason)) => {
            Err(Error::Unsupported { what: format!("`size` on driver `{}`", driver.name()), reason })
        }
    }
}

/// Sets the limit that the config of an instance says.
///
/// # Errors
/// When the pool is unavailable or refuses.
pub(crate) fn set(host: &Host, pool: &str, volume: &VolumeName, size: Option<u64>) -> Result<(), Error> {
    Ok(storage::pool(host, pool)?.limit(volume, size)?)
}

/// As [`set`], taken back when the rest of the change fails.
///
/// # Errors
/// As [`set`].
pub(crate) fn change(
    host: &Host,
    pool: &str,
    volume: &VolumeName,
    (old, new): (Option<u64>, Option<u64>),
    undo: &mut Undo,
) -> Result<(), Error> {
    if old == new {
        return Ok(());
    }
    let pool = storage::pool(host, pool)?;
    let (again, volume_again) = (pool.clone(), volume.clone());
    undo.push(format!("limit of {volume}"), move || again.limit(&volume_again, old))?;
    Ok(pool.limit(volume, new)?)
}

/// Sets the limits of all that lies in a pool, as the rows say: a daemon may have died between one and the other.
///
/// # Errors
/// When the rows cannot be read. What cannot be set is only logged: one volume that fails must not keep the others.
pub(crate) fn set_all(host: &Host, pool: &str) -> Result<(), Error> {
    if storage::pool(host, pool)?.lacks_limits().is_some() {
        return Ok(());
    }
    let mut wanted = Vec::new();
    for found in host.store().rows::<rows::Instance>().list(DEFAULT_PROJECT)? {
        if found.row.pool == pool {
            let profiles = crate::instance::profiles_of(host, DEFAULT_PROJECT, &found.row.profiles);
            let size = profiles.and_then(|profiles| of_root(&crate::instance::expand(&found.row, &profiles)));
            wanted.push((VolumeName::container(&found.name), size));
        }
    }
    for found in host.store().rows::<rows::Volume>().list(DEFAULT_PROJECT)? {
        if let Some((_, name)) = found.name.split_once('/').filter(|(of, _)| *of == pool) {
            wanted.push((VolumeName::custom(name), of(found.row.config.get("size"))));
        }
    }
    for (volume, size) in wanted {
        let done = volume.map_err(Error::from).and_then(|volume| set(host, pool, &volume, size?));
        if let Err(error) = done {
            tracing::warn!(pool, error = %error.report(), "a limit could not be set");
        }
    }
    Ok(())
}
