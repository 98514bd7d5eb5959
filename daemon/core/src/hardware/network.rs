//! Network cards and their ports. What no device is behind (bridges, veths, lo) is none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::names::Names;
use super::place::{Place, pci_address};

pub(super) fn cards() -> Vec<Value> {
    let (net, names) = (Place::at("/sys/class/net"), Names::of("pci"));
    let mut cards: BTreeMap<Vec<String>, Value> = BTreeMap::new();
    for name in net.list() {
        let port = net.then(&name);
        if !port.then("device").exists() {
            continue;
        }
        // A card of several ports is one device with several links.
        let mut way = net.way(&name);
        way.pop();
        let card =
            cards.entry(way).or_insert_with_key(|way| shown(&port.then("device"), &pci_address(way), &names));
        if let Some(ports) = card["ports"].as_array_mut() {
            ports.push(port_shown(&name, &port));
        }
    }
    cards.into_values().collect()
}

fn shown(device: &Place, address: &str, names: &Names) -> Value {
    // Of a card of virtio, the device on the bus is the one that is known by name, and that Incus tells of.
    let bus = Place::at("/sys/bus/pci/devices");
    let on_bus = if address.is_empty() { device } else { &bus.then(address) };
    let (driver, driver_version) = on_bus.driver();
    let (vendor_id, product_id) = (on_bus.id("vendor"), on_bus.id("device"));
    let (vendor, product) = names.find(&vendor_id, &product_id);
    json!({
        "driver": driver, "driver_version": driver_version, "numa_node": on_bus.numa_node(), "pci_address": address,
        "ports": [], "product": product, "product_id": product_id, "vendor": vendor, "vendor_id": vendor_id,
    })
}

/// ARPHRD_INFINIBAND
const INFINIBAND: u32 = 32;

fn port_shown(name: &str, port: &Place) -> Value {
    let protocol = if port.number::<u32>("type") == INFINIBAND { "infiniband" } else { "ethernet" };
    let mut shown = json!({
        "id": name, "address": port.text("address"), "port": port.number::<u64>("dev_port"), "protocol": protocol,
        "auto_negotiation": false, "link_detected": port.flag("carrier"),
    });
    // -1 and `unknown` stand for what the driver does not tell.
    if let speed @ 1.. = port.number::<i64>("speed") {
        shown["link_speed"] = speed.into();
    }
    if let duplex @ ("full" | "half") = port.text("duplex").as_str() {
        shown["link_duplex"] = duplex.into();
    }
    shown
}
