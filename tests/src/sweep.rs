//! Sweeps: a verb is done again and again, and each time another of its steps fails, or the daemon dies there.

use crate::descriptors::{grown, held};
use crate::host_state::{HostState, Look, settled, settled_within};
use crate::plan::Point;
use crate::subject::Subject;
use crate::verbs::Verb;
use crate::{late, machine};

/// What a sweep has tried and found.
#[derive(Debug, Default)]
pub struct Tally {
    /// Steps that were made to fail, or at which the daemon died.
    pub points: usize,
    /// Those that there were, tried or not.
    pub met: usize,
    /// What was wrong after one of them.
    pub wrong: Vec<String>,
    /// Every so many are tried; all when it says nothing.
    apart: Option<usize>,
}

impl Tally {
    /// One for what is done elsewhere by nearly the same steps: of five it tries one, unless there is time for all.
    #[must_use]
    pub fn brief() -> Tally {
        Tally { apart: (!machine::has_time()).then_some(5), ..Tally::default() }
    }

    fn every(&self) -> usize {
        machine::every() * self.apart.unwrap_or(1)
    }

    /// Whether the next point is one of those that this machine has time for.
    pub fn takes(&mut self) -> bool {
        self.met += 1;
        (self.met - 1).is_multiple_of(self.every())
    }

    /// Prints the numbers, and fails when anything was wrong.
    ///
    /// # Panics
    /// When a step left something behind.
    pub fn close(self, what: &str) {
        let every = machine::told(self.every());
        eprintln!("{what}: {} points{every}, {} leftovers", self.points, self.wrong.len());
        assert!(self.points > 0, "{what}: no points at all");
        assert!(self.wrong.is_empty(), "{what}:\n{}", self.wrong.join("\n"));
    }
}

fn sort(point: &Point) -> &'static str {
    match (point.fails, point.leaves) {
        (true, _) => "F",
        (_, true) => "L",
        _ => "-",
    }
}

/// What a sweep knows of a verb before it lets anything fail.
pub(crate) struct Survey {
    /// Its steps.
    pub points: Vec<Point>,
    /// How all looks before it, but for what is made up anew each time.
    pub before: HostState,
    /// How all looks after it.
    pub after: HostState,
    /// How else it may look.
    pub halfway: Option<HostState>,
}

impl Survey {
    /// Prepares the verb and does it a few times; afterwards all is as before it.
    pub(crate) fn of(subject: &Subject, verb: &Verb) -> Survey {
        (verb.before)(subject);
        // The first time may have more to do, such as unpacking an image.
        (verb.act)(subject).expect("the verb");
        (verb.back)(subject);
        let before = HostState::of(subject, Look::Exact);
        subject.arm("count");
        let done = (verb.act)(subject);
        let points = subject.points();
        subject.arm("off");
        if let Err(why) = done {
            panic!("{}: {why}", verb.name);
        }
        let after = HostState::of(subject, Look::Exact);
        // Else nobody would see whether it was done, or half done.
        assert!(before != after, "{}: all looks as before it", verb.name);
        (verb.back)(subject);
        if std::env::var_os("CABIN_POINTS").is_some() {
            let shown: Vec<String> =
                points.iter().map(|it| format!("    {} {}", sort(it), it.what)).collect();
            eprintln!("{}:\n{}", verb.name, shown.join("\n"));
        }
        let halfway = halfway(subject, verb);
        Survey { points, before: before.masked(), after: after.masked(), halfway }
    }

    /// The steps with their numbers.
    pub(crate) fn numbered(&self) -> impl DoubleEndedIterator<Item = (usize, &Point)> {
        self.points.iter().enumerate().map(|(at, point)| (at + 1, point))
    }

    /// What is right when all is to be as exactly so before.
    pub(crate) fn wanted_back<'a>(&'a self, before: &'a HostState) -> Vec<(&'a HostState, Look)> {
        let halfway = self.halfway.iter().map(|halfway| (halfway, Look::Shape));
        std::iter::once((before, Look::Exact)).chain(halfway).collect()
    }

    /// What is right when it was done, or was not.
    fn wanted_either(&self) -> Vec<(&HostState, Look)> {
        [&self.after, &self.before].into_iter().chain(&self.halfway).map(|it| (it, Look::Shape)).collect()
    }
}

/// The state that is right though neither before nor after the verb, when it has one.
#[must_use]
pub fn halfway(subject: &Subject, verb: &Verb) -> Option<HostState> {
    let halfway = verb.halfway?;
    halfway(subject);
    let state = HostState::of(subject, Look::Shape);
    (verb.back)(subject);
    Some(state)
}

/// Makes every step of the verbs fail once. Each time the verb must say so, everything must be as before, and
/// the verb must do when it is asked again.
pub fn fail_each(subject: &Subject, verbs: &[Verb], tally: &mut Tally) {
    for verb in verbs {
        let survey = Survey::of(subject, verb);
        for (number, point) in survey.numbered() {
            if !point.fails || !tally.takes() {
                continue;
            }
            tally.points += 1;
            let told = format!("{}, step {number} (`{}`)", verb.name, point.what);
            let before = HostState::of(subject, Look::Exact);
            let own = held(subject);
            subject.arm(&format!("fail:{number}"));
            let attempt = (verb.act)(subject);
            subject.arm("off");
            if attempt.is_ok() {
                tally.wrong.push(format!("{told}: failed, but the verb says it was done"));
            }
            if let Err(difference) = settled(subject, &survey.wanted_back(&before)) {
                tally.wrong.push(format!("{told}: is not as before\n{difference}"));
            }
            tally.wrong.extend(audited(subject).into_iter().map(|it| format!("{told}: audit: {it}")));
            if survey.halfway.is_some() {
                (verb.back)(subject);
            }
            tally.wrong.extend(grown(subject, &own).into_iter().map(|it| format!("{told}: {it}")));
            redo(subject, verb, &told, tally);
        }
    }
}

/// Does a verb once more, which nothing may stand in the way of, and takes it back.
pub fn redo(subject: &Subject, verb: &Verb, told: &str, tally: &mut Tally) {
    if let Err(why) = (verb.act)(subject) {
        tally.wrong.push(format!("{told}: the verb does not do afterwards: {why}"));
    }
    (verb.back)(subject);
}

/// Makes the last step of a verb that can fail do so, and looks whether everything is as before: all the steps
/// before it are to be taken back.
pub fn fail_once(subject: &Subject, verb: &Verb, tally: &mut Tally) {
    let survey = Survey::of(subject, verb);
    let Some(number) = survey.points.iter().rposition(|point| point.fails).map(|at| at + 1) else { return };
    tally.points += 1;
    let before = HostState::of(subject, Look::Exact);
    subject.arm(&format!("fail:{number}"));
    let attempt = (verb.act)(subject);
    subject.arm("off");
    if attempt.is_ok() {
        tally.wrong.push(format!("{}: failed, but the verb says it was done", verb.name));
    }
    if let Err(difference) = settled_within(1, subject, &[(&before, Look::Exact)]) {
        tally.wrong.push(format!("{}: is not as before\n{difference}", verb.name));
    }
    tally.wrong.extend(subject.strays());
}

/// What the daemon's own audit finds that does not go away by itself within three seconds.
pub fn audited(subject: &Subject) -> Vec<String> {
    let deadline = std::time::Instant::now() + machine::time(std::time::Duration::from_secs(3));
    loop {
        let found = subject.strays();
        if found.is_empty() || std::time::Instant::now() >= deadline {
            return found;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(30));
    }
}

/// Prints how many of what a test looked at, which sweeps nothing, as [`Tally::close`] does, and fails when anything is
/// left over.
///
/// # Panics
/// When the daemon's own audit finds anything.
#[track_caller]
pub fn clean(subject: &Subject, what: &str, points: usize) {
    let found = audited(subject);
    eprintln!("{what}: {points} points, {} leftovers", found.len());
    assert!(found.is_empty(), "{what}: {found:?}\n{}", subject.log_tail());
}

/// How the daemon comes up again after it died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// At once.
    Once,
    /// It dies at each of its own steps first.
    Dying,
    /// It leaves out what begins so of what it does when it starts.
    Without(&'static str),
    /// At once, while the pool `default` is not there, which comes later.
    BeforeItsPool,
}

/// Lets the daemon die at every step of the verbs, and starts it again. Everything must be as before or as
/// after the verb, and as after it when the verb was acknowledged.
pub fn kill_each(subject: &mut Subject, verbs: &[Verb], again: Again, tally: &mut Tally) {
    for verb in verbs {
        let survey = Survey::of(subject, verb);
        for (number, point) in survey.numbered() {
            if !tally.takes() {
                continue;
            }
            let told = format!("{}, step {number} (`{}`)", verb.name, point.what);
            kill_at(subject, verb, (&format!("kill:{number}"), &told), &survey, again, tally);
            (verb.back)(subject);
            redo(subject, verb, &told, tally);
        }
    }
}

/// Lets the daemon die as the plan says, starts it again and looks what there is.
pub(crate) fn kill_at(
    subject: &mut Subject,
    verb: &Verb,
    (plan, told): (&str, &str),
    survey: &Survey,
    again: Again,
    tally: &mut Tally,
) {
    subject.arm(plan);
    let acknowledged = (verb.act)(subject).is_ok();
    if acknowledged {
        // What is done behind the answer passes points too.
        tally.wrong.push(format!("{told}: the daemon did not die"));
        subject.arm("off");
    } else {
        subject.wait_gone();
        tally.points += start_again(subject, again);
    }
    // Nobody is waited for long who is not expected to come.
    let seen = match again {
        Again::Without(_) => settled_within(1, subject, &survey.wanted_either()),
        Again::Once | Again::Dying | Again::BeforeItsPool => settled(subject, &survey.wanted_either()),
    };
    if let Err(difference) = seen {
        tally.wrong.push(format!("{told}: neither after nor before\n{difference}"));
    }
    tally.wrong.extend(audited(subject).into_iter().map(|it| format!("{told}: audit: {it}")));
}

/// A subject of its own on which the verb can be done at once.
pub(crate) fn fresh(verb: &Verb) -> (Subject, Survey) {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    let survey = Survey::of(&subject, verb);
    (subject, survey)
}

/// At how many steps of a verb a death is noticed when a part of what the next daemon does is left out.
pub fn missed_without(part: &'static str, verb: &Verb) -> usize {
    let (_, survey) = fresh(verb);
    let noticed = |number: &usize| {
        let ((mut subject, survey), mut tally) = (fresh(verb), Tally::default());
        subject.forget_to_undo(part);
        let plan = format!("kill:{number}");
        kill_at(&mut subject, verb, (&plan, verb.name), &survey, Again::Without(part), &mut tally);
        !tally.wrong.is_empty()
    };
    (1..=survey.points.len()).filter(noticed).count()
}

/// Starts the daemon; the number of deaths until it stayed up, the one that made it necessary included.
fn start_again(subject: &mut Subject, again: Again) -> usize {
    let mut deaths = 1;
    if again == Again::Dying {
        // Recovery's own steps are few; each death leaves less to do, so this comes to an end.
        for number in 1..=20 {
            if subject.boot(&format!("kill:{number}")) {
                // It may die yet: instances are started behind the answer that it is ready.
                if subject.disarm() {
                    return deaths;
                }
                subject.wait_gone();
            }
            deaths += 1;
        }
    }
    match again {
        Again::Without(part) => assert!(subject.boot(&format!("skip:{part}")), "{}", subject.log_tail()),
        Again::Once | Again::Dying => subject.boot_well(),
        Again::BeforeItsPool => late::boot(subject),
    }
    deaths
}
