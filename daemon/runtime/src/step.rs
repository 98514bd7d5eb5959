//! Names the step that failed, in the helpers.

use std::io;

use crate::wire::Failure;

/// Turns an error of the kernel into a failure that says what was being done.
pub trait Step<T> {
    /// What was being done.
    ///
    /// # Errors
    /// The failure, with the step's name.
    fn step(self, what: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|e| Failure::new(what, &e.into()))
    }
}

/// A failure without a kernel's number.
#[must_use]
pub fn odd(what: &str, why: &str) -> Failure {
    Failure::new(what, &io::Error::other(why.to_owned()))
}
