//! `admin`: setting up and controlling the daemon.

use std::time::Duration;

use anyhow::{Context as _, bail};
use cabin_api::network::NetworksPost;
use cabin_api::storage::PoolsPost;
use cabin_client::Client;
use serde_json::json;
use tokio::time::{interval, timeout};

use super::object::{Target, entry};
use super::{Context, preseed};
use crate::cli::system::{Admin, Init};
use crate::output::{self, Table, table};

/// How often a daemon that starts or ends is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// `admin`.
pub async fn run(context: &Context, command: Admin) -> anyhow::Result<()> {
    match command {
        Admin::Init(args) => init(context, args).await,
        Admin::Waitready { timeout } => {
            limited(timeout, "the daemon to be ready", wait_ready(context)).await?
        }
        Admin::Audit { list } => audit(context, list.format.format).await,
        Admin::Shutdown { force: _, timeout } => {
            let client = context.client().await?;
            limited(timeout, "the daemon to end", shut_down(&client)).await?
        }
    }
}

async fn audit(context: &Context, format: table::Format) -> anyhow::Result<()> {
    let strays = context.client().await?.audit().await?;
    table::show(format, &strays, || {
        let mut table = Table::new(["KIND", "NAME", "WHY"]);
        for stray in &strays {
            table.row(["kind", "name", "why"].map(|key| stray[key].as_str().unwrap_or_default()));
        }
        table
    })?;
    match strays.len() {
        0 => Ok(()),
        found => bail!("{found} things on this host are left over or missing"),
    }
}

async fn limited<T>(seconds: u64, what: &str, work: impl Future<Output = T>) -> anyhow::Result<T> {
    if seconds == 0 {
        return Ok(work.await);
    }
    let done = timeout(Duration::from_secs(seconds), work).await;
    done.ok().with_context(|| format!("waited {seconds} s for {what}"))
}

async fn wait_ready(context: &Context) -> anyhow::Result<()> {
    let mut look = interval(LOOK);
    loop {
        look.tick().await;
        let Ok(client) = context.client().await else { continue };
        if client.ready().await.is_ok() {
            return Ok(());
        }
    }
}

/// Ends when the daemon's process has. The socket does not tell: a service manager goes on listening there, and
/// starts the daemon again for whoever connects.
async fn shut_down(client: &Client) -> anyhow::Result<()> {
    let pid = client.server().await?.value.environment.server_pid;
    client.shutdown().await?;
    let mut look = interval(LOOK);
    // A process that has ended but was not waited for yet has no command line any more.
    while std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()) {
        look.tick().await;
    }
    Ok(())
}

async fn init(context: &Context, args: Init) -> anyhow::Result<()> {
    let client = &context.client().await?;
    if args.dump {
        return preseed::dump(client).await;
    }
    if args.preseed {
        return preseed::apply(context, client).await;
    }
    if !args.auto && !args.minimal {
        bail!("nobody is asked questions here: use --auto, or --preseed with YAML on standard input");
    }
    let pool = args.storage_pool.as_deref().unwrap_or("default");
    if !client.pool_names().await?.iter().any(|name| name == pool) {
        let driver = args.storage_backend.unwrap_or_else(|| "overlay".to_owned());
        let post = PoolsPost { name: pool.to_owned(), driver, ..PoolsPost::default() };
        let reply = client.create_pool(&post).await?;
        context.finish(client, reply, "Creating the pool").await?;
        output::line(format!("Storage pool {pool} created"))?;
    }
    let managed = client.networks().await?.into_iter().find(|network| network.managed);
    let network = match managed {
        Some(network) => network.name,
        None => create_network(context, client).await?,
    };
    Target::profile("default")?
        .change(context, client, |object| {
            let devices = entry(object, "devices")?;
            devices.entry("root").or_insert(json!({"type": "disk", "path": "/", "pool": pool}));
            devices.entry("eth0").or_insert(json!({"type": "nic", "name": "eth0", "network": network}));
            Ok(())
        })
        .await
}

async fn create_network(context: &Context, client: &Client) -> anyhow::Result<String> {
    let name = free_name(client).await?;
    let mut post = NetworksPost { name, kind: "bridge".to_owned(), ..NetworksPost::default() };
    for key in ["ipv4.address", "ipv6.address"] {
        post.config.0.insert(key.to_owned(), "auto".to_owned());
    }
    let reply = client.create_network(&post).await?;
    context.finish(client, reply, "Creating the network").await?;
    output::line(format!("Network {} created", post.name))?;
    Ok(post.name)
}

/// The first name of a bridge that no interface of the daemon's host has.
async fn free_name(client: &Client) -> anyhow::Result<String> {
    let mut number = 0;
    loop {
        let name = format!("cabinbr{number}");
        match client.network(&name).await {
            Ok(_) => number += 1,
            Err(why) if why.is_not_found() => return Ok(name),
            Err(why) => return Err(why.into()),
        }
    }
}
