//! What the values of keys and properties may look like: one parser for each sort, all pure.

pub mod address;
pub mod cpu;
pub mod name;
pub mod number;
pub mod schedule;
pub mod size;
pub mod snapshot;

/// A value that is not what it should be. The text says what was found and what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {wanted}")]
pub struct Invalid {
    /// What was given, shortened when long.
    pub value: String,
    /// What is wanted, with its article: `a size such as 512MiB`.
    pub wanted: String,
}

impl Invalid {
    /// `value` should have been `wanted`.
    #[must_use]
    pub fn new(value: &str, wanted: impl Into<String>) -> Invalid {
        let mut shown: String = value.chars().take(80).collect::<String>().escape_debug().to_string();
        if value.chars().nth(80).is_some() {
            shown.push('…');
        }
        Invalid { value: shown, wanted: wanted.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_shortened_and_its_control_characters_are_shown() {
        let error = Invalid::new(&"x\n".repeat(100), "short");
        assert!(error.value.ends_with('…') && error.value.len() < 200, "{error}");
        assert!(error.value.starts_with("x\\n"));
    }
}
