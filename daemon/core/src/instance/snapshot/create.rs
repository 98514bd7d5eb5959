//! Taking a snapshot: the tree is copied while the instance stands still, then put on disk, then the row says so.

use std::sync::Arc;

use cabin_api::ZERO_TIME;
use cabin_api::snapshot::InstanceSnapshotsPost;
use cabin_profiles::value::snapshot::{self as naming, Part};
use cabin_storage::{Activity, DriverKind, VolumeName};
use cabin_store::Versioned;
use cabin_store::rows::{self, Config};
use cabin_undo::atomically;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::json;

use super::{WHAT, activity, address, held_all, row_name, rows_of};
use crate::instance::{expand, load, place, profiles_of, turn};
use crate::{Error, Host, Op, clock, limits, storage, volume};

/// How snapshots are named when nothing is said.
const PATTERN: &str = "snap%d";

/// Refuses at once what can be seen to fail, and makes up a name when there is none.
///
/// # Errors
/// When there is no such instance, the name is bad or taken, or what is asked is not supported.
pub fn check_new_snapshot(
    host: &Host,
    project: &str,
    instance: &str,
    post: &mut InstanceSnapshotsPost,
) -> Result<(), Error> {
    let found = load(host, project, instance)?;
    if post.stateful {
        let reason = "this version does not keep memory on disk";
        return Err(Error::Unsupported { what: "a stateful snapshot".to_owned(), reason });
    }
    if let Some(at) = &post.expires_at {
        expiry(at)?;
    }
    let present = rows_of(host, project, instance)?;
    if post.name.is_empty() {
        let config = expand(&found.row, &profiles_of(host, project, &found.row.profiles)?).config;
        post.name = next_name(&config, &present)?;
    }
    check_name(&post.name)?;
    if present.iter().any(|found| found.name == post.name) {
        return Err(Error::Exists { what: WHAT, name: row_name(instance, &post.name) });
    }
    limits::one_more("snapshots of an instance", present.len(), limits::SNAPSHOTS)
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    cabin_profiles::value::name::snapshot(name)?;
    Ok(cabin_storage::check_snapshot_name(name)?)
}

/// Refuses what is no time.
///
/// # Errors
/// When it is neither RFC 3339 nor empty.
pub fn check_expiry(text: &str) -> Result<(), Error> {
    expiry(text).map(drop)
}

/// A time from a request as it is kept: empty for never.
pub(crate) fn expiry(text: &str) -> Result<String, Error> {
    if text.is_empty() || text == ZERO_TIME {
        return Ok(String::new());
    }
    match text.parse::<Timestamp>() {
        Ok(at) => Ok(at.to_string()),
        Err(_) => Err(Error::invalid(format!(
            "`{}` is not a time such as 2026-01-02T15:04:05Z",
            text.chars().take(60).collect::<String>().escape_debug()
        ))),
    }
}

/// When a snapshot taken now is to go, by this span of the config.
pub(crate) fn after(span: &str) -> Result<String, Error> {
    let read = naming::expiry(span)?;
    let span = Span::new()
        .years(read.years)
        .months(read.months)
        .weeks(read.weeks)
        .days(read.days)
        .hours(read.hours)
        .minutes(read.minutes)
        .seconds(read.seconds);
    let then = clock::here().with_time_zone(TimeZone::UTC).checked_add(span);
    Ok(then.map(|then| then.timestamp().to_string()).unwrap_or_default())
}

/// The name that a snapshot gets when nobody gives it one.
pub(super) fn next_name(config: &Config, present: &[Versioned<rows::Snapshot>]) -> Result<String, Error> {
    let pattern = config.get("snapshots.pattern").filter(|pattern| !pattern.is_empty());
    let names: Vec<&str> = present.iter().map(|found| found.name.as_str()).collect();
    made_up_name(pattern.map_or(PATTERN, String::as_str), &names)
}

pub(crate) fn made_up_name(pattern: &str, present: &[&str]) -> Result<String, Error> {
    let parts = naming::pattern(pattern)?;
    let now = clock::here();
    let written = |number: Option<u32>| -> String {
        parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Number => number.unwrap_or(0).to_string(),
                Part::Time(format) => now.strftime(format.as_str()).to_string(),
            })
            .collect()
    };
    let numbered = parts.contains(&Part::Number);
    let plain = written(None);
    if !numbered && !present.contains(&plain.as_str()) {
        return Ok(plain);
    }
    // Incus goes on from the highest number there is; a name that is free again is not used twice.
    let (before, behind) = match numbered {
        true => {
            let marked: Vec<String> = parts
                .split(|part| *part == Part::Number)
                .map(|side| {
                    side.iter()
                        .map(|part| match part {
                            Part::Text(text) => text.clone(),
                            Part::Time(format) => now.strftime(format.as_str()).to_string(),
                            Part::Number => String::new(),
                        })
                        .collect()
                })
                .collect();
            (marked.first().cloned().unwrap_or_default(), marked.get(1).cloned().unwrap_or_default())
        }
        false => (format!("{plain}-"), String::new()),
    };
    let highest = present
        .iter()
        .filter_map(|name| name.strip_prefix(before.as_str())?.strip_suffix(behind.as_str()))
        .filter_map(|number| number.parse::<u32>().ok())
        .max();
    let next = highest.map_or(0, |highest| highest.saturating_add(1));
    Ok(format!("{before}{next}{behind}"))
}

/// Takes a snapshot of an instance. One that runs stands still while what it changed is copied.
///
/// # Errors
/// As [`check_new_snapshot`], or when the host refuses.
pub fn create_snapshot(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    instance: &str,
    post: &InstanceSnapshotsPost,
) -> Result<(), Error> {
    let _turn = turn(host, project, instance, "snapshot")?;
    let found = load(host, project, instance)?;
    let config = expand(&found.row, &profiles_of(host, project, &found.row.profiles)?).config;
    let said = |key: &str| config.get(key).filter(|span| !span.is_empty());
    let expires_at = match &post.expires_at {
        Some(at) => expiry(at)?,
        None => match said("snapshots.expiry.manual").or_else(|| said("snapshots.expiry")) {
            Some(span) => after(span)?,
            None => String::new(),
        },
    };
    let volumes = match post.volumes {
        true => volume::Attached::of(host, project, instance, &post.name)?,
        false => volume::Attached::default(),
    };
    let frozen = take(host, project, instance, &found.row, (&post.name, expires_at), &volumes)?;
    op.update(json!({ "frozen_us": frozen }));
    let name = row_name(instance, &post.name);
    host.events().lifecycle(
        project,
        "instance-snapshot-created",
        &address(instance, &post.name),
        &name,
        json!({ "frozen_us": frozen }),
        op.requestor(),
    );
    Ok(())
}

/// Gives the microseconds for which the instance stood still. The caller holds its turn.
pub(super) fn take(
    host: &Arc<Host>,
    project: &str,
    instance: &str,
    now: &rows::Instance,
    (name, expires_at): (&str, String),
    volumes: &volume::Attached,
) -> Result<u64, Error> {
    let taken = || Error::Exists { what: WHAT, name: row_name(instance, name) };
    if host.store().rows::<rows::Snapshot>().get(project, &row_name(instance, name))?.is_some() {
        return Err(taken());
    }
    let pool = storage::pool(host, &now.pool)?;
    let volume = VolumeName::container(instance)?;
    place::clear_snapshot(host, project, &pool, (&volume, name))?;
    let mut row = row_of(now, expires_at);
    let frozen = atomically(|undo| -> Result<u64, Error> {
        let activity = activity(host, instance);
        let (staged, frozen) = held_all(host, project, instance, undo, |undo| {
            let mut staged = vec![pool.stage_snapshot(&volume, activity, name, undo)?];
            staged.extend(volumes.stage(host, name, undo)?);
            Ok(staged)
        })?;
        for staged in staged {
            staged.show(undo)?;
        }
        // What became a layer is counted when somebody first asks, see `size`.
        let shared = activity == Activity::Stopped && pool.driver() == DriverKind::Overlay;
        row.size = if shared { 0 } else { pool.snapshot_usage(&volume, name)? };
        let txn = host.store().begin().insert(project, &row_name(instance, name), &row)?;
        let mut txn = volumes.insert(project, name, &row.expires_at, txn)?;
        // One that stood still had it noted; else the note is another's, as that of a restart.
        if activity == Activity::Running {
            txn = txn.remove::<rows::Intent>(project, instance);
        }
        match txn.commit() {
            Err(cabin_store::Error::Changed { .. }) => Err(taken()),
            other => Ok(other.map(|_| frozen)?),
        }
    })?;
    Ok(frozen)
}

fn row_of(now: &rows::Instance, expires_at: String) -> rows::Snapshot {
    let now = now.clone();
    rows::Snapshot {
        description: now.description,
        architecture: now.architecture,
        ephemeral: now.ephemeral,
        profiles: now.profiles,
        config: now.config,
        devices: now.devices,
        created_at: clock::now(),
        expires_at,
        last_used_at: now.last_used_at,
        size: 0,
        volume: now.volume,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_pattern_with_the_next_number() {
        let check = |pattern: &str, present: &[&str], expected: &str| {
            assert_eq!(made_up_name(pattern, present).unwrap(), expected, "{pattern} {present:?}");
        };
        check("snap%d", &[], "snap0");
        check("snap%d", &["snap0", "snap7", "other"], "snap8");
        check("a%db", &["a3b", "a9"], "a4b");
        check("auto", &[], "auto");
        check("auto", &["auto"], "auto-0");
        check("auto", &["auto", "auto-0"], "auto-1");
        assert!(made_up_name("{{ creation_date|date:'2006' }}", &[]).unwrap().starts_with("20"));
        assert!(made_up_name("a b", &[]).is_err());
    }

    #[test]
    fn a_time_is_kept_as_one_and_the_zero_time_is_never() {
        assert_eq!(expiry(ZERO_TIME).unwrap(), "");
        assert_eq!(expiry("2030-01-02T03:04:05+01:00").unwrap(), "2030-01-02T02:04:05Z");
        assert!(expiry("tomorrow").is_err());
        let then: Timestamp = after("1m").unwrap().parse().unwrap();
        let days = (then.as_second() - Timestamp::now().as_second()) / 86_400;
        assert!((27..=31).contains(&days), "{days}");
    }
}
