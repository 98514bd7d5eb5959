//! When snapshots are to go, and how they are named by themselves.

use super::Invalid;

/// A span of the calendar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Years.
    pub years: u16,
    /// Months.
    pub months: u16,
    /// Weeks.
    pub weeks: u16,
    /// Days.
    pub days: u16,
    /// Hours.
    pub hours: u16,
    /// Minutes.
    pub minutes: u16,
    /// Seconds.
    pub seconds: u16,
}

/// Reads a span such as `1d 12H`: whole numbers with `S` (seconds), `M` (minutes), `H` (hours), `d` (days),
/// `w` (weeks), `m` (months), `y` (years), each at most once.
///
/// # Errors
/// When it is not that, or nothing, or a number is above 9999.
pub fn expiry(text: &str) -> Result<Span, Invalid> {
    let wrong = || Invalid::new(text, "a time span such as `1d 12H` (units S M H d w m y)");
    let mut span = Span::default();
    let mut seen = String::new();
    for part in text.split_whitespace() {
        let unit = part.chars().last().filter(char::is_ascii_alphabetic).ok_or_else(wrong)?;
        let digits = &part[..part.len() - 1];
        let number = match digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.len() <= 4 {
            true => digits.parse().map_err(|_| wrong())?,
            false => return Err(wrong()),
        };
        let place = match unit {
            'S' => &mut span.seconds,
            'M' => &mut span.minutes,
            'H' => &mut span.hours,
            'd' => &mut span.days,
            'w' => &mut span.weeks,
            'm' => &mut span.months,
            'y' => &mut span.years,
            _ => return Err(wrong()),
        };
        if seen.contains(unit) {
            return Err(wrong());
        }
        seen.push(unit);
        *place = number;
    }
    if span == Span::default() { Err(wrong()) } else { Ok(span) }
}

/// A part of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Text(String),
    /// The first number that is free.
    Number,
    /// The time, as strftime(3) writes it by this format.
    Time(String),
}

/// How Go's layouts write a time, and strftime(3) does.
const LAYOUT: &[(&str, &str)] = &[
    ("2006", "%Y"),
    ("01", "%m"),
    ("02", "%d"),
    ("15", "%H"),
    ("04", "%M"),
    ("05", "%S"),
    ("-0700", "%z"),
    ("Jan", "%b"),
    ("Mon", "%a"),
];

/// Reads a pattern for names: plain text with at most one `%d`, and `{{ creation_date }}` or
/// `{{ creation_date|date:'2006-01-02_15-04-05' }}`.
///
/// # Errors
/// When it is not that, or what it makes could be no name.
pub fn pattern(text: &str) -> Result<Vec<Part>, Invalid> {
    let wanted = "a name with at most one `%d`, or with `{{ creation_date|date:'2006-01-02_15-04-05' }}`";
    let wrong = || Invalid::new(text, wanted);
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once("{{") {
        let (inside, after) = inside.split_once("}}").ok_or_else(wrong)?;
        literal(before, &mut parts);
        parts.push(Part::Time(time(inside.trim()).ok_or_else(wrong)?));
        rest = after;
    }
    literal(rest, &mut parts);
    let plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+@=,~".contains(&byte));
    let numbers = parts.iter().filter(|part| **part == Part::Number).count();
    let good = parts.iter().all(|part| !matches!(part, Part::Text(text) if !plain(text)));
    let starts = !text.starts_with(['-', '.']);
    if good && starts && numbers <= 1 && !parts.is_empty() && text.len() <= 128 {
        Ok(parts)
    } else {
        Err(wrong())
    }
}

fn literal(text: &str, parts: &mut Vec<Part>) {
    for (at, piece) in text.split("%d").enumerate() {
        if at > 0 {
            parts.push(Part::Number);
        }
        if !piece.is_empty() {
            parts.push(Part::Text(piece.to_owned()));
        }
    }
}

/// What stands between the braces, as a format of strftime(3).
fn time(inside: &str) -> Option<String> {
    let rest = inside.strip_prefix("creation_date")?.trim();
    if rest.is_empty() {
        return Some("%Y-%m-%d_%H-%M-%S".to_owned());
    }
    let quoted = rest.strip_prefix('|')?.trim().strip_prefix("date:")?.trim();
    let quote = quoted.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let layout = quoted.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut format = String::new();
    let mut left = layout;
    while let Some(letter) = left.chars().next() {
        if let Some((go, strftime)) = LAYOUT.iter().find(|(go, _)| left.starts_with(go)) {
            format.push_str(strftime);
            left = &left[go.len()..];
        } else if letter.is_ascii_alphanumeric() && letter != 'T' && letter != 'Z' || letter == '%' {
            return None;
        } else {
            // No space in a name.
            format.push(if letter == ' ' { '_' } else { letter });
            left = &left[letter.len_utf8()..];
        }
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:+@=,~%".contains(&byte);
    (!format.is_empty() && format.bytes().all(plain)).then_some(format)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_and_nonsense_is_refused() {
        let span = expiry("1d 12H 5M").unwrap();
        assert_eq!((span.days, span.hours, span.minutes), (1, 12, 5));
        assert_eq!(expiry("3w").unwrap().weeks, 3);
        assert_eq!(expiry("2m 6y").unwrap(), Span { months: 2, years: 6, ..Span::default() });
        for bad in ["", "1", "d", "1x", "-1d", "1d 2d", "0d", "99999d", "1 d", "+1d", "1.5d"] {
            assert!(expiry(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_is_read_and_what_makes_no_name_is_refused() {
        assert_eq!(pattern("snap%d").unwrap(), [Part::Text("snap".into()), Part::Number]);
        let dated = pattern("d-{{ creation_date|date:'2006-01-02_15-04-05' }}").unwrap();
        assert_eq!(dated[1], Part::Time("%Y-%m-%d_%H-%M-%S".into()));
        assert!(pattern("{{creation_date}}").is_ok());
        assert!(pattern("auto").is_ok());
        for bad in [
            "",
            "a b",
            "a/b",
            "%d%d",
            "{{ other }}",
            "{{ creation_date",
            "-%d",
            "a%s",
            "{{ creation_date|date:'%Y' }}",
        ] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
