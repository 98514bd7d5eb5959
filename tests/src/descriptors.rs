//! What a daemon itself holds open, and the threads it has, by their kinds: what a verb that failed must give back.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::machine;
use crate::subject::Subject;

/// How many there are of each kind.
pub type Held = BTreeMap<String, usize>;

/// What there is one less of for a moment after each name that goes from the run directory: it is watched anew.
const PASSING: &str = "anon_inode:inotify";

/// Looks at the daemon now.
#[must_use]
pub fn held(subject: &Subject) -> Held {
    let mut found = Held::new();
    let place = format!("/proc/{}", subject.pid());
    for fd in entries(&format!("{place}/fd")) {
        if let Ok(target) = std::fs::read_link(fd) {
            *found.entry(kind(&subject.dir, &target)).or_default() += 1;
        }
    }
    found.remove(PASSING);
    for thread in entries(&format!("{place}/task")) {
        let name = std::fs::read_to_string(thread.join("comm")).unwrap_or_default();
        // Those that wait for requests come and go with them.
        if !name.starts_with("tokio") {
            *found.entry(format!("thread {}", name.trim())).or_default() += 1;
        }
    }
    found
}

fn entries(dir: &str) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// A path, or what kind of thing without one it is.
fn kind(dir: &Path, target: &Path) -> String {
    let text = target.to_string_lossy();
    match text.split_once(":[") {
        Some((kind, number)) if number.trim_end_matches(']').parse::<u64>().is_ok() => kind.to_owned(),
        // As many as are read at once.
        _ if target.starts_with(dir.join("database")) => "database".to_owned(),
        _ => text.into_owned(),
    }
}

/// What there is more of than before, and stays so for some seconds: the kinds, with both numbers.
#[must_use]
pub fn grown(subject: &Subject, before: &Held) -> Vec<String> {
    let deadline = Instant::now() + machine::time(Duration::from_secs(5));
    loop {
        let now = held(subject);
        let were = |kind: &String| before.get(kind).copied().unwrap_or_default();
        let more = now.iter().filter(|(kind, count)| **count > were(kind));
        let told: Vec<String> = more
            .map(|(kind, count)| format!("the daemon holds {count} of `{kind}`, {} before", were(kind)))
            .collect();
        if told.is_empty() || Instant::now() >= deadline {
            return told;
        }
        std::thread::park_timeout(Duration::from_millis(30));
    }
}
