//! What the machine is like on which the tests run: how much slower than a usual one, and for which part of the
//! points of a sweep it has time. An emulated one is told both by `.ci/test-v2`.

use std::time::Duration;

/// A whole number that a variable holds, or 1.
fn number(name: &str) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).filter(|number| *number > 0).unwrap_or(1)
}

/// How many times slower than usual everything is here (`CABIN_SLOWER`): as much longer may everything take.
#[must_use]
pub fn slower() -> u32 {
    number("CABIN_SLOWER")
}

/// What usually may take so long, here.
#[must_use]
pub fn time(usual: Duration) -> Duration {
    usual * slower()
}

/// As [`time`], in seconds.
#[must_use]
pub fn seconds(usual: u64) -> u64 {
    usual * u64::from(slower())
}

/// Of sweeps, every so many points are tried (`CABIN_EVERY`).
#[must_use]
pub fn every() -> usize {
    usize::try_from(number("CABIN_EVERY")).unwrap_or(1)
}

/// How many times more than usual the long forms of the tests do (`CABIN_TORTURE`).
#[must_use]
pub fn torture() -> u32 {
    number("CABIN_TORTURE")
}

/// Whether there is time for the long forms of the tests (`CABIN_TORTURE`).
#[must_use]
pub fn has_time() -> bool {
    std::env::var_os("CABIN_TORTURE").is_some()
}

/// How the numbers of a sweep that leaves points out are told.
#[must_use]
pub fn told(every: usize) -> String {
    match every {
        1 => String::new(),
        every => format!(" (1 of {every})"),
    }
}
