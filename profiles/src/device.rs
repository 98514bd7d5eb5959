//! The table of device types and their properties.

use crate::key::{Key, Restriction};
use crate::kind::Kind;

/// A type of device.
#[derive(Debug, Clone, Copy)]
pub struct DeviceType {
    /// The value of `type`.
    pub name: &'static str,
    /// Its properties, `type` apart.
    pub properties: &'static [Key],
    /// For people.
    pub help: &'static str,
}

/// The device types there are.
pub const TYPES: &[DeviceType] = &[
    DeviceType { name: "disk", properties: DISK, help: "A filesystem in the instance; `path=/` is its root" },
    DeviceType { name: "nic", properties: NIC, help: "A network interface on a bridge" },
    DeviceType { name: "none", properties: &[], help: "Nothing: masks a device of that name from a profile" },
];

/// The device types of Incus that are not there (yet).
pub const REFUSED: &[&str] =
    &["gpu", "infiniband", "pci", "proxy", "tpm", "unix-block", "unix-char", "unix-hotplug", "usb"];

const DISK: &[Key] = &[
    Key::new("initial.gid", Kind::Integer(0, 65_535), "The group of a disk in memory").default("0").live(),
    Key::new("initial.mode", Kind::Mode, "The mode of a disk in memory").default("0711").live(),
    Key::new("initial.uid", Kind::Integer(0, 65_535), "The owner of a disk in memory").default("0").live(),
    Key::new("path", Kind::Path, "Where it is mounted inside; `/` for the root"),
    Key::new("pool", Kind::Pool, "The storage pool the root, or the volume in `source`, is in"),
    Key::new("readonly", Kind::Bool, "Mount it so that nothing can be written").default("false").live(),
    Key::new("recursive", Kind::Bool, "Take along what is mounted beneath a path of the host")
        .default("false")
        .live(),
    Key::new("required", Kind::Bool, "Do not start without the path of the host").default("true").live(),
    Key::new(
        "shift",
        Kind::Bool,
        "Show a path of the host with its ids as the instance's own; with `false` they are the host's, and nobody's inside",
    )
    .default("true")
    .live(),
    Key::new("size", Kind::Bytes, "The most the root holds, in a pool of driver `btrfs` or on project quotas, or a disk in memory; unset is no limit, or half of the host's memory").live(),
    Key::new("source", Kind::Source, "What is mounted").restricted(Restriction::LowLevel),
];

const NIC: &[Key] = &[
    Key::new("attached", Kind::Bool, "Whether the instance has it now").default("true").live(),
    Key::new(
        "boot.priority",
        Kind::Integer(0, 1_000_000),
        "Accepted for the sake of shared profiles; containers do not boot from a nic",
    ),
    Key::new("host_name", Kind::Interface, "The interface's name on the host; unset is chosen"),
    Key::new("hwaddr", Kind::Mac, "The MAC address; unset is chosen once and kept"),
    Key::new(
        "ipv4.address",
        Kind::Ipv4Host,
        "The address DHCP gives it; `none` (with the filter on) allows it none",
    )
    .live(),
    Key::new(
        "ipv4.routes",
        Kind::Ipv4Routes,
        "Networks behind the instance: the host reaches them through the nic, which may send from their addresses",
    )
    .live()
    .restricted(Restriction::LowLevel),
    Key::new(
        "ipv6.address",
        Kind::Ipv6Host,
        "The address DHCPv6 gives it; `none` (with the filter on) allows it none",
    )
    .live(),
    Key::new(
        "ipv6.routes",
        Kind::Ipv6Routes,
        "Networks behind the instance: the host reaches them through the nic, which may send from their addresses",
    )
    .live()
    .restricted(Restriction::LowLevel),
    Key::new(
        "limits.egress",
        Kind::Rate,
        "Bits a second it may send; what comes faster is dropped",
    )
    .live(),
    Key::new(
        "limits.ingress",
        Kind::Rate,
        "Bits a second it may receive; what comes faster waits while there is room",
    )
    .live(),
    Key::new("limits.max", Kind::Rate, "Both rates at once, in the place of the other two").live(),
    Key::new(
        "limits.priority",
        Kind::Integer(0, 0xffff_ffff),
        "The priority that the host's queues give to what it sends, as the kernel numbers them (`5` is 0:5)",
    )
    .live(),
    Key::new("mtu", Kind::Integer(1280, 65_535), "The largest packet; unset is the bridge's"),
    Key::new("name", Kind::Interface, "The interface's name inside; unset is the next free `ethN`"),
    Key::new("network", Kind::Network, "The managed network it is plugged into"),
    Key::new(
        "nictype",
        Kind::OneOf(&["bridged", "p2p"]),
        "Instead of `network`: `bridged` with a `parent`, or `p2p`, a pair whose other end the host keeps",
    ),
    Key::new("parent", Kind::Interface, "The host's bridge it is plugged into")
        .restricted(Restriction::LowLevel),
    Key::new(
        "queue.tx.length",
        Kind::Integer(0, 0x7fff_ffff),
        "Packets that wait at each of its ends when they must; unset is the kernel's default",
    ),
    Key::new(
        "security.ipv4_filtering",
        Kind::Bool,
        "Drop IPv4 packets with a source that is not its own; on by default on managed networks",
    )
    .live(),
    Key::new(
        "security.ipv6_filtering",
        Kind::Bool,
        "Drop IPv6 packets with a source that is not its own; on by default on managed networks",
    )
    .live(),
    Key::new(
        "security.mac_filtering",
        Kind::Bool,
        "Drop frames with a source that is not its own; on by default on managed networks",
    )
    .live(),
    Key::new(
        "security.port_isolation",
        Kind::Bool,
        "Keep it from reaching other isolated nics of the bridge",
    )
    .default("false")
    .live(),
];

/// The declaration of a type.
#[must_use]
pub fn find(name: &str) -> Option<&'static DeviceType> {
    TYPES.iter().find(|known| known.name == name)
}

/// Whether a change of property `property` of a device of type `kind` can be made to a running instance
/// without taking the device away and adding it again.
#[must_use]
pub fn is_live(kind: &str, property: &str) -> bool {
    find(kind).and_then(|known| crate::key::find(known.properties, property)).is_some_and(|key| key.live)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_is_declared_once_and_in_order() {
        for known in TYPES {
            let names: Vec<&str> = known.properties.iter().map(|key| key.name).collect();
            let mut sorted = names.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(names, sorted, "{}", known.name);
            for key in known.properties {
                assert!(key.default.is_none_or(|value| key.kind.check(value).is_ok()), "{}", key.name);
            }
        }
    }

    #[test]
    fn filters_change_live_and_names_do_not() {
        assert!(is_live("nic", "security.mac_filtering"));
        assert!(!is_live("nic", "name") && !is_live("disk", "pool") && !is_live("gpu", "id"));
    }
}
