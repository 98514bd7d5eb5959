//! `export` and `import`: instances as files.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cabin_api::backup::InstanceBackupsPost;
use cabin_client::{BackupDownload, BackupUpload, Reply, Result as Answer, Sent};
use tokio::time::{MissedTickBehavior, interval};

use super::Context;
use crate::cli::backup::{Export, Import};
use crate::output::progress::Progress;
use crate::{output, remote, words};

/// How a file is to be compressed: as asked, or as its name says, or by what is fast and small.
pub fn compression(asked: Option<&str>, target: Option<&Path>) -> String {
    let name = target.and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    match asked {
        Some(asked) => asked,
        None if ends(&[".gz", ".tgz"]) => "gzip",
        None if ends(&[".bz2", ".tbz2"]) => "bzip2",
        None if ends(&[".xz", ".txz"]) => "xz",
        None if ends(&[".tar"]) => "none",
        None => "zstd",
    }
    .to_owned()
}

/// `export`.
pub async fn export(context: &Context, args: &Export) -> anyhow::Result<()> {
    let name = remote::local(&args.instance)?;
    refuse_present(args.target.as_deref())?;
    let post = InstanceBackupsPost {
        instance_only: args.instance_only,
        optimized_storage: args.optimized_storage,
        compression_algorithm: compression(args.compression.as_deref(), args.target.as_deref()),
        ..InstanceBackupsPost::default()
    };
    let download = context.client().await?.export_instance(name, &post).await?;
    save(context, download, args.target.as_deref(), name).await
}

/// Refuses a target that would be overwritten.
pub fn refuse_present(target: Option<&Path>) -> anyhow::Result<()> {
    match target.filter(|target| *target != Path::new("-") && target.is_file()) {
        Some(target) => bail!("`{}` exists already", target.display()),
        None => Ok(()),
    }
}

/// Writes a backup that arrives where it is to go.
pub async fn save(
    context: &Context,
    mut download: BackupDownload,
    given: Option<&Path>,
    name: &str,
) -> anyhow::Result<()> {
    let to_stdout = given == Some(Path::new("-"));
    let progress = Progress::new(&format!("Exporting {name}"), context.watched && !to_stdout);
    if to_stdout {
        while let Some(data) = download.next().await? {
            output::raw(&data)?;
        }
        return Ok(());
    }
    let target = target(given, &download.name)?;
    let mut file = Partial::create(&target)?;
    let mut done = 0u64;
    while let Some(data) = download.next().await? {
        file.write(&data)?;
        done += u64::try_from(data.len()).unwrap_or(0);
        progress.bytes(done, None);
    }
    file.keep()?;
    drop(progress);
    output::note(format!("Exported to {}", target.display()));
    Ok(())
}

/// Where the file goes: to the name that was given, or under the daemon's name for it.
fn target(given: Option<&Path>, name: &str) -> anyhow::Result<PathBuf> {
    let name = Path::new(name).file_name().context("the daemon gave the file no name")?;
    let target = match given {
        Some(given) if given.is_dir() => given.join(name),
        Some(given) => given.to_owned(),
        None => PathBuf::from(name),
    };
    if target.exists() {
        bail!("`{}` exists already", target.display());
    }
    Ok(target)
}

/// A file that is gone again when it does not become whole.
struct Partial {
    file: File,
    path: PathBuf,
    whole: bool,
}

impl Partial {
    fn create(path: &Path) -> anyhow::Result<Partial> {
        let file = File::create_new(path).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Partial { file, path: path.to_owned(), whole: false })
    }

    fn write(&mut self, data: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(data).with_context(|| format!("cannot write `{}`", self.path.display()))
    }

    fn keep(mut self) -> anyhow::Result<()> {
        self.file.sync_all().with_context(|| format!("cannot write `{}`", self.path.display()))?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.whole {
            // The failure that brings us here is told already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// `import`.
pub async fn import(context: &Context, args: &Import) -> anyhow::Result<()> {
    let mut upload = BackupUpload {
        pool: args.storage.clone().unwrap_or_default(),
        config: args.config.iter().map(|word| words::pair(word)).collect::<Result<_, _>>()?,
        ..BackupUpload::default()
    };
    if let Some(name) = &args.name {
        remote::local(name)?.clone_into(&mut upload.name);
    }
    for word in &args.device {
        let (device, properties) =
            word.split_once(',').with_context(|| format!("`{word}` is not DEVICE,KEY=VALUE"))?;
        upload.devices.push((device.to_owned(), properties.to_owned()));
    }
    let (source, size) = open(&args.file)?;
    upload.size = size;
    let client = context.client().await?;
    let sent = Sent::default();
    let shown = args.file.display().to_string();
    let reply = watched(context, &shown, size, &sent, client.import_instance(source, &upload, &sent)).await?;
    context.finish(&client, reply, &format!("Importing {shown}")).await?;
    Ok(())
}

/// A backup to be sent, and its size where that is known; `-` is standard input.
pub fn open(path: &Path) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let about = file.metadata().with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok((Box::new(file), about.is_file().then_some(about.len())))
}

/// Shows how much of a backup is sent until it is.
pub async fn watched(
    context: &Context,
    shown: &str,
    size: Option<u64>,
    sent: &Sent,
    work: impl Future<Output = Answer<Reply>>,
) -> anyhow::Result<Reply> {
    let progress = Progress::new(&format!("Importing {shown}"), context.watched);
    tokio::pin!(work);
    let mut news = interval(Duration::from_millis(100));
    news.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            reply = &mut work => return Ok(reply?),
            _ = news.tick() => progress.bytes(sent.bytes(), size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_says_how_it_is_compressed() {
        for (asked, name, expected) in [
            (None, "web.tar.gz", "gzip"),
            (None, "web.tgz", "gzip"),
            (None, "web.tar.bz2", "bzip2"),
            (None, "web.tar.xz", "xz"),
            (None, "web.tar", "none"),
            (None, "web.tar.zst", "zstd"),
            (None, "web", "zstd"),
            (Some("xz"), "web.tar.gz", "xz"),
        ] {
            assert_eq!(compression(asked, Some(Path::new(name))), expected, "{name}");
        }
        assert_eq!(compression(None, None), "zstd");
    }
}
