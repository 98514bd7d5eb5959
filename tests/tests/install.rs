//! `make install` puts everything in place below DESTDIR, and `make uninstall` takes all of it away.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cabin_tests::cli::run;

fn make(target: &str, dest: &Path) {
    let dest = format!("DESTDIR={}", dest.display());
    let mut command = std::process::Command::new("make");
    command.current_dir(cabin_tests::root()).args([target, &dest, "PREFIX=/usr", "PROFILE=debug"]);
    run(&mut command).ok();
}

/// Files below a folder.
fn files(place: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut left = vec![place.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    found
}

#[test]
fn what_is_installed_is_complete_and_goes_away_again() {
    let _ = cabin_tests::binary("cabin");
    let dest = std::env::temp_dir().join(format!("cabin-install-{}", std::process::id()));
    make("install", &dest);
    let put = files(&dest);
    for path in [
        "usr/bin/cabind",
        "usr/bin/cabin",
        "usr/bin/distrobuilder",
        "usr/libexec/cabin/cabin-init",
        "etc/systemd/system/cabind.service",
        "etc/systemd/system/cabind.socket",
        "usr/share/man/man1/cabin.1",
        "usr/share/bash-completion/completions/cabin",
    ] {
        assert!(put.contains(&dest.join(path)), "no {path} among {put:?}");
    }
    let unit = std::fs::read_to_string(dest.join("etc/systemd/system/cabind.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/cabind"), "{unit}");
    make("uninstall", &dest);
    let left = files(&dest);
    std::fs::remove_dir_all(&dest).unwrap();
    assert!(left.is_empty(), "left: {left:?}");
}
