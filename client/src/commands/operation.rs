//! `operation`.

use std::collections::BTreeMap;

use cabin_api::operation::Operation as Work;

use super::{Context, all};
use crate::cli::Filters;
use crate::cli::system::Operation;
use crate::output::columns::{Column, yes};
use crate::output::{self, text};

const COLUMNS: &[Column<Work>] = &[
    Column { letter: 'i', head: "ID", cell: |it| it.id.clone() },
    Column { letter: 't', head: "TYPE", cell: |it| format!("{:?}", it.class).to_uppercase() },
    Column { letter: 'd', head: "DESCRIPTION", cell: |it| it.description.clone() },
    Column { letter: 's', head: "STATE", cell: |it| it.status.to_uppercase() },
    Column { letter: 'c', head: "CANCELABLE", cell: |it| yes(it.may_cancel) },
    Column { letter: 'C', head: "CREATED", cell: |it| text::time(&it.created_at) },
    Column { letter: 'L', head: "LOCATION", cell: |it| it.location.clone() },
];

/// `operation`.
pub async fn run(context: &Context, command: Operation) -> anyhow::Result<()> {
    let client = &context.client().await?;
    match command {
        Operation::Delete { id } => {
            client.cancel_operation(&id).await?;
            output::line(format!("Operation {id} deleted"))?;
            Ok(())
        }
        Operation::List(list) => {
            let found: BTreeMap<String, Vec<Work>> =
                all(client, "/1.0/operations", list.all_projects, &Filters::default()).await?;
            let mut operations: Vec<Work> = found.into_values().flatten().collect();
            operations.sort_by(|a, b| a.created_at.cmp(&b.created_at));
            list.show(COLUMNS, "itdscC", &operations)
        }
        Operation::Show { id } => output::yaml::show(&client.operation(&id).await?),
    }
}
