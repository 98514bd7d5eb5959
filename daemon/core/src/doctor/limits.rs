//! The kernel's limits that many containers on one host meet first: how they stand, how much of them is used, and
//! raising them, now and for the next boot.
//!
//! What they should be is `dist/90-cabin.conf`, which packages install too. The files are those of sysctl.d(5) and
//! of proc_sys(5); a limit this kernel or network namespace does not have is left out.

use std::io::Write as _;
use std::path::Path;

use cabin_sys::dir::HostDir;

use super::{Check, State, check, read};
use crate::Error;

/// What the limits should be, in the format of sysctl.d(5).
const WANTED: &str = include_str!("../../../../dist/90-cabin.conf");

/// Where they are kept for the next boot.
const KEPT: (&str, &str) = ("/etc/sysctl.d", "90-cabin.conf");

/// Ports of one bridge: `BR_MAX_PORTS` (1 << 10) of net/bridge/br_private.h, of which 0 is none.
const PORTS: usize = 1023;

/// From which part of a limit on it is told that it is near: nine tenths.
const NEAR: (u64, u64) = (9, 10);

/// What ends when a limit is reached, by the beginning of its name.
const ENDS: [(&str, &str); 7] = [
    ("fs.inotify.", "programs inside cannot watch files"),
    ("kernel.keys.", "containers have no keyring"),
    ("kernel.pid_max", "no process can be started"),
    ("kernel.pty.", "containers have no console, commands no terminal"),
    ("vm.max_map_count", "databases inside do not start"),
    ("net.ipv4.neigh.", "containers lose each other: the table of neighbours is one for the whole host"),
    ("net.ipv6.neigh.", "containers lose each other: the table of neighbours is one for the whole host"),
];

/// Every limit, and what is nearly used up.
pub(super) fn checks() -> Vec<Check> {
    let mut all: Vec<Check> = wanted().filter_map(limit).collect();
    all.extend(bridges());
    all.extend([processes(), terminals()].into_iter().flatten());
    all
}

/// Raises every limit that is too low, and keeps them for the next boot. None is ever lowered.
///
/// # Errors
/// When one cannot be raised or kept; the others are.
pub fn raise() -> Result<(), Error> {
    let mut failed = Vec::new();
    for (key, least) in wanted() {
        if now(key).is_none_or(|now| now >= least) {
            continue;
        }
        if let Err(error) = write(key, least) {
            failed.push(format!("`{key}`: {error}"));
        }
    }
    let kept = HostDir::ensure(Path::new(KEPT.0), 0o755)
        .and_then(|dir| dir.replace(KEPT.1, WANTED.as_bytes(), 0o644));
    if let Err(error) = kept {
        failed.push(format!("`{}/{}`: {error}", KEPT.0, KEPT.1));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "some limits could not be raised (the daemon must be root of the host): {}",
            failed.join("; ")
        ))),
    }
}

/// Keys and least values.
fn wanted() -> impl Iterator<Item = (&'static str, u64)> {
    WANTED.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        Some((key.trim(), value.trim().parse().ok()?))
    })
}

fn place(key: &str) -> (String, &str) {
    let (dirs, file) = key.rsplit_once('.').unwrap_or(("", key));
    (format!("/proc/sys/{}", dirs.replace('.', "/")), file)
}

fn now(key: &str) -> Option<u64> {
    let (dir, file) = place(key);
    read(&dir, file)?.parse().ok()
}

fn write(key: &str, value: u64) -> std::io::Result<()> {
    let (dir, file) = place(key);
    HostDir::open(Path::new(&dir))?.append_file(file, 0o644)?.write_all(value.to_string().as_bytes())
}

fn limit((key, least): (&'static str, u64)) -> Option<Check> {
    let now = now(key)?;
    let state = if now >= least { State::Good } else { State::Lacking };
    let ends = ENDS.iter().find(|(begin, _)| key.starts_with(begin)).map_or("", |(_, ends)| ends);
    let advice = format!(
        "with many containers {ends}; `cabin doctor --raise` makes it {least}, now and at every boot"
    );
    Some(check(key, state, now.to_string(), advice))
}

/// Every bridge and its ports: a bridge that is full takes no container more.
fn bridges() -> Vec<Check> {
    let Ok(net) = HostDir::open(Path::new("/sys/class/net")) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in net.list().unwrap_or_default() {
        let Ok(ports) = HostDir::open(&Path::new("/sys/class/net").join(&entry.name).join("brif")) else {
            continue;
        };
        let used = ports.list().map_or(0, |list| list.len());
        let name = format!("ports of bridge {}", entry.name);
        let advice = "a bridge of Linux takes no more: make another network (`cabin network create`) for further containers";
        found.push(check(&name, room(used as u64, PORTS as u64), format!("{used} of {PORTS}"), advice));
    }
    found
}

fn processes() -> Option<Check> {
    // The fourth field is `running/there`.
    let load = read("/proc", "loadavg")?;
    let there: u64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    let most = now("kernel.pid_max")?.min(now("kernel.threads-max")?);
    let advice =
        "no more can be started: `cabin doctor --raise`, `sysctl kernel.threads-max=…`, or stop some";
    Some(check("processes", room(there, most), format!("{there} of {most}"), advice))
}

fn terminals() -> Option<Check> {
    let there = now("kernel.pty.nr")?;
    // What is reserved is for the host's own /dev/pts.
    let most = now("kernel.pty.max")?.saturating_sub(now("kernel.pty.reserve")?);
    let advice = "every running container has one for its console: `cabin doctor --raise`";
    Some(check("terminals", room(there, most), format!("{there} of {most}"), advice))
}

pub(super) fn room(used: u64, most: u64) -> State {
    if used * NEAR.1 < most * NEAR.0 { State::Good } else { State::Lacking }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_of_the_file_has_a_value_and_says_what_ends() {
        let lines = WANTED.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(wanted().count(), lines);
        for (key, _) in wanted() {
            assert!(ENDS.iter().any(|(begin, _)| key.starts_with(begin)), "{key}");
        }
    }

    #[test]
    fn what_is_nearly_used_up_is_told_before_it_is() {
        assert_eq!(room(900, 1023), State::Good);
        assert_eq!(room(921, 1023), State::Lacking);
        assert_eq!(room(1023, 1023), State::Lacking);
    }
}
