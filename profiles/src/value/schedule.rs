//! When something is to be done by itself: cron's lines, and words for the usual ones.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Zoned;

use super::Invalid;

/// The most lines one schedule has.
const MOST: usize = 32;

/// A schedule, read.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    lines: Vec<Cron>,
    startup: bool,
}

impl Schedule {
    /// Whether it asks for it when the instance starts.
    #[must_use]
    pub fn at_startup(&self) -> bool {
        self.startup
    }

    /// Whether a time it names lies after `last` and not after `now`.
    #[must_use]
    pub fn is_due(&self, last: &Zoned, now: &Zoned) -> bool {
        self.lines.iter().any(|line| line.find_next_occurrence(last, false).is_ok_and(|next| next <= *now))
    }
}

/// Reads lines of cron's five fields, or one of `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`,
/// `@annually`, `@yearly`, `@startup`, `@never`; several are parted by a comma and a space. The words leave the minute
/// open (all but `@midnight` the hour too): `spread`, a number of the instance's own, chooses it, so that not
/// everything happens at once. Incus does the same.
///
/// # Errors
/// When it is not that, or names a time that never comes.
pub fn parse(text: &str, spread: u32) -> Result<Schedule, Invalid> {
    let wanted = "a schedule: five fields as in crontab(5), or `@hourly`, `@daily`, `@midnight`, `@weekly`, \
                  `@monthly`, `@yearly`, `@startup`, `@never`; several parted by `, `";
    let wrong = || Invalid::new(text, wanted);
    let mut schedule = Schedule::default();
    // Words may be parted by a comma alone; in a line of cron it parts numbers.
    let words = |text: &str| text.split(',').all(|part| part.trim_start().starts_with('@'));
    let parts: Vec<&str> = match words(text) {
        true => text.split(',').collect(),
        false => text.split(", ").collect(),
    };
    let (minute, hour) = (spread % 60, spread / 60 % 24);
    let mut never = false;
    for part in parts.iter().map(|part| part.trim()) {
        let line = match part {
            "@startup" => {
                schedule.startup = true;
                continue;
            }
            "@never" => {
                never = true;
                continue;
            }
            "@hourly" => format!("{minute} * * * *"),
            "@daily" => format!("{minute} {hour} * * *"),
            "@midnight" => format!("{minute} 0 * * *"),
            "@weekly" => format!("{minute} {hour} * * 0"),
            "@monthly" => format!("{minute} {hour} 1 * *"),
            "@annually" | "@yearly" => format!("{minute} {hour} 1 1 *"),
            line => line.to_owned(),
        };
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let line = parser.parse(&line).map_err(|_| wrong())?;
        // The thirtieth of February is a date to the parser and never one of the calendar.
        line.find_next_occurrence(&Zoned::now(), false).map_err(|_| wrong())?;
        schedule.lines.push(line);
    }
    if parts.len() > MOST || (never && parts.len() > 1) { Err(wrong()) } else { Ok(schedule) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        format!("{text}[UTC]").parse().unwrap()
    }

    #[test]
    fn a_line_is_due_once_in_the_time_it_names() {
        let schedule = parse("*/15 3 * * *", 0).unwrap();
        assert!(schedule.is_due(&at("2026-03-01T02:59:30+00"), &at("2026-03-01T03:00:30+00")));
        assert!(!schedule.is_due(&at("2026-03-01T03:00:00+00"), &at("2026-03-01T03:14:59+00")));
        assert!(schedule.is_due(&at("2026-03-01T03:00:00+00"), &at("2026-03-01T03:15:00+00")));
        assert!(!schedule.is_due(&at("2026-03-01T04:00:00+00"), &at("2026-03-01T03:15:00+00")), "backwards");
    }

    #[test]
    fn words_are_spread_and_several_hold_together() {
        let schedule = parse("@daily, @startup", 61).unwrap();
        assert!(schedule.at_startup());
        assert!(schedule.is_due(&at("2026-03-01T01:00:30+00"), &at("2026-03-01T01:01:00+00")));
        assert!(!schedule.is_due(&at("2026-03-01T00:00:00+00"), &at("2026-03-01T01:00:59+00")));
        let two = parse("0 1 * * *, 0,30 5 * * 1-5", 7).unwrap();
        assert!(two.is_due(&at("2026-03-02T05:29:00+00"), &at("2026-03-02T05:30:00+00")), "a Monday");
        assert!(!two.is_due(&at("2026-03-01T05:29:00+00"), &at("2026-03-01T05:30:00+00")), "a Sunday");
        let both = parse("@startup, 10 2,5-8/2 * * *", 7).unwrap();
        assert!(
            both.at_startup() && both.is_due(&at("2026-03-01T07:09:00+00"), &at("2026-03-01T07:10:00+00"))
        );
        assert!(parse("@startup,@daily", 0).unwrap().at_startup());
        let never = parse("@never", 0).unwrap();
        assert!(
            !never.at_startup()
                && !never.is_due(&at("2026-01-01T00:00:00+00"), &at("2027-01-01T00:00:00+00"))
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for bad in
            ["hourly", "@often", "* * * *", "61 * * * *", "* * * * * *", "0 0 30 2 *", ",", "@never, @daily"]
        {
            assert!(parse(bad, 0).is_err(), "{bad}");
        }
        assert!(parse(&vec!["0 0 * * *"; 33].join(", "), 0).is_err());
    }
}
