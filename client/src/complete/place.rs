//! Files here, in instances and in volumes.

use std::ffi::OsStr;

use cabin_client::{Client, FileBody};
use clap_complete::CompletionCandidate;
use clap_complete::engine::{PathCompleter, ValueCompleter as _};

use super::line::Line;
use super::{ask, owned};

/// Files here, and `-`.
pub fn locals(current: &OsStr) -> Vec<CompletionCandidate> {
    PathCompleter::any().stdio().complete(current)
}

/// INSTANCE/PATH; after the first one of `pull`, files here too.
pub fn instance_places(current: &OsStr) -> Vec<CompletionCandidate> {
    let here = Line::typed().is_under("pull") && !Line::typed().all("paths").is_empty();
    let mut found = inside(current);
    found.extend(if here { locals(current) } else { Vec::new() });
    found
}

/// Files here; after the first one, INSTANCE/PATH too.
pub fn local_then_instance_places(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut found = locals(current);
    found.extend(if Line::typed().all("paths").is_empty() { Vec::new() } else { inside(current) });
    found
}

fn inside(current: &OsStr) -> Vec<CompletionCandidate> {
    let word = current.to_string_lossy();
    ask(current, async |client, _| match word.split_once('/') {
        Some((instance, path)) => entries(client, instance, instance, path).await,
        None => {
            Some(client.instance_names().await.ok()?.into_iter().map(|name| format!("{name}/")).collect())
        }
    })
}

/// VOLUME/PATH.
pub fn volume_places(current: &OsStr) -> Vec<CompletionCandidate> {
    let word = current.to_string_lossy();
    ask(current, async |client, line| {
        let pool = line.first("pool")?;
        match word.split_once('/') {
            Some((volume, path)) => entries(client, &format!("{pool}/{volume}"), volume, path).await,
            None => {
                let names = owned::custom(client, &pool).await?;
                Some(names.into_iter().map(|name| format!("{name}/")).collect())
            }
        }
    })
}

/// What goes on from `path` in an instance, or in a volume by POOL/VOLUME. `shown` is how the line begins.
async fn entries(client: &Client, owner: &str, shown: &str, path: &str) -> Option<Vec<String>> {
    let (folder, begun) = path.rsplit_once('/').unwrap_or(("", path));
    let content = client.read_file(owner, &format!("/{folder}")).await.ok()?;
    let FileBody::Directory(names) = content.body else { return None };
    let before = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let fit = names.iter().filter(|name| name.starts_with(begun));
    let mut found: Vec<String> = fit.map(|name| format!("{before}{name}")).collect();
    // The shell goes on by itself when there is one way to go; only then is it worth asking whether it is a folder.
    if let [only] = found.as_mut_slice() {
        let content = client.read_file(owner, &format!("/{only}")).await.ok()?;
        only.push_str(if matches!(content.body, FileBody::Directory(_)) { "/" } else { "" });
    }
    Some(found.into_iter().map(|path| format!("{shown}/{path}")).collect())
}
