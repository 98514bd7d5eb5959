//! What the kernel is told about a bridge and its ports, as it tells it itself.

use cabin_network::{Filter, Isolation};

use crate::world::{Guest, Host, bridge, in_own_world, keep, nic, run};

/// The switches of an interface that do not have this value.
fn wrong(name: &str, wanted: &[(&str, &str)]) -> Vec<String> {
    let value = |switch: &str| {
        let (family, switch) = switch.split_once('/').unwrap();
        let path = format!("/proc/sys/net/{family}/conf/{name}/{switch}");
        std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}")).trim().to_owned()
    };
    let wrong = wanted.iter().filter(|(switch, wanted)| value(switch) != *wanted);
    wrong.map(|(switch, wanted)| format!("{name}: {switch} is {}, not {wanted}", value(switch))).collect()
}

const BRIDGE: &[(&str, &str)] = &[
    ("ipv4/accept_redirects", "0"),
    ("ipv4/accept_source_route", "0"),
    ("ipv4/arp_announce", "2"),
    ("ipv4/arp_ignore", "1"),
    ("ipv4/rp_filter", "1"),
    ("ipv4/send_redirects", "0"),
    ("ipv6/accept_dad", "0"),
    ("ipv6/accept_ra", "0"),
    ("ipv6/accept_redirects", "0"),
    ("ipv6/addr_gen_mode", "1"),
    ("ipv6/autoconf", "0"),
];

#[test]
fn a_bridge_believes_nothing_that_its_guests_say_of_routes() {
    in_own_world("switches::a_bridge_believes_nothing_that_its_guests_say_of_routes", || {
        let host = Host::new();
        // As on a host that listens to all of it.
        for switch in ["accept_ra=2", "accept_redirects=1", "autoconf=1"] {
            run("sysctl", &["-q", "-w", &format!("net.ipv6.conf.default.{switch}")]);
        }
        run("sysctl", &["-q", "-w", "net.ipv4.conf.default.rp_filter=0"]);
        let mut spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let with = |more: &[(&'static str, &'static str)]| wrong("cbr0", &[BRIDGE, more].concat());
        let none: Vec<String> = Vec::new();
        let routed = [("ipv4/forwarding", "1"), ("ipv6/forwarding", "1"), ("ipv6/disable_ipv6", "0")];
        assert_eq!(with(&routed), none);
        // Somebody turned them; the daemon's next look puts them right.
        run("sysctl", &["-q", "-w", "net.ipv6.conf.cbr0.accept_ra=2", "net.ipv4.conf.cbr0.rp_filter=0"]);
        host.network.ensure_bridge(&spec).unwrap();
        assert_eq!(with(&routed), none);

        let old = spec.clone();
        spec.ipv4.as_mut().unwrap().routing = false;
        spec.ipv6 = None;
        host.network.update_bridge(&old, &spec).unwrap();
        let apart = [("ipv4/forwarding", "0"), ("ipv6/forwarding", "0"), ("ipv6/disable_ipv6", "1")];
        assert_eq!(with(&apart), none);
        host.network.destroy_bridge(&spec.name).unwrap();
    });
}

#[test]
fn a_port_learns_nothing_and_lets_nobody_lead_the_bridge() {
    in_own_world("switches::a_port_learns_nothing_and_lets_nobody_lead_the_bridge", || {
        let host = Host::new();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let guest = Guest::new();
        let mut web = nic("web", 1);
        keep(|undo| host.network.plug(&spec, &web, guest.netns(), undo));
        let check = |wanted: &[&str]| {
            let told = run("ip", &["-d", "link", "show", "dev", "vethtest1"]);
            let missing: Vec<_> = wanted.iter().filter(|flag| !told.contains(&format!(" {flag} "))).collect();
            assert!(missing.is_empty(), "{missing:?} of {told}");
        };
        let always = ["guard on", "root_block on", "mcast_router 0", "hairpin off"];
        check(&[&always[..], &["learning off", "locked on", "isolated off"]].concat());
        // What it must not learn it is told.
        let known = run("bridge", &["fdb", "show", "dev", "vethtest1"]);
        assert!(known.contains("00:16:3e:00:00:01 master cbr0 static"), "{known}");
        assert_eq!(wrong("vethtest1", &[("ipv6/disable_ipv6", "1")]), Vec::<String>::new());

        web.filter = Filter::NONE;
        web.isolation = Isolation::Isolated;
        host.network.ensure_port(&spec, &web).unwrap();
        check(&[&always[..], &["learning on", "locked off", "isolated on"]].concat());
        host.network.unplug(&spec.name, &web).unwrap();
        host.network.destroy_bridge(&spec.name).unwrap();
    });
}
