//! Making, repairing, changing and removing.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::time::Instant;

use cabin_network::{Error, Network};
use cabin_undo::fault;

use crate::world::{
    Guest, Host, bridge, in_own_world, keep, kernel_state, nic, open, program, run, wait_for,
};

#[test]
fn a_bridge_that_is_destroyed_leaves_nothing() {
    in_own_world("life::a_bridge_that_is_destroyed_leaves_nothing", || {
        let host = Host::new();
        let before = kernel_state();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        assert!(host.network.serves(&spec).unwrap());
        let server = std::fs::read_to_string(host.dir.join("networks/cbr0/dnsmasq.pid")).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.trim())).unwrap();
        assert!(status.contains("NoNewPrivs:\t1"), "the name server may gain rights: {status}");
        assert!(!status.contains("Uid:\t0"), "the name server is root: {status}");
        let rules = run("nft", &["list", "ruleset"]);
        assert!(rules.contains("masquerade") && rules.contains("table inet cabin_test"), "{rules}");
        let guest = Guest::new();
        let nic = nic("web", 1);
        let alone = kernel_state();
        keep(|undo| host.network.plug(&spec, &nic, guest.netns(), undo));
        let marked = host.network.marked().unwrap();
        assert_eq!((marked.bridges, marked.ports), (vec![spec.name.clone()], vec![nic.host_name.clone()]));

        host.network.unplug(&spec.name, &nic).unwrap();
        host.network.unplug(&spec.name, &nic).unwrap();
        assert_eq!(kernel_state(), alone);
        host.network.destroy_bridge(&spec.name).unwrap();
        host.network.destroy_bridge(&spec.name).unwrap();
        assert_eq!(kernel_state(), before);
        assert!(!host.network.serves(&spec).unwrap());
        assert_eq!(host.network.marked().unwrap(), cabin_network::Strays::default());
        assert!(std::fs::read_dir(host.dir.join("networks")).unwrap().next().is_none());
    });
}

#[test]
fn what_fails_half_way_is_taken_back() {
    in_own_world("life::what_fails_half_way_is_taken_back", || {
        let host = Host::new();
        let before = kernel_state();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        let guest = Guest::new();
        let nic = nic("web", 1);
        let failed = cabin_undo::atomically(|undo| {
            host.network.create_bridge(&spec, undo)?;
            host.network.plug(&spec, &nic, guest.netns(), undo)?;
            host.network.plug(&spec, &nic, guest.netns(), undo).map(|_| ())
        })
        .unwrap_err();
        assert!(matches!(failed.cause, Error::LinkExists { .. }), "{:?}", failed.cause);
        assert!(failed.left_behind.is_empty(), "{:?}", failed.left_behind);
        assert_eq!(kernel_state(), before);
        assert!(std::fs::read_dir(host.dir.join("networks")).unwrap().next().is_none());
    });
}

#[test]
fn a_failure_at_any_step_leaves_the_kernel_as_it_was() {
    in_own_world("life::a_failure_at_any_step_leaves_the_kernel_as_it_was", || {
        let host = Host::new();
        let before = kernel_state();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        let guest = Guest::new();
        let nic = nic("web", 1);
        let work = |undo: &mut cabin_undo::Undo| {
            host.network.create_bridge(&spec, undo)?;
            host.network.plug(&spec, &nic, guest.netns(), undo)
        };
        for step in 1.. {
            fault::arm(fault::Plan::Fail(step));
            let done = cabin_undo::atomically(work);
            fault::arm(fault::Plan::Off);
            match done {
                Ok(_) => {
                    assert!(step > 4, "only {step} steps were seen");
                    break;
                }
                Err(failed) => {
                    assert!(matches!(failed.cause, Error::Injected { .. }), "{step}: {:?}", failed.cause);
                    assert!(failed.left_behind.is_empty(), "{step}: {:?}", failed.left_behind);
                    assert_eq!(kernel_state(), before, "after step {step}");
                    assert!(std::fs::read_dir(host.dir.join("networks")).unwrap().next().is_none());
                }
            }
        }
        host.network.unplug(&spec.name, &nic).unwrap();
        host.network.destroy_bridge(&spec.name).unwrap();
        assert_eq!(kernel_state(), before);
    });
}

#[test]
fn many_plugs_at_once_get_addresses_of_their_own() {
    in_own_world("life::many_plugs_at_once_get_addresses_of_their_own", || {
        let host = Host::new();
        let spec = bridge("cbr0", "10.9.8.1/26", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let guests: Vec<Guest> = (0..24).map(|_| Guest::new()).collect();
        let addresses: BTreeSet<_> = std::thread::scope(|scope| {
            let plug = |n: u8, guest| {
                let (network, spec) = (&host.network, &spec);
                scope.spawn(move || {
                    keep(|undo| network.plug(spec, &nic(&format!("c{n}"), n), Guest::netns(guest), undo))
                })
            };
            let threads: Vec<_> = (1u8..).zip(&guests).map(|(n, guest)| plug(n, guest)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
        });
        assert_eq!(addresses.len(), guests.len());
        assert_eq!(host.network.marked().unwrap().ports.len(), guests.len());
    });
}

#[test]
fn a_foreign_interface_is_neither_taken_nor_removed() {
    in_own_world("life::a_foreign_interface_is_neither_taken_nor_removed", || {
        let host = Host::new();
        run("ip", &["link", "add", "cbr0", "type", "bridge"]);
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        assert!(matches!(host.network.ensure_bridge(&spec), Err(Error::LinkExists { .. })));
        host.network.destroy_bridge(&spec.name).unwrap();
        run("ip", &["link", "show", "cbr0"]);
    });
}

#[test]
fn what_somebody_destroyed_is_repaired_and_a_good_server_goes_on() {
    in_own_world("life::what_somebody_destroyed_is_repaired_and_a_good_server_goes_on", || {
        let host = Host::new();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        let guest = Guest::new();
        let nic = nic("web", 1);
        keep(|undo| host.network.plug(&spec, &nic, guest.netns(), undo));
        let pid_file = host.dir.join("networks/cbr0/dnsmasq.pid");
        let pid = || std::fs::read_to_string(&pid_file).unwrap().trim().to_owned();
        let rules = || run("nft", &["list", "ruleset"]);
        let (first, good) = (pid(), rules());

        // As after a restart of the daemon: another value, the same kernel.
        let network: Network = open(&host.dir);
        network.ensure_bridge(&spec).unwrap();
        network.ensure_port(&spec, &nic).unwrap();
        assert_eq!(pid(), first, "the server was restarted for nothing");
        assert_eq!(rules(), good);

        run("nft", &["flush", "ruleset"]);
        run("kill", &["-9", &first]);
        wait_for("the server to end", || !network.serves(&spec).unwrap());
        network.ensure_bridge(&spec).unwrap();
        network.ensure_port(&spec, &nic).unwrap();
        assert_eq!(rules(), good);
        assert_ne!(pid(), first);

        // The server of names is one of its own, and missed like the other.
        let names = || std::fs::read_to_string(host.dir.join("networks/cbr0/dnsmasq.dns.pid")).unwrap();
        let (first, leases) = (names(), pid());
        run("kill", &["-9", first.trim()]);
        wait_for("it to end", || !network.serves(&spec).unwrap());
        network.ensure_bridge(&spec).unwrap();
        assert!(network.serves(&spec).unwrap());
        assert_eq!(pid(), leases, "the server of leases was restarted for nothing");
        assert_ne!(names(), first);

        run("ip", &["link", "del", "cbr0"]);
        network.ensure_bridge(&spec).unwrap();
        network.ensure_port(&spec, &nic).unwrap();
        assert!(guest.dhcp(&host.dir).starts_with("10.9.8."));

        // A lost pid file does not make a second server.
        let second = pid();
        std::fs::write(&pid_file, "1\n").unwrap();
        network.ensure_bridge(&spec).unwrap();
        assert!(network.serves(&spec).unwrap());
        network.unplug(&spec.name, &nic).unwrap();
        network.destroy_bridge(&spec.name).unwrap();
        let gone =
            || std::fs::read_to_string(format!("/proc/{second}/stat")).map_or(true, |s| s.contains(") Z"));
        assert!(gone(), "the server found by its command line was not ended");
    });
}

#[test]
fn a_change_is_made_live_and_restarts_the_server_only_when_it_must() {
    in_own_world("life::a_change_is_made_live_and_restarts_the_server_only_when_it_must", || {
        let host = Host::new();
        let old = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&old, undo));
        let pid = || std::fs::read_to_string(host.dir.join("networks/cbr0/dnsmasq.pid")).unwrap();
        let first = pid();
        let mut new = old.clone();
        new.ipv4.as_mut().unwrap().nat = None;
        host.network.update_bridge(&old, &new).unwrap();
        assert_eq!(pid(), first);
        let rules = run("nft", &["list", "ruleset"]);
        assert!(!rules.contains("nat4.cbr0") && rules.contains("nat6.cbr0"), "{rules}");

        let mut moved = bridge("cbr0", "10.9.7.1/24", "fd42:9:7::1/64");
        moved.mtu = 1400;
        host.network.update_bridge(&new, &moved).unwrap();
        assert_ne!(pid(), first);
        let state = host.network.host_state(&old.name).unwrap().unwrap();
        assert_eq!((state.mtu, state.addresses.len()), (1400, 3), "{state:?}");
        assert!(state.addresses.iter().any(|a| a.address.to_string() == "10.9.7.1"));
        assert!(!state.addresses.iter().any(|a| a.address.to_string() == "10.9.8.1"));

        let mut bare = moved.clone();
        (bare.ipv4, bare.ipv6) = (None, None);
        host.network.update_bridge(&moved, &bare).unwrap();
        assert!(!host.network.serves(&old).unwrap());
        assert!(host.network.host_state(&old.name).unwrap().unwrap().addresses.is_empty());
        host.network.destroy_bridge(&old.name).unwrap();
    });
}

#[test]
fn plugging_is_quick() {
    in_own_world("life::plugging_is_quick", || {
        let host = Host::new();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        let begin = Instant::now();
        keep(|undo| host.network.create_bridge(&spec, undo));
        println!("create_bridge: {:?}", begin.elapsed());
        let guests: Vec<Guest> = (0..20).map(|_| Guest::new()).collect();
        let mut times = Vec::new();
        for (n, guest) in (1u8..).zip(&guests) {
            let begin = Instant::now();
            keep(|undo| host.network.plug(&spec, &nic(&format!("c{n}"), n), guest.netns(), undo));
            times.push(begin.elapsed());
        }
        times.sort();
        println!("plug: median {:?}, slowest {:?}", times[times.len() / 2], times[times.len() - 1]);
        let begin = Instant::now();
        for n in 1..=20 {
            host.network.unplug(&spec.name, &nic(&format!("c{n}"), n)).unwrap();
        }
        println!("unplug: {:?} each", begin.elapsed() / 20);
        assert!(times[times.len() / 2].as_millis() < 100, "{times:?}");
        host.network.destroy_bridge(&spec.name).unwrap();
    });
}

#[test]
fn a_server_waits_for_an_address_that_is_just_given_back() {
    in_own_world("life::a_server_waits_for_an_address_that_is_just_given_back", || {
        const HOLDER: &str = "import socket,time
s=socket.socket()
s.bind(('0.0.0.0',53))
s.listen()
print('ready',flush=True)
time.sleep(0.3)";
        let host = Host::new();
        let mut holder = program("python3");
        let mut holder = holder.args(["-c", HOLDER]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        assert!(host.network.serves(&spec).unwrap());
        holder.wait().unwrap();
    });
}

/// Ports whose chains are in one table come and go at once: none that is plugged in is ever without its filter.
#[test]
fn a_port_keeps_its_filter_while_its_neighbours_go() {
    in_own_world("life::a_port_keeps_its_filter_while_its_neighbours_go", || {
        let host = Host::new();
        let spec = bridge("cbr0", "10.9.8.1/24", "fd42:9:8::1/64");
        keep(|undo| host.network.create_bridge(&spec, undo));
        // As the daemon spreads them: FNV-1a of the name, one of 64.
        let shelf = |name: &str| {
            name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            }) % 64
        };
        let names: Vec<String> =
            (0..).map(|n| format!("vethx{n}")).filter(|name| shelf(name) == 7).take(3).collect();
        std::thread::scope(|threads| {
            for (number, name) in names.iter().enumerate() {
                let (host, spec) = (&host, &spec);
                threads.spawn(move || {
                    let own = nic(&format!("web{number}"), u8::try_from(number).unwrap() + 1);
                    let own = cabin_network::NicSpec { host_name: name.parse().unwrap(), ..own };
                    for _ in 0..60 {
                        let guest = Guest::new();
                        keep(|undo| host.network.plug(spec, &own, guest.netns(), undo));
                        for _ in 0..5 {
                            assert!(host.network.filtered().unwrap().ports.contains(&own.host_name));
                        }
                        host.network.unplug(&spec.name, &own).unwrap();
                    }
                });
            }
        });
        assert!(!run("nft", &["list", "tables"]).contains("netdev"));
    });
}
