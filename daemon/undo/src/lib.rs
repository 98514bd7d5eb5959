//! Changes of many steps that either happen or are taken back.
//!
//! Owns the undo stack and its numbered fault points. Knows nothing of what the steps do.
//!
//! Every step that changed the host pushes its inverse. If the work fails, the inverses run newest first;
//! what cannot be taken back is named in the result. The push is also a *fault point*: tests make the
//! n-th push fail (or kill the process there) and compare the host with what it was before.

#![forbid(unsafe_code)]

pub mod fault;
pub mod trace;

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What an inverse answers.
pub type Inverse = Result<(), Box<dyn Error + Send + Sync>>;

/// The steps done so far, newest last. Only [`atomically`] makes one.
#[derive(Default)]
pub struct Undo {
    steps: Vec<Step>,
    left: Vec<LeftBehind>,
}

struct Step {
    what: String,
    inverse: Box<dyn FnOnce() -> Inverse + Send>,
    failed: OnFailure,
}

/// What a failed inverse means for the steps before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnFailure {
    GoOn,
    Stay,
}

/// Why a step was not taken back though nothing was wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("left for the recovery, since `{0}` could not be taken back")]
struct Stays(String);

/// A step was made to fail on purpose by [`fault`].
#[derive(Debug, thiserror::Error)]
#[error("fault point {number} (`{what}`) was told to fail")]
pub struct Injected {
    /// The number of the fault point, counted from 1 since the plan was armed.
    pub number: u64,
    /// What the step had just done.
    pub what: String,
}

impl From<Injected> for std::io::Error {
    fn from(injected: Injected) -> std::io::Error {
        std::io::Error::other(injected)
    }
}

impl Undo {
    /// Records that `what` was just done and how to take it back. It is called right after the change.
    ///
    /// # Errors
    /// Only when a test armed a fault for this point; the inverse is recorded before, so the step is
    /// taken back like any other.
    pub fn push<E>(
        &mut self,
        what: impl Into<String>,
        inverse: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Result<(), Injected>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.record(what.into(), inverse, OnFailure::GoOn)
    }

    /// As [`Undo::push`], of a step whose inverse saves what those of the steps before it would destroy. If it fails,
    /// none of them is taken back: all is as if the process had died here, and is left to whoever recovers from that.
    ///
    /// # Errors
    /// As [`Undo::push`].
    pub fn push_saving<E>(
        &mut self,
        what: impl Into<String>,
        inverse: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Result<(), Injected>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.record(what.into(), inverse, OnFailure::Stay)
    }

    fn record<E>(
        &mut self,
        what: String,
        inverse: impl FnOnce() -> Result<(), E> + Send + 'static,
        failed: OnFailure,
    ) -> Result<(), Injected>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let name = what.clone();
        self.steps.push(Step { what, inverse: Box::new(move || inverse().map_err(Into::into)), failed });
        fault::pass(&name)
    }

    /// Does a part of the work. If it fails or panics, the steps of this part are taken back before this returns: while
    /// the caller still holds what keeps others away.
    ///
    /// # Errors
    /// What `work` failed with; the caller fails with it.
    ///
    /// # Panics
    /// When `work` does.
    pub fn part<T, E>(&mut self, work: impl FnOnce(&mut Undo) -> Result<T, E>) -> Result<T, E> {
        let before = self.steps.len();
        // Whatever the panic left half changed is seen by nobody but the inverses, and those are made for that.
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(cause)) => {
                self.unwind(before);
                Err(cause)
            }
            Err(panic) => {
                self.unwind(before);
                resume_unwind(panic)
            }
        }
    }

    /// Takes back the newest steps until so many are left.
    fn unwind(&mut self, remaining: usize) {
        while self.steps.len() > remaining {
            let Some(step) = self.steps.pop() else { return };
            fault::undoing(&step.what);
            if fault::leaves_out(&step.what) {
                continue;
            }
            let Err(why) = (step.inverse)() else { continue };
            if step.failed == OnFailure::Stay {
                let stay = self.steps.drain(..).rev();
                let stay = stay.map(|it| LeftBehind { what: it.what, why: Stays(step.what.clone()).into() });
                let stay: Vec<_> = stay.collect();
                self.left.push(LeftBehind { what: step.what, why });
                self.left.extend(stay);
                return;
            }
            self.left.push(LeftBehind { what: step.what, why });
        }
    }
}

/// A step that could not be taken back.
#[derive(Debug)]
pub struct LeftBehind {
    /// The step, as it was named when it was done.
    pub what: String,
    /// Why its inverse failed.
    pub why: Box<dyn Error + Send + Sync>,
}

/// Why the work failed, and what is still there because its inverse failed too.
#[derive(Debug)]
pub struct Failed<E> {
    /// The first failure.
    pub cause: E,
    /// What could not be taken back; empty when the host is as it was before.
    pub left_behind: Vec<LeftBehind>,
}

impl<E: fmt::Display> fmt::Display for Failed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        for left in &self.left_behind {
            write!(f, "; could not take back `{}`: {}", left.what, left.why)?;
        }
        Ok(())
    }
}

impl<E: Error + 'static> Error for Failed<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

/// Runs `work`. If it fails, takes back every step it pushed, newest first; also when it panics, before the panic goes
/// on.
///
/// # Errors
/// What `work` failed with, and the steps that could not be taken back.
///
/// # Panics
/// When `work` does.
pub fn atomically<T, E>(work: impl FnOnce(&mut Undo) -> Result<T, E>) -> Result<T, Failed<E>> {
    let mut undo = Undo::default();
    // After a panic there is nobody to tell what is left behind: the next start looks for it.
    undo.part(work).map_err(|cause| Failed { cause, left_behind: undo.left })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_failure_takes_back_every_step_newest_first() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let failed = atomically(|undo| -> Result<(), Box<dyn Error + Send + Sync>> {
            for n in 0..3 {
                let log = log.clone();
                undo.push(format!("step {n}"), move || -> Result<(), Injected> {
                    log.lock().unwrap().push(n);
                    Ok(())
                })?;
            }
            Err("no".into())
        })
        .unwrap_err();
        assert_eq!(failed.cause.to_string(), "no");
        assert!(failed.left_behind.is_empty());
        assert_eq!(*log.lock().unwrap(), [2, 1, 0]);
    }

    #[test]
    fn a_panic_takes_back_every_step_and_goes_on() {
        let undone = Arc::new(Mutex::new(false));
        let seen = undone.clone();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            atomically(|undo| -> Result<(), Injected> {
                undo.push("first", move || -> Result<(), Injected> {
                    *seen.lock().unwrap() = true;
                    Ok(())
                })?;
                fault::panic_on_purpose("here")
            })
        }));
        let said = panicked.unwrap_err().downcast::<String>().unwrap();
        assert!(said.contains("here") && *undone.lock().unwrap());
    }

    #[test]
    fn an_inverse_that_fails_is_named_and_the_others_still_run() {
        let ran = Arc::new(Mutex::new(false));
        let seen = ran.clone();
        let failed = atomically(|undo| -> Result<(), Box<dyn Error + Send + Sync>> {
            undo.push("first", move || -> Result<(), Injected> {
                *seen.lock().unwrap() = true;
                Ok(())
            })?;
            undo.push("second", || Err("stuck"))?;
            Err("no".into())
        })
        .unwrap_err();
        assert_eq!(failed.left_behind.len(), 1);
        assert_eq!(failed.left_behind[0].what, "second");
        assert_eq!(failed.to_string(), "no; could not take back `second`: stuck");
        assert!(*ran.lock().unwrap());
    }

    #[test]
    fn where_an_inverse_that_saves_fails_nothing_before_it_is_taken_back() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let failed = atomically(|undo| -> Result<(), Box<dyn Error + Send + Sync>> {
            let said = |word: &'static str| {
                let log = log.clone();
                move || -> Result<(), Injected> {
                    log.lock().unwrap().push(word);
                    Ok(())
                }
            };
            undo.push("note", said("note forgotten"))?;
            undo.push("stage", said("old tree discarded"))?;
            // In a part too: what is outside of it stays all the same.
            undo.part(|undo| -> Result<(), Box<dyn Error + Send + Sync>> {
                undo.push_saving("exchange", || Err("read-only"))?;
                undo.push("limit", said("limit taken back"))?;
                Err("no".into())
            })
        })
        .unwrap_err();
        assert_eq!(*log.lock().unwrap(), ["limit taken back"]);
        let left: Vec<&str> = failed.left_behind.iter().map(|left| left.what.as_str()).collect();
        assert_eq!(left, ["exchange", "stage", "note"]);
        assert!(failed.to_string().contains("`note`: left for the recovery, since `exchange`"), "{failed}");
    }

    #[test]
    fn a_part_that_fails_is_taken_back_while_its_caller_holds_a_lock() {
        let (lock, held) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(Vec::new())));
        let step = |undo: &mut Undo| {
            let (lock, held) = (lock.clone(), held.clone());
            undo.push("step", move || -> Result<(), Injected> {
                held.lock().unwrap().push(lock.try_lock().is_err());
                Ok(())
            })
        };
        let failed = atomically(|undo| -> Result<(), Injected> {
            step(undo)?;
            let _held = lock.lock();
            undo.part(|undo| {
                step(undo)?;
                Err(Injected { number: 0, what: String::new() })
            })
        });
        assert!(failed.unwrap_err().left_behind.is_empty());
        assert_eq!(*held.lock().unwrap(), [true, false]);
    }

    #[test]
    fn a_step_that_is_left_out_is_not_taken_back() {
        fault::skip(Some("left out".to_owned()));
        let failed = atomically(|undo| -> Result<(), Box<dyn Error + Send + Sync>> {
            undo.push("left out", || Err("was taken back"))?;
            Err("no".into())
        });
        fault::skip(None);
        assert!(failed.unwrap_err().left_behind.is_empty());
    }

    #[test]
    fn success_keeps_every_step() {
        let undone = Arc::new(Mutex::new(false));
        let seen = undone.clone();
        let value = atomically(|undo| -> Result<u8, Injected> {
            undo.push("first", move || -> Result<(), Injected> {
                *seen.lock().unwrap() = true;
                Ok(())
            })?;
            Ok(7)
        })
        .unwrap();
        assert_eq!(value, 7);
        assert!(!*undone.lock().unwrap());
    }
}
