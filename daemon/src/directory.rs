//! Directories of guests, who choose how much lies in them: listed up to a limit, and deleted a few names at a time.

use futures_util::future::try_join_all;
use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::{File, StatusCode};

use crate::error::Fault;
use crate::files::{Kind, failed};
use crate::limits;

/// The names in a directory, sorted.
///
/// # Errors
/// When there are too many, or it cannot be read.
pub async fn names(sftp: &RawSftpSession, path: &str) -> Result<Vec<String>, Fault> {
    let handle = sftp.opendir(path).await.map_err(failed("list", path))?.handle;
    let mut names = Vec::new();
    while let Some(more) = next(sftp, &handle, path).await? {
        if names.len() + more.len() > limits::LISTED {
            return Err(Fault::invalid(format!(
                "`{path}` holds more than {} names: list it over SFTP, or with a command inside",
                limits::LISTED
            )));
        }
        names.extend(more.into_iter().map(|entry| entry.filename));
    }
    names.sort();
    Ok(names)
}

/// The next few of what an open directory holds; none at its end.
async fn next(sftp: &RawSftpSession, handle: &str, path: &str) -> Result<Option<Vec<File>>, Fault> {
    match sftp.readdir(handle).await {
        Ok(found) => Ok(Some(found.files)),
        Err(SftpError::Status(status)) if status.status_code == StatusCode::Eof => Ok(None),
        Err(error) => Err(failed("list", path)(error)),
    }
}

/// A directory that is being emptied.
struct Emptied {
    path: String,
    handle: String,
    /// The directories among the names that were read last.
    below: Vec<String>,
}

async fn begin(sftp: &RawSftpSession, path: String) -> Result<Emptied, Fault> {
    let handle = sftp.opendir(path.as_str()).await.map_err(failed("list", &path))?.handle;
    Ok(Emptied { path, handle, below: Vec::new() })
}

/// Deletes a directory with all that is in it, bottom up, without recursion of our own: of each directory on the way
/// down some names are at hand, however many it holds.
///
/// # Errors
/// When it is too deep, or the guest's filesystem refuses.
pub async fn delete(sftp: &RawSftpSession, root: &str) -> Result<(), Fault> {
    let mut open = vec![begin(sftp, root.to_owned()).await?];
    while let Some(level) = open.last_mut() {
        if let Some(below) = level.below.pop() {
            if open.len() > limits::TREE_DEPTH {
                let deepest = limits::TREE_DEPTH;
                return Err(Fault::invalid(format!("`{root}` is deeper than {deepest} directories")));
            }
            open.push(begin(sftp, below).await?);
            continue;
        }
        let Emptied { path, handle, below } = level;
        let Some(found) = next(sftp, handle, path).await? else {
            sftp.close(handle.as_str()).await.map_err(failed("close", path))?;
            sftp.rmdir(path.as_str()).await.map_err(failed("delete", path))?;
            open.pop();
            continue;
        };
        let whole = |entry: &File| format!("{}/{}", path.trim_end_matches('/'), entry.filename);
        let (dirs, others): (Vec<_>, Vec<_>) =
            found.iter().partition(|entry| Kind::of(&entry.attrs) == Kind::Directory);
        *below = dirs.into_iter().map(whole).collect();
        // All of them asked for before the first answer: there may be millions.
        try_join_all(others.into_iter().map(|entry| remove(sftp, whole(entry)))).await?;
    }
    Ok(())
}

async fn remove(sftp: &RawSftpSession, path: String) -> Result<(), Fault> {
    sftp.remove(path.as_str()).await.map_err(failed("delete", &path)).map(drop)
}
