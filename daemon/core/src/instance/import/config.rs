//! From what a backup says to rows. None of it is believed: it passes the checks of a new instance, and what would
//! widen an instance's rights must be asked for by who imports it.

use std::collections::BTreeSet;

use cabin_api::{ConfigMap, DevicesMap, ZERO_TIME};
use cabin_images::ShiftRun;
use cabin_profiles::value::address;
use cabin_profiles::{Restriction, Who};
use cabin_store::rows::{self, Config, Devices};
use jiff::Timestamp;
use serde::Deserialize;

use super::{Planned, PlannedSnapshot, Wishes};
use crate::backup::{Form, check_coming};
use crate::instance::create::{check_config, volatile};
use crate::instance::{WHAT, expand_parts, names, profiles_of, root_pool};
use crate::{Error, Host, clock, ids, limits};

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    pool: Option<String>,
    #[serde(default)]
    snapshots: Option<Vec<String>>,
    #[serde(default)]
    optimized: Option<bool>,
    #[serde(default)]
    backend: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    config: Option<Document>,
}

#[derive(Deserialize)]
struct Document {
    /// `instance` in newer ones.
    #[serde(default, alias = "instance")]
    container: Option<Described>,
    #[serde(default)]
    snapshots: Option<Vec<Described>>,
    #[serde(default)]
    volume: Option<Kept>,
    #[serde(default)]
    volume_snapshots: Option<Vec<Kept>>,
}

/// What was kept with the instance's volume, now or when a snapshot was taken.
#[derive(Default, Deserialize)]
struct Kept {
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    config: ConfigMap,
}

impl Kept {
    /// What users set of it. The rest tells how that server stored the volume.
    fn own(self) -> rows::OwnVolume {
        let config = self.config.given().into_iter().filter(|(key, value)| {
            cabin_profiles::validate_own_volume(&Config::from([(key.clone(), value.clone())])).is_ok()
        });
        rows::OwnVolume { description: self.description.unwrap_or_default(), config: config.collect() }
    }
}

/// An instance or snapshot.
#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    name: String,
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    config: ConfigMap,
    #[serde(default)]
    devices: DevicesMap,
    #[serde(default)]
    ephemeral: Option<bool>,
    #[serde(default)]
    profiles: Option<Vec<String>>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    last_used_at: Option<String>,
}

/// The instance that an index (JSON) with these wishes over it means.
pub(super) fn plan(host: &Host, project: &str, index: &str, wishes: &Wishes) -> Result<Planned, Error> {
    let index: Index = serde_json::from_str(index).map_err(|source| Error::Index { source })?;
    if index.kind.as_deref().is_some_and(|kind| kind != "container") {
        return Err(Error::invalid("it is not the backup of a container"));
    }
    let old_name = index.name.unwrap_or_default();
    let name = wishes.name.clone().unwrap_or_else(|| old_name.clone());
    cabin_profiles::value::name::instance(&name)?;
    let present = names(host, project)?;
    if present.contains(&name) {
        return Err(Error::Exists { what: WHAT, name });
    }
    limits::one_more("instances", present.len(), limits::INSTANCES)?;
    let missing = || Error::invalid("the backup's index holds no config; one of that age cannot be read");
    let document = index.config.ok_or_else(missing)?;
    let described = document.container.ok_or_else(missing)?;
    let snapshots = matched(index.snapshots.unwrap_or_default(), document.snapshots.unwrap_or_default())?;

    let reading = Reading { host, project, wishes, taken: taken(host, project)? };
    let renamed = name != old_name;
    let shift = shift_of(&described.config.0)?;
    let mut row = reading.instance(described, renamed)?;
    row.volume = document.volume.unwrap_or_default().own();
    row.pool = reading.pool(&mut row, index.pool.as_deref())?;
    reading.accept(&row)?;
    let form = Form::of(index.optimized == Some(true));
    if form == Form::Streams {
        check_coming(host, index.backend.as_deref(), &row.pool)?;
    }
    let mut kept = document.volume_snapshots.unwrap_or_default();
    let snapshots = snapshots
        .into_iter()
        .map(|snapshot| {
            let name = snapshot.name.clone();
            let shift = shift_of(&snapshot.config.0)?;
            let mut row = reading
                .snapshot(snapshot, renamed, &row.pool)
                .map_err(|source| in_snapshot(&name, source))?;
            if let Some(at) = kept.iter().position(|kept| kept.name == name) {
                row.volume = kept.swap_remove(at).own();
            }
            Ok(PlannedSnapshot { name, row, shift })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(Planned { name, row, shift, snapshots, form })
}

/// One line of what another server remembers about the ids on its disk.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MapLine {
    #[serde(rename = "Isuid")]
    is_uid: bool,
    #[serde(rename = "Isgid")]
    is_gid: bool,
    hostid: u32,
    nsid: u32,
    maprange: u32,
}

/// The shift of ids that the tree on the other server's disk had.
fn shift_of(config: &Config) -> Result<Vec<ShiftRun>, Error> {
    shift_in(config, "volatile.last_state.idmap")
}

/// The same, remembered under another key.
pub(crate) fn shift_in(config: &Config, key: &str) -> Result<Vec<ShiftRun>, Error> {
    let Some(said) = config.get(key).filter(|said| !said.is_empty()) else {
        return Ok(Vec::new());
    };
    let lines: Option<Vec<MapLine>> = serde_json::from_str(said).map_err(|source| Error::Index { source })?;
    let lines = lines.unwrap_or_default();
    if lines.len() > MAX_MAP {
        return Err(Error::invalid("the backup's map of ids has too many lines"));
    }
    Ok(lines
        .into_iter()
        .map(|line| ShiftRun {
            outside: line.hostid,
            inside: line.nsid,
            count: line.maprange,
            users: line.is_uid,
            groups: line.is_gid,
        })
        .collect())
}

/// As many lines as the kernel takes in a map.
const MAX_MAP: usize = 340;

fn in_snapshot(name: &str, source: Error) -> Error {
    Error::InSnapshot { name: name.to_owned(), source: Box::new(source) }
}

/// The snapshots in the index's order, each with what is said about it.
fn matched(listed: Vec<String>, mut described: Vec<Described>) -> Result<Vec<Described>, Error> {
    limits::one_more("snapshots of an instance", listed.len().saturating_sub(1), limits::SNAPSHOTS)?;
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for name in listed {
        cabin_profiles::value::name::snapshot(&name)?;
        cabin_storage::check_snapshot_name(&name)?;
        if !seen.insert(name.clone()) {
            return Err(Error::invalid(format!("the backup names snapshot `{name}` twice")));
        }
        match described.iter().position(|snapshot| snapshot.name == name) {
            Some(at) => found.push(described.swap_remove(at)),
            None => {
                return Err(Error::invalid(format!("the backup says nothing about its snapshot `{name}`")));
            }
        }
    }
    Ok(found)
}

/// The addresses of all nics that are there, and what instances are known by.
fn taken(host: &Host, project: &str) -> Result<BTreeSet<String>, Error> {
    let found = host.store().rows::<rows::Instance>().list(project)?;
    let own = found.iter().flat_map(|found| &found.row.config);
    let fixed = found.iter().flat_map(|found| found.row.devices.values()).flatten();
    Ok(own
        .filter(|(key, _)| is_mac(key) || is_uuid(key))
        .chain(fixed.filter(|(key, _)| *key == "hwaddr"))
        .map(|(_, value)| value.to_ascii_lowercase())
        .collect())
}

fn is_uuid(key: &str) -> bool {
    matches!(key, "volatile.uuid" | "volatile.uuid.generation")
}

fn is_mac(key: &str) -> bool {
    key.strip_prefix("volatile.")
        .and_then(|rest| rest.strip_suffix(".hwaddr"))
        .is_some_and(|device| cabin_profiles::value::name::device(device).is_ok())
}

struct Reading<'a> {
    host: &'a Host,
    project: &'a str,
    wishes: &'a Wishes,
    taken: BTreeSet<String>,
}

impl Reading<'_> {
    fn instance(&self, said: Described, renamed: bool) -> Result<rows::Instance, Error> {
        let arch = std::env::consts::ARCH;
        if let Some(other) = said.architecture.filter(|said| !said.is_empty() && said != arch) {
            let other: String = other.chars().take(40).collect();
            return Err(Error::invalid(format!(
                "the backup is of an instance for {other}; this host is {arch}"
            )));
        }
        let mut config = volatile(None);
        config.remove("volatile.apply_template");
        if renamed {
            config.insert("volatile.apply_template".into(), "rename".into());
        }
        let told = self.config(said.config.0)?;
        // Our own backups do not tell the generation, which LXD 5 would refuse: it is the one of the beginning.
        if let Some(uuid) = told.get("volatile.uuid") {
            config.insert("volatile.uuid.generation".into(), uuid.clone());
        }
        config.extend(told);
        if renamed {
            // Another instance than that of the backup, perhaps beside it.
            config.extend(volatile(None).into_iter().filter(|(key, _)| key != "volatile.apply_template"));
        }
        Ok(rows::Instance {
            description: said.description.unwrap_or_default(),
            architecture: arch.to_owned(),
            ephemeral: said.ephemeral.unwrap_or(false),
            profiles: said.profiles.unwrap_or_else(|| vec!["default".to_owned()]),
            config,
            devices: self.devices(said.devices.0),
            created_at: time(said.created_at).unwrap_or_else(clock::now),
            last_used_at: time(said.last_used_at).unwrap_or_default(),
            pool: String::new(),
            ids: rows::Ids { base: 0, size: ids::SIZE },
            power: rows::Power::Stopped,
            volume: rows::OwnVolume::default(),
        })
    }

    fn snapshot(&self, said: Described, renamed: bool, pool: &str) -> Result<rows::Snapshot, Error> {
        let expires_at = time(said.expires_at.clone()).unwrap_or_default();
        let mut row = self.instance(said, renamed)?;
        // Or it could not be restored: its tree is where the instance's is.
        self.lie_in(pool, &mut row)?;
        self.unrestricted(&row.profiles, &row.config, &row.devices)?;
        cabin_profiles::validate_instance_config(&row.config, Who::Instance)?;
        cabin_profiles::validate_devices(&row.devices, Who::Instance)?;
        Ok(rows::Snapshot {
            description: row.description,
            architecture: row.architecture,
            ephemeral: row.ephemeral,
            profiles: row.profiles,
            config: row.config,
            devices: row.devices,
            created_at: row.created_at,
            expires_at,
            last_used_at: row.last_used_at,
            size: 0,
            volume: rows::OwnVolume::default(),
        })
    }

    /// Config without what another server remembered, and with the wishes over it.
    fn config(&self, said: Config) -> Result<Config, Error> {
        let mut config: Config = said
            .into_iter()
            .filter(|(key, value)| !key.starts_with("volatile.") || self.remembered(key, value))
            .collect();
        config.extend(self.wishes.config.clone());
        config.retain(|_, value| !value.is_empty());
        let mut strange = Vec::new();
        for (key, value) in &config {
            let one = Config::from([(key.clone(), value.clone())]);
            if let Err(error) = cabin_profiles::validate_instance_config(&one, Who::Instance) {
                strange.push((key.clone(), error));
            }
        }
        match strange.pop() {
            None => Ok(config),
            Some((key, source)) => {
                let mut keys: Vec<String> = strange.into_iter().map(|(key, _)| format!("`{key}`")).collect();
                keys.push(format!("`{key}`"));
                Err(Error::Backup { keys: keys.join(", "), key, source: Box::new(source) })
            }
        }
    }

    /// What is worth keeping of what the other server remembered: addresses nobody has here, and by what guests
    /// know themselves again.
    fn remembered(&self, key: &str, value: &str) -> bool {
        let plain = value.len() <= 64 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match key {
            "volatile.base_image" | "volatile.cloud-init.instance-id" => plain,
            "volatile.apply_template" => ["create", "copy"].contains(&value),
            key if is_uuid(key) => {
                uuid::Uuid::parse_str(value).is_ok() && !self.taken.contains(&value.to_ascii_lowercase())
            }
            _ => {
                is_mac(key)
                    && address::mac(value).is_ok()
                    && !self.taken.contains(&value.to_ascii_lowercase())
            }
        }
    }

    fn devices(&self, mut devices: Devices) -> Devices {
        for (name, properties) in &self.wishes.devices {
            if let Some(device) = devices.get_mut(name) {
                device.extend(properties.clone());
            }
        }
        for device in devices.values_mut() {
            device.retain(|key, value| {
                // A first tree is a disk's alone to have; what is empty is not set.
                !value.is_empty() && !key.starts_with("initial.")
            });
        }
        devices
    }

    /// The pool the tree goes into: the one wished for, else the one of that name, else the profiles'.
    fn pool(&self, row: &mut rows::Instance, said: Option<&str>) -> Result<String, Error> {
        let profiles = profiles_of(self.host, self.project, &row.profiles)?;
        let expanded = expand_parts((&row.profiles, &row.config, &row.devices), &profiles);
        // Properties for devices that come from profiles make devices of the instance's own.
        for (name, properties) in &self.wishes.devices {
            if !row.devices.contains_key(name) {
                let mut device = expanded.devices.get(name).cloned().unwrap_or_default();
                device.extend(properties.clone());
                row.devices.insert(name.clone(), device);
            }
        }
        let expanded = expand_parts((&row.profiles, &row.config, &row.devices), &profiles);
        let is_here = |pool: &str| crate::storage::look_up(self.host, pool).is_ok();
        let wanted = match &self.wishes.pool {
            Some(pool) => {
                crate::storage::look_up(self.host, pool)?;
                Some(pool.clone())
            }
            None => said.filter(|pool| is_here(pool)).map(str::to_owned),
        };
        let now = root_pool(&expanded.devices).ok();
        let pool = match (wanted, now.filter(|pool| is_here(pool))) {
            (Some(wanted), _) => wanted,
            (None, Some(now)) => now,
            // Its own root disk names a pool of the other server.
            (None, None) => {
                let default = profiles_of(self.host, self.project, &["default".to_owned()])?;
                let names = ["default".to_owned()];
                root_pool(&expand_parts((&names, &Config::new(), &Devices::new()), &default).devices)?
            }
        };
        self.lie_in(&pool, row)?;
        Ok(pool)
    }

    /// Lets the root disk lie in that pool.
    fn lie_in(&self, pool: &str, row: &mut rows::Instance) -> Result<(), Error> {
        let profiles = profiles_of(self.host, self.project, &row.profiles)?;
        let expanded = expand_parts((&row.profiles, &row.config, &row.devices), &profiles);
        if root_pool(&expanded.devices).ok().as_deref() != Some(pool) {
            let (root, mut device) = root_disk(&expanded.devices).unwrap_or_else(|| {
                (
                    "root".to_owned(),
                    Config::from([("type".into(), "disk".into()), ("path".into(), "/".into())]),
                )
            });
            device.insert("pool".into(), pool.to_owned());
            row.devices.insert(root, device);
        }
        Ok(())
    }

    /// The whole must be what a new instance could be.
    fn accept(&self, row: &rows::Instance) -> Result<(), Error> {
        self.unrestricted(&row.profiles, &row.config, &row.devices)?;
        check_config(self.host, self.project, row, &row.profiles)
    }

    /// Refuses rights that nobody here gave: not by the wishes, and not by the profile that new instances have.
    fn unrestricted(&self, profiles: &[String], config: &Config, devices: &Devices) -> Result<(), Error> {
        let known = profiles_of(self.host, self.project, profiles)?;
        let expanded = expand_parts((profiles, config, devices), &known).config;
        let names = ["default".to_owned()];
        let default = match known.contains_key("default") {
            true => expand_parts((&names, &Config::new(), &Devices::new()), &known).config,
            false => Config::new(),
        };
        for (key, value) in &expanded {
            let wide = matches!(
                cabin_profiles::restriction(key),
                Some(Restriction::Privilege | Restriction::LowLevel)
            );
            let off = ["", "false", "0", "no", "off"].contains(&value.to_ascii_lowercase().as_str());
            if wide && !off && default.get(key) != Some(value) && self.wishes.config.get(key) != Some(value) {
                return Err(Error::Widening { key: key.clone() });
            }
        }
        Ok(())
    }
}

fn root_disk(devices: &Devices) -> Option<(String, Config)> {
    let is_root = |device: &Config| {
        device.get("type").is_some_and(|kind| kind == "disk")
            && device.get("path").is_some_and(|path| path == "/")
    };
    devices.iter().find(|(_, device)| is_root(device)).map(|(name, device)| (name.clone(), device.clone()))
}

/// A time as it is kept; none for what is no time or stands for never.
fn time(said: Option<String>) -> Option<String> {
    let said = said.filter(|said| said != ZERO_TIME)?;
    Some(said.parse::<Timestamp>().ok()?.to_string())
}
