//! `file pull`: from an instance to here. What the instance says is not trusted: no name leaves the target,
//! no link it made is followed, no file gets the power to change users.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use cabin_client::{Client, FileBody, FileContent};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Context;
use super::file::followed;
use crate::output;
use crate::output::progress::Progress;

/// `file pull`.
pub async fn run(
    context: &Context,
    client: &Client,
    sources: &[(&str, &str)],
    target: &str,
    recursive: bool,
    create_dirs: bool,
) -> anyhow::Result<()> {
    let here = Path::new(target);
    if create_dirs {
        let directory = if target.ends_with('/') { Some(here) } else { here.parent() };
        if let Some(directory) = directory {
            fs::create_dir_all(directory).with_context(|| failed(directory))?;
        }
    }
    let progress = Progress::new("Pulling", context.watched && target != "-");
    progress.tick_alone();
    let into_directory = target.ends_with('/') || sources.len() > 1 || here.is_dir();
    for &(instance, path) in sources {
        let (_, content) = followed(client, instance, path).await?;
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let name = if name.is_empty() { instance.rsplit('/').next().unwrap_or(instance) } else { name };
        let destination = if into_directory { here.join(safe(name)?) } else { here.to_owned() };
        match content {
            FileContent { body: FileBody::File(body), .. } if target == "-" => to_output(body).await?,
            FileContent { body: FileBody::File(body), mode, .. } => save(&destination, body, mode).await?,
            FileContent { body: FileBody::Directory(names), mode, .. } => {
                if !recursive {
                    bail!("`{instance}{path}` is a directory: add --recursive");
                }
                // As with `push`, the directory goes into one that is there, and becomes one that is not.
                tree(client, instance, path.trim_end_matches('/'), &destination, names, mode).await?;
            }
            FileContent { body: FileBody::Symlink(_), .. } => bail!("`{instance}{path}` is a link"),
        }
    }
    Ok(())
}

/// All of a file's bytes.
pub async fn collect(body: Incoming) -> anyhow::Result<Vec<u8>> {
    Ok(body.collect().await?.to_bytes().into())
}

async fn to_output(mut body: Incoming) -> anyhow::Result<()> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            output::raw(&data)?;
        }
    }
    Ok(())
}

/// A directory and all that is in it. Links are made last, so that nothing here can go through them.
async fn tree(
    client: &Client,
    instance: &str,
    path: &str,
    here: &Path,
    names: Vec<String>,
    mode: u32,
) -> anyhow::Result<()> {
    let mut links: Vec<(PathBuf, String)> = Vec::new();
    let mut modes = vec![(here.to_owned(), mode)];
    make_directory(here)?;
    let mut left: Vec<(String, PathBuf)> = Vec::new();
    let below = |path: &str, here: &Path, names: Vec<String>| {
        let places = names.into_iter().map(|name| Ok((format!("{path}/{name}"), here.join(safe(&name)?))));
        places.collect::<anyhow::Result<Vec<_>>>()
    };
    left.extend(below(path, here, names)?);
    while let Some((path, here)) = left.pop() {
        let content = client
            .read_file(instance, &path)
            .await
            .with_context(|| format!("cannot read `{instance}{path}`"))?;
        match content.body {
            FileBody::File(body) => save(&here, body, content.mode).await?,
            FileBody::Symlink(target) => links.push((here, target)),
            FileBody::Directory(names) => {
                make_directory(&here)?;
                modes.push((here.clone(), content.mode));
                left.extend(below(&path, &here, names)?);
            }
        }
    }
    for (here, target) in links {
        match symlink(&target, &here) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_link(&here) => {
                fs::remove_file(&here)
                    .and_then(|()| symlink(&target, &here))
                    .with_context(|| failed(&here))?;
            }
            done => done.with_context(|| failed(&here))?,
        }
    }
    // Last, and from the inside out: a directory may forbid writing.
    for (here, mode) in modes.iter().rev() {
        set_mode(here, *mode)?;
    }
    Ok(())
}

async fn save(here: &Path, mut body: Incoming, mode: u32) -> anyhow::Result<()> {
    let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(nofollow)
        .open(here)
        .with_context(|| failed(here))?;
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the file broke off")?;
        if let Ok(data) = frame.into_data() {
            file.write_all(&data).with_context(|| failed(here))?;
        }
    }
    if file.metadata().is_ok_and(|data| data.is_file()) {
        file.set_permissions(fs::Permissions::from_mode(mode & 0o777)).with_context(|| failed(here))?;
    }
    Ok(())
}

fn make_directory(here: &Path) -> anyhow::Result<()> {
    match fs::create_dir(here) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !is_link(here) && here.is_dir() => {
            Ok(())
        }
        done => done.with_context(|| failed(here)),
    }
}

fn set_mode(here: &Path, mode: u32) -> anyhow::Result<()> {
    fs::set_permissions(here, fs::Permissions::from_mode(mode & 0o777)).with_context(|| failed(here))
}

fn is_link(here: &Path) -> bool {
    fs::symlink_metadata(here).is_ok_and(|data| data.is_symlink())
}

fn failed(here: &Path) -> String {
    format!("cannot write `{}`", here.display())
}

/// A name that stays in its directory.
fn safe(name: &str) -> anyhow::Result<&str> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        bail!("the instance has a file with the name `{}`, which is not followed", name.escape_debug());
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_away_are_refused() {
        for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0"] {
            assert!(safe(name).is_err(), "{name:?}");
        }
        assert_eq!(safe("...").unwrap(), "...");
    }

    #[test]
    fn a_link_in_the_place_of_a_directory_is_not_entered() {
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join("link");
        symlink("/tmp", &link).unwrap();
        assert!(make_directory(&link).is_err());
        make_directory(&place.path().join("new")).unwrap();
        make_directory(&place.path().join("new")).unwrap();
    }
}
