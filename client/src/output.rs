//! The only place that prints: data on standard output, all else on standard error.

use std::io::{self, Write};

pub mod checks;
pub mod columns;
pub mod failure;
pub mod image;
pub mod instance;
pub mod progress;
pub mod table;
pub mod text;
pub mod timings;
pub mod yaml;

pub use table::{Format, Table};

/// Writes data, with a line break after it.
pub fn line(text: impl AsRef<str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())?;
    out.write_all(b"\n")
}

/// Writes data as it is.
pub fn raw(bytes: &[u8]) -> io::Result<()> {
    io::stdout().lock().write_all(bytes)
}

/// Writes data as it is, at once: for what a person or program answers to.
pub fn raw_now(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes what a command inside said on its standard error.
pub fn raw_errors(bytes: &[u8]) -> io::Result<()> {
    io::stderr().lock().write_all(bytes)
}

/// Says something to the person.
pub fn note(text: impl AsRef<str>) {
    // Nobody is left to tell that standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Asks the person, and gives the answer. Whoever has gone away says `no`.
pub fn ask(question: &str) -> io::Result<String> {
    let mut out = io::stderr().lock();
    out.write_all(question.as_bytes())?;
    out.flush()?;
    let mut answer = String::new();
    if io::stdin().read_line(&mut answer)? == 0 {
        return Ok("no".to_owned());
    }
    Ok(answer.trim().to_lowercase())
}

/// Writes what is still buffered.
pub fn flush() -> io::Result<()> {
    io::stdout().flush()
}
