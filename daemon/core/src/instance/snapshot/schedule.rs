//! Snapshots that instances' `snapshots.schedule` asks for.

use std::sync::Arc;

use cabin_api::StatusCode;
use cabin_profiles::value::schedule::{self, Schedule};
use cabin_store::rows::{self, Config};
use serde_json::json;

use super::create::{after, next_name, take};
use super::{address, row_name, rows_of};
use crate::clock::Stretch;
use crate::instance::{expand, load, profiles, profiles_of, status, turn};
use crate::{DEFAULT_PROJECT, Error, Host, limits};

/// Takes the snapshots whose time came. One that cannot be taken is logged, and not tried again before its next time.
pub(super) fn take_due(host: &Arc<Host>, stretch: &Stretch) {
    match due(host, stretch) {
        Ok(due) => due.iter().for_each(|name| take_one(host, name, "scheduled", false)),
        Err(error) => tracing::error!(error = %error.report(), "schedules of snapshots cannot be read"),
    }
}

/// Takes the snapshot that is asked for at the start of an instance, of what it is before it. The caller holds
/// its turn. A failure is logged: the instance starts all the same.
pub(in crate::instance) fn at_startup(host: &Arc<Host>, project: &str, name: &str) {
    let config = load(host, project, name).and_then(|found| config_of(host, project, &found.row));
    if config.is_ok_and(|config| scheduled(name, &config).is_some_and(|schedule| schedule.at_startup())) {
        take_one(host, name, "startup", true);
    }
}

fn config_of(host: &Host, project: &str, row: &rows::Instance) -> Result<Config, Error> {
    Ok(expand(row, &profiles_of(host, project, &row.profiles)?).config)
}

fn scheduled(name: &str, config: &Config) -> Option<Schedule> {
    let text = config.get("snapshots.schedule").filter(|text| !text.is_empty())?;
    let spread = name.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    // It was checked when it was set; a profile of an older version may say what is not understood any more.
    schedule::parse(text, spread).ok()
}

/// The instances a snapshot of which is due.
fn due(host: &Host, stretch: &Stretch) -> Result<Vec<String>, Error> {
    let profiles = profiles(host, DEFAULT_PROJECT)?;
    let mut due = Vec::new();
    for found in host.store().rows::<rows::Instance>().list(DEFAULT_PROJECT)? {
        let config = expand(&found.row, &profiles).config;
        let Some(schedule) = scheduled(&found.name, &config) else { continue };
        let stopped = status(host, &found.name) == StatusCode::Stopped;
        let also_stopped = config.get("snapshots.schedule.stopped").is_some_and(|value| value == "true");
        let wanted = schedule.is_due(&stretch.since, &stretch.until) && (also_stopped || !stopped);
        if wanted && !taken_in(host, &found.name, stretch)? {
            due.push(found.name);
        }
    }
    Ok(due)
}

/// Whether there is a snapshot from that time: a daemon that starts again in the same minute takes no second.
fn taken_in(host: &Host, name: &str, stretch: &Stretch) -> Result<bool, Error> {
    Ok(rows_of(host, DEFAULT_PROJECT, name)?.iter().any(|found| stretch.holds(&found.row.created_at)))
}

fn take_one(host: &Arc<Host>, name: &str, why: &'static str, held: bool) {
    match try_one(host, name, held) {
        Ok(snapshot) => tracing::info!(instance = name, snapshot, why, "a snapshot was taken"),
        Err(error) => {
            tracing::warn!(instance = name, why, error = %error.report(), "a snapshot cannot be taken");
        }
    }
}

fn try_one(host: &Arc<Host>, name: &str, held: bool) -> Result<String, Error> {
    let project = DEFAULT_PROJECT;
    let _turn = if held { None } else { Some(turn(host, project, name, "snapshot")?) };
    let found = load(host, project, name)?;
    let config = config_of(host, project, &found.row)?;
    let present = rows_of(host, project, name)?;
    limits::one_more("snapshots of an instance", present.len(), limits::SNAPSHOTS)?;
    let snapshot = next_name(&config, &present)?;
    let expires_at = match config.get("snapshots.expiry").filter(|span| !span.is_empty()) {
        Some(span) => after(span)?,
        None => String::new(),
    };
    let frozen =
        take(host, project, name, &found.row, (&snapshot, expires_at), &crate::volume::Attached::default())?;
    host.events().lifecycle(
        project,
        "instance-snapshot-created",
        &address(name, &snapshot),
        &row_name(name, &snapshot),
        json!({ "frozen_us": frozen }),
        None,
    );
    Ok(snapshot)
}
