//! `query`: a raw request.

use anyhow::{Context as _, bail};
use cabin_api::operation::Operation;
use cabin_client::{Address, Error};
use serde_json::Value;

use super::Context;
use crate::cli::system::Query;
use crate::{output, words};

/// `query`.
pub async fn run(context: &Context, args: Query) -> anyhow::Result<()> {
    let method = args.method.to_uppercase().parse().context("this is not an HTTP method")?;
    let path = args.address.strip_prefix("local:").unwrap_or(&args.address);
    if !path.starts_with('/') {
        bail!("`{path}` does not begin with `/`");
    }
    let data = match args.data.as_deref() {
        Some("-") => Some(words::standard_input()?),
        Some(data) => match data.strip_prefix('@') {
            Some(file) => {
                Some(std::fs::read_to_string(file).with_context(|| format!("cannot read `{file}`"))?)
            }
            None => Some(data.to_owned()),
        },
        None => None,
    };
    let client = context.client().await?;
    let (code, text) = client.raw(method, &Address::new(path), data).await?;
    if args.raw {
        output::line(text.trim_end())?;
        return Ok(());
    }
    let Ok(reply) = serde_json::from_str::<Value>(&text) else {
        // Files and logs have no envelope.
        output::raw(text.as_bytes())?;
        return Ok(());
    };
    if reply["type"] == "error" {
        let text = reply["error"].as_str().unwrap_or_default().to_owned();
        return Err(Error::Refused { code, text }.into());
    }
    let mut metadata = match reply.get("metadata") {
        Some(metadata) => metadata.clone(),
        None => reply.clone(),
    };
    if args.wait && reply["type"] == "async" {
        let operation: Operation = serde_json::from_value(metadata).context("this is not an operation")?;
        metadata = serde_json::to_value(client.wait_operation(&operation.id).await?)?;
    }
    if !metadata.is_null() && metadata.as_str() != Some("") {
        output::line(serde_json::to_string_pretty(&metadata)?)?;
    }
    Ok(())
}
