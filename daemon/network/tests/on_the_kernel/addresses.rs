//! Addresses, names, NAT and state.

use std::net::IpAddr;
use std::time::Duration;

use cabin_network::{Error, HostAccess, LeaseKind, NicSpec, guest_state};

use crate::world::{Guest, Host, bridge, in_own_world, keep, nic, run, wait_for};

#[test]
fn two_guests_get_addresses_and_reach_each_other_by_name() {
    in_own_world("addresses::two_guests_get_addresses_and_reach_each_other_by_name", || {
        let host = Host::new();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let (web, db) = (Guest::new(), Guest::new());
        let mut fixed = nic("db", 2);
        fixed.ipv4 = Some("10.9.8.77".parse().unwrap());
        let told = keep(|undo| host.network.plug(&spec, &nic("web", 1), web.netns(), undo)).unwrap();
        keep(|undo| host.network.plug(&spec, &fixed, db.netns(), undo));
        assert_eq!(web.dhcp(&host.dir), told.to_string());
        assert_eq!(db.dhcp(&host.dir), "10.9.8.77");

        for name in ["db", "db.cabin"] {
            let found = web.run("busybox", &["nslookup", "-type=a", name, "10.9.8.1"]);
            assert!(found.contains("10.9.8.77"), "{name}: {found}");
        }
        let found = db.run("busybox", &["nslookup", "-type=a", "web.cabin", "10.9.8.1"]);
        assert!(found.contains(&told.to_string()), "{found}");
        web.run("busybox", &["ping", "-c", "1", "-W", "3", "10.9.8.77"]);
        db.run("busybox", &["ping", "-c", "1", "-W", "3", &told.to_string()]);
        web.run("busybox", &["ping", "-c", "1", "-W", "3", "10.9.8.1"]);

        // IPv6: SLAAC by the server's router advertisements, and through neighbour discovery to each other.
        let address = || {
            let text =
                db.run("ip", &["-6", "-o", "addr", "show", "dev", "eth0", "scope", "global", "-tentative"]);
            text.split_whitespace().find_map(|word| word.strip_suffix("/64")).map(str::to_owned)
        };
        wait_for("an IPv6 address in `db`", || address().is_some());
        wait_for("an answer over IPv6", || {
            web.try_run("busybox", &["ping6", "-c", "1", "-W", "1", &address().unwrap()]).0
        });
        web.run("busybox", &["ping6", "-c", "1", "-W", "3", "fd42:9:8::1"]);

        let leases = host.network.leases(&spec.name).unwrap();
        let find = |address: IpAddr| leases.iter().find(|lease| lease.address == address).unwrap();
        assert_eq!(find("10.9.8.1".parse().unwrap()).kind, LeaseKind::Gateway);
        assert_eq!(find("10.9.8.77".parse().unwrap()).kind, LeaseKind::Static);
        let lease = find(told.into());
        assert_eq!((lease.kind, lease.hostname.as_deref()), (LeaseKind::Dynamic, Some("web")));
        host.network.unplug(&spec.name, &nic("web", 1)).unwrap();
        host.network.unplug(&spec.name, &fixed).unwrap();
        host.network.destroy_bridge(&spec.name).unwrap();
    });
}

#[test]
fn a_name_leads_to_the_address_that_a_guest_made_for_itself() {
    in_own_world("addresses::a_name_leads_to_the_address_that_a_guest_made_for_itself", || {
        let host = Host::new();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let watch = host.network.watch().unwrap();
        let (web, mute) = (Guest::new(), Guest::new());
        mute.run("sysctl", &["-q", "-w", "net.ipv6.conf.default.disable_ipv6=1"]);
        let nics = [nic("web", 1), nic("mute", 2)];
        keep(|undo| host.network.plug(&spec, &nics[0], web.netns(), undo));
        keep(|undo| host.network.plug(&spec, &nics[1], mute.netns(), undo));
        web.dhcp(&host.dir);
        mute.dhcp(&host.dir);
        let names = host.dir.join("networks/cbr0/dnsmasq.names");
        let known = |nic: &NicSpec| names.join(format!("{}.slaac", nic.mac.digits())).exists();
        wait_for("the guest's address to be found", || {
            watch.wait(Duration::from_millis(100)).unwrap();
            known(&nics[0])
        });
        let wanted = nics[0].mac.address_in("fd42:9:8::".parse().unwrap()).to_string();
        for name in ["web", "web.cabin"] {
            wait_for("the name to lead there", || {
                web.try_run("busybox", &["nslookup", "-type=aaaa", name, "10.9.8.1"]).1.contains(&wanted)
            });
        }
        assert!(!known(&nics[1]), "nobody has that address");
        // What goes is known no more.
        host.network.unplug(&spec.name, &nics[0]).unwrap();
        assert!(!known(&nics[0]));
        wait_for("the name to be forgotten", || {
            !mute.try_run("busybox", &["nslookup", "-type=aaaa", "web.cabin", "10.9.8.1"]).1.contains(&wanted)
        });
        host.network.unplug(&spec.name, &nics[1]).unwrap();
        host.network.destroy_bridge(&spec.name).unwrap();
    });
}

#[test]
fn every_nic_of_one_name_is_found_by_it() {
    in_own_world("addresses::every_nic_of_one_name_is_found_by_it", || {
        let host = Host::new();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let guests = [Guest::new(), Guest::new()];
        let nics = [nic("twin", 1), nic("twin", 2)];
        let plug =
            |at: usize| keep(|undo| host.network.plug(&spec, &nics[at], guests[at].netns(), undo)).unwrap();
        let addresses = [plug(0).to_string(), plug(1).to_string()];
        for (guest, address) in guests.iter().zip(&addresses) {
            assert_eq!(&guest.dhcp(&host.dir), address);
        }
        let found = guests[0].run("busybox", &["nslookup", "-type=a", "twin.cabin", "10.9.8.1"]);
        assert!(addresses.iter().all(|address| found.contains(address.as_str())), "{addresses:?}: {found}");
        for one in &nics {
            host.network.unplug(&spec.name, one).unwrap();
        }
        host.network.destroy_bridge(&spec.name).unwrap();
    });
}

#[test]
fn a_removed_reservation_is_forgotten_without_a_restart() {
    in_own_world("addresses::a_removed_reservation_is_forgotten_without_a_restart", || {
        let host = Host::new();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let pid = || std::fs::read_to_string(host.dir.join("networks/cbr0/dnsmasq.pid")).unwrap();
        let (first, guest) = (pid(), Guest::new());
        let mut one = nic("one", 1);
        one.ipv4 = Some("10.9.8.77".parse().unwrap());
        keep(|undo| host.network.plug(&spec, &one, guest.netns(), undo));
        assert_eq!(guest.dhcp(&host.dir), "10.9.8.77");
        host.network.unplug(&spec.name, &one).unwrap();

        // An address that was reserved stays the first one's until it is released, plugged in or not.
        host.network.reserve(&spec, &one).unwrap();
        let again = Guest::new();
        keep(|undo| host.network.plug(&spec, &one, again.netns(), undo));
        host.network.unplug(&spec.name, &one).unwrap();
        let mut two = nic("two", 2);
        two.ipv4 = one.ipv4;
        let second = Guest::new();
        let refused = cabin_undo::atomically(|undo| host.network.plug(&spec, &two, second.netns(), undo));
        let refused = refused.unwrap_err().cause;
        assert!(matches!(refused, Error::Taken { .. }));
        assert!(refused.to_string().contains("instance `one`"), "{refused}");
        host.network.release(&spec.name, one.mac).unwrap();
        host.network.release(&spec.name, one.mac).unwrap();
        keep(|undo| host.network.plug(&spec, &two, second.netns(), undo));
        assert_eq!(second.dhcp(&host.dir), "10.9.8.77");
        let found = second.run("busybox", &["nslookup", "-type=a", "two.cabin", "10.9.8.1"]);
        assert!(found.contains("10.9.8.77"), "{found}");
        wait_for("the old name to be gone", || {
            !second
                .try_run("busybox", &["nslookup", "-type=a", "one.cabin", "10.9.8.1"])
                .1
                .contains("10.9.8.77")
        });
        assert_eq!(pid(), first);

        // A running nic's address changes: reservation, names and filter follow.
        two.ipv4 = Some("10.9.8.78".parse().unwrap());
        host.network.ensure_port(&spec, &two).unwrap();
        second.run("ip", &["addr", "flush", "dev", "eth0", "scope", "global"]);
        assert_eq!(second.dhcp(&host.dir), "10.9.8.78");
        second.run("busybox", &["ping", "-c", "1", "-W", "3", "10.9.8.1"]);
        assert_eq!(pid(), first);
    });
}

#[test]
fn what_goes_together_is_forgotten_together_and_its_addresses_can_be_given_again() {
    in_own_world(
        "addresses::what_goes_together_is_forgotten_together_and_its_addresses_can_be_given_again",
        || {
            let host = Host::new();
            let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
            keep(|undo| host.network.create_bridge(&spec, undo));
            let names = ["one", "two", "three", "four"];
            let nics: Vec<_> = names
                .iter()
                .zip(1u8..)
                .map(|(name, number)| {
                    let mut nic = nic(name, number);
                    nic.ipv4 = Some(std::net::Ipv4Addr::new(10, 9, 8, 100 + number));
                    nic
                })
                .collect();
            let guests: Vec<Guest> = nics.iter().map(|_| Guest::new()).collect();
            for (nic, guest) in nics.iter().zip(&guests) {
                keep(|undo| host.network.plug(&spec, nic, guest.netns(), undo));
            }
            nics.iter().for_each(|nic| host.network.unplug(&spec.name, nic).unwrap());

            // The server was told of the first at once and of the others not yet; all the same.
            let mut heir = nic("heir", 9);
            heir.ipv4 = nics[3].ipv4;
            let guest = Guest::new();
            keep(|undo| host.network.plug(&spec, &heir, guest.netns(), undo));
            assert_eq!(guest.dhcp(&host.dir), "10.9.8.104");
            for (name, number) in names.iter().zip(101..) {
                let known = || {
                    let asked = ["nslookup", "-type=a", name, "10.9.8.1"];
                    guest.try_run("busybox", &asked).1.contains(&format!("10.9.8.{number}"))
                };
                wait_for(&format!("`{name}` to be forgotten"), || !known());
            }
        },
    );
}

#[test]
fn one_interface_is_seen_as_in_the_list_of_all() {
    in_own_world("addresses::one_interface_is_seen_as_in_the_list_of_all", || {
        let host = Host::new();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let (one, guest) = (nic("one", 1), Guest::new());
        keep(|undo| host.network.plug(&spec, &one, guest.netns(), undo));
        for name in [&spec.name, &one.host_name] {
            // Between the two looks something may have been sent, or a link come up.
            wait_for(&format!("`{name}` to be seen as it is listed"), || {
                let mut all = host.network.host_interfaces().unwrap().into_iter();
                let mut listed = all.find(|state| state.name == name.as_str()).unwrap();
                let mut seen = host.network.host_state(name).unwrap().unwrap();
                (listed.counters, seen.counters) = Default::default();
                seen == listed
            });
        }
        assert!(host.network.host_state(&spec.name).unwrap().unwrap().addresses.len() >= 3);
        assert!(host.network.host_state(&"cbr9".parse().unwrap()).unwrap().is_none());
    });
}

#[test]
fn what_leaves_the_subnet_is_translated_and_what_must_not_leave_is_stopped() {
    in_own_world(
        "addresses::what_leaves_the_subnet_is_translated_and_what_must_not_leave_is_stopped",
        || {
            let host = Host::new();
            let mut spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
            keep(|undo| host.network.create_bridge(&spec, undo));
            let (guest, outside) = (Guest::new(), Guest::new());
            let uplink = format!("/proc/{}/ns/net", outside.pid());
            run("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", &uplink]);
            run("ip", &["addr", "add", "192.0.2.1/24", "dev", "up0"]);
            run("ip", &["link", "set", "up0", "up"]);
            run("ip", &["addr", "add", "2001:db8::1/64", "dev", "up0", "nodad"]);
            outside.run("ip", &["addr", "add", "192.0.2.2/24", "dev", "eth0"]);
            outside.run("ip", &["addr", "add", "2001:db8::2/64", "dev", "eth0", "nodad"]);
            outside.run("ip", &["link", "set", "eth0", "up"]);
            keep(|undo| host.network.plug(&spec, &nic("web", 1), guest.netns(), undo));
            guest.dhcp(&host.dir);
            // `outside` has no route back: an answer shows that the source was translated.
            let ping = || guest.try_run("busybox", &["ping", "-c", "1", "-W", "1", "192.0.2.2"]).0;
            wait_for("an answer from outside", &ping);
            // Its address and its way out come by the server's router advertisement.
            let ping6 = || guest.try_run("busybox", &["ping6", "-c", "1", "-W", "1", "2001:db8::2"]).0;
            wait_for("an answer from outside over IPv6", &ping6);
            for chain in ["nat4.cbr0", "nat6.cbr0"] {
                let rules = run("nft", &["list", "chain", "inet", "cabin_test", chain]);
                assert!(rules.contains("counter packets") && !rules.contains("packets 0 "), "{rules}");
            }

            let old = spec.clone();
            spec.ipv4.as_mut().unwrap().routing = false;
            host.network.update_bridge(&old, &spec).unwrap();
            assert!(!ping(), "a packet left a bridge without routing");
            assert!(ping6(), "IPv6 is routed still");
            let old = spec.clone();
            spec.ipv4.as_mut().unwrap().routing = true;
            spec.ipv6.as_mut().unwrap().routing = false;
            host.network.update_bridge(&old, &spec).unwrap();
            assert!(!ping6(), "a packet left a bridge without routing over IPv6");
            wait_for("an answer from outside again", &ping);
            // Without a translation nobody outside knows the way back.
            let old = spec.clone();
            let six = spec.ipv6.as_mut().unwrap();
            (six.routing, six.nat) = (true, None);
            host.network.update_bridge(&old, &spec).unwrap();
            assert!(!ping6(), "an answer came to an address nobody outside has a route to");
            outside.run("ip", &["-6", "route", "add", "fd42:9:8::/64", "via", "2001:db8::1"]);
            wait_for("an answer on a route", &ping6);
        },
    );
}

#[test]
fn with_essential_access_a_guest_reaches_dns_and_ping_of_the_host_and_nothing_else() {
    in_own_world(
        "addresses::with_essential_access_a_guest_reaches_dns_and_ping_of_the_host_and_nothing_else",
        || {
            let host = Host::new();
            let mut spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
            keep(|undo| host.network.create_bridge(&spec, undo));
            let guest = Guest::new();
            keep(|undo| host.network.plug(&spec, &nic("web", 1), guest.netns(), undo));
            guest.dhcp(&host.dir);
            const CONNECT: &str = "import socket; socket.create_connection(('10.9.8.1', 8080), 1)";
            let service = std::net::TcpListener::bind("10.9.8.1:8080").unwrap();
            let reach = || guest.try_run("python3", &["-c", CONNECT]).0;
            assert!(reach());
            let old = spec.clone();
            spec.host_access = HostAccess::Essential;
            host.network.update_bridge(&old, &spec).unwrap();
            assert!(!reach());
            guest.run("ip", &["addr", "flush", "dev", "eth0", "scope", "global"]);
            guest.dhcp(&host.dir);
            guest.run("busybox", &["ping", "-c", "1", "-W", "3", "10.9.8.1"]);
            guest.run("busybox", &["nslookup", "-type=a", "web.cabin", "10.9.8.1"]);
            drop(service);
        },
    );
}

#[test]
fn the_state_of_a_guest_is_read_from_outside() {
    in_own_world("addresses::the_state_of_a_guest_is_read_from_outside", || {
        let host = Host::new();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let guest = Guest::new();
        let mut wanted = nic("web", 1);
        wanted.mtu = Some(1400);
        let address = keep(|undo| host.network.plug(&spec, &wanted, guest.netns(), undo)).unwrap();
        guest.dhcp(&host.dir);
        let socket = guest.routing_socket();
        let states = guest_state(std::os::fd::AsFd::as_fd(&socket)).unwrap();
        let eth0 = states.iter().find(|state| state.name == "eth0").unwrap();
        assert_eq!((eth0.mac, eth0.mtu, eth0.up), (Some(wanted.mac), 1400, true));
        assert_eq!(eth0.kind.as_deref(), Some("veth"));
        assert!(
            eth0.addresses.iter().any(|a| a.address == IpAddr::V4(address) && a.prefix == 24),
            "{eth0:?}"
        );
        assert!(eth0.counters.tx_packets > 0 && eth0.counters.rx_bytes > 0, "{eth0:?}");
        let port = host.network.host_state(&wanted.host_name).unwrap().unwrap();
        assert_eq!((eth0.peer, port.peer), (Some(port.index), Some(eth0.index)));
        assert!(port.addresses.is_empty(), "the host speaks on a port: {port:?}");
        assert!(states.iter().any(|state| state.name == "lo"));
    });
}

#[test]
fn a_subnet_that_is_offered_is_not_in_use() {
    in_own_world("addresses::a_subnet_that_is_offered_is_not_in_use", || {
        let host = Host::new();
        run("ip", &["link", "add", "d0", "type", "veth", "peer", "name", "d1"]);
        run("ip", &["link", "set", "d0", "up"]);
        run("ip", &["addr", "add", "10.0.0.1/9", "dev", "d0"]);
        for _ in 0..20 {
            let net = host.network.free_ipv4_subnet().unwrap();
            assert!(net.addr().octets()[1] >= 128, "{net} lies in 10.0.0.0/9");
            let six = host.network.free_ipv6_subnet().unwrap();
            assert!(six.to_string().starts_with("fd42:") && six.prefix_len() == 64, "{six}");
        }
    });
}
