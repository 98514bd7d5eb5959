//! Processors: sockets, the cores in them, the threads of those.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::place::Place;

/// What /proc/cpuinfo says of one thread.
type Said = HashMap<String, String>;

#[derive(Default)]
struct Socket {
    said: Said,
    caches: Vec<Value>,
    /// The lowest and the highest of its cores' frequencies, in MHz.
    range: (u64, u64),
    /// By die, cluster and number.
    cores: BTreeMap<(u64, u64, u64), Core>,
}

#[derive(Default)]
struct Core {
    frequency: u64,
    flags: Vec<String>,
    threads: Vec<Value>,
}

pub(super) fn all() -> Value {
    let said = cpuinfo(&Place::at("/proc").text("cpuinfo"));
    let cpus = Place::at("/sys/devices/system/cpu");
    let isolated = members(&cpus.text("isolated"));
    let mut sockets: BTreeMap<u64, Socket> = BTreeMap::new();
    let mut total = 0;
    for (number, cpu) in cpus.numbered("cpu") {
        let topology = cpu.then("topology");
        // One that is switched off belongs nowhere.
        if !topology.exists() {
            continue;
        }
        total += 1;
        let said = said.get(&number).cloned().unwrap_or_default();
        let socket = sockets.entry(topology.number("physical_package_id")).or_default();
        if socket.cores.is_empty() {
            socket.caches = caches(&cpu);
            let limit = |name: &str| cpu.number::<u64>(&format!("cpufreq/{name}")) / 1000;
            socket.range = (limit("cpuinfo_min_freq"), limit("cpuinfo_max_freq"));
            socket.said.clone_from(&said);
        }
        // Where cores are not clustered, the kernel says so with all the bits it has for it.
        let cluster = Some(topology.number("cluster_id")).filter(|id| *id != 0xffff).unwrap_or_default();
        let place = (topology.number("die_id"), cluster, topology.number("core_id"));
        let core = socket.cores.entry(place).or_default();
        core.frequency = frequency(&cpu, &said);
        core.flags = word(&said, "flags").split_whitespace().map(str::to_owned).collect();
        let node = cpu.numbered("node").first().map_or(0, |(node, _)| *node);
        core.threads.push(json!({
            "id": number, "thread": core.threads.len(), "numa_node": node, "online": true,
            "isolated": isolated.contains(&number),
        }));
    }
    let sockets: Vec<Value> = sockets.iter().map(|(number, socket)| socket.shown(*number)).collect();
    json!({ "architecture": std::env::consts::ARCH, "sockets": sockets, "total": total })
}

impl Socket {
    fn shown(&self, number: u64) -> Value {
        let cores: Vec<Value> = self.cores.iter().map(|(place, core)| core.shown(*place)).collect();
        let sum: u64 = self.cores.values().map(|core| core.frequency).sum();
        let sizes = word(&self.said, "address sizes");
        let bits = |what: &str| -> u64 {
            let part = sizes.split(", ").find_map(|part| part.strip_suffix(what));
            part.and_then(|bits| bits.trim().parse().ok()).unwrap_or_default()
        };
        let mut shown = json!({
            "socket": number,
            "name": word(&self.said, "model name"),
            "vendor": word(&self.said, "vendor_id"),
            "address_sizes": { "physical_bits": bits("bits physical"), "virtual_bits": bits("bits virtual") },
            "cache": self.caches,
            "cores": cores,
        });
        let average = sum / (self.cores.len() as u64).max(1);
        let known =
            [("frequency", average), ("frequency_minimum", self.range.0), ("frequency_turbo", self.range.1)];
        for (key, value) in known.into_iter().filter(|(_, value)| *value > 0) {
            shown[key] = value.into();
        }
        shown
    }
}

impl Core {
    fn shown(&self, (die, cluster, core): (u64, u64, u64)) -> Value {
        json!({
            "core": core, "cluster": cluster, "die": die, "frequency": self.frequency, "flags": self.flags,
            "threads": self.threads,
        })
    }
}

/// In MHz: what its governor says, else what the processor says.
fn frequency(cpu: &Place, said: &Said) -> u64 {
    match cpu.number::<u64>("cpufreq/scaling_cur_freq") {
        0 => word(said, "cpu MHz").split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or_default(),
        kilo => kilo / 1000,
    }
}

fn caches(cpu: &Place) -> Vec<Value> {
    let size = |text: &str| text.strip_suffix('K')?.parse::<u64>().ok().map(|kib| kib << 10);
    let shown = |cache: &Place| {
        json!({
            "level": cache.number::<u64>("level"), "type": cache.text("type"),
            "size": size(&cache.text("size")).unwrap_or_default(),
        })
    };
    cpu.then("cache").numbered("index").iter().map(|(_, cache)| shown(cache)).collect()
}

fn word<'a>(said: &'a Said, key: &str) -> &'a str {
    said.get(key).map_or("", String::as_str)
}

/// By the number of the thread.
fn cpuinfo(text: &str) -> HashMap<u32, Said> {
    let block = |block: &str| -> Option<(u32, Said)> {
        let pairs = block.lines().filter_map(|line| line.split_once(':'));
        let said: Said = pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect();
        Some((said.get("processor")?.parse().ok()?, said))
    };
    text.split("\n\n").filter_map(block).collect()
}

/// The members of a list of the kernel's, as `0-2,7`.
fn members(list: &str) -> Vec<u32> {
    let run = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(run).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_kernels_have_runs_and_single_numbers() {
        assert_eq!(members("0-2,7"), [0, 1, 2, 7]);
        assert_eq!(members(""), [0; 0]);
    }
}
