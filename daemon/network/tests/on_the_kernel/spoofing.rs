//! What a guest may send, and what must not reach its neighbour.

use std::collections::BTreeSet;

use cabin_network::{Filter, LeaseKind, NicSpec};

use crate::frames::{Mac, arp, dhcp, ether, icmp6, ipv4, ipv6, marked, neighbour, udp, vlan};
use crate::world::{Guest, Host, bridge, in_own_world, keep, nic, run};

const OWN: Mac = [0, 0x16, 0x3e, 0, 0, 1];
const OTHER: Mac = [0, 0x16, 0x3e, 0, 0, 2];
const ALL: Mac = [255; 6];
const ROUTERS: Mac = [0x33, 0x33, 0, 0, 0, 2];
const OWN_IP: &str = "10.9.8.11";
const OTHER_IP: &str = "10.9.8.12";
const GATE: &str = "10.9.8.1";
const OWN_LL: &str = "fe80::216:3eff:fe00:1";
const OTHER_LL: &str = "fe80::216:3eff:fe00:2";
const OWN_IP6: &str = "fd42:9:8::216:3eff:fe00:1";
const OTHER_IP6: &str = "fd42:9:8:0:216:3eff:fe00:2";
const GATE6: &str = "fd42:9:8::1";
const PRIVATE6: &str = "fd42:9:8::abcd:1:2:3";
/// The bridge's own, set below so that its link-local address is known.
const GATE_LL: &str = "fe80::216:3eff:fe00:fe";

type Case = (&'static str, Vec<u8>, bool);

struct Lab {
    host: Host,
    spec: cabin_network::BridgeSpec,
    own: Guest,
    other: Guest,
}

fn lab() -> Lab {
    let host = Host::new();
    // br_netfilter, where it is on, cuts a frame to the length its IP header says: the marks would be lost.
    for setting in ["iptables", "ip6tables", "arptables"] {
        let switch = format!("/proc/sys/net/bridge/bridge-nf-call-{setting}");
        if std::path::Path::new(&switch).exists() {
            std::fs::write(&switch, "0").unwrap();
        }
    }
    let mut spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
    spec.mac = Some("00:16:3e:00:00:fe".parse().unwrap());
    keep(|undo| host.network.create_bridge(&spec, undo));
    let (own, other) = (Guest::new(), Guest::new());
    keep(|undo| host.network.plug(&spec, &fixed("own", 1, OWN_IP), own.netns(), undo));
    keep(|undo| host.network.plug(&spec, &fixed("other", 2, OTHER_IP), other.netns(), undo));
    for guest in [&own, &other] {
        // Only the frames of the test are to be seen.
        guest.run("sysctl", &["-q", "-w", "net.ipv6.conf.eth0.disable_ipv6=1"]);
        guest.run("ip", &["link", "set", "eth0", "up"]);
    }
    Lab { host, spec, own, other }
}

fn fixed(name: &str, number: u8, ip: &str) -> NicSpec {
    let mut spec = nic(name, number);
    spec.ipv4 = Some(ip.parse().unwrap());
    spec
}

/// Sends the cases from one guest and compares what the other got with what it should have got.
fn check(from: &Guest, to: &Guest, cases: &[Case], last: Vec<u8>) {
    let sniffer = to.sniff([b'C', b'B', 0xff, 0xff]);
    let frames = cases.iter().zip(1u16..).map(|((_, frame, _), mark)| marked(frame.clone(), mark));
    let frames: Vec<Vec<u8>> = frames.chain([marked(last, 0xffff)]).collect();
    from.send(&frames);
    let got: BTreeSet<u16> = sniffer.marks().into_iter().collect();
    let wrong: Vec<String> = cases
        .iter()
        .zip(1u16..)
        .filter(|((_, _, passes), mark)| got.contains(mark) != *passes)
        .map(|((what, _, passes), _)| format!("{what}: should {}pass", if *passes { "" } else { "not " }))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn own_udp(to: Mac) -> Vec<u8> {
    ether(to, OWN, 0x800, &ipv4(OWN_IP, OTHER_IP, 17, 0, &udp(9, 9, b"x")))
}

fn link_and_arp_cases() -> Vec<Case> {
    let packet = ipv4(OWN_IP, OTHER_IP, 17, 0, &udp(9, 9, b"x"));
    let by = |mac: Mac| ether(OTHER, mac, 0x800, &packet);
    let arp_by = |op, mac, ip| ether(ALL, OWN, 0x806, &arp(op, mac, ip, OTHER_IP));
    let mut odd = arp(1, OWN, OWN_IP, OTHER_IP);
    odd[5] = 16;
    vec![
        ("own IPv4", by(OWN), true),
        ("neighbour's MAC", by(OTHER), false),
        ("multicast MAC", by([1, 0, 0x5e, 0, 0, 1]), false),
        ("zero MAC", by([0; 6]), false),
        ("VLAN 5", ether(OTHER, OWN, 0x8100, &vlan(5, 0x800, &packet)), false),
        ("VLAN 0", ether(OTHER, OWN, 0x8100, &vlan(0, 0x800, &packet)), false),
        ("VLAN 5 in 802.1ad", ether(OTHER, OWN, 0x88a8, &vlan(5, 0x800, &packet)), false),
        ("for bridges (spanning tree)", ether([1, 0x80, 0xc2, 0, 0, 0], OWN, 0x800, &packet), false),
        ("for bridges (LLDP)", ether([1, 0x80, 0xc2, 0, 0, 0xe], OWN, 0x800, &packet), false),
        ("for every bridge's neighbour", ether([1, 0x80, 0xc2, 0, 0, 0x10], OWN, 0x800, &packet), true),
        ("ARP request", arp_by(1, OWN, OWN_IP), true),
        ("ARP reply", arp_by(2, OWN, OWN_IP), true),
        (
            "ARP request for the gateway, which goes to it",
            ether(ALL, OWN, 0x806, &arp(1, OWN, OWN_IP, GATE)),
            false,
        ),
        ("ARP probe", arp_by(1, OWN, "0.0.0.0"), true),
        ("ARP reply from nowhere", arp_by(2, OWN, "0.0.0.0"), false),
        ("ARP for the neighbour", arp_by(2, OWN, OTHER_IP), false),
        ("ARP for the gateway", arp_by(1, OWN, GATE), false),
        ("ARP with the neighbour's MAC", arp_by(2, OTHER, OWN_IP), false),
        ("ARP of another form", ether(ALL, OWN, 0x806, &odd), false),
    ]
}

fn ipv4_cases() -> Vec<Case> {
    let from = |ip: &str, proto, body: &[u8]| ether(OTHER, OWN, 0x800, &ipv4(ip, OTHER_IP, proto, 0, body));
    let discover_by = |to, head, relay, mac| {
        let packet = ipv4("0.0.0.0", "255.255.255.255", 17, 0, &udp(68, 67, &dhcp(head, relay, mac)));
        ether(to, OWN, 0x800, &packet)
    };
    let discover = |head, relay, mac| discover_by(OTHER, head, relay, mac);
    let plain = [1, 1, 6, 0];
    let renew = |mac| udp(68, 67, &dhcp(plain, [0; 4], mac));
    let fragment = ipv4(OWN_IP, OTHER_IP, 17, 0x2000, &renew(OTHER));
    vec![
        ("own TCP", from(OWN_IP, 6, &[0; 20]), true),
        ("own ICMP", from(OWN_IP, 1, &[8, 0, 0, 0]), true),
        ("neighbour's TCP", from(OTHER_IP, 6, &[0; 20]), false),
        ("neighbour's UDP", from(OTHER_IP, 17, &udp(9, 9, b"x")), false),
        ("gateway's IPv4", from(GATE, 1, &[8, 0, 0, 0]), false),
        ("loopback's IPv4", from("127.0.0.1", 1, &[8, 0, 0, 0]), false),
        ("IPv4 from nowhere", from("0.0.0.0", 17, &udp(9, 9, b"x")), false),
        ("DHCP discover", discover(plain, [0; 4], OWN), true),
        ("DHCP discover to all, which goes to the host", discover_by(ALL, plain, [0; 4], OWN), false),
        ("DHCP for another MAC", discover(plain, [0; 4], OTHER), false),
        ("DHCP with a longer address", discover([1, 1, 16, 0], [0; 4], OWN), false),
        ("DHCP through a relay", discover(plain, [10, 9, 8, 11], OWN), false),
        ("DHCP answer", from(OWN_IP, 17, &udp(67, 68, &dhcp([2, 1, 6, 0], [0; 4], OTHER))), false),
        ("DHCP renewal", from(OWN_IP, 17, &renew(OWN)), true),
        ("DHCP renewal for another", from(OWN_IP, 17, &renew(OTHER)), false),
        ("DHCP in fragments", ether(OTHER, OWN, 0x800, &fragment), false),
    ]
}

fn ipv6_cases() -> Vec<Case> {
    let all = "ff02::1";
    let packet = |from: &str, next, body: &[u8]| ether(OTHER, OWN, 0x86dd, &ipv6(from, all, next, body));
    let data = |from| packet(from, 17, &udp(9, 9, b"x"));
    let nd = |from, kind, target, options: &[(u8, Mac)]| packet(from, 58, &neighbour(kind, target, options));
    let hop_by_hop = |body: &[u8]| [&[58, 0, 5, 2, 0, 0, 1, 0][..], body].concat();
    let fragment = |body: &[u8]| [&[58, 0, 0, 1, 0, 0, 0, 9][..], body].concat();
    let advert = icmp6(134, &[0; 12]);
    let answer = neighbour(136, OWN_LL, &[(2, OWN)]);
    let report = icmp6(143, &[0; 4]);
    let solicit = |mac: Mac| [&[0u8; 4][..], &[1, 1], &mac].concat();
    vec![
        ("own link-local", data(OWN_LL), true),
        ("own global", data(OWN_IP6), true),
        ("own TCP", packet(OWN_IP6, 6, &[0; 20]), true),
        ("private address", data(PRIVATE6), true),
        ("neighbour's link-local", data(OTHER_LL), false),
        ("neighbour's global", data(OTHER_IP6), false),
        ("neighbour's TCP", packet(OTHER_IP6, 6, &[0; 20]), false),
        ("gateway's global", data(GATE6), false),
        ("gateway's link-local", data(GATE_LL), false),
        ("foreign prefix", data("2001:db8::1"), false),
        ("loopback's", data("::1"), false),
        ("from nowhere", data("::"), false),
        ("RA", packet(OWN_LL, 58, &advert), false),
        ("RA behind hop-by-hop", packet(OWN_LL, 0, &hop_by_hop(&advert)), false),
        ("RA in a fragment", packet(OWN_LL, 44, &fragment(&advert)), false),
        ("redirect", packet(OWN_LL, 58, &icmp6(137, &[0; 36])), false),
        ("NS", nd(OWN_LL, 135, OTHER_LL, &[(1, OWN)]), true),
        ("NS without option", nd(OWN_LL, 135, OTHER_LL, &[]), true),
        ("NS with another MAC", nd(OWN_LL, 135, OTHER_LL, &[(1, OTHER)]), false),
        ("NS with two options", nd(OWN_LL, 135, OTHER_LL, &[(1, OWN), (1, OTHER)]), false),
        ("NS for a duplicate", nd("::", 135, OWN_LL, &[]), true),
        ("NS for a duplicate of the neighbour's", nd("::", 135, OTHER_LL, &[]), false),
        ("NA", nd(OWN_LL, 136, OWN_LL, &[(2, OWN)]), true),
        ("NA of a private address", nd(OWN_LL, 136, PRIVATE6, &[(2, OWN)]), true),
        ("NA with another MAC", nd(OWN_LL, 136, OWN_LL, &[(2, OTHER)]), false),
        ("NA for the neighbour", nd(OWN_LL, 136, OTHER_IP6, &[(2, OWN)]), false),
        ("NA for the gateway", nd(OWN_LL, 136, GATE6, &[(2, OWN)]), false),
        ("NA for the router", nd(OWN_LL, 136, GATE_LL, &[(2, OWN)]), false),
        ("NA behind hop-by-hop", packet(OWN_LL, 0, &hop_by_hop(&answer)), false),
        ("NA in a fragment", packet(OWN_LL, 44, &fragment(&answer)), false),
        ("RS", packet(OWN_LL, 58, &icmp6(133, &solicit(OWN))), true),
        (
            "RS to all routers, which goes to the host",
            ether(ROUTERS, OWN, 0x86dd, &ipv6(OWN_LL, "ff02::2", 58, &icmp6(133, &solicit(OWN)))),
            false,
        ),
        ("RS with another MAC", packet(OWN_LL, 58, &icmp6(133, &solicit(OTHER))), false),
        ("MLD report", packet("::", 0, &hop_by_hop(&report)), true),
        ("DHCPv6 question", packet(OWN_LL, 17, &udp(546, 547, b"x")), true),
        ("DHCPv6 answer", packet(OWN_LL, 17, &udp(547, 546, b"x")), false),
    ]
}

#[test]
fn a_guest_sends_only_as_itself() {
    in_own_world("spoofing::a_guest_sends_only_as_itself", || {
        let lab = lab();
        // Who looks at frames next sees none of the marks that the filter has for itself.
        run(
            "nft",
            &[
                "add table bridge next; add chain bridge next seen { type filter hook prerouting priority 0; }",
            ],
        );
        run("nft", &["add rule bridge next seen meta mark != 0 counter; add rule bridge next seen counter"]);
        let cases = [link_and_arp_cases(), ipv4_cases(), ipv6_cases()].concat();
        check(&lab.own, &lab.other, &cases, own_udp(OTHER));
        let seen = run("nft", &["list", "chain", "bridge", "next", "seen"]);
        let counts: Vec<&str> = seen.lines().filter_map(|line| line.split("packets ").nth(1)).collect();
        assert!(counts[0].starts_with("0 ") && !counts[1].starts_with("0 "), "{seen}");
    });
}

#[test]
fn the_filter_is_the_same_after_a_flush_and_a_repair() {
    in_own_world("spoofing::the_filter_is_the_same_after_a_flush_and_a_repair", || {
        let lab = lab();
        run("nft", &["flush", "ruleset"]);
        lab.host.network.ensure_bridge(&lab.spec).unwrap();
        lab.host.network.ensure_port(&lab.spec, &fixed("own", 1, OWN_IP)).unwrap();
        let cases = [link_and_arp_cases(), ipv4_cases(), ipv6_cases()].concat();
        check(&lab.own, &lab.other, &cases, own_udp(OTHER));
    });
}

#[test]
fn no_other_protocol_passes() {
    in_own_world("spoofing::no_other_protocol_passes", || {
        let lab = lab();
        // Every Ethernet type, with a body that is nothing; the mark is the type.
        let sniffer = lab.other.sniff([b'C', b'B', 0xff, 0xff]);
        let frames = (0..=0xfffe).map(|kind| marked(ether(OTHER, OWN, kind, &[0; 46]), kind));
        let last = marked(own_udp(OTHER), 0xffff);
        let frames: Vec<Vec<u8>> = frames.chain([last]).collect();
        lab.own.send(&frames);
        assert_eq!(sniffer.marks(), [0xffff]);
    });
}

#[test]
fn a_guest_cannot_flood_the_bridge_and_nothing_else_suffers_from_its_try() {
    in_own_world("spoofing::a_guest_cannot_flood_the_bridge_and_nothing_else_suffers_from_its_try", || {
        let lab = lab();
        let to = |mac| ether(mac, OWN, 0x800, &ipv4(OWN_IP, OTHER_IP, 17, 0, &udp(9, 9, b"x")));
        let sniffer = lab.other.sniff([b'C', b'B', 0xff, 0xff]);
        // In turn to all and to a group; every tenth to the neighbour alone.
        let frames = (0..40_000u16).map(|n| match n % 10 {
            0 => marked(to(OTHER), n),
            _ if n % 2 == 0 => marked(to(ALL), n),
            _ => marked(to([1, 0, 0x5e, 0, 0, 9]), n),
        });
        let frames: Vec<_> = frames.chain([marked(own_udp(OTHER), 0xffff)]).collect();
        let begin = std::time::Instant::now();
        lab.own.send(&frames);
        let marks = sniffer.marks();
        let most = 1000 + 1000 * (begin.elapsed().as_secs() as usize + 1);
        let alone = marks.iter().filter(|mark| **mark % 10 == 0).count();
        assert_eq!(alone, 4000, "what goes to one is not bounded");
        let many = marks.len() - 1 - alone;
        // What anybody needs passes at once.
        assert!(
            (1000..=most).contains(&many),
            "{many} of 36000 frames to many passed in {:?}",
            begin.elapsed()
        );
    });
}

#[test]
fn an_ipv6_address_belongs_to_the_first_who_shows_it() {
    in_own_world("spoofing::an_ipv6_address_belongs_to_the_first_who_shows_it", || {
        let lab = lab();
        let data = |to, from, ip: &str| ether(to, from, 0x86dd, &ipv6(ip, "ff02::1", 17, &udp(9, 9, b"x")));
        let probe = neighbour(135, "fd42:9:8::7:7", &[]);
        let probe = ether(OTHER, OWN, 0x86dd, &ipv6("::", "ff02::1", 58, &probe));
        check(
            &lab.own,
            &lab.other,
            &[("private", data(OTHER, OWN, PRIVATE6), true), ("probe", probe, true)],
            own_udp(OTHER),
        );
        let end = ether(OWN, OTHER, 0x800, &ipv4(OTHER_IP, OWN_IP, 17, 0, &udp(9, 9, b"x")));
        let answer = |target| {
            ether(OWN, OTHER, 0x86dd, &ipv6(OTHER_LL, "ff02::1", 58, &neighbour(136, target, &[(2, OTHER)])))
        };
        check(
            &lab.other,
            &lab.own,
            &[
                ("from what the first has sent from", data(OWN, OTHER, PRIVATE6), false),
                ("answer for it", answer(PRIVATE6), false),
                ("from what the first has probed", data(OWN, OTHER, "fd42:9:8::7:7"), false),
                ("answer for that", answer("fd42:9:8::7:7"), false),
                ("one nobody has", data(OWN, OTHER, "fd42:9:8::7:8"), true),
            ],
            end.clone(),
        );
        // A guest cannot take hold of them all.
        let sniffer = lab.own.sniff([b'C', b'B', 0xff, 0xff]);
        let mut frames: Vec<Vec<u8>> =
            (0u16..500).map(|n| marked(data(OWN, OTHER, &format!("fd42:9:8::9:{n:x}")), n)).collect();
        frames.push(marked(end, 0xffff));
        lab.other.send(&frames);
        let passed = sniffer.marks().len() - 1;
        assert!((1..=40).contains(&passed), "{passed} of 500 new addresses passed");

        // Gone and back with the same MAC, a guest has its address again.
        let spec = fixed("own", 1, OWN_IP);
        lab.host.network.unplug(&lab.spec.name, &spec).unwrap();
        let back = Guest::new();
        keep(|undo| lab.host.network.plug(&lab.spec, &spec, back.netns(), undo));
        back.run("sysctl", &["-q", "-w", "net.ipv6.conf.eth0.disable_ipv6=1"]);
        back.run("ip", &["link", "set", "eth0", "up"]);
        check(&back, &lab.other, &[("private again", data(OTHER, OWN, PRIVATE6), true)], own_udp(OTHER));
    });
}

#[test]
fn a_nic_without_filter_sends_what_it_likes_and_an_isolated_one_reaches_no_other() {
    in_own_world(
        "spoofing::a_nic_without_filter_sends_what_it_likes_and_an_isolated_one_reaches_no_other",
        || {
            let lab = lab();
            let mut open = fixed("own", 1, OWN_IP);
            open.filter = Filter::NONE;
            lab.host.network.ensure_port(&lab.spec, &open).unwrap();
            let strange =
                ether(ALL, [2, 0, 0, 0, 0, 9], 0x800, &ipv4(GATE, OTHER_IP, 17, 0, &udp(9, 9, b"x")));
            check(&lab.own, &lab.other, &[("anything", strange, true)], own_udp(OTHER));

            for (name, number, ip, guest) in
                [("own", 1, OWN_IP, &lab.own), ("other", 2, OTHER_IP, &lab.other)]
            {
                let mut alone = fixed(name, number, ip);
                alone.isolation = cabin_network::Isolation::Isolated;
                lab.host.network.ensure_port(&lab.spec, &alone).unwrap();
                guest.run("ip", &["addr", "add", &format!("{ip}/24"), "dev", "eth0"]);
            }
            assert!(!lab.own.try_run("busybox", &["ping", "-c", "1", "-W", "1", OTHER_IP]).0);
            lab.own.run("busybox", &["ping", "-c", "1", "-W", "3", GATE]);
        },
    );
}

#[test]
fn a_guest_gets_one_lease_whatever_it_calls_itself() {
    in_own_world("spoofing::a_guest_gets_one_lease_whatever_it_calls_itself", || {
        let lab = lab();
        let third = Guest::new();
        let spec = nic("third", 3);
        let address = keep(|undo| lab.host.network.plug(&lab.spec, &spec, third.netns(), undo)).unwrap();
        assert_eq!(third.dhcp(&lab.host.dir), address.to_string());
        let script = lab.host.dir.join("udhcpc.sh");
        for n in 0..5 {
            let id = format!("0x3d:0102030405{n:02}");
            let name = "hostname:other";
            let args =
                ["udhcpc", "-i", "eth0", "-n", "-q", "-t", "5", "-T", "1", "-C", "-x", &id, "-x", name, "-s"];
            third.run("ip", &["addr", "flush", "dev", "eth0", "scope", "global"]);
            third.run("busybox", &[&args[..], &[script.to_str().unwrap()]].concat());
        }
        let leases = lab.host.network.leases(&lab.spec.name).unwrap();
        let dynamic: Vec<_> = leases.iter().filter(|lease| lease.kind == LeaseKind::Dynamic).collect();
        assert_eq!(dynamic.len(), 1, "{leases:?}");
        assert_eq!(dynamic[0].address, std::net::IpAddr::V4(address));
        // It asked to be called `other`, too: that name stays its owner's.
        let found = third.run("busybox", &["nslookup", "-type=a", "other.cabin", GATE]);
        assert!(found.contains(OTHER_IP) && !found.contains(&address.to_string()), "{found}");
        // The lease goes with the nic, so that its address is free at once.
        lab.host.network.unplug(&lab.spec.name, &spec).unwrap();
        crate::world::wait_for("the lease to be given back", || {
            let leases = lab.host.network.leases(&lab.spec.name).unwrap();
            !leases.iter().any(|lease| lease.kind == LeaseKind::Dynamic)
        });
    });
}
