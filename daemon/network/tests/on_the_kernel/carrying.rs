//! Networks behind a nic, and how much it may carry.

use cabin_network::{Error, NicSpec, Rates};
use cabin_undo::{atomically, fault};

use crate::world::{Guest, Host, bridge, in_own_world, keep, nic, program, run, wait_for};

/// Where our routes by an interface lead, of both families.
fn routes(by: &str) -> Vec<String> {
    let all = run("ip", &["-4", "route", "show", "dev", by, "proto", "203"])
        + &run("ip", &["-6", "route", "show", "dev", by, "proto", "203"]);
    all.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// The interfaces there are, but not whether somebody is at the other end by now, and what the packet filter has
/// chains for.
fn made() -> String {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let links: Vec<_> = run("ip", &["-br", "link"]).lines().map(words).collect();
    let links: Vec<_> = links.iter().map(|words| format!("{} {}\n", words[0], words[2])).collect();
    links.concat() + &run("nft", &["list", "chains"])
}

fn routed(number: u8) -> NicSpec {
    let routes = ["192.0.2.128/25", "198.51.100.7/32", "2001:db8:1::/64", "2001:db8:2::7/128"];
    NicSpec { routes: routes.iter().map(|route| route.parse().unwrap()).collect(), ..nic("web", number) }
}

/// How many answers came, and in how many milliseconds all was sent: who is held up sends later.
fn ping(args: &[&str]) -> (u32, u32) {
    let text = String::from_utf8_lossy(&program("ping").args(args).output().unwrap().stdout).into_owned();
    let received = text.split(" received").next().and_then(|head| head.rsplit(' ').next()).unwrap();
    let time = text.split(", time ").nth(1).and_then(|tail| tail.split("ms").next()).unwrap();
    (received.parse().unwrap(), time.parse().unwrap())
}

#[test]
fn the_host_reaches_the_networks_behind_a_nic_and_their_addresses_are_its_own() {
    in_own_world(
        "carrying::the_host_reaches_the_networks_behind_a_nic_and_their_addresses_are_its_own",
        || {
            let host = Host::new();
            let spec = bridge("cbtest0", "10.77.0.1/24", "fd77::1/64");
            keep(|undo| host.network.create_bridge(&spec, undo));
            let before = made();
            let (guest, nic) = (Guest::new(), routed(1));
            keep(|undo| host.network.plug(&spec, &nic, guest.netns(), undo));
            assert_eq!(routes("cbtest0").len(), 4);
            guest.dhcp(&host.dir);
            for address in ["192.0.2.129/32", "198.51.100.7/32", "203.0.113.7/32"] {
                guest.run("ip", &["addr", "add", address, "dev", "eth0"]);
            }
            for address in ["2001:db8:1::5/128", "2001:db8:2::7/128", "2001:db8:3::7/128"] {
                guest.run("ip", &["addr", "add", address, "dev", "eth0"]);
            }
            run("ping", &["-c1", "-W5", "192.0.2.129"]);
            run("ping", &["-c1", "-W5", "198.51.100.7"]);
            for address in ["2001:db8:1::5", "2001:db8:2::7"] {
                wait_for("an answer over IPv6", || ping(&["-c1", "-W1", address]).0 == 1);
            }
            // Nothing else is: the host may look for it, no answer comes.
            for (address, family) in [("203.0.113.7", "-4"), ("2001:db8:3::7", "-6")] {
                run("ip", &[family, "route", "add", address, "dev", "cbtest0"]);
                assert_eq!(ping(&["-c1", "-W1", address]).0, 0, "{address}");
                run("ip", &[family, "route", "del", address, "dev", "cbtest0"]);
            }
            // Somebody took one away; somebody else's stays whatever happens.
            run("ip", &["route", "del", "198.51.100.7"]);
            run("ip", &["route", "add", "203.0.113.0/24", "dev", "cbtest0"]);
            host.network.ensure_port(&spec, &nic).unwrap();
            assert_eq!(routes("cbtest0").len(), 4);
            // Of what nobody wants any more only our own goes.
            let stray = host.network.keep_routes(&spec.name, &nic.routes[..3]).unwrap();
            assert_eq!(stray, [nic.routes[3]]);
            assert_eq!(routes("cbtest0").len(), 3);
            host.network.unplug(&spec.name, &nic).unwrap();
            host.network.unplug(&spec.name, &nic).unwrap();
            assert_eq!(
                run("ip", &["route", "show", "203.0.113.0/24"]).lines().count(),
                1,
                "somebody else's route"
            );
            assert!(routes("cbtest0").is_empty());
            assert_eq!(made(), before);
        },
    );
}

#[test]
fn a_network_is_behind_one_nic_alone() {
    in_own_world("carrying::a_network_is_behind_one_nic_alone", || {
        let host = Host::new();
        let spec = bridge("cbtest0", "10.77.0.1/24", "fd77::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let (one, first) = (Guest::new(), routed(1));
        keep(|undo| host.network.plug(&spec, &first, one.netns(), undo));
        let (state, laid) = (made(), routes("cbtest0"));
        let other = Guest::new();
        let second = NicSpec { instance: "db".parse().unwrap(), ..routed(2) };
        let failed =
            atomically(|undo| host.network.plug(&spec, &second, other.netns(), undo).map(drop)).unwrap_err();
        assert!(matches!(failed.cause, Error::RouteExists { .. }), "{:?}", failed.cause);
        assert!(failed.left_behind.is_empty(), "{:?}", failed.left_behind);
        // What the first has it has still.
        assert_eq!((made(), routes("cbtest0")), (state, laid));
    });
}

#[test]
fn what_is_behind_a_nic_changes_while_it_lives_or_not_at_all() {
    in_own_world("carrying::what_is_behind_a_nic_changes_while_it_lives_or_not_at_all", || {
        let host = Host::new();
        let spec = bridge("cbtest0", "10.77.0.1/24", "fd77::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let (guest, old) = (Guest::new(), routed(1));
        keep(|undo| host.network.plug(&spec, &old, guest.netns(), undo));
        let new = NicSpec {
            routes: vec![old.routes[0], "203.0.113.0/24".parse().unwrap()],
            rates: Rates { inward: Some(1_000_000), outward: Some(2_000_000) },
            ..old.clone()
        };
        let state = || {
            let chain = run("nft", &["list", "ruleset", "netdev"]);
            (made(), routes("cbtest0"), chain, run("tc", &["class", "show", "dev", "vethtest1"]))
        };
        let before = state();
        let mut failures = 0;
        for step in 1.. {
            fault::arm(fault::Plan::Fail(step));
            let done = atomically(|undo| host.network.adjust_port(&spec, (&old, &new), undo));
            fault::arm(fault::Plan::Off);
            let Err(failed) = done else { break };
            failures += 1;
            assert!(failed.left_behind.is_empty(), "{:?}", failed.left_behind);
            assert_eq!(state(), before, "step {step}");
        }
        assert!(failures > 3, "{failures} steps were seen");
        let laid = routes("cbtest0");
        assert_eq!(laid, ["192.0.2.128/25", "203.0.113.0/24"]);
        let class = run("tc", &["class", "show", "dev", "vethtest1"]);
        assert!(class.contains("rate 1Mbit"), "{class}");
        keep(|undo| host.network.adjust_port(&spec, (&new, &old), undo));
        assert_eq!(state(), before);
    });
}

#[test]
fn a_nic_carries_no_more_than_it_may() {
    in_own_world("carrying::a_nic_carries_no_more_than_it_may", || {
        let host = Host::new();
        let spec = bridge("cbtest0", "10.77.0.1/24", "fd77::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let (guest, free) = (Guest::new(), nic("web", 1));
        keep(|undo| host.network.plug(&spec, &free, guest.netns(), undo));
        let address = guest.dhcp(&host.dir);
        let many = ["-q", "-c20", "-i0.002", "-s1400", "-W1"];
        let from_host = || ping(&[&many[..], &[address.as_str()]].concat());
        let (answers, time) = from_host();
        assert!(answers == 20 && time < 500, "{answers} after {time} ms without a limit");
        // 20 times 1442 bytes at 20 kB a second take more than a second; none is lost.
        let slow = NicSpec { rates: Rates { inward: Some(160_000), outward: None }, ..free.clone() };
        keep(|undo| host.network.adjust_port(&spec, (&free, &slow), undo));
        let (answers, time) = ping(&["-q", "-c20", "-i0.002", "-s1400", "-W5", &address]);
        assert!(answers == 20 && time > 700, "{answers} after {time} ms");
        // A second's worth passes at once, the rest is dropped.
        let deaf = NicSpec { rates: Rates { inward: None, outward: Some(40_000) }, ..free.clone() };
        keep(|undo| host.network.adjust_port(&spec, (&slow, &deaf), undo));
        let (answers, _) = from_host();
        assert!((1..12).contains(&answers), "{answers} answers passed");
        keep(|undo| host.network.adjust_port(&spec, (&deaf, &free), undo));
        let (answers, time) = from_host();
        assert!(answers == 20 && time < 500, "{answers} after {time} ms without a limit again");
        // Rates that no number of 32 bits holds.
        let fast = NicSpec { rates: Rates { inward: Some(80_000_000_000), outward: Some(u64::MAX) }, ..free };
        host.network.ensure_port(&spec, &fast).unwrap();
        let class = run("tc", &["class", "show", "dev", "vethtest1"]);
        assert!(class.contains("rate 80Gbit"), "{class}");
        assert_eq!(from_host().0, 20);
    });
}

#[test]
fn a_pair_has_routes_and_a_rate_too() {
    in_own_world("carrying::a_pair_has_routes_and_a_rate_too", || {
        let host = Host::new();
        let before = made();
        let guest = Guest::new();
        let nic = NicSpec { rates: Rates { inward: Some(1_000_000), outward: None }, ..routed(1) };
        keep(|undo| host.network.plug_pair(&nic, guest.netns(), undo));
        assert_eq!(routes("vethtest1").len(), 4);
        assert!(run("tc", &["class", "show", "dev", "vethtest1"]).contains("rate 1Mbit"));
        let plain = NicSpec { routes: nic.routes[..1].to_vec(), rates: Rates::default(), ..nic.clone() };
        keep(|undo| host.network.adjust_pair((&nic, &plain), undo));
        assert_eq!(routes("vethtest1").len(), 1);
        assert_eq!(run("tc", &["class", "show", "dev", "vethtest1"]), "");
        run("ip", &["route", "flush", "dev", "vethtest1"]);
        host.network.ensure_pair(&plain).unwrap();
        assert_eq!(routes("vethtest1").len(), 1);
        host.network.unplug_pair(&plain).unwrap();
        assert_eq!(made(), before);
    });
}

#[test]
fn queues_and_priorities_are_those_of_the_nic_and_the_ports_mtu_that_of_the_bridge() {
    let test = "carrying::queues_and_priorities_are_those_of_the_nic_and_the_ports_mtu_that_of_the_bridge";
    in_own_world(test, || {
        let host = Host::new();
        let spec = bridge("cbtest0", "10.77.0.1/24", "fd77::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let guest = Guest::new();
        let nic = NicSpec { mtu: Some(1400), queue: Some(1200), priority: Some(5), ..nic("web", 1) };
        keep(|undo| host.network.plug(&spec, &nic, guest.netns(), undo));
        let (outside, inside) =
            (run("ip", &["link", "show", "vethtest1"]), guest.run("ip", &["link", "show", "eth0"]));
        assert!(outside.contains("mtu 1500") && outside.contains("qlen 1200"), "{outside}");
        assert!(inside.contains("mtu 1400") && inside.contains("qlen 1200"), "{inside}");
        let chain = || run("nft", &["-nn", "list", "ruleset", "netdev"]);
        assert!(chain().contains("meta priority set 0:5"), "{}", chain());
        let address = guest.dhcp(&host.dir);
        run("ping", &["-c1", "-W5", &address]);
        let plain = NicSpec { priority: None, ..nic.clone() };
        keep(|undo| host.network.adjust_port(&spec, (&nic, &plain), undo));
        assert!(!chain().contains("meta priority"), "{}", chain());
    });
}
