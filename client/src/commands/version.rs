//! `version`.

use super::Context;
use crate::output;

/// `version`. A daemon that does not answer is no failure.
pub async fn run(context: &Context) -> anyhow::Result<()> {
    output::line(format!("Client version: {}", env!("CARGO_PKG_VERSION")))?;
    let server = match context.client().await {
        Ok(client) => client.server().await?.value.environment.server_version,
        Err(_) => "unreachable".to_owned(),
    };
    output::line(format!("Server version: {server}"))?;
    Ok(())
}
