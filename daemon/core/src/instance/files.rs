//! Files of an instance, running or not: a confined server of SFTP in its root.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cabin_runtime::files::{FilesSession, FilesTarget};
use cabin_storage::VolumeName;

use super::{expand, load, profiles_of, turn};
use crate::busy::Turn;
use crate::{Error, Host, resolve, storage};

/// A running file server; it ends when this is dropped.
pub struct Files {
    session: FilesSession,
    // A stopped root must not be mounted a second time by a start.
    _turn: Option<Turn>,
}

impl Files {
    /// A file server that keeps nobody else out.
    pub(crate) fn of(session: FilesSession) -> Files {
        Files { session, _turn: None }
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
    let found = load(host, project, name)?;
    let helper = host.settings().bin_dir.join("cabin-files");
    if let Some(live) = host.live().get(name).filter(|live| live.exit().is_none()) {
        let target = FilesTarget::Running { pidfd: live.supervisor.pidfd() };
        match cabin_runtime::files::open(&helper, target) {
            // Stopped in this very moment: its files are those of a stopped one.
            Err(cabin_runtime::files::Error::Ended) => {}
            opened => return Ok(Files { session: opened?, _turn: None }),
        }
    }
    let turn = turn(host, project, name, "reading and writing files")?;
    let expanded = expand(&found.row, &profiles_of(host, project, &found.row.profiles)?);
    let pool = storage::pool(host, &found.row.pool)?;
    let root = resolve::root(pool.layers(&VolumeName::container(name)?)?);
    let ids = resolve::ids(&found.row, &expanded);
    let session = cabin_runtime::files::open(&helper, FilesTarget::Stopped { root, ids })?;
    Ok(Files { session, _turn: Some(turn) })
}
