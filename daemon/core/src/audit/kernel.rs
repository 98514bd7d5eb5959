//! Processes, mounts, control groups, links, filters and descriptors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cabin_sys::dir::{EntryKind, HostDir};

use super::{Findings, Known};
use crate::{Error, Host};

/// Networks, each with the settings' file of a server that it has.
type Served = BTreeSet<(String, String)>;

/// The programs that the daemon starts and that end with what they do.
const HELPERS: &[&str] = &["cabin-unpack", "cabin-files", "cabin-init", "distrobuilder"];

/// The longest table of mounts or of open files that is read, in bytes.
const TABLE: u64 = 64 << 20;

pub(super) fn look(host: &Host, known: &Known, findings: &mut Findings) -> Result<(), Error> {
    let proc = HostDir::open(Path::new("/proc")).map_err(Error::io("open /proc"))?;
    let served = processes(host, known, &proc, findings)?;
    networks(host, known, &served, findings)?;
    cgroups(host, known, &proc, findings)?;
    links(host, known, findings)?;
    own_descriptors(host, findings)
}

/// The flag of a kernel's own thread in `/proc/PID/stat` (`PF_KTHREAD` of the kernel's sched.h): it holds nothing.
const KERNELS: u64 = 0x0020_0000;

/// One process as it is seen in /proc.
struct Process {
    pid: u32,
    parent: u32,
    arguments: Vec<String>,
    /// The instance whose control group it is in.
    inside: Option<String>,
}

impl Process {
    /// Of a process that ends meanwhile there is nothing to tell, nor of the kernel's own.
    fn read(proc: &HostDir, pid: u32, prefix: &str) -> Option<Process> {
        let text = |file: &str| {
            let bytes = proc.read(&format!("{pid}/{file}"), TABLE).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let stat = text("stat")?;
        // The name before it may hold anything: state, parent, and four more before the flags.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let parent = fields.nth(1)?.parse().ok()?;
        if fields.nth(4)?.parse::<u64>().ok()? & KERNELS != 0 {
            return None;
        }
        let arguments = text("cmdline")?.split('\0').map(str::to_owned).collect();
        let mark = format!(":/{prefix}/");
        let groups = text("cgroup").unwrap_or_default();
        let inside = groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(&mark)?;
            Some(rest.split('/').next().unwrap_or(rest).to_owned())
        });
        Some(Process { pid, parent, arguments, inside })
    }

    /// Whether it is a program that came with the daemon and is done when what it was started for is.
    fn is_helper(&self) -> bool {
        let program = self.arguments.first().map(String::as_str).unwrap_or_default();
        HELPERS.contains(&program.rsplit('/').next().unwrap_or(program))
    }

    /// Whether it has a file open below a directory.
    fn holds(&self, place: &str) -> bool {
        let Ok(fds) = HostDir::open(Path::new(&format!("/proc/{}/fd", self.pid))) else { return false };
        fds.list().unwrap_or_default().iter().any(|fd| {
            rustix::fs::readlinkat(&fds, fd.name.as_str(), Vec::new())
                .is_ok_and(|target| target.to_string_lossy().starts_with(place))
        })
    }

    /// What its table of mounts depends on: its mount namespace, and the directory that it has for the root.
    fn view(&self, proc: &HostDir) -> Option<[String; 2]> {
        let link = |name: &str| {
            let target = rustix::fs::readlinkat(proc, format!("{}/{name}", self.pid), Vec::new()).ok()?;
            Some(target.to_string_lossy().into_owned())
        };
        Some([link("ns/mnt")?, link("root")?])
    }
}

/// Gives the networks that have servers, with the files of their settings.
fn processes(host: &Host, known: &Known, proc: &HostDir, findings: &mut Findings) -> Result<Served, Error> {
    let prefix = &host.settings().prefix;
    let listed = proc.list().map_err(Error::io("list processes"))?;
    let all: Vec<Process> = listed
        .iter()
        .filter_map(|entry| Process::read(proc, entry.name.parse().ok()?, prefix))
        .filter(|process| process.pid != std::process::id())
        .collect();
    let supervisors: BTreeMap<u32, &str> = known
        .live
        .values()
        .filter_map(|live| {
            let init = live.supervisor.init_pid();
            let parent = all.iter().find(|process| process.pid == init)?.parent;
            Some((parent, live.name.as_str()))
        })
        .collect();
    let dir = host.settings().dir.display().to_string();
    let run = host.settings().containers_dir().display().to_string();
    let servers = format!("--conf-file={dir}/networks/");
    let (mut served, mut views) = (BTreeSet::new(), BTreeSet::new());
    for process in &all {
        let told = format!("{} (`{}`)", process.pid, process.arguments.join(" ").trim());
        if let Some(settings) = process.arguments.iter().find_map(|it| it.strip_prefix(&servers)) {
            let (network, file) = settings.split_once('/').unwrap_or((settings, ""));
            if !known.networks.contains_key(network) {
                findings.add("name server", told, format!("serves network `{network}`, which is not there"));
            } else if !served.insert((network.to_owned(), file.to_owned())) {
                findings.add("name server", told, format!("is the second one of network `{network}`"));
            }
            continue;
        }
        match &process.inside {
            Some(name) if known.live.contains_key(name) => continue,
            Some(name) => findings.add("process", told, format!("is in the control group of `{name}`")),
            None if supervisors.contains_key(&process.pid) => {}
            None if process.holds(&run) => findings.add("process", told, "holds the run directory"),
            None if process.is_helper() && process.parent != std::process::id() && process.holds(&dir) => {
                findings.add("process", told, "holds files here, and is not this daemon's");
            }
            None => {}
        }
        // Whoever sees the same as another is not asked for it again: most of a host's processes do.
        let Some(view) = process.view(proc) else { continue };
        if !views.contains(&view) && mounts(proc, process, &dir, findings) {
            views.insert(view);
        }
    }
    for name in known.live.keys().filter(|name| !supervisors.values().any(|found| found == *name)) {
        findings.add("supervisor", name, "of a running instance is not there");
    }
    Ok(served)
}

/// What each network has besides its bridge: a name server, and a filter, as each port has.
fn networks(host: &Host, known: &Known, served: &Served, findings: &mut Findings) -> Result<(), Error> {
    let filtered = host.network().filtered()?;
    for (name, row) in &known.networks {
        let Ok(spec) = crate::resolve::bridge(name, row) else {
            findings.add("network", name, "has a config that cannot be read");
            continue;
        };
        let needed = spec.servers();
        for file in &needed {
            if !served.contains(&(name.clone(), (*file).to_owned())) {
                findings.add("name server", name, format!("with `{file}` is missing"));
            }
        }
        for (_, file) in
            served.iter().filter(|(network, file)| network == name && !needed.contains(&file.as_str()))
        {
            findings.add("name server", name, format!("with `{file}` is not needed"));
        }
        if !filtered.bridges.contains(&spec.name) {
            findings.add("filter", name, "of a network is missing");
        }
    }
    for live in known.live.values() {
        for nic in live.nics.lock().iter().filter(|nic| nic.network.is_some()) {
            let port = &nic.nic.host_name;
            if !filtered.ports.contains(port) {
                findings.add("filter", port.as_str(), format!("of a port of `{}` is missing", live.name));
            }
        }
    }
    Ok(())
}

/// What processes outside of containers see of the daemon's directory: nothing but what the host itself
/// mounted there. `false` when it ended meanwhile.
fn mounts(proc: &HostDir, process: &Process, dir: &str, findings: &mut Findings) -> bool {
    let Ok(table) = proc.read(&format!("{}/mountinfo", process.pid), TABLE) else { return false };
    for line in String::from_utf8_lossy(&table).lines() {
        let Some(point) = line.split(' ').nth(4) else { continue };
        let below = point.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        let pool = point.strip_prefix(dir).and_then(|rest| rest.strip_prefix("/storage-pools/"));
        let run = point.strip_prefix(dir).is_some_and(|rest| rest == "/run");
        let host_own = run || pool.is_some_and(|rest| !rest.contains('/'));
        let of_tree = line.contains(&format!("{dir}/storage-pools/")) && line.contains(" - overlay ");
        if (below && !host_own) || of_tree {
            findings.add("mount", point, format!("is seen by process {}", process.pid));
        }
    }
    true
}

/// The daemon's groups in every hierarchy the host has mounted.
fn cgroups(host: &Host, known: &Known, proc: &HostDir, findings: &mut Findings) -> Result<(), Error> {
    let table = proc
        .read(&format!("{}/mountinfo", std::process::id()), TABLE)
        .map_err(Error::io("read the mount table"))?;
    for line in String::from_utf8_lossy(&table).lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let kind = fields.iter().position(|field| *field == "-").and_then(|at| fields.get(at + 1));
        let (Some(point), true) = (fields.get(4), matches!(kind, Some(&("cgroup" | "cgroup2")))) else {
            continue;
        };
        let place = Path::new(point).join(&host.settings().prefix);
        let listed = HostDir::open(&place).and_then(|dir| dir.list());
        for name in known.live.keys() {
            if !listed.as_ref().is_ok_and(|groups| groups.iter().any(|group| group.name == *name)) {
                findings.add(
                    "cgroup",
                    place.join(name).display().to_string(),
                    "of a running instance is missing",
                );
            }
        }
        let Ok(groups) = listed else { continue };
        for group in groups.iter().filter(|entry| entry.kind == EntryKind::Dir) {
            let path = place.join(&group.name);
            if known.live.contains_key(&group.name) {
                leaves(&path, findings);
            } else {
                findings.add("cgroup", path.display().to_string(), "nothing runs under that name");
            }
        }
    }
    Ok(())
}

/// Groups of commands that another daemon ran and that have ended.
fn leaves(group: &Path, findings: &mut Findings) {
    let own = std::process::id().to_string();
    for place in [group.to_owned(), group.join("init")] {
        let Ok(dir) = HostDir::open(&place) else { continue };
        for leaf in dir.list().unwrap_or_default() {
            let serial = [".cabin-", "exec-"].iter().find_map(|mark| leaf.name.strip_prefix(mark));
            let Some(serial) = serial.filter(|_| leaf.kind == EntryKind::Dir) else { continue };
            let events = dir.read(&format!("{}/cgroup.events", leaf.name), 4096).unwrap_or_default();
            let empty = String::from_utf8_lossy(&events).lines().any(|line| line == "populated 0");
            if empty && serial.split('-').next() != Some(own.as_str()) {
                findings.add("cgroup", place.join(&leaf.name).display().to_string(), "its command has ended");
            }
        }
    }
}

/// Bridges and ports that bear the daemon's marks: as links, in the filter, as directories.
fn links(host: &Host, known: &Known, findings: &mut Findings) -> Result<(), Error> {
    let marked = host.network().marked()?;
    for bridge in &marked.bridges {
        if !known.networks.contains_key(bridge.as_str()) {
            findings.add("bridge", bridge.as_str(), "no network is of that name");
        }
    }
    let interfaces = host.network().host_interfaces()?;
    let there = |name: &str| interfaces.iter().any(|interface| interface.name == name);
    for network in known.networks.keys().filter(|name| !there(name)) {
        findings.add("bridge", network, "is missing");
    }
    let mut plugged = BTreeSet::new();
    for live in known.live.values() {
        for nic in live.nics.lock().iter() {
            let name = nic.nic.host_name.to_string();
            if !there(&name) {
                findings.add("port", &name, format!("of `{}` is missing", live.name));
            }
            plugged.insert(name);
        }
    }
    for port in marked.ports.iter().filter(|port| !plugged.contains(port.as_str())) {
        findings.add("port", port.as_str(), "no running instance has it");
    }
    Ok(())
}

/// Files of the daemon's own that it holds open though they are removed.
fn own_descriptors(host: &Host, findings: &mut Findings) -> Result<(), Error> {
    let act = || Error::io("list open files");
    let fds = HostDir::open(Path::new(&format!("/proc/{}/fd", std::process::id()))).map_err(act())?;
    let dir = host.settings().dir.display().to_string();
    for fd in fds.list().map_err(act())? {
        let Ok(target) = rustix::fs::readlinkat(&fds, fd.name.as_str(), Vec::new()) else { continue };
        let target = target.to_string_lossy().into_owned();
        if target.starts_with(&dir) && target.ends_with(" (deleted)") {
            findings.add("open file", target, format!("is held as descriptor {}", fd.name));
        }
    }
    Ok(())
}
