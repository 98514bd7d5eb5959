//! What the shell completes: names, asked of the daemon. A daemon that does not answer completes nothing.

use std::ffi::OsStr;
use std::time::Duration;

use cabin_client::Client;
use clap::CommandFactory as _;
use clap_complete::CompletionCandidate;
use clap_complete::env::{Elvish, Fish, Powershell, Shells, Zsh};

mod bash;
mod key;
mod line;
mod owned;
mod place;

pub use self::key::{
    config_keys, config_options, config_pairs, device_keys, device_options, device_pairs, drivers,
    object_keys, object_pairs,
};
use self::line::Line;
pub use self::owned::{
    attached, device_types, devices, instances_and_snapshots, pools_and_volumes, snapshots, templates,
    volume_snapshots, volumes,
};
pub use self::place::{instance_places, local_then_instance_places, locals, volume_places};

/// The shell waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// The shells that can ask.
pub const SHELLS: Shells<'_> = Shells(&[&bash::WholeWords, &Elvish, &Fish, &Powershell, &Zsh]);

/// The command tree as the shell should see it: other names of a verb are known, the verb's own is shown.
pub fn tree() -> clap::Command {
    let mut tree = crate::cli::Cli::command();
    tree.build();
    own_names(tree)
}

fn own_names(command: clap::Command) -> clap::Command {
    command.mut_subcommands(|it| {
        let others: Vec<String> = it.get_visible_aliases().map(str::to_owned).collect();
        own_names(it.visible_alias(None).aliases(others))
    })
}

/// Instances.
pub fn instances(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, _| client.instance_names().await.ok())
}

/// Profiles.
pub fn profiles(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, _| client.profile_names().await.ok())
}

/// Networks.
pub fn networks(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, _| client.network_names().await.ok())
}

/// Storage pools.
pub fn pools(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, _| client.pool_names().await.ok())
}

/// Image aliases.
pub fn images(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, _| client.image_alias_names().await.ok())
}

/// Images that can be built.
pub fn definitions(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, _| client.image_definitions().await.ok())
}

/// Images there are and images that are built when they are first used.
pub fn usable_images(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, _| usable(client).await)
}

async fn usable(client: &Client) -> Option<Vec<String>> {
    let mut names = client.image_alias_names().await.ok()?;
    names.extend(client.image_definitions().await.unwrap_or_default());
    names.sort_unstable();
    names.dedup();
    Some(names)
}

/// An image, then the instance that gets it; the instance alone after `--empty`.
pub fn image_then_instance(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, line| {
        if line.all("words").is_empty() && !line.is_set("empty") {
            return usable(client).await;
        }
        client.instance_names().await.ok()
    })
}

/// Projects.
pub fn projects(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, _| {
        Some(client.projects().await.ok()?.into_iter().map(|project| project.name).collect())
    })
}

/// Operations.
pub fn operations(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, _| {
        let all = client.operations().await.ok()?;
        Some(all.into_values().flatten().map(|operation| operation.id).collect())
    })
}

/// Warnings.
pub fn warnings(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, _| {
        let all = client.warnings().await.ok()?;
        Some(all.iter().filter_map(|warning| Some(warning.get("uuid")?.as_str()?.to_owned())).collect())
    })
}

/// Profiles after `profile`, instances else.
pub fn device_owners(current: &OsStr) -> Vec<CompletionCandidate> {
    if Line::typed().is_under("profile") { profiles(current) } else { instances(current) }
}

/// Output formats.
pub fn formats(current: &OsStr) -> Vec<CompletionCandidate> {
    known(current, &["table", "compact", "csv", "json", "yaml", "markdown"])
}

/// Types of networks.
pub fn network_types(current: &OsStr) -> Vec<CompletionCandidate> {
    known(current, &["bridge"])
}

/// What `wait` waits for.
pub fn conditions(current: &OsStr) -> Vec<CompletionCandidate> {
    known(current, &["ip", "ipv4", "ipv6", "status=running", "status=stopped", "status=frozen"])
}

/// Kinds of events.
pub fn events(current: &OsStr) -> Vec<CompletionCandidate> {
    known(current, &["lifecycle", "logging", "operation"])
}

/// Levels of lines in the log.
pub fn levels(current: &OsStr) -> Vec<CompletionCandidate> {
    known(current, &["error", "warning", "info", "debug"])
}

fn known(current: &OsStr, names: &[&str]) -> Vec<CompletionCandidate> {
    matching(current, names.iter().map(|&name| name.to_owned()).collect())
}

/// Asks the daemon that the line names.
fn ask(
    current: &OsStr,
    question: impl AsyncFnOnce(&Client, &Line) -> Option<Vec<String>>,
) -> Vec<CompletionCandidate> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let line = Line::typed();
    let answer = runtime.block_on(async {
        let work = async {
            let client = Client::connect(crate::remote::socket(line.socket().as_deref())).await.ok()?;
            let client = match line.first("project") {
                Some(project) => client.in_project(&project),
                None => client,
            };
            question(&client, &line).await
        };
        tokio::time::timeout(PATIENCE, work).await
    });
    matching(current, answer.ok().flatten().unwrap_or_default())
}

fn matching(current: &OsStr, names: Vec<String>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let fit = names.into_iter().filter(|name| name.starts_with(&*current) && is_harmless(name));
    fit.map(CompletionCandidate::new).collect()
}

/// Whether the shell takes a word as it stands. It puts the word on the line unquoted, and some are chosen by
/// guests: a file with the name `$(reboot)` must not get there.
fn is_harmless(word: &str) -> bool {
    word.chars().all(|letter| letter.is_alphanumeric() || "/._-+=:,@%".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_run_is_not_offered() {
        for word in ["web/etc/a b", "web/$(reboot)", "web/`id`", "a;b", "a\nb", "a\x1b[2J", "~x", "*", "a'b"]
        {
            assert!(!is_harmless(word), "{word:?}");
        }
        assert!(is_harmless("web/srv/größe-1.0_a+b@c:d,e=f%"));
    }

    #[test]
    fn every_other_name_of_a_verb_is_hidden_from_the_shell() {
        fn check(command: &clap::Command) -> usize {
            assert_eq!(command.get_visible_aliases().count(), 0, "{}", command.get_name());
            let below: usize = command.get_subcommands().map(check).sum();
            below + command.get_all_aliases().count()
        }
        assert!(check(&tree()) > 30);
    }
}
