//! Disks other than the root: volumes, paths of the host, memory.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use cabin_profiles::disk::{self, Disk};
use cabin_profiles::value::{number, size};
use cabin_runtime::spec::{DiskSource, DiskSpec};
use cabin_storage::{Layers, VolumeName};
use cabin_store::rows::{self, Config, Devices};
use rustix::fs::{CWD, Mode, OFlags};

use super::is_true;
use crate::{DEFAULT_PROJECT, Error, Host, storage, volume};

/// A disk other than the root, by the device that asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// The device's name in the config.
    pub device: String,
    /// What is mounted where.
    pub spec: DiskSpec,
}

/// The custom volume a device shows: pool and volume.
pub(crate) fn volume_of(device: &Config) -> Option<(&str, &str)> {
    if device.get("type").is_none_or(|kind| kind != "disk") {
        return None;
    }
    match disk::read(device) {
        Ok(Disk::Volume { pool, volume, .. }) => Some((pool, volume)),
        _ => None,
    }
}

/// Refuses disks whose volume is not there.
///
/// # Errors
/// When one names no volume, or a path of the daemon's own.
pub(crate) fn check_disks(host: &Host, devices: &Devices) -> Result<(), Error> {
    for device in devices.values() {
        if let Some((pool, volume)) = volume_of(device) {
            storage::look_up(host, pool)?;
            volume::load(host, DEFAULT_PROJECT, pool, volume)?;
        }
        if let Some(Disk::Host { path }) = host_path(device) {
            refuse_own(host, Path::new(path))?;
        }
    }
    Ok(())
}

/// Refuses a disk that shows a path of the host's which is not there, unless it was so before or need not be there:
/// who mistypes it learns it now and not at the next start.
///
/// # Errors
/// Naming the path.
pub(crate) fn check_paths(host: &Host, before: &Devices, after: &Devices) -> Result<(), Error> {
    for (name, device) in after.iter().filter(|(name, device)| before.get(*name) != Some(device)) {
        if let Some(Disk::Host { path }) = host_path(device) {
            let missing = |error: Error| Error::invalid(format!("device `{name}`: {}", error.report()));
            of_host(host, path, device, Look::Closely).map_err(missing)?;
        }
    }
    Ok(())
}

fn host_path(device: &Config) -> Option<Disk<'_>> {
    if device.get("type").is_none_or(|kind| kind != "disk") {
        return None;
    }
    disk::read(device).ok().filter(|disk| matches!(disk, Disk::Host { .. }))
}

/// The disks of an instance, outer ones before those mounted in them. A path of the host that is not there and
/// not required is left out.
///
/// # Errors
/// When a volume or path is not there, a pool is unavailable, or a volume is on its way to another one or not known to
/// keep its tree.
pub(crate) fn disks(host: &Host, instance: &str, devices: &Devices) -> Result<Vec<Mounted>, Error> {
    all(host, instance, devices, Look::Closely)
}

/// The same of disks that are mounted already: what they show may have gone from the host since.
///
/// # Errors
/// As [`disks`], but for paths of the host.
pub(crate) fn disks_before(host: &Host, instance: &str, devices: &Devices) -> Result<Vec<Mounted>, Error> {
    all(host, instance, devices, Look::Away)
}

/// Whether a path of the host's must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Closely,
    Away,
}

fn all(host: &Host, instance: &str, devices: &Devices, look: Look) -> Result<Vec<Mounted>, Error> {
    let mut found = Vec::new();
    for (name, device) in
        devices.iter().filter(|(_, device)| device.get("type").is_some_and(|kind| kind == "disk"))
    {
        let read = disk::read(device)
            .map_err(|rule| cabin_profiles::Error::Device { device: name.clone(), rule })?;
        let source = match read {
            Disk::Root { .. } => continue,
            Disk::Volume { pool, volume, beneath } => of_volume(host, instance, (pool, volume), beneath)?,
            Disk::Memory => of_memory(device)?,
            Disk::Host { path } => match of_host(host, path, device, look)? {
                Some(source) => source,
                None => continue,
            },
        };
        let path = device.get("path").cloned().unwrap_or_default();
        let spec = DiskSpec { path, source, readonly: is_true(device, "readonly") };
        found.push(Mounted { device: name.clone(), spec });
    }
    found.sort_by_cached_key(|disk| {
        disk.spec.path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    });
    Ok(found)
}

fn of_volume(
    host: &Host,
    instance: &str,
    (pool, name): (&str, &str),
    beneath: Option<&str>,
) -> Result<DiskSource, Error> {
    let row = volume::load(host, DEFAULT_PROJECT, pool, name)?.row;
    volume::refuse_moving(host, pool, name)?;
    volume::refuse_undecided(host, (pool, name), Some(instance))?;
    let root = match storage::pool(host, pool)?.layers(&VolumeName::custom(name)?)? {
        Layers::Dir { path } => path,
        Layers::Overlay { state, .. } => state,
    };
    let shifted = !unmapped(&row);
    Ok(DiskSource::Volume { root, beneath: beneath.map(str::to_owned), shifted })
}

/// Whether the ids on disk of a volume are the host's.
pub(crate) fn unmapped(row: &rows::Volume) -> bool {
    is_true(&row.config, "security.unmapped")
}

fn of_memory(device: &Config) -> Result<DiskSource, Error> {
    let set = |property: &str| device.get(property).filter(|value| !value.is_empty());
    let id = |property: &str| set(property).and_then(|value| value.parse().ok()).unwrap_or(0);
    let mode = set("initial.mode").map(|mode| number::mode(mode)).transpose()?.unwrap_or(0o711);
    let size = set("size").map(|size| size::bytes(size)).transpose()?;
    Ok(DiskSource::Memory { size, uid: id("initial.uid"), gid: id("initial.gid"), mode })
}

fn of_host(host: &Host, path: &str, device: &Config, look: Look) -> Result<Option<DiskSource>, Error> {
    let path = PathBuf::from(path);
    match real_path(&path) {
        _ if look == Look::Away => {}
        Ok(real) => refuse_own(host, &real)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let required = device.get("required").filter(|value| !value.is_empty());
            return match required.is_none() || is_true(device, "required") {
                true => Err(Error::invalid(format!("there is no `{}` on the host", path.display()))),
                false => Ok(None),
            };
        }
        Err(error) => return Err(Error::io(format!("look at `{}`", path.display()))(error)),
    }
    let shifted = device.get("shift").is_none_or(|value| value.is_empty() || is_true(device, "shift"));
    Ok(Some(DiskSource::Host { path, shifted, recursive: is_true(device, "recursive") }))
}

/// Where a path leads, links followed.
fn real_path(path: &Path) -> std::io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let real = rustix::fs::readlink(format!("/proc/self/fd/{}", found.as_raw_fd()), Vec::new())?;
    Ok(PathBuf::from(real.to_string_lossy().into_owned()))
}

/// What is the daemon's own (other instances' files, its database) is no disk of an instance.
fn refuse_own(host: &Host, path: &Path) -> Result<(), Error> {
    let settings = host.settings();
    let mut own = vec![settings.dir.clone(), settings.run_dir.clone()];
    for pool in host.store().rows::<rows::Pool>().list(DEFAULT_PROJECT)? {
        own.extend(storage::spec(host, &pool.name, &pool.row).map(|spec| spec.source));
    }
    // Neither the other way round: all of it would come along.
    match own.iter().any(|own| path.starts_with(own) || own.starts_with(path)) {
        false => Ok(()),
        true => Err(Error::invalid(format!("`{}` holds what is the daemon's own", path.display()))),
    }
}
