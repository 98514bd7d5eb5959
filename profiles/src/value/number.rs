//! Bools, whole numbers and durations.

use super::Invalid;

/// Reads a bool as Incus writes them: `true 1 yes on` and `false 0 no off`, in any case. Empty is false.
///
/// # Errors
/// When it is none of them.
pub fn boolean(text: &str) -> Result<bool, Invalid> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "" | "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Invalid::new(text, "a bool (`true` or `false`)")),
    }
}

/// Reads a whole number between `least` and `most`.
///
/// # Errors
/// When it is not a decimal number, or out of that range.
pub fn integer(text: &str, least: i64, most: i64) -> Result<i64, Invalid> {
    let wanted = || match (least, most) {
        (i64::MIN, i64::MAX) => "a whole number".to_owned(),
        (_, i64::MAX) => format!("a whole number of at least {least}"),
        _ => format!("a whole number from {least} to {most}"),
    };
    match text.parse::<i64>() {
        Ok(number) if (least..=most).contains(&number) && !text.starts_with('+') => Ok(number),
        _ => Err(Invalid::new(text, wanted())),
    }
}

/// Reads how long a lease lasts: a number with `s`, `m`, `h`, `d` or `w` (seconds without), or `infinite`.
/// Gives seconds, `None` for infinite.
///
/// # Errors
/// When it is neither, or under two minutes (dnsmasq(8) takes no less).
pub fn lease_time(text: &str) -> Result<Option<u64>, Invalid> {
    if text == "infinite" {
        return Ok(None);
    }
    let wrong = || Invalid::new(text, "a lease time such as `1h` (at least `2m`), or `infinite`");
    let (digits, unit) = match text.char_indices().last() {
        Some((at, letter)) if letter.is_ascii_alphabetic() => (&text[..at], letter),
        Some(_) => (text, 's'),
        None => return Err(wrong()),
    };
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let seconds =
        digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)?;
    if (120..=u64::from(u32::MAX)).contains(&seconds) { Ok(Some(seconds)) } else { Err(wrong()) }
}

/// Reads a resource limit: `NUMBER`, `SOFT:HARD` or `unlimited`, where each part may be `unlimited`
/// (given back as `None`).
///
/// # Errors
/// When a part is not a number, or the soft limit is above the hard one.
pub fn rlimit(text: &str) -> Result<(Option<u64>, Option<u64>), Invalid> {
    let wrong = || Invalid::new(text, "a limit: a number, `SOFT:HARD` or `unlimited`");
    let part = |text: &str| match text {
        "unlimited" => Ok(None),
        _ if text.starts_with('+') => Err(wrong()),
        _ => text.parse::<u64>().map(Some).map_err(|_| wrong()),
    };
    let (soft, hard) = match text.split_once(':') {
        Some((soft, hard)) => (part(soft)?, part(hard)?),
        None => (part(text)?, part(text)?),
    };
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err(Invalid::new(text, "a limit whose soft part is at most its hard part"));
    }
    Ok((soft, hard))
}

/// Reads a mode: octal, with or without zeros in front.
///
/// # Errors
/// When it is none.
pub fn mode(text: &str) -> Result<u32, Invalid> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let read = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o7777);
    read.ok_or_else(|| Invalid::new(text, "a mode such as `0755`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bools_are_read_as_incus_writes_them() {
        for text in ["true", "1", "yes", "on", "TRUE", "On"] {
            assert_eq!(boolean(text), Ok(true), "{text}");
        }
        for text in ["false", "0", "no", "off", "", "FALSE"] {
            assert_eq!(boolean(text), Ok(false), "{text}");
        }
        for text in ["2", "y", "maybe", " true", "truee"] {
            assert!(boolean(text).is_err(), "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_held_to_their_range() {
        assert_eq!(integer("0", 0, 10), Ok(0));
        assert_eq!(integer("-3", -3, 10), Ok(-3));
        for text in ["", "-1", "11", "1.5", "0x3", "+3", " 3", "9999999999999999999999"] {
            assert!(integer(text, 0, 10).is_err(), "{text}");
        }
        assert_eq!(integer("x", 0, 10).unwrap_err().to_string(), "`x` is not a whole number from 0 to 10");
    }

    #[test]
    fn lease_times_are_read() {
        let check =
            |text: &str, expected: Option<Option<u64>>| assert_eq!(lease_time(text).ok(), expected, "{text}");
        check("1h", Some(Some(3600)));
        check("120", Some(Some(120)));
        check("2m", Some(Some(120)));
        check("1w", Some(Some(604_800)));
        check("infinite", Some(None));
        for text in ["", "h", "1", "119s", "1y", "-1h", "1h30m", "99999999999w", "1é"] {
            check(text, None);
        }
    }

    #[test]
    fn resource_limits_are_read() {
        let check = |text: &str, expected| assert_eq!(rlimit(text).ok(), expected, "{text}");
        check("1024", Some((Some(1024), Some(1024))));
        check("1024:4096", Some((Some(1024), Some(4096))));
        check("1024:unlimited", Some((Some(1024), None)));
        check("unlimited", Some((None, None)));
        for text in ["", "2:1", "unlimited:1", "1:2:3", "-1", "+1", "many", "1:"] {
            check(text, None);
        }
    }
}
