//! Images built on the spot from shipped definitions, by the `distrobuilder` program.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::Arc;

use cabin_api::image as api;
use cabin_sys::command::own_helper;
use serde::Deserialize;

use super::import::{Hints, import, stage};
use crate::{Error, Host, Op};

/// One line of the builder's progress.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Done {
        result: Built,
    },
    Step {
        step: String,
        #[serde(default)]
        done: u64,
        #[serde(default)]
        total: u64,
    },
}

#[derive(Deserialize)]
struct Built {
    meta: String,
    rootfs: Option<String>,
    alias: String,
}

/// The names of the definitions that can be built here.
///
/// # Errors
/// When the builder cannot be asked.
pub fn shipped(host: &Host) -> Result<Vec<String>, Error> {
    if let Some(names) = host.shipped.get() {
        return Ok(names.clone());
    }
    let mut builder = own_helper(&host.settings().builder);
    builder.arg("list");
    let said = cabin_sys::command::output(&mut builder)
        .map_err(Error::io("ask `distrobuilder` for its definitions"))?;
    let names: Vec<String> = String::from_utf8_lossy(&said)
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    Ok(host.shipped.get_or_init(|| names).clone())
}

/// Builds a shipped definition and takes the image in under the definition's name.
///
/// # Errors
/// When there is no such definition, or the build fails; its last words are in the error.
pub fn build(host: &Arc<Host>, op: &Op, name: &str) -> Result<api::Image, Error> {
    if !shipped(host)?.iter().any(|known| known == name) {
        return Err(Error::not_found("image definition", name));
    }
    let _one_at_a_time = host.building.lock();
    build_held(host, op, name)
}

/// As [`build`], for who holds the lock of building.
pub(super) fn build_held(host: &Arc<Host>, op: &Op, name: &str) -> Result<api::Image, Error> {
    let work = format!("images/.build-{}", uuid::Uuid::new_v4());
    let dir = host.dir().create_dir(&work, 0o700).map_err(Error::io("make a directory for the build"))?;
    let built = run(host, op, name, dir.path()).and_then(|built| take_in(host, op, name, &dir, &built));
    let removed = host.dir().remove_tree(&work).map_err(Error::io("remove the build's directory"));
    let image = built?;
    removed?;
    Ok(image)
}

fn run(host: &Host, op: &Op, name: &str, out: &std::path::Path) -> Result<Built, Error> {
    let failed = |said: String| Error::Build { name: name.to_owned(), said };
    op.progress("image_build_progress", format!("Building {name}"));
    let mut builder = own_helper(&host.settings().builder)
        .args(["build", name])
        .arg(out)
        .args(["--type", "unified", "--progress", "json", "--cache-dir"])
        .arg(host.settings().dir.join("cache"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io("start `distrobuilder`"))?;
    // Its last words are read beside its progress, so that neither pipe fills up and stops it.
    let listening = builder.stderr.take().map(|mut stderr| {
        std::thread::Builder::new().name("builder".to_owned()).spawn(move || {
            let mut said = Vec::new();
            let _ = stderr.by_ref().take(1 << 20).read_to_end(&mut said);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            said
        })
    });
    let errors = listening.transpose().map_err(|source| {
        let _ = builder.kill().and_then(|()| builder.wait());
        Error::io("listen to the builder")(source)
    })?;
    let mut built = None;
    if let Some(stdout) = builder.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(Error::io("read the builder's progress"))?;
            match serde_json::from_str(&line) {
                Ok(Line::Done { result }) => built = Some(result),
                Ok(Line::Step { step, done, total }) => {
                    let percent = (done * 100).checked_div(total);
                    let text = percent.map_or(step.clone(), |percent| format!("{step}: {percent}%"));
                    op.progress("image_build_progress", text);
                }
                Err(_) => {}
            }
        }
    }
    let status = builder.wait().map_err(Error::io("wait for `distrobuilder`"))?;
    let said = errors.and_then(|reader| reader.join().ok()).unwrap_or_default();
    match built {
        Some(built) if status.success() => Ok(built),
        _ => {
            let text = String::from_utf8_lossy(&said);
            let tail: Vec<&str> = text.trim().lines().rev().take(5).collect();
            Err(failed(tail.into_iter().rev().collect::<Vec<_>>().join(" / ")))
        }
    }
}

fn take_in(
    host: &Arc<Host>,
    op: &Op,
    name: &str,
    dir: &cabin_sys::dir::HostDir,
    built: &Built,
) -> Result<api::Image, Error> {
    let mut staging = stage(host)?;
    let copy = |path: &str, mut to: std::fs::File| -> Result<(), Error> {
        let file = path.rsplit('/').next().unwrap_or_default();
        let mut from = dir.open_file(file).map_err(Error::io(format!("open the built `{file}`")))?;
        std::io::copy(&mut from, &mut to).map_err(Error::io(format!("copy the built `{file}`")))?;
        Ok(())
    };
    copy(&built.meta, staging.meta()?)?;
    if let Some(rootfs) = &built.rootfs {
        let file = staging.rootfs()?;
        copy(rootfs, file)?;
    }
    let alias =
        api::ImageAlias { name: built.alias.clone(), description: format!("built from definition {name}") };
    let hints = Hints { aliases: vec![alias], built_from: name.to_owned(), ..Hints::default() };
    op.progress("image_build_progress", "Importing".to_owned());
    import(host, op, &staging, hints)
}
