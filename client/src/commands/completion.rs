//! `completion`: the lines that make a shell ask us.

use anyhow::Context as _;

use crate::cli::system::Completion;
use crate::{complete, output};

/// `completion`.
pub fn run(args: &Completion) -> anyhow::Result<()> {
    let shell = complete::SHELLS.completer(&args.shell).context("this shell is not known")?;
    let mut script = Vec::new();
    shell
        .write_registration("COMPLETE", "cabin", "cabin", "cabin", &mut script)
        .context("cannot make the completion script")?;
    output::raw(&script)?;
    Ok(())
}
