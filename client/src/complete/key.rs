//! Keys and their values, from the tables that the daemon checks them by.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

use cabin_client::{Address, Client};
use cabin_profiles::key::{INSTANCE, Key, RLIMITS, Restriction, Scope};
use cabin_profiles::kind::Kind;
use cabin_profiles::network::{BRIDGE, DRIVERS, POOL, SERVER, VOLUME};
use clap_complete::CompletionCandidate;
use serde::Deserialize;

use super::line::Line;
use super::{ask, known, owned};

/// An object with keys: what may be set, and what is.
struct Object {
    table: &'static [Key],
    set: Vec<String>,
}

/// As much of an object as we look at.
#[derive(Deserialize)]
struct Configured {
    #[serde(default)]
    config: BTreeMap<String, String>,
}

impl Object {
    async fn at(client: &Client, table: &'static [Key], address: Address) -> Object {
        // What is not there (yet) has nothing set.
        let found = client.get::<Configured>(address).await;
        let set = found.map(|it| it.config.into_keys().collect()).unwrap_or_default();
        Object { table, set }
    }

    async fn instance(client: &Client, name: &str) -> Object {
        Object::at(client, INSTANCE, Address::new("/1.0/instances").name(name)).await
    }

    async fn server(client: &Client) -> Object {
        Object::at(client, SERVER, Address::new("/1.0")).await
    }

    /// The profile, network, pool or volume that stands on the line.
    async fn on(client: &Client, line: &Line) -> Option<Object> {
        let (root, table) = match line.verbs().as_slice() {
            ["profile", ..] => ("/1.0/profiles", INSTANCE),
            ["network", ..] => ("/1.0/networks", BRIDGE),
            ["storage", "volume", ..] => {
                let pool = Address::new("/1.0/storage-pools").name(&line.first("pool")?);
                let volume = pool.then("volumes").then("custom").name(&line.first("volume")?);
                return Some(Object::at(client, VOLUME, volume).await);
            }
            ["storage", ..] => ("/1.0/storage-pools", POOL),
            _ => return None,
        };
        Some(Object::at(client, table, Address::new(root).name(&line.first("name")?)).await)
    }

    /// Keys for `get` and `unset`.
    fn keys(self, line: &Line) -> Vec<String> {
        if line.is_set("property") {
            return vec!["description".to_owned()];
        }
        let mut keys = self.set;
        if !line.is_under("unset") {
            keys.extend(names(self.table, line.is_under("profile")));
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// What goes on from `word` in a list of `KEY=VALUE`, of which `before` is there.
    async fn pairs(self, client: &Client, line: &Line, before: &[String], word: &str) -> Vec<String> {
        if line.is_set("property") {
            return vec!["description=".to_owned()];
        }
        let keys = names(self.table, line.is_under("profile")).chain(self.set);
        pairs(client, self.table, keys, before, word).await
    }
}

/// The names of a table that can be written out and set.
fn names(table: &'static [Key], for_profile: bool) -> impl Iterator<Item = String> {
    let fit = table.iter().filter(move |key| {
        let here = !for_profile || key.scope == Scope::Everywhere;
        here && key.restriction != Restriction::Server
    });
    fit.flat_map(|key| match key.name {
        "limits.kernel.*" => RLIMITS.iter().map(|name| format!("limits.kernel.{name}")).collect(),
        name if name.ends_with('*') => Vec::new(),
        name => vec![name.to_owned()],
    })
}

async fn pairs(
    client: &Client,
    table: &'static [Key],
    keys: impl Iterator<Item = String>,
    before: &[String],
    word: &str,
) -> Vec<String> {
    if let Some((key, _)) = word.split_once('=') {
        return values(client, table, key).await.iter().map(|value| format!("{key}={value}")).collect();
    }
    // A key without value waits for one. bash says nothing of a `=` that the cursor is right behind.
    if let Some(key) = before.last().filter(|last| !last.contains('=')) {
        return values(client, table, key).await;
    }
    let keys: BTreeSet<String> = keys.collect();
    keys.iter().map(|key| format!("{key}=")).collect()
}

/// The values a key can have, where they can be counted.
async fn values(client: &Client, table: &'static [Key], key: &str) -> Vec<String> {
    let Some(key) = cabin_profiles::key::find(table, key) else { return Vec::new() };
    let words: &[&str] = match key.kind {
        Kind::Bool | Kind::Swap => &["true", "false"],
        Kind::OnlyTrue(_) => &["true"],
        Kind::OneOf(words) => words,
        Kind::Network => return client.network_names().await.unwrap_or_default(),
        Kind::Pool => return client.pool_names().await.unwrap_or_default(),
        _ => &[],
    };
    words.iter().map(|&word| word.to_owned()).collect()
}

/// `[INSTANCE] KEY=VALUE…`.
pub fn config_pairs(current: &OsStr) -> Vec<CompletionCandidate> {
    let word = current.to_string_lossy();
    ask(current, async |client, line| {
        let words = line.all("words");
        let is_key = |word: &String| cabin_profiles::key::find(SERVER, word).is_some();
        match words.split_first() {
            Some((first, _)) if first.contains('=') || is_key(first) => {
                Some(Object::server(client).await.pairs(client, line, &words, &word).await)
            }
            Some((instance, before)) => {
                Some(Object::instance(client, instance).await.pairs(client, line, before, &word).await)
            }
            None => {
                let mut found = Object::server(client).await.pairs(client, line, &words, &word).await;
                found.extend(client.instance_names().await.ok()?);
                Some(found)
            }
        }
    })
}

/// `[INSTANCE] KEY`.
pub fn config_keys(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, line| match line.all("words").first() {
        Some(instance) => Some(Object::instance(client, instance).await.keys(line)),
        None => {
            let mut found = Object::server(client).await.keys(line);
            found.extend(client.instance_names().await.ok()?);
            Some(found)
        }
    })
}

/// `KEY=VALUE` of an instance that is made.
pub fn config_options(current: &OsStr) -> Vec<CompletionCandidate> {
    let word = current.to_string_lossy();
    ask(current, async |client, _| Some(pairs(client, INSTANCE, names(INSTANCE, false), &[], &word).await))
}

/// `KEY=VALUE` of a profile, network, pool or volume.
pub fn object_pairs(current: &OsStr) -> Vec<CompletionCandidate> {
    let word = current.to_string_lossy();
    ask(current, async |client, line| {
        let before = [line.all("words"), line.all("config")].concat();
        Some(Object::on(client, line).await?.pairs(client, line, &before, &word).await)
    })
}

/// Keys of a profile, network, pool or volume.
pub fn object_keys(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, line| Some(Object::on(client, line).await?.keys(line)))
}

/// `KEY=VALUE` of a device.
pub fn device_pairs(current: &OsStr) -> Vec<CompletionCandidate> {
    let word = current.to_string_lossy();
    ask(current, async |client, line| {
        let kind = match line.first("kind") {
            Some(kind) => kind,
            None => device(client, line).await?.get("type")?.clone(),
        };
        let table = cabin_profiles::device::find(&kind)?.properties;
        Some(pairs(client, table, names(table, false), &line.all("properties"), &word).await)
    })
}

/// `DEVICE,KEY=VALUE,…` over the devices that an instance gets from its profiles, or has where it comes from.
pub fn device_options(current: &OsStr) -> Vec<CompletionCandidate> {
    let word = current.to_string_lossy();
    ask(current, async |client, line| {
        let devices = options_over(client, line).await?;
        let table = |device: &BTreeMap<String, String>| {
            let kind = cabin_profiles::device::find(device.get("type")?)?;
            Some(kind.properties)
        };
        let Some((before, last)) = word.rsplit_once(',') else {
            let keys = devices.iter().filter_map(|(name, device)| Some((name, table(device)?)));
            let words =
                keys.flat_map(|(name, table)| names(table, false).map(move |key| format!("{name},{key}=")));
            return Some(words.collect());
        };
        let table = table(devices.get(before.split(',').next()?)?)?;
        let found = pairs(client, table, names(table, false), &[], last).await;
        Some(found.into_iter().map(|pair| format!("{before},{pair}")).collect())
    })
}

async fn options_over(client: &Client, line: &Line) -> Option<owned::Devices> {
    let source = if line.is_under("copy") { line.first("source") } else { None };
    let source = if line.is_under("move") { line.first("name") } else { source };
    if let Some(name) = source {
        return Some(client.instance(name.split('/').next()?).await.ok()?.value.expanded_devices.0);
    }
    let mut profiles = line.all("profile");
    if profiles.is_empty() && !line.is_set("no_profiles") {
        profiles.push("default".to_owned());
    }
    let mut devices = owned::Devices::new();
    for name in profiles.iter().flat_map(|word| word.split(',')) {
        devices.extend(client.profile(name).await.ok()?.value.devices.0);
    }
    Some(devices)
}

/// Properties of a device.
pub fn device_keys(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client, line| {
        let device = device(client, line).await?;
        let table = cabin_profiles::device::find(device.get("type")?)?.properties;
        let more = (!line.is_under("unset")).then(|| names(table, false));
        let mut keys: Vec<String> = device.into_keys().chain(more.into_iter().flatten()).collect();
        keys.sort_unstable();
        keys.dedup();
        Some(keys)
    })
}

async fn device(client: &Client, line: &Line) -> Option<BTreeMap<String, String>> {
    let (_, mut whole) = owned::devices_of(client, line).await?;
    whole.remove(&line.first("device")?)
}

/// Drivers of storage pools.
pub fn drivers(current: &OsStr) -> Vec<CompletionCandidate> {
    known(current, DRIVERS)
}
