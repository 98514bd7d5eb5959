//! Backups that are kept by the daemon until they are fetched, deleted, or their time is over.
//!
//! The files lie in `backups/` under names made up for them; whose they are, the rows say.

use std::fs::File;
use std::sync::Arc;

use cabin_api::ZERO_TIME;
use cabin_api::backup::{InstanceBackup, InstanceBackupsPost};
use cabin_store::{Transaction, Versioned, rows};
use cabin_undo::{atomically, fault};
use serde_json::Value;

use super::{check_export, check_form, export};
use crate::instance::load;
use crate::instance::snapshot::{expiry, of_instance, row_name};
use crate::{DEFAULT_PROJECT, Error, Host, Op, clock, limits};

const WHAT: &str = "backup";
const DIRECTORY: &str = "backups";

fn path(file: &str) -> String {
    format!("{DIRECTORY}/{file}")
}

fn address(instance: &str, backup: &str) -> String {
    format!("/1.0/instances/{instance}/backups/{backup}")
}

/// The rows of an instance's backups, oldest first. Their names are the backups' own.
pub(in crate::instance) fn rows_of(
    host: &Host,
    project: &str,
    instance: &str,
) -> Result<Vec<Versioned<rows::Backup>>, Error> {
    let mut found = host.store().rows::<rows::Backup>().list_from(project, &row_name(instance, ""))?;
    for backup in &mut found {
        if let Some((_, name)) = backup.name.split_once('/') {
            backup.name = name.to_owned();
        }
    }
    in_order(&mut found);
    Ok(found)
}

fn in_order(found: &mut [Versioned<rows::Backup>]) {
    found.sort_by(|a, b| (&a.row.created_at, &a.name).cmp(&(&b.row.created_at, &b.name)));
}

/// The rows of every instance's backups, each with its instance's name; those of one instance the oldest first.
pub(in crate::instance) fn all_rows(
    host: &Host,
    project: &str,
) -> Result<Vec<(String, Versioned<rows::Backup>)>, Error> {
    let mut found = host.store().rows::<rows::Backup>().list(project)?;
    in_order(&mut found);
    Ok(found.into_iter().filter_map(of_instance).collect())
}

/// Rows of backups as they are shown.
pub(in crate::instance) fn rendered(found: Vec<Versioned<rows::Backup>>) -> Vec<InstanceBackup> {
    found.into_iter().map(|found| render(found.name, found.row)).collect()
}

fn load_backup(
    host: &Host,
    project: &str,
    instance: &str,
    name: &str,
) -> Result<Versioned<rows::Backup>, Error> {
    load(host, project, instance)?;
    let found = host.store().rows::<rows::Backup>().get(project, &row_name(instance, name))?;
    found.ok_or_else(|| Error::not_found(WHAT, row_name(instance, name)))
}

fn render(name: String, row: rows::Backup) -> InstanceBackup {
    InstanceBackup {
        name,
        created_at: row.created_at,
        expires_at: if row.expires_at.is_empty() { ZERO_TIME.to_owned() } else { row.expires_at },
        instance_only: row.instance_only,
        container_only: row.instance_only,
        optimized_storage: row.optimized,
    }
}

/// The backups of an instance, oldest first.
///
/// # Errors
/// When there is no such instance.
pub fn backups(host: &Host, project: &str, instance: &str) -> Result<Vec<InstanceBackup>, Error> {
    load(host, project, instance)?;
    Ok(rendered(rows_of(host, project, instance)?))
}

/// One backup.
///
/// # Errors
/// When there is none of that name.
pub fn backup(host: &Host, project: &str, instance: &str, name: &str) -> Result<InstanceBackup, Error> {
    Ok(render(name.to_owned(), load_backup(host, project, instance, name)?.row))
}

/// The file of a backup, and a name for it.
///
/// # Errors
/// When there is none of that name, or it cannot be read.
pub fn open_backup(host: &Host, project: &str, instance: &str, name: &str) -> Result<(File, String), Error> {
    let row = load_backup(host, project, instance, name)?.row;
    let file = host.dir().open_file(&path(&row.file)).map_err(Error::io("open the backup's file"))?;
    let ending = row.file.find('.').and_then(|dot| row.file.get(dot..)).unwrap_or_default();
    tell(host, None, "instance-backup-retrieved", project, instance, name);
    Ok((file, format!("{instance}-{name}{ending}")))
}

/// Refuses at once what can be seen to fail, and makes up a name when there is none.
///
/// # Errors
/// When there is no such instance, the name is bad or taken, or what is asked is not supported.
pub fn check_new_backup(
    host: &Host,
    project: &str,
    instance: &str,
    post: &mut InstanceBackupsPost,
) -> Result<(), Error> {
    load(host, project, instance)?;
    check_export(post)?;
    check_form(host, project, instance, post)?;
    expiry(&post.expires_at)?;
    let present = rows_of(host, project, instance)?;
    if post.name.is_empty() {
        let numbers =
            present.iter().filter_map(|found| found.name.strip_prefix("backup")?.parse::<u32>().ok());
        post.name = format!("backup{}", numbers.max().map_or(0, |highest| highest.saturating_add(1)));
    }
    check_free(&present, instance, &post.name)?;
    limits::one_more("backups of an instance", present.len(), limits::BACKUPS)
}

fn check_free(present: &[Versioned<rows::Backup>], instance: &str, name: &str) -> Result<(), Error> {
    cabin_profiles::value::name::snapshot(name)?;
    match present.iter().any(|found| found.name == name) {
        true => Err(Error::Exists { what: WHAT, name: row_name(instance, name) }),
        false => Ok(()),
    }
}

/// Writes a backup that is kept.
///
/// # Errors
/// As [`check_new_backup`], or when the host refuses.
pub fn create_backup(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    instance: &str,
    post: &InstanceBackupsPost,
) -> Result<(), Error> {
    let expires_at = expiry(&post.expires_at)?;
    let export = export(host, project, instance, post)?;
    let file = format!("{}{}", uuid::Uuid::new_v4(), export.extension());
    let row = rows::Backup {
        created_at: clock::now(),
        expires_at,
        instance_only: post.instance_only || post.container_only,
        optimized: post.optimized_storage,
        file: file.clone(),
    };
    atomically(|undo| -> Result<(), Error> {
        let act = || Error::io("write the backup's file");
        let (again, name) = (host.clone(), path(&file));
        let out = host.dir().create_file(&path(&file), 0o600).map_err(act())?;
        undo.push("file of the backup", move || again.dir().remove_file(&name))?;
        // The instance's turn is held until the row is there: it must not be renamed or deleted in between.
        let turn = export.write(&out)?;
        out.sync_all().map_err(act())?;
        host.dir().open_dir(DIRECTORY).and_then(|dir| dir.sync()).map_err(act())?;
        let committed = host.store().begin().insert(project, &row_name(instance, &post.name), &row)?.commit();
        drop(turn);
        match committed {
            Err(cabin_store::Error::Changed { .. }) => {
                Err(Error::Exists { what: WHAT, name: row_name(instance, &post.name) })
            }
            other => Ok(other.map(drop)?),
        }
    })?;
    tell(host, Some(op), "instance-backup-created", project, instance, &post.name);
    Ok(())
}

fn tell(host: &Host, op: Option<&Op>, action: &str, project: &str, instance: &str, name: &str) {
    let requestor = op.and_then(Op::requestor);
    let (address, name) = (address(instance, name), row_name(instance, name));
    host.events().lifecycle(project, action, &address, &name, Value::Null, requestor);
}

/// Refuses a new name at once when it can be seen to fail.
///
/// # Errors
/// When there is no such backup, or the new name is bad or taken.
pub fn check_rename_backup(
    host: &Host,
    project: &str,
    instance: &str,
    old: &str,
    new: &str,
) -> Result<(), Error> {
    load_backup(host, project, instance, old)?;
    check_free(&rows_of(host, project, instance)?, instance, new)
}

/// Gives a backup another name.
///
/// # Errors
/// As [`check_rename_backup`].
pub fn rename_backup(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    instance: &str,
    old: &str,
    new: &str,
) -> Result<(), Error> {
    let _turn = crate::instance::turn(host, project, instance, "rename a backup")?;
    check_rename_backup(host, project, instance, old, new)?;
    let found = load_backup(host, project, instance, old)?;
    let row = row_name(instance, old);
    let txn = host.store().begin().check::<rows::Backup>(project, &row, Some(found.revision));
    let txn = txn.remove::<rows::Backup>(project, &row);
    match txn.insert(project, &row_name(instance, new), &found.row)?.commit() {
        // Deleted meanwhile: that takes no turn.
        Err(cabin_store::Error::Changed { .. }) => Err(Error::Changed { what: WHAT, name: row }),
        other => Ok(other.map(drop)?),
    }?;
    tell(host, Some(op), "instance-backup-renamed", project, instance, new);
    Ok(())
}

/// The backups of an instance get another name with it.
///
/// # Errors
/// When they cannot be read.
pub(in crate::instance) fn moved<'store>(
    host: &Host,
    project: &str,
    (old, new): (&str, &str),
    mut txn: Transaction<'store>,
) -> Result<Transaction<'store>, Error> {
    for backup in rows_of(host, project, old)? {
        let name = row_name(old, &backup.name);
        txn = txn.check::<rows::Backup>(project, &name, Some(backup.revision));
        txn = txn.remove::<rows::Backup>(project, &name);
        txn = txn.insert(project, &row_name(new, &backup.name), &backup.row)?;
    }
    Ok(txn)
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
    instance: &str,
    name: &str,
) -> Result<(), Error> {
    let found = load_backup(host, project, instance, name)?;
    let row = row_name(instance, name);
    let txn = host.store().begin().check::<rows::Backup>(project, &row, Some(found.revision));
    txn.remove::<rows::Backup>(project, &row).commit()?;
    tell(host, op, "instance-backup-deleted", project, instance, name);
    remove_file(host, &found.row).map_err(|source| Error::LeftBehind {
        left: format!("the file of backup `{name}` of instance `{instance}`, which is deleted"),
        source: Box::new(source),
    })
}

/// Removes the file of a backup whose row is gone. A crash before leaves a stray for the next start.
pub(in crate::instance) fn remove_file(host: &Host, row: &rows::Backup) -> Result<(), Error> {
    fault::behind("file of a backup")?;
    let removed = host.dir().remove_file(&path(&row.file));
    removed.map_err(Error::io("remove the backup's file"))
}

/// Deletes the backups whose time is over.
pub(in crate::instance) fn delete_expired(host: &Arc<Host>, stretch: &crate::clock::Stretch) {
    for found in host.store().rows::<rows::Backup>().list(DEFAULT_PROJECT).unwrap_or_default() {
        let Some((instance, name)) = found.name.split_once('/') else { continue };
        if !stretch.is_over(&found.row.expires_at) {
            continue;
        }
        match delete_backup(host, None, DEFAULT_PROJECT, instance, name) {
            Ok(()) => tracing::info!(backup = found.name, "an expired backup was deleted"),
            Err(error) => {
                tracing::warn!(backup = found.name, error = %error.report(), "an expired backup cannot be deleted");
            }
        }
    }
}

/// Removes files that no row has: what was cut off.
pub(crate) fn sweep(host: &Host) -> Result<(), Error> {
    for stray in strays(host)? {
        host.dir()
            .remove_file(&path(&stray))
            .map_err(Error::io(format!("remove the stray backup `{stray}`")))?;
    }
    Ok(())
}

/// The files of backups that no row has.
fn strays(host: &Host) -> Result<Vec<String>, Error> {
    let known = host.store().rows::<rows::Backup>().list(DEFAULT_PROJECT)?;
    let of_volumes = host.store().rows::<rows::VolumeBackup>().list(DEFAULT_PROJECT)?;
    let listed = host.dir().open_dir(DIRECTORY).and_then(|dir| dir.list());
    let listed = listed.map_err(Error::io("list the backups' files"))?;
    Ok(listed
        .into_iter()
        .map(|entry| entry.name)
        .filter(|file| !known.iter().any(|found| found.row.file == *file))
        .filter(|file| !of_volumes.iter().any(|found| found.row.file == *file))
        .collect())
}
