//! `image alias`.

use cabin_api::image::ImageAliasesEntry;
use cabin_client::Client;

use super::image::{alias_entry, fingerprint};
use crate::cli::image::Alias;
use crate::output::columns::Column;
use crate::remote;

const COLUMNS: &[Column<ImageAliasesEntry>] = &[
    Column { letter: 'a', head: "ALIAS", cell: |it| it.name.clone() },
    Column { letter: 'f', head: "FINGERPRINT", cell: |it| it.target.chars().take(12).collect() },
    Column { letter: 't', head: "TYPE", cell: |it| it.kind.to_uppercase() },
    Column { letter: 'd', head: "DESCRIPTION", cell: |it| it.description.clone() },
];

/// `image alias`.
pub async fn run(client: &Client, command: Alias) -> anyhow::Result<()> {
    match command {
        Alias::Create { alias, fingerprint: image, description } => {
            let target = fingerprint(client, &image).await?;
            client.create_image_alias(&alias_entry(remote::local(&alias)?, &target, description)).await?;
        }
        Alias::Delete { aliases } => {
            for alias in &aliases {
                client.delete_image_alias(remote::local(alias)?).await?;
            }
        }
        Alias::List { filter, list } => {
            let mut aliases = client.image_aliases().await?;
            let meant = |alias: &ImageAliasesEntry| {
                filter.iter().any(|word| alias.name.contains(word) || alias.target.contains(word))
            };
            aliases.retain(|alias| filter.is_empty() || meant(alias));
            list.show(COLUMNS, "aftd", &aliases)?;
        }
        Alias::Rename { alias, new } => {
            client.rename_image_alias(remote::local(&alias)?, &new).await?;
        }
    }
    Ok(())
}
