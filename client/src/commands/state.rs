//! `start`, `stop`, `restart`, `pause`, `resume`: of some instances at once, or of all.

use anyhow::bail;
use cabin_api::StatusCode;
use cabin_api::instance::{Instance, InstanceStatePut};
use cabin_client::Client;
use futures_util::{StreamExt, stream};

use super::Context;
use crate::cli::instance::{Console, Names, StateChange};
use crate::{output, remote};

/// Requests under way at once.
const AT_ONCE: usize = 16;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Let its init run.
    Start,
    /// End it.
    Stop,
    /// End it and let it run again.
    Restart,
    /// Halt its processes.
    Freeze,
    /// Let them go on.
    Unfreeze,
}

impl Action {
    fn wire(self) -> &'static str {
        match self {
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Restart => "restart",
            Action::Freeze => "freeze",
            Action::Unfreeze => "unfreeze",
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Action::Start => "Starting",
            Action::Stop => "Stopping",
            Action::Restart => "Restarting",
            Action::Freeze => "Freezing",
            Action::Unfreeze => "Resuming",
        }
    }
}

/// `start`, `stop`, `restart`.
pub async fn run(context: &Context, action: Action, args: StateChange) -> anyhow::Result<()> {
    let put = InstanceStatePut {
        action: action.wire().to_owned(),
        timeout: args.timeout,
        force: args.force,
        stateful: args.stateful,
    };
    if args.console.is_some() && (args.names.all || args.names.names.len() != 1) {
        bail!("--console needs exactly one instance");
    }
    let client = context.client().await?;
    change(context, &client, action, &args.names, &put).await?;
    if let Some(kind) = args.console
        && let Some(name) = args.names.names.first()
    {
        let name = remote::local(name)?.to_owned();
        let console = Console { name, show_log: false, force: false, kind };
        super::console::attach(&client, &console).await?;
    }
    Ok(())
}

/// `pause` and `resume`.
pub async fn run_plain(context: &Context, action: Action, names: Names) -> anyhow::Result<()> {
    let put = InstanceStatePut { action: action.wire().to_owned(), timeout: -1, ..Default::default() };
    let client = context.client().await?;
    change(context, &client, action, &names, &put).await
}

async fn change(
    context: &Context,
    client: &Client,
    action: Action,
    names: &Names,
    put: &InstanceStatePut,
) -> anyhow::Result<()> {
    let again = InstanceStatePut { action: Action::Unfreeze.wire().to_owned(), ..put.clone() };
    if names.all {
        // The daemon leaves out whoever an action is not for: with both, each is met by one.
        if action == Action::Start && client.instances(None).await?.iter().any(is_frozen) {
            let reply = client.set_all_instances_state(&again).await?;
            context.finish(client, reply, "Resuming all instances").await?;
        }
        let reply = client.set_all_instances_state(put).await?;
        context.finish(client, reply, &format!("{} all instances", action.doing())).await?;
        return Ok(());
    }
    let names = local_names(&names.names)?;
    each(context, &names, action.wire(), async |context, name| {
        // What is paused is started by going on (as Incus's client has it).
        let frozen = action == Action::Start
            && client.instance(name).await.is_ok_and(|instance| is_frozen(&instance.value));
        let (action, put) = if frozen { (Action::Unfreeze, &again) } else { (action, put) };
        let reply = client.set_instance_state(name, put).await?;
        context.finish(client, reply, &format!("{} {name}", action.doing())).await?;
        Ok(())
    })
    .await
}

fn is_frozen(instance: &Instance) -> bool {
    instance.status_code == StatusCode::Frozen
}

/// Names without their remotes.
pub fn local_names(names: &[String]) -> anyhow::Result<Vec<&str>> {
    names.iter().map(|name| remote::local(name)).collect()
}

/// Does `work` for every name, many at once. A single failure is told as it is; of several, each by name.
pub async fn each(
    context: &Context,
    names: &[&str],
    verb: &str,
    work: impl AsyncFn(&Context, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if let [name] = names {
        return work(context, name).await;
    }
    // Several moving lines at once would only overwrite each other.
    let quiet = &Context { watched: false, ..context.clone() };
    let work = &work;
    let results: Vec<_> = stream::iter(names.iter().copied())
        .map(|name| async move { (name, work(quiet, name).await) })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let failed: Vec<_> =
        results.iter().filter_map(|(name, result)| Some((name, result.as_ref().err()?))).collect();
    for (name, error) in &failed {
        output::note(format!("cannot {verb} `{name}`: {}", output::failure::chain(error)));
    }
    match failed.len() {
        0 => Ok(()),
        some => bail!("cannot {verb} {some} of {} instances", names.len()),
    }
}
