//! Deleting a volume that nobody uses: the row first, then the tree.

use std::sync::Arc;

use cabin_storage::VolumeName;
use cabin_store::rows;
use cabin_undo::fault;
use serde_json::Value;

use super::create::tell;
use super::kept::{backup_row, backup_rows, remove_file};
use super::{Users, WHAT, alone_with_files, load, row_name, turn};
use crate::{Error, Host, storage};

/// Deletes a volume with its snapshots.
///
/// # Errors
/// When there is none, or an instance or profile uses it. When its tree cannot be removed the volume is gone, and
/// the next start of the daemon removes the rest.
pub fn delete(host: &Arc<Host>, project: &str, pool: &str, volume: &str) -> Result<(), Error> {
    let _turn = turn(host, project, pool, volume, "delete")?;
    let _files = alone_with_files(host, pool, volume, "delete")?;
    let row = row_name(pool, volume);
    let backups = {
        let _alone = host.change_layout();
        let found = load(host, project, pool, volume)?;
        if let Some(by) = Users::of(host, project)?.get(&row).into_iter().next() {
            return Err(Error::InUse { what: WHAT, name: volume.to_owned(), by });
        }
        let mut txn = host
            .store()
            .begin()
            .check::<rows::Volume>(project, &row, Some(found.revision))
            .remove::<rows::Volume>(project, &row);
        let snapshots = host.store().rows::<rows::VolumeSnapshot>().list_from(project, &format!("{row}/"))?;
        for snapshot in &snapshots {
            txn = txn.remove::<rows::VolumeSnapshot>(project, &snapshot.name);
        }
        let backups = backup_rows(host, project, pool, volume)?;
        for backup in &backups {
            txn = txn.remove::<rows::VolumeBackup>(project, &backup_row(pool, volume, &backup.name));
        }
        txn.commit()?;
        backups
    };
    tell(host, project, "storage-volume-deleted", pool, volume, Value::Null);
    let files = backups.iter().map(|backup| remove_file(host, &backup.row)).fold(Ok(()), Result::and);
    let remove = || Ok(storage::pool(host, pool)?.delete_with_snapshots(&VolumeName::custom(volume)?)?);
    let removed = remove().and(files);
    fault::reach("volume's tree removed");
    removed.map_err(|source| Error::LeftBehind {
        left: format!("the files of storage volume `{volume}`, which is deleted"),
        source: Box::new(source),
    })
}
