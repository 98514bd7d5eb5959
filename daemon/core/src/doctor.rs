//! What this host can and cannot do for containers, and what to install or change.

mod limits;

use std::path::Path;

use cabin_sys::command::Programs;
use cabin_sys::dir::HostDir;
use serde::Serialize;

pub use limits::raise;

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Good,
    /// Something will be unavailable.
    Lacking,
    /// No container can run.
    Bad,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do; empty when nothing.
    pub advice: String,
}

fn check(name: &str, state: State, found: impl Into<String>, advice: impl Into<String>) -> Check {
    let advice = if state == State::Good { String::new() } else { advice.into() };
    Check { name: name.to_owned(), state, found: found.into(), advice }
}

/// Looks at everything. Needs no daemon.
#[must_use]
pub fn checks(programs: &Programs) -> Vec<Check> {
    let mut all = vec![kernel(), user_namespaces(), cgroups(), ids()];
    all.extend(filesystems());
    all.extend(limits::checks());
    for (missing, need) in programs.missing() {
        let advice = format!("apt-get install {}", missing.package);
        let found = format!("missing; needed for {need}");
        all.push(check(&format!("program {}", missing.name), State::Lacking, found, advice));
    }
    all.push(firewall(programs));
    all.push(forwarding());
    all
}

/// All checks as JSON, for `cabin doctor`.
#[must_use]
pub fn report(programs: &Programs) -> serde_json::Value {
    serde_json::to_value(checks(programs)).unwrap_or_default()
}

/// The checks of this host, for a caller without a daemon.
#[must_use]
pub fn report_here() -> serde_json::Value {
    report(&Programs::find())
}

fn read(dir: &str, file: &str) -> Option<String> {
    let content = HostDir::open(Path::new(dir)).ok()?.read(file, 1 << 20).ok()?;
    Some(String::from_utf8_lossy(&content).trim().to_owned())
}

fn kernel() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // 5.19 is the first with overlay on idmapped layers.
    let state = if version >= (5, 19) { State::Good } else { State::Bad };
    check("kernel", state, release, "Linux 5.19 or later is needed (idmapped overlay layers)")
}

fn user_namespaces() -> Check {
    let most = read("/proc/sys/user", "max_user_namespaces").and_then(|text| text.parse::<u64>().ok());
    match most {
        Some(0) | None => {
            check("user namespaces", State::Bad, "switched off", "sysctl user.max_user_namespaces=15000")
        }
        Some(most) => check("user namespaces", State::Good, format!("up to {most}"), ""),
    }
}

fn cgroups() -> Check {
    match cabin_runtime::cgroup::Cgroups::new("cabin-doctor") {
        Ok(cgroups) => check("cgroups", State::Good, format!("{:?}", cgroups.layout()).to_lowercase(), ""),
        Err(error) => check("cgroups", State::Bad, error.to_string(), "mount cgroup2 on /sys/fs/cgroup"),
    }
}

/// Every container has a run of ids of its own, so their number is a limit of the number of containers.
fn ids() -> Check {
    let (used, all) = crate::ids::room();
    let found = format!("{used} of {all} ranges for containers taken");
    if crate::ids::is_grant_unused() {
        let advice = "/etc/subuid and /etc/subgid should give root the same ids, at least 131072 of them: what they \
                      give now is not used";
        return check("host ids", State::Lacking, found, advice);
    }
    let advice = "give root a larger range in /etc/subuid and /etc/subgid (65536 ids for each container), \
                  and start the daemon again";
    check("host ids", limits::room(used, all), found, advice)
}

fn filesystems() -> Vec<Check> {
    let known = read("/proc", "filesystems").unwrap_or_default();
    // A module that nobody has used yet is not listed.
    let has = |name: &str| {
        known.lines().any(|line| line.split_whitespace().last() == Some(name))
            || cabin_sys::mount::is_known(name).unwrap_or(false)
    };
    let each = [
        ("overlay", "use a pool with driver `dir`, or a kernel that has overlay"),
        ("btrfs", "for pools with driver `btrfs` a kernel is needed that has it"),
    ];
    let look = |(name, advice): (&str, &str)| {
        let (state, found) = match has(name) {
            true => (State::Good, "available"),
            false => (State::Lacking, "not known to the kernel"),
        };
        check(&format!("filesystem {name}"), state, found, advice)
    };
    each.into_iter().map(look).collect()
}

fn firewall(programs: &Programs) -> Check {
    let nft = programs.command(cabin_sys::command::Program::Nft).is_ok();
    match nft {
        true => check("firewall", State::Good, "nftables", ""),
        false => check("firewall", State::Lacking, "no nft", "apt-get install nftables"),
    }
}

/// A chain of ours could not overrule another's that drops.
fn forwarding() -> Check {
    match cabin_network::dropping() {
        Ok(chains) if chains.is_empty() => check("forwarding", State::Good, "no chain drops by default", ""),
        Ok(chains) => {
            let found = format!("dropped unless a rule lets it through: {}", chains.join(", "));
            let advice = "instances reach only the host and each other unless rules there accept what comes from and goes to \
                          their bridge (docs/networking.md)";
            check("forwarding", State::Lacking, found, advice)
        }
        Err(error) => {
            check("forwarding", State::Lacking, error.to_string(), "a kernel with nf_tables is needed")
        }
    }
}
