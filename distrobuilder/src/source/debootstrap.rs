//! A tree of Debian's packages, made by mmdebstrap: every early package in one pass.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use cabin_sys::command::{Program, Programs};

use crate::definition::{Definition, PackageAction};
use crate::error::{Error, Result, io};
use crate::inside;

/// What mmdebstrap says as it goes, how far it then is (in percent), and how we say it.
const SAID: &[(&str, u64, &str)] = &[
    ("running apt-get update", 5, "fetching package lists"),
    ("downloading packages", 15, "downloading packages"),
    ("extracting archives", 45, "unpacking packages"),
    ("installing essential", 55, "installing essential packages"),
    ("installing remaining", 70, "installing packages"),
    ("cleaning package lists", 95, "cleaning up"),
];

/// How much of what a failed mmdebstrap said is kept, in lines.
const TAIL: usize = 25;

/// Fills the empty directory `tree`. `helper` is the
/// distrobuilder binary, under which mmdebstrap runs; `on` hears what is being done, and how far it is in percent.
///
/// # Errors
/// When mmdebstrap is missing or fails.
pub fn fill(
    programs: &Programs,
    helper: &Path,
    definition: &Definition,
    tree: &Path,
    on: &mut dyn FnMut(&str, u64),
) -> Result<()> {
    let missing = |source| Error::Program { act: "make a tree of Debian's packages", source };
    let mut command = programs.command(Program::Mmdebstrap).map_err(missing)?;
    arguments(&mut command, definition, tree)?;
    let mut child = inside::leashed(helper, &command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io("start", "mmdebstrap"))?;
    let mut tail: Vec<String> = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line.map_err(io("read what it says:", "mmdebstrap"))?;
            let line = String::from_utf8_lossy(&line).trim().chars().take(400).collect::<String>();
            if let Some((_, percent, words)) = SAID.iter().find(|(said, ..)| line.contains(said)) {
                on(words, *percent);
            }
            if !line.is_empty() {
                tail.push(line);
            }
            if tail.len() > TAIL {
                tail.remove(0);
            }
        }
    }
    let status = child.wait().map_err(io("wait for", "mmdebstrap"))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Source { program: "mmdebstrap", said: format!("{status}\n{}", tail.join("\n")) })
}

fn arguments(command: &mut Command, definition: &Definition, tree: &Path) -> Result<()> {
    let source = &definition.source;
    let variant = if source.variant.is_empty() { "minbase" } else { &source.variant };
    command
        .args(["--mode=root", "--format=directory"])
        .arg(format!("--variant={variant}"))
        .arg(format!("--architectures={}", definition.mapped_architecture()))
        .arg(format!("--components={}", source.components.join(",")));
    if !source.check_valid_until {
        command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    }
    let early = early(definition);
    if !early.is_empty() {
        command.arg(format!("--include={}", early.join(",")));
    }
    command.arg(&source.suite).arg(tree);
    command.arg(format!("deb {} {} {}", source.url, source.suite, source.components.join(" ")));
    for line in repositories(definition)? {
        command.arg(line);
    }
    Ok(())
}

/// The packages that come with the first tree.
fn early(definition: &Definition) -> Vec<String> {
    let sets = definition.packages.iter().flat_map(|packages| &packages.sets);
    sets.filter(|set| set.early && set.action == PackageAction::Install && set.passes(&definition.image))
        .flat_map(|set| set.packages.iter().cloned())
        .collect()
}

/// The lines of the further repositories.
fn repositories(definition: &Definition) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for repository in definition.packages.iter().flat_map(|packages| &packages.repositories) {
        if repository.passes(&definition.image) {
            let text = definition.fill("a repository", &repository.url)?;
            lines.extend(
                text.lines().map(str::trim).filter(|line| line.starts_with("deb ")).map(str::to_owned),
            );
        }
    }
    Ok(lines)
}
