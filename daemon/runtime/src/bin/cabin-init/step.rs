//! Names the step that failed.

use std::io;

use cabin_runtime::wire::Failure;

/// Turns an error of the kernel into a failure that says what was being done.
pub trait Step<T> {
    /// What was being done.
    fn step(self, what: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|e| Failure::new(what, &e.into()))
    }
}

/// A failure without a kernel's number.
pub fn odd(what: &str, why: &str) -> Failure {
    Failure::new(what, &io::Error::other(why.to_owned()))
}
