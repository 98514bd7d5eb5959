//! `operation`.

use super::Context;
use crate::cli::system::Operation;
use crate::output::{self, Table, table, text};

/// `operation`.
pub async fn run(context: &Context, command: Operation) -> anyhow::Result<()> {
    let client = context.client().await?;
    match command {
        Operation::Delete { id } => {
            client.cancel_operation(&id).await?;
            output::line(format!("Operation {id} deleted"))?;
            Ok(())
        }
        Operation::List(list) => {
            let mut operations: Vec<_> = client.operations().await?.into_values().flatten().collect();
            operations.sort_by(|a, b| a.created_at.cmp(&b.created_at));
            table::show(list.format.format, &operations, || {
                let mut table = Table::new(["ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED"]);
                for operation in &operations {
                    table.row([
                        operation.id.clone(),
                        format!("{:?}", operation.class).to_uppercase(),
                        operation.description.clone(),
                        operation.status.to_uppercase(),
                        if operation.may_cancel { "YES" } else { "NO" }.to_owned(),
                        text::time(&operation.created_at),
                    ]);
                }
                table
            })
        }
        Operation::Show { id } => output::yaml::show(&client.operation(&id).await?),
    }
}
