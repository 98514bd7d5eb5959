//! What was asked and what was acknowledged: which states a disk may be in at any moment.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a user sees of a daemon: what there is, and what it says of itself.
pub type State = BTreeMap<String, String>;

/// What of a state is a client's whose names end with that letter, before their number; without one, what is nobody's
/// of `others`.
#[must_use]
pub fn part(state: &State, own: &str, others: &[&str]) -> State {
    let is_of = |key: &str, letter: &str| {
        let name = key.split(' ').nth(1).and_then(|name| name.split('/').next()).unwrap_or_default();
        let word = name.trim_end_matches(|it: char| it.is_ascii_digit());
        word.len() < name.len() && word.ends_with(letter)
    };
    let mine = |key: &str| match own {
        "" => !others.iter().any(|letter| is_of(key, letter)),
        letter => is_of(key, letter),
    };
    state.iter().filter(|(key, _)| mine(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What is known at one moment.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The states that are right; more than one while something was asked and not yet answered.
    pub right: Vec<State>,
    /// How many changes were acknowledged.
    pub acknowledged: usize,
    /// What was asked last.
    pub last: String,
}

/// The journal of one worker.
#[derive(Default)]
pub struct Journal {
    known: Mutex<Known>,
}

impl Journal {
    /// One of a daemon that is in this state.
    #[must_use]
    pub fn from(state: State) -> Journal {
        let known = Known { right: vec![state], acknowledged: 0, last: "nothing".to_owned() };
        Journal { known: Mutex::new(known) }
    }

    /// Holds the journal: nothing is asked or noted meanwhile.
    pub fn hold(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last state that was acknowledged.
    #[must_use]
    pub fn now(&self) -> State {
        self.hold().right.first().cloned().unwrap_or_default()
    }

    /// Something is asked that may lead through these states.
    pub fn ask(&self, what: &str, through: &[State]) {
        let mut known = self.hold();
        known.last = what.to_owned();
        known.right.extend(through.iter().cloned());
    }

    /// It was acknowledged: that state, and no other, is right.
    pub fn acknowledge(&self, state: State) {
        let mut known = self.hold();
        known.right = vec![state];
        known.acknowledged += 1;
    }
}

impl Known {
    /// What is wrong with a state that was found, if anything.
    #[must_use]
    pub fn wrong(&self, found: &State) -> Option<String> {
        if self.right.contains(found) {
            return None;
        }
        let nearest = self.right.iter().map(|right| differences(right, found)).min_by_key(Vec::len);
        Some(nearest.unwrap_or_default().join("\n"))
    }
}

fn differences(right: &State, found: &State) -> Vec<String> {
    let mut keys: Vec<&String> = right.keys().chain(found.keys()).collect();
    keys.sort();
    keys.dedup();
    let differ = keys.into_iter().filter(|key| right.get(*key) != found.get(*key));
    let shown = |value: Option<&String>| value.map_or("nothing".to_owned(), |value| format!("`{value}`"));
    differ
        .map(|key| format!("    {key}: {} is right, found {}", shown(right.get(key)), shown(found.get(key))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whose_is_told_by_the_name() {
        let keys =
            ["volume vx1", "part vx1/sx2", "volume v2", "profile proy12", "alias busybox", "profile pro3"];
        let state: State = keys.map(|key| (key.to_owned(), String::new())).into();
        let of = |own| part(&state, own, &["x", "y"]).into_keys().collect::<Vec<_>>();
        assert_eq!(of("x"), ["part vx1/sx2", "volume vx1"]);
        assert_eq!(of("y"), ["profile proy12"]);
        assert_eq!(of(""), ["alias busybox", "profile pro3", "volume v2"]);
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_what_was_asked_may_be() {
        let state = |text: &str| State::from([("a".to_owned(), text.to_owned())]);
        let journal = Journal::from(state("1"));
        journal.ask("more", &[state("2")]);
        let asked = journal.hold().clone();
        assert!(asked.wrong(&state("1")).is_none() && asked.wrong(&state("2")).is_none());
        assert!(asked.wrong(&state("3")).is_some());
        journal.acknowledge(state("2"));
        let done = journal.hold().clone();
        assert!(done.wrong(&state("1")).is_some_and(|why| why.contains("`2` is right, found `1`")));
    }
}
