//! One change at a time per instance.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::Error;

/// How long a change waits for another one of the same instance before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which instances are being changed, and how.
#[derive(Default)]
pub struct Busy {
    held: Mutex<HashMap<String, Held>>,
    freed: Condvar,
}

/// What is going on with one.
struct Held {
    doing: &'static str,
    /// How many do it at once; 0 is one that does it alone.
    sharers: usize,
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
        let mut held = self.wait(|held| held.get_key_value(name))?;
        held.insert(name.to_owned(), Held { doing, sharers: 0 });
        Ok(self.turn(name))
    }

    /// Waits for the turn to do something to several instances at once. None is held while another is waited for, so
    /// that of those who want the same ones nobody waits for the other, and whoever wants one of them waits for no
    /// more than it.
    ///
    /// # Errors
    /// As [`Busy::take`].
    pub fn take_all(self: &Arc<Busy>, names: &[&str], doing: &'static str) -> Result<Vec<Turn>, Error> {
        let mut held = self.wait(|held| names.iter().find_map(|name| held.get_key_value(*name)))?;
        let mut turns = Vec::new();
        for name in names {
            if held.insert((*name).to_owned(), Held { doing, sharers: 0 }).is_none() {
                turns.push(self.turn(name));
            }
        }
        Ok(turns)
    }

    /// Waits for the right to do something that others who do the same may do at once, and nobody else.
    ///
    /// # Errors
    /// As [`Busy::take`].
    pub fn share(self: &Arc<Busy>, name: &str, doing: &'static str) -> Result<Turn, Error> {
        let mut held = self.wait(|held| held.get_key_value(name).filter(|(_, one)| one.sharers == 0))?;
        held.entry(name.to_owned()).or_insert(Held { doing, sharers: 0 }).sharers += 1;
        Ok(self.turn(name))
    }

    /// Waits until nothing is in the way.
    fn wait(
        &self,
        in_the_way: impl Fn(&HashMap<String, Held>) -> Option<(&String, &Held)>,
    ) -> Result<MutexGuard<'_, HashMap<String, Held>>, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut held = self.held.lock();
        while let Some((name, one)) = in_the_way(&held) {
            let busy = Error::Busy { name: name.clone(), doing: one.doing };
            if self.freed.wait_until(&mut held, deadline).timed_out() {
                return Err(busy);
            }
        }
        Ok(held)
    }

    fn turn(self: &Arc<Busy>, name: &str) -> Turn {
        Turn { busy: self.clone(), name: name.to_owned() }
    }

    /// What is being done to an instance.
    #[must_use]
    pub fn doing(&self, name: &str) -> Option<&'static str> {
        self.held.lock().get(name).map(|one| one.doing)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut held = self.busy.held.lock();
        match held.get_mut(&self.name) {
            Some(one) if one.sharers > 1 => one.sharers -= 1,
            _ => drop(held.remove(&self.name)),
        }
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
                    drop(busy.take_all(&[first, second], "copy").unwrap());
                }
            })
        };
        let began = Instant::now();
        for thread in [one_after_another("a", "b"), one_after_another("b", "a")] {
            thread.join().unwrap();
        }
        assert!(began.elapsed() < PATIENCE);
        assert!(busy.take_all(&["a", "a"], "copy").is_ok_and(|turns| turns.len() == 1));
    }

    #[test]
    fn who_waits_for_several_holds_none() {
        let busy = Arc::new(Busy::default());
        let first = busy.take("b", "start").unwrap();
        let waiting = {
            let busy = busy.clone();
            std::thread::spawn(move || busy.take_all(&["a", "b"], "update").map(|turns| turns.len()))
        };
        // Whenever it begins to wait.
        for _ in 0..1000 {
            drop(busy.take("a", "start").unwrap());
            std::thread::yield_now();
        }
        drop(first);
        assert_eq!(waiting.join().unwrap().unwrap(), 2);
    }

    #[test]
    fn what_is_shared_is_waited_for_until_the_last_has_ended() {
        let busy = Arc::new(Busy::default());
        let (one, other) = (busy.share("a", "read").unwrap(), busy.share("a", "read").unwrap());
        let waiting = {
            let busy = busy.clone();
            std::thread::spawn(move || busy.take("a", "move").map(drop))
        };
        drop(one);
        assert_eq!(busy.doing("a"), Some("read"));
        drop(other);
        waiting.join().unwrap().unwrap();
    }
}
