//! `storage`.

use cabin_api::storage::PoolsPost;
use cabin_client::{Client, StoragePools};
use serde_json::{Value, json};

use super::Context;
use super::object::{Part, Target};
use crate::cli::storage::Storage;
use crate::output::{self, Table, table, text};
use crate::{remote, words};

const ORDER: &[&str] = &["config", "description", "name", "driver", "used_by", "status", "locations"];

/// `storage`.
pub async fn run(context: &Context, command: Storage) -> anyhow::Result<()> {
    let client = &context.client().await?;
    match command {
        Storage::Volume(command) => return super::volume::run(context, command).await,
        Storage::Create { name, driver, config, description } => {
            let yaml = words::piped_yaml()?;
            let mut post: PoolsPost = serde_json::from_value(Value::Object(output::yaml::parse(&yaml)?))?;
            remote::local(&name)?.clone_into(&mut post.name);
            post.driver = driver;
            post.config.0.extend(words::pairs(&config)?);
            post.description = description.unwrap_or(post.description);
            let reply = client.create_pool(&post).await?;
            context.finish(client, reply, &format!("Creating {name}")).await?;
            output::line(format!("Storage pool {name} created"))?;
        }
        Storage::Delete { names } => {
            for name in &names {
                let reply = client.delete_pool(remote::local(name)?).await?;
                context.finish(client, reply, &format!("Deleting {name}")).await?;
                output::line(format!("Storage pool {name} deleted"))?;
            }
        }
        Storage::Edit { name } => Target::pool(&name)?.edit(context, client).await?,
        Storage::Get { name, key, property } => {
            Target::pool(&name)?.get(client, &key, Part::from_flag(property)).await?;
        }
        Storage::Info { name, bytes } => info(client, remote::local(&name)?, bytes).await?,
        Storage::List(list) => {
            let pools = client.pools().await?;
            table::show(list.format.format, &pools, || rows(&pools))?;
        }
        Storage::Set { name, words, property } => {
            let pairs = words::pairs(&words)?;
            Target::pool(&name)?.set(context, client, &pairs, Part::from_flag(property)).await?;
        }
        Storage::Show { name } => Target::pool(&name)?.show(client, ORDER).await?,
        Storage::Unset { name, key, property } => {
            Target::pool(&name)?.unset(context, client, &key, Part::from_flag(property)).await?;
        }
    }
    Ok(())
}

fn rows(pools: &StoragePools) -> Table {
    let mut table = Table::new(["NAME", "DRIVER", "SOURCE", "DESCRIPTION", "USED BY", "STATE"]);
    for pool in pools {
        table.row([
            pool.name.clone(),
            pool.driver.clone(),
            pool.config.0.get("source").cloned().unwrap_or_default(),
            pool.description.clone(),
            pool.used_by.len().to_string(),
            pool.status.to_uppercase(),
        ]);
    }
    table
}

async fn info(client: &Client, name: &str, bytes: bool) -> anyhow::Result<()> {
    let (pool, resources) = tokio::try_join!(client.pool(name), client.pool_resources(name))?;
    let pool = pool.value;
    let size = |count: u64| if bytes { count.to_string() } else { text::size_u64(count) };
    let info = json!({
        "name": pool.name, "driver": pool.driver, "description": pool.description,
        "space used": size(resources.space.used), "total space": size(resources.space.total),
    });
    let used = json!(pool.used_by);
    let order = &["name", "description", "driver", "space used", "total space"];
    if let Value::Object(info) = info {
        let said = format!("info:\n{}", indented(&output::yaml::ordered(&info, order)?));
        output::raw(said.as_bytes())?;
    }
    output::raw(format!("used by:\n{}", indented(&output::yaml::text(&used)?)).as_bytes())?;
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
