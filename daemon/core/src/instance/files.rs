//! Files of an instance, running or not: a confined server of SFTP in its root.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use cabin_runtime::files::{FilesSession, FilesTarget};
use cabin_storage::VolumeName;
use cabin_undo::fault;

use super::{expand, load, profiles_of, turn};
use crate::busy::Turn;
use crate::{Error, Host, resolve, storage};

/// A running file server; it ends when this is dropped.
pub struct Files {
    session: FilesSession,
    // A stopped root must not be mounted a second time by a start, nor a volume's tree be exchanged.
    _turn: Option<Turn>,
}

impl Files {
    /// A file server that keeps nobody else out.
    fn of(session: FilesSession) -> Files {
        Files { session, _turn: None }
    }

    /// A file server that keeps out whoever waits for that turn.
    pub(crate) fn holding(session: FilesSession, turn: Turn) -> Files {
        Files { session, _turn: Some(turn) }
    }

    /// A stream socket that speaks SFTP version 3.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn stream(&self) -> Result<OwnedFd, Error> {
        self.session.duplicate().map_err(Error::io("duplicate the file server's socket"))
    }
}

/// Starts a file server in an instance's root.
///
/// # Errors
/// When there is no such instance, or the host refuses.
pub fn files(host: &Arc<Host>, project: &str, name: &str) -> Result<Files, Error> {
    load(host, project, name)?;
    let helper = host.settings().bin_dir.join("cabin-files");
    if let Some(session) = of_running(host, &helper, name)? {
        return Ok(Files::of(session));
    }
    fault::moment(&format!("files of `{name}`, which does not run"));
    let turn = turn(host, project, name, "reading and writing files")?;
    // What was waited for may have started it, or moved it elsewhere: nobody mounts the root of a running one.
    if let Some(session) = of_running(host, &helper, name)? {
        return Ok(Files::of(session));
    }
    let found = load(host, project, name)?;
    let expanded = expand(&found.row, &profiles_of(host, project, &found.row.profiles)?);
    let pool = storage::pool(host, &found.row.pool)?;
    let root = resolve::root(pool.layers(&VolumeName::container(name)?)?);
    let ids = resolve::ids(&found.row, &expanded);
    let session = cabin_runtime::files::open(&helper, FilesTarget::Stopped { root, ids })?;
    Ok(Files::holding(session, turn))
}

/// A file server in the root of a container, if it runs.
fn of_running(host: &Host, helper: &Path, name: &str) -> Result<Option<FilesSession>, Error> {
    let Some(live) = host.live().get(name).filter(|live| live.exit().is_none()) else { return Ok(None) };
    match cabin_runtime::files::open(helper, FilesTarget::Running { pidfd: live.supervisor.pidfd() }) {
        // Stopped in this very moment: its files are those of a stopped one.
        Err(cabin_runtime::files::Error::Ended) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}
