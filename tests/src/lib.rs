//! What the tests stand on: a private daemon in a network of its own, the command lines that talk to it, an
//! auditor that looks for what it left on the host, and the rules that hold the tree in shape.
//!
//! It builds no binaries: `make test` builds the workspace first, and [`binary`] says so when one is missing.

pub mod api;
pub mod audit;
pub mod backup_verbs;
pub mod behind;
pub mod carry_verbs;
pub mod cli;
pub mod clients;
pub mod clock_verbs;
pub mod content;
pub mod daemon;
pub mod descriptors;
pub mod desk;
pub mod disk;
pub mod far;
pub mod fence;
pub mod host_state;
pub mod hostile;
pub mod images;
pub mod lab;
pub mod late;
pub mod machine;
pub mod manifest;
pub mod monitor;
pub mod peer;
pub mod plan;
pub mod pool_verbs;
pub mod power;
pub mod power_verbs;
pub mod race;
pub mod real_peer;
pub mod rules;
pub mod snapshot_verbs;
pub mod squeeze;
pub mod stage;
pub mod stream;
pub mod subject;
pub mod sweep;
pub mod swept;
pub mod tree;
pub mod verbs;
pub mod vitals;
pub mod volume_verbs;
pub mod wait;

use std::path::PathBuf;

/// The folder of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map_or_else(|| tests.clone(), std::path::Path::to_path_buf)
}

/// Which build is tested: `debug`, or what CABIN_PROFILE says.
#[must_use]
pub fn profile() -> String {
    std::env::var("CABIN_PROFILE").unwrap_or_else(|_| "debug".to_owned())
}

/// The path of a program of the workspace: as built without `--release`, or with it when CABIN_PROFILE says
/// `release`.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let path = root().join("target/x86_64-unknown-linux-gnu").join(profile()).join(name);
    assert!(path.exists(), "`{}` is missing: run `make build` (or `make release`) first", path.display());
    path
}
