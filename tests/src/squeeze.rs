//! Doing verbs while a daemon's host has too little of something: each is done, or says what there is too little of and
//! has changed nothing; and it is done once there is enough again.

use crate::behind::LEFT;
use crate::clock_verbs::NOT_COME;
use crate::host_state::{HostState, Look, settled};
use crate::machine;
use crate::subject::Subject;
use crate::sweep::{Tally, audited, halfway};
use crate::swept::LISTS;
use crate::verbs::Verb;

/// What can be done to a daemon's host.
pub struct Squeeze<'a> {
    /// Takes what there is.
    pub tighten: &'a dyn Fn(),
    /// Gives it back.
    pub loosen: &'a dyn Fn(),
    /// Of which an error must say one.
    pub says: &'a [&'a str],
    /// The verbs that must be done all the same.
    pub free: &'a dyn Fn(&str) -> bool,
    /// Whether the daemon can be asked for its state meanwhile.
    pub reads: bool,
}

/// One verb of each kind of work: what is done with processes, mounts, links, filters, files, programs of the host, rows.
const KINDS: &[&str] = &[
    "instance create",
    "instance delete",
    "instance rename",
    "instance start",
    "instance stop",
    "instance restart",
    "instance update, limits of a running one",
    "instance update, another nic in a running one",
    "profile update, used by running ones",
    "profile create",
    "alias rename",
    "server update",
    "image delete",
    "instance create, the first of its image",
    "image import",
    "network create",
    "network update",
    "network delete",
    "pool create",
    "pool delete",
    "pool create, with a disk",
    "pool update, a disk that grows",
    "instance freeze",
    "instance unfreeze",
    "all instances stop",
    "snapshot create, stopped",
    "snapshot create, running",
    "snapshot restore, stopped",
    "snapshot restore, running",
    "snapshot delete",
    "copy with snapshots",
    "copy of a running one to another pool",
    "move to another pool and name",
    "refresh of a copy in another pool",
    "copy to another pool of layers",
    "backup create, running",
    "backup in streams",
    "import",
    "import of streams",
    "publish",
    "rebuild from an image",
    "scheduled snapshot, running",
    "backup that is over",
    "volume rename",
    "volume restore",
    "volume import",
    "volume backup",
    "volume delete",
    "restore with volumes",
    "start with a disk",
    "disk attach, running",
    "disk detach, running",
];

/// Whether a verb is tried: with CABIN_TORTURE all are, else one of each kind of work.
#[must_use]
pub fn is_tried(verb: &Verb) -> bool {
    machine::has_time() || KINDS.contains(&verb.name)
}

/// The lists with verbs that are tried, each up to the last of them. Those of one list stand on each other, and those of
/// two need a daemon each.
///
/// # Panics
/// When a kind of work is named after a verb that there is not.
pub fn lists() -> impl Iterator<Item = &'static [Verb]> {
    for kind in KINDS {
        let is_there = LISTS.iter().copied().flatten().any(|verb| verb.name == *kind);
        assert!(is_there, "there is no verb `{kind}`");
    }
    let cut = |list: &'static [Verb]| Some(&list[..=list.iter().rposition(is_tried)?]);
    LISTS.iter().copied().filter_map(cut)
}

/// Does the verbs of one list that are tried, each in every squeeze.
pub fn squeezed_of(subject: &Subject, squeezes: &[Squeeze<'_>], list: &[Verb], tally: &mut Tally) {
    for verb in list {
        (verb.before)(subject);
        for squeeze in squeezes.iter().filter(|_| is_tried(verb)) {
            if tally.takes() {
                squeezed(subject, squeeze, verb, tally);
            }
        }
    }
}

/// Does each verb, all of them.
pub fn squeezed_all(subject: &Subject, squeeze: &Squeeze<'_>, list: &[Verb], tally: &mut Tally) {
    for verb in list {
        (verb.before)(subject);
        if tally.takes() {
            squeezed(subject, squeeze, verb, tally);
        }
    }
}

/// Whether a verb that was not done says one of these: what the daemon does by itself says so in its log, of which so
/// much was there before.
#[must_use]
pub fn is_told(subject: &Subject, logged: usize, why: &str, says: &[&str]) -> bool {
    let in_log = || subject.log().get(logged..).is_some_and(|log| says.iter().any(|says| log.contains(says)));
    says.iter().any(|says| why.contains(says)) || (why.contains(NOT_COME) && in_log())
}

/// Does a verb while there is nothing left: it is done, or says why not and nothing has changed, or it is done and says
/// what of the old it could not remove. It is done once there is enough again, and what was left is gone when it was taken
/// back.
fn squeezed(subject: &Subject, squeeze: &Squeeze<'_>, verb: &Verb, tally: &mut Tally) {
    let halfway = halfway(subject, verb);
    let before = HostState::of(subject, Look::Exact);
    let logged = subject.log().len();
    (squeeze.tighten)();
    let done = (verb.act)(subject);
    tally.points += 1;
    let mut tell = |what: String| tally.wrong.push(format!("{}: {what}", verb.name));
    if !squeeze.reads {
        (squeeze.loosen)();
    }
    let mut is_done = done.is_ok();
    match &done {
        Ok(_) => {}
        Err(why) if (squeeze.free)(verb.name) => tell(format!("is not done: {why}")),
        Err(why) => {
            eprintln!("{}: {why}", verb.name);
            if !is_told(subject, logged, why, squeeze.says) {
                tell(format!("does not say any of {:?}: {why}", squeeze.says));
            }
            let mut wanted = vec![(&before, Look::Exact)];
            wanted.extend(halfway.iter().map(|halfway| (halfway, Look::Shape)));
            match settled(subject, &wanted) {
                Ok(_) => {}
                Err(_) if why.contains(LEFT) => is_done = true,
                // There is not enough of it either for starting again what was stopped to be restored.
                Err(_) if why.contains("which is restored") => {}
                Err(difference) => tell(format!("is not as before\n{difference}")),
            }
        }
    }
    (squeeze.loosen)();
    if !is_done
        && verb.halfway.is_none()
        && let Err(why) = (verb.act)(subject)
    {
        tell(format!("is not done afterwards: {why}"));
    }
    (verb.back)(subject);
    tally.wrong.extend(audited(subject).into_iter().map(|it| format!("{}: audit: {it}", verb.name)));
}
