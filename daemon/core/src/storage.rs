//! Storage pools as users see them; what a pool does is the storage crate's.

use std::path::PathBuf;
use std::sync::Arc;

use cabin_api::storage as api;
use cabin_api::{ConfigMap, ZERO_TIME};
use cabin_storage::{DiskSpec, DriverKind, Pool, PoolSpec, VolumeName};
use cabin_store::{Versioned, rows};
use cabin_undo::{atomically, fault};
use serde_json::Value;

use crate::{DEFAULT_PROJECT, Error, Host, etag, limits, quota, recover, volume};

const WHAT: &str = "storage pool";

/// The drivers of this version.
pub const DRIVERS: &[(&str, &str)] = &[("overlay", "1"), ("btrfs", "1"), ("dir", "1")];

/// Opens every pool. One that cannot be opened makes only itself unavailable.
///
/// # Errors
/// When the rows cannot be read.
pub(crate) fn open_all(host: &Host) -> Result<(), Error> {
    for found in host.store().rows::<rows::Pool>().list(DEFAULT_PROJECT)? {
        if let Err(error) = pool(host, &found.name) {
            tracing::error!(pool = found.name, error = %error.report(), "storage pool is unavailable");
        }
    }
    Ok(())
}

/// Removes what the directory of pools holds and no row knows, as far as no volume is in it: a daemon died
/// while it made or deleted a pool.
///
/// # Errors
/// When the rows or the directory cannot be read. What cannot be removed is only logged.
pub(crate) fn sweep(host: &Host) -> Result<(), Error> {
    let known = host.store().rows::<rows::Pool>().list(DEFAULT_PROJECT)?;
    for name in host.storage().names_on_disk()? {
        if known.iter().any(|pool| pool.name == name) {
            continue;
        }
        match host.storage().delete_stray(&name) {
            Ok(()) => tracing::info!(pool = name, "a stray pool was removed"),
            Err(error) => {
                let error = Error::from(error);
                tracing::warn!(pool = name, error = %error.report(), "a stray pool was left where it is");
            }
        }
    }
    Ok(())
}

/// Closes every pool, now that nothing uses them: the disks of pools are unmounted, as the host may go down.
pub(crate) fn close(host: &Host) {
    for error in host.storage().close() {
        tracing::warn!(error = %Error::from(error).report(), "a disk of a pool stays mounted");
    }
}

/// An open pool. Whoever is the first to want it since the daemon started has it put right: what an earlier daemon left
/// there halfway is removed before anybody works in it.
///
/// # Errors
/// When there is none of that name, or it cannot be opened now.
pub(crate) fn pool(host: &Host, name: &str) -> Result<Arc<Pool>, Error> {
    let found = load(host, name)?;
    let spec = spec(host, name, &found.row)?;
    let unavailable = |source: cabin_storage::Error| Error::Unavailable {
        what: WHAT,
        name: name.to_owned(),
        source: Box::new(source.into()),
    };
    // Somebody may have deleted it since its row was read.
    let open = || {
        let opened = host.storage().open_pool(&spec).map_err(unavailable);
        opened.or_else(|why| load(host, name).and(Err(why)))
    };
    let mut swept = host.swept_pools.lock();
    if swept.contains(name) {
        drop(swept);
        return open();
    }
    let pool = open()?;
    let undecided = volume::with_old_trees(host, name)?;
    if let Err(error) = pool.sweep_but(&undecided).map_err(Error::from) {
        tracing::warn!(pool = name, error = %error.report(), "what was left halfway in a pool stays there");
    }
    if host.do_pools_come_late() {
        recover::in_late_pool(host, &pool);
    }
    swept.insert(name.to_owned());
    drop(swept);
    if let Err(error) = quota::set_all(host, name) {
        tracing::warn!(pool = name, error = %error.report(), "the limits in a pool are not all set");
    }
    Ok(pool)
}

/// Whether there is a pool of that name, usable or not.
///
/// # Errors
/// When there is none.
pub(crate) fn look_up(host: &Host, name: &str) -> Result<(), Error> {
    load(host, name).map(drop)
}

/// Makes the place of a volume free that is about to come there: what lies in it, though it is not known, is what an
/// earlier one left that could not be removed. A pool may refuse that for a while, and nobody else would try again before
/// the next start of the daemon. The caller has the turn of the volume's name. Whether anything was removed.
///
/// # Errors
/// When it cannot be removed now.
pub(crate) fn clear(
    host: &Host,
    pool: &Pool,
    volume: &VolumeName,
    is_known: impl FnOnce() -> Result<bool, Error>,
) -> Result<bool, Error> {
    if still_there(host, pool, pool.is_free(volume))? || is_known()? {
        return Ok(false);
    }
    still_there(host, pool, pool.delete_with_snapshots(volume))?;
    tracing::info!(what = "volume", name = %volume, pool = pool.name(), "a stray was removed");
    fault::reach("stray in the way removed");
    Ok(true)
}

/// What came of an act in a pool; that the pool is gone when somebody deleted it meanwhile.
fn still_there<T>(host: &Host, of: &Pool, came: cabin_storage::Result<T>) -> Result<T, Error> {
    came.map_err(Error::from).or_else(|why| pool(host, of.name()).and(Err(why)))
}

/// As [`clear`], of the place of a snapshot. The caller has the turn of the volume.
///
/// # Errors
/// As [`clear`].
pub(crate) fn clear_snapshot(
    host: &Host,
    pool: &Pool,
    (volume, snapshot): (&VolumeName, &str),
    is_known: impl FnOnce() -> Result<bool, Error>,
) -> Result<(), Error> {
    if still_there(host, pool, pool.has_snapshot(volume, snapshot))? && !is_known()? {
        still_there(host, pool, pool.delete_snapshot(volume, snapshot))?;
        tracing::info!(what = "snapshot", name = %volume, snapshot, pool = pool.name(), "a stray was removed");
        fault::reach("stray in the way removed");
    }
    Ok(())
}

fn load(host: &Host, name: &str) -> Result<Versioned<rows::Pool>, Error> {
    let found = host.store().rows::<rows::Pool>().get(DEFAULT_PROJECT, name)?;
    found.ok_or_else(|| Error::not_found(WHAT, name))
}

pub(crate) fn spec(host: &Host, name: &str, row: &rows::Pool) -> Result<PoolSpec, Error> {
    let Some(driver) = DriverKind::from_name(&row.driver) else {
        let reason = "the drivers of this version are `overlay`, `btrfs` and `dir`";
        return Err(Error::Unsupported { what: format!("storage driver `{}`", row.driver), reason });
    };
    let own = host.storage().default_source(name);
    let source = match row.config.get("source") {
        Some(source) if !source.is_empty() => PathBuf::from(source),
        _ => own.clone(),
    };
    if driver != DriverKind::Btrfs || source != host.storage().disk_file(name) {
        return Ok(PoolSpec { name: name.to_owned(), driver, source, disk: None });
    }
    let size = row.config.get("size").map_or(Ok(0), |size| cabin_profiles::value::size::bytes(size))?;
    let options = cabin_profiles::mount_options(&row.config).map_err(Error::invalid)?;
    Ok(PoolSpec { name: name.to_owned(), driver, source: own, disk: Some(DiskSpec { size, options }) })
}

/// Decides where a new btrfs pool lies: in a directory that is given, in one of the daemon's own when that is on
/// btrfs, or on a disk that is made.
fn settle(host: &Host, name: &str, row: &mut rows::Pool) -> Result<(), Error> {
    if row.driver != "btrfs" {
        return Ok(());
    }
    let set = |key: &str| row.config.get(key).is_some_and(|value| !value.is_empty());
    let on_btrfs =
        cabin_sys::btrfs::is_btrfs(host.dir()).map_err(Error::io("look at the daemon's directory"))?;
    let disk = !set("source") && (set("size") || !on_btrfs);
    if !disk && (set("size") || set("btrfs.mount_options")) {
        let only =
            "`size` and `btrfs.mount_options` are for a disk that is made: with a `source` there is none";
        return Err(Error::invalid(only));
    }
    if let Some(source) = row.config.get("source").filter(|_| !disk)
        && rustix::fs::stat(source.as_str())
            .is_ok_and(|seen| rustix::fs::FileType::from_raw_mode(seen.st_mode).is_block_device())
    {
        let reason = "make a btrfs on it, mount it, and give the directory as `source`";
        return Err(Error::Unsupported { what: format!("the block device `{source}` as a pool"), reason });
    }
    if disk {
        if !set("size") {
            row.config.insert("size".to_owned(), format!("{}B", host.storage().default_disk_size()?));
        }
        let file = host.storage().disk_file(name).display().to_string();
        row.config.insert("source".to_owned(), file);
    }
    Ok(())
}

fn used_by(host: &Host) -> Result<Vec<(String, String)>, Error> {
    let mut used = Vec::new();
    for found in host.store().rows::<rows::Instance>().all()? {
        used.push((found.row.pool, format!("/1.0/instances/{}", found.name)));
    }
    for found in host.store().rows::<rows::Volume>().all()? {
        if let Some((pool, volume)) = found.name.split_once('/') {
            used.push((pool.to_owned(), format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}")));
        }
    }
    for found in host.store().rows::<rows::Profile>().all()? {
        for device in
            found.row.devices.values().filter(|device| device.get("type").is_some_and(|t| t == "disk"))
        {
            if let Some(pool) = device.get("pool") {
                used.push((pool.clone(), format!("/1.0/profiles/{}", found.name)));
            }
        }
    }
    Ok(used)
}

fn render(host: &Host, found: Versioned<rows::Pool>, used: &[(String, String)]) -> api::Pool {
    let mut config = found.row.config.clone();
    let mut status = "Unavailable";
    if let Ok(spec) = spec(host, &found.name, &found.row) {
        let disk = spec.disk.as_ref().map(|_| host.storage().disk_file(&found.name));
        config.insert("source".to_owned(), disk.unwrap_or_else(|| spec.source.clone()).display().to_string());
        if host.storage().open_pool(&spec).is_ok() {
            status = "Created";
        }
    }
    api::Pool {
        config: ConfigMap(config),
        description: found.row.description,
        driver: found.row.driver,
        used_by: used.iter().filter(|(pool, _)| *pool == found.name).map(|(_, user)| user.clone()).collect(),
        name: found.name,
        status: status.to_owned(),
        locations: vec!["none".to_owned()],
    }
}

/// Every pool.
///
/// # Errors
/// When the rows cannot be read.
pub fn list(host: &Host) -> Result<Vec<api::Pool>, Error> {
    let used = used_by(host)?;
    let found = host.store().rows::<rows::Pool>().list(DEFAULT_PROJECT)?;
    Ok(found.into_iter().map(|pool| render(host, pool, &used)).collect())
}

/// One pool.
///
/// # Errors
/// When there is none of that name.
pub fn get(host: &Host, name: &str) -> Result<api::Pool, Error> {
    Ok(render(host, load(host, name)?, &used_by(host)?))
}

/// The tag of what PUT changes.
#[must_use]
pub fn tag(pool: &api::Pool) -> String {
    etag::etag(&(&pool.name, &pool.driver, &pool.description, &pool.config))
}

/// Makes a pool.
///
/// # Errors
/// For a bad or taken name, an unknown driver or key, or when the host refuses.
pub fn create(host: &Host, post: api::PoolsPost) -> Result<(), Error> {
    cabin_profiles::value::name::object(&post.name)?;
    let config = post.config.given();
    cabin_profiles::validate_pool(&post.driver, &config)?;
    let _alone = host.change_layout();
    let present = host.store().rows::<rows::Pool>().list(DEFAULT_PROJECT)?;
    if present.iter().any(|pool| pool.name == post.name) {
        return Err(Error::Exists { what: WHAT, name: post.name });
    }
    limits::one_more("storage pools", present.len(), limits::POOLS)?;
    let mut row = rows::Pool { description: post.description, driver: post.driver, config };
    settle(host, &post.name, &mut row)?;
    let spec = spec(host, &post.name, &row)?;
    atomically(|undo| -> Result<(), Error> {
        host.storage().create_pool(&spec, undo)?;
        host.store().begin().insert(DEFAULT_PROJECT, &post.name, &row)?.commit()?;
        Ok(())
    })?;
    let address = format!("/1.0/storage-pools/{}", post.name);
    host.events().lifecycle(DEFAULT_PROJECT, "storage-pool-created", &address, &post.name, Value::Null, None);
    Ok(())
}

/// Changes a pool's description and config; where it lies cannot be changed.
///
/// # Errors
/// When there is none, somebody else changed it, or the config makes no sense.
pub fn update(host: &Host, name: &str, put: api::ConfigPut, if_match: Option<&str>) -> Result<(), Error> {
    replace(host, name, if_match, |_| Ok(put))
}

fn replace(
    host: &Host,
    name: &str,
    if_match: Option<&str>,
    new: impl FnOnce(rows::Pool) -> Result<api::ConfigPut, Error>,
) -> Result<(), Error> {
    let _alone = host.change_layout();
    let old = load(host, name)?;
    let revision = old.revision;
    let shown = render(host, old.clone(), &[]);
    etag::check(WHAT, name, &tag(&shown), if_match)?;
    let put = new(old.row.clone())?;
    let (driver, mut config) = (old.row.driver.clone(), put.config.given());
    let sent = config.remove("source").unwrap_or_default();
    if !sent.is_empty() && shown.config.0.get("source") != Some(&sent) {
        return Err(Error::invalid(format!("the source of storage pool `{name}` cannot be changed")));
    }
    cabin_profiles::validate_pool(&driver, &config)?;
    if let Some(source) = old.row.config.get("source") {
        config.insert("source".to_owned(), source.clone());
    }
    if let Some(size) = old.row.config.get("size").filter(|_| !config.contains_key("size")) {
        // A disk has a size, and keeps it.
        config.insert("size".to_owned(), size.clone());
    }
    let row = rows::Pool { description: put.description, driver, config };
    let spec = spec(host, name, &row)?;
    if spec.disk.is_none() && row.config.contains_key("size") {
        return Err(Error::invalid(format!(
            "storage pool `{name}` has no disk of its own, and so no `size`"
        )));
    }
    host.storage().check_growth(&spec)?;
    host.store().begin().update(DEFAULT_PROJECT, name, revision, &row)?.commit()?;
    // Cut short here, it is finished when the disk is mounted the next time.
    let grown = host.storage().grow_pool(&spec);
    let address = format!("/1.0/storage-pools/{name}");
    host.events().lifecycle(DEFAULT_PROJECT, "storage-pool-updated", &address, name, Value::Null, None);
    grown.map_err(|source| Error::LeftBehind {
        left: format!("the new size of the disk of storage pool `{name}`, which is changed"),
        source: Box::new(source.into()),
    })
}

/// Merges into a pool's config.
///
/// # Errors
/// As [`update`].
pub fn patch(host: &Host, name: &str, body: Value, if_match: Option<&str>) -> Result<(), Error> {
    replace(host, name, if_match, |old| crate::network::merged(old.config, old.description, body))
}

/// Deletes an unused pool.
///
/// # Errors
/// When there is none, it is in use, or the host refuses. When only its directories cannot be removed the
/// pool is gone and the error names them; the next start tries again.
pub fn delete(host: &Host, name: &str) -> Result<(), Error> {
    // An image that is being unpacked into it would be left in a directory that is no pool any more.
    let _none_unpacked = host.unpacking.lock();
    let _alone = host.change_layout();
    let old = load(host, name)?;
    if let Some((_, by)) = used_by(host)?.into_iter().find(|(pool, _)| pool == name) {
        return Err(Error::InUse { what: WHAT, name: name.to_owned(), by });
    }
    let spec = spec(host, name, &old.row)?;
    if let Ok(pool) = host.storage().open_pool(&spec)
        && let Some(volume) = pool.list()?.first()
    {
        return Err(Error::InUse { what: WHAT, name: name.to_owned(), by: format!("volume {volume}") });
    }
    // The row first: half a pool would be one that cannot be used and cannot be put right.
    host.store()
        .begin()
        .check::<rows::Pool>(DEFAULT_PROJECT, name, Some(old.revision))
        .remove::<rows::Pool>(DEFAULT_PROJECT, name)
        .commit()?;
    let removed = host.storage().delete_pool(&spec);
    let address = format!("/1.0/storage-pools/{name}");
    host.warnings().forget(&address);
    host.events().lifecycle(DEFAULT_PROJECT, "storage-pool-deleted", &address, name, Value::Null, None);
    removed.map_err(|source| Error::LeftBehind {
        left: format!("the directory of storage pool `{name}`, which is deleted"),
        source: Box::new(source.into()),
    })
}

/// What a pool has left.
///
/// # Errors
/// When there is none, or it is unavailable.
pub fn resources(host: &Host, name: &str) -> Result<api::PoolResources, Error> {
    let found = pool(host, name)?.resources()?;
    Ok(api::PoolResources {
        space: api::Usage { used: found.space_used, total: found.space_total },
        inodes: api::Usage { used: found.inodes_used, total: found.inodes_total },
    })
}

/// The volumes of a pool, of one kind (`container`, `image`) or all.
///
/// # Errors
/// When there is no such pool, or it is unavailable.
pub fn volumes(host: &Host, name: &str, kind: Option<&str>) -> Result<Vec<api::Volume>, Error> {
    let pool = pool(host, name)?;
    let mut found = Vec::new();
    if kind.is_none_or(|kind| kind == "container") {
        for instance in host.store().rows::<rows::Instance>().list(DEFAULT_PROJECT)? {
            if instance.row.pool == name {
                found.push(volume::render_own(instance.name, &instance.row));
            }
        }
    }
    if kind.is_none_or(|kind| kind == "custom") {
        found.extend(crate::volume::list(host, DEFAULT_PROJECT, name)?);
    }
    if kind.is_none_or(|kind| kind == "image") {
        for image in pool.list_images()? {
            let user = format!("/1.0/images/{image}");
            found.push(image_volume(image, user));
        }
    }
    Ok(found)
}

/// The volume of an image.
///
/// # Errors
/// When the pool holds no such image, or is unavailable.
pub fn volume_of_image(host: &Host, pool: &str, name: &str) -> Result<api::Volume, Error> {
    volumes(host, pool, Some("image"))?
        .into_iter()
        .find(|volume| volume.name == name)
        .ok_or_else(|| Error::not_found("storage volume", name))
}

fn image_volume(name: String, user: String) -> api::Volume {
    api::Volume {
        config: ConfigMap::default(),
        description: String::new(),
        name,
        kind: "image".to_owned(),
        used_by: vec![user],
        location: "none".to_owned(),
        content_type: "filesystem".to_owned(),
        project: DEFAULT_PROJECT.to_owned(),
        created_at: ZERO_TIME.to_owned(),
    }
}
