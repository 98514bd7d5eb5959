//! The limits that an expanded config asks for, typed.

use crate::Config;
use crate::error::Error;
use crate::value::Invalid;
pub use crate::value::cpu::{Allowance, Cpus};
pub use crate::value::size::SwapRule;
use crate::value::{cpu, number, size};

/// What limits are measured against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The processors that are online.
    pub cpus: Vec<u32>,
    /// The memory, in bytes.
    pub memory: u64,
}

/// What happens beyond the memory limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MemoryEnforce {
    /// The allocation fails or something is killed.
    #[default]
    Hard,
    /// Memory beyond it is reclaimed first.
    Soft,
}

/// One resource limit that init starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// The name, as after `limits.kernel.`: `nofile`.
    pub name: String,
    /// The soft limit; `None` is unlimited.
    pub soft: Option<u64>,
    /// The hard limit; `None` is unlimited.
    pub hard: Option<u64>,
}

/// The limits of an instance. What is not set is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processors. A count that reaches the host's is [`Cpus::Any`].
    pub cpus: Cpus,
    /// Processor time.
    pub allowance: Option<Allowance>,
    /// Memory, in bytes.
    pub memory: Option<u64>,
    /// What `memory` means.
    pub memory_enforce: MemoryEnforce,
    /// Swap.
    pub swap: SwapRule,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Resource limits of init.
    pub rlimits: Vec<Rlimit>,
}

impl Limits {
    /// Reads the limits of an expanded config on this host.
    ///
    /// # Errors
    /// When a value is not what its key takes, or names a processor the host does not have.
    pub fn resolve(config: &Config, host: &HostFacts) -> Result<Limits, Error> {
        let mut limits = Limits {
            cpus: read(config, "limits.cpu", cpu::cpus)?.unwrap_or_default(),
            allowance: read(config, "limits.cpu.allowance", cpu::allowance)?,
            memory: read(config, "limits.memory", size::memory)?.map(|amount| amount.of(host.memory)),
            memory_enforce: match config.get("limits.memory.enforce").map(String::as_str) {
                Some("soft") => MemoryEnforce::Soft,
                _ => MemoryEnforce::Hard,
            },
            swap: read(config, "limits.memory.swap", size::swap)?.unwrap_or_default(),
            processes: read(config, "limits.processes", |text| number::integer(text, 1, i64::MAX))?
                .map(i64::unsigned_abs),
            rlimits: Vec::new(),
        };
        match &limits.cpus {
            Cpus::Count(count) if usize::try_from(*count).is_ok_and(|count| count >= host.cpus.len()) => {
                limits.cpus = Cpus::Any;
            }
            Cpus::Set(set) => {
                if let Some(cpu) = set.iter().find(|cpu| !host.cpus.contains(cpu)) {
                    return Err(Error::NoSuchCpu { key: "limits.cpu", cpu: *cpu });
                }
            }
            _ => {}
        }
        for key in config.keys() {
            let Some(name) = key.strip_prefix("limits.kernel.") else { continue };
            if let Some((soft, hard)) = read(config, key, number::rlimit)? {
                limits.rlimits.push(Rlimit { name: name.to_owned(), soft, hard });
            }
        }
        Ok(limits)
    }

    /// The processor time it can have at most: nanoseconds in each second.
    #[must_use]
    pub fn processor_time(&self, host: &HostFacts) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        let cpus = match &self.cpus {
            Cpus::Any => host.cpus.len() as u64,
            Cpus::Count(count) => u64::from(*count),
            Cpus::Set(set) => set.len() as u64,
        };
        match self.allowance {
            Some(Allowance::Hard { quota_us, period_us }) => {
                quota_us.saturating_mul(SECOND).checked_div(period_us).unwrap_or(0).min(cpus * SECOND)
            }
            Some(Allowance::Soft(_)) | None => cpus * SECOND,
        }
    }
}

fn read<T>(
    config: &Config,
    key: &str,
    parse: impl Fn(&str) -> Result<T, Invalid>,
) -> Result<Option<T>, Error> {
    match config.get(key).filter(|value| !value.is_empty()) {
        Some(value) => parse(value).map(Some).map_err(|source| Error::Value { key: key.to_owned(), source }),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(pairs: &[(&str, &str)]) -> Result<Limits, Error> {
        let config = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Limits::resolve(&config, &HostFacts { cpus: vec![0, 1, 2, 3], memory: 1 << 30 })
    }

    #[test]
    fn nothing_set_is_nothing_limited() {
        assert_eq!(resolve(&[]).unwrap(), Limits::default());
        assert_eq!(resolve(&[("limits.memory", "")]).unwrap(), Limits::default());
    }

    #[test]
    fn processor_time_is_what_processors_and_allowance_leave() {
        let check = |pairs: &[(&str, &str)], millis: u64| {
            let host = HostFacts { cpus: vec![0, 1, 2, 3], memory: 1 << 30 };
            assert_eq!(resolve(pairs).unwrap().processor_time(&host), millis * 1_000_000, "{pairs:?}");
        };
        check(&[], 4000);
        check(&[("limits.cpu", "1"), ("limits.cpu.allowance", "50%")], 1000);
        check(&[("limits.cpu", "1-2")], 2000);
        check(&[("limits.cpu", "2"), ("limits.cpu.allowance", "100ms/200ms")], 500);
        check(&[("limits.cpu", "1"), ("limits.cpu.allowance", "300ms/100ms")], 1000);
    }

    #[test]
    fn each_limit_is_typed() {
        let limits = resolve(&[
            ("limits.cpu", "1-2"),
            ("limits.cpu.allowance", "20ms/100ms"),
            ("limits.memory", "50%"),
            ("limits.memory.enforce", "soft"),
            ("limits.memory.swap", "false"),
            ("limits.processes", "100"),
            ("limits.kernel.nofile", "10:20"),
        ])
        .unwrap();
        assert_eq!(limits.cpus, Cpus::Set(vec![1, 2]));
        assert_eq!(limits.allowance, Some(Allowance::Hard { quota_us: 20_000, period_us: 100_000 }));
        assert_eq!(limits.memory, Some(1 << 29));
        assert_eq!(limits.memory_enforce, MemoryEnforce::Soft);
        assert_eq!(limits.swap, SwapRule::Forbidden);
        assert_eq!(limits.processes, Some(100));
        assert_eq!(
            limits.rlimits,
            vec![Rlimit { name: "nofile".to_owned(), soft: Some(10), hard: Some(20) }]
        );
    }

    #[test]
    fn more_processors_than_there_are_is_all_of_them_but_a_missing_one_is_an_error() {
        assert_eq!(resolve(&[("limits.cpu", "3")]).unwrap().cpus, Cpus::Count(3));
        assert_eq!(resolve(&[("limits.cpu", "64")]).unwrap().cpus, Cpus::Any);
        let error = resolve(&[("limits.cpu", "2-5")]).unwrap_err();
        assert_eq!(error.to_string(), "`limits.cpu` asks for processor 4, which this host does not have");
    }
}
