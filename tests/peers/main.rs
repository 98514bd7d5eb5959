//! Starts the real Incus 7 and LXD 5 of Debian for `make bench`, in the way that docs/bench.md says of CABIN_PEERS.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cabin_tests::daemon::PLACE;
use cabin_tests::real_peer::{Kind, ON_DIR, RealPeer};

fn place(kind: Kind) -> PathBuf {
    Path::new(PLACE).join(format!("cabin-peers-{}", kind.name()))
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["up"] => {
            for kind in Kind::ALL {
                let manager = RealPeer::found(kind, &place(kind));
                let manager = manager.unwrap_or_else(|| RealPeer::start(kind, &place(kind)));
                println!("{}={}", kind.name(), manager.client_prefix());
                if kind == Kind::Incus {
                    println!("{}-dir={} --project {ON_DIR}", kind.name(), manager.client_prefix());
                }
            }
        }
        // It has the images of the other.
        ["import", name, ..] if name.ends_with("-dir") => {}
        ["import", name, alias, files @ ..] => {
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == *name);
            let manager = kind.and_then(|kind| RealPeer::found(kind, &place(kind)));
            let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
            manager.expect("a manager of that name that is up").import(alias, &files);
        }
        ["down"] => Kind::ALL
            .into_iter()
            .filter_map(|kind| RealPeer::found(kind, &place(kind)))
            .for_each(|manager| manager.stop()),
        _ => {
            eprintln!("cabin-peers up | import NAME ALIAS FILE… | down: see docs/bench.md");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
