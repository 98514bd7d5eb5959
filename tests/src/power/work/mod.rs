//! The work: changes of every kind, each with the state it leads to.

mod rows;
mod trees;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::journal::{Journal, State};
use crate::subject::Subject;

/// How long the long forms of tests take, in minutes; none unless `CABIN_TORTURE_MINUTES` says so.
#[must_use]
pub fn minutes() -> Option<u64> {
    std::env::var("CABIN_TORTURE_MINUTES").ok()?.parse().ok()
}

/// The kinds of changes, in an order in which each finds what it needs.
pub const ROUND: &[&str] = &[
    "import",
    "pool far",
    "instance create near",
    "instance create far",
    "pool disk",
    "instance create on disk",
    "instance mark",
    "instance mark",
    "instance mark",
    "instance snapshot",
    "instance snapshot",
    "volume create far",
    "instance note",
    "instance note",
    "instance mark",
    "instance mark",
    "instance restore",
    "instance restore",
    "start",
    "instance marked snapshot",
    "volume mark",
    "volume snapshot",
    "profile create",
    "network create",
    "instance copy",
    "instance copy snapshot",
    "volume mark",
    "volume restore",
    "stop",
    "instance rename",
    "instance rename",
    "instance rename snapshot",
    "pool create",
    "alias create",
    "publish",
    "instance move",
    "instance copy elsewhere",
    "instance mark",
    "instance refresh",
    "instance import",
    "instance refresh",
    "volume note",
    "volume rename",
    "instance create far",
    "network update",
    "profile update",
    "instance restore",
    "instance delete snapshot",
    "volume create near",
    "volume move",
    "instance rebuild",
    "instance delete",
    "profile rename",
    "pool delete",
    "volume delete snapshot",
    "network delete",
    "image delete",
    "import",
    "instance create near",
    "alias delete",
    "volume delete",
    "profile delete",
    "instance delete",
    "volume create far",
    "network create",
    "network rename",
];

/// The kinds of changes of a client beside the others, again and again. It needs nothing of theirs.
pub const BESIDE: &[&str] = &[
    "volume create near",
    "profile create",
    "volume mark",
    "volume snapshot",
    "network create",
    "volume note",
    "volume mark",
    "profile update",
    "volume restore",
    "volume rename",
    "profile rename",
    "network update",
    "volume delete snapshot",
    "volume delete",
    "network delete",
    "profile delete",
];

/// What changes are made with: a way to choose, and names that nothing has yet.
pub struct Deck {
    seed: u64,
    made: u64,
    running: BTreeSet<String>,
    far: PathBuf,
    driver: &'static str,
    /// What its names have before their number, when others work beside it.
    own: &'static str,
}

/// What is asked of the daemon.
type Act = Box<dyn FnOnce(&Subject) -> Result<(), String>>;

/// One change.
struct Change {
    what: String,
    /// The states on the way, without the last.
    through: Vec<State>,
    next: State,
    act: Act,
}

impl Change {
    /// One that has no states on its way.
    fn plain(what: String, next: State, act: Act) -> Change {
        Change { what, through: Vec::new(), next, act }
    }
}

impl Deck {
    /// One whose choices follow from a number. `far` is the directory for the pool elsewhere, with that driver.
    #[must_use]
    pub fn new(seed: u64, far: &Path, driver: &'static str) -> Deck {
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Deck { seed, made: 0, running: BTreeSet::new(), far: far.to_owned(), driver, own: "" }
    }

    /// One for a client beside others, with a letter for its names.
    #[must_use]
    pub fn beside(seed: u64, far: &Path, own: &'static str) -> Deck {
        Deck { own, ..Deck::new(seed, far, "") }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        // xorshift64; what matters is that the same seed brings the same again.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        usize::try_from(self.seed % u64::try_from(end.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    fn fresh(&mut self, beginning: &str) -> String {
        self.made += 1;
        format!("{beginning}{}{}", self.own, self.made)
    }

    fn choose(&mut self, now: &State, beginning: &str, fit: impl Fn(&str) -> bool) -> Option<String> {
        let names: Vec<&str> =
            now.keys().filter_map(|key| key.strip_prefix(beginning)).filter(|name| fit(name)).collect();
        if names.is_empty() { None } else { Some(names[self.below(names.len())].to_owned()) }
    }

    /// Makes a change of that kind and notes it. `None` when there is nothing to make it with.
    ///
    /// # Errors
    /// What the daemon said; then it is noted as asked for, and not as done.
    pub fn play(&mut self, kind: &str, subject: &Subject, journal: &Journal) -> Option<Result<(), String>> {
        let now = journal.now();
        let (noun, verb) = kind.split_once(' ').unwrap_or((kind, ""));
        let change = match noun {
            "instance" => self.tree_change(&trees::INSTANCE, verb, &now),
            "volume" => self.tree_change(&trees::VOLUME, verb, &now),
            "start" | "stop" => self.power(noun, &now),
            _ => self.row_change(noun, verb, &now),
        }?;
        let mut through = change.through;
        through.push(change.next.clone());
        journal.ask(&change.what, &through);
        let done = (change.act)(subject);
        // What is deleted is so even when not all of it could be removed.
        let deleted = |why: &String| change.what.starts_with("delete") && why.contains(" is deleted");
        if done.as_ref().err().is_none_or(deleted) {
            journal.acknowledge(change.next);
        }
        Some(done.map_err(|why| format!("{}: {why}", change.what)))
    }

    fn power(&mut self, verb: &str, now: &State) -> Option<Change> {
        let (stops, running) = (verb == "stop", self.running.clone());
        let name = self.choose(now, "instance ", |name| running.contains(name) == stops)?;
        if stops {
            self.running.remove(&name);
        } else {
            self.running.insert(name.clone());
        }
        let body = serde_json::json!({ "action": verb, "force": true, "timeout": 30 });
        let act = ask("PUT", format!("/1.0/instances/{name}/state"), body);
        Some(Change::plain(format!("{verb} {name}"), now.clone(), act))
    }
}

fn ask(method: &'static str, target: String, body: Value) -> Act {
    Box::new(move |subject| subject.ask(method, &target, &body).map(drop))
}

pub(super) use trees::words;
