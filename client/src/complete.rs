//! What the shell completes: names, asked of the daemon. A daemon that does not answer completes nothing.

use std::ffi::OsStr;
use std::future::Future;
use std::time::Duration;

use cabin_client::{Client, Result};
use clap_complete::CompletionCandidate;

/// The shell waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// Instances.
pub fn instances(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client| client.instance_names().await)
}

/// Profiles.
pub fn profiles(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client| client.profile_names().await)
}

/// Networks.
pub fn networks(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client| client.network_names().await)
}

/// Storage pools.
pub fn pools(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client| client.pool_names().await)
}

/// Image aliases.
pub fn images(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client| client.image_alias_names().await)
}

/// Operations.
pub fn operations(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client| {
        let all = client.operations().await?;
        Ok(all.into_values().flatten().map(|operation| operation.id).collect())
    })
}

/// Warnings.
pub fn warnings(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client| {
        let all = client.warnings().await?;
        Ok(all.iter().filter_map(|warning| Some(warning.get("uuid")?.as_str()?.to_owned())).collect())
    })
}

/// Profiles after `profile`, instances else.
pub fn device_owners(current: &OsStr) -> Vec<CompletionCandidate> {
    if std::env::args_os().any(|word| word == "profile") { profiles(current) } else { instances(current) }
}

/// Output formats.
pub fn formats(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = ["table", "compact", "csv", "json", "yaml", "markdown"];
    matching(current, names.map(str::to_owned).to_vec())
}

fn ask<F>(current: &OsStr, question: impl FnOnce(Client) -> F) -> Vec<CompletionCandidate>
where
    F: Future<Output = Result<Vec<String>>>,
{
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let answer = runtime.block_on(async {
        let work = async { question(Client::connect(crate::remote::socket(None)).await?).await };
        tokio::time::timeout(PATIENCE, work).await
    });
    matching(current, answer.ok().and_then(Result::ok).unwrap_or_default())
}

fn matching(current: &OsStr, names: Vec<String>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    names.into_iter().filter(|name| name.starts_with(&*current)).map(CompletionCandidate::new).collect()
}
