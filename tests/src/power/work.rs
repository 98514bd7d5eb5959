//! The work: changes of every kind, each with the state it leads to.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::journal::{Journal, State};
use super::look;
use crate::api;
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
    "create near",
    "create far",
    "mark",
    "mark",
    "snapshot",
    "snapshot",
    "note",
    "note",
    "mark",
    "mark",
    "restore",
    "restore",
    "start",
    "marked snapshot",
    "profile create",
    "network create",
    "copy",
    "copy snapshot",
    "stop",
    "rename",
    "rename",
    "rename snapshot",
    "pool create",
    "alias create",
    "create far",
    "network update",
    "profile update",
    "restore",
    "delete snapshot",
    "delete",
    "profile rename",
    "pool delete",
    "network delete",
    "image delete",
    "import",
    "create near",
    "alias delete",
    "profile delete",
    "delete",
    "network rename",
];

/// What changes are made with: a way to choose, and names that nothing has yet.
pub struct Deck {
    seed: u64,
    made: u64,
    running: BTreeSet<String>,
    far: PathBuf,
    driver: &'static str,
}

/// One change.
struct Change {
    what: String,
    /// The states on the way, without the last.
    through: Vec<State>,
    next: State,
    act: Box<dyn FnOnce(&Subject) -> Result<(), String>>,
}

const INSTANCES: &str = "/1.0/instances";

/// The words of a thing in a state.
pub(super) fn instance(pool: &str, note: &str, mark: &str) -> String {
    format!("pool={pool} note={note} mark={mark}")
}

fn word<'a>(text: &'a str, key: &str) -> &'a str {
    text.split(' ').find_map(|part| part.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
}

impl Deck {
    /// One whose choices follow from a number. `far` is the directory for the pool elsewhere, with that driver.
    #[must_use]
    pub fn new(seed: u64, far: &Path, driver: &'static str) -> Deck {
        Deck { seed: seed | 1, made: 0, running: BTreeSet::new(), far: far.to_owned(), driver }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        // xorshift64; what matters is that a seed that was printed brings the same again.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        usize::try_from(self.seed % u64::try_from(end.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    fn fresh(&mut self, beginning: &str) -> String {
        self.made += 1;
        format!("{beginning}{}", self.made)
    }

    /// Makes a change of that kind and notes it. `None` when there is nothing to make it with.
    ///
    /// # Errors
    /// What the daemon said; then it is noted as asked for, and not as done.
    pub fn play(&mut self, kind: &str, subject: &Subject, journal: &Journal) -> Option<Result<(), String>> {
        let now = journal.now();
        let change = self.instance_change(kind, &now).or_else(|| self.other_change(kind, &now))?;
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

    fn choose(&mut self, now: &State, beginning: &str, fit: impl Fn(&str) -> bool) -> Option<String> {
        let names: Vec<&str> =
            now.keys().filter_map(|key| key.strip_prefix(beginning)).filter(|name| fit(name)).collect();
        if names.is_empty() { None } else { Some(names[self.below(names.len())].to_owned()) }
    }

    fn instance_change(&mut self, kind: &str, now: &State) -> Option<Change> {
        let mut next = now.clone();
        let (what, act): (String, Box<dyn FnOnce(&Subject) -> Result<(), String>>) = match kind {
            "create near" | "create far" => {
                now.get("alias busybox")?;
                let name = self.fresh("i");
                let pool = if kind == "create far" { "far" } else { "default" };
                next.insert(format!("instance {name}"), instance(pool, "", "-"));
                let root = json!({ "root": { "type": "disk", "path": "/", "pool": pool } });
                let body = json!({ "name": name, "source": { "type": "image", "alias": "busybox" },
                    "devices": root });
                (format!("create {name} in {pool}"), ask("POST", INSTANCES.into(), body))
            }
            "note" => {
                let (name, note) = (self.choose(now, "instance ", |_| true)?, self.fresh("n"));
                set(&mut next, &format!("instance {name}"), "note", &note);
                let body = json!({ "config": { "user.note": note } });
                (format!("note of {name}"), ask("PATCH", format!("{INSTANCES}/{name}"), body))
            }
            "mark" | "marked snapshot" => return self.marked(kind == "mark", now),
            "snapshot" => {
                let (name, snapshot) = (self.choose(now, "instance ", |_| true)?, self.fresh("s"));
                snap(&mut next, &name, &snapshot);
                let body = json!({ "name": snapshot });
                (format!("snapshot {name}/{snapshot}"), ask("POST", snapshots(&name), body))
            }
            "restore" => {
                let of = self.choose(now, "snapshot ", |_| true)?;
                let (name, snapshot) = of.split_once('/')?;
                let value = now.get(&format!("snapshot {of}"))?;
                set(&mut next, &format!("instance {name}"), "note", word(value, "note"));
                // The files and the words are exchanged by two acts, and recovery finishes the second.
                set(&mut next, &format!("instance {name}"), "mark", word(value, "mark"));
                let body = json!({ "restore": snapshot });
                (format!("restore {of}"), ask("PUT", format!("{INSTANCES}/{name}"), body))
            }
            "copy" | "copy snapshot" => {
                let of =
                    self.choose(now, if kind == "copy" { "instance " } else { "snapshot " }, |_| true)?;
                let name = self.fresh("c");
                copied(&mut next, now, &of, &name);
                let pool = word(now.get(&format!("instance {}", of.split('/').next()?))?, "pool").to_owned();
                let root = json!({ "root": { "type": "disk", "path": "/", "pool": pool } });
                let body =
                    json!({ "name": name, "source": { "type": "copy", "source": of }, "devices": root });
                (format!("copy {of} to {name}"), ask("POST", INSTANCES.into(), body))
            }
            "rename" => {
                let running = self.running.clone();
                let old = self.choose(now, "instance ", |name| !running.contains(name))?;
                let new = self.fresh("r");
                renamed(&mut next, &old, &new);
                (
                    format!("rename {old} to {new}"),
                    ask("POST", format!("{INSTANCES}/{old}"), json!({ "name": new })),
                )
            }
            "rename snapshot" => {
                let (old, new) = (self.choose(now, "snapshot ", |_| true)?, self.fresh("t"));
                let (name, snapshot) = old.split_once('/')?;
                let value = next.remove(&format!("snapshot {old}"))?;
                next.insert(format!("snapshot {name}/{new}"), value);
                let target = format!("{}/{snapshot}", snapshots(name));
                (format!("rename snapshot {old} to {new}"), ask("POST", target, json!({ "name": new })))
            }
            "delete snapshot" => {
                let of = self.choose(now, "snapshot ", |_| true)?;
                let (name, snapshot) = of.split_once('/')?;
                next.remove(&format!("snapshot {of}"));
                let target = format!("{}/{snapshot}", snapshots(name));
                (format!("delete snapshot {of}"), ask("DELETE", target, Value::Null))
            }
            "delete" => {
                let running = self.running.clone();
                let name = self.choose(now, "instance ", |name| !running.contains(name))?;
                next.retain(|key, _| {
                    key != &format!("instance {name}") && !key.starts_with(&format!("snapshot {name}/"))
                });
                (format!("delete {name}"), ask("DELETE", format!("{INSTANCES}/{name}"), Value::Null))
            }
            "start" | "stop" => {
                let stops = kind == "stop";
                let running = self.running.clone();
                let name = self.choose(now, "instance ", |name| running.contains(name) == stops)?;
                if stops {
                    self.running.remove(&name)
                } else {
                    self.running.insert(name.clone())
                };
                let body = json!({ "action": kind, "force": true, "timeout": 30 });
                (format!("{kind} {name}"), ask("PUT", format!("{INSTANCES}/{name}/state"), body))
            }
            _ => return None,
        };
        Some(Change { what, through: Vec::new(), next, act })
    }

    /// A file in an instance, which is then sent to disk, or else is part of a snapshot.
    fn marked(&mut self, sync: bool, now: &State) -> Option<Change> {
        let (name, mark) = (self.choose(now, "instance ", |_| true)?, self.fresh("m"));
        let pool = word(now.get(&format!("instance {name}"))?, "pool").to_owned();
        let key = format!("instance {name}");
        let (mut emptied, mut next) = (now.clone(), now.clone());
        set(&mut emptied, &key, "mark", "-");
        set(&mut next, &key, "mark", &mark);
        let written = next.clone();
        let snapshot = self.fresh("s");
        if !sync {
            snap(&mut next, &name, &snapshot);
        }
        let far = self.far.clone();
        let act = Box::new({
            let name = name.clone();
            move |subject: &Subject| {
                push(subject, &name, &mark)?;
                if sync {
                    let tree = look::tree(subject, &far, &pool, &format!("containers/{name}"));
                    let synced =
                        [tree.join("mark"), tree].map(|it| File::open(it).and_then(|it| it.sync_all()));
                    return synced.into_iter().collect::<Result<_, _>>().map_err(|why| why.to_string());
                }
                subject.ask("POST", &snapshots(&name), &json!({ "name": snapshot })).map(drop)
            }
        });
        let what = if sync { format!("mark in {name}") } else { format!("mark and snapshot of {name}") };
        Some(Change { what, through: vec![emptied, written], next, act })
    }

    fn other_change(&mut self, kind: &str, now: &State) -> Option<Change> {
        let mut next = now.clone();
        let (noun, verb) = kind.split_once(' ').unwrap_or((kind, ""));
        let plain = |name: &str| !matches!(name, "default" | "cabinbr0" | "far" | "busybox");
        let (what, act) = match (noun, verb) {
            ("import", _) => {
                if now.contains_key("alias busybox") {
                    return None;
                }
                next.insert("alias busybox".to_owned(), "whole".to_owned());
                let act: Box<dyn FnOnce(&Subject) -> Result<(), String>> =
                    Box::new(|subject| subject.import("busybox").map(drop));
                ("import".to_owned(), act)
            }
            ("image", _) => {
                now.get("alias busybox")?;
                next.retain(|key, _| !key.starts_with("alias "));
                let act: Box<dyn FnOnce(&Subject) -> Result<(), String>> = Box::new(|subject| {
                    let target = format!("/1.0/images/{}", fingerprint(subject)?);
                    subject.ask("DELETE", &target, &Value::Null).map(drop)
                });
                ("delete the image".to_owned(), act)
            }
            ("alias", "create") => {
                now.get("alias busybox")?;
                let name = self.fresh("a");
                next.insert(format!("alias {name}"), "whole".to_owned());
                let made = name.clone();
                let act: Box<dyn FnOnce(&Subject) -> Result<(), String>> = Box::new(move |subject| {
                    let body = json!({ "name": made, "target": fingerprint(subject)? });
                    subject.ask("POST", "/1.0/images/aliases", &body).map(drop)
                });
                (format!("make alias {name}"), act)
            }
            ("alias", _) => {
                let name = self.choose(now, "alias ", plain)?;
                next.remove(&format!("alias {name}"));
                (
                    format!("delete alias {name}"),
                    ask("DELETE", format!("/1.0/images/aliases/{name}"), Value::Null),
                )
            }
            ("pool", "far") => {
                next.insert("pool far".to_owned(), String::new());
                let body = json!({ "name": "far", "driver": self.driver, "config": { "source": self.far } });
                ("make the far pool".to_owned(), ask("POST", "/1.0/storage-pools".into(), body))
            }
            _ => {
                let (target, body) = match noun {
                    "pool" => ("/1.0/storage-pools", json!({ "driver": "dir", "config": {} })),
                    "profile" => ("/1.0/profiles", json!({ "config": {}, "devices": {} })),
                    "network" => (
                        "/1.0/networks",
                        json!({ "type": "bridge",
                        "config": { "ipv4.address": "none", "ipv6.address": "none" } }),
                    ),
                    _ => return None,
                };
                return self.plain_change(noun, verb, now, (target, body));
            }
        };
        Some(Change { what, through: Vec::new(), next, act })
    }

    /// Changes of what has a description and nothing else that matters here.
    fn plain_change(
        &mut self,
        noun: &str,
        verb: &str,
        now: &State,
        (target, mut body): (&'static str, Value),
    ) -> Option<Change> {
        let mut next = now.clone();
        let key = |name: &str| format!("{noun} {name}");
        let known = |name: &str| !matches!(name, "default" | "cabinbr0" | "far");
        let text = self.fresh("d");
        body["description"] = json!(text);
        let name = match verb {
            "create" => self.fresh(noun.get(..3)?),
            _ => self.choose(now, &key(""), known)?,
        };
        let act = match verb {
            "create" => {
                next.insert(key(&name), text);
                body["name"] = json!(name);
                ask("POST", target.to_owned(), body)
            }
            "update" => {
                next.insert(key(&name), text);
                ask("PUT", format!("{target}/{name}"), body)
            }
            "rename" => {
                let value = next.remove(&key(&name))?;
                let new = self.fresh(noun.get(..3)?);
                next.insert(key(&new), value);
                ask("POST", format!("{target}/{name}"), json!({ "name": new }))
            }
            _ => {
                next.remove(&key(&name));
                ask("DELETE", format!("{target}/{name}"), Value::Null)
            }
        };
        Some(Change { what: format!("{verb} {noun} {name}"), through: Vec::new(), next, act })
    }
}

fn ask(method: &'static str, target: String, body: Value) -> Box<dyn FnOnce(&Subject) -> Result<(), String>> {
    Box::new(move |subject| subject.ask(method, &target, &body).map(drop))
}

fn fingerprint(subject: &Subject) -> Result<String, String> {
    let alias = subject.ask("GET", "/1.0/images/aliases/busybox", &Value::Null)?;
    Ok(alias["target"].as_str().unwrap_or_default().to_owned())
}

fn push(subject: &Subject, name: &str, mark: &str) -> Result<(), String> {
    let target = format!("{INSTANCES}/{name}/files?path=/mark");
    let headers = [("X-Incus-type", "file"), ("Content-Type", "application/octet-stream")];
    let reply = api::send(&subject.socket(), "POST", &target, &headers, format!("<{mark}>").as_bytes());
    let reply = reply.map_err(|why| format!("no answer: {why}"))?;
    if reply.status == 200 { Ok(()) } else { Err(reply.error()) }
}

fn snapshots(name: &str) -> String {
    format!("{INSTANCES}/{name}/snapshots")
}

/// Changes one word of a thing.
fn set(state: &mut State, key: &str, what: &str, value: &str) {
    let Some(text) = state.get(key) else { return };
    let of = |name| if name == what { value } else { word(text, name) };
    let new = instance(of("pool"), of("note"), of("mark"));
    state.insert(key.to_owned(), new);
}

fn snap(state: &mut State, name: &str, snapshot: &str) {
    if let Some(value) = state.get(&format!("instance {name}")).cloned() {
        state.insert(format!("snapshot {name}/{snapshot}"), value);
    }
}

/// A copy of an instance has its snapshots, that of a snapshot none.
fn copied(next: &mut State, now: &State, of: &str, name: &str) {
    let noun = if of.contains('/') { "snapshot" } else { "instance" };
    if let Some(value) = now.get(&format!("{noun} {of}")) {
        next.insert(format!("instance {name}"), value.clone());
    }
    for (key, value) in now {
        if let Some(snapshot) = key.strip_prefix(&format!("snapshot {of}/")) {
            next.insert(format!("snapshot {name}/{snapshot}"), value.clone());
        }
    }
}

fn renamed(next: &mut State, old: &str, new: &str) {
    let moved = |key: &str| {
        if key == format!("instance {old}") {
            return format!("instance {new}");
        }
        match key.strip_prefix(&format!("snapshot {old}/")) {
            Some(snapshot) => format!("snapshot {new}/{snapshot}"),
            None => key.to_owned(),
        }
    };
    *next = std::mem::take(next).into_iter().map(|(key, value)| (moved(&key), value)).collect();
}
