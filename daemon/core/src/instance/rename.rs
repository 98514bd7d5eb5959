//! `rename`: the tree, the row and the link get another name together.

use std::sync::Arc;

use cabin_storage::VolumeName;
use cabin_store::rows;
use cabin_undo::{atomically, fault};
use serde_json::json;

use super::{WHAT, address, expand, load, place, profiles_of};
use crate::{Error, Host, resolve, storage};

/// Refuses at once what can be seen to fail.
///
/// # Errors
/// As [`rename`], as far as it can be known beforehand.
pub fn check_rename(host: &Host, project: &str, old: &str, new: &str) -> Result<(), Error> {
    load(host, project, old)?;
    cabin_profiles::value::name::instance(new)?;
    if old == new || host.store().rows::<rows::Instance>().get(project, new)?.is_some() {
        return Err(Error::Exists { what: WHAT, name: new.to_owned() });
    }
    if super::status(host, old) != cabin_api::StatusCode::Stopped {
        return Err(Error::WrongStatus { name: old.to_owned(), action: "rename", status: "running" });
    }
    Ok(())
}

/// Gives a stopped instance another name.
///
/// # Errors
/// When there is none, it runs, or the new name is bad or taken.
pub fn rename(host: &Arc<Host>, project: &str, old: &str, new: &str) -> Result<(), Error> {
    check_rename(host, project, old, new)?;
    let _turns = host.busy().take_all(&[old, new], "rename")?;
    super::snapshot::settle(host, project, old)?;
    check_rename(host, project, old, new)?;
    let found = load(host, project, old)?;
    let templates =
        host.store().rows::<rows::Templates>().get(project, old)?.map(|found| found.row).unwrap_or_default();
    let mut row = found.row.clone();
    // Files that carry the name are written anew at the next start; a pending first writing stays so.
    row.config.entry("volatile.apply_template".into()).or_insert("rename".into());
    let pool = storage::pool(host, &row.pool)?;
    let (from, to) = (VolumeName::container(old)?, place::clear(host, project, &pool, new)?);
    atomically(|undo| -> Result<(), Error> {
        // A tree of the new name without a row would be a stray to the next start, and be removed.
        super::intent::note(host, project, old, &rows::Intent::Rename { to: new.to_owned() }, undo)?;
        pool.rename(&from, &to, undo)?;
        super::create::link(host, new, &row.pool, undo)?;
        move_logs(host, old, new, undo)?;
        host.ids().assign(row.ids, new)?;
        let (again, name) = (host.clone(), old.to_owned());
        undo.push("owner of the host ids", move || again.ids().assign(row.ids, &name))?;
        let expanded = expand(&row, &profiles_of(host, project, &row.profiles)?);
        resolve::move_fixed(host, (old, &row, &expanded), (new, &row, &expanded), undo)?;
        let mut txn = host.store().begin();
        for snapshot in super::snapshot::rows_of(host, project, old)? {
            let mut row = snapshot.row;
            // The files in it carry the old name too.
            row.config.entry("volatile.apply_template".into()).or_insert("rename".into());
            txn = txn
                .remove::<rows::Snapshot>(project, &super::snapshot::row_name(old, &snapshot.name))
                .insert(project, &super::snapshot::row_name(new, &snapshot.name), &row)?;
        }
        let txn = super::backup::moved(host, project, (old, new), txn)?
            .check::<rows::Instance>(project, old, Some(found.revision))
            .remove::<rows::Instance>(project, old)
            .remove::<rows::Templates>(project, old)
            .remove::<rows::Intent>(project, old)
            .insert(project, new, &row)?
            .write(project, new, &templates)?;
        match txn.commit() {
            Err(cabin_store::Error::Changed { .. }) => {
                Err(Error::Exists { what: WHAT, name: new.to_owned() })
            }
            other => Ok(other.map(drop)?),
        }
    })?;
    let unlinked = unlink(host, old);
    let context = json!({ "old_name": old });
    host.events().lifecycle(project, "instance-renamed", &address(new), new, context, None);
    unlinked.map_err(|source| Error::LeftBehind {
        left: format!("the link `containers/{old}` of instance `{new}`, which is renamed"),
        source: Box::new(source),
    })
}

/// Removes the link of a name that no instance has any more; the next start of the daemon does it when this fails.
pub(super) fn unlink(host: &Host, name: &str) -> Result<(), Error> {
    fault::behind("link of an instance")?;
    let link = format!("containers/{name}");
    host.dir().remove_file(&link).map_err(Error::io(format!("remove the link `{link}`")))
}

pub(super) fn move_logs(
    host: &Arc<Host>,
    old: &str,
    new: &str,
    undo: &mut cabin_undo::Undo,
) -> Result<(), Error> {
    let (from, to) = (format!("logs/{old}"), format!("logs/{new}"));
    let act = || format!("move `{from}` to `{to}`");
    if !host.dir().exists(&from).map_err(Error::io(act()))? {
        return Ok(());
    }
    host.dir().remove_tree(&to).map_err(Error::io(act()))?;
    host.dir().rename(&from, &to).map_err(Error::io(act()))?;
    let host = host.clone();
    undo.push("logs", move || host.dir().rename(&to, &from))?;
    Ok(())
}

/// Takes back a rename that the daemon did not live to commit; the rows still have the old name.
///
/// # Errors
/// When the pool is unavailable or the disk refuses. What is there under the old name already is success.
pub(crate) fn take_back(host: &Host, old: &str, new: &str, pool: &str) -> Result<(), Error> {
    let pool = storage::pool(host, pool)?;
    pool.take_back_rename(&VolumeName::container(old)?, &VolumeName::container(new)?)?;
    let (moved, logs) = (format!("logs/{new}"), format!("logs/{old}"));
    let failed = || Error::io(format!("move `{moved}` back"));
    if host.dir().exists(&moved).map_err(failed())? && !host.dir().exists(&logs).map_err(failed())? {
        host.dir().rename(&moved, &logs).map_err(failed())?;
    }
    unlink(host, new)
}
