//! Warnings: what is wrong and stops nobody, until it is right again or somebody says that he knows.
//!
//! They are about what is, so they are kept in memory: what is still wrong after a start of the daemon is
//! found again by it.

use std::collections::BTreeMap;

use cabin_api::warning::{Warning, WarningPut};
use cabin_store::rows;
use parking_lot::Mutex;
use serde_json::Value;

use crate::{DEFAULT_PROJECT, Error, Host, clock, doctor, storage};

/// How many are kept; of more, the one that was seen longest ago goes.
const KEPT: usize = 1000;

const WHAT: &str = "warning";

/// What sort of trouble it is: the sentences are Incus's where it has one, so that people find them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// An instance that should run could not be started.
    Autostart,
    /// A network is not as its config says, and cannot be made so.
    Network,
    /// A pool cannot be used.
    Pool,
    /// Somebody else changed what is the daemon's.
    Tampered,
    /// A nic of a running instance is not there.
    Nic,
    /// The cgroups of a running instance are not as they should be.
    Cgroups,
    /// The place of sockets and records was emptied.
    RunDir,
    /// The host's clock was set.
    Clock,
}

impl Trouble {
    fn text(self) -> &'static str {
        match self {
            Trouble::Autostart => "Failed to autostart instance",
            Trouble::Network => "Network unavailable",
            Trouble::Pool => "Storage pool unavailable",
            Trouble::Tampered => "Changed by somebody else and repaired",
            Trouble::Nic => "Network device unavailable",
            Trouble::Cgroups => "Cgroups unavailable",
            Trouble::RunDir => "Runtime directory emptied",
            Trouble::Clock => "Clock was set",
        }
    }

    fn severity(self) -> &'static str {
        match self {
            Trouble::Network | Trouble::Pool | Trouble::Cgroups => "high",
            Trouble::Autostart | Trouble::Nic | Trouble::RunDir => "moderate",
            Trouble::Tampered | Trouble::Clock => "low",
        }
    }
}

/// Whether it happened again, or is just still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Anew,
    Still,
}

/// The daemon's warnings.
#[derive(Default)]
pub(crate) struct Warnings {
    all: Mutex<BTreeMap<String, Warning>>,
}

impl Warnings {
    /// Something is wrong (still, or again).
    pub fn raise(&self, trouble: Trouble, entity: &str, message: &str) {
        self.see(Seen::Anew, trouble.text(), trouble.severity(), entity, message);
    }

    fn see(&self, seen: Seen, kind: &str, severity: &str, entity: &str, message: &str) {
        let now = clock::now();
        let mut all = self.all.lock();
        let warning = all.entry(id(kind, entity)).or_insert_with_key(|uuid| Warning {
            uuid: uuid.clone(),
            location: "none".to_owned(),
            project: if entity.starts_with("/1.0/instances/") {
                DEFAULT_PROJECT.to_owned()
            } else {
                String::new()
            },
            kind: kind.to_owned(),
            first_seen_at: now.clone(),
            entity_url: entity.to_owned(),
            ..Warning::default()
        });
        if seen == Seen::Anew || !matches!(warning.status.as_str(), "new" | "acknowledged") {
            warning.count += 1;
        }
        warning.last_seen_at = now;
        message.clone_into(&mut warning.last_message);
        severity.clone_into(&mut warning.severity);
        // One that came back after it was right is news; one that somebody knows of is not.
        if warning.status != "acknowledged" {
            "new".clone_into(&mut warning.status);
        }
        while all.len() > KEPT {
            let oldest = all.values().min_by(|a, b| a.last_seen_at.cmp(&b.last_seen_at));
            let Some(oldest) = oldest.map(|warning| warning.uuid.clone()) else { break };
            all.remove(&oldest);
        }
    }

    /// It is right again.
    pub fn resolve(&self, trouble: Trouble, entity: &str) {
        if let Some(warning) = self.all.lock().get_mut(&id(trouble.text(), entity)) {
            "resolved".clone_into(&mut warning.status);
        }
    }

    /// What it was about is gone.
    pub fn forget(&self, entity: &str) {
        self.all.lock().retain(|_, warning| warning.entity_url != entity);
    }
}

/// Of one trouble of one thing there is one warning, with the same id each time.
fn id(kind: &str, entity: &str) -> String {
    let hash = cabin_images::digest(format!("{kind}\0{entity}").as_bytes());
    format!("{}-{}-4{}-8{}-{}", &hash[..8], &hash[8..12], &hash[12..15], &hash[15..18], &hash[18..30])
}

/// Every warning: what happened, and what is so at this moment.
///
/// # Errors
/// When the rows cannot be read.
pub fn list(host: &Host) -> Result<Vec<Warning>, Error> {
    look(host)?;
    Ok(host.warnings().all.lock().values().cloned().collect())
}

/// Looks at what nobody tells of when it changes: pools, programs, features of the host.
fn look(host: &Host) -> Result<(), Error> {
    let warnings = host.warnings();
    let (kind, severity) = (Trouble::Pool.text(), Trouble::Pool.severity());
    for pool in host.store().rows::<rows::Pool>().list(DEFAULT_PROJECT)? {
        let entity = format!("/1.0/storage-pools/{}", pool.name);
        match storage::pool(host, &pool.name) {
            Ok(_) => warnings.resolve(Trouble::Pool, &entity),
            Err(error) => warnings.see(Seen::Still, kind, severity, &entity, &error.report()),
        }
    }
    for check in doctor::checks(host.programs()) {
        if check.state == doctor::State::Good {
            continue;
        }
        let severity = if check.state == doctor::State::Bad { "high" } else { "low" };
        let message = format!("{} {}", check.found, check.advice);
        warnings.see(Seen::Still, &check.name, severity, "/1.0", message.trim());
    }
    Ok(())
}

/// One warning.
///
/// # Errors
/// When there is none of that id.
pub fn get(host: &Host, uuid: &str) -> Result<Warning, Error> {
    look(host)?;
    host.warnings().all.lock().get(uuid).cloned().ok_or_else(|| Error::not_found(WHAT, uuid))
}

/// Says that somebody knows of it, or that it is to be told again.
///
/// # Errors
/// When there is none of that id, or the status is another than `acknowledged` and `new`.
pub fn update(host: &Host, uuid: &str, put: &WarningPut) -> Result<(), Error> {
    let action = match put.status.as_str() {
        "acknowledged" => "warning-acknowledged",
        "new" => "warning-reset",
        other => {
            return Err(Error::invalid(format!(
                "the status of a warning is `acknowledged` or `new`, not `{other}`"
            )));
        }
    };
    match host.warnings().all.lock().get_mut(uuid) {
        Some(warning) => put.status.clone_into(&mut warning.status),
        None => return Err(Error::not_found(WHAT, uuid)),
    }
    tell(host, action, uuid);
    Ok(())
}

/// Forgets a warning. It comes back when what it is about is seen again.
///
/// # Errors
/// When there is none of that id.
pub fn delete(host: &Host, uuid: &str) -> Result<(), Error> {
    host.warnings().all.lock().remove(uuid).ok_or_else(|| Error::not_found(WHAT, uuid))?;
    tell(host, "warning-deleted", uuid);
    Ok(())
}

fn tell(host: &Host, action: &str, uuid: &str) {
    let address = format!("/1.0/warnings/{uuid}");
    host.events().lifecycle("", action, &address, uuid, Value::Null, None);
}

/// The tag of what PUT changes.
#[must_use]
pub fn tag(warning: &Warning) -> String {
    crate::etag(&warning.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_one_warning_that_is_counted_known_and_right_again() {
        let warnings = Warnings::default();
        let entity = "/1.0/networks/br0";
        warnings.raise(Trouble::Network, entity, "one");
        warnings.raise(Trouble::Network, entity, "two");
        let uuid = id(Trouble::Network.text(), entity);
        let of = || warnings.all.lock().get(&uuid).cloned().unwrap();
        assert_eq!((of().count, of().last_message.as_str(), of().status.as_str()), (2, "two", "new"));
        "acknowledged".clone_into(&mut warnings.all.lock().get_mut(&uuid).unwrap().status);
        warnings.raise(Trouble::Network, entity, "three");
        assert_eq!(of().status, "acknowledged");
        warnings.resolve(Trouble::Network, entity);
        assert_eq!(of().status, "resolved");
        warnings.raise(Trouble::Network, entity, "four");
        assert_eq!((of().count, of().status.as_str()), (4, "new"));
        warnings.forget(entity);
        assert!(warnings.all.lock().is_empty());
    }

    #[test]
    fn of_too_many_the_oldest_go() {
        let warnings = Warnings::default();
        for number in 0..KEPT + 5 {
            warnings.raise(Trouble::Nic, &format!("/1.0/instances/i{number}"), "");
        }
        assert_eq!(warnings.all.lock().len(), KEPT);
    }
}
