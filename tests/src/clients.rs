//! The stock Incus clients of Debian, fetched once as packages and unpacked beside each other, never installed.

use std::path::{Path, PathBuf};

use crate::cli::{Outcome, host, run, run_with};
use crate::daemon::Daemon;
use crate::images::{CACHE, lock};

/// A release of Debian and the Incus client it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stock {
    /// Debian 13: Incus 6.0 LTS.
    Trixie,
    /// Debian sid: Incus 7.0 LTS.
    Sid,
}

impl Stock {
    /// Both.
    pub const ALL: [Stock; 2] = [Stock::Trixie, Stock::Sid];

    /// The suite's name in the archive.
    #[must_use]
    pub fn suite(self) -> &'static str {
        match self {
            Stock::Trixie => "trixie",
            Stock::Sid => "sid",
        }
    }

    /// The path of the client, fetched when it is not there.
    #[must_use]
    pub fn program(self) -> PathBuf {
        let place = Path::new(CACHE).join(format!("incus-client-{}", self.suite()));
        let program = place.join("root/usr/bin/incus");
        let _lock = lock(&place.with_extension("lock"));
        if !program.exists() {
            self.fetch(&place);
        }
        program
    }

    /// Runs the client against a daemon.
    pub fn run(self, daemon: &Daemon, words: &[&str]) -> Outcome {
        run(&mut daemon.command(&self.program(), words))
    }

    /// Runs the client with something to read.
    pub fn run_with(self, daemon: &Daemon, words: &[&str], stdin: &[u8]) -> Outcome {
        run_with(&mut daemon.command(&self.program(), words), stdin)
    }

    /// Asks apt, with lists and caches of its own, for the package of that suite.
    fn fetch(self, place: &Path) {
        let _ = std::fs::remove_dir_all(place);
        for folder in ["lists/partial", "cache/archives/partial", "deb"] {
            std::fs::create_dir_all(place.join(folder)).expect("a folder in the cache");
        }
        let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let source = format!("deb [signed-by={key}] http://deb.debian.org/debian {} main\n", self.suite());
        std::fs::write(place.join("sources.list"), source).expect("a list of sources");
        let at = place.display();
        let script = format!(
            "cd {at}/deb && set -- -o Dir::Etc::SourceList={at}/sources.list -o Dir::Etc::SourceParts=/dev/null \
             -o Dir::State::Lists={at}/lists -o Dir::Cache={at}/cache -o Acquire::Languages=none \
             -o Acquire::Check-Valid-Until=false -o Acquire::Retries=3 -o APT::Sandbox::User=root && \
             apt-get \"$@\" update -q && apt-get \"$@\" download -q incus-client && \
             dpkg-deb -x incus-client_*.deb {at}/root && rm -rf {at}/lists {at}/cache"
        );
        host(&["sh", "-c", &script]).ok();
    }
}
