//! Nics without a bridge.

use cabin_network::Error;
use cabin_undo::fault;

use crate::world::{Guest, Host, in_own_world, keep, kernel_state, nic, run};

#[test]
fn a_pair_joins_host_and_guest_and_nothing_else() {
    in_own_world("pairs::a_pair_joins_host_and_guest_and_nothing_else", || {
        let host = Host::new();
        let before = kernel_state();
        let (guest, nic) = (Guest::new(), nic("web", 1));
        keep(|undo| host.network.plug_pair(&nic, guest.netns(), undo));
        assert_eq!(host.network.marked().unwrap().ports, vec![nic.host_name.clone()]);
        let inside = guest.run("ip", &["link", "show", "eth0"]);
        assert!(inside.contains("00:16:3e:00:00:01") && inside.contains("mtu 1500"), "{inside}");
        let link = run("ip", &["link", "show", "vethtest1"]);
        assert!(link.contains("UP") && !link.contains("master"), "{link}");
        // What the guest says about routes the host does not believe.
        for setting in ["ipv6/conf/vethtest1/accept_ra", "ipv4/conf/vethtest1/accept_redirects"] {
            let value = std::fs::read_to_string(format!("/proc/sys/net/{setting}")).unwrap();
            assert_eq!(value.trim(), "0", "{setting}");
        }
        run("ip", &["addr", "add", "192.0.2.1/24", "dev", "vethtest1"]);
        guest.run("ip", &["addr", "add", "192.0.2.2/24", "dev", "eth0"]);
        guest.run("ip", &["link", "set", "eth0", "up"]);
        guest.run("ping", &["-c1", "-W5", "192.0.2.1"]);

        run("ip", &["link", "set", "vethtest1", "down"]);
        host.network.ensure_pair(&nic).unwrap();
        guest.run("ping", &["-c1", "-W5", "192.0.2.1"]);
        host.network.unplug_pair(&nic).unwrap();
        host.network.unplug_pair(&nic).unwrap();
        assert_eq!(kernel_state(), before);
        assert!(matches!(host.network.ensure_pair(&nic), Err(Error::NoLink { .. })));
        // An interface of that name that is somebody else's stays as it is.
        run("ip", &["link", "add", "vethtest1", "type", "bridge"]);
        assert!(matches!(host.network.ensure_pair(&nic), Err(Error::LinkExists { .. })));
    });
}

#[test]
fn a_pair_that_fails_at_any_step_leaves_the_kernel_as_it_was() {
    in_own_world("pairs::a_pair_that_fails_at_any_step_leaves_the_kernel_as_it_was", || {
        let host = Host::new();
        let before = kernel_state();
        let (guest, nic) = (Guest::new(), nic("web", 1));
        let mut failures = 0;
        for step in 1.. {
            fault::arm(fault::Plan::Fail(step));
            let done = cabin_undo::atomically(|undo| host.network.plug_pair(&nic, guest.netns(), undo));
            fault::arm(fault::Plan::Off);
            let Err(failed) = done else { break };
            failures += 1;
            assert!(failed.left_behind.is_empty(), "{:?}", failed.left_behind);
            assert_eq!(kernel_state(), before, "step {step}");
        }
        assert!(failures > 0, "no step was seen");
    });
}
