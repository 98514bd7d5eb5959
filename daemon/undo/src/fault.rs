//! Numbered fault points: which push fails, or kills the process, in a test.
//!
//! Armed through the environment variable `CABIN_FAULT` when the daemon starts, or by [`arm`] while it
//! runs: `fail:N` makes the N-th point since arming fail once, `kill:N` ends the process there with
//! no unwinding. Unarmed, a point costs one relaxed atomic load.

use std::sync::atomic::{AtomicU64, AtomicU8, Ordering};

use crate::Injected;

static MODE: AtomicU8 = AtomicU8::new(OFF);
static TARGET: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

const OFF: u8 = 0;
const COUNT: u8 = 1;
const FAIL: u8 = 2;
const KILL: u8 = 3;

/// What to do at which fault point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Nothing is counted and nothing fails.
    Off,
    /// Points are counted, none fails: how a sweep learns how many there are.
    Count,
    /// The N-th point fails, once.
    Fail(u64),
    /// The process ends at the N-th point, as by `kill -9`.
    Kill(u64),
}

impl Plan {
    /// Reads `off`, `count`, `fail:N` or `kill:N`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Plan> {
        match text.split_once(':') {
            None if text == "off" => Some(Plan::Off),
            None if text == "count" => Some(Plan::Count),
            Some(("fail", n)) => n.parse().ok().map(Plan::Fail),
            Some(("kill", n)) => n.parse().ok().map(Plan::Kill),
            _ => None,
        }
    }
}

/// Starts a plan; counting begins at 1 again.
pub fn arm(plan: Plan) {
    let (mode, target) = match plan {
        Plan::Off => (OFF, 0),
        Plan::Count => (COUNT, 0),
        Plan::Fail(n) => (FAIL, n),
        Plan::Kill(n) => (KILL, n),
    };
    MODE.store(OFF, Ordering::SeqCst);
    SEEN.store(0, Ordering::SeqCst);
    TARGET.store(target, Ordering::SeqCst);
    MODE.store(mode, Ordering::SeqCst);
}

/// How many points were passed since the plan was armed.
#[must_use]
pub fn seen() -> u64 {
    SEEN.load(Ordering::SeqCst)
}

/// Passes one fault point named `what`.
///
/// # Errors
/// When the armed plan says that this one fails.
pub fn pass(what: &str) -> Result<(), Injected> {
    let mode = MODE.load(Ordering::Relaxed);
    if mode == OFF {
        return Ok(());
    }
    let number = SEEN.fetch_add(1, Ordering::SeqCst) + 1;
    if number != TARGET.load(Ordering::SeqCst) {
        return Ok(());
    }
    match mode {
        FAIL => Err(Injected { number, what: what.to_owned() }),
        KILL => {
            // Abort runs no destructor and unwinds nothing: to the host it is a `kill -9`.
            std::process::abort()
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read_from_text() {
        assert_eq!(Plan::parse("fail:3"), Some(Plan::Fail(3)));
        assert_eq!(Plan::parse("kill:1"), Some(Plan::Kill(1)));
        assert_eq!(Plan::parse("count"), Some(Plan::Count));
        assert_eq!(Plan::parse("fail:x"), None);
        assert_eq!(Plan::parse(""), None);
    }
}
