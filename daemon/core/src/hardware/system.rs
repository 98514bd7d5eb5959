//! The machine as its firmware describes it. Where there is no such description, as in small virtual machines, it is empty.

use serde_json::{Value, json};

use super::place::Place;

/// What the numbers of chassis mean (SMBIOS 3.7, 7.4.1), from 1 on.
const CHASSIS: &[&str] = &[
    "Other",
    "Unknown",
    "Desktop",
    "Low Profile Desktop",
    "Pizza Box",
    "Mini Tower",
    "Tower",
    "Portable",
    "Laptop",
    "Notebook",
    "Hand Held",
    "Docking Station",
    "All In One",
    "Sub Notebook",
    "Space-saving",
    "Lunch Box",
    "Main Server Chassis",
    "Expansion Chassis",
    "Sub Chassis",
    "Bus Expansion Chassis",
    "Peripheral Chassis",
    "RAID Chassis",
    "Rack Mount Chassis",
    "Sealed-case PC",
    "Multi-system",
    "CompactPCI",
    "AdvancedTCA",
    "Blade",
    "Blade Enclosing",
    "Tablet",
    "Convertible",
    "Detachable",
    "IoT Gateway",
    "Embedded PC",
    "Mini PC",
    "Stick PC",
];

pub(super) fn all() -> Value {
    let dmi = Place::at("/sys/class/dmi/id");
    let told = |value: Value| if dmi.exists() { value } else { Value::Null };
    json!({
        "uuid": dmi.text("product_uuid"), "vendor": dmi.text("sys_vendor"), "product": dmi.text("product_name"),
        "family": dmi.text("product_family"), "version": dmi.text("product_version"), "sku": dmi.text("product_sku"),
        "serial": dmi.text("product_serial"), "type": kind(),
        "firmware": told(json!({
            "vendor": dmi.text("bios_vendor"), "date": dmi.text("bios_date"), "version": dmi.text("bios_version"),
        })),
        "chassis": told(json!({
            "vendor": dmi.text("chassis_vendor"), "type": chassis(dmi.number("chassis_type")),
            "serial": dmi.text("chassis_serial"), "version": dmi.text("chassis_version"),
        })),
        "motherboard": told(json!({
            "vendor": dmi.text("board_vendor"), "product": dmi.text("board_name"),
            "serial": dmi.text("board_serial"), "version": dmi.text("board_version"),
        })),
    })
}

fn chassis(number: usize) -> &'static str {
    number.checked_sub(1).and_then(|at| CHASSIS.get(at)).copied().unwrap_or_default()
}

fn kind() -> &'static str {
    let proc = Place::at("/proc");
    let init = proc.text("1/environ");
    // Whoever starts an init in a container tells it so.
    let is_container = init.split('\0').any(|variable| variable.starts_with("container="));
    let cpuinfo = proc.text("cpuinfo");
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let is_guest = flags.is_some_and(|line| line.split(' ').any(|flag| flag == "hypervisor"));
    match (is_container, is_guest) {
        (true, _) => "container",
        (_, true) => "virtual-machine",
        _ => "physical",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chassis_has_the_name_of_its_number() {
        let check = |number, name| assert_eq!(chassis(number), name);
        check(3, "Desktop");
        check(17, "Main Server Chassis");
        check(23, "Rack Mount Chassis");
        check(36, "Stick PC");
        check(0, "");
        check(99, "");
    }
}
