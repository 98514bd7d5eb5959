//! Sizes, times and durations as people read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Bytes as `30.41MiB`.
pub fn size(bytes: i64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut divisor: i64 = 1;
    while unit + 1 < UNITS.len() && bytes / divisor >= 1024 {
        divisor *= 1024;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes}B");
    }
    let hundredths = i128::from(bytes) * 100 / i128::from(divisor);
    format!("{}.{:02}{}", hundredths / 100, hundredths % 100, UNITS[unit])
}

/// As [`size`], of an unsigned count.
pub fn size_u64(bytes: u64) -> String {
    size(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// A time on the wire as `2026/11/21 07:03 UTC` in the local zone; empty when it is not set.
pub fn time(wire: &str) -> String {
    match wire.parse::<Timestamp>() {
        Ok(time) if time.as_second() > 0 => {
            time.to_zoned(TimeZone::system()).strftime("%Y/%m/%d %H:%M %Z").to_string()
        }
        _ => String::new(),
    }
}

/// A share as `12.3%`; empty when there is nothing to share.
pub fn percent(part: i64, whole: i64) -> String {
    if whole <= 0 {
        return String::new();
    }
    let tenths = i128::from(part) * 1000 / i128::from(whole);
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// Whole seconds of nanoseconds.
pub fn seconds(nanoseconds: i64) -> String {
    (nanoseconds / 1_000_000_000).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits() {
        let check = |bytes, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0B");
        check(1023, "1023B");
        check(1024, "1.00KiB");
        check(31_886_000, "30.40MiB");
        check(i64::MAX, "7.99EiB");
    }

    #[test]
    fn times_that_are_not_set_are_empty() {
        assert_eq!(time("0001-01-01T00:00:00Z"), "");
        assert_eq!(time("1970-01-01T00:00:00Z"), "");
        assert!(time("2026-11-21T07:03:00Z").starts_with("2026/11/2"));
    }

    #[test]
    fn shares_have_one_digit() {
        assert_eq!(percent(123, 1000), "12.3%");
        assert_eq!(percent(1, 0), "");
    }
}
