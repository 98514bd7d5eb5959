//! How long the steps of a change take: the fault points, timed on the thread that passes them when somebody asks.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// More steps than this are not kept: who wants to know where time goes needs no more.
const KEPT: usize = 1000;

/// A step, and how long it took since the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What had just been done.
    pub what: String,
    /// Since the step before, or the beginning.
    pub took: Duration,
}

struct Trace {
    last: Instant,
    steps: Vec<Step>,
}

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// Does `work` and gives the steps it passed on this thread, with what came after the last as `end`. Steps of other
/// threads are part of the step that waits for them.
pub fn record<T>(work: impl FnOnce() -> T) -> (T, Vec<Step>) {
    TRACE.set(Some(Trace { last: Instant::now(), steps: Vec::new() }));
    let _over = Over;
    let done = work();
    step("end");
    (done, TRACE.take().map(|trace| trace.steps).unwrap_or_default())
}

/// The thread goes on with other work, even after a panic in this.
struct Over;

impl Drop for Over {
    fn drop(&mut self) {
        TRACE.set(None);
    }
}

/// Notes a step, if anybody asked.
pub(crate) fn step(what: &str) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace
            && trace.steps.len() < KEPT
        {
            let now = Instant::now();
            trace.steps.push(Step { what: what.to_owned(), took: now - trace.last });
            trace.last = now;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_kept_in_order_while_somebody_asks_and_only_then() {
        step("before");
        let (value, steps) = record(|| {
            step("one");
            step("two");
            7
        });
        step("after");
        let names: Vec<&str> = steps.iter().map(|step| step.what.as_str()).collect();
        assert_eq!((value, names), (7, vec!["one", "two", "end"]));
        assert_eq!(record(|| ()).1.len(), 1);
    }
}
