//! What is on the buses PCI and USB.

use serde_json::{Value, json};

use super::names::Names;
use super::place::Place;

pub(super) fn pci() -> Vec<Value> {
    let (bus, names) = (Place::at("/sys/bus/pci/devices"), Names::of("pci"));
    let shown = |address: &String| {
        let device = bus.then(address);
        let (vendor_id, product_id) = (device.id("vendor"), device.id("device"));
        let (vendor, product) = names.find(&vendor_id, &product_id);
        let (driver, driver_version) = device.driver();
        json!({
            "driver": driver, "driver_version": driver_version,
            "iommu_group": device.linked("iommu_group").parse::<u64>().unwrap_or_default(),
            "numa_node": device.numa_node(), "pci_address": address,
            "product": product, "product_id": product_id, "vendor": vendor, "vendor_id": vendor_id,
            "vpd": {},
        })
    };
    bus.list().iter().map(shown).collect()
}

/// The class of hubs.
const HUB: &str = "09";

pub(super) fn usb() -> Vec<Value> {
    let (bus, names) = (Place::at("/sys/bus/usb/devices"), Names::of("usb"));
    let mut found = Vec::new();
    for name in bus.list() {
        let device = bus.then(&name);
        let vendor_id = device.text("idVendor");
        if vendor_id.is_empty() || device.text("bDeviceClass") == HUB {
            continue;
        }
        let product_id = device.text("idProduct");
        let (vendor, product) = names.find(&vendor_id, &product_id);
        // What the device says of itself will do.
        let or = |listed: String, file: &str| if listed.is_empty() { device.text(file) } else { listed };
        found.push(json!({
            "bus_address": device.number::<u64>("busnum"), "device_address": device.number::<u64>("devnum"),
            "interfaces": interfaces(&device, &format!("{name}:")),
            "product": or(product, "product"), "product_id": product_id, "serial": device.text("serial"),
            "speed": device.number::<f64>("speed"),
            "vendor": or(vendor, "manufacturer"), "vendor_id": vendor_id,
        }));
    }
    found
}

fn interfaces(device: &Place, prefix: &str) -> Vec<Value> {
    let shown = |name: &String| {
        let interface = device.then(name);
        let (driver, driver_version) = interface.driver();
        let number = |file: &str| u64::from_str_radix(&interface.text(file), 16).unwrap_or_default();
        json!({
            "class": "", "class_id": number("bInterfaceClass"),
            "driver": driver, "driver_version": driver_version, "number": number("bInterfaceNumber"),
            "subclass": "", "subclass_id": number("bInterfaceSubClass"),
        })
    };
    device.list().iter().filter(|name| name.starts_with(prefix)).map(shown).collect()
}
