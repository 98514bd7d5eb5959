//! A person's editor, sshfs, and the daemon's own doctor: the only programs the client runs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use anyhow::{Context as _, bail};

/// The text after the person has edited it. `suffix` ends the file's name, for the editor's colours.
pub fn edit(text: &[u8], suffix: &str) -> anyhow::Result<Vec<u8>> {
    let mut file = tempfile::Builder::new()
        .prefix("cabin-")
        .suffix(suffix)
        .tempfile()
        .context("cannot make a file to edit")?;
    file.write_all(text).context("cannot write the file to edit")?;
    file.flush().context("cannot write the file to edit")?;
    let path = file.into_temp_path();
    let status = run_editor(&path)?;
    if !status.success() {
        bail!("the editor ended with {status}, so nothing is changed");
    }
    // Editors may put a new file in the old one's place: read by name.
    std::fs::read(&path).context("cannot read the edited file")
}

fn run_editor(path: &Path) -> anyhow::Result<ExitStatus> {
    let chosen = ["VISUAL", "EDITOR"].into_iter().find_map(|key| std::env::var(key).ok());
    let candidates = match chosen.filter(|editor| !editor.trim().is_empty()) {
        Some(editor) => vec![editor],
        None => ["editor", "vi", "nano", "emacs"].map(str::to_owned).to_vec(),
    };
    for candidate in &candidates {
        let mut words = candidate.split_whitespace();
        let Some(program) = words.next() else { continue };
        match command(Path::new(program)).args(words).arg(path).status() {
            Ok(status) => return Ok(status),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot run the editor `{program}`")),
        }
    }
    bail!("no editor found; set EDITOR, or give YAML on standard input")
}

/// Asks the daemon's program about this host, when no daemon runs: the one beside this program, else the one
/// in the PATH.
pub fn daemon_doctor(raise: bool) -> anyhow::Result<Output> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("cabind")));
    let program = beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("cabind"));
    command(&program)
        .args(["doctor", "--json"])
        .args(raise.then_some("--raise"))
        .output()
        .with_context(|| format!("no daemon answers, and `{}` cannot be run", program.display()))
}

/// A program that the person has.
#[expect(clippy::disallowed_methods, reason = "the client runs as the person who calls it, with their PATH")]
pub fn command(program: &Path) -> Command {
    Command::new(program)
}
