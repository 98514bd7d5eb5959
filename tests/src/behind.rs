//! Sweeps over what follows a commit or a failure: what is to be removed yet cannot be, or the daemon dies while it takes
//! back what it did.

use crate::host_state::{HostState, Look, settled, settled_within};
use crate::subject::Subject;
use crate::sweep::{Again, Survey, Tally, audited, fresh, kill_at, redo};
use crate::verbs::Verb;
use crate::wait::until;

/// What an error says that names what was left.
pub const LEFT: &str = "left behind: ";

/// Who hears that something was left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Whoever asked for the verb.
    Client,
    /// Whoever reads the log: the daemon did it by itself, or it is no part of what was asked for.
    Log,
}

/// Makes each step of the verbs behind a commit fail once. The verb must say what was left behind, everything else must be
/// as after it, and the next daemon must remove what is left; or all must be as before, when it says nothing of that kind.
pub fn leave_each(subject: &mut Subject, verbs: &[Verb], told: Told, tally: &mut Tally) {
    for verb in verbs {
        let survey = Survey::of(subject, verb);
        for (number, point) in survey.numbered() {
            if !point.leaves || !tally.takes() {
                continue;
            }
            tally.points += 1;
            let name = format!("{}, step {number} (`{}`)", verb.name, point.what);
            leave_at(subject, verb, (number, &name), &survey, told, tally);
            (verb.back)(subject);
            redo(subject, verb, &name, tally);
        }
    }
}

/// Makes each removal of a tree behind a commit fail, of the verbs for which there is one. What stays in its place must not
/// be in the way of whatever comes there next, before any other daemon has come.
pub fn obstruct_each(subject: &Subject, verbs: &[Verb], tally: &mut Tally) {
    for verb in verbs {
        let survey = Survey::of(subject, verb);
        let trees = survey.numbered().filter(|(_, point)| point.leaves && point.what == "name of a tree");
        for (number, _) in trees.filter(|_| tally.takes()).collect::<Vec<_>>() {
            tally.points += 1;
            let told = format!("{}, step {number}", verb.name);
            subject.arm(&format!("leave:{number}"));
            let _ = (verb.act)(subject);
            subject.arm("off");
            (verb.back)(subject);
            redo(subject, verb, &told, tally);
            if let Err(difference) = settled(subject, &[(&survey.before, Look::Shape)]) {
                tally.wrong.push(format!("{told}: is not as before when it was taken back\n{difference}"));
            }
        }
    }
}

/// Makes one step behind a commit fail, looks what was said and what there is, and what the next daemon makes of it.
fn leave_at(
    subject: &mut Subject,
    verb: &Verb,
    (number, name): (usize, &str),
    survey: &Survey,
    told: Told,
    tally: &mut Tally,
) {
    let after = &survey.after;
    let before = HostState::of(subject, Look::Exact);
    let logged = subject.log().len();
    subject.arm(&format!("leave:{number}"));
    let attempt = (verb.act)(subject);
    let outcome = subject.outcome();
    subject.arm("off");
    if !outcome.failed {
        tally.wrong.push(format!("{name}: nobody came there"));
    }
    if std::env::var_os("CABIN_POINTS").is_some() {
        eprintln!("    {name}: {attempt:?}");
    }
    let wrong = match &attempt {
        Ok(_) if told == Told::Log && subject.log()[logged..].contains(LEFT) => seen_told(subject, after),
        Ok(_) => settled(subject, &[(after, Look::Shape)]).map(drop),
        Err(why) if why.contains(LEFT) => seen_told(subject, after),
        Err(_) => settled(subject, &survey.wanted_back(&before)).map(drop),
    };
    if let Err(difference) = wrong {
        tally.wrong.push(format!("{name}: {attempt:?}, but that is not so\n{difference}"));
    }
    if attempt.as_ref().is_err_and(|why| !why.contains(LEFT)) {
        return;
    }
    subject.crash();
    subject.boot_well();
    if let Err(difference) = settled(subject, &[(after, Look::Shape)]) {
        tally.wrong.push(format!("{name}: the next daemon leaves it\n{difference}"));
    }
    tally.wrong.extend(audited(subject).into_iter().map(|it| format!("{name}: audit: {it}")));
}

/// Waits until the daemon tells what it tells after the verb, whatever lies on the host.
fn seen_told(subject: &Subject, after: &HostState) -> Result<(), String> {
    let wanted = after.told();
    let mut tries = 0;
    until("the daemon to tell the same as after the verb", 30, || {
        tries += 1;
        let now = HostState::of(subject, Look::Shape).told();
        if now == wanted {
            return Some(Ok(()));
        }
        (tries >= 20).then(|| Err(wanted.difference(&now)))
    })
}

/// Makes each step behind a commit fail before a daemon that leaves out a part of what it does when it starts. Whether that
/// is noticed at any of them.
#[must_use]
pub fn left_without(part: &'static str, verb: &Verb) -> bool {
    let (_, survey) = fresh(verb);
    let mut leaving = survey.numbered().filter(|(_, point)| point.leaves).map(|(number, _)| number);
    leaving.any(|number| {
        let (mut subject, survey) = fresh(verb);
        subject.forget_to_undo(part);
        subject.arm(&format!("leave:{number}"));
        let _ = (verb.act)(&subject);
        subject.crash();
        assert!(subject.boot(&format!("skip:{part}")), "{}", subject.log_tail());
        settled_within(1, &subject, &[(&survey.after, Look::Shape)]).is_err()
    })
}

/// Lets the daemon die before it takes back the first step of the verb's last failure, and the next one leave out a part of
/// what it does when it starts. Whether that is noticed.
#[must_use]
pub fn undone_without(part: &'static str, verb: &Verb) -> bool {
    let (mut subject, survey) = fresh(verb);
    let last = survey.points.iter().rposition(|point| point.fails).expect("a step that can fail") + 1;
    subject.forget_to_undo(part);
    let mut tally = Tally::default();
    let plan = format!("undo-kill:{last}:1");
    kill_at(&mut subject, verb, (&plan, verb.name), &survey, Again::Without(part), &mut tally);
    !tally.wrong.is_empty()
}

/// Lets the last step of each verb that can fail do so, and the daemon die before the first and in the middle of what is
/// taken back then; with `all`, each that can fail, and before each that is taken back. All must be as before the verb or
/// as after it when the next daemon is there.
pub fn kill_undoing(subject: &mut Subject, verbs: &[Verb], all: bool, tally: &mut Tally) {
    for verb in verbs {
        let survey = Survey::of(subject, verb);
        let mut failing = survey.numbered().filter(|(_, point)| point.fails);
        let failing: Vec<_> = if all { failing.collect() } else { failing.next_back().into_iter().collect() };
        for (number, point) in failing {
            let steps = undone_by(subject, verb, number);
            let deaths: Vec<u64> = match all {
                true => (1..=steps).collect(),
                false => (1..=steps).filter(|at| [1, steps / 2 + 1].contains(at)).collect(),
            };
            for at in deaths.into_iter().filter(|_| tally.takes()).collect::<Vec<_>>() {
                let told = format!("{}, step {number} (`{}`), death {at} of {steps}", verb.name, point.what);
                let plan = format!("undo-kill:{number}:{at}");
                kill_at(subject, verb, (&plan, &told), &survey, Again::Once, tally);
                (verb.back)(subject);
                redo(subject, verb, &told, tally);
            }
        }
    }
}

/// How many steps are taken back when that point fails.
fn undone_by(subject: &Subject, verb: &Verb, number: usize) -> u64 {
    subject.arm(&format!("fail:{number}"));
    let _ = (verb.act)(subject);
    let outcome = subject.outcome();
    subject.arm("off");
    assert!(outcome.failed, "{}: nobody came to step {number}", verb.name);
    (verb.back)(subject);
    outcome.undone
}
