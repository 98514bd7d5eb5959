//! `image`.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cabin_api::image::{Image, ImageAliasesEntry};
use cabin_client::{Client, ImageFile, ImageUpload, Part as Piece, Reply, Sent};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::object::{Part, Target};
use super::{Context, alias, all, create};
use crate::cli::Filters;
use crate::cli::image::{Image as Command, Import, List};
use crate::output::progress::Progress;
use crate::output::{self, text};
use crate::{remote, words};

/// `image`.
pub async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    let client = &context.client().await?;
    match command {
        Command::Alias(command) => alias::run(client, command).await?,
        Command::Build { name } => {
            let reply = client.build_image(remote::image(&name)?).await?;
            let made = context.finish(client, reply, &format!("Building {name}")).await?;
            said_fingerprint("Image built", &made)?;
        }
        Command::Delete { images } => {
            for image in &images {
                let fingerprint = fingerprint(client, image).await?;
                let reply = client.delete_image(&fingerprint).await?;
                context.finish(client, reply, &format!("Deleting {image}")).await?;
            }
        }
        Command::Edit { image } => target(client, &image).await?.edit(context, client).await?,
        Command::Export { image, target } => export(context, client, &image, target.as_deref()).await?,
        Command::GetProperty { image, key } => {
            target(client, &image).await?.get(client, &key, Part::Key).await?;
        }
        Command::Import(args) => import(context, client, args).await?,
        Command::Info { image } => {
            let fingerprint = fingerprint(client, &image).await?;
            let image = client.image(&fingerprint).await?.value;
            output::raw(about(&image).as_bytes())?;
        }
        Command::List(args) => list(client, &args).await?,
        Command::SetProperty { image, key, value } => {
            let pairs = [(key, value)].into();
            target(client, &image).await?.set(context, client, &pairs, Part::Key).await?;
        }
        Command::Show { image } => target(client, &image).await?.show_writable(client).await?,
        Command::UnsetProperty { image, keys } => {
            target(client, &image).await?.unset(context, client, &keys, Part::Key).await?;
        }
    }
    Ok(())
}

/// The fingerprint behind an alias or the beginning of a fingerprint.
pub async fn fingerprint(client: &Client, word: &str) -> anyhow::Result<String> {
    let word = remote::image(word)?;
    if create::is_fingerprint(word) {
        return Ok(word.to_owned());
    }
    match client.image_alias(word).await {
        Ok(alias) => Ok(alias.value.target),
        // The beginning of a fingerprint can look like an alias.
        Err(error) if error.is_not_found() => match client.image(word).await {
            Ok(image) => Ok(image.value.fingerprint),
            Err(_) => Err(error).with_context(|| format!("image `{word}` not found")),
        },
        Err(error) => Err(error.into()),
    }
}

async fn target(client: &Client, word: &str) -> anyhow::Result<Target> {
    Ok(Target::image(&fingerprint(client, word).await?))
}

async fn list(client: &Client, args: &List) -> anyhow::Result<()> {
    let usual = if args.all_projects { "elfpdatsu" } else { "lfpdatsu" };
    let columns = output::image::columns(args.columns.as_deref().unwrap_or(usual))?;
    let mut images: Vec<Image> = all(client, "/1.0/images", args.all_projects, &Filters::default()).await?;
    images.retain(|image| args.filter.iter().all(|word| output::image::matches(image, word)));
    images.sort_by(|a, b| output::image::first_alias(a).cmp(output::image::first_alias(b)));
    let rows = || output::image::rows(&columns, &images);
    output::table::show(args.format.format, &images, rows)
}

fn about(image: &Image) -> String {
    let yes = |truth: bool| if truth { "yes" } else { "no" };
    let never = |time: String| if time.is_empty() { "never".to_owned() } else { time };
    let mut said = format!("Fingerprint: {}\n", image.fingerprint);
    said += &format!("Size: {}\nArchitecture: {}\n", text::size(image.size), image.architecture);
    said += &format!("Type: {}\nPublic: {}\nTimestamps:\n", image.kind, yes(image.public));
    for (head, time) in
        [("Created", &image.created_at), ("Uploaded", &image.uploaded_at), ("Expires", &image.expires_at)]
    {
        said += &format!("    {head}: {}\n", never(text::time(time)));
    }
    said += &format!("    Last used: {}\nProperties:\n", never(text::time(&image.last_used_at)));
    for (key, value) in &image.properties.0 {
        said += &format!("    {key}: {value}\n");
    }
    said += "Aliases:\n";
    for alias in &image.aliases {
        said += &format!("    - {}\n", alias.name);
    }
    said += &format!("Cached: {}\nAuto update: {}\n", yes(image.cached), yes(image.auto_update));
    said += "Profiles:\n";
    for profile in &image.profiles {
        said += &format!("    - {profile}\n");
    }
    said
}

async fn import(context: &Context, client: &Client, args: Import) -> anyhow::Result<()> {
    let mut upload = ImageUpload { metadata: args.metadata, public: args.public, ..ImageUpload::default() };
    for word in &args.rest {
        if !word.contains('=') && upload.rootfs.is_none() {
            upload.rootfs = Some(PathBuf::from(word));
        } else {
            upload.properties.push(words::pair(word)?);
        }
    }
    if args.reuse {
        for alias in &args.alias {
            match client.delete_image_alias(alias).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
    }
    upload.aliases = args.alias;
    let reply = send(context, client, &upload).await?;
    let made = context.finish(client, reply, "Importing the image").await?;
    said_fingerprint("Image imported", &made)
}

async fn send(context: &Context, client: &Client, upload: &ImageUpload) -> anyhow::Result<Reply> {
    let sent = Sent::default();
    let total: Option<u64> = [Some(&upload.metadata), upload.rootfs.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| std::fs::metadata(path).ok().map(|data| data.len()))
        .sum();
    let progress = Progress::new("Sending the image", context.watched);
    let work = client.upload_image(upload, &sent);
    tokio::pin!(work);
    let mut news = interval(Duration::from_millis(100));
    news.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            reply = &mut work => return Ok(reply?),
            _ = news.tick() => progress.bytes(sent.bytes(), total),
        }
    }
}

fn said_fingerprint(what: &str, made: &Value) -> anyhow::Result<()> {
    let fingerprint = made["fingerprint"].as_str().unwrap_or("not told");
    output::line(format!("{what} with fingerprint: {fingerprint}"))?;
    Ok(())
}

async fn export(context: &Context, client: &Client, image: &str, target: Option<&str>) -> anyhow::Result<()> {
    let fingerprint = fingerprint(client, image).await?;
    let mut download = client.export_image(&fingerprint).await?;
    let progress = Progress::new("Exporting the image", context.watched && target != Some("-"));
    let (mut done, mut file): (u64, Option<File>) = (0, None);
    while let Some(piece) = download.next().await? {
        match piece {
            Piece::Begin(part) if target == Some("-") => {
                if part.part == "rootfs" {
                    bail!("a split image has two files, so it cannot go to standard output");
                }
            }
            Piece::Begin(part) => {
                let path = export_path(target, &part)?;
                file =
                    Some(File::create(&path).with_context(|| format!("cannot write `{}`", path.display()))?);
            }
            Piece::Data(data) => {
                match &mut file {
                    Some(file) => file.write_all(&data).context("cannot write the image")?,
                    None => output::raw(&data)?,
                }
                done += u64::try_from(data.len()).unwrap_or(0);
                progress.bytes(done, download.length);
            }
        }
    }
    drop(progress);
    if target != Some("-") {
        output::note("Image exported successfully!");
    }
    Ok(())
}

/// Where a file of an image goes: into a directory under the daemon's name for it, or to the name that was
/// given with the ending of the daemon's.
fn export_path(target: Option<&str>, part: &ImageFile) -> anyhow::Result<PathBuf> {
    let name = Path::new(&part.name).file_name().and_then(|name| name.to_str());
    let name = name.context("the daemon gave the file no name")?;
    let target = Path::new(target.unwrap_or("."));
    if target.is_dir() {
        return Ok(target.join(name));
    }
    let ending = name.find('.').map_or("", |dot| name.get(dot..).unwrap_or_default());
    let mut path = target.as_os_str().to_owned();
    path.push(if part.part == "rootfs" && ending.is_empty() { ".root" } else { ending });
    Ok(path.into())
}

/// An alias as it is made.
pub fn alias_entry(name: &str, target: &str, description: Option<String>) -> ImageAliasesEntry {
    ImageAliasesEntry {
        name: name.to_owned(),
        target: target.to_owned(),
        description: description.unwrap_or_default(),
        kind: "container".to_owned(),
        ..ImageAliasesEntry::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exported_files_keep_their_endings() {
        let check = |target: Option<&str>, part: &str, name: &str, expected: &str| {
            let file = ImageFile { part: part.to_owned(), name: name.to_owned() };
            assert_eq!(export_path(target, &file).unwrap(), Path::new(expected), "{target:?} {name}");
        };
        check(None, "", "abc.tar.xz", "./abc.tar.xz");
        check(Some("/nowhere/web"), "", "abc.tar.xz", "/nowhere/web.tar.xz");
        check(Some("/nowhere/web"), "rootfs", "abc.squashfs", "/nowhere/web.squashfs");
        check(Some("/tmp"), "metadata", "../../etc/meta-abc.tar.xz", "/tmp/meta-abc.tar.xz");
    }
}
