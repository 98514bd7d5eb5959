//! Races about the addresses of nics: of those who want one at the same moment one has it, and the others are told who.

use cabin_tests::race::{Answer, Asked, Race, Score, of_busybox, one_wins, rounds, so};
use cabin_tests::subject::Subject;
use serde_json::{Value, json};

const MAC: &str = "02:00:00:00:09:01";

/// A nic on the bridge that the default profile names.
fn nic(key: &str, value: &str) -> Value {
    let mut nic = json!({ "type": "nic", "name": "eth0", "network": "cabinbr0" });
    nic[key] = json!(value);
    json!({ "devices": { "eth0": nic } })
}

fn with(name: &str, nic: &Value) -> Value {
    let mut body = of_busybox(name);
    body["devices"] = nic["devices"].clone();
    body
}

fn start(name: &str) -> Asked {
    let body = json!({ "action": "start", "timeout": 30 });
    Asked::new("PUT", format!("/1.0/instances/{name}/state"), body)
}

fn plug_in(name: &str) -> Asked {
    Asked::new("PATCH", format!("/1.0/instances/{name}"), nic("hwaddr", MAC))
}

/// An address of the bridge's network that ends so.
fn address(subject: &Subject, last: u8) -> String {
    let bridge = subject.get("/1.0/networks/cabinbr0")["config"]["ipv4.address"].clone();
    let (net, _) = bridge.as_str().and_then(|it| it.rsplit_once('.')).expect("an IPv4 network");
    format!("{net}.{last}")
}

fn alike(subject: &Subject) {
    for name in ["one", "other"] {
        subject.must("POST", "/1.0/instances", &with(name, &nic("hwaddr", MAC)));
    }
}

/// The loser is told which of the two has it.
fn names_the_winner(answers: &[Answer], names: [&str; 2]) -> Result<(), String> {
    one_wins(answers)?;
    let winner = if answers[0].is_done() { names[0] } else { names[1] };
    let told = answers.iter().any(|answer| match answer {
        Answer::Refused(_, why) | Answer::Failed(why) => {
            why.contains(MAC) && why.contains(&format!("in use by instance `{winner}`"))
        }
        _ => false,
    });
    so(told, &format!("the loser is not told of `{winner}`"))
}

const RACES: &[Race] = &[
    Race {
        name: "two starts with one hardware address",
        before: alike,
        asked: |_| vec![start("one"), start("other")],
        judge: |subject, answers| {
            names_the_winner(answers, ["one", "other"])?;
            for (name, answer) in ["one", "other"].iter().zip(answers) {
                so((subject.status(name) == "Running") == answer.is_done(), &format!("`{name}`"))?;
            }
            Ok(())
        },
        often: 6,
    },
    Race {
        name: "a start and a nic that comes with one hardware address",
        before: |subject| {
            subject.must("POST", "/1.0/instances", &with("one", &nic("hwaddr", MAC)));
            subject.create("other", &json!({}));
            subject.power("other", "start").expect("a start");
        },
        asked: |_| vec![start("one"), plug_in("other")],
        judge: |subject, answers| {
            names_the_winner(answers, ["one", "other"])?;
            let has = subject.get("/1.0/instances/other")["devices"]["eth0"]["hwaddr"] == MAC;
            so(has == answers[1].is_done(), "the nic is not as was said")
        },
        often: 3,
    },
    Race {
        name: "six creates with one fixed address",
        before: |_| {},
        asked: |subject| {
            let address = address(subject, 90);
            let create = |n: usize| {
                let body = with(&format!("wants{n}"), &nic("ipv4.address", &address));
                Asked::new("POST", "/1.0/instances", body)
            };
            (0..6).map(create).collect()
        },
        judge: |_, answers| one_wins(answers),
        often: 2,
    },
];

#[test]
fn of_those_who_want_one_address_one_has_it() {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    let mut score = Score::default();
    for race in RACES {
        score.run(&subject, race, rounds());
    }
    score.close(" for addresses of nics");
}
