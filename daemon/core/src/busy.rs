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
    table: Mutex<Table>,
    freed: Condvar,
}

#[derive(Default)]
struct Table {
    held: HashMap<String, Held>,
    /// Those that somebody waits for to have them alone, and for what: nobody else begins to share them.
    wanted: Vec<(String, &'static str)>,
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
        self.table.lock().wanted.push((name.to_owned(), doing));
        let (waited, mut table) = match self.wait(|table| table.held(name)) {
            Ok(table) => (Ok(()), table),
            Err(busy) => (Err(busy), self.table.lock()),
        };
        if let Some(at) = table.wanted.iter().position(|(wanted, _)| wanted == name) {
            table.wanted.swap_remove(at);
        }
        waited.inspect_err(|_| {
            self.freed.notify_all();
        })?;
        table.held.insert(name.to_owned(), Held { doing, sharers: 0 });
        Ok(self.turn(name))
    }

    /// The turn to do something to an instance, if nobody has it: for who holds another one already.
    pub fn take_free(self: &Arc<Busy>, name: &str, doing: &'static str) -> Option<Turn> {
        let mut table = self.table.lock();
        if table.held.contains_key(name) {
            return None;
        }
        table.held.insert(name.to_owned(), Held { doing, sharers: 0 });
        Some(self.turn(name))
    }

    /// Waits for the turn to do something to several instances at once. None is held while another is waited for, so
    /// that of those who want the same ones nobody waits for the other, and whoever wants one of them waits for no
    /// more than it.
    ///
    /// # Errors
    /// As [`Busy::take`].
    pub fn take_all(self: &Arc<Busy>, names: &[&str], doing: &'static str) -> Result<Vec<Turn>, Error> {
        let mut table = self.wait(|table| names.iter().find_map(|name| table.held(name)))?;
        let mut turns = Vec::new();
        for name in names {
            if table.held.insert((*name).to_owned(), Held { doing, sharers: 0 }).is_none() {
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
        let mut table = self.wait(|table| {
            let wanted = table.wanted.iter().find(|(wanted, _)| wanted == name);
            let held = table.held.get(name).filter(|one| one.sharers == 0);
            held.map(|one| one.doing).or(wanted.map(|(_, doing)| *doing)).map(|doing| (name, doing))
        })?;
        table.held.entry(name.to_owned()).or_insert(Held { doing, sharers: 0 }).sharers += 1;
        Ok(self.turn(name))
    }

    /// Waits until nothing is in the way.
    fn wait<'a>(
        &self,
        in_the_way: impl Fn(&Table) -> Option<(&'a str, &'static str)>,
    ) -> Result<MutexGuard<'_, Table>, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut table = self.table.lock();
        while let Some((name, doing)) = in_the_way(&table) {
            if self.freed.wait_until(&mut table, deadline).timed_out() {
                return Err(Error::Busy { name: name.to_owned(), doing });
            }
        }
        Ok(table)
    }

    fn turn(self: &Arc<Busy>, name: &str) -> Turn {
        Turn { busy: self.clone(), name: name.to_owned() }
    }

    /// What is being done to an instance.
    #[must_use]
    pub fn doing(&self, name: &str) -> Option<&'static str> {
        self.table.lock().held.get(name).map(|one| one.doing)
    }
}

impl Table {
    /// Its name, and what is going on with it.
    fn held<'a>(&self, name: &'a str) -> Option<(&'a str, &'static str)> {
        self.held.get(name).map(|one| (name, one.doing))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut table = self.busy.table.lock();
        match table.held.get_mut(&self.name) {
            Some(one) if one.sharers > 1 => one.sharers -= 1,
            _ => drop(table.held.remove(&self.name)),
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
        while busy.table.lock().wanted.is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(busy.doing("a"), Some("read"));
        let late = {
            let busy = busy.clone();
            std::thread::spawn(move || busy.share("a", "read").map(drop))
        };
        for _ in 0..1000 {
            assert!(!late.is_finished(), "who comes later passes one that waits");
            std::thread::yield_now();
        }
        drop(other);
        for thread in [waiting, late] {
            thread.join().unwrap().unwrap();
        }
    }
}
