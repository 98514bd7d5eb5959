//! `file push`: from here into an instance.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context as _, bail};
use cabin_client::{Client, FileBody, FileKind, NewFile, Sent, WriteMode};

use super::Context;
use super::file::new_file;
use crate::cli::instance::Ownership;
use crate::output::progress::Progress;

/// Where files go.
struct Destination<'a> {
    client: &'a Client,
    instance: &'a str,
    ownership: &'a Ownership,
    sent: Sent,
    progress: Progress,
}

/// `file push`.
pub async fn run(
    context: &Context,
    client: &Client,
    sources: &[String],
    (instance, path): (&str, &str),
    recursive: bool,
    ownership: &Ownership,
) -> anyhow::Result<()> {
    let progress = Progress::new("Pushing", context.watched);
    progress.tick_alone();
    let to = Destination { client, instance, ownership, sent: Sent::default(), progress };
    let into_directory = path.ends_with('/') || sources.len() > 1;
    let base = path.trim_end_matches('/');
    if ownership.create_dirs {
        let inside = format!("{base}/x");
        make_parents(client, instance, if into_directory || recursive { &inside } else { path }).await?;
    }
    for source in sources {
        if source == "-" {
            let stdin = Box::new(std::io::stdin());
            to.file(path, stdin, new_file(FileKind::File, ownership)?).await?;
            continue;
        }
        let here = Path::new(source);
        let metadata = fs::metadata(here).with_context(|| format!("cannot read `{source}`"))?;
        // `.` and `..` have no name of their own: what is in them goes into the target.
        let name = here.file_name().map(|name| name.to_string_lossy().into_owned());
        let below = name.map_or_else(|| base.to_owned(), |name| format!("{base}/{name}"));
        if metadata.is_dir() {
            if !recursive {
                bail!("`{source}` is a directory: add --recursive");
            }
            to.tree(here, &below).await?;
        } else if into_directory {
            to.local_file(here, &below, &metadata).await?;
        } else {
            to.file_or_into_directory(here, path, &below, &metadata).await?;
        }
    }
    Ok(())
}

/// Makes the directories above a path that are not there.
pub async fn make_parents(client: &Client, instance: &str, path: &str) -> anyhow::Result<()> {
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let mut made = String::new();
    for part in parent.split('/').filter(|part| !part.is_empty()) {
        made.push('/');
        made.push_str(part);
        if client.read_file(instance, &made).await.is_ok() {
            continue;
        }
        let file = NewFile {
            kind: FileKind::Directory,
            uid: None,
            gid: None,
            mode: Some(0o755),
            write: WriteMode::Overwrite,
            replaces_owner: false,
        };
        client
            .make_directory(instance, &made, &file)
            .await
            .with_context(|| format!("cannot make `{instance}{made}`"))?;
    }
    Ok(())
}

impl Destination<'_> {
    async fn file(&self, path: &str, source: Box<dyn Read + Send>, file: NewFile) -> anyhow::Result<()> {
        self.client
            .write_file(self.instance, path, &file, source, &self.sent)
            .await
            .with_context(|| format!("cannot write `{}{path}`", self.instance))
    }

    async fn local_file(&self, here: &Path, path: &str, metadata: &fs::Metadata) -> anyhow::Result<()> {
        let source = fs::File::open(here).with_context(|| format!("cannot read `{}`", here.display()))?;
        self.progress.bytes(self.sent.bytes(), None);
        self.file(path, Box::new(source), self.like(FileKind::File, metadata)?).await
    }

    /// A target without a slash at its end may still be a directory; only the daemon knows.
    async fn file_or_into_directory(
        &self,
        here: &Path,
        path: &str,
        below: &str,
        metadata: &fs::Metadata,
    ) -> anyhow::Result<()> {
        let Err(error) = self.local_file(here, path, metadata).await else { return Ok(()) };
        match self.client.read_file(self.instance, path).await {
            Ok(content) if matches!(content.body, FileBody::Directory(_)) => {
                self.local_file(here, below, metadata).await
            }
            _ => Err(error),
        }
    }

    /// A directory and all that is in it.
    async fn tree(&self, here: &Path, path: &str) -> anyhow::Result<()> {
        let failed = |path: &Path| format!("cannot read `{}`", path.display());
        let mut left = vec![(here.to_owned(), path.to_owned())];
        while let Some((here, path)) = left.pop() {
            let metadata = fs::symlink_metadata(&here).with_context(|| failed(&here))?;
            // What was named by the person may be a link to a directory.
            let metadata = if left.is_empty() && metadata.is_symlink() && here.is_dir() {
                fs::metadata(&here).with_context(|| failed(&here))?
            } else {
                metadata
            };
            if metadata.is_dir() {
                self.directory(&path, &metadata).await?;
                for entry in fs::read_dir(&here).with_context(|| failed(&here))? {
                    let entry = entry.with_context(|| failed(&here))?;
                    let name = entry.file_name();
                    let name = name.to_str().with_context(|| format!("`{}` is not UTF-8", name.display()))?;
                    left.push((entry.path(), format!("{path}/{name}")));
                }
            } else if metadata.is_symlink() {
                let target = fs::read_link(&here).with_context(|| failed(&here))?;
                let target = target.to_str().context("the target of a link is not UTF-8")?;
                let file = NewFile { mode: None, ..self.like(FileKind::Symlink, &metadata)? };
                self.client
                    .make_symlink(self.instance, &path, target, &file)
                    .await
                    .with_context(|| format!("cannot make the link `{}{path}`", self.instance))?;
            } else if metadata.is_file() {
                self.local_file(&here, &path, &metadata).await?;
            } else {
                bail!("`{}` is neither file, directory nor link", here.display());
            }
        }
        Ok(())
    }

    /// Makes a directory; one that is there stays.
    async fn directory(&self, path: &str, metadata: &fs::Metadata) -> anyhow::Result<()> {
        let path = if path.is_empty() { "/" } else { path };
        let file = self.like(FileKind::Directory, metadata)?;
        let Err(error) = self.client.make_directory(self.instance, path, &file).await else { return Ok(()) };
        match self.client.read_file(self.instance, path).await {
            Ok(content) if matches!(content.body, FileBody::Directory(_)) => Ok(()),
            _ => Err(error).with_context(|| format!("cannot make `{}{path}`", self.instance)),
        }
    }

    /// Owner and mode as here, unless the flags say otherwise. `--mode` is for files.
    fn like(&self, kind: FileKind, metadata: &fs::Metadata) -> anyhow::Result<NewFile> {
        let asked = new_file(kind, self.ownership)?;
        let mode = asked.mode.filter(|_| kind == FileKind::File);
        Ok(NewFile {
            uid: asked.uid.or(Some(metadata.uid())),
            gid: asked.gid.or(Some(metadata.gid())),
            mode: mode.or(Some(metadata.mode() & 0o7777)),
            ..asked
        })
    }
}
