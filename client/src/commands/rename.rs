//! `rename` and `move`.

use super::Context;
use crate::cli::instance::Rename;
use crate::remote;

/// `rename`.
pub async fn run(context: &Context, args: &Rename) -> anyhow::Result<()> {
    let (name, new) = (remote::local(&args.name)?, remote::local(&args.new)?);
    let client = context.client().await?;
    let reply = client.rename_instance(name, new).await?;
    context.finish(&client, reply, &format!("Renaming {name}")).await?;
    Ok(())
}
