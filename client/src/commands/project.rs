//! `project`.

use super::Context;
use crate::cli::profile::Project;
use crate::output::{self, Table, table};

/// `project`.
pub async fn run(context: &Context, command: Project) -> anyhow::Result<()> {
    let client = context.client().await?;
    match command {
        Project::List(list) => {
            let projects = client.projects().await?;
            table::show(list.format.format, &projects, || {
                let mut table = Table::new(["NAME", "DESCRIPTION", "USED BY"]);
                for project in &projects {
                    let used = project.used_by.len().to_string();
                    table.row([project.name.clone(), project.description.clone(), used]);
                }
                table
            })
        }
        Project::Show { name } => output::yaml::show(&client.project_named(&name).await?.value),
    }
}
