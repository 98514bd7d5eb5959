//! `delete`: with force, running instances are stopped first.

use cabin_api::instance::InstanceStatePut;
use cabin_client::{Client, Error};

use super::{Context, state};
use crate::cli::instance::Delete;
use crate::output;

/// `delete`.
pub async fn run(context: &Context, args: Delete) -> anyhow::Result<()> {
    let mut names = state::local_names(&args.names)?;
    if args.interactive {
        let mut wanted = Vec::new();
        for name in names {
            if matches!(output::ask(&format!("Delete {name} (yes/no)? "))?.as_str(), "y" | "yes") {
                wanted.push(name);
            }
        }
        names = wanted;
    }
    if names.is_empty() {
        return Ok(());
    }
    let client = &context.client().await?;
    let force = args.force;
    state::each(context, &names, "delete", async |context, name| {
        if let Some((instance, snapshot)) = name.split_once('/') {
            return super::snapshot::delete(context, client, instance, snapshot).await;
        }
        let refused = match delete(context, client, name, force).await {
            Err(error) if force => error,
            done => return done,
        };
        if refused.downcast_ref::<Error>().is_some_and(Error::is_not_found) {
            return Err(refused);
        }
        stop_then_delete(context, client, name, refused).await
    })
    .await
}

async fn delete(context: &Context, client: &Client, name: &str, force: bool) -> anyhow::Result<()> {
    let reply = client.delete_instance(name, force).await?;
    context.finish(client, reply, &format!("Deleting {name}")).await?;
    Ok(())
}

/// For daemons that do not stop by themselves what is to be deleted.
async fn stop_then_delete(
    context: &Context,
    client: &Client,
    name: &str,
    refused: anyhow::Error,
) -> anyhow::Result<()> {
    let stop = InstanceStatePut { action: "stop".to_owned(), timeout: -1, force: true, stateful: false };
    let stopped = match client.set_instance_state(name, &stop).await {
        Ok(reply) => context.finish(client, reply, &format!("Stopping {name}")).await.is_ok(),
        Err(_) => false,
    };
    if !stopped {
        // It was not running, so that is not why it could not be deleted.
        return Err(refused);
    }
    match delete(context, client, name, true).await {
        // One that is deleted when it stops is gone by now.
        Err(error) if error.downcast_ref::<Error>().is_some_and(Error::is_not_found) => Ok(()),
        done => done,
    }
}
