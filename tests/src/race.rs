//! Races: what happens when several ask for things that cannot all be had, at the same moment and again and again.

use std::sync::Barrier;
use std::time::Instant;

use serde_json::{Value, json};

use crate::subject::Subject;
use crate::sweep::audited;
use crate::{api, machine};

/// How long an operation may take before it counts as stuck, in seconds.
const DEADLINE: u64 = 40;

/// One request of a race.
#[derive(Debug, Clone)]
pub struct Asked {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// What became of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done(Value),
    /// It was refused at once, with that status and these words.
    Refused(u16, String),
    /// The operation it started failed, with these words.
    Failed(String),
    /// There was no answer in time, or none at all.
    Lost(String),
}

impl Answer {
    /// Whether it was done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Answer::Done(_))
    }

    /// What is wrong with it, whoever won: the loser is to be told why, in words about what was asked.
    fn fault(&self) -> Option<String> {
        const CLEAR: &[&str] = &[
            "already",
            "not found",
            "running",
            "stopped",
            "is not",
            "in use",
            "busy",
            "changed",
            "used by",
            "no such",
            "frozen",
        ];
        // Words of the kernel mean that somebody pulled the floor away under a step.
        const RAW: &[&str] = &["os error", "panic"];
        let clear = |why: &str| {
            CLEAR.iter().any(|word| why.contains(word)) && !RAW.iter().any(|word| why.contains(word))
        };
        match self {
            Answer::Done(_) => None,
            Answer::Refused(400 | 404 | 409 | 412, why) | Answer::Failed(why) if clear(why) => None,
            Answer::Refused(412, _) => None,
            other => Some(format!("{other:?}")),
        }
    }
}

impl Asked {
    /// A request.
    #[must_use]
    pub fn new(method: &'static str, target: impl Into<String>, body: Value) -> Asked {
        let headers = vec![("Content-Type", "application/json".to_owned())];
        Asked { method, target: target.into(), headers, body: body.to_string().into_bytes() }
    }

    /// The upload of a file.
    #[must_use]
    pub fn upload(target: impl Into<String>, body: Vec<u8>) -> Asked {
        let headers = vec![("Content-Type", "application/octet-stream".to_owned())];
        Asked { method: "POST", target: target.into(), headers, body }
    }

    /// The same, with another header line.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Asked {
        self.headers.push((name, value.into()));
        self
    }

    /// The same, to be done only to what still is as this tag says.
    #[must_use]
    pub fn only_of(self, tag: &str) -> Asked {
        self.with("If-Match", tag)
    }

    fn ask(&self, subject: &Subject) -> Answer {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = match api::send(&subject.socket(), self.method, &self.target, &headers, &self.body) {
            Ok(reply) => reply,
            Err(why) => return Answer::Lost(why.to_string()),
        };
        if reply.status >= 400 {
            return Answer::Refused(reply.status, reply.error());
        }
        if reply.status != 202 {
            return Answer::Done(reply.json()["metadata"].clone());
        }
        let id = reply.json()["operation"].as_str().unwrap_or_default().to_owned();
        let ended = match subject.call("GET", &format!("{id}/wait?timeout={DEADLINE}"), None) {
            Ok(reply) => reply.json()["metadata"].clone(),
            Err(why) => return Answer::Lost(why.to_string()),
        };
        match ended["status"].as_str() {
            Some("Success") => Answer::Done(ended),
            Some("Failure") => Answer::Failed(ended["err"].as_str().unwrap_or_default().to_owned()),
            status => Answer::Lost(format!("{status:?} after {DEADLINE} s")),
        }
    }
}

/// Asks all of them at the same moment.
#[must_use]
pub fn at_once(subject: &Subject, asked: &[Asked]) -> Vec<Answer> {
    let start = Barrier::new(asked.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = asked
            .iter()
            .map(|one| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    one.ask(subject)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    })
}

/// How often races are run in a test: as often as `CABIN_TORTURE` says.
#[must_use]
pub fn rounds() -> usize {
    machine::torture() as usize
}

/// One race.
pub struct Race {
    /// Who runs against whom, for messages.
    pub name: &'static str,
    /// Makes what it is about.
    pub before: fn(&Subject),
    /// What is asked for at the same moment.
    pub asked: fn(&Subject) -> Vec<Asked>,
    /// What is wrong about the outcome, if anything.
    pub judge: fn(&Subject, &[Answer]) -> Result<(), String>,
    /// How often it is run, for each round of the others.
    pub often: usize,
}

/// What races came to.
#[derive(Debug, Default)]
pub struct Score {
    /// How many were run.
    pub rounds: usize,
    /// What was wrong with an answer or the outcome.
    pub wrong: Vec<String>,
    /// What they left behind.
    pub leftovers: Vec<String>,
}

impl Score {
    /// Runs a race `rounds` times, each time from the start.
    pub fn run(&mut self, subject: &Subject, race: &Race, rounds: usize) {
        let began = Instant::now();
        for round in 0..(rounds * race.often).div_ceil(machine::every()) {
            (race.before)(subject);
            let asked = (race.asked)(subject);
            let answers = at_once(subject, &asked);
            self.rounds += 1;
            let mut faults: Vec<String> = answers.iter().filter_map(Answer::fault).collect();
            faults.extend((race.judge)(subject, &answers).err());
            let told = format!("{}, round {round}", race.name);
            if !faults.is_empty() {
                self.wrong.push(format!("{told}: {faults:?}\n    of {answers:?}"));
            }
            self.leftovers.extend(audited(subject).into_iter().map(|it| format!("{told}: {it}")));
            if let Err(why) = clear(subject) {
                self.wrong.push(format!("{told}: cannot be cleared away: {why}"));
                return;
            }
        }
        if std::env::var_os("CABIN_POINTS").is_some() {
            eprintln!("{}: {} ms", race.name, began.elapsed().as_millis());
        }
    }

    /// Prints the numbers, and fails when anything was wrong.
    ///
    /// # Panics
    /// When it was.
    pub fn close(self, what: &str) {
        let (rounds, wrong, left) = (self.rounds, self.wrong.len(), self.leftovers.len());
        let every = machine::told(machine::every());
        eprintln!("races{what}: {rounds} rounds{every}, {wrong} wrong answers, {left} leftovers");
        let told = [self.wrong, self.leftovers].concat();
        assert!(told.is_empty(), "{}", told.join("\n"));
    }
}

/// Takes away whatever the races made: instances, then what they stand on.
fn clear(subject: &Subject) -> Result<(), String> {
    for url in urls(subject, "/1.0/instances") {
        let name = url.rsplit('/').next().unwrap_or_default().to_owned();
        if ["Running", "Frozen"].contains(&subject.status(&name).as_str()) {
            subject.power(&name, "stop")?;
        }
        subject.ask("DELETE", &url, &Value::Null)?;
    }
    for url in urls(subject, "/1.0/storage-pools") {
        let volumes = format!("{url}/volumes/custom");
        for volume in urls(subject, &volumes) {
            let name = volume.rsplit('/').next().unwrap_or_default();
            subject.ask("DELETE", &format!("{volumes}/{name}"), &Value::Null)?;
        }
    }
    for (list, kept) in
        [("/1.0/profiles", "default"), ("/1.0/networks", "cabinbr0"), ("/1.0/storage-pools", "default")]
    {
        for object in subject.get(&format!("{list}?recursion=1")).as_array().into_iter().flatten() {
            let name = object["name"].as_str().unwrap_or_default();
            if name.starts_with("race") && name != kept {
                subject.ask("DELETE", &format!("{list}/{name}"), &Value::Null)?;
            }
        }
    }
    Ok(())
}

/// The addresses a list holds.
#[must_use]
pub fn urls(subject: &Subject, list: &str) -> Vec<String> {
    let found = subject.get(list);
    found.as_array().into_iter().flatten().filter_map(|url| Some(url.as_str()?.to_owned())).collect()
}

/// Whether there is something at an address.
///
/// # Panics
/// When there is no answer.
#[must_use]
pub fn there(subject: &Subject, target: &str) -> bool {
    subject.call("GET", target, None).expect("an answer").status == 200
}

/// How many were done.
#[must_use]
pub fn done(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| answer.is_done()).count()
}

/// As a judge says it: nothing when it is so, these words otherwise.
///
/// # Errors
/// The words.
pub fn so(right: bool, otherwise: &str) -> Result<(), String> {
    if right { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// Exactly one was done.
///
/// # Errors
/// When it was not so.
pub fn one_wins(answers: &[Answer]) -> Result<(), String> {
    let winners = done(answers);
    so(winners == 1, &format!("{winners} winners"))
}

/// The body that makes an instance of the busybox image.
#[must_use]
pub fn of_busybox(name: &str) -> Value {
    json!({ "name": name, "source": { "type": "image", "alias": "busybox" } })
}
