//! Where panics end: what panicked has failed, and what the daemon does beside it goes on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::Error;

/// How long is waited before work that panicked begins anew: whatever makes it panic may last.
const BREATH: Duration = Duration::from_secs(1);

/// Does work in which a panic is a failure like any other.
///
/// # Errors
/// As `work`, and [`Error::Panicked`].
pub(crate) fn fenced<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // Whatever it held is given back by unwinding, and nobody sees what it left half changed.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

/// Does work that goes on as long as the daemon is there, and begins anew after a panic.
pub(crate) fn again_after_panics(what: &str, work: impl Fn()) {
    while let Err(error) = fenced(|| {
        work();
        Ok(())
    }) {
        tracing::error!(what, error = %error.report(), "it begins anew");
        std::thread::sleep(BREATH);
    }
}

/// What a panic said, as an error.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Error::Panicked { message: text.unwrap_or_else(|| "no message".to_owned()) }
}
