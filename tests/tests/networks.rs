//! Bridges as instances live on them: addresses, names, static addresses, and no voice but one's own.

use std::os::fd::AsFd;

use cabin_tests::cli::host;
use cabin_tests::clients::Stock;
use cabin_tests::lab::Lab;
use cabin_tests::wait::until_true;
use serde_json::json;

#[test]
fn two_instances_reach_each_other_by_name() {
    let lab = Lab::shared();
    lab.busybox("left").busybox("right");
    let (left, right) = (lab.wait_address("left", 20), lab.wait_address("right", 20));
    assert_ne!(left, right);
    until_true("`right` to answer by its name", 20, || {
        lab.exec("left", &["ping", "-c1", "-W1", "right"]).code == 0
    });
    until_true("`left` to answer by its name", 20, || {
        lab.exec("right", &["ping", "-c1", "-W1", "left"]).code == 0
    });
    let resolved = lab.exec("left", &["nslookup", "right"]).out;
    assert!(resolved.contains(&right), "{resolved}");
    for name in ["left", "right"] {
        lab.cabin(&["delete", "-f", name]).ok();
    }
}

/// Makes an instance with a fixed address, which it gives.
fn with_fixed_address(lab: &Lab, name: &str) -> String {
    lab.image("busybox");
    let bridge = lab.get("/1.0/networks/cabinbr0")["config"]["ipv4.address"].as_str().unwrap().to_owned();
    let net = bridge.rsplit_once('.').unwrap().0.to_owned();
    lab.cabin(&["create", "busybox", name]).ok();
    // Another test's instance may have been given any of them.
    let give = |address: &String| {
        lab.cabin(&["config", "device", "override", name, "eth0", &format!("ipv4.address={address}")])
    };
    let free = (70..80).map(|last| format!("{net}.{last}")).find(|address| give(address).code == 0);
    free.expect("one of ten addresses that nobody has")
}

#[test]
fn a_static_address_is_the_one_it_gets() {
    let lab = Lab::shared();
    let wanted = with_fixed_address(&lab, "fixed");
    lab.cabin(&["start", "fixed"]).ok();
    assert_eq!(lab.wait_address("fixed", 20), wanted);
    lab.cabin(&["restart", "--force", "fixed"]).ok();
    assert_eq!(lab.wait_address("fixed", 20), wanted);
    let refused =
        lab.cabin(&["config", "device", "set", "fixed", "eth0", "ipv4.address=192.0.2.1"]).refused();
    assert!(refused.contains("192.0.2.1"), "{refused}");
    lab.cabin(&["delete", "-f", "fixed"]).ok();
}

#[test]
fn a_fixed_address_answers_to_the_name_that_its_instance_was_given() {
    let lab = Lab::shared();
    lab.cabin(&["storage", "create", "elsewhere", "dir"]).ok();
    for (old, new, more) in [("was", "now", &[] as &[&str]), ("from", "there", &["--storage", "elsewhere"])] {
        let fixed = with_fixed_address(&lab, old);
        lab.cabin(&["start", old]).ok();
        lab.cabin(&["stop", "-f", old]).ok();
        lab.cabin(&[&["move", old, new], more].concat()).ok();
        lab.busybox(old);
        let own = lab.wait_address(old, 20);
        let found = |name: &str| lab.exec(old, &["nslookup", name]).out;
        until_true("the new name to be known", 20, || found(new).contains(&fixed));
        until_true("the old name to be that of another alone", 20, || {
            found(old).contains(&own) && !found(old).contains(&fixed)
        });
        lab.cabin(&["delete", "-f", old, new]).ok();
    }
    lab.cabin(&["storage", "delete", "elsewhere"]).ok();
}

#[test]
fn nics_of_one_instance_exchange_their_fixed_addresses_all_or_none() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["network", "create", "swap0", "ipv4.address=10.77.7.1/24", "ipv6.address=none"]).ok();
    let nics = |last: &[u8]| {
        let nic = |(at, last): (usize, &u8)| {
            let address = format!("10.77.7.{last}");
            (format!("eth{at}"), json!({ "type": "nic", "network": "swap0", "ipv4.address": address }))
        };
        json!({ "devices": last.iter().enumerate().map(nic).collect::<serde_json::Map<_, _>>() })
    };
    let create = |name: &str, last: &[u8]| {
        let mut body = nics(last);
        body["name"] = name.into();
        body["source"] = json!({ "type": "image", "alias": "busybox" });
        lab.operate("POST", "/1.0/instances", &body)["status"] == "Success"
    };
    let change = |last: &[u8]| lab.call("PATCH", "/1.0/instances/twin", Some(&nics(last))).status;
    assert!(create("twin", &[70, 71]) && create("third", &[72]));
    assert_eq!(change(&[71, 70]), 200);
    assert_ne!(change(&[70, 71, 72]), 200, "an address that another has");
    assert!(!create("thief", &[70]) && !create("thief", &[71]), "what it has is kept for it as before");
    lab.cabin(&["start", "twin"]).ok();
    assert_eq!(lab.get("/1.0/instances/twin")["devices"]["eth0"]["ipv4.address"], "10.77.7.71");
    lab.cabin(&["delete", "-f", "twin", "third"]).ok();
    lab.cabin(&["network", "delete", "swap0"]).ok();
}

#[test]
fn an_instance_cannot_speak_with_the_address_of_another() {
    let lab = Lab::shared();
    lab.busybox("honest").busybox("liar");
    let honest = lab.wait_address("honest", 20);
    let own = lab.wait_address("liar", 20);
    lab.exec("liar", &["ping", "-c1", "-W2", &honest]).ok();

    // A second address that nobody gave it: what it sends from there must not arrive.
    let net = own.rsplit_once('.').unwrap().0;
    let nobodys = |address: &String| *address != own && *address != honest;
    let stolen = (197..200).map(|last| format!("{net}.{last}")).find(nobodys).expect("one of three");
    lab.sh("liar", &format!("ip addr add {stolen}/24 dev eth0"));
    let sent = lab.exec("liar", &["ping", "-c2", "-W1", "-I", &stolen, &honest]);
    assert_ne!(sent.code, 0, "a stolen IPv4 address was answered: {}", sent.out);
    lab.sh("liar", &format!("ip addr del {stolen}/24 dev eth0"));
    lab.exec("liar", &["ping", "-c1", "-W2", &honest]).ok();

    // A hardware address of its own choice.
    lab.sh("liar", "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:77; ip link set eth0 up");
    lab.sh(
        "liar",
        &format!("ip addr add {own}/24 dev eth0 2>/dev/null; ip neigh flush dev eth0 2>/dev/null; true"),
    );
    let sent = lab.exec("liar", &["ping", "-c2", "-W1", &honest]);
    assert_ne!(sent.code, 0, "a stolen MAC address was answered: {}", sent.out);
    for name in ["honest", "liar"] {
        lab.cabin(&["delete", "-f", name]).ok();
    }
}

#[test]
fn no_two_nics_of_a_network_have_one_hardware_address() {
    let lab = Lab::own();
    lab.image("busybox").busybox("mac1");
    let mac_of = |name: &str| {
        lab.get(&format!("/1.0/instances/{name}"))["config"]["volatile.eth0.hwaddr"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    // One that was made up is made up again.
    let taken = mac_of("mac1");
    lab.cabin(&["create", "busybox", "mac2"]).ok();
    lab.cabin(&["config", "set", "mac2", &format!("volatile.eth0.hwaddr={taken}")]).ok();
    assert_eq!(mac_of("mac2"), taken);
    lab.cabin(&["start", "mac2"]).ok();
    assert_ne!(mac_of("mac2"), taken);
    assert_ne!(lab.wait_address("mac2", 20), lab.wait_address("mac1", 20));
    assert!(lab.sh("mac2", "cat /sys/class/net/eth0/address").contains(&mac_of("mac2")));
    // One that somebody chose is refused as long as the other runs, started or plugged in.
    let own = format!("hwaddr={taken}");
    lab.cabin(&["create", "busybox", "mac3", "-d", &format!("eth0,{own}")]).ok();
    let tried = lab.cabin(&["start", "mac3"]);
    let told =
        tried.code == 1 && tried.err.contains(&taken) && tried.err.contains("in use by instance `mac1`");
    assert!(told, "{tried:?}, of {}", lab.cabin(&["list", "-c", "ns4", "-f", "csv"]).out);
    let refused = lab.cabin(&["config", "device", "override", "mac2", "eth0", &own]).refused();
    assert!(refused.contains("in use by instance `mac1`"), "{refused}");
    lab.cabin(&["stop", "-f", "mac1"]).ok();
    lab.cabin(&["start", "mac3"]).ok();
    // Of two that start at the same moment one is refused.
    lab.cabin(&["create", "busybox", "mac5", "-d", &format!("eth0,{own}")]).ok();
    for _ in 0..5 {
        let _ = lab.cabin(&["stop", "-f", "mac3", "mac5"]);
        let both = std::thread::scope(|scope| {
            let start = |name| {
                scope.spawn({
                    let lab = &lab;
                    move || lab.cabin(&["start", name])
                })
            };
            ["mac3", "mac5"].map(start).map(|tried| tried.join().unwrap())
        });
        let refused: Vec<_> = both.iter().filter(|tried| tried.code != 0).collect();
        assert!(refused.len() == 1 && refused[0].err.contains("in use by instance"), "{both:?}");
    }
    lab.cabin(&["delete", "-f", "mac5"]).ok();
    for wrong in ["10:66:6a", "11:xx:xx:xx:xx:xx", "yy:xx:xx:xx:xx:xx"] {
        let _ = lab.cabin(&["config", "set", &format!("network.hwaddr_pattern={wrong}")]).refused();
    }
    lab.cabin(&["config", "set", "network.hwaddr_pattern=02:00:xx:xx:xx:07"]).ok();
    lab.cabin(&["create", "busybox", "mac4"]).ok();
    let made = mac_of("mac4");
    assert!(made.starts_with("02:00:") && made.ends_with(":07"), "{made}");
    lab.cabin(&["delete", "-f", "mac1", "mac2", "mac3", "mac4"]).ok();
}

#[test]
fn a_hardware_address_is_pinned_by_the_key_that_keeps_it() {
    let lab = Lab::shared();
    let fixed = with_fixed_address(&lab, "pinned");
    let shown = |key: &str| lab.get("/1.0/instances/pinned")["config"][key].clone();
    let pin = |mac: &str| lab.cabin(&["config", "set", "pinned", &format!("volatile.eth0.hwaddr={mac}")]);
    let inside = || lab.sh("pinned", "cat /sys/class/net/eth0/address");
    pin("02:00:00:00:07:01").ok();
    lab.cabin(&["start", "pinned"]).ok();
    assert_eq!(inside(), "02:00:00:00:07:01");
    assert_eq!(lab.wait_address("pinned", 20), fixed);
    // While it runs too; what others have is refused, and so is what is none.
    pin("02:00:00:00:07:02").ok();
    assert_eq!(inside(), "02:00:00:00:07:02");
    lab.busybox("other");
    let others =
        lab.get("/1.0/instances/other")["config"]["volatile.eth0.hwaddr"].as_str().unwrap().to_owned();
    let refused = pin(&others).refused();
    assert!(refused.contains("in use by instance `other`"), "{refused}");
    for wrong in ["02:00:00", "01:00:5e:00:00:01", "none"] {
        let refused = pin(wrong).refused();
        assert!(refused.contains(wrong) && refused.contains("volatile.eth0.hwaddr"), "{refused}");
    }
    assert_eq!(shown("volatile.eth0.hwaddr"), "02:00:00:00:07:02");
    // Who says nothing of it changes nothing, and the rest is the daemon's alone.
    let mut body = lab.get("/1.0/instances/pinned");
    let uuid = shown("volatile.uuid");
    body["config"] = json!({ "user.note": "x", "volatile.uuid": "of somebody's own" });
    assert_eq!(lab.operate("PUT", "/1.0/instances/pinned", &body)["status"], "Success");
    assert_eq!((shown("user.note"), shown("volatile.uuid")), ("x".into(), uuid));
    assert_eq!(shown("volatile.eth0.hwaddr"), "02:00:00:00:07:02");
    lab.cabin(&["delete", "-f", "pinned", "other"]).ok();
}

#[test]
fn a_fixed_address_goes_with_the_hardware_address_that_is_made_up_again() {
    let lab = Lab::own();
    let fixed = with_fixed_address(&lab, "again");
    let mac_of = || lab.get("/1.0/instances/again")["config"]["volatile.eth0.hwaddr"].clone();
    let first = mac_of().as_str().unwrap().to_owned();
    // Somebody else runs with it meanwhile.
    lab.cabin(&["create", "busybox", "first", "-d", &format!("eth0,hwaddr={first}")]).ok();
    lab.cabin(&["start", "first"]).ok();
    let theirs = lab.wait_address("first", 20);
    assert_ne!(theirs, fixed, "what is another's was given away");
    lab.cabin(&["start", "again"]).ok();
    assert_ne!(mac_of(), first.as_str());
    assert_eq!(lab.wait_address("again", 20), fixed);
    lab.cabin(&["stop", "-f", "again"]).ok();
    // Only that one keeps it.
    let kept = || {
        let hosts = std::fs::read_dir(lab.dir.join("networks/cabinbr0/dnsmasq.hosts")).unwrap();
        let texts = hosts.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
        texts.filter(|text| text.contains(&format!(",{fixed}"))).collect::<Vec<_>>()
    };
    assert!(kept().len() == 1 && kept()[0].starts_with(mac_of().as_str().unwrap()), "{:?}", kept());
    assert_eq!(lab.wait_address("first", 20), theirs);
    lab.cabin(&["delete", "-f", "again", "first"]).ok();
    assert_eq!(kept(), [""; 0]);
}

/// Addresses outside of the bridge's network, which no guest has a right to, unless the filter is off.
#[test]
fn an_ipv6_address_from_elsewhere_passes_only_without_the_filter() {
    let lab = Lab::shared();
    let far = |name: &str, last: u32| {
        let at_once = "echo 0 >/proc/sys/net/ipv6/conf/eth0/dad_transmits";
        lab.sh(name, &format!("{at_once}; ip addr add 2001:db8:77::{last}/64 dev eth0"));
    };
    let reached = |from: &str, to: u32| {
        lab.exec(from, &["ping", "-6", "-c2", "-W2", &format!("2001:db8:77::{to}")]).code == 0
    };
    for (name, last) in [("far1", 1), ("far2", 2)] {
        lab.busybox(name).wait_address(name, 20);
        far(name, last);
    }
    assert!(!reached("far1", 2), "a source of another network was answered");
    for name in ["far1", "far2"] {
        lab.cabin(&["config", "device", "override", name, "eth0", "security.ipv6_filtering=false"]).ok();
    }
    assert!(reached("far1", 2), "the filter is off and drops");
    for name in ["far1", "far2"] {
        lab.cabin(&["delete", "-f", name]).ok();
    }
}

#[test]
fn the_state_of_an_instance_tells_its_addresses_and_counters() {
    let lab = Lab::shared();
    lab.busybox("counted");
    let address = lab.wait_address("counted", 20);
    let state = lab.get("/1.0/instances/counted/state");
    let eth0 = &state["network"]["eth0"];
    assert_eq!((&eth0["state"], &eth0["type"]), (&"up".into(), &"broadcast".into()), "{eth0}");
    assert!(eth0["hwaddr"].as_str().is_some_and(|it| it.len() == 17), "{eth0}");
    assert!(eth0["counters"]["bytes_received"].as_u64().is_some_and(|it| it > 0), "{eth0}");
    assert!(eth0["host_name"].as_str().is_some_and(|it| !it.is_empty()), "{eth0}");
    let leases = lab.get("/1.0/networks/cabinbr0/leases");
    let lease = leases.as_array().unwrap().iter().find(|it| it["hostname"] == "counted").expect("a lease");
    assert_eq!(lease["address"], address.as_str());
    lab.cabin(&["delete", "-f", "counted"]).ok();
}

/// A service of the host on a bridge: what asks is greeted by the kernel, and nobody answers.
fn service(lab: &Lab, address: &str) -> std::net::TcpListener {
    let netns = std::fs::File::open(format!("/run/netns/{}", lab.netns)).unwrap();
    let listen = || {
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(netns.as_fd(), Some(kind)).unwrap();
        std::net::TcpListener::bind(address).unwrap()
    };
    std::thread::scope(|scope| scope.spawn(listen).join().unwrap())
}

#[test]
fn what_instances_reach_of_the_host_is_the_networks_to_say() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&[
        "network",
        "create",
        "walled0",
        "ipv4.address=10.213.46.1/24",
        "ipv6.address=fd42:213:46::1/64",
    ])
    .ok();
    lab.cabin(&["launch", "busybox", "asker", "-n", "walled0"]).ok();
    lab.wait_address("asker", 20);
    let (four, six) = (service(&lab, "10.213.46.1:8099"), service(&lab, "[fd42:213:46::1]:8099"));
    let reaches = |address| lab.exec("asker", &["nc", "-w", "1", address, "8099", "-e", "true"]).code == 0;
    let six_is_there = || lab.exec("asker", &["ping6", "-c1", "-W1", "fd42:213:46::1"]).code == 0;
    until_true("`asker` to have an IPv6 address", 20, six_is_there);
    for address in ["10.213.46.1", "fd42:213:46::1"] {
        until_true("the host to be open, as it is by default", 20, || reaches(address));
    }

    let refused = lab.cabin(&["network", "set", "walled0", "security.host_access=none"]).refused();
    assert!(refused.contains("`essential`"), "{refused}");
    lab.cabin(&["network", "set", "walled0", "security.host_access=essential"]).ok();
    assert!(!reaches("10.213.46.1") && !reaches("fd42:213:46::1"), "a service of the host is reached");
    lab.exec("asker", &["ping", "-c1", "-W2", "10.213.46.1"]).ok();
    assert!(six_is_there());
    let resolved = lab.exec("asker", &["nslookup", "asker", "10.213.46.1"]);
    assert!(resolved.out.contains("10.213.46."), "{resolved:?}");
    lab.cabin(&["restart", "--force", "asker"]).ok();
    assert!(lab.wait_address("asker", 20).starts_with("10.213.46."));
    assert!(!reaches("10.213.46.1"), "after a start");

    lab.cabin(&["network", "unset", "walled0", "security.host_access"]).ok();
    assert!(reaches("10.213.46.1"), "after it was opened again");
    drop((four, six));
    lab.cabin(&["delete", "-f", "asker"]).ok();
    lab.cabin(&["network", "delete", "walled0"]).ok();
}

#[test]
fn a_network_is_created_changed_and_deleted() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["network", "create", "extra0", "ipv4.address=10.213.44.1/24", "ipv6.address=none"]).ok();
    assert!(lab.cabin(&["network", "list", "-f", "csv"]).ok().contains("extra0"));
    lab.cabin(&["launch", "busybox", "visitor", "-n", "extra0"]).ok();
    assert!(lab.wait_address("visitor", 20).starts_with("10.213.44."));
    let refused = lab.cabin(&["network", "delete", "extra0"]).refused();
    assert!(refused.contains("use"), "{refused}");
    lab.cabin(&["delete", "-f", "visitor"]).ok();
    lab.cabin(&["network", "set", "extra0", "ipv4.address=10.213.45.1/24"]).ok();
    lab.cabin(&["launch", "busybox", "visitor", "-n", "extra0"]).ok();
    assert!(lab.wait_address("visitor", 20).starts_with("10.213.45."));
    lab.cabin(&["delete", "-f", "visitor"]).ok();
    lab.cabin(&["network", "delete", "extra0"]).ok();
    assert!(!cabin_tests::audit::links(&lab.netns).contains(&"extra0".to_owned()));
}

#[test]
fn a_p2p_nic_is_a_wire_to_the_host() {
    let mut lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "wire"]).ok();
    // Not by the name that the guest asks DHCP for.
    let device = ["config", "device", "add", "wire", "eth0", "nic", "nictype=p2p", "name=wire0"];
    lab.cabin(&device).ok();
    lab.cabin(&["start", "wire"]).ok();
    let end = |lab: &Lab| lab.get("/1.0/instances/wire/state")["network"]["wire0"]["host_name"].clone();
    let name = end(&lab).as_str().unwrap().to_owned();
    let netns = lab.netns.clone();
    let shown = || host(&["ip", "-n", &netns, "link", "show", &name]);
    let link = shown().ok();
    assert!(link.contains("UP") && !link.contains("master"), "{link}");
    host(&["ip", "-n", &netns, "addr", "add", "192.0.2.1/24", "dev", &name]).ok();
    lab.sh("wire", "ip addr add 192.0.2.2/24 dev wire0 && ip link set wire0 up");
    let reaches = |lab: &Lab| lab.exec("wire", &["ping", "-c1", "-W5", "192.0.2.1"]).code == 0;
    assert!(reaches(&lab), "the host is not at the other end");

    // A daemon that starts again has it as it was; a bridge of the host's may have the other end.
    lab.daemon_mut().crash();
    lab.daemon_mut().boot();
    assert_eq!(end(&lab), name.as_str());
    assert!(reaches(&lab), "it was not left alone");

    // It becomes a nic of the network while the instance runs, and a wire again.
    lab.cabin(&["config", "device", "remove", "wire", "eth0"]).ok();
    lab.wait_address("wire", 20);
    assert!(shown().ok().contains("master cabinbr0"));
    lab.cabin(&device).ok();
    assert!(!shown().ok().contains("master"));
    lab.cabin(&["stop", "-f", "wire"]).ok();
    assert!(shown().code != 0, "the wire outlived the instance");
    let refused = lab.cabin(&["config", "device", "set", "wire", "eth0", "ipv4.address=192.0.2.9"]).refused();
    assert!(refused.contains("p2p"), "{refused}");
    lab.cabin(&["delete", "wire"]).ok();
}

#[test]
fn the_host_reaches_what_is_behind_a_nic_as_long_as_it_runs() {
    let mut lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "router"]).ok();
    let set = |lab: &Lab, words: &[&str]| {
        lab.cabin(&[&["config", "device", "set", "router", "eth0"], words].concat())
    };
    lab.cabin(&["config", "device", "override", "router", "eth0", "ipv4.routes=192.0.2.0/25"]).ok();
    for wrong in
        ["ipv4.routes=192.0.2.1/33", "ipv4.routes=192.0.2.1/24", "ipv4.routes=0.0.0.0/0", "ipv6.routes=::/0"]
    {
        assert!(set(&lab, &[wrong]).refused().contains("routes"), "{wrong}");
    }
    let own = lab.get("/1.0/networks/cabinbr0")["config"]["ipv4.address"].as_str().unwrap().to_owned();
    let address = own.split('/').next().unwrap();
    assert!(set(&lab, &[&format!("ipv4.routes={address}/32")]).refused().contains("itself"));
    let netns = lab.netns.clone();
    let routes = || {
        let shown = |family| host(&["ip", "-n", &netns, family, "route", "show", "proto", "203"]).out;
        let all = [shown("-4"), shown("-6")].concat();
        all.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(routes().is_empty());
    lab.cabin(&["start", "router"]).ok();
    assert_eq!(routes(), ["192.0.2.0/25"]);
    lab.wait_address("router", 20);
    lab.sh("router", "ip addr add 192.0.2.5/32 dev eth0; ip addr add 198.51.100.5/32 dev eth0");
    let reaches =
        |address: &str| host(&["ip", "netns", "exec", &netns, "ping", "-c1", "-W2", address]).code == 0;
    assert!(reaches("192.0.2.5"));
    // Changed while it runs: the instance keeps the nic and the addresses on it.
    set(&lab, &["ipv4.routes=198.51.100.0/24", "ipv6.routes=2001:db8:7::/64"]).ok();
    assert_eq!(routes(), ["198.51.100.0/24", "2001:db8:7::/64"]);
    assert!(reaches("198.51.100.5"));
    // A second one cannot have the same, and leaves the first alone.
    lab.cabin(&["create", "busybox", "second"]).ok();
    lab.cabin(&["config", "device", "override", "second", "eth0", "ipv4.routes=198.51.100.0/24"]).ok();
    assert!(lab.cabin(&["start", "second"]).refused().contains("198.51.100.0/24"));
    lab.cabin(&["delete", "second"]).ok();
    assert!(reaches("198.51.100.5"));
    // What was laid for nobody goes when the daemon starts, what is wanted comes back.
    lab.daemon_mut().crash();
    host(&["ip", "-n", &netns, "route", "add", "203.0.113.0/24", "dev", "cabinbr0", "proto", "203"]).ok();
    host(&["ip", "-n", &netns, "route", "del", "198.51.100.0/24"]).ok();
    lab.daemon_mut().boot();
    assert_eq!(routes(), ["198.51.100.0/24", "2001:db8:7::/64"]);
    lab.cabin(&["stop", "-f", "router"]).ok();
    assert!(routes().is_empty());
    lab.cabin(&["delete", "router"]).ok();
}

#[test]
fn what_a_nic_may_carry_is_set_and_taken_away_while_it_runs() {
    let lab = Lab::own();
    lab.busybox("slow");
    let address = lab.wait_address("slow", 20);
    let name =
        lab.get("/1.0/instances/slow/state")["network"]["eth0"]["host_name"].as_str().unwrap().to_owned();
    let netns = lab.netns.clone();
    let class = || host(&["tc", "-n", &netns, "class", "show", "dev", &name]).out;
    let set = |words: &[&str]| lab.cabin(&[&["config", "device", "set", "slow", "eth0"], words].concat());
    lab.cabin(&["config", "device", "override", "slow", "eth0", "limits.ingress=1Mbit"]).ok();
    assert!(class().contains("rate 1Mbit"), "{}", class());
    set(&["limits.max=40kbit"]).ok();
    assert!(class().contains("rate 40Kbit"), "{}", class());
    set(&["limits.max=", "limits.ingress="]).ok();
    assert_eq!(class(), "");
    // Of what it sends a second's worth of 5 kB passes at once, and then next to nothing.
    let passed = || -> u32 {
        let ping = ["ping", "-q", "-c20", "-i0.002", "-s1400", "-W1", address.as_str()];
        let said = host(&[&["ip", "netns", "exec", &netns], &ping[..]].concat()).out;
        let count = said.split(" received").next().and_then(|head| head.rsplit(' ').next()).map(str::parse);
        count.and_then(Result::ok).unwrap_or_else(|| panic!("{said}"))
    };
    assert_eq!(passed(), 20);
    set(&["limits.egress=40kbit"]).ok();
    let some = passed();
    assert!((1..15).contains(&some), "{some} of 20");
    set(&["limits.egress="]).ok();
    assert_eq!(passed(), 20);
    assert!(set(&["limits.egress=fast"]).refused().contains("limits.egress"));
    // One that is not attached is not there, and comes back under its own name.
    set(&["attached=false"]).ok();
    assert!(!lab.sh("slow", "ls /sys/class/net").contains("eth0"));
    set(&["attached=true"]).ok();
    assert!(lab.sh("slow", "ls /sys/class/net").contains("eth0"));
    lab.cabin(&["delete", "-f", "slow"]).ok();
}

#[test]
fn every_address_of_a_network_and_its_instances_is_listed() {
    let lab = Lab::own();
    lab.busybox("listed");
    let address = lab.wait_address("listed", 20);
    let found = lab.get("/1.0/network-allocations");
    let of = |user: &str| {
        found.as_array().unwrap().iter().filter(|it| it["used_by"] == user).cloned().collect::<Vec<_>>()
    };
    let config = lab.get("/1.0/networks/cabinbr0")["config"].clone();
    let own = of("/1.0/networks/cabinbr0");
    assert_eq!((own.len(), &own[0]["type"], &own[0]["nat"]), (2, &json!("network"), &json!(true)));
    assert_eq!(
        (&own[0]["addresses"], &own[1]["addresses"]),
        (&config["ipv4.address"], &config["ipv6.address"])
    );
    let given = of("/1.0/instances/listed");
    let one =
        given.iter().find(|it| it["addresses"] == format!("{address}/32").as_str()).expect("its address");
    let mac = lab.get("/1.0/instances/listed")["config"]["volatile.eth0.hwaddr"].clone();
    assert_eq!((&one["hwaddr"], &one["network"]), (&mac, &json!("cabinbr0")));
    let listed = lab.cabin(&["network", "list-allocations", "-f", "csv,noheader"]).ok();
    assert!(listed.contains(&format!("/1.0/instances/listed,{address}/32,instance,YES,")), "{listed}");
    for stock in Stock::ALL {
        let listed = stock.run(&lab, &["network", "list-allocations"]).ok();
        assert!(listed.contains("/1.0/networks/cabinbr0") && listed.contains(&address), "{listed}");
    }
    lab.cabin(&["delete", "-f", "listed"]).ok();
}
