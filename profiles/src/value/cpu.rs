//! Processors: which and how many, and how much of their time.

use super::{Invalid, number};

/// The highest processor number a Linux kernel can have (CONFIG_NR_CPUS of x86_64 is at most 8192).
const LAST: u32 = 8191;

/// Which processors an instance may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cpus {
    /// All of the host.
    #[default]
    Any,
    /// So many of them; which ones is the daemon's to choose.
    Count(u32),
    /// These, ascending.
    Set(Vec<u32>),
}

/// Reads a choice of processors. A lone number is how many; a range or a list is which (`1-1` is
/// processor 1 alone).
///
/// # Errors
/// When it is none of these, names no processor, or a range runs backwards.
pub fn cpus(text: &str) -> Result<Cpus, Invalid> {
    let wrong = || Invalid::new(text, "a number of processors (`2`) or a set of them (`0-3`, `1,3`, `1-1`)");
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match number::integer(text, 1, i64::from(LAST) + 1) {
            Ok(count) => Ok(Cpus::Count(u32::try_from(count).unwrap_or(u32::MAX))),
            Err(_) => Err(wrong()),
        };
    }
    let mut set = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let first = number::integer(first, 0, i64::from(LAST)).map_err(|_| wrong())?;
        let last = number::integer(last, first, i64::from(LAST)).map_err(|_| wrong())?;
        set.extend((first..=last).filter_map(|cpu| u32::try_from(cpu).ok()));
    }
    set.sort_unstable();
    set.dedup();
    Ok(Cpus::Set(set))
}

/// Writes processors as the kernel lists them: `0-3,5`.
#[must_use]
pub fn list(cpus: &[u32]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for cpu in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let show = |(first, last): (u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.into_iter().map(show).collect::<Vec<_>>().join(",")
}

/// How much of the processors' time an instance gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// A share when processors are busy, in percent (1 to 100) of a full one.
    Soft(u32),
    /// At most so much time in each period, busy or not. More than the period is more than one processor.
    Hard {
        /// Microseconds of processor time.
        quota_us: u64,
        /// In each so many microseconds.
        period_us: u64,
    },
}

/// Reads an allowance: `50%` (soft) or `25ms/100ms` (hard).
///
/// # Errors
/// When it is neither, or outside what the kernel takes (period 1 to 1000 ms, quota from 1 ms).
pub fn allowance(text: &str) -> Result<Allowance, Invalid> {
    let wrong = || Invalid::new(text, "a share such as `50%`, or a time in each period such as `25ms/100ms`");
    if let Some(percent) = text.strip_suffix('%') {
        let percent = number::integer(percent, 1, 100).map_err(|_| wrong())?;
        return Ok(Allowance::Soft(u32::try_from(percent).map_err(|_| wrong())?));
    }
    let (quota, period) = text.split_once('/').ok_or_else(wrong)?;
    let milliseconds = |part: &str, most: i64| {
        let digits = part.trim().strip_suffix("ms").ok_or_else(wrong)?;
        number::integer(digits, 1, most).map(|number| number.unsigned_abs() * 1000).map_err(|_| wrong())
    };
    Ok(Allowance::Hard { quota_us: milliseconds(quota, 10_000_000)?, period_us: milliseconds(period, 1000)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_number_counts_and_a_range_or_list_chooses() {
        let check = |text: &str, expected: Option<Cpus>| assert_eq!(cpus(text).ok(), expected, "{text}");
        check("4", Some(Cpus::Count(4)));
        check("0-3", Some(Cpus::Set(vec![0, 1, 2, 3])));
        check("1-1", Some(Cpus::Set(vec![1])));
        check("1,3", Some(Cpus::Set(vec![1, 3])));
        check("3, 1, 0-1", Some(Cpus::Set(vec![0, 1, 3])));
        for text in ["", "0", "-1", "3-1", "a", "1,", "1-", "0-9999", "1-2-3", "99999999999"] {
            check(text, None);
        }
    }

    #[test]
    fn processors_are_listed_as_the_kernel_does() {
        assert_eq!(list(&[3, 0, 1, 2, 5]), "0-3,5");
        assert_eq!(list(&[7]), "7");
        assert_eq!(list(&[]), "");
    }

    #[test]
    fn an_allowance_is_a_share_or_a_quota() {
        let check = |text: &str, expected| assert_eq!(allowance(text).ok(), expected, "{text}");
        check("50%", Some(Allowance::Soft(50)));
        check("25ms/100ms", Some(Allowance::Hard { quota_us: 25_000, period_us: 100_000 }));
        check("200ms/100ms", Some(Allowance::Hard { quota_us: 200_000, period_us: 100_000 }));
        for text in
            ["", "0%", "101%", "50", "25/100", "0ms/100ms", "25ms/0ms", "25ms/2000ms", "ms/ms", "5s/10s"]
        {
            check(text, None);
        }
    }
}
