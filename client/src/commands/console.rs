//! `console`.

use anyhow::bail;
use cabin_api::instance::ConsolePost;
use cabin_client::Client;

use super::Context;
use crate::cli::instance::Console;
use crate::{output, remote, session, terminal};

/// `console`.
pub async fn run(context: &Context, args: &Console) -> anyhow::Result<()> {
    let client = context.client().await?;
    if args.show_log {
        let log = client.console_log(remote::local(&args.name)?).await?;
        output::raw(log.as_bytes())?;
        return Ok(());
    }
    attach(&client, args).await
}

/// Attaches until the person lets go or the console ends.
pub async fn attach(client: &Client, args: &Console) -> anyhow::Result<()> {
    if args.kind != "console" {
        bail!("consoles of type `{}` are not supported", args.kind);
    }
    let (width, height) = terminal::size().unwrap_or((80, 24));
    let post = ConsolePost {
        width: width.into(),
        height: height.into(),
        kind: args.kind.clone(),
        force: args.force,
    };
    let console = client.console(remote::local(&args.name)?, &post).await?;
    session::console(console).await
}
