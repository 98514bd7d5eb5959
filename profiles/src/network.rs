//! The tables of keys of networks, storage pools and the server.

use crate::key::{Key, Restriction};
use crate::kind::Kind;

/// The keys of a managed bridge.
pub const BRIDGE: &[Key] = &[
    Key::new("bridge.hwaddr", Kind::Mac, "The bridge's MAC address; unset is chosen once and kept").live(),
    Key::new("bridge.mtu", Kind::Integer(576, 65_535), "The largest packet").default("1500").live(),
    Key::new("dns.domain", Kind::Domain, "The domain that instances' names are in").default("incus").live(),
    Key::new("dns.mode", Kind::OneOf(&["managed", "none"]), "Whether instances can be found by name")
        .default("managed")
        .live(),
    Key::new("dns.nameservers", Kind::Addresses, "The name servers told to instances; unset is the bridge")
        .live(),
    Key::new("dns.search", Kind::Domains, "The search list told to instances; unset is the domain").live(),
    Key::new("ipv4.address", Kind::Ipv4Subnet, "The bridge's IPv4 address").default("auto").live(),
    Key::new("ipv4.dhcp", Kind::Bool, "Give IPv4 addresses out").default("true").live(),
    Key::new("ipv4.dhcp.expiry", Kind::LeaseTime, "How long a lease lasts").default("1h").live(),
    Key::new("ipv4.dhcp.gateway", Kind::Ipv4, "The gateway told to instances; unset is the bridge").live(),
    Key::new("ipv4.dhcp.ranges", Kind::Ipv4Ranges, "The addresses given out; unset is all of the subnet")
        .live(),
    Key::new("ipv4.firewall", Kind::Bool, "Let the needed traffic through the host's firewall")
        .default("true")
        .live(),
    Key::new("ipv4.nat", Kind::Bool, "Hide instances behind the host; on when the address was made up")
        .live(),
    Key::new("ipv4.routing", Kind::Bool, "Let traffic in and out of the bridge").default("true").live(),
    Key::new("ipv6.address", Kind::Ipv6Subnet, "The bridge's IPv6 address").default("auto").live(),
    Key::new("ipv6.dhcp", Kind::Bool, "Answer DHCPv6 beside router advertisements").default("true").live(),
    Key::new("ipv6.dhcp.expiry", Kind::LeaseTime, "How long a lease lasts").default("1h").live(),
    Key::new("ipv6.dhcp.ranges", Kind::Ipv6Ranges, "The addresses given out; unset is all of the subnet")
        .live(),
    Key::new("ipv6.dhcp.stateful", Kind::Bool, "Give IPv6 addresses out by DHCPv6").default("false").live(),
    Key::new("ipv6.firewall", Kind::Bool, "Let the needed traffic through the host's firewall")
        .default("true")
        .live(),
    Key::new("ipv6.nat", Kind::Bool, "Hide instances behind the host; on when the address was made up")
        .live(),
    Key::new("ipv6.routing", Kind::Bool, "Let traffic in and out of the bridge").default("true").live(),
    Key::new("raw.dnsmasq", Kind::Blob, "Lines added to dnsmasq's configuration")
        .live()
        .restricted(Restriction::LowLevel),
    Key::new(
        "security.host_access",
        Kind::OneOf(&["essential", "open"]),
        "What instances reach of the host itself: everything it offers, or DHCP, DNS and ping alone",
    )
    .default("open")
    .live(),
    Key::new("user.*", Kind::Blob, "Anything you like").live(),
    Key::new("volatile.*", Kind::Blob, "What the daemon remembers").live().restricted(Restriction::Server),
];

/// The keys of a storage pool.
pub const POOL: &[Key] = &[
    Key::new(
        "btrfs.mount_options",
        Kind::Blob,
        "Driver `btrfs`, with a disk of its own: options the disk is mounted with, such as `compress=zstd`",
    )
    .restricted(Restriction::LowLevel),
    Key::new(
        "rsync.bwlimit",
        Kind::Bytes,
        "Accepted for the sake of what was written for Incus: trees are copied without rsync",
    )
    .live(),
    Key::new(
        "rsync.compression",
        Kind::Bool,
        "Accepted for the sake of what was written for Incus: trees are copied without rsync",
    )
    .live(),
    Key::new(
        "size",
        Kind::Bytes,
        "Driver `btrfs`: the size of the disk that is made for the pool; it can grow. Unset is a fifth of what is free, 5 to 30 GiB",
    )
    .live(),
    Key::new(
        "source",
        Kind::Path,
        "The directory that holds the pool; unset is one in the daemon's own, or a disk in a file with driver `btrfs`",
    )
    .restricted(Restriction::LowLevel),
    Key::new("user.*", Kind::Blob, "Anything you like").live(),
    Key::new("volatile.*", Kind::Blob, "What the daemon remembers").live().restricted(Restriction::Server),
];

/// The keys of a storage pool that are one driver's own.
pub const POOL_OF: &[(&str, &str)] = &[("btrfs.mount_options", "btrfs"), ("size", "btrfs")];

/// Options of every mount, without a value. Of those about times there may be one.
pub const MOUNT_FLAGS: &[&str] = &["nodiratime", "rw", "noatime", "relatime", "strictatime"];

/// The options that a pool's disk may be mounted with.
pub const MOUNT_OPTIONS: &[&str] = &[
    "autodefrag",
    "commit",
    "compress",
    "compress-force",
    "datacow",
    "datasum",
    "discard",
    "flushoncommit",
    "max_inline",
    "noautodefrag",
    "nodatacow",
    "nodatasum",
    "nodiscard",
    "noflushoncommit",
    "nossd",
    "notreelog",
    "ssd",
    "ssd_spread",
    "thread_pool",
    "treelog",
    "user_subvol_rm_allowed",
];

/// The drivers of pools.
pub const DRIVERS: &[&str] = &["btrfs", "dir", "overlay"];

/// The keys of a storage volume.
pub const VOLUME: &[Key] = &[
    Key::new("initial.gid", Kind::Integer(0, 65_535), "The group a new volume's root has").default("0"),
    Key::new("initial.mode", Kind::Mode, "The mode a new volume's root has").default("0711"),
    Key::new("initial.uid", Kind::Integer(0, 65_535), "The owner a new volume's root has").default("0"),
    Key::new(
        "security.shifted",
        Kind::Bool,
        "Accepted for the sake of what was written for Incus: volumes always look right in every instance at once",
    )
    .live(),
    Key::new(
        "security.unmapped",
        Kind::Bool,
        "Leave the ids on disk as they are on the host: nobody's in an instance that is not privileged",
    )
    .default("false"),
    Key::new("size", Kind::Bytes, "The most it holds; unset is no limit").live(),
    Key::new("snapshots.expiry", Kind::Expiry, "How long its snapshots are kept, such as `1d 12H`; unset is for ever")
        .live(),
    Key::new(
        "snapshots.expiry.manual",
        Kind::Expiry,
        "The same for those that somebody asks for; unset is as `snapshots.expiry`",
    )
    .live(),
    Key::new(
        "snapshots.pattern",
        Kind::SnapshotPattern,
        "The name of a snapshot that is given none: with `%d` for a number, or `{{ creation_date|date:'2006-01-02' }}`",
    )
    .default("snap%d")
    .live(),
    Key::new("snapshots.schedule", Kind::Schedule, "When snapshots are taken by themselves, as for instances").live(),
    Key::new("user.*", Kind::Blob, "Anything you like").live(),
    Key::new("volatile.*", Kind::Blob, "What the daemon remembers").live().restricted(Restriction::Server),
];

/// The keys of the server.
pub const SERVER: &[Key] = &[
    Key::new(
        "backups.compression_algorithm",
        Kind::Text,
        "How backups are compressed when nothing is asked for: none, gzip, bzip2, xz or zstd, with a level if you like",
    )
    .default("gzip")
    .live(),
    Key::new(
        "core.metrics_authentication",
        Kind::Bool,
        "Accepted for the sake of what was written for Incus: there are no metrics to read yet",
    )
    .default("true")
    .live(),
    Key::new(
        "core.shutdown_timeout",
        Kind::Integer(0, 1440),
        "Minutes that running operations get at shutdown",
    )
    .default("5")
    .live(),
    Key::new(
        "images.auto_update_cached",
        Kind::Bool,
        "Accepted for the sake of what was written for Incus: no image comes from a server yet",
    )
    .default("true")
    .live(),
    Key::new(
        "images.auto_update_interval",
        Kind::Integer(0, i64::MAX),
        "Accepted for the sake of what was written for Incus: no image comes from a server yet",
    )
    .default("6")
    .live(),
    Key::new(
        "images.compression_algorithm",
        Kind::Text,
        "How published images are compressed when nothing is asked for: none, gzip, bzip2, xz or zstd, with a level if you like",
    )
    .default("gzip")
    .live(),
    Key::new(
        "images.remote_cache_expiry",
        Kind::Integer(0, i64::MAX),
        "Accepted for the sake of what was written for Incus: no image comes from a server yet",
    )
    .default("10")
    .live(),
    Key::new(
        "network.hwaddr_pattern",
        Kind::MacPattern,
        "How the MAC addresses of nics are made up that are given none: `x` is any digit",
    )
    .default("10:66:6a:xx:xx:xx")
    .live(),
    Key::new("user.*", Kind::Blob, "Anything you like").live(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_declared_once_in_order_and_its_default_holds() {
        for table in [BRIDGE, POOL, VOLUME, SERVER] {
            let names: Vec<&str> = table.iter().map(|key| key.name).collect();
            let mut sorted = names.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(names, sorted);
            for key in table {
                assert!(key.default.is_none_or(|value| key.kind.check(value).is_ok()), "{}", key.name);
            }
        }
    }
}
