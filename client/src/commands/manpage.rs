//! `manpage`: the command tree as manual pages, or as one page of Markdown.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use clap::{Command, CommandFactory};

use crate::cli::Cli;
use crate::cli::system::Manpage;

/// `manpage`.
pub fn run(args: &Manpage) -> anyhow::Result<()> {
    let directory = args.directory.as_path();
    let failed = || format!("cannot write to `{}`", directory.display());
    std::fs::create_dir_all(directory).with_context(failed)?;
    let mut tree = Cli::command();
    tree.build();
    if args.markdown {
        return std::fs::write(directory.join("cli.md"), markdown(&tree)).with_context(failed);
    }
    write_pages(&tree, directory, "cabin").with_context(failed)
}

fn write_pages(command: &Command, directory: &Path, name: &str) -> std::io::Result<()> {
    let named = command.clone().name(name.to_owned()).bin_name(name.replace('-', " "));
    let mut page = Vec::new();
    clap_mangen::Man::new(named).render(&mut page)?;
    std::fs::write(directory.join(format!("{name}.1")), page)?;
    for below in shown(command) {
        write_pages(below, directory, &format!("{name}-{}", below.get_name()))?;
    }
    Ok(())
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
}

/// The whole tree on one page.
pub fn markdown(tree: &Command) -> String {
    let mut page =
        "# The `cabin` command line\n\nMade from the command tree itself: `cabin manpage --markdown docs` \
        writes it.\n"
            .to_owned();
    section(&mut page, tree, "cabin");
    page
}

fn section(page: &mut String, command: &Command, name: &str) {
    let mut command = command.clone().bin_name(name.to_owned()).term_width(100);
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    // Writing to a string cannot fail.
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    for below in shown(&command.clone()) {
        section(page, below, &format!("{name} {}", below.get_name()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_page_of_commands_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
        let mut tree = Cli::command();
        tree.build();
        let fresh = markdown(&tree);
        if std::env::var_os("CABIN_BLESS").is_some() {
            std::fs::write(&path, &fresh).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == fresh, "docs/cli.md is old: run `cabin manpage --markdown docs`");
    }
}
