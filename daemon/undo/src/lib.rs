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
pub struct Undo {
    steps: Vec<Step>,
}

struct Step {
    what: String,
    inverse: Box<dyn FnOnce() -> Inverse + Send>,
}

/// A step was made to fail on purpose by [`fault`].
#[derive(Debug, thiserror::Error)]
#[error("fault point {number} (`{what}`) was told to fail")]
pub struct Injected {
    /// The number of the fault point, counted from 1 since the plan was armed.
    pub number: u64,
    /// What the step had just done.
    pub what: String,
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
        let what = what.into();
        let name = what.clone();
        self.steps.push(Step { what, inverse: Box::new(move || inverse().map_err(Into::into)) });
        fault::pass(&name)
    }

    fn unwind(self) -> Vec<LeftBehind> {
        let mut left = Vec::new();
        for step in self.steps.into_iter().rev().filter(|step| !fault::leaves_out(&step.what)) {
            if let Err(why) = (step.inverse)() {
                left.push(LeftBehind { what: step.what, why });
            }
        }
        left
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
    let mut undo = Undo { steps: Vec::new() };
    // Whatever the panic left half changed is seen by nobody but the inverses, and those are made for that.
    match catch_unwind(AssertUnwindSafe(|| work(&mut undo))) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(cause)) => Err(Failed { cause, left_behind: undo.unwind() }),
        Err(panic) => {
            // There is nobody to tell what is left behind: the next start looks for it.
            drop(undo.unwind());
            resume_unwind(panic)
        }
    }
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
