//! A thousand clients at the same moment, who only ask or who change things too: every one is answered as if alone, and
//! what each was told holds. CABIN_TORTURE makes more rounds.

use std::collections::BTreeMap;
use std::time::Duration;

use cabin_tests::hostile::{HANDSHAKE, Line};
use cabin_tests::stage::{Stage, torture};
use cabin_tests::subject::Subject;
use cabin_tests::wait::while_others_go_on;
use serde_json::{Value, json};

#[test]
fn a_thousand_at_once_are_all_served() {
    let mut stage = Stage::set();
    for _ in 0..torture() {
        let mut lines: Vec<Line> = (0..1000).map(|_| Line::open(&stage.subject)).collect();
        stage.others(|_| while_others_go_on(Duration::from_secs(1)));
        let asked = lines
            .iter_mut()
            .filter_map(|line| line.head("GET", "/1.0/instances?recursion=1", "").then_some(()));
        let asked = asked.count();
        let served =
            lines.iter_mut().filter_map(|line| line.status(30)).filter(|status| *status == 200).count();
        if (asked, served) != (1000, 1000) {
            stage.fault(format!("{asked} could ask, {served} were served"));
        }
        drop(lines);
        let mut listeners: Vec<Line> =
            (0..300).map(|_| Line::websocket(&stage.subject, "/1.0/events")).collect();
        stage.others(|subject| {
            subject.must("PATCH", "/1.0/instances/box", &json!({ "config": { "user.heard": "x" } }));
            let heard = listeners.iter_mut().filter_map(|line| line.next_frame(10)).count();
            assert_eq!(heard, 300, "listeners that heard of it");
        });
    }
    stage.close(1300 * torture(), "many at once");
}

/// What those of a mixed crowd do, and the status that answers each of them.
const ACTS: &[(&str, u16)] = &[
    ("lists instances", 200),
    ("makes a profile", 201),
    ("deletes a profile", 200),
    ("replaces a profile", 200),
    ("changes an instance", 200),
    ("changes the server", 200),
    ("runs a command", 202),
    ("writes a file", 200),
    ("reads a file", 200),
    ("listens to events", 101),
];

/// How many do the same.
const EACH: usize = 100;

/// What a file holds that one of them writes.
fn text(number: usize) -> String {
    format!("of {number};").repeat(700)
}

/// One request of such a crowd: method, address, header lines, body.
fn request(act: &str, number: usize) -> Vec<u8> {
    const FILES: &str = "/1.0/instances/box/files?path=/root/crowd";
    let noted = |config: &str| json!({ "config": { config: number.to_string() } }).to_string();
    let no_more = String::new;
    let (method, target, body) = match act {
        "makes a profile" => {
            ("POST", "/1.0/profiles".to_owned(), json!({ "name": format!("new{number}") }).to_string())
        }
        "deletes a profile" => ("DELETE", format!("/1.0/profiles/old{number}"), no_more()),
        "replaces a profile" => ("PUT", format!("/1.0/profiles/kept{number}"), noted("user.by")),
        "changes an instance" => {
            ("PATCH", "/1.0/instances/box".to_owned(), noted(&format!("user.by{number}")))
        }
        "changes the server" => ("PATCH", "/1.0".to_owned(), noted(&format!("user.by{number}"))),
        "runs a command" => {
            let script = format!("echo {number} >/root/ran{number}");
            let body =
                json!({ "command": ["sh", "-c", script], "wait-for-websocket": false, "interactive": false });
            ("POST", "/1.0/instances/box/exec".to_owned(), body.to_string())
        }
        "writes a file" => ("POST", format!("{FILES}{number}"), text(number)),
        "reads a file" => ("GET", format!("{FILES}-there"), no_more()),
        "listens to events" => ("GET", "/1.0/events".to_owned(), no_more()),
        _ => ("GET", "/1.0/instances?recursion=1".to_owned(), no_more()),
    };
    let more = match act {
        "listens to events" => HANDSHAKE.to_owned(),
        "writes a file" => {
            format!("X-Incus-type: file\r\nContent-Length: {}\r\nConnection: close\r\n", body.len())
        }
        _ => format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n",
            body.len()
        ),
    };
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n{body}").into_bytes()
}

/// What they change, as it is before.
fn lay_out(subject: &Subject) {
    for number in 0..EACH {
        for name in ["old", "kept"] {
            subject.must("POST", "/1.0/profiles", &json!({ "name": format!("{name}{number}") }));
        }
    }
    let script = "rm -f /root/ran* /root/crowd*; seq 1 20000 >/root/crowd-there";
    subject.exec("box", script).expect("a file to read");
}

/// Takes away what they made; what is not as each of them was told.
fn look_after(subject: &Subject) -> Vec<String> {
    let mut wrong = Vec::new();
    let number_of =
        |config: &Value, key: String| config[key].as_str().and_then(|it| it.parse::<usize>().ok());
    let profiles = subject.get("/1.0/profiles?recursion=1");
    let profile =
        |name: String| profiles.as_array().into_iter().flatten().find(|it| it["name"] == name.as_str());
    let (of_box, of_server) =
        (subject.get("/1.0/instances/box")["config"].clone(), subject.get("/1.0")["config"].clone());
    for number in 0..EACH {
        let holds = [
            ("a profile that was made is there", profile(format!("new{number}")).is_some()),
            ("a profile that was deleted is gone", profile(format!("old{number}")).is_none()),
            (
                "a profile that was replaced is as it was sent",
                profile(format!("kept{number}"))
                    .is_some_and(|it| number_of(&it["config"], "user.by".to_owned()) == Some(number)),
            ),
            (
                "a change of an instance is there",
                number_of(&of_box, format!("user.by{number}")) == Some(number),
            ),
            (
                "a change of the server is there",
                number_of(&of_server, format!("user.by{number}")) == Some(number),
            ),
            ("a file that was written holds what was sent", {
                let target = format!("/1.0/instances/box/files?path=/root/crowd{number}");
                subject.call("GET", &target, None).is_ok_and(|reply| reply.text() == text(number))
            }),
        ];
        wrong.extend(
            holds.iter().filter(|(_, holds)| !holds).map(|(what, _)| format!("not so: {what} ({number})")),
        );
        for name in ["new", "kept"] {
            wrong.extend(subject.ask("DELETE", &format!("/1.0/profiles/{name}{number}"), &Value::Null).err());
        }
    }
    let ran = subject.exec("box", "cat /root/ran* | sort -n | uniq | wc -l");
    if ran != Ok(EACH.to_string()) {
        wrong.push(format!("commands that ran: {ran:?}"));
    }
    let mut bare = subject.get("/1.0/instances/box");
    let _ = bare["config"].as_object_mut().map(|config| config.retain(|key, _| !key.starts_with("user.by")));
    subject.must("PUT", "/1.0/instances/box", &bare);
    subject.must("PUT", "/1.0", &json!({ "config": {} }));
    wrong
}

#[test]
fn a_thousand_that_change_things_at_once_are_all_served_and_none_undoes_another() {
    let mut stage = Stage::set();
    for _ in 0..torture() {
        lay_out(&stage.subject);
        let there = stage.subject.exec("box", "cat /root/crowd-there").expect("what it holds");
        let mut crowd: Vec<(&str, usize, Line)> = (0..EACH)
            .flat_map(|number| ACTS.iter().map(move |(act, _)| (*act, number)))
            .map(|(act, number)| (act, number, Line::open(&stage.subject)))
            .collect();
        for (act, number, line) in &mut crowd {
            line.send(&request(act, *number));
        }
        let mut served = BTreeMap::<(&str, Option<u16>), usize>::new();
        let (mut listeners, mut commands) = (Vec::new(), Vec::new());
        for (act, _, mut line) in crowd {
            let (status, body) = match act {
                "listens to events" => (line.status(60), Vec::new()),
                _ => line.answer(60).map_or((None, Vec::new()), |(status, body)| (Some(status), body)),
            };
            *served.entry((act, status)).or_default() += 1;
            match act {
                "listens to events" => listeners.push(line),
                "runs a command" => commands.extend(serde_json::from_slice::<Value>(&body)),
                "reads a file" if String::from_utf8_lossy(&body).trim() != there => {
                    stage.fault(format!("a file that was read had {} bytes", body.len()));
                }
                _ => {}
            }
        }
        let wanted = ACTS.iter().map(|(act, status)| ((*act, Some(*status)), EACH)).collect();
        if served != wanted {
            stage.fault(format!("served were {served:?}"));
        }
        for command in commands {
            let target = format!("{}/wait?timeout=60", command["operation"].as_str().unwrap_or_default());
            let ended = stage.subject.call("GET", &target, None).expect("an answer");
            // One that ended long ago is forgotten; what it did is looked at below.
            if ended.status != 404 && ended.json()["metadata"]["metadata"]["return"] != 0 {
                stage.fault(format!("a command of one of them: {}", ended.text()));
            }
        }
        stage.subject.must("PATCH", "/1.0/instances/box", &json!({ "config": { "user.heard": "x" } }));
        let heard = listeners.iter_mut().filter_map(|line| line.next_frame(20)).count();
        if heard != EACH {
            stage.fault(format!("{heard} of {EACH} listeners heard of it"));
        }
        let wrong = look_after(&stage.subject);
        stage.wrong.extend(wrong);
    }
    stage.close(ACTS.len() * EACH * torture(), "many that change things at once");
}
