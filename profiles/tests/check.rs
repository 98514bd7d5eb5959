//! Whole configs and device sets against the tables.

use std::collections::BTreeMap;

use cabin_profiles::{
    Config, Devices, Error, Who, validate_devices, validate_expanded_devices, validate_instance_config,
    validate_network, validate_pool, validate_server, validate_volume,
};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn devices(list: &[(&str, &[(&str, &str)])]) -> Devices {
    list.iter().map(|(name, pairs)| ((*name).to_owned(), map(pairs))).collect()
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    text
}

#[test]
fn instance_config_is_checked_key_by_key() {
    let good = [
        ("limits.cpu", "0-3"),
        ("limits.memory", "50%"),
        ("limits.memory", ""),
        ("boot.autostart", "last-state"),
        ("environment.LANG", "C.UTF-8"),
        ("limits.kernel.nofile", "1024:2048"),
        ("security.idmap.isolated", "true"),
        ("user.anything at all", "x\ny"),
        ("volatile.eth0.hwaddr", "x"),
        ("image.os", "Debian"),
    ];
    for (key, value) in good {
        validate_instance_config(&map(&[(key, value)]), Who::Instance).unwrap();
    }
    let bad = [
        (
            "limits.memory",
            "lots",
            "invalid value for config key `limits.memory`: `lots` is not an amount of memory",
        ),
        ("limits.memroy", "1GiB", "unknown config key `limits.memroy` (did you mean `limits.memory`?)"),
        ("limits.kernel.nofiles", "1", "did you mean `limits.kernel.nofile`"),
        ("limits.processes", "0", "at least"),
        ("security.idmap.isolated", "false", "every instance has ids of its own"),
        ("raw.lxc", "x", "no LXC underneath"),
        ("raw.qemu.conf", "x", "only containers"),
        ("cloud-init.user-data", "x", "unknown config key"),
        ("boot.host_shutdown_action", "stateful-stop", "one of `stop`, `force-stop`"),
        ("environment.A=B", "x", "environment variable"),
        ("environment.", "x", "unknown config key"),
        ("environment.A", "x\0y", "NUL"),
        ("", "x", "unknown config key"),
    ];
    for (key, value, words) in bad {
        let error = chain(&validate_instance_config(&map(&[(key, value)]), Who::Instance).unwrap_err());
        assert!(
            error.contains(words) || words == "at least" && error.contains("whole number"),
            "{key}: {error}"
        );
    }
}

#[test]
fn profiles_may_not_hold_what_belongs_to_instances() {
    for key in ["volatile.uuid", "image.os"] {
        let config = map(&[(key, "x")]);
        validate_instance_config(&config, Who::Instance).unwrap();
        let error = validate_instance_config(&config, Who::Profile).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("profiles"), "{error}");
    }
}

#[test]
fn a_config_has_a_size_limit() {
    let huge = map(&[("user.a", &"x".repeat(1 << 20))]);
    assert!(matches!(validate_instance_config(&huge, Who::Instance), Err(Error::TooLarge { .. })));
    let many: Config = (0..2000).map(|number| (format!("user.{number}"), String::new())).collect();
    assert!(matches!(validate_instance_config(&many, Who::Instance), Err(Error::TooLarge { .. })));
}

#[test]
fn each_device_is_checked_for_itself() {
    let check = |device: &[(&str, &str)], expected: Option<&str>| {
        let result = validate_devices(&devices(&[("dev", device)]), Who::Profile);
        match (result, expected) {
            (Ok(()), None) => {}
            (Err(error), Some(words)) => {
                assert!(chain(&error).contains(words), "{device:?}: {}", chain(&error))
            }
            (result, expected) => panic!("{device:?}: {result:?}, not {expected:?}"),
        }
    };
    check(&[("type", "nic"), ("network", "br0"), ("ipv4.address", "10.0.0.5")], None);
    check(&[("type", "nic"), ("nictype", "bridged"), ("parent", "br0")], None);
    check(&[("type", "none")], None);
    check(&[("type", "disk"), ("path", "/"), ("pool", "default")], None);
    check(&[], Some("has no type"));
    check(&[("type", "")], Some("has no type"));
    check(&[("type", "proxy")], Some("not supported yet"));
    check(&[("type", "warp-drive")], Some("not supported"));
    check(&[("type", "nic")], Some("needs a `network`"));
    check(&[("type", "nic"), ("nictype", "bridged")], Some("needs a `parent`"));
    check(&[("type", "nic"), ("nictype", "macvlan"), ("parent", "br0")], Some("one of `bridged`"));
    check(&[("type", "nic"), ("nictype", "p2p"), ("name", "eth0"), ("mtu", "1400")], None);
    check(&[("type", "nic"), ("nictype", "p2p"), ("parent", "br0")], Some("neither"));
    check(&[("type", "nic"), ("nictype", "p2p"), ("network", "br0")], Some("neither"));
    check(&[("type", "nic"), ("nictype", "p2p"), ("ipv4.address", "10.0.0.5")], Some("no addresses"));
    check(&[("type", "nic"), ("network", "br0"), ("parent", "br1")], Some("either"));
    check(&[("type", "nic"), ("network", "br0"), ("hwadr", "x")], Some("did you mean `hwaddr`"));
    check(&[("type", "nic"), ("network", "br0"), ("hwaddr", "x")], Some("MAC address"));
    check(&[("type", "disk"), ("path", "/"), ("pool", "default"), ("size", "1GiB")], None);
    check(&[("type", "disk"), ("path", "/"), ("pool", "default"), ("size", "much")], Some("`size`"));
    check(&[("type", "disk"), ("path", "/")], Some("`pool`"));
    check(&[("type", "disk"), ("path", "/srv"), ("source", "/srv")], None);
    check(&[("type", "disk"), ("path", "/srv"), ("source", "web"), ("pool", "default")], None);
    check(&[("type", "disk"), ("path", "/proc/self"), ("source", "/srv")], Some("/proc"));
    check(&[("type", "none"), ("path", "/")], Some("unknown property"));
    assert!(validate_devices(&devices(&[("../x", &[("type", "none")])]), Who::Instance).is_err());
}

#[test]
fn an_instance_needs_one_root_disk_and_no_clashes() {
    let root: &[(&str, &str)] = &[("type", "disk"), ("path", "/"), ("pool", "default")];
    let nic: &[(&str, &str)] =
        &[("type", "nic"), ("network", "br0"), ("name", "eth0"), ("hwaddr", "10:66:6a:00:00:aa")];
    let same: &[(&str, &str)] = &[("type", "nic"), ("network", "br0"), ("name", "eth0")];
    let twin: &[(&str, &str)] = &[("type", "nic"), ("network", "br0"), ("hwaddr", "10:66:6A:00:00:AA")];
    validate_expanded_devices(&devices(&[("root", root), ("eth0", nic)])).unwrap();
    let check = |list: &[(&str, &[(&str, &str)])], words: &str| {
        let error = chain(&validate_expanded_devices(&devices(list)).unwrap_err());
        assert!(error.contains(words), "{error}");
    };
    check(&[("eth0", nic)], "no root disk");
    check(&[("root", root), ("again", root)], "both have path `/`");
    check(&[("root", root), ("eth0", nic), ("eth1", same)], "both have name `eth0`");
    check(&[("root", root), ("eth0", nic), ("eth1", twin)], "both have hwaddr");
}

#[test]
fn a_bridge_keeps_its_ranges_inside() {
    let check = |pairs: &[(&str, &str)], expected: Option<&str>| match (
        validate_network("bridge", &map(pairs)),
        expected,
    ) {
        (Ok(()), None) => {}
        (Err(error), Some(words)) => assert!(chain(&error).contains(words), "{pairs:?}: {}", chain(&error)),
        (result, _) => panic!("{pairs:?}: {result:?}"),
    };
    check(&[], None);
    check(&[("ipv4.address", "auto"), ("ipv6.address", "none"), ("ipv4.nat", "true")], None);
    check(&[("ipv4.address", "10.0.0.1/24"), ("ipv4.dhcp.ranges", "10.0.0.5-10.0.0.9")], None);
    check(&[("ipv4.address", "10.0.0.1/24"), ("ipv4.dhcp.ranges", "10.0.1.5-10.0.1.9")], Some("outside"));
    check(&[("ipv4.address", "10.0.0.1/24"), ("ipv4.dhcp.gateway", "10.0.1.1")], Some("outside"));
    check(&[("ipv6.address", "fd42::1/64"), ("ipv6.dhcp.ranges", "fd43::1-fd43::2")], Some("outside"));
    check(&[("bridge.mtu", "1000")], Some("1280"));
    check(&[("bridge.mtu", "1000"), ("ipv6.address", "none")], None);
    check(&[("bridge.driver", "openvswitch")], Some("unknown config key"));
    check(&[("dns.domain", "a b")], Some("DNS domain"));
    assert!(validate_network("ovn", &map(&[])).unwrap_err().to_string().contains("`ovn`"));
}

#[test]
fn pools_and_the_server_have_their_keys() {
    validate_pool("overlay", &map(&[("source", "/srv/pool")])).unwrap();
    assert!(validate_pool("zfs", &map(&[])).unwrap_err().to_string().contains("`zfs`"));
    assert!(validate_pool("dir", &map(&[("size", "1GiB")])).is_err());
    validate_server(&map(&[("user.a", "b"), ("core.shutdown_timeout", "3")])).unwrap();
    assert!(validate_server(&map(&[("core.https_address", "[::]:8443")])).is_err());
    assert!(validate_server(&map(&[("user.⍾", "x")])).is_err());
    let volume =
        |unmapped| validate_volume(&map(&[("security.shifted", "1"), ("security.unmapped", unmapped)]));
    assert!(volume("true").is_err() && volume("false").is_ok());
    validate_pool("dir", &map(&[("rsync.bwlimit", "1024"), ("rsync.compression", "false")])).unwrap();
}
