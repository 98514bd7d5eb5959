//! `config template`.

use anyhow::Context as _;
use cabin_client::Client;

use crate::cli::config::{OneTemplate, Template};
use crate::output::{self, Table, table};
use crate::{programs, remote, terminal, words};

/// `config template`.
pub async fn run(client: &Client, command: Template) -> anyhow::Result<()> {
    match command {
        Template::Create(one) => {
            let text = match terminal::input_is_terminal() {
                true => String::new(),
                false => words::standard_input()?,
            };
            Ok(client.write_template(remote::local(&one.instance)?, &one.template, text).await?)
        }
        Template::Delete(one) => {
            Ok(client.delete_template(remote::local(&one.instance)?, &one.template).await?)
        }
        Template::Edit(one) => edit(client, &one).await,
        Template::List { instance, format } => {
            let names = client.templates(remote::local(&instance)?).await?;
            table::show(format.format, &names, || {
                let mut table = Table::new(["FILENAME"]);
                names.iter().for_each(|name| table.row([name.clone()]));
                table
            })
        }
        Template::Show(one) => {
            let text = client.template(remote::local(&one.instance)?, &one.template).await?;
            Ok(output::raw(text.as_bytes())?)
        }
    }
}

async fn edit(client: &Client, one: &OneTemplate) -> anyhow::Result<()> {
    let instance = remote::local(&one.instance)?;
    let text = match terminal::input_is_terminal() {
        false => words::standard_input()?,
        true => {
            let before = client.template(instance, &one.template).await?;
            let after = programs::edit(before.as_bytes(), ".tpl")?;
            let after = String::from_utf8(after).context("a template is text")?;
            if after == before {
                return Ok(());
            }
            after
        }
    };
    Ok(client.write_template(instance, &one.template, text).await?)
}
