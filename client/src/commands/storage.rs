//! `storage`.

use cabin_api::storage::{Pool, PoolsPost};
use cabin_client::Client;
use serde_json::{Value, json};

use super::object::{Part, Target};
use super::{Context, all};
use crate::cli::storage::Storage;
use crate::output::columns::Column;
use crate::output::{self, text};
use crate::{remote, words};

const ORDER: &[&str] = &["config", "description", "name", "driver", "used_by", "status", "locations"];

const COLUMNS: &[Column<Pool>] = &[
    Column { letter: 'n', head: "NAME", cell: |it| it.name.clone() },
    Column { letter: 'D', head: "DRIVER", cell: |it| it.driver.clone() },
    Column { letter: 'S', head: "SOURCE", cell: |it| it.config.0.get("source").cloned().unwrap_or_default() },
    Column { letter: 'd', head: "DESCRIPTION", cell: |it| it.description.clone() },
    Column { letter: 'u', head: "USED BY", cell: |it| it.used_by.len().to_string() },
    Column { letter: 's', head: "STATE", cell: |it| it.status.to_uppercase() },
];

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
        Storage::List { filters, list } => {
            let pools: Vec<_> = all(client, "/1.0/storage-pools", false, &filters).await?;
            list.show(COLUMNS, "nDSdus", &pools)?;
        }
        Storage::Set { name, words, property } => {
            let pairs = words::pairs(&words)?;
            Target::pool(&name)?.set(context, client, &pairs, Part::from_flag(property)).await?;
        }
        Storage::Show { name } => Target::pool(&name)?.show(client, ORDER).await?,
        Storage::Unset { name, keys, property } => {
            Target::pool(&name)?.unset(context, client, &keys, Part::from_flag(property)).await?;
        }
    }
    Ok(())
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
