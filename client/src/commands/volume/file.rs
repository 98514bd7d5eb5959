//! `storage volume file`: the verbs of `file`, in a volume.

use anyhow::Context as _;
use cabin_client::Client;

use crate::cli::volume::{FilePlace, VolumeFile};
use crate::commands::{Context, file, mount, pull, push};
use crate::remote;

/// `storage volume file`.
pub async fn run(context: &Context, client: &Client, command: VolumeFile) -> anyhow::Result<()> {
    match command {
        VolumeFile::Create { place, target, kind, force, ownership } => {
            let (owner, path) = parts(&place)?;
            file::create(client, (&owner, &path), target.as_deref(), &kind, force, &ownership).await
        }
        VolumeFile::Delete { place, force } => {
            let (owner, path) = parts(&place)?;
            file::delete(client, (&owner, &path), force).await
        }
        VolumeFile::Edit(place) => {
            let (owner, path) = parts(&place)?;
            file::edit(client, (&owner, &path)).await
        }
        VolumeFile::Mount { place, target } => {
            let (owner, path) = parts(&place)?;
            mount::run(client, (&owner, &path), &target).await
        }
        VolumeFile::Pull { place, target, recursive, create_dirs } => {
            let (owner, path) = parts(&place)?;
            pull::run(context, client, &[(&owner, &path)], &target, recursive, create_dirs).await
        }
        VolumeFile::Push { source, place, recursive, ownership } => {
            let (owner, path) = parts(&place)?;
            push::run(context, client, &[source], (&owner, &path), recursive, &ownership).await
        }
    }
}

/// Whose files (`POOL/VOLUME`), and the path.
fn parts(place: &FilePlace) -> anyhow::Result<(String, String)> {
    let pool = remote::local(&place.pool)?;
    let whole = place.path.strip_prefix("custom/").unwrap_or(&place.path);
    let (volume, path) =
        whole.split_once('/').with_context(|| format!("`{}` is not VOLUME/PATH", place.path))?;
    Ok((format!("{pool}/{volume}"), format!("/{path}")))
}
