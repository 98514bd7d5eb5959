//! What the host is made of, as the kernel tells it in /proc and /sys: `GET /1.0/resources`. What it does not tell, or
//! not here, is empty or 0. Graphics cards are among the devices of PCI and nowhere else; serial ports are not told.

mod cpu;
mod devices;
mod disks;
mod memory;
mod names;
mod network;
mod place;
mod system;

use serde_json::{Value, json};

/// The host's hardware and how busy it is, in the shape that Incus gives it.
#[must_use]
pub fn resources() -> Value {
    json!({
        "cpu": cpu::all(),
        "memory": memory::all(),
        "gpu": { "cards": [], "total": 0 },
        "network": counted("cards", network::cards()),
        "storage": counted("disks", disks::all()),
        "usb": counted("devices", devices::usb()),
        "pci": counted("devices", devices::pci()),
        "system": system::all(),
        "load": load(),
    })
}

/// A list under that name, and how many are in it.
fn counted(name: &str, list: Vec<Value>) -> Value {
    let total = list.len();
    json!({ name: list, "total": total })
}

fn load() -> Value {
    let info = rustix::system::sysinfo();
    let [one, five, fifteen] = info.loads.map(average);
    // The third is over 15 minutes; its name is a slip of the wire that clients know.
    json!({ "Average1Min": one, "Average5Min": five, "Average10Min": fifteen, "Processes": info.procs })
}

/// The kernel's fixed-point load (sysinfo(2): 16 bits after the point).
#[allow(clippy::cast_precision_loss)]
fn average(fixed: u64) -> f64 {
    fixed as f64 / 65_536.0
}
