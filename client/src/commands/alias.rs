//! `image alias`.

use cabin_client::Client;

use super::image::{alias_entry, fingerprint};
use crate::cli::image::Alias;
use crate::output::{Table, table};
use crate::remote;

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
        Alias::List(list) => {
            let aliases = client.image_aliases().await?;
            table::show(list.format.format, &aliases, || {
                let mut table = Table::new(["ALIAS", "FINGERPRINT", "TYPE", "DESCRIPTION"]);
                for alias in &aliases {
                    let fingerprint: String = alias.target.chars().take(12).collect();
                    let kind = alias.kind.to_uppercase();
                    table.row([alias.name.clone(), fingerprint, kind, alias.description.clone()]);
                }
                table
            })?;
        }
        Alias::Rename { alias, new } => {
            client.rename_image_alias(remote::local(&alias)?, &new).await?;
        }
    }
    Ok(())
}
