//! `warning`.

use anyhow::Context as _;
use serde_json::Value;

use super::Context;
use crate::cli::system::Warning;
use crate::output::{self, Table, table, text};

/// `warning`.
pub async fn run(context: &Context, command: Warning) -> anyhow::Result<()> {
    let client = context.client().await?;
    let mut warnings = client.warnings().await?;
    match command {
        Warning::Acknowledge { id } => client.acknowledge_warning(&id).await.map(drop)?,
        Warning::Delete { id: Some(id), .. } => client.delete_warning(&id).await.map(drop)?,
        Warning::Delete { id: None, .. } => {
            for id in warnings.iter().filter_map(|warning| warning["uuid"].as_str()) {
                client.delete_warning(id).await?;
            }
        }
        Warning::List { list, all } => {
            warnings.retain(|warning| all || warning["status"] == "new");
            table::show(list.format.format, &warnings, || {
                let mut table =
                    Table::new(["UUID", "TYPE", "STATUS", "SEVERITY", "COUNT", "PROJECT", "LAST SEEN"]);
                for warning in &warnings {
                    let field = |key: &str| match &warning[key] {
                        Value::String(text) => text.clone(),
                        Value::Null => String::new(),
                        other => other.to_string(),
                    };
                    table.row([
                        field("uuid"),
                        field("type"),
                        field("status").to_uppercase(),
                        field("severity").to_uppercase(),
                        field("count"),
                        field("project"),
                        text::time(&field("last_seen_at")),
                    ]);
                }
                table
            })?;
        }
        Warning::Show { id } => {
            let warning = warnings.iter().find(|warning| warning["uuid"] == id.as_str());
            output::yaml::show(warning.with_context(|| format!("there is no warning `{id}`"))?)?;
        }
    }
    Ok(())
}
