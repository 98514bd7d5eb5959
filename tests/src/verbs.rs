//! The verbs that change something, each with a way to it and a way back, for sweeps over their steps.

use serde_json::{Value, json};

use crate::subject::Subject;

/// What an attempt comes to.
pub type Attempt = Result<Value, String>;

/// One verb.
pub struct Verb {
    /// What is done, for messages.
    pub name: &'static str,
    /// Makes what it is done to; once.
    pub before: fn(&Subject),
    /// Does it.
    pub act: fn(&Subject) -> Attempt,
    /// Brings back what was before it. Must also do when the act was not done.
    pub back: fn(&Subject),
    /// A state that is neither before nor after and is right all the same: made from the one before.
    pub halfway: Option<fn(&Subject)>,
}

fn nothing(_: &Subject) {}

fn delete(subject: &Subject, target: &str) {
    let reply = subject.call("GET", target, None).expect("an answer");
    if reply.status == 200 {
        subject.must("DELETE", target, &Value::Null);
    }
}

fn instance(name: &str) -> Value {
    json!({ "name": name, "source": { "type": "image", "alias": "busybox" } })
}

fn create(subject: &Subject, name: &str) {
    if subject.status(name).is_empty() {
        subject.must("POST", "/1.0/instances", &instance(name));
    }
}

fn run(subject: &Subject, name: &str) {
    create(subject, name);
    if subject.status(name) != "Running" {
        subject.power(name, "start").expect("a start");
    }
}

fn halt(subject: &Subject, name: &str) {
    if subject.status(name) == "Running" {
        subject.power(name, "stop").expect("a stop");
    }
}

/// Replaces the devices or config of an instance by what `change` makes of them.
fn put(subject: &Subject, name: &str, change: impl Fn(&mut Value)) -> Attempt {
    let target = format!("/1.0/instances/{name}");
    let mut body = subject.get(&target);
    change(&mut body);
    subject.ask("PUT", &target, &body)
}

fn nic(hwaddr: &str) -> Value {
    json!({
        "type": "nic", "network": "cabinbr0", "name": "eth1", "hwaddr": hwaddr,
        "ipv4.routes": "192.0.2.0/25", "limits.ingress": "100Mbit",
    })
}

const FIRST: &str = "10:66:6a:00:00:01";
const OTHER: &str = "10:66:6a:00:00:02";

fn with_nic(subject: &Subject, hwaddr: &str) -> Attempt {
    put(subject, "live", |body| body["devices"]["eth1"] = nic(hwaddr))
}

fn without_nic(subject: &Subject) -> Attempt {
    put(subject, "live", |body| {
        let _ = body["devices"].as_object_mut().map(|devices| devices.remove("eth1"));
    })
}

/// An instance's life.
pub const LIFE: &[Verb] = &[
    Verb {
        name: "instance create",
        before: nothing,
        act: |subject| subject.ask("POST", "/1.0/instances", &instance("made")),
        back: |subject| delete(subject, "/1.0/instances/made"),
        halfway: None,
    },
    Verb {
        name: "instance create, empty",
        before: nothing,
        act: |subject| {
            let body = json!({ "name": "made", "source": { "type": "none" } });
            subject.ask("POST", "/1.0/instances", &body)
        },
        back: |subject| delete(subject, "/1.0/instances/made"),
        halfway: None,
    },
    Verb {
        name: "instance delete",
        before: |subject| create(subject, "gone"),
        act: |subject| subject.ask("DELETE", "/1.0/instances/gone", &Value::Null),
        back: |subject| create(subject, "gone"),
        halfway: None,
    },
    Verb {
        name: "instance rename",
        before: |subject| {
            // With logs and an address, which move along.
            run(subject, "one");
            halt(subject, "one");
            subject.fix_address("one", 70);
        },
        act: |subject| subject.ask("POST", "/1.0/instances/one", &json!({ "name": "two" })),
        back: |subject| {
            if !subject.status("two").is_empty() {
                subject.must("POST", "/1.0/instances/two", &json!({ "name": "one" }));
            }
        },
        halfway: None,
    },
    Verb {
        name: "instance start",
        before: |subject| create(subject, "box"),
        act: |subject| subject.power("box", "start"),
        back: |subject| halt(subject, "box"),
        halfway: None,
    },
    Verb {
        name: "instance stop",
        before: |subject| run(subject, "box"),
        act: |subject| subject.power("box", "stop"),
        back: |subject| run(subject, "box"),
        halfway: None,
    },
    Verb {
        name: "instance restart",
        before: |subject| run(subject, "box"),
        act: |subject| subject.power("box", "restart"),
        back: |subject| run(subject, "box"),
        halfway: Some(|subject| halt(subject, "box")),
    },
    Verb {
        name: "instance stop, ephemeral",
        before: passing,
        act: |subject| subject.power("passing", "stop"),
        back: passing,
        // It has stopped, and its row could not be removed.
        halfway: Some(|subject| {
            subject.power("passing", "stop").expect("a stop");
            passing_stopped(subject);
        }),
    },
    Verb {
        name: "instance update, stopped",
        before: |subject| create(subject, "one"),
        act: |subject| put(subject, "one", |body| body["config"]["user.note"] = json!("new")),
        back: |subject| {
            put(subject, "one", |body| body["config"]["user.note"] = json!("")).expect("the way back");
        },
        halfway: None,
    },
];

fn passing(subject: &Subject) {
    passing_stopped(subject);
    run(subject, "passing");
}

fn passing_stopped(subject: &Subject) {
    if subject.status("passing").is_empty() {
        let mut body = instance("passing");
        body["ephemeral"] = json!(true);
        subject.must("POST", "/1.0/instances", &body);
    }
}

/// Changes of a running instance, by itself and by its profile.
pub const LIVE: &[Verb] = &[
    Verb {
        name: "instance update, limits of a running one",
        before: |subject| run(subject, "live"),
        act: |subject| {
            put(subject, "live", |body| {
                body["config"]["limits.memory"] = json!("100MiB");
                body["config"]["limits.processes"] = json!("77");
            })
        },
        back: |subject| {
            put(subject, "live", |body| {
                body["config"]["limits.memory"] = json!("");
                body["config"]["limits.processes"] = json!("");
            })
            .expect("the way back");
        },
        halfway: None,
    },
    Verb {
        name: "instance update, another nic in a running one",
        before: |subject| run(subject, "live"),
        act: |subject| with_nic(subject, FIRST),
        back: |subject| {
            without_nic(subject).expect("the way back");
        },
        halfway: None,
    },
    Verb {
        name: "instance update, a changed nic in a running one",
        before: |subject| {
            run(subject, "live");
            with_nic(subject, FIRST).expect("a nic");
        },
        act: |subject| with_nic(subject, OTHER),
        back: |subject| {
            with_nic(subject, FIRST).expect("the way back");
        },
        halfway: None,
    },
    Verb {
        name: "instance update, what a nic of a running one carries",
        before: |subject| {
            run(subject, "live");
            with_nic(subject, FIRST).expect("a nic");
        },
        act: |subject| {
            put(subject, "live", |body| {
                let nic = &mut body["devices"]["eth1"];
                nic["ipv4.routes"] = json!("198.51.100.0/24,203.0.113.0/24");
                nic["limits.max"] = json!("10Mbit");
                nic["security.port_isolation"] = json!("true");
            })
        },
        back: |subject| {
            with_nic(subject, FIRST).expect("the way back");
        },
        halfway: None,
    },
    Verb {
        name: "instance update, a nic less in a running one",
        before: |subject| {
            run(subject, "live");
            with_nic(subject, FIRST).expect("a nic");
        },
        act: without_nic,
        back: |subject| {
            with_nic(subject, FIRST).expect("the way back");
        },
        halfway: None,
    },
    Verb {
        name: "profile update, used by running ones",
        before: |subject| {
            with_profile(subject);
        },
        act: |subject| {
            let body = json!({ "config": { "limits.processes": "88" }, "devices": { "eth1": nic(FIRST) } });
            subject.ask("PUT", "/1.0/profiles/shared", &body)
        },
        back: |subject| {
            let body = json!({ "config": { "limits.processes": "99" }, "devices": {} });
            subject.must("PUT", "/1.0/profiles/shared", &body);
        },
        halfway: None,
    },
    Verb {
        name: "profile update, used by stopped ones",
        before: |subject| {
            for (name, address) in [("kept0", "10.213.74.1/24"), ("kept1", "10.213.75.1/24")] {
                subject.must("POST", "/1.0/networks", &network(name, address));
            }
            subject.must("POST", "/1.0/profiles", &json!({ "name": "lasting", "devices": kept_nics(0) }));
            let mut body = instance("still");
            body["profiles"] = json!(["default", "lasting"]);
            subject.must("POST", "/1.0/instances", &body);
        },
        act: |subject| subject.ask("PUT", "/1.0/profiles/lasting", &json!({ "devices": kept_nics(1) })),
        back: |subject| {
            subject.must("PUT", "/1.0/profiles/lasting", &json!({ "devices": kept_nics(0) }));
        },
        halfway: None,
    },
];

/// Nics of which, from one time to the other, two exchange their fixed addresses, one gets its first, one loses its last,
/// and one moves to another network with it.
fn kept_nics(time: usize) -> Value {
    let nic = |network: &str, last: u8| {
        let net = if network == "kept0" { 74 } else { 75 };
        let mut nic = json!({ "type": "nic", "network": network });
        if last > 0 {
            nic["ipv4.address"] = json!(format!("10.213.{net}.{last}"));
        }
        nic
    };
    json!({
        "one": nic("kept0", [20, 21][time]),
        "two": nic("kept0", [21, 20][time]),
        "first": nic("kept0", [0, 22][time]),
        "last": nic("kept0", [23, 0][time]),
        "moving": nic(["kept0", "kept1"][time], 24),
    })
}

fn with_profile(subject: &Subject) {
    let body = json!({ "name": "shared", "config": { "limits.processes": "99" }, "devices": {} });
    subject.must("POST", "/1.0/profiles", &body);
    run(subject, "live");
    put(subject, "live", |body| {
        let _ = body["devices"].as_object_mut().map(|devices| devices.remove("eth1"));
        body["profiles"] = json!(["default", "shared"]);
    })
    .expect("a profile");
}

/// Rows alone, and images.
pub const ROWS: &[Verb] = &[
    Verb {
        name: "profile create",
        before: nothing,
        act: |subject| {
            subject.ask("POST", "/1.0/profiles", &json!({ "name": "new", "config": {}, "devices": {} }))
        },
        back: |subject| delete(subject, "/1.0/profiles/new"),
        halfway: None,
    },
    Verb {
        name: "profile rename",
        before: |subject| {
            subject.must("POST", "/1.0/profiles", &json!({ "name": "old", "config": {}, "devices": {} }));
            let mut body = instance("user");
            body["profiles"] = json!(["default", "old"]);
            subject.must("POST", "/1.0/instances", &body);
        },
        act: |subject| subject.ask("POST", "/1.0/profiles/old", &json!({ "name": "new" })),
        back: |subject| {
            let _ = subject.ask("POST", "/1.0/profiles/new", &json!({ "name": "old" }));
        },
        halfway: None,
    },
    Verb {
        name: "profile delete",
        before: spare_profile,
        act: |subject| subject.ask("DELETE", "/1.0/profiles/spare", &Value::Null),
        back: spare_profile,
        halfway: None,
    },
    Verb {
        name: "alias create",
        before: nothing,
        act: |subject| subject.ask("POST", "/1.0/images/aliases", &alias(subject, "again")),
        back: |subject| delete(subject, "/1.0/images/aliases/again"),
        halfway: None,
    },
    Verb {
        name: "alias update",
        before: nothing,
        act: |subject| {
            let body = json!({ "target": fingerprint(subject), "description": "changed" });
            subject.ask("PUT", "/1.0/images/aliases/busybox", &body)
        },
        back: |subject| {
            let body = json!({ "target": fingerprint(subject), "description": "" });
            subject.must("PUT", "/1.0/images/aliases/busybox", &body);
        },
        halfway: None,
    },
    Verb {
        name: "alias rename",
        before: |subject| {
            let body = alias(subject, "here");
            subject.must("POST", "/1.0/images/aliases", &body);
        },
        act: |subject| subject.ask("POST", "/1.0/images/aliases/here", &json!({ "name": "there" })),
        back: |subject| {
            let _ = subject.ask("POST", "/1.0/images/aliases/there", &json!({ "name": "here" }));
        },
        halfway: None,
    },
    Verb {
        name: "alias delete",
        before: nothing,
        act: |subject| subject.ask("DELETE", "/1.0/images/aliases/here", &Value::Null),
        back: |subject| {
            let _ = subject.ask("POST", "/1.0/images/aliases", &alias(subject, "here"));
        },
        halfway: None,
    },
    Verb {
        name: "image update",
        before: nothing,
        act: |subject| {
            let target = format!("/1.0/images/{}", fingerprint(subject));
            let mut body = subject.get(&target);
            body["public"] = json!(true);
            subject.ask("PUT", &target, &body)
        },
        back: |subject| {
            let target = format!("/1.0/images/{}", fingerprint(subject));
            let mut body = subject.get(&target);
            body["public"] = json!(false);
            subject.must("PUT", &target, &body);
        },
        halfway: None,
    },
    Verb {
        name: "server update",
        before: nothing,
        act: |subject| subject.ask("PUT", "/1.0", &json!({ "config": { "user.note": "new" } })),
        back: |subject| {
            subject.must("PUT", "/1.0", &json!({ "config": {} }));
        },
        halfway: None,
    },
    Verb {
        name: "image delete, used",
        before: image,
        act: |subject| subject.ask("DELETE", &format!("/1.0/images/{}", fingerprint(subject)), &Value::Null),
        back: image,
        halfway: None,
    },
    Verb {
        name: "image delete",
        before: |subject| delete(subject, "/1.0/instances/user"),
        act: |subject| subject.ask("DELETE", &format!("/1.0/images/{}", fingerprint(subject)), &Value::Null),
        back: image,
        halfway: None,
    },
    Verb {
        name: "instance create, the first of its image",
        before: nothing,
        act: |subject| subject.ask("POST", "/1.0/instances", &instance("made")),
        back: |subject| {
            delete(subject, "/1.0/instances/made");
            delete(subject, &format!("/1.0/images/{}", fingerprint(subject)));
            image(subject);
        },
        // The image stays unpacked for the next one.
        halfway: Some(|subject| {
            create(subject, "made");
            delete(subject, "/1.0/instances/made");
        }),
    },
    Verb {
        name: "image import",
        before: |subject| delete(subject, &format!("/1.0/images/{}", fingerprint(subject))),
        act: |subject| subject.import("busybox"),
        back: |subject| {
            if !fingerprint(subject).is_empty() {
                delete(subject, &format!("/1.0/images/{}", fingerprint(subject)));
            }
        },
        halfway: None,
    },
];

fn spare_profile(subject: &Subject) {
    let _ = subject.ask("POST", "/1.0/profiles", &json!({ "name": "spare", "config": {}, "devices": {} }));
}

fn fingerprint(subject: &Subject) -> String {
    let images = subject.get("/1.0/images");
    let url = images[0].as_str().unwrap_or_default().to_owned();
    url.rsplit('/').next().unwrap_or_default().to_owned()
}

fn alias(subject: &Subject, name: &str) -> Value {
    json!({ "name": name, "target": fingerprint(subject), "description": "" })
}

/// The image, with the aliases that the other verbs use.
fn image(subject: &Subject) {
    if fingerprint(subject).is_empty() {
        subject.import("busybox").expect("an import");
    }
}

fn network(name: &str, address: &str) -> Value {
    json!({ "name": name, "type": "bridge",
        "config": { "ipv4.address": address, "ipv4.nat": "true", "ipv6.address": "none" } })
}

fn config_of(address: &str) -> Value {
    json!({ "config": { "ipv4.address": address, "ipv4.nat": "true", "ipv6.address": "none" } })
}

fn net(subject: &Subject, name: &str) {
    let target = format!("/1.0/networks/{name}");
    if subject.call("GET", &target, None).expect("an answer").status != 200 {
        subject.must("POST", "/1.0/networks", &network(name, "10.213.70.1/24"));
    }
}

/// Networks.
pub const NETWORKS: &[Verb] = &[
    Verb {
        name: "network create",
        before: nothing,
        act: |subject| subject.ask("POST", "/1.0/networks", &network("made0", "10.213.71.1/24")),
        back: |subject| delete(subject, "/1.0/networks/made0"),
        halfway: None,
    },
    Verb {
        name: "network update",
        before: |subject| {
            net(subject, "net0");
            let mut body = instance("guest");
            body["devices"] = json!({ "eth0": { "type": "nic", "network": "net0", "name": "eth0" } });
            subject.must("POST", "/1.0/instances", &body);
            run(subject, "guest");
        },
        act: |subject| subject.ask("PUT", "/1.0/networks/net0", &config_of("10.213.72.1/24")),
        back: |subject| {
            subject.must("PUT", "/1.0/networks/net0", &config_of("10.213.70.1/24"));
        },
        halfway: None,
    },
    Verb {
        name: "network rename",
        before: |subject| {
            halt(subject, "guest");
            delete(subject, "/1.0/instances/guest");
        },
        act: |subject| subject.ask("POST", "/1.0/networks/net0", &json!({ "name": "net1" })),
        back: |subject| {
            let _ = subject.ask("POST", "/1.0/networks/net1", &json!({ "name": "net0" }));
        },
        halfway: None,
    },
    Verb {
        name: "network delete",
        before: nothing,
        act: |subject| subject.ask("DELETE", "/1.0/networks/net0", &Value::Null),
        back: |subject| net(subject, "net0"),
        halfway: None,
    },
];

fn pool(subject: &Subject, name: &str, driver: &str, config: &Value) -> Attempt {
    let body = json!({ "name": name, "driver": driver, "config": config });
    subject.ask("POST", "/1.0/storage-pools", &body)
}

fn elsewhere(subject: &Subject) -> Value {
    json!({ "source": subject.dir.join("elsewhere").to_string_lossy() })
}

/// Storage pools.
pub const POOLS: &[Verb] = &[
    Verb {
        name: "pool create",
        before: nothing,
        act: |subject| pool(subject, "made", "dir", &json!({})),
        back: |subject| delete(subject, "/1.0/storage-pools/made"),
        halfway: None,
    },
    Verb {
        name: "pool create, in a given directory",
        before: |subject| std::fs::create_dir(subject.dir.join("elsewhere")).expect("a directory"),
        act: |subject| pool(subject, "far", "overlay", &elsewhere(subject)),
        back: |subject| delete(subject, "/1.0/storage-pools/far"),
        halfway: None,
    },
    Verb {
        name: "pool update",
        before: |subject| {
            pool(subject, "kept", "overlay", &json!({})).expect("a pool");
        },
        act: |subject| {
            subject.ask("PUT", "/1.0/storage-pools/kept", &json!({ "description": "new", "config": {} }))
        },
        back: |subject| {
            subject.must("PUT", "/1.0/storage-pools/kept", &json!({ "description": "", "config": {} }));
        },
        halfway: None,
    },
    Verb {
        name: "pool delete",
        before: nothing,
        act: |subject| subject.ask("DELETE", "/1.0/storage-pools/kept", &Value::Null),
        back: |subject| {
            let _ = pool(subject, "kept", "overlay", &json!({}));
        },
        halfway: None,
    },
    Verb {
        name: "pool delete, in a given directory",
        before: |subject| {
            pool(subject, "far", "overlay", &elsewhere(subject)).expect("a pool");
        },
        act: |subject| subject.ask("DELETE", "/1.0/storage-pools/far", &Value::Null),
        back: |subject| {
            let _ = pool(subject, "far", "overlay", &elsewhere(subject));
        },
        halfway: None,
    },
];
