//! Changes of instances and custom volumes: what has a tree on a disk, and snapshots of it.

use std::fs::File;

use serde_json::{Value, json};

use super::super::look;
use super::{Act, Change, Deck, State, ask};
use crate::api;
use crate::subject::Subject;

/// A kind of what has trees.
pub(super) struct Noun {
    /// What it is in a state, with its snapshots.
    thing: &'static str,
    snapshot: &'static str,
    /// The directory of a pool that holds them.
    directory: &'static str,
    /// Whether a snapshot keeps words, and gives them back.
    keeps_words: bool,
}

pub(super) const INSTANCE: Noun =
    Noun { thing: "instance", snapshot: "snapshot", directory: "containers", keeps_words: true };
pub(super) const VOLUME: Noun =
    Noun { thing: "volume", snapshot: "part", directory: "custom", keeps_words: false };

/// What a state says of a thing: its pool, what its config says, and what its tree says.
pub(in super::super) fn words(pool: &str, note: &str, mark: &str) -> String {
    format!("pool={pool} note={note} mark={mark}")
}

fn word<'a>(text: &'a str, key: &str) -> &'a str {
    text.split(' ').find_map(|part| part.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
}

/// Changes one word of a thing.
fn set(state: &mut State, key: &str, what: &str, value: &str) {
    let Some(text) = state.get(key) else { return };
    let of = |name| if name == what { value } else { word(text, name) };
    let new = words(of("pool"), of("note"), of("mark"));
    state.insert(key.to_owned(), new);
}

impl Noun {
    fn key(&self, name: &str) -> String {
        format!("{} {name}", self.thing)
    }

    fn part(&self, name: &str, snapshot: &str) -> String {
        format!("{} {name}/{snapshot}", self.snapshot)
    }

    fn pool<'a>(&self, state: &'a State, name: &str) -> &'a str {
        state.get(&self.key(name)).map_or("default", |text| word(text, "pool"))
    }

    /// A thing goes to another pool, its snapshots with it.
    fn moved(&self, next: &mut State, name: &str, pool: &str) {
        let parts: Vec<String> =
            next.keys().filter(|key| key.starts_with(&self.part(name, ""))).cloned().collect();
        for key in parts.iter().chain([&self.key(name)]) {
            set(next, key, "pool", pool);
        }
    }

    /// The address of all, and of the one of that name.
    fn target(&self, state: &State, name: &str) -> (String, String) {
        let pool = self.pool(state, name);
        let all = match self.thing {
            "volume" => format!("/1.0/storage-pools/{pool}/volumes/custom"),
            _ => "/1.0/instances".to_owned(),
        };
        (all.clone(), format!("{all}/{name}"))
    }

    fn snap(&self, state: &mut State, name: &str, snapshot: &str) {
        let Some(mut value) = state.get(&self.key(name)).cloned() else { return };
        if !self.keeps_words {
            value = words(word(&value, "pool"), "", word(&value, "mark"));
        }
        state.insert(self.part(name, snapshot), value);
    }

    /// A copy of a whole thing has its snapshots, that of a snapshot none.
    fn copied(&self, next: &mut State, now: &State, of: &str, name: &str) {
        let noun = if of.contains('/') { self.snapshot } else { self.thing };
        if let Some(value) = now.get(&format!("{noun} {of}")) {
            next.insert(self.key(name), value.clone());
        }
        for (key, value) in now {
            if let Some(snapshot) = key.strip_prefix(&self.part(of, "")) {
                next.insert(self.part(name, snapshot), value.clone());
            }
        }
    }

    fn renamed(&self, next: &mut State, old: &str, new: &str) {
        let moved = |key: &str| match key.strip_prefix(&self.part(old, "")) {
            Some(snapshot) => self.part(new, snapshot),
            None if key == self.key(old) => self.key(new),
            None => key.to_owned(),
        };
        *next = std::mem::take(next).into_iter().map(|(key, value)| (moved(&key), value)).collect();
    }
}

impl Deck {
    pub(super) fn tree_change(&mut self, noun: &Noun, verb: &str, now: &State) -> Option<Change> {
        match verb {
            "create near" => self.create(noun, "default", now),
            "create far" => self.create(noun, "far", now),
            "create on disk" => self.create(noun, "disk", now),
            "mark" | "marked snapshot" => self.marked(noun, verb == "mark", now),
            "copy" | "copy snapshot" | "copy elsewhere" => self.copy(noun, verb, now),
            "refresh" => self.refresh(noun, now),
            "note" | "snapshot" | "rename" | "delete" | "move" | "rebuild" => self.whole(noun, verb, now),
            "import" => self.import(now),
            _ => self.of_snapshot(noun, verb, now),
        }
    }

    fn create(&mut self, noun: &Noun, pool: &str, now: &State) -> Option<Change> {
        if pool != "default" {
            now.get(&format!("pool {pool}"))?;
        }
        let mut next = now.clone();
        let name = self.fresh(noun.thing.get(..1)?);
        let mut body = json!({ "name": name });
        if noun.thing == "instance" {
            now.get("alias busybox")?;
            body["source"] = json!({ "type": "image", "alias": "busybox" });
            body["devices"] = json!({ "root": { "type": "disk", "path": "/", "pool": pool } });
        }
        next.insert(noun.key(&name), words(pool, "", "-"));
        let act = ask("POST", noun.target(&next, &name).0, body);
        Some(Change::plain(format!("create {} {name} in {pool}", noun.thing), next, act))
    }

    /// Changes of a whole thing.
    fn whole(&mut self, noun: &Noun, verb: &str, now: &State) -> Option<Change> {
        let mut next = now.clone();
        let running = self.running.clone();
        let still = matches!(verb, "rename" | "delete" | "move" | "rebuild");
        let name = self.choose(now, &noun.key(""), |name| !(still && running.contains(name)))?;
        let (_, target) = noun.target(now, &name);
        let act = match verb {
            "note" => {
                let note = self.fresh("n");
                set(&mut next, &noun.key(&name), "note", &note);
                ask("PATCH", target, json!({ "config": { "user.note": note } }))
            }
            "snapshot" => {
                let snapshot = self.fresh("s");
                noun.snap(&mut next, &name, &snapshot);
                ask("POST", format!("{target}/snapshots"), json!({ "name": snapshot }))
            }
            "rename" => {
                let new = self.fresh("r");
                noun.renamed(&mut next, &name, &new);
                ask("POST", target, json!({ "name": new }))
            }
            "move" => {
                let to = if noun.pool(now, &name) == "far" { "default" } else { "far" };
                now.get("pool far")?;
                noun.moved(&mut next, &name, to);
                let mut body = json!({ "name": name, "pool": to });
                if noun.thing == "instance" {
                    body["migration"] = json!(true);
                }
                ask("POST", target, body)
            }
            "rebuild" => {
                now.get("alias busybox")?;
                set(&mut next, &noun.key(&name), "mark", "-");
                let source = json!({ "type": "image", "alias": "busybox" });
                ask("POST", format!("{target}/rebuild"), json!({ "source": source }))
            }
            _ => {
                let parts = noun.part(&name, "");
                next.retain(|key, _| key != &noun.key(&name) && !key.starts_with(&parts));
                // The clients delete a volume's snapshots one by one, and a server refuses it before.
                if noun.thing == "volume" && now.keys().any(|key| key.starts_with(&parts)) {
                    return None;
                }
                ask("DELETE", target, Value::Null)
            }
        };
        Some(Change::plain(format!("{verb} {} {name}", noun.thing), next, act))
    }

    fn of_snapshot(&mut self, noun: &Noun, verb: &str, now: &State) -> Option<Change> {
        let mut next = now.clone();
        let of = self.choose(now, &format!("{} ", noun.snapshot), |_| true)?;
        let (name, snapshot) = of.split_once('/')?;
        let (_, target) = noun.target(now, name);
        let value = now.get(&noun.part(name, snapshot))?;
        let act = match verb {
            "restore" => {
                if noun.keeps_words {
                    set(&mut next, &noun.key(name), "note", word(value, "note"));
                }
                set(&mut next, &noun.key(name), "mark", word(value, "mark"));
                ask("PUT", target, json!({ "restore": snapshot }))
            }
            "rename snapshot" => {
                let new = self.fresh("t");
                next.remove(&noun.part(name, snapshot));
                next.insert(noun.part(name, &new), value.clone());
                ask("POST", format!("{target}/snapshots/{snapshot}"), json!({ "name": new }))
            }
            "delete snapshot" => {
                next.remove(&noun.part(name, snapshot));
                ask("DELETE", format!("{target}/snapshots/{snapshot}"), Value::Null)
            }
            _ => return None,
        };
        Some(Change::plain(format!("{verb} {} {of}", noun.thing), next, act))
    }

    fn copy(&mut self, noun: &Noun, verb: &str, now: &State) -> Option<Change> {
        let mut next = now.clone();
        let what = if verb == "copy snapshot" { noun.snapshot } else { noun.thing };
        let of = self.choose(now, &format!("{what} "), |_| true)?;
        let name = self.fresh("c");
        noun.copied(&mut next, now, &of, &name);
        let mut pool = word(now.get(&noun.key(of.split('/').next()?))?, "pool");
        if verb == "copy elsewhere" {
            now.get("pool far")?;
            pool = if pool == "far" { "default" } else { "far" };
            noun.moved(&mut next, &name, pool);
        }
        let body = json!({ "name": name, "source": { "type": "copy", "source": of },
            "devices": { "root": { "type": "disk", "path": "/", "pool": pool } } });
        let act = ask("POST", noun.target(now, "").0, body);
        Some(Change::plain(format!("copy {} {of} to {name}", noun.thing), next, act))
    }

    /// One becomes like another, with its snapshots and no others; where it lies and its words stay.
    fn refresh(&mut self, noun: &Noun, now: &State) -> Option<Change> {
        let mut next = now.clone();
        let running = self.running.clone();
        let name = self.choose(now, &noun.key(""), |name| !running.contains(name))?;
        let of = self.choose(now, &noun.key(""), |other| other != name)?;
        let own = now.get(&noun.key(&name))?;
        let (pool, note) = (word(own, "pool"), word(own, "note"));
        next.retain(|key, _| !key.starts_with(&noun.part(&name, "")));
        noun.copied(&mut next, now, &of, &name);
        noun.moved(&mut next, &name, pool);
        set(&mut next, &noun.key(&name), "note", note);
        let body = json!({ "name": name, "source": { "type": "copy", "source": of, "refresh": true },
            "devices": { "root": { "type": "disk", "path": "/", "pool": pool } } });
        let act = ask("POST", noun.target(now, "").0, body);
        Some(Change::plain(format!("refresh {} {name} from {of}", noun.thing), next, act))
    }

    /// A backup of an instance, taken in under another name.
    fn import(&mut self, now: &State) -> Option<Change> {
        let mut next = now.clone();
        let running = self.running.clone();
        let of = self.choose(now, "instance ", |name| !running.contains(name))?;
        let name = self.fresh("b");
        INSTANCE.copied(&mut next, now, &of, &name);
        let (all, target) = INSTANCE.target(now, &of);
        let made = name.clone();
        let act: Act = Box::new(move |subject| {
            let headers = [("Accept", "application/octet-stream"), ("Content-Type", "application/json")];
            let body = json!({ "compression_algorithm": "none" }).to_string();
            let place = format!("{target}/backups");
            let backup = api::send(&subject.socket(), "POST", &place, &headers, body.as_bytes());
            // What is sent while it is made can only break off.
            let backup = backup.map_err(|_| "the backup broke off".to_owned())?;
            if backup.status != 200 {
                return Err(backup.error());
            }
            let headers = [("Content-Type", "application/octet-stream"), ("X-Incus-name", made.as_str())];
            subject.finish(api::send(&subject.socket(), "POST", &all, &headers, &backup.body)).map(drop)
        });
        Some(Change::plain(format!("import a backup of {of} as {name}"), next, act))
    }

    /// A file in a tree, which is then sent to disk, or else is part of a snapshot.
    fn marked(&mut self, noun: &Noun, sync: bool, now: &State) -> Option<Change> {
        let (name, mark) = (self.choose(now, &noun.key(""), |_| true)?, self.fresh("m"));
        let pool = word(now.get(&noun.key(&name))?, "pool").to_owned();
        let (mut emptied, mut next) = (now.clone(), now.clone());
        set(&mut emptied, &noun.key(&name), "mark", "-");
        set(&mut next, &noun.key(&name), "mark", &mark);
        let written = next.clone();
        let snapshot = self.fresh("s");
        if !sync {
            noun.snap(&mut next, &name, &snapshot);
        }
        let (_, target) = noun.target(now, &name);
        let (far, place) = (self.far.clone(), format!("{}/{name}", noun.directory));
        let act: Act = Box::new(move |subject| {
            push(subject, &target, &mark)?;
            if sync {
                let tree = look::tree(subject, &far, &pool, &place);
                let synced = [tree.join("mark"), tree].map(|it| File::open(it).and_then(|it| it.sync_all()));
                return synced.into_iter().collect::<Result<_, _>>().map_err(|why| why.to_string());
            }
            subject.ask("POST", &format!("{target}/snapshots"), &json!({ "name": snapshot })).map(drop)
        });
        let what = format!("{} {} {name}", if sync { "mark" } else { "mark and snapshot" }, noun.thing);
        Some(Change { what, through: vec![emptied, written], next, act })
    }
}

fn push(subject: &Subject, target: &str, mark: &str) -> Result<(), String> {
    let target = format!("{target}/files?path=/mark");
    let headers = [("X-Incus-type", "file"), ("Content-Type", "application/octet-stream")];
    let reply = api::send(&subject.socket(), "POST", &target, &headers, format!("<{mark}>").as_bytes());
    let reply = reply.map_err(|why| format!("no answer: {why}"))?;
    if reply.status == 200 { Ok(()) } else { Err(reply.error()) }
}
