//! Backups of volumes that are kept by the daemon until they are fetched, deleted, or their time is over. The files
//! lie where those of instances do.

use std::fs::File;
use std::sync::Arc;

use cabin_api::ZERO_TIME;
use cabin_api::volume::{VolumeBackup, VolumeBackupsPost};
use cabin_store::{Versioned, rows};
use cabin_undo::{atomically, fault};
use serde_json::Value;

use super::backup::{check_new_export, export};
use super::snapshot::commit;
use super::{load, row_name};
use crate::instance::snapshot::create::expiry;
use crate::{DEFAULT_PROJECT, Error, Host, Op, clock, limits};

const WHAT: &str = "backup of a storage volume";
const DIRECTORY: &str = "backups";

fn path(file: &str) -> String {
    format!("{DIRECTORY}/{file}")
}

pub(super) fn backup_row(pool: &str, volume: &str, backup: &str) -> String {
    format!("{pool}/{volume}/{backup}")
}

/// The rows of a volume's backups, oldest first. Their names are the backups' own.
pub(super) fn backup_rows(
    host: &Host,
    project: &str,
    pool: &str,
    volume: &str,
) -> Result<Vec<Versioned<rows::VolumeBackup>>, Error> {
    let beginning = backup_row(pool, volume, "");
    let mut found = host.store().rows::<rows::VolumeBackup>().list_from(project, &beginning)?;
    for backup in &mut found {
        backup.name = backup.name.strip_prefix(&beginning).unwrap_or_default().to_owned();
    }
    found.sort_by(|a, b| (&a.row.created_at, &a.name).cmp(&(&b.row.created_at, &b.name)));
    Ok(found)
}

fn load_backup(
    host: &Host,
    project: &str,
    (pool, volume, name): (&str, &str, &str),
) -> Result<Versioned<rows::VolumeBackup>, Error> {
    load(host, project, pool, volume)?;
    let found = host.store().rows::<rows::VolumeBackup>().get(project, &backup_row(pool, volume, name))?;
    found.ok_or_else(|| Error::not_found(WHAT, row_name(volume, name)))
}

fn render(name: String, row: rows::VolumeBackup) -> VolumeBackup {
    VolumeBackup {
        name,
        created_at: row.created_at,
        expires_at: if row.expires_at.is_empty() { ZERO_TIME.to_owned() } else { row.expires_at },
        volume_only: row.volume_only,
        optimized_storage: row.optimized,
    }
}

/// The backups of a volume, oldest first.
///
/// # Errors
/// When there is no such volume.
pub fn backups(host: &Host, project: &str, pool: &str, volume: &str) -> Result<Vec<VolumeBackup>, Error> {
    load(host, project, pool, volume)?;
    let found = backup_rows(host, project, pool, volume)?;
    Ok(found.into_iter().map(|found| render(found.name, found.row)).collect())
}

/// One backup.
///
/// # Errors
/// When there is none of that name.
pub fn backup(host: &Host, project: &str, named: (&str, &str, &str)) -> Result<VolumeBackup, Error> {
    Ok(render(named.2.to_owned(), load_backup(host, project, named)?.row))
}

/// The file of a backup, and a name for it.
///
/// # Errors
/// When there is none of that name, or it cannot be read.
pub fn open_backup(host: &Host, project: &str, named: (&str, &str, &str)) -> Result<(File, String), Error> {
    let row = load_backup(host, project, named)?.row;
    let file = host.dir().open_file(&path(&row.file)).map_err(Error::io("open the backup's file"))?;
    let ending = row.file.find('.').and_then(|dot| row.file.get(dot..)).unwrap_or_default();
    tell(host, None, project, "storage-volume-backup-retrieved", named);
    Ok((file, format!("{}-{}{ending}", named.1, named.2)))
}

/// Refuses at once what can be seen to fail, and makes up a name when there is none.
///
/// # Errors
/// When there is no such volume, the name is bad or taken, or what is asked is not supported.
pub fn check_new_backup(
    host: &Host,
    project: &str,
    pool: &str,
    volume: &str,
    post: &mut VolumeBackupsPost,
) -> Result<(), Error> {
    load(host, project, pool, volume)?;
    check_new_export(host, pool, volume, post)?;
    expiry(&post.expires_at)?;
    let present = backup_rows(host, project, pool, volume)?;
    if post.name.is_empty() {
        let numbers =
            present.iter().filter_map(|found| found.name.strip_prefix("backup")?.parse::<u32>().ok());
        post.name = format!("backup{}", numbers.max().map_or(0, |highest| highest.saturating_add(1)));
    }
    cabin_profiles::value::name::snapshot(&post.name)?;
    if present.iter().any(|found| found.name == post.name) {
        return Err(Error::Exists { what: WHAT, name: row_name(volume, &post.name) });
    }
    limits::one_more("backups of a volume", present.len(), limits::BACKUPS)
}

/// Writes a backup that is kept.
///
/// # Errors
/// As [`check_new_backup`], or when the host refuses.
pub fn create_backup(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    (pool, volume): (&str, &str),
    post: &VolumeBackupsPost,
) -> Result<(), Error> {
    let expires_at = expiry(&post.expires_at)?;
    let export = export(host, project, pool, volume, post)?;
    let file = format!("{}{}", uuid::Uuid::new_v4(), export.extension());
    let row = rows::VolumeBackup {
        created_at: clock::now(),
        expires_at,
        volume_only: post.volume_only,
        optimized: post.optimized_storage,
        file: file.clone(),
    };
    atomically(|undo| -> Result<(), Error> {
        let act = || Error::io("write the backup's file");
        let (again, name) = (host.clone(), path(&file));
        let out = host.dir().create_file(&path(&file), 0o600).map_err(act())?;
        undo.push("file of the backup", move || again.dir().remove_file(&name))?;
        // The volume's turn is held until the row is there: it must not be renamed or deleted in between.
        let turn = export.write(&out)?;
        out.sync_all().map_err(act())?;
        host.dir().open_dir(DIRECTORY).and_then(|dir| dir.sync()).map_err(act())?;
        let txn = host.store().begin().insert(project, &backup_row(pool, volume, &post.name), &row)?;
        let committed = commit(txn, || Error::Exists { what: WHAT, name: row_name(volume, &post.name) });
        drop(turn);
        committed
    })?;
    tell(host, Some(op), project, "storage-volume-backup-created", (pool, volume, &post.name));
    Ok(())
}

/// Deletes a backup.
///
/// # Errors
/// When there is none of that name, or the host refuses. When its file cannot be removed the backup is gone, and the next
/// start of the daemon removes the rest.
pub fn delete_backup(
    host: &Arc<Host>,
    op: Option<&Op>,
    project: &str,
    named: (&str, &str, &str),
) -> Result<(), Error> {
    let found = load_backup(host, project, named)?;
    let row = backup_row(named.0, named.1, named.2);
    let txn = host.store().begin().check::<rows::VolumeBackup>(project, &row, Some(found.revision));
    txn.remove::<rows::VolumeBackup>(project, &row).commit()?;
    tell(host, op, project, "storage-volume-backup-deleted", named);
    remove_file(host, &found.row).map_err(|source| Error::LeftBehind {
        left: format!("the file of backup `{}` of storage volume `{}`, which is deleted", named.2, named.1),
        source: Box::new(source),
    })
}

/// Refuses a new name at once when it can be seen to fail.
///
/// # Errors
/// When there is no such backup, or the new name is bad or taken.
pub fn check_rename_backup(
    host: &Host,
    project: &str,
    named: (&str, &str, &str),
    new: &str,
) -> Result<(), Error> {
    load_backup(host, project, named)?;
    cabin_profiles::value::name::snapshot(new)?;
    match host.store().rows::<rows::VolumeBackup>().get(project, &backup_row(named.0, named.1, new))? {
        Some(_) => Err(Error::Exists { what: WHAT, name: row_name(named.1, new) }),
        None => Ok(()),
    }
}

/// Gives a backup another name.
///
/// # Errors
/// As [`check_rename_backup`].
pub fn rename_backup(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    named: (&str, &str, &str),
    new: &str,
) -> Result<(), Error> {
    let (pool, volume, old) = named;
    let _turn = super::turn(host, project, pool, volume, "rename a backup")?;
    check_rename_backup(host, project, named, new)?;
    let found = load_backup(host, project, named)?;
    let row = backup_row(pool, volume, old);
    let txn = host.store().begin().check::<rows::VolumeBackup>(project, &row, Some(found.revision));
    let txn = txn.remove::<rows::VolumeBackup>(project, &row);
    let txn = txn.insert(project, &backup_row(pool, volume, new), &found.row)?;
    // Deleted meanwhile: that takes no turn.
    commit(txn, || Error::Changed { what: WHAT, name: row })?;
    tell(host, Some(op), project, "storage-volume-backup-renamed", (pool, volume, new));
    Ok(())
}

/// Removes the file of a backup whose row is gone. A crash before leaves a stray for the next start.
pub(super) fn remove_file(host: &Host, row: &rows::VolumeBackup) -> Result<(), Error> {
    fault::behind("file of a volume's backup")?;
    let removed = host.dir().remove_file(&path(&row.file));
    removed.map_err(Error::io("remove the backup's file"))
}

/// Deletes the backups whose time is over.
pub(super) fn delete_expired(host: &Arc<Host>, stretch: &crate::clock::Stretch) {
    for found in host.store().rows::<rows::VolumeBackup>().list(DEFAULT_PROJECT).unwrap_or_default() {
        let mut parts = found.name.splitn(3, '/');
        let (Some(pool), Some(volume), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if !stretch.is_over(&found.row.expires_at) {
            continue;
        }
        if let Err(error) = delete_backup(host, None, DEFAULT_PROJECT, (pool, volume, name)) {
            tracing::warn!(backup = found.name, error = %error.report(), "an expired backup cannot be deleted");
        }
    }
}

fn tell(
    host: &Host,
    op: Option<&Op>,
    project: &str,
    action: &str,
    (pool, volume, backup): (&str, &str, &str),
) {
    let address = format!("{}/backups/{backup}", super::address(pool, volume));
    let requestor = op.and_then(Op::requestor);
    host.events().lifecycle(project, action, &address, &row_name(volume, backup), Value::Null, requestor);
}
