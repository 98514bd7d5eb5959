//! The guests that must live here: each boots without a failed unit, gets an address, powers off, reboots, stops
//! when asked and stops when forced.

use cabin_tests::lab::Lab;
use cabin_tests::wait::{until, until_true};

/// What init a guest runs, and so how it says that it is up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Init {
    /// Systemd of a version between these.
    Systemd(u32, u32),
    Sysv,
    Busybox,
}

#[test]
fn debian_12_lives() {
    lives("debian/12", "deb12", Init::Systemd(252, 252));
}

#[test]
fn debian_13_lives() {
    lives("debian/13", "deb13", Init::Systemd(257, 257));
}

#[test]
fn debian_sid_lives() {
    lives("debian/sid", "sid", Init::Systemd(260, u32::MAX));
}

#[test]
fn debian_with_sysvinit_lives() {
    lives("debian/12/sysvinit", "sysv", Init::Sysv);
}

#[test]
fn a_busybox_guest_lives() {
    lives("busybox", "bbox", Init::Busybox);
}

#[test]
fn debian_lives_with_more_rights_too() {
    let lab = Lab::shared();
    for (name, key) in [("privileged", "security.privileged=true"), ("nesting", "security.nesting=true")] {
        lab.launch("debian/12", name, &["-c", key]);
        is_up(&lab, name, Init::Systemd(252, 252));
        lab.wait_address(name, 30);
        let _ = lab.exec(name, &["poweroff"]);
        lab.wait_status(name, "Stopped", 60);
        lab.cabin(&["delete", name]).ok();
    }
    eprintln!("guests with more rights that boot: 2 points");
}

fn lives(image: &str, name: &str, init: Init) {
    let lab = Lab::shared();
    lab.launch(image, name, &[]);
    is_up(&lab, name, init);
    if let Init::Systemd(least, most) = init {
        let said = lab.sh(name, "systemctl --version");
        let version = said.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        assert!(version.is_some_and(|version| (least..=most).contains(&version)), "{said}");
    }
    let address = lab.wait_address(name, 30);
    assert!(lab.sh(name, "ip -4 addr show eth0").contains(&address));

    // A file written now is there after every stop and start.
    lab.sh(name, "echo kept >/root/kept");

    let before = lab.init_pid(name);
    let _ = lab.exec(name, &["reboot"]);
    until_true(&format!("`{name}` to have rebooted"), 60, || {
        let now = lab.init_pid(name);
        now != 0 && now != before && lab.status(name) == "Running"
    });
    is_up(&lab, name, init);

    let _ = lab.exec(name, &["poweroff"]);
    lab.wait_status(name, "Stopped", 60);
    lab.cabin(&["start", name]).ok();
    is_up(&lab, name, init);

    lab.cabin(&["stop", name, "--timeout", "60"]).ok();
    assert_eq!(lab.status(name), "Stopped");
    lab.cabin(&["start", name]).ok();
    is_up(&lab, name, init);
    assert_eq!(lab.sh(name, "cat /root/kept"), "kept");

    // Told at once after its start, while its init may not listen yet, or not heed what it hears.
    lab.cabin(&["restart", name, "--timeout", "60"]).ok();
    lab.cabin(&["restart", name, "--timeout", "60"]).ok();
    lab.cabin(&["stop", name, "--timeout", "60"]).ok();
    assert_eq!(lab.status(name), "Stopped");
    lab.cabin(&["start", name]).ok();

    lab.cabin(&["stop", "--force", name]).ok();
    assert_eq!(lab.status(name), "Stopped");
    lab.cabin(&["delete", name]).ok();
    // Launched, rebooted, and started after a power-off and after a stop.
    eprintln!("boots of `{image}` until it was up: 4 points");
}

fn is_up(lab: &Lab, name: &str, init: Init) {
    match init {
        Init::Systemd(..) => {
            let state = until(&format!("systemd in `{name}` to be done"), 60, || {
                let state = lab.exec(name, &["systemctl", "is-system-running"]).out.trim().to_owned();
                matches!(state.as_str(), "running" | "degraded" | "maintenance").then_some(state)
            });
            let failed = lab.exec(name, &["systemctl", "--failed", "--no-legend", "--plain"]).out;
            assert!(state == "running" && failed.trim().is_empty(), "`{name}` is {state}:\n{failed}");
            let console = lab.exec(name, &["systemctl", "is-active", "console-getty.service"]).out;
            assert_eq!(console.trim(), "active", "console-getty in `{name}`");
        }
        Init::Sysv => {
            until_true(&format!("`{name}` to be in runlevel 2"), 60, || {
                lab.exec(name, &["runlevel"]).out.trim().ends_with(" 2")
            });
        }
        Init::Busybox => until_true(&format!("init of `{name}` to be up"), 20, || {
            lab.exec(name, &["sh", "-c", "cat /proc/1/comm"]).out.trim() == "init"
        }),
    }
}
