//! Memory: of the whole host and of each of its nodes.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::place::Place;

pub(super) fn all() -> Value {
    let text = Place::at("/proc").text("meminfo");
    let host = meminfo(&text);
    let of = |key: &str| host.get(key).copied().unwrap_or_default();
    let page = of("Hugepagesize");
    let nodes = Place::at("/sys/devices/system/node").numbered("node");
    let nodes: Vec<Value> = nodes.iter().map(|(number, node)| shown(*number, node, page)).collect();
    // What can be given back at once is not used.
    let idle = of("MemFree") + of("Buffers") + of("Cached");
    json!({
        "nodes": nodes,
        "hugepages_size": page,
        "hugepages_total": of("HugePages_Total") * page,
        "hugepages_used": of("HugePages_Total").saturating_sub(of("HugePages_Free")) * page,
        "total": of("MemTotal"),
        "used": of("MemTotal").saturating_sub(idle),
    })
}

fn shown(number: u32, node: &Place, page: u64) -> Value {
    let text = node.text("meminfo");
    let node = meminfo(&text);
    let of = |key: &str| node.get(key).copied().unwrap_or_default();
    json!({
        "numa_node": number,
        "hugepages_total": of("HugePages_Total") * page,
        "hugepages_used": of("HugePages_Total").saturating_sub(of("HugePages_Free")) * page,
        "total": of("MemTotal"),
        "used": of("MemUsed"),
    })
}

/// Bytes, or pieces of what has no unit, by name. Lines of a node begin with `Node 0`.
fn meminfo(text: &str) -> HashMap<&str, u64> {
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<(&str, u64)> {
    let (before, after) = line.split_once(':')?;
    let mut words = after.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    Some((before.rsplit(' ').next()?, if words.next() == Some("kB") { number << 10 } else { number }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_host_and_of_a_node_are_read_alike() {
        let check = |text: &str| {
            let said = meminfo(text);
            assert_eq!((said["MemTotal"], said["HugePages_Total"]), (2048, 3));
        };
        check("MemTotal:       2 kB\nHugePages_Total:       3\n");
        check("Node 0 MemTotal:       2 kB\nNode 0 HugePages_Total:     3\n");
    }
}
