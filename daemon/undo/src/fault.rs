//! Numbered fault points: which push fails, or kills the process, in a test.
//!
//! Armed through the environment variable `CABIN_FAULT` when the daemon starts, or by [`arm`] while it
//! runs: `fail:N` makes the N-th point since arming fail once, `panic:N` makes it panic once, `leave:N` makes it fail
//! once where that leaves something behind, `kill:N` ends the process there with no unwinding. `undo-kill:N:M` makes the
//! N-th fail and ends the process before the M-th step that is taken back then. `hold:WHAT` has whoever comes to a point
//! whose name begins so wait there until another plan is armed. `skip:WHAT`, read by whoever starts the daemon, is
//! [`skip`]. Unarmed, a point costs one relaxed atomic load.
//!
//! There are points that can fail, and all is taken back ([`pass`]); points behind a commit, where what is to be done
//! yet can fail and is left behind ([`behind`]); and points where nothing can fail and only the process can end
//! ([`reach`]). All are counted together; steps that are taken back ([`undoing`]) are counted apart. Between two looks
//! nothing can fail: at a [`moment`] somebody can only be held.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::Injected;

static MODE: AtomicU8 = AtomicU8::new(OFF);
static TARGET: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);
static PASSED: Mutex<Vec<Point>> = Mutex::new(Vec::new());

/// Before which of the steps that are taken back the process ends; 0 is none. Counted from the failure that the plan made.
static FATAL: AtomicU64 = AtomicU64::new(0);
static UNDONE: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicBool = AtomicBool::new(false);

static SKIPPED: Mutex<Option<String>> = Mutex::new(None);

/// How the points begin at which is waited, and the word that it is over.
static HELD: Mutex<Option<String>> = Mutex::new(None);
static LET_GO: Condvar = Condvar::new();

/// How many points are remembered by name.
const REMEMBERED: usize = 10_000;

/// A fault point that was passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// What had just been done, or was about to be.
    pub what: String,
    /// What can happen there.
    pub kind: Kind,
}

/// What can happen at a point, beside the end of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It can fail, and what was done before is taken back.
    Fails,
    /// What is about to be done can fail, and is left behind.
    Leaves,
    /// Nothing.
    Ends,
}

impl Kind {
    /// One word for it: `fails`, `leaves`, `ends`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Fails => "fails",
            Kind::Leaves => "leaves",
            Kind::Ends => "ends",
        }
    }
}

const OFF: u8 = 0;
const COUNT: u8 = 1;
const FAIL: u8 = 2;
const KILL: u8 = 3;
const PANIC: u8 = 4;
const HOLD: u8 = 5;
const LEAVE: u8 = 6;

/// What to do at which fault point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing is counted and nothing fails.
    Off,
    /// Points are counted, none fails: how a sweep learns how many there are.
    Count,
    /// The N-th point fails, once, if all is taken back then.
    Fail(u64),
    /// The N-th point fails, once, if it lies behind a commit.
    Leave(u64),
    /// The N-th point panics, once, if it could fail.
    Panic(u64),
    /// The process ends at the N-th point, as by `kill -9`.
    Kill(u64),
    /// The N-th point fails as by [`Plan::Fail`], and the process ends before the M-th step that is taken back.
    UndoKill(u64, u64),
    /// Whoever comes to a point whose name begins so waits there until another plan is armed.
    Hold(String),
}

impl Plan {
    /// Reads `off`, `count`, `fail:N`, `leave:N`, `panic:N`, `kill:N`, `undo-kill:N:M` or `hold:WHAT`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Plan> {
        match text.split_once(':') {
            None if text == "off" => Some(Plan::Off),
            None if text == "count" => Some(Plan::Count),
            Some(("fail", n)) => n.parse().ok().map(Plan::Fail),
            Some(("leave", n)) => n.parse().ok().map(Plan::Leave),
            Some(("panic", n)) => n.parse().ok().map(Plan::Panic),
            Some(("kill", n)) => n.parse().ok().map(Plan::Kill),
            Some(("undo-kill", both)) => {
                let (n, m) = both.split_once(':')?;
                Some(Plan::UndoKill(n.parse().ok()?, m.parse().ok()?))
            }
            Some(("hold", what)) if !what.is_empty() => Some(Plan::Hold(what.to_owned())),
            _ => None,
        }
    }
}

/// Starts a plan; counting begins at 1 again.
pub fn arm(plan: Plan) {
    let (mode, target) = match &plan {
        Plan::Off => (OFF, 0),
        Plan::Count => (COUNT, 0),
        Plan::Fail(n) | Plan::UndoKill(n, _) => (FAIL, *n),
        Plan::Leave(n) => (LEAVE, *n),
        Plan::Panic(n) => (PANIC, *n),
        Plan::Kill(n) => (KILL, *n),
        Plan::Hold(_) => (HOLD, 0),
    };
    MODE.store(OFF, Ordering::SeqCst);
    SEEN.store(0, Ordering::SeqCst);
    list().clear();
    TARGET.store(target, Ordering::SeqCst);
    UNDONE.store(0, Ordering::SeqCst);
    FAILED.store(false, Ordering::SeqCst);
    FATAL.store(if let Plan::UndoKill(_, m) = plan { m } else { 0 }, Ordering::SeqCst);
    *HELD.lock().unwrap_or_else(PoisonError::into_inner) = match plan {
        Plan::Hold(beginning) => Some(beginning),
        _ => None,
    };
    LET_GO.notify_all();
    MODE.store(mode, Ordering::SeqCst);
}

/// Makes every undo leave out the steps whose names begin so, and every flush that asks [`leaves_out`]: a
/// sweep or a power cut that finds nothing then is worth nothing. `None` leaves out nothing again.
pub fn skip(beginning: Option<String>) {
    *SKIPPED.lock().unwrap_or_else(PoisonError::into_inner) = beginning;
}

/// Whether this step, or this flush to disk, is left out.
#[must_use]
pub fn leaves_out(what: &str) -> bool {
    let skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    skipped.as_ref().is_some_and(|beginning| what.starts_with(beginning))
}

/// How many points were passed since the plan was armed.
#[must_use]
pub fn seen() -> u64 {
    SEEN.load(Ordering::SeqCst)
}

/// The points passed since the plan was armed, in order.
#[must_use]
pub fn passed() -> Vec<Point> {
    list().clone()
}

fn list() -> MutexGuard<'static, Vec<Point>> {
    PASSED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes one fault point named `what`.
///
/// # Errors
/// When the armed plan says that this one fails.
///
/// # Panics
/// When the armed plan says so.
pub fn pass(what: &str) -> Result<(), Injected> {
    match count(what, Kind::Fails) {
        Some(number) => Err(Injected { number, what: what.to_owned() }),
        None => Ok(()),
    }
}

/// Passes a point in front of work that can fail though what it belongs to cannot be taken back any more: what it was to
/// do is left behind then. The work is not begun when this fails.
///
/// # Errors
/// When the armed plan says so.
pub fn behind(what: &str) -> Result<(), Injected> {
    match count(what, Kind::Leaves) {
        Some(number) => Err(Injected { number, what: what.to_owned() }),
        None => Ok(()),
    }
}

/// Passes a point that lies behind a commit or another act that cannot be taken back, with nothing that can fail: a plan
/// can end the process here, and nothing else.
pub fn reach(what: &str) {
    let _ = count(what, Kind::Ends);
}

/// Passes a step that is about to be taken back: a plan that made something fail can end the process here.
pub fn undoing(what: &str) {
    let mode = MODE.load(Ordering::Relaxed);
    // What is taken back before is not of the failure that is looked at.
    if mode != FAIL || !failed() {
        return;
    }
    crate::trace::step(what);
    let number = UNDONE.fetch_add(1, Ordering::SeqCst) + 1;
    if number == FATAL.load(Ordering::SeqCst) {
        std::process::abort()
    }
}

/// Whether the plan that is armed made a point fail.
#[must_use]
pub fn failed() -> bool {
    FAILED.load(Ordering::SeqCst)
}

/// How many steps were taken back since the plan that is armed made one fail.
#[must_use]
pub fn undone() -> u64 {
    UNDONE.load(Ordering::SeqCst)
}

/// Passes a moment between two looks, in which others may change what was seen: a plan can have whoever is here wait for
/// them, and for no other plan is there such a point.
pub fn moment(what: &str) {
    if MODE.load(Ordering::Relaxed) == HOLD {
        let _ = count(what, Kind::Ends);
    }
}

/// Waits as long as the plan says so.
fn stand(what: &str) {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    while held.as_ref().is_some_and(|beginning| what.starts_with(beginning)) {
        held = LET_GO.wait(held).unwrap_or_else(PoisonError::into_inner);
    }
}

/// The point's number when it must fail.
fn count(what: &str, kind: Kind) -> Option<u64> {
    crate::trace::step(what);
    let mode = MODE.load(Ordering::Relaxed);
    if mode == OFF {
        return None;
    }
    let number = {
        // Under the lock, so that the list's order is the numbers'.
        let mut list = list();
        if list.len() < REMEMBERED {
            list.push(Point { what: what.to_owned(), kind });
        }
        SEEN.fetch_add(1, Ordering::SeqCst) + 1
    };
    if mode == HOLD {
        stand(what);
        return None;
    }
    if number != TARGET.load(Ordering::SeqCst) {
        return None;
    }
    if mode == KILL {
        // Abort runs no destructor and unwinds nothing: to the host it is a `kill -9`.
        std::process::abort()
    }
    if mode == PANIC && kind == Kind::Fails {
        panic_on_purpose(&format!("fault point {number} (`{what}`)"));
    }
    let fails = matches!((mode, kind), (FAIL, Kind::Fails) | (LEAVE, Kind::Leaves));
    FAILED.fetch_or(fails, Ordering::SeqCst);
    fails.then_some(number)
}

/// Panics, for a test that looks who catches it.
///
/// # Panics
/// Always.
#[allow(clippy::panic)]
pub fn panic_on_purpose(place: &str) -> ! {
    panic!("{place} was told to panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read_from_text() {
        assert_eq!(Plan::parse("fail:3"), Some(Plan::Fail(3)));
        assert_eq!(Plan::parse("kill:1"), Some(Plan::Kill(1)));
        assert_eq!(Plan::parse("leave:4"), Some(Plan::Leave(4)));
        assert_eq!(Plan::parse("undo-kill:7:2"), Some(Plan::UndoKill(7, 2)));
        assert_eq!(Plan::parse("undo-kill:7"), None);
        assert_eq!(Plan::parse("panic:2"), Some(Plan::Panic(2)));
        assert_eq!(Plan::parse("hold:a row"), Some(Plan::Hold("a row".to_owned())));
        assert_eq!(Plan::parse("hold:"), None);
        assert_eq!(Plan::parse("count"), Some(Plan::Count));
        assert_eq!(Plan::parse("fail:x"), None);
        assert_eq!(Plan::parse(""), None);
    }
}
