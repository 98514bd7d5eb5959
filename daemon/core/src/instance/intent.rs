//! What is written down before a change of which a crash would leave traces that do not say where they lead.
//!
//! The change's own last commit removes the note again. What becomes of one that is found at a start of the
//! daemon is `recover`'s.

use std::sync::Arc;

use cabin_store::{Transaction, rows};
use cabin_undo::Undo;

use crate::{Error, Host};

/// Notes what is going to happen to an instance whose turn the caller holds.
///
/// # Errors
/// When it cannot be stored.
pub(crate) fn note(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    intent: &rows::Intent,
    undo: &mut Undo,
) -> Result<(), Error> {
    host.store().begin().write(project, name, intent)?.commit()?;
    let (host, project, name) = (host.clone(), project.to_owned(), name.to_owned());
    undo.push(format!("intent for `{name}`"), move || forget(&host, &project, &name))?;
    Ok(())
}

/// Notes that an instance is going to be started, whatever becomes of this daemon.
///
/// # Errors
/// When it cannot be stored.
pub(crate) fn intend_restart(host: &Host, project: &str, name: &str) -> Result<(), Error> {
    host.store().begin().write(project, name, &rows::Intent::Restart)?.commit()?;
    Ok(())
}

/// Removes the note. None is success.
///
/// # Errors
/// When that cannot be stored.
pub(crate) fn forget(host: &Host, project: &str, name: &str) -> Result<(), Error> {
    host.store().begin().remove::<rows::Intent>(project, name).commit()?;
    Ok(())
}

/// Adds to a transaction that an instance is held still no more, if it was; what else is noted of it is another's.
///
/// # Errors
/// When the row cannot be read.
pub(crate) fn end_hold<'a>(
    host: &Host,
    project: &str,
    name: &str,
    txn: Transaction<'a>,
) -> Result<Transaction<'a>, Error> {
    let noted = host.store().rows::<rows::Intent>().get(project, name)?;
    match noted.is_some_and(|noted| noted.row == rows::Intent::Hold) {
        true => Ok(txn.remove::<rows::Intent>(project, name)),
        false => Ok(txn),
    }
}

/// Whether what was going on concerns the run of a container: how it ends is seen by the container itself. The rest
/// concerns its tree, and is finished or taken back.
pub(crate) fn is_of_a_run(intent: &rows::Intent) -> bool {
    match intent {
        rows::Intent::Update | rows::Intent::Disks { .. } | rows::Intent::Restart | rows::Intent::Hold => {
            true
        }
        rows::Intent::Rename { .. }
        | rows::Intent::RenameSnapshot { .. }
        | rows::Intent::Rebuild { .. }
        | rows::Intent::Restore { .. }
        | rows::Intent::Refresh { .. } => false,
    }
}
