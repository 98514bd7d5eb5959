//! `file`: create, delete and edit here; push and pull have files of their own.

use std::io::Cursor;

use anyhow::{Context as _, bail};
use cabin_client::{Client, FileBody, FileKind, NewFile, Sent, WriteMode};

use super::{Context, mount, pull, push};
use crate::cli::instance::{File, Ownership};
use crate::{programs, remote, words};

/// Links followed on the way to a file.
const HOPS: usize = 40;

/// `file`.
pub async fn run(context: &Context, command: File) -> anyhow::Result<()> {
    let client = &context.client().await?;
    match command {
        File::Push { paths, recursive, ownership } => {
            let Some((target, sources)) = paths.split_last() else { bail!("a target is needed") };
            push::run(context, client, sources, words::place(target)?, recursive, &ownership).await
        }
        File::Pull { paths, recursive, create_dirs } => {
            let Some((target, sources)) = paths.split_last() else { bail!("a target is needed") };
            let sources: Vec<_> =
                sources.iter().map(|word| words::place(word)).collect::<anyhow::Result<_>>()?;
            pull::run(context, client, &sources, target, recursive, create_dirs).await
        }
        File::Create { path, target, kind, force, ownership } => {
            create(client, words::place(&path)?, target.as_deref(), &kind, force, &ownership).await
        }
        File::Delete { paths, force } => {
            for word in &paths {
                delete(client, words::place(word)?, force).await?;
            }
            Ok(())
        }
        File::Mount { path, target } => mount::run(client, instance_place(&path)?, &target).await,
        File::Edit { path } => edit(client, words::place(&path)?).await,
    }
}

/// An instance and a path in it; its root when none is said.
fn instance_place(word: &str) -> anyhow::Result<(&str, &str)> {
    if word.contains('/') { words::place(word) } else { Ok((remote::local(word)?, "/")) }
}

/// Deletes a file of an instance or volume.
pub async fn delete(client: &Client, (owner, path): (&str, &str), force: bool) -> anyhow::Result<()> {
    let deleted = client.delete_file(owner, path, force).await;
    deleted.with_context(|| format!("cannot delete `{owner}{path}`"))
}

/// Makes a file, directory or link in an instance or volume.
pub async fn create(
    client: &Client,
    (instance, path): (&str, &str),
    target: Option<&str>,
    kind: &str,
    force: bool,
    ownership: &Ownership,
) -> anyhow::Result<()> {
    let file = new_file(FileKind::File, ownership)?;
    if ownership.create_dirs {
        push::make_parents(client, instance, path).await?;
    }
    if force {
        match client.delete_file(instance, path, false).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    } else if kind == "file" && client.read_file(instance, path).await.is_ok() {
        bail!("there is something at `{instance}{path}` already; --force replaces it");
    }
    match (kind, target) {
        ("directory", None) => {
            client.make_directory(instance, path, &NewFile { kind: FileKind::Directory, ..file }).await?;
        }
        ("symlink", Some(target)) | ("file", Some(target)) => {
            let link = NewFile { kind: FileKind::Symlink, ..file };
            client.make_symlink(instance, path, target, &link).await?;
        }
        ("symlink", None) => bail!("a link needs a target"),
        (_, Some(_)) => bail!("only a link has a target"),
        _ => {
            let nothing = Box::new(Cursor::new(Vec::new()));
            client.write_file(instance, path, &file, nothing, &Sent::default()).await?;
        }
    }
    Ok(())
}

/// What the flags say of a new file.
pub fn new_file(kind: FileKind, ownership: &Ownership) -> anyhow::Result<NewFile> {
    let mode = ownership.mode.as_deref().map(mode).transpose()?;
    let replaces_owner = ownership.uid.is_some() || ownership.gid.is_some() || mode.is_some();
    let write = WriteMode::Overwrite;
    Ok(NewFile { kind, uid: ownership.uid, gid: ownership.gid, mode, write, replaces_owner })
}

fn mode(text: &str) -> anyhow::Result<u32> {
    match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => bail!("`{text}` is not a mode such as 0644"),
    }
}

/// A file's content with owner and mode, links followed.
pub async fn followed(
    client: &Client,
    instance: &str,
    path: &str,
) -> anyhow::Result<(String, cabin_client::FileContent)> {
    let mut path = path.to_owned();
    for _ in 0..HOPS {
        let content = client
            .read_file(instance, &path)
            .await
            .with_context(|| format!("cannot read `{instance}{path}`"))?;
        let FileBody::Symlink(target) = &content.body else {
            return Ok((path, content));
        };
        path = beside(&path, target);
    }
    bail!("`{instance}{path}` goes through too many links")
}

/// Where a link leads. The daemon resolves `..` inside the instance.
fn beside(link: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    let directory = link.rsplit_once('/').map_or("", |(directory, _)| directory);
    format!("{directory}/{target}")
}

/// Lets somebody edit a file of an instance or volume.
pub async fn edit(client: &Client, (instance, path): (&str, &str)) -> anyhow::Result<()> {
    let word = format!("{instance}{path}");
    let (path, content) = followed(client, instance, path).await?;
    let FileBody::File(body) = content.body else { bail!("`{word}` is a directory") };
    let before = pull::collect(body).await.with_context(|| format!("cannot read `{word}`"))?;
    let name = path.rsplit('/').next().unwrap_or_default();
    let suffix = name.rfind('.').map_or("", |dot| name.get(dot..).unwrap_or_default());
    let after = programs::edit(&before, suffix)?;
    if after == before {
        return Ok(());
    }
    let file = NewFile {
        kind: FileKind::File,
        uid: Some(content.uid),
        gid: Some(content.gid),
        mode: Some(content.mode),
        write: WriteMode::Overwrite,
        replaces_owner: false,
    };
    client.write_file(instance, &path, &file, Box::new(Cursor::new(after)), &Sent::default()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_where_they_lie() {
        assert_eq!(beside("/etc/localtime", "../usr/x"), "/etc/../usr/x");
        assert_eq!(beside("/link", "other"), "/other");
        assert_eq!(beside("/a/b", "/c"), "/c");
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0644").unwrap(), 0o644);
        assert_eq!(mode("4755").unwrap(), 0o4755);
        assert!(mode("0888").is_err());
        assert!(mode("77777").is_err());
    }
}
