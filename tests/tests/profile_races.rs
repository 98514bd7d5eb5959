//! Profiles that are edited while instances begin to use them: afterwards what is in force is what the row and its
//! profiles say. CABIN_TORTURE multiplies the rounds.

use cabin_tests::audit;
use cabin_tests::race::{Asked, Race, Score, done, of_busybox, rounds, so};
use cabin_tests::subject::Subject;
use serde_json::{Value, json};

fn with_profile(subject: &Subject) {
    let body = json!({ "name": "race", "config": { "limits.processes": "50" }, "devices": {} });
    subject.must("POST", "/1.0/profiles", &body);
}

fn edit_profile() -> Asked {
    Asked::new("PATCH", "/1.0/profiles/race", json!({ "config": { "limits.processes": "77" } }))
}

/// The one instance runs with the limit that its row and profiles have, which is the edited one.
fn as_the_row_says(subject: &Subject) -> Result<(), String> {
    let held: Vec<String> = audit::cgroups(&subject.dir)
        .iter()
        .filter_map(|group| std::fs::read_to_string(group.join("pids.max")).ok())
        .map(|text| text.trim().to_owned())
        .collect();
    let row = subject.get("/1.0/instances/one")["expanded_config"]["limits.processes"].clone();
    so(held == ["77"] && row == "77", &format!("the limit in force is {held:?}, the row says {row}"))
}

fn with_it(name: &str) -> Value {
    let mut body = of_busybox(name);
    body["profiles"] = json!(["default", "race"]);
    body
}

const RACES: &[Race] = &[
    Race {
        name: "profile edit and instance gains it",
        before: |subject| {
            with_profile(subject);
            subject.create("one", &json!({}));
            subject.power("one", "start").expect("a start");
        },
        asked: |_| {
            let gain = json!({ "profiles": ["default", "race"] });
            vec![edit_profile(), Asked::new("PATCH", "/1.0/instances/one", gain)]
        },
        judge: |subject, answers| {
            so(done(answers) == 2, "both can be")?;
            as_the_row_says(subject)
        },
        often: 12,
    },
    Race {
        name: "profile edit and restoring of a snapshot that has it",
        before: |subject| {
            with_profile(subject);
            subject.must("POST", "/1.0/instances", &with_it("one"));
            subject.must("POST", "/1.0/instances/one/snapshots", &json!({ "name": "s" }));
            subject.must("PATCH", "/1.0/instances/one", &json!({ "profiles": ["default"] }));
            subject.power("one", "start").expect("a start");
        },
        asked: |_| {
            let restore = json!({ "restore": "s" });
            vec![edit_profile(), Asked::new("PUT", "/1.0/instances/one", restore)]
        },
        judge: |subject, answers| {
            so(done(answers) == 2, "both can be")?;
            as_the_row_says(subject)
        },
        often: 4,
    },
    Race {
        name: "profile edit and a launch with it",
        before: with_profile,
        asked: |_| {
            let mut body = with_it("one");
            body["start"] = json!(true);
            vec![edit_profile(), Asked::new("POST", "/1.0/instances", body)]
        },
        judge: |subject, answers| {
            so(done(answers) == 2, "both can be")?;
            as_the_row_says(subject)
        },
        often: 4,
    },
];

#[test]
fn what_is_in_force_is_what_row_and_profiles_say_whoever_comes_first() {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    let mut score = Score::default();
    for race in RACES {
        score.run(&subject, race, rounds());
    }
    score.close(" of profiles");
}
