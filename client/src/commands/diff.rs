//! `diff`.

use super::Context;
use crate::cli::snapshot::Diff;
use crate::output::{self, Table, table, text};
use crate::remote;

/// `diff`.
pub async fn run(context: &Context, args: &Diff) -> anyhow::Result<()> {
    let named = remote::local(&args.instance)?;
    let (instance, from) = named.split_once('/').unwrap_or((named, ""));
    let to = args.to.as_deref().unwrap_or_default();
    let found = context.client().await?.instance_diff(instance, from, to).await?;
    table::show(args.format.format, &found, || {
        let mut table = Table::new(["CHANGE", "TYPE", "BEFORE", "AFTER", "PATH"]);
        for entry in &found.entries {
            let size = |bytes: u64, there: bool| match entry.kind.as_str() {
                "file" if there => text::size_u64(bytes),
                _ => String::new(),
            };
            table.row([
                entry.change.to_uppercase(),
                entry.kind.to_uppercase(),
                size(entry.size_before, entry.change != "added"),
                size(entry.size_after, entry.change != "removed"),
                plain(&entry.path),
            ]);
        }
        table
    })?;
    if !found.complete && !args.format.format.wants_json() {
        let all = found.added + found.changed + found.removed;
        output::note(format!("{} of {all} differences are shown", found.entries.len()));
    }
    Ok(())
}

/// A guest's name for a file must not speak to the terminal.
fn plain(path: &str) -> String {
    path.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
