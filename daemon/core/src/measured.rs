//! What root disks and volumes hold: found by a walk through all their files, so it is not walked more often than it is worth.
//!
//! A walk that took a while is good for a hundred times as long: at most a hundredth of the time goes into walks,
//! however many clients look at lists, and of a small disk the figure is still of this moment.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Error;

/// How many times as long as a walk took its result is good for.
const WORTH: u32 = 100;

/// More results than this are not kept for long.
const MANY: usize = 4096;

/// How long at most.
const LONG: Duration = Duration::from_secs(600);

struct Walk {
    began: Instant,
    took: Duration,
    bytes: u64,
}

impl Walk {
    fn is_good(&self) -> bool {
        self.began.elapsed() < self.took.saturating_mul(WORTH).min(LONG)
    }
}

/// The results of the last walks.
#[derive(Default)]
pub(crate) struct Measured {
    walks: Mutex<HashMap<String, Walk>>,
}

impl Measured {
    /// What `walk` finds, or found when it went through the same `place` a little ago.
    ///
    /// # Errors
    /// As `walk`.
    pub fn bytes(&self, place: &str, walk: impl FnOnce() -> Result<u64, Error>) -> Result<u64, Error> {
        if let Some(known) = self.walks.lock().get(place).filter(|known| known.is_good()) {
            return Ok(known.bytes);
        }
        let began = Instant::now();
        let bytes = walk()?;
        let found = Walk { began, took: began.elapsed(), bytes };
        let mut walks = self.walks.lock();
        if walks.len() >= MANY {
            walks.retain(|_, walk| walk.is_good());
        }
        walks.insert(place.to_owned(), found);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_walk_is_not_done_again_at_once_and_a_short_one_is() {
        let measured = Measured::default();
        let slow = |bytes| {
            measured.bytes("a", move || {
                std::thread::park_timeout(Duration::from_millis(50));
                Ok(bytes)
            })
        };
        assert_eq!(slow(1).ok(), Some(1));
        assert_eq!(slow(2).ok(), Some(1), "good for five seconds");
        assert_eq!(measured.bytes("b", || Ok(3)).ok(), Some(3), "of another place nothing is known");
        measured
            .walks
            .lock()
            .insert("c".into(), Walk { began: Instant::now(), took: Duration::ZERO, bytes: 1 });
        assert_eq!(measured.bytes("c", || Ok(4)).ok(), Some(4));
        assert!(measured.bytes("d", || Err(Error::invalid("no"))).is_err());
    }
}
