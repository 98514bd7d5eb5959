//! One change at a time per instance.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::Error;

/// How long a change waits for another one of the same instance before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which instances are being changed, and how.
#[derive(Default)]
pub struct Busy {
    held: Mutex<HashMap<String, &'static str>>,
    freed: Condvar,
}

/// The right to change one instance; given back when dropped, also by a panic.
pub struct Turn {
    busy: Arc<Busy>,
    name: String,
}

impl Busy {
    /// Waits for the turn to do something to an instance.
    ///
    /// # Errors
    /// [`Error::Busy`] when another change takes longer than [`PATIENCE`].
    pub fn take(self: &Arc<Busy>, name: &str, doing: &'static str) -> Result<Turn, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut held = self.held.lock();
        while let Some(other) = held.get(name).copied() {
            if self.freed.wait_until(&mut held, deadline).timed_out() {
                return Err(Error::Busy { name: name.to_owned(), doing: other });
            }
        }
        held.insert(name.to_owned(), doing);
        Ok(Turn { busy: self.clone(), name: name.to_owned() })
    }

    /// Waits for the turn to do something to two instances at once. Neither is held while the other is waited for,
    /// so that two who want the same two never wait for each other.
    ///
    /// # Errors
    /// As [`Busy::take`].
    pub fn take_both(
        self: &Arc<Busy>,
        (one, other): (&str, &str),
        doing: &'static str,
    ) -> Result<(Turn, Option<Turn>), Error> {
        if one == other {
            return Ok((self.take(one, doing)?, None));
        }
        let deadline = Instant::now() + PATIENCE;
        let mut held = self.held.lock();
        while let Some((name, what)) =
            [one, other].into_iter().find_map(|name| Some((name, *held.get(name)?)))
        {
            if self.freed.wait_until(&mut held, deadline).timed_out() {
                return Err(Error::Busy { name: name.to_owned(), doing: what });
            }
        }
        for name in [one, other] {
            held.insert(name.to_owned(), doing);
        }
        let turn = |name: &str| Turn { busy: self.clone(), name: name.to_owned() };
        Ok((turn(one), Some(turn(other))))
    }

    /// What is being done to an instance.
    #[must_use]
    pub fn doing(&self, name: &str) -> Option<&'static str> {
        self.held.lock().get(name).copied()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.busy.held.lock().remove(&self.name);
        self.busy.freed.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_change_waits_for_the_first_and_others_do_not() {
        let busy = Arc::new(Busy::default());
        let first = busy.take("a", "start").unwrap();
        let _other = busy.take("b", "start").unwrap();
        let waiting = {
            let busy = busy.clone();
            std::thread::spawn(move || busy.take("a", "stop").map(drop))
        };
        assert_eq!(busy.doing("a"), Some("start"));
        drop(first);
        waiting.join().unwrap().unwrap();
        assert_eq!(busy.doing("a"), None);
    }

    #[test]
    fn two_who_want_the_same_two_do_not_wait_for_each_other() {
        let busy = Arc::new(Busy::default());
        let one_after_another = |first: &'static str, second: &'static str| {
            let busy = busy.clone();
            std::thread::spawn(move || {
                for _ in 0..1000 {
                    drop(busy.take_both((first, second), "copy").unwrap());
                }
            })
        };
        let began = Instant::now();
        for thread in [one_after_another("a", "b"), one_after_another("b", "a")] {
            thread.join().unwrap();
        }
        assert!(began.elapsed() < PATIENCE);
        assert!(busy.take_both(("a", "a"), "copy").is_ok_and(|(_, second)| second.is_none()));
    }
}
