//! `export` and `import`: instances as files.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cabin_api::backup::InstanceBackupsPost;
use cabin_client::{BackupUpload, Sent};
use tokio::time::{MissedTickBehavior, interval};

use super::Context;
use crate::cli::backup::{Export, Import};
use crate::output::progress::Progress;
use crate::{output, remote, words};

/// `export`.
pub async fn export(context: &Context, args: &Export) -> anyhow::Result<()> {
    let name = remote::local(&args.instance)?;
    let to_stdout = args.target.as_deref() == Some(Path::new("-"));
    if let Some(target) = args.target.as_deref().filter(|target| !to_stdout && target.is_file()) {
        bail!("`{}` exists already", target.display());
    }
    let post = InstanceBackupsPost {
        instance_only: args.instance_only,
        optimized_storage: args.optimized_storage,
        compression_algorithm: args.compression.clone().unwrap_or_default(),
        ..InstanceBackupsPost::default()
    };
    let mut download = context.client().await?.export_instance(name, &post).await?;
    let progress = Progress::new(&format!("Exporting {name}"), context.watched && !to_stdout);
    if to_stdout {
        while let Some(data) = download.next().await? {
            output::raw(&data)?;
        }
        return Ok(());
    }
    let target = target(args.target.as_deref(), &download.name)?;
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
    let source: Box<dyn Read + Send> = if args.file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let path = args.file.display();
        let file = File::open(&args.file).with_context(|| format!("cannot read `{path}`"))?;
        let about = file.metadata().with_context(|| format!("cannot read `{path}`"))?;
        upload.size = about.is_file().then_some(about.len());
        Box::new(file)
    };
    let client = context.client().await?;
    let sent = Sent::default();
    let shown = args.file.display().to_string();
    let reply = {
        let progress = Progress::new(&format!("Importing {shown}"), context.watched);
        let work = client.import_instance(source, &upload, &sent);
        tokio::pin!(work);
        let mut news = interval(Duration::from_millis(100));
        news.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                reply = &mut work => break reply?,
                _ = news.tick() => progress.bytes(sent.bytes(), upload.size),
            }
        }
    };
    context.finish(&client, reply, &format!("Importing {shown}")).await?;
    Ok(())
}
