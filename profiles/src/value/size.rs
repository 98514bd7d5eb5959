//! Amounts: bytes, bits, memory (bytes or a share of the host's), swap.

use super::{Invalid, number};

const BYTE_UNITS: &[(&str, u128)] = &[
    ("EiB", 1 << 60),
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("EB", 1_000_000_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

const BIT_UNITS: &[(&str, u128)] = &[
    ("Eibit", 1 << 60),
    ("Pibit", 1 << 50),
    ("Tibit", 1 << 40),
    ("Gibit", 1 << 30),
    ("Mibit", 1 << 20),
    ("Kibit", 1 << 10),
    ("Ebit", 1_000_000_000_000_000_000),
    ("Pbit", 1_000_000_000_000_000),
    ("Tbit", 1_000_000_000_000),
    ("Gbit", 1_000_000_000),
    ("Mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
    ("", 1),
];

fn amount(text: &str, units: &[(&str, u128)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u128 = text[..digits].parse().ok()?;
    let unit = text[digits..].strip_prefix(' ').unwrap_or(&text[digits..]);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    u64::try_from(number.checked_mul(*factor)?).ok().filter(|amount| *amount <= i64::MAX.cast_unsigned())
}

/// Reads an amount of bytes: `512MiB`, `1GB`, `1024`.
///
/// # Errors
/// When the number or the unit is not understood, or it is more than 8 EiB.
pub fn bytes(text: &str) -> Result<u64, Invalid> {
    amount(text, BYTE_UNITS).ok_or_else(|| Invalid::new(text, "a size such as `512MiB` or `2GB`"))
}

/// Reads a rate in bits: `100Mbit`.
///
/// # Errors
/// When the number or the unit is not understood.
pub fn bits(text: &str) -> Result<u64, Invalid> {
    amount(text, BIT_UNITS).ok_or_else(|| Invalid::new(text, "a rate such as `100Mbit`"))
}

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// So many bytes.
    Bytes(u64),
    /// So many percent of the host's.
    Percent(u64),
}

impl Memory {
    /// In bytes, on a host with `total` bytes of memory.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        match self {
            Memory::Bytes(bytes) => bytes,
            Memory::Percent(percent) => {
                u64::try_from(u128::from(total) * u128::from(percent) / 100).unwrap_or(total)
            }
        }
    }
}

/// Reads an amount of memory: a size, or a percentage (1 to 100) of the host's.
///
/// # Errors
/// When it is neither, or zero.
pub fn memory(text: &str) -> Result<Memory, Invalid> {
    let wrong = || Invalid::new(text, "an amount of memory such as `512MiB` or `10%`");
    if let Some(percent) = text.strip_suffix('%') {
        return match number::integer(percent, 1, 100) {
            Ok(percent) => Ok(Memory::Percent(percent.unsigned_abs())),
            Err(_) => Err(wrong()),
        };
    }
    match bytes(text) {
        Ok(0) | Err(_) => Err(wrong()),
        Ok(bytes) => Ok(Memory::Bytes(bytes)),
    }
}

/// What an instance may use of the host's swap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SwapRule {
    /// As much as there is. The default, and what `true` says. (Incus turns `true` into none at all on
    /// cgroup2 when memory is limited; here the word means what its documentation says.)
    #[default]
    Unlimited,
    /// None (`false`).
    Forbidden,
    /// So many bytes.
    Bytes(u64),
}

/// Reads a rule for swap: a bool or a size.
///
/// # Errors
/// When it is neither.
pub fn swap(text: &str) -> Result<SwapRule, Invalid> {
    // `0` and `1` are bools first: both readings of `0` are the same, and one byte of swap is no wish.
    match number::boolean(text) {
        Ok(true) => Ok(SwapRule::Unlimited),
        Ok(false) => Ok(SwapRule::Forbidden),
        Err(_) => match bytes(text) {
            Ok(0) => Ok(SwapRule::Forbidden),
            Ok(bytes) => Ok(SwapRule::Bytes(bytes)),
            Err(_) => Err(Invalid::new(text, "`true`, `false` or a size such as `512MiB`")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        let check = |text: &str, expected| assert_eq!(bytes(text).ok(), expected, "{text}");
        check("0", Some(0));
        check("1024", Some(1024));
        check("5B", Some(5));
        check("1kB", Some(1000));
        check("1KiB", Some(1024));
        check("512MB", Some(512_000_000));
        check("1GiB", Some(1 << 30));
        check("2 GiB", Some(2 << 30));
        check("7EiB", Some(7 << 60));
        for text in
            ["", "GiB", "-1GiB", "1.5GiB", "1gib", "1GiBs", "8EiB", "99999999999999999999999", "1  GiB", "1é"]
        {
            check(text, None);
        }
    }

    #[test]
    fn rates_are_read_with_their_units() {
        let check = |text: &str, expected| assert_eq!(bits(text).ok(), expected, "{text}");
        check("100Mbit", Some(100_000_000));
        check("1Kibit", Some(1024));
        check("10", Some(10));
        check("10MB", None);
    }

    #[test]
    fn memory_is_a_size_or_a_share_of_the_host() {
        let check =
            |text: &str, expected| assert_eq!(memory(text).ok().map(|it| it.of(1000)), expected, "{text}");
        check("50%", Some(500));
        check("1%", Some(10));
        check("100%", Some(1000));
        check("64MiB", Some(64 << 20));
        for text in ["0", "0%", "101%", "-5%", "1.5%", "%", "50 %"] {
            check(text, None);
        }
    }

    #[test]
    fn swap_is_a_bool_or_a_size() {
        let check = |text: &str, expected| assert_eq!(swap(text).ok(), expected, "{text}");
        check("true", Some(SwapRule::Unlimited));
        check("false", Some(SwapRule::Forbidden));
        check("0", Some(SwapRule::Forbidden));
        check("64MiB", Some(SwapRule::Bytes(64 << 20)));
        check("10%", None);
        check("some", None);
    }
}
