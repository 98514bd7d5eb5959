//! Checks of whole configs and device sets against the tables.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::key::{self, Key, Scope};
use crate::value::{address, name, number};
use crate::{Config, Device, Devices, device, disk, network};

/// Whose config it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// An instance's own.
    Instance,
    /// A profile's.
    Profile,
}

/// Most keys in one config, devices in one set, and bytes in one value: far beyond use, and what keeps a
/// client from filling the database.
const MOST_KEYS: usize = 1000;
const MOST_DEVICES: usize = 200;
const MOST_BYTES: usize = 256 * 1024;

/// Checks the config of an instance or a profile.
///
/// # Errors
/// For the first key that is unknown, out of place, or has a value it does not take.
pub fn validate_instance_config(config: &Config, who: Who) -> Result<(), Error> {
    bounded("the config", config.len(), MOST_KEYS)?;
    for (key, value) in config {
        let declared = declared(key::INSTANCE, key)?;
        if who == Who::Profile && declared.scope == Scope::Instance {
            return Err(Error::NotInProfiles { key: key.clone() });
        }
        valued(declared, key, value)?;
        let rest = |prefix| key.strip_prefix(prefix);
        if let Some(variable) = rest("environment.") {
            name::variable(variable).map_err(|source| Error::Value { key: key.clone(), source })?;
        }
        if let Some(limit) = rest("limits.kernel.")
            && !key::RLIMITS.contains(&limit)
        {
            let hint =
                key::nearest(key::RLIMITS.iter().copied(), limit).map(|near| format!("limits.kernel.{near}"));
            return Err(Error::UnknownKey { key: key.clone(), hint });
        }
    }
    Ok(())
}

fn declared(table: &'static [Key], key: &str) -> Result<&'static Key, Error> {
    if let Some(found) = key::find(table, key) {
        return Ok(found);
    }
    let refused = key::REFUSED.iter().find(|(name, _)| match name.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => *name == key,
    });
    match refused {
        Some((_, reason)) => Err(Error::RefusedKey { key: key.to_owned(), reason }),
        None => {
            let hint = key::nearest(table.iter().map(|known| known.name), key);
            Err(Error::UnknownKey { key: key.chars().take(200).collect(), hint })
        }
    }
}

fn valued(declared: &Key, key: &str, value: &str) -> Result<(), Error> {
    bounded(&format!("config key `{key}`"), key.len().max(value.len()), MOST_BYTES)?;
    if value.is_empty() {
        return Ok(());
    }
    declared.kind.check(value).map_err(|source| Error::Value { key: key.to_owned(), source })
}

fn bounded(what: &str, size: usize, most: usize) -> Result<(), Error> {
    if size > most { Err(Error::TooLarge { what: what.to_owned(), size, most }) } else { Ok(()) }
}

fn table(table: &'static [Key], config: &Config) -> Result<(), Error> {
    bounded("the config", config.len(), MOST_KEYS)?;
    config.iter().try_for_each(|(key, value)| valued(declared(table, key)?, key, value))
}

/// Checks the devices of an instance or a profile, each for itself.
///
/// # Errors
/// For the first device with a bad name, type, property, value, or properties that do not go together.
pub fn validate_devices(devices: &Devices, _who: Who) -> Result<(), Error> {
    bounded("the set of devices", devices.len(), MOST_DEVICES)?;
    devices.iter().try_for_each(|(name, device)| validate_device(name, device))
}

/// Checks one device.
///
/// # Errors
/// As [`validate_devices`].
pub fn validate_device(name: &str, device: &Device) -> Result<(), Error> {
    name::device(name).map_err(|source| Error::Name { what: "device", source })?;
    let Some(kind) = set(device, "type") else {
        return Err(Error::NoType { device: name.to_owned() });
    };
    let Some(known) = device::find(kind) else {
        let later = device::REFUSED.contains(&kind);
        return Err(Error::UnknownType {
            device: name.to_owned(),
            kind: kind.chars().take(80).collect(),
            later,
        });
    };
    for (property, value) in device.iter().filter(|(property, _)| *property != "type") {
        let Some(declared) = key::find(known.properties, property) else {
            return Err(unknown_property(name, known, property));
        };
        bounded(&format!("property `{property}`"), value.len(), MOST_BYTES)?;
        if !value.is_empty() {
            let wrong =
                |source| Error::Property { device: name.to_owned(), property: property.clone(), source };
            declared.kind.check(value).map_err(wrong)?;
        }
    }
    let broken = match kind {
        "nic" => nic_rule(device),
        "disk" => disk::read(device).err(),
        _ => None,
    };
    broken.map_or(Ok(()), |rule| Err(Error::Device { device: name.to_owned(), rule }))
}

fn unknown_property(name: &str, known: &device::DeviceType, property: &str) -> Error {
    Error::UnknownProperty {
        device: name.to_owned(),
        kind: known.name.to_owned(),
        property: property.chars().take(80).collect(),
        hint: key::nearest(known.properties.iter().map(|key| key.name), property),
    }
}

/// What only the port of a bridge has.
const PORT_ALONE: [&str; 9] = [
    "ipv4.address",
    "ipv6.address",
    "limits.egress",
    "limits.max",
    "limits.priority",
    "security.ipv4_filtering",
    "security.ipv6_filtering",
    "security.mac_filtering",
    "security.port_isolation",
];

fn nic_rule(device: &Device) -> Option<&'static str> {
    match (set(device, "network"), set(device, "nictype"), set(device, "parent")) {
        (None, Some("p2p"), None) if PORT_ALONE.iter().all(|property| set(device, property).is_none()) => {
            None
        }
        (None, Some("p2p"), None) => Some(
            "a `p2p` nic has no addresses given to it, and no filter: of the limits it takes `limits.ingress`",
        ),
        (_, Some("p2p"), _) => Some("a `p2p` nic has neither `network` nor `parent`"),
        (Some(_), None, None) | (None, Some(_), Some(_)) => None,
        (Some(_), ..) => Some("a nic has either a `network`, or a `nictype` and a `parent`"),
        (None, Some(_), None) => Some("a `bridged` nic needs a `parent`"),
        (None, None, _) => Some("a nic needs a `network`, or a `nictype` and a `parent`"),
    }
}

fn set<'a>(device: &'a Device, property: &str) -> Option<&'a str> {
    device.get(property).map(String::as_str).filter(|value| !value.is_empty())
}

/// Checks the devices an instance ends with: each for itself, exactly one root disk, and no two that want
/// the same place.
///
/// # Errors
/// When there is no root disk, or two devices clash.
pub fn validate_expanded_devices(devices: &Devices) -> Result<(), Error> {
    validate_devices(devices, Who::Instance)?;
    let unique: [(&str, &'static str); 4] =
        [("disk", "path"), ("nic", "name"), ("nic", "hwaddr"), ("nic", "host_name")];
    for (kind, what) in unique {
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for (name, device) in devices.iter().filter(|(_, device)| set(device, "type") == Some(kind)) {
            let Some(value) = set(device, what) else { continue };
            let same = match what {
                "path" => format!(
                    "/{}",
                    value.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/")
                ),
                _ => value.to_ascii_lowercase(),
            };
            if let Some(first) = seen.insert(same, name) {
                let (first, second) = (first.to_owned(), name.clone());
                return Err(Error::Clash { first, second, what, value: value.to_owned() });
            }
        }
    }
    root_disk(devices).map(drop).ok_or(Error::NoRootDisk)
}

/// The root disk among `devices`: its name and the pool it is in.
#[must_use]
pub fn root_disk(devices: &Devices) -> Option<(&str, &str)> {
    devices.iter().find_map(|(name, device)| {
        let root = set(device, "type") == Some("disk") && set(device, "path").is_some_and(disk::is_root);
        set(device, "pool").filter(|_| root).map(|pool| (name.as_str(), pool))
    })
}

/// Checks the config of a network of type `kind`.
///
/// # Errors
/// When there is no such type, for the first key that is unknown or has a value it does not take, and when
/// ranges or the gateway are outside the subnet.
pub fn validate_network(kind: &str, config: &Config) -> Result<(), Error> {
    if kind != "bridge" {
        return Err(Error::NetworkType { kind: kind.chars().take(80).collect() });
    }
    table(network::BRIDGE, config)?;
    let outside =
        |key: &str| Error::Rule { key: key.to_owned(), rule: "is outside the subnet of the bridge" };
    let read = |key: &str| config.get(key).map(String::as_str).filter(|value| !value.is_empty());
    if let Some(Ok(address::Subnet::At(net))) = read("ipv4.address").map(address::ipv4_subnet) {
        if let Some(Ok(ranges)) = read("ipv4.dhcp.ranges").map(address::ipv4_ranges)
            && !ranges.iter().all(|(first, last)| net.contains(first) && net.contains(last))
        {
            return Err(outside("ipv4.dhcp.ranges"));
        }
        if let Some(Ok(gateway)) = read("ipv4.dhcp.gateway").map(address::ipv4)
            && !net.contains(&gateway)
        {
            return Err(outside("ipv4.dhcp.gateway"));
        }
    }
    if let Some(Ok(address::Subnet::At(net))) = read("ipv6.address").map(address::ipv6_subnet)
        && let Some(Ok(ranges)) = read("ipv6.dhcp.ranges").map(address::ipv6_ranges)
        && !ranges.iter().all(|(first, last)| net.contains(first) && net.contains(last))
    {
        return Err(outside("ipv6.dhcp.ranges"));
    }
    let mtu = read("bridge.mtu").and_then(|text| number::integer(text, 0, i64::MAX).ok()).unwrap_or(1500);
    if mtu < 1280 && read("ipv6.address") != Some("none") {
        return Err(Error::Rule { key: "bridge.mtu".to_owned(), rule: "IPv6 needs at least 1280" });
    }
    Ok(())
}

/// Checks the config of a storage pool with driver `driver`.
///
/// # Errors
/// When there is no such driver, and for the first key that is unknown or has a value it does not take.
pub fn validate_pool(driver: &str, config: &Config) -> Result<(), Error> {
    if !network::DRIVERS.contains(&driver) {
        return Err(Error::Driver { driver: driver.chars().take(80).collect() });
    }
    table(network::POOL, config)?;
    for (key, of) in network::POOL_OF {
        if *of != driver && config.get(*key).is_some_and(|value| !value.is_empty()) {
            return Err(Error::Rule { key: (*key).to_owned(), rule: "is for pools of driver `btrfs` only" });
        }
    }
    match mount_options(config) {
        Ok(_) => Ok(()),
        Err(rule) => Err(Error::Rule { key: "btrfs.mount_options".to_owned(), rule }),
    }
}

/// The mount options of a pool's config: name, and a value or nothing.
///
/// # Errors
/// When one of them is not known.
pub fn mount_options(config: &Config) -> Result<Vec<(String, String)>, &'static str> {
    let given = config.get("btrfs.mount_options").map_or("", String::as_str);
    let options = given.split(',').filter(|option| !option.is_empty()).map(|option| {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let known = network::MOUNT_OPTIONS.contains(&name) && value.len() <= 40;
        match known || network::MOUNT_FLAGS.contains(&option) {
            true => Ok((name.to_owned(), value.to_owned())),
            false => Err("is a list, parted by commas, of options of btrfs that change how data is kept"),
        }
    });
    let options = options.collect::<Result<Vec<_>, _>>()?;
    let of_times = |(name, _): &&(String, String)| name.ends_with("atime") && name != "nodiratime";
    match options.iter().filter(of_times).count() {
        0 | 1 => Ok(options),
        _ => Err("has more than one of `noatime`, `relatime` and `strictatime`"),
    }
}

/// Checks the config of a storage volume.
///
/// # Errors
/// For the first key that is unknown or has a value it does not take, and for two that do not go together.
pub fn validate_volume(config: &Config) -> Result<(), Error> {
    table(network::VOLUME, config)?;
    let on = |key: &str| config.get(key).is_some_and(|value| number::boolean(value) == Ok(true));
    match on("security.shifted") && on("security.unmapped") {
        true => Err(Error::Rule {
            key: "security.unmapped".to_owned(),
            rule: "what it leaves as it is, `security.shifted` would change; set one of them",
        }),
        false => Ok(()),
    }
}

/// Checks what users keep with the volume of an instance: what such a volume is, is said by the instance.
///
/// # Errors
/// As [`validate_volume`], and for keys that belong to custom volumes alone.
pub fn validate_own_volume(config: &Config) -> Result<(), Error> {
    validate_volume(config)?;
    let of_users = |key: &str| key.starts_with("user.") || key.starts_with("snapshots.");
    match config.iter().find(|(key, value)| !of_users(key) && !value.is_empty()) {
        None => Ok(()),
        Some((key, _)) if key == "size" => Err(Error::Rule {
            key: key.clone(),
            rule: "of an instance's volume is that of its root disk; set it there",
        }),
        Some((key, _)) => {
            Err(Error::Rule { key: key.clone(), rule: "is for custom volumes, not for that of an instance" })
        }
    }
}

/// Checks the config of the server.
///
/// # Errors
/// For the first key that is unknown, has a value it does not take, or characters beyond ASCII.
pub fn validate_server(config: &Config) -> Result<(), Error> {
    table(network::SERVER, config)?;
    match config.keys().find(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
        Some(key) => Err(Error::Rule {
            key: key.clone(),
            rule: "a key of the server is made of visible ASCII characters",
        }),
        None => Ok(()),
    }
}
