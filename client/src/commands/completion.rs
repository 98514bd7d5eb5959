//! `completion`: the lines that make a shell ask us.

use anyhow::Context as _;
use clap_complete::env::Shells;

use crate::cli::system::Completion;
use crate::output;

/// `completion`.
pub fn run(args: &Completion) -> anyhow::Result<()> {
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell).context("this shell is not known")?;
    let mut script = Vec::new();
    shell
        .write_registration("COMPLETE", "cabin", "cabin", "cabin", &mut script)
        .context("cannot make the completion script")?;
    output::raw(&script)?;
    Ok(())
}
