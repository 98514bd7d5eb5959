//! Waiting for something to become true, with a deadline that says what was waited for.

use std::time::{Duration, Instant};

use crate::machine;

/// Looks until `look` finds something, for at most `seconds` (longer on a machine that is slower).
///
/// # Panics
/// When the deadline passes; the message names `what`.
pub fn until<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let seconds = machine::seconds(seconds);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {seconds} s in vain for: {what}");
        // A pause between two looks, not a wait for a fixed time to pass.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Lets a time pass in which others do what is measured.
pub fn while_others_go_on(time: Duration) {
    let deadline = Instant::now() + time;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Looks until `look` is true, for at most `seconds`.
///
/// # Panics
/// When the deadline passes; the message names `what`.
pub fn until_true(what: &str, seconds: u64, mut look: impl FnMut() -> bool) {
    until(what, seconds, || look().then_some(()));
}
