//! `move`: an instance goes to another storage pool, and to another name when that is asked too.
//!
//! The trees are made in the new pool, then one commit says that they are the instance's, then the old ones go. A
//! crash before the commit leaves strays there, one after it leaves strays here, and the next start removes either.

use std::sync::Arc;

use cabin_api::StatusCode;
use cabin_api::instance::InstancePost;
use cabin_store::Versioned;
use cabin_store::rows;
use cabin_undo::{atomically, fault};
use serde_json::json;

use super::carry::{self, Load, Target, root_in};
use super::checked::Checked;
use super::create::{check_config, relink};
use super::rename::move_logs;
use super::snapshot::{row_name, rows_of};
use super::{WHAT, address, expand, intent, load, place, profiles, profiles_of, root_pool, status};
use crate::{Error, Host, Op, resolve, storage};

/// Refuses at once what can be seen to fail.
///
/// # Errors
/// As [`relocate`], as far as it can be known beforehand.
pub fn check_relocate(host: &Host, project: &str, old: &str, post: &InstancePost) -> Result<(), Error> {
    let found = load(host, project, old)?;
    let unsupported = |what: &str, reason| Err(Error::Unsupported { what: what.to_owned(), reason });
    if post.target.is_some() {
        return unsupported("a move to another server", "this version moves instances between its own pools");
    }
    if !matches!(post.project.as_str(), "" | crate::DEFAULT_PROJECT) {
        return Err(Error::not_found("project", post.project.clone()));
    }
    if post.pool.is_empty() && post.name.is_empty() {
        let reason = "this version moves instances between its own pools, and no pool was given";
        return unsupported("a move to another server", reason);
    }
    if status(host, old) != StatusCode::Stopped {
        return Err(Error::WrongStatus { name: old.to_owned(), action: "move", status: "running" });
    }
    let new = new_name(old, post);
    if new != old {
        super::check_rename(host, project, old, new)?;
    }
    let row = moved(host, project, &found.row, post)?;
    if row.pool == found.row.pool {
        return Err(Error::invalid(format!("instance `{old}` is in storage pool `{}` already", row.pool)));
    }
    check_config(host, project, &row, &row.profiles.clone())
}

fn new_name<'a>(old: &'a str, post: &'a InstancePost) -> &'a str {
    if post.name.is_empty() { old } else { &post.name }
}

/// What the instance is to be.
fn moved(
    host: &Host,
    project: &str,
    now: &rows::Instance,
    post: &InstancePost,
) -> Result<rows::Instance, Error> {
    let mut row = now.clone();
    row.config.extend(post.config.0.clone());
    row.config.retain(|_, value| !value.is_empty());
    row.devices.extend(post.devices.clone().given());
    if let Some(names) = &post.profiles {
        row.profiles.clone_from(names);
    }
    let profiles = profiles_of(host, project, &row.profiles)?;
    if !post.pool.is_empty() {
        root_in(&post.pool, &row.profiles, &profiles, &mut row.devices);
    }
    row.pool = root_pool(&expand(&row, &profiles).devices)?;
    Ok(row)
}

/// Moves a stopped instance to another pool, another name, or both.
///
/// # Errors
/// When there is none, it runs, the name is bad or taken, or the host refuses. When the old trees cannot be removed
/// the instance is in its new place, and the next start of the daemon removes the rest.
pub fn relocate(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    old: &str,
    post: &InstancePost,
) -> Result<(), Error> {
    check_relocate(host, project, old, post)?;
    let new = new_name(old, post);
    let _turns = host.busy().take_all(&[old, new], "move")?;
    super::snapshot::settle(host, project, old)?;
    check_relocate(host, project, old, post)?;
    let found = load(host, project, old)?;
    let mut row = moved(host, project, &found.row, post)?;
    if new != old {
        // Files that carry the name are written anew at the next start; a pending first writing stays so.
        row.config.entry("volatile.apply_template".into()).or_insert("rename".into());
    }
    let present = rows_of(host, project, old)?;
    let kept = if post.instance_only { &[] } else { present.as_slice() };
    put_there(host, op, project, (old, new), (&found, &row), (kept, &present))?;
    fault::reach("moved");
    // What is left of the old place is only in the way; start-up removes it when this fails.
    let removed = super::delete::remove_tree(host, old, &found.row.pool);
    let unlinked = if new == old { Ok(()) } else { super::rename::unlink(host, old) };
    let linked = fault::behind("link to the new place").map_err(Error::from);
    let removed = removed.and(unlinked).and(linked.and_then(|()| relink(host, new, &row.pool)));
    let context = json!({ "old_name": old, "old_pool": found.row.pool, "pool": row.pool });
    host.events().lifecycle(project, "instance-migrated", &address(new), new, context, op.requestor());
    removed.map_err(|source| Error::LeftBehind {
        left: format!("files of the old place of instance `{new}`, which is moved"),
        source: Box::new(source),
    })
}

type Snapshots<'a> = &'a [Versioned<rows::Snapshot>];

/// Makes the trees in the new pool, and says so.
fn put_there(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    (old, new): (&str, &str),
    (found, row): (&Versioned<rows::Instance>, &rows::Instance),
    (kept, present): (Snapshots<'_>, Snapshots<'_>),
) -> Result<(), Error> {
    let templates = host.store().rows::<rows::Templates>().get(project, old)?;
    let templates = templates.map(|found| found.row).unwrap_or_default();
    let names: Vec<String> = kept.iter().map(|snapshot| snapshot.name.clone()).collect();
    let (from, to) = (storage::pool(host, &found.row.pool)?, storage::pool(host, &row.pool)?);
    let volume = place::clear(host, project, &to, new)?;
    let load =
        Load { project, instance: old, pool: &from, snapshot: None, snapshots: &names, inconsistent: false };
    let target = Target { pool: &to, volume: &volume, replaces: None };
    atomically(|undo| -> Result<(), Error> {
        if new != old {
            intent::note(host, project, old, &rows::Intent::Rename { to: new.to_owned() }, undo)?;
        }
        let staged = carry::stage(host, op, &load, &target, undo)?;
        let _kept = host.keep_layout();
        let moved = Checked::in_its_pool(host, project, row.clone())?;
        for one in staged {
            one.show(undo)?;
        }
        if new != old {
            move_logs(host, old, new, undo)?;
            host.ids().assign(row.ids, new)?;
            let (again, name, ids) = (host.clone(), old.to_owned(), row.ids);
            undo.push("owner of the host ids", move || again.ids().assign(ids, &name))?;
        }
        let before = expand(&found.row, &profiles_of(host, project, &found.row.profiles)?);
        resolve::move_fixed(host, (old, &found.row, &before), (new, &moved.row, &moved.expanded), undo)?;
        let mut txn = host.store().begin();
        for snapshot in present {
            txn = txn.remove::<rows::Snapshot>(project, &row_name(old, &snapshot.name));
        }
        let profiles = profiles(host, project)?;
        for snapshot in kept {
            let mut kept = snapshot.row.clone();
            root_in(&row.pool, &kept.profiles, &profiles, &mut kept.devices);
            if new != old {
                // The files in it carry the old name too.
                kept.config.entry("volatile.apply_template".into()).or_insert("rename".into());
            }
            txn = txn.write(project, &row_name(new, &snapshot.name), &kept)?;
        }
        txn = match new == old {
            true => moved.update(txn, project, old, found.revision)?,
            false => moved
                .insert(super::backup::moved(host, project, (old, new), txn)?, project, new)?
                .check::<rows::Instance>(project, old, Some(found.revision))
                .remove::<rows::Instance>(project, old)
                .remove::<rows::Templates>(project, old)
                .write(project, new, &templates)?,
        };
        match txn.remove::<rows::Intent>(project, old).commit() {
            Err(cabin_store::Error::Changed { .. }) => {
                Err(Error::Changed { what: WHAT, name: old.to_owned() })
            }
            other => Ok(other.map(drop)?),
        }
    })
    .map_err(Error::from)
}
