//! The MAC addresses of nics: made up after a pattern, kept, and never two alike on one network at a time.

use std::collections::HashMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use cabin_network::Mac;
use cabin_profiles::value::address;
use cabin_store::rows;
use parking_lot::Mutex;
use rand::RngExt as _;

use super::Expanded;
use crate::live::{Live, Plugged};
use crate::{Error, Host, server};

/// The server's key that says how one is made up.
const PATTERN: &str = "network.hwaddr_pattern";

/// Incus's own: clients and tests look for it.
const USUAL: &str = "10:66:6a:xx:xx:xx";

/// How often another is tried before that many are taken that none is left.
const TRIES: usize = 1000;

/// Every nic without an address of its own gets one that stays.
///
/// # Errors
/// When the pattern cannot be read.
pub(crate) fn give_macs(host: &Host, row: &mut rows::Instance, expanded: &Expanded) -> Result<(), Error> {
    for (key, _) in made_up(expanded) {
        if let Entry::Vacant(entry) = row.config.entry(key) {
            entry.insert(another(&pattern(host)?));
        }
    }
    Ok(())
}

/// Takes over what somebody says of the addresses that are otherwise made up; nothing else of `volatile.*` is theirs.
///
/// # Errors
/// When one is no address of one station.
pub(super) fn pin(row: &mut rows::Instance, sent: &rows::Config) -> Result<(), Error> {
    let keeps = |key: &str| {
        let device = key.strip_prefix("volatile.").and_then(|key| key.strip_suffix(".hwaddr"));
        device.is_some_and(|device| !device.contains(".last_state"))
    };
    for (key, mac) in sent.iter().filter(|(key, _)| keeps(key)) {
        if row.config.get(key) == Some(mac) {
            continue;
        }
        let Some(mac) = address::mac(mac).ok().filter(|mac| mac[0] & 1 == 0) else {
            return Err(Error::invalid(format!("`{mac}` is not an address for `{key}`")));
        };
        row.config.insert(key.clone(), Mac(mac).to_string());
    }
    Ok(())
}

/// A nic whose made-up address a running instance has by now gets another one: among a thousand instances it is one of
/// thirty that there are two alike.
///
/// # Errors
/// When what is kept is no address, or the pattern cannot be read.
pub(super) fn avoid_taken(
    host: &Host,
    name: &str,
    row: &mut rows::Instance,
    expanded: &Expanded,
) -> Result<(), Error> {
    for (key, network) in made_up(expanded) {
        let (Some(mac), Some(network)) = (row.config.get_mut(&key), network) else { continue };
        for _ in 0..TRIES {
            let key = (network.clone(), Mac(address::mac(mac)?));
            if taken_by(host, &host.macs().0.lock(), name, &key).is_none() {
                break;
            }
            *mac = another(&pattern(host)?);
        }
    }
    Ok(())
}

/// An address on a network.
type Key = (String, Mac);

/// The addresses of nics that are about to be plugged in, and of which instances.
#[derive(Default)]
pub(crate) struct Claimed(Mutex<HashMap<Key, String>>);

/// The right to plug some nics in, until the instance is known to have them; given back when dropped.
pub(crate) struct Claim {
    claimed: Arc<Claimed>,
    keys: Vec<Key>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = self.claimed.0.lock();
        self.keys.iter().for_each(|key| drop(claimed.remove(key)));
    }
}

/// Claims the addresses of nics that are to be plugged in. Refuses one that a running instance has on the same network,
/// or one that just gets it: the two would take each other's frames, and have one reservation together.
///
/// # Errors
/// [`Error::InUse`] then.
pub(super) fn claim<'a>(
    host: &Host,
    name: &str,
    nics: impl IntoIterator<Item = &'a Plugged>,
) -> Result<Claim, Error> {
    let mut claim = Claim { claimed: host.macs().clone(), keys: Vec::new() };
    for plugged in nics {
        let Some(network) = &plugged.network else { continue };
        let key = (network.clone(), plugged.nic.mac);
        let mut claimed = host.macs().0.lock();
        if let Some(by) = taken_by(host, &claimed, name, &key) {
            let by = format!("instance `{by}`");
            return Err(Error::InUse { what: "MAC address", name: plugged.nic.mac.to_string(), by });
        }
        claimed.insert(key.clone(), name.to_owned());
        claim.keys.push(key);
    }
    Ok(claim)
}

/// The instance other than `name` that runs with such a nic or just gets it. Whoever has one claimed is known to have
/// the nic before that is given back, so nobody is missed while `claimed` is held.
fn taken_by(host: &Host, claimed: &HashMap<Key, String>, name: &str, key: &Key) -> Option<String> {
    let such = |other: &Plugged| other.network.as_ref() == Some(&key.0) && other.nic.mac == key.1;
    let others = host.live().list().into_iter().filter(|live| live.name != name && live.exit().is_none());
    let runs = |live: &Arc<Live>| live.nics.lock().iter().any(such);
    let claimant = claimed.get(key).filter(|by| *by != name).cloned();
    claimant.or_else(|| others.into_iter().find(runs).map(|live| live.name.clone()))
}

/// The keys that keep the addresses of nics without one of their own, each with the network of its nic.
fn made_up(expanded: &Expanded) -> impl Iterator<Item = (String, Option<&String>)> {
    let nics = expanded.devices.iter().filter(|(_, device)| {
        device.get("type").is_some_and(|kind| kind == "nic") && !device.contains_key("hwaddr")
    });
    nics.map(|(name, device)| {
        (format!("volatile.{name}.hwaddr"), device.get("network").or_else(|| device.get("parent")))
    })
}

fn pattern(host: &Host) -> Result<String, Error> {
    let set = server::setting(host, PATTERN)?;
    Ok(if set.is_empty() { USUAL.to_owned() } else { set })
}

/// An address of that pattern, of one station.
fn another(pattern: &str) -> String {
    let mut random = rand::rng();
    let digit = |(at, sign): (usize, char)| match sign {
        'x' | 'X' => {
            let number: u32 = random.random_range(0..16);
            // The lowest bit of the first byte would make it one of many stations.
            let number = if at == 1 { number & !1 } else { number };
            char::from_digit(number, 16).unwrap_or('0')
        }
        other => other.to_ascii_lowercase(),
    };
    pattern.chars().enumerate().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_follows_its_pattern_and_is_of_one_station() {
        for pattern in [USUAL, "xx:xx:xx:xx:xx:xx", "02:AB:xx:00:0x:x1"] {
            for _ in 0..200 {
                let made = another(pattern);
                assert!(address::mac(&made).is_ok_and(|mac| mac[0] & 1 == 0), "{made}");
                let fits = |(sign, digit): (char, char)| sign == 'x' || sign.to_ascii_lowercase() == digit;
                assert!(pattern.chars().zip(made.chars()).all(fits), "{made} of {pattern}");
            }
        }
    }
}
