//! `make install` puts everything in place below DESTDIR, also over a daemon that runs, and `make uninstall` takes
//! all of it away.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cabin_tests::cli::{host, run};
use cabin_tests::wait::until_true;
use cabin_tests::{api, audit, images};

fn make(target: &str, dest: &Path) {
    let dest = format!("DESTDIR={}", dest.display());
    let mut command = std::process::Command::new("make");
    command.current_dir(cabin_tests::root()).args([
        target,
        &dest,
        "PREFIX=/usr",
        &format!("PROFILE={}", cabin_tests::profile()),
    ]);
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
    ] {
        assert!(put.contains(&dest.join(path)), "no {path} among {put:?}");
    }
    for (path, word) in [
        ("etc/systemd/system/cabind.service", "ExecStart=/usr/bin/cabind"),
        ("usr/share/man/man1/cabin.1", ".TH cabin 1"),
        ("usr/share/man/man1/cabin-launch.1", "Create an instance from an image and start it"),
        ("usr/share/man/man1/cabin-storage-volume-attach.1", "Attach a custom volume to an instance"),
        ("usr/share/bash-completion/completions/cabin", "-F _clap_complete_cabin cabin"),
        ("usr/share/zsh/site-functions/_cabin", "#compdef cabin"),
        (
            "usr/share/fish/vendor_completions.d/cabin.fish",
            "complete --keep-order --exclusive --command cabin",
        ),
    ] {
        let text = std::fs::read_to_string(dest.join(path)).unwrap_or_else(|why| panic!("{path}: {why}"));
        assert!(text.contains(word), "no `{word}` in {path}:\n{text}");
    }
    make("uninstall", &dest);
    let left = files(&dest);
    std::fs::remove_dir_all(&dest).unwrap();
    eprintln!("files that are installed: {} points, {} leftovers", put.len(), left.len());
    assert!(left.is_empty(), "left: {left:?}");
}

/// A daemon that was installed, with a directory and network of its own.
struct Installed {
    dest: PathBuf,
    dir: PathBuf,
    netns: String,
    child: Option<Child>,
}

impl Installed {
    fn start() -> Installed {
        let id = std::process::id();
        let place = |what: &str| PathBuf::from(format!("/var/tmp/cabin-test-{what}{id}"));
        let mut installed =
            Installed { dest: place("i"), dir: place("u"), netns: format!("cbtu{id}"), child: None };
        make("install", &installed.dest);
        host(&["ip", "netns", "add", &installed.netns]).ok();
        installed.boot();
        installed
    }

    fn boot(&mut self) {
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.netns))
            .arg(self.dest.join("usr/bin/cabind"))
            .args(["--log", "warn", "--dir"])
            .arg(&self.dir)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let socket = self.dir.join("unix.socket");
        until_true("the daemon to be ready", 30, || {
            api::send(&socket, "GET", "/internal/ready", &[], b"").is_ok_and(|reply| reply.status == 200)
        });
    }

    fn cabin(&self, words: &[&str]) -> String {
        run(Command::new(self.dest.join("usr/bin/cabin")).args(words).env("CABIN_DIR", &self.dir)).ok()
    }

    fn init(&self, name: &str) -> String {
        let found = self.cabin(&["query", &format!("/1.0/instances/{name}/state")]);
        let state: serde_json::Value = serde_json::from_str(&found).unwrap();
        state["pid"].to_string()
    }

    fn end(&mut self) {
        let mut child = self.child.take().unwrap();
        host(&["kill", "-TERM", &child.id().to_string()]).ok();
        until_true("the daemon to end", 30, || child.try_wait().is_ok_and(|ended| ended.is_some()));
    }

    fn inodes(&self) -> Vec<u64> {
        ["usr/bin/cabind", "usr/bin/cabin", "usr/libexec/cabin/cabin-init"]
            .map(|file| self.dest.join(file).metadata().unwrap().ino())
            .to_vec()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = api::send(&self.dir.join("unix.socket"), "PUT", "/internal/shutdown", &[], b"");
            let _ = child.wait();
        }
        audit::clear(&self.dir, &self.netns);
        let _ = std::fs::remove_dir_all(&self.dest);
    }
}

#[test]
fn installing_over_a_running_daemon_is_an_upgrade_that_no_container_notices() {
    let mut installed = Installed::start();
    let files = images::files("busybox");
    let image = files[0].display().to_string();
    installed.cabin(&["image", "import", &image, "--alias", "busybox"]);
    installed.cabin(&["launch", "busybox", "old"]);
    let (init, inodes) = (installed.init("old"), installed.inodes());

    make("install", &installed.dest);
    let now = installed.inodes();
    assert!(now.iter().zip(&inodes).all(|(new, old)| new != old), "a file was overwritten in place");
    let left = files_named_new(&installed.dest);
    eprintln!("programs that an upgrade replaces: {} points, {left} leftovers", now.len());
    assert_eq!(left, 0, "something half installed is left");
    // The old daemon goes on, with the new helpers.
    assert_eq!(installed.cabin(&["exec", "old", "--", "echo", "well"]).trim(), "well");
    installed.cabin(&["launch", "busybox", "between"]);
    installed.end();
    installed.boot();
    assert_eq!(installed.init("old"), init);
    for name in ["old", "between"] {
        assert_eq!(installed.cabin(&["exec", name, "--", "echo", "well"]).trim(), "well");
        installed.cabin(&["restart", "--force", name]);
        installed.cabin(&["delete", "--force", name]);
    }
    eprintln!("containers that an upgrade leaves alone: 2 points");
}

fn files_named_new(place: &Path) -> usize {
    files(place).iter().filter(|path| path.extension().is_some_and(|end| end == "new")).count()
}
