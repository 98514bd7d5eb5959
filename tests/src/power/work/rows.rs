//! Changes of images and their aliases, and of what has a description and nothing else that matters here.

use serde_json::{Value, json};

use super::{Act, Change, Deck, State, ask};
use crate::subject::Subject;

impl Deck {
    pub(super) fn row_change(&mut self, noun: &str, verb: &str, now: &State) -> Option<Change> {
        match (noun, verb) {
            ("publish", _) => self.publish(now),
            ("import" | "image" | "alias", _) => self.image_change(noun, verb, now),
            ("pool", "far") => {
                let config = json!({ "source": self.far });
                chosen_pool("far", now, &json!({ "name": "far", "driver": self.driver, "config": config }))
            }
            ("pool", "disk") => {
                let config = json!({ "size": "300MiB" });
                chosen_pool("disk", now, &json!({ "name": "disk", "driver": "btrfs", "config": config }))
            }
            _ => self.described(noun, verb, now),
        }
    }

    fn image_change(&mut self, noun: &str, verb: &str, now: &State) -> Option<Change> {
        let mut next = now.clone();
        if noun == "import" {
            if now.contains_key("alias busybox") {
                return None;
            }
            next.insert("alias busybox".to_owned(), "whole".to_owned());
            let act: Act = Box::new(|subject| subject.import("busybox").map(drop));
            return Some(Change::plain("import".to_owned(), next, act));
        }
        now.get("alias busybox")?;
        if noun == "image" {
            // Those of published images, which are other ones, stay.
            next.retain(|key, _| !key.starts_with("alias ") || key.starts_with("alias p"));
            let act: Act = Box::new(|subject| {
                let target = format!("/1.0/images/{}", fingerprint(subject)?);
                subject.ask("DELETE", &target, &Value::Null).map(drop)
            });
            return Some(Change::plain("delete the image".to_owned(), next, act));
        }
        if verb == "create" {
            let name = self.fresh("a");
            next.insert(format!("alias {name}"), "whole".to_owned());
            let made = name.clone();
            let act: Act = Box::new(move |subject| {
                let body = json!({ "name": made, "target": fingerprint(subject)? });
                subject.ask("POST", "/1.0/images/aliases", &body).map(drop)
            });
            return Some(Change::plain(format!("make alias {name}"), next, act));
        }
        let name = self.choose(now, "alias ", |name| name.starts_with('a'))?;
        next.remove(&format!("alias {name}"));
        let act = ask("DELETE", format!("/1.0/images/aliases/{name}"), Value::Null);
        Some(Change::plain(format!("delete alias {name}"), next, act))
    }

    /// An image of an instance that does not run, under an alias.
    fn publish(&mut self, now: &State) -> Option<Change> {
        let running = self.running.clone();
        let of = self.choose(now, "instance ", |name| !running.contains(name))?;
        let (name, mut next) = (self.fresh("p"), now.clone());
        next.insert(format!("alias {name}"), "whole".to_owned());
        let body = json!({ "source": { "type": "instance", "name": of }, "aliases": [{ "name": name }],
            "compression_algorithm": "none" });
        let act = ask("POST", "/1.0/images".into(), body);
        Some(Change::plain(format!("publish {of} as {name}"), next, act))
    }

    fn described(&mut self, noun: &str, verb: &str, now: &State) -> Option<Change> {
        let (target, mut body) = match noun {
            "pool" => ("/1.0/storage-pools", json!({ "driver": "dir", "config": {} })),
            "profile" => ("/1.0/profiles", json!({ "config": {}, "devices": {} })),
            "network" => {
                let config = json!({ "ipv4.address": "none", "ipv6.address": "none" });
                ("/1.0/networks", json!({ "type": "bridge", "config": config }))
            }
            _ => return None,
        };
        let mut next = now.clone();
        let key = |name: &str| format!("{noun} {name}");
        let text = self.fresh("d");
        body["description"] = json!(text);
        let name = match verb {
            "create" => self.fresh(noun.get(..3)?),
            _ => {
                self.choose(now, &key(""), |name| !matches!(name, "default" | "cabinbr0" | "far" | "disk"))?
            }
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
        Some(Change::plain(format!("{verb} {noun} {name}"), next, act))
    }
}

/// One of the pools that others use.
fn chosen_pool(name: &str, now: &State, body: &Value) -> Option<Change> {
    let mut next = now.clone();
    if next.insert(format!("pool {name}"), String::new()).is_some() {
        return None;
    }
    let act = ask("POST", "/1.0/storage-pools".into(), body.clone());
    Some(Change::plain(format!("make pool {name}"), next, act))
}

fn fingerprint(subject: &Subject) -> Result<String, String> {
    let alias = subject.ask("GET", "/1.0/images/aliases/busybox", &Value::Null)?;
    Ok(alias["target"].as_str().unwrap_or_default().to_owned())
}
