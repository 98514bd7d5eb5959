//! The time: as it is written on the wire, and whether it can be trusted enough to delete something by it.
//!
//! Dates are the host's clock, as people expect. It may be set while the daemon runs, and set back when that was a
//! mistake; so after it was set nothing is deleted by date for a while. Timeouts never look at it.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// By how many seconds the clock may be corrected without having been set.
const CORRECTION: i64 = 60;

/// How many seconds nothing is deleted by date after the clock was set.
const DISTRUST: i64 = 600;

/// Seconds that a test has put the clock ahead.
static AHEAD: AtomicI64 = AtomicI64::new(0);

static TRUST: Mutex<Trust> = Mutex::new(Trust { last: None, from: 0, set_by: None });

/// What is known of the clock.
struct Trust {
    /// Seconds since the host's boot, and the clock, when it was looked last.
    last: Option<(i64, i64)>,
    /// From when on, in seconds since the boot, it is trusted.
    from: i64,
    /// By how many seconds it was set, until that is told.
    set_by: Option<i64>,
}

impl Trust {
    /// Looks at the clock; whether it can be trusted.
    fn look(&mut self, boot: i64, clock: i64) -> bool {
        if let Some((then_boot, then_clock)) = self.last {
            let set_by = (clock - then_clock) - (boot - then_boot);
            if set_by.abs() > CORRECTION {
                self.from = boot + DISTRUST;
                self.set_by = Some(self.set_by.unwrap_or(0) + set_by);
            }
        }
        self.last = Some((boot, clock));
        boot >= self.from
    }
}

fn timestamp() -> Timestamp {
    let ahead = SignedDuration::from_secs(AHEAD.load(Ordering::Relaxed));
    Timestamp::now().saturating_add(ahead).unwrap_or_else(|_| Timestamp::now())
}

/// Now, in RFC 3339 with nanoseconds.
#[must_use]
pub fn now() -> String {
    timestamp().to_string()
}

/// Now, as people here read it off a clock.
#[must_use]
pub fn here() -> Zoned {
    timestamp().to_zoned(TimeZone::system())
}

/// The time by which may be judged what is to be deleted now; none while the clock is not to be trusted.
#[must_use]
pub fn now_to_delete() -> Option<Timestamp> {
    let now = timestamp();
    // Suspended time counts: the clock goes on meanwhile too.
    let boot = clock_gettime(ClockId::Boottime).tv_sec;
    TRUST.lock().look(boot, now.as_second()).then_some(now)
}

/// A stretch of time that is gone through for what is to be done in it by the clock.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    /// When it was looked before: what fell due later is taken now.
    pub since: Zoned,
    /// Now.
    pub until: Zoned,
    /// What goes by then is deleted; nothing while the clock is not to be trusted.
    pub to_delete: Option<Timestamp>,
}

impl Stretch {
    /// From then to now.
    pub fn from(since: Zoned) -> Stretch {
        Stretch { since, until: here(), to_delete: now_to_delete() }
    }

    /// Whether something that was made at that time (RFC 3339) was made in it. What was made before the clock was set back is
    /// from a time yet to come.
    pub fn holds(&self, made_at: &str) -> bool {
        let is_within = |at: Timestamp| at > self.since.timestamp() && at <= self.until.timestamp();
        made_at.parse().is_ok_and(is_within)
    }

    /// Whether what goes at that time (RFC 3339; empty: never) is to be deleted.
    pub fn is_over(&self, goes_at: &str) -> bool {
        self.to_delete.is_some_and(|now| goes_at.parse::<Timestamp>().is_ok_and(|at| at <= now))
    }
}

/// By how many seconds the clock was set since the last call, if it was.
#[must_use]
pub fn was_set_by() -> Option<i64> {
    TRUST.lock().set_by.take()
}

/// Puts the clock ahead by that many seconds, or back: for tests, the host has but one clock.
pub(crate) fn put_ahead(seconds: i64) {
    AHEAD.store(seconds, Ordering::Relaxed);
}

/// A unix time, in RFC 3339.
#[must_use]
pub fn from_unix(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| cabin_api::ZERO_TIME.to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_not_trusted_for_a_while() {
        let mut trust = Trust { last: None, from: 0, set_by: None };
        assert!(trust.look(100, 1_000_000));
        assert!(trust.look(160, 1_000_090), "a correction");
        assert!(trust.look(100_000, 1_099_930), "a long suspend");
        for jump in [86_400, -86_400] {
            let (boot, clock) = trust.last.unwrap();
            assert!(!trust.look(boot + 60, clock + 60 + jump));
            assert_eq!(trust.set_by.take(), Some(jump));
            assert!(!trust.look(boot + 659, clock + 659 + jump));
            assert!(trust.look(boot + 660, clock + 660 + jump));
            assert_eq!(trust.set_by, None);
        }
    }
}
