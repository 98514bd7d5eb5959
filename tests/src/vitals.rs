//! What a process uses of the host, and how fast a daemon answers while others press on it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::machine;
use crate::subject::Subject;
use crate::wait::until;

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    /// Memory, in KiB.
    pub rss: u64,
    /// Open descriptors.
    pub fds: usize,
    /// Threads.
    pub threads: u64,
}

impl Vitals {
    /// Looks at a process.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn of(pid: u32) -> Vitals {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0");
            line.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().count();
        Vitals { rss: number("VmRSS:"), fds, threads: number("Threads:") }
    }

    /// Waits until a process has no more descriptors open than it had then.
    ///
    /// # Panics
    /// When that does not come.
    pub fn wait_for_fds(self, pid: u32, seconds: u64) {
        until(&format!("at most {} descriptors, as before", self.fds), seconds, || {
            (Vitals::of(pid).fds <= self.fds).then_some(())
        });
    }
}

/// How long something took, each time it was done.
#[derive(Debug, Default, Clone)]
pub struct Pace {
    took: Vec<Duration>,
    /// What was said by those that failed.
    pub failed: Vec<String>,
}

impl Pace {
    fn add(&mut self, began: Instant, done: Result<(), String>) {
        self.took.push(began.elapsed());
        self.failed.extend(done.err());
    }

    /// How often.
    #[must_use]
    pub fn count(&self) -> usize {
        self.took.len()
    }

    /// So many of a hundred took no longer, in milliseconds.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> u128 {
        percentile(&self.took, percent)
    }

    /// Takes in what another one measured.
    pub fn join(&mut self, other: Pace) {
        self.took.extend(other.took);
        self.failed.extend(other.failed);
    }
}

fn percentile(took: &[Duration], percent: usize) -> u128 {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).map_or(0, Duration::as_millis)
}

/// How the daemon and another container answer.
#[derive(Debug, Default, Clone)]
pub struct Answers {
    /// The list of all instances, the state of another one.
    pub api: Pace,
    /// A command in another one.
    pub exec: Pace,
}

impl Answers {
    /// One line with the numbers.
    #[must_use]
    pub fn told(&self) -> String {
        format!(
            "API p50 {} p99 {} ms ({}), exec elsewhere p50 {} p99 {} ms ({})",
            self.api.percentile(50),
            self.api.percentile(99),
            self.api.count(),
            self.exec.percentile(50),
            self.exec.percentile(99),
            self.exec.count()
        )
    }

    /// Takes in what another one measured.
    pub fn join(&mut self, other: Answers) {
        self.api.join(other.api);
        self.exec.join(other.exec);
    }

    /// What is wrong with them: an answer that was an error, or more than so many of a hundred that were slower than anybody
    /// should wait. All of them count.
    /// `calm` is how the same questions were answered just before, with nobody pressing: what the machine itself
    /// takes, for it may be doing something else too, is not held against anybody.
    #[must_use]
    pub fn faults(&self, percent: usize, limit: u128, calm: &Answers) -> Vec<String> {
        self.judged(|_| percent, limit, calm)
    }

    /// As [`Answers::faults`], with 99 of a hundred where there are [`MANY`]; of few answers one is no measure of a hundred,
    /// so few are asked for less.
    #[must_use]
    pub fn faults_by_number(&self, limit: u128, calm: &Answers) -> Vec<String> {
        self.judged(|pace| if pace.count() < MANY { 90 } else { 99 }, limit, calm)
    }

    fn judged(&self, percent: impl Fn(&Pace) -> usize, limit: u128, calm: &Answers) -> Vec<String> {
        let mut wrong: Vec<String> =
            self.api.failed.iter().chain(&self.exec.failed).take(3).cloned().collect();
        let limit = limit * u128::from(machine::slower());
        let kinds = [
            ("the API", &self.api, &calm.api, limit),
            ("a command elsewhere", &self.exec, &calm.exec, 8 * limit),
        ];
        for (what, pace, calm, limit) in kinds {
            let percent = percent(pace);
            let (found, calm) = (pace.percentile(percent), calm.percentile(99));
            if found > limit + calm {
                let slow: Vec<String> = pace
                    .took
                    .iter()
                    .enumerate()
                    .filter(|(_, took)| took.as_millis() > limit)
                    .map(|(at, took)| format!("{at}: {}", took.as_millis()))
                    .collect();
                wrong.push(format!(
                    "p{percent} of {what} is {found} ms, p99 at rest {calm} ms; of {} the slow ones {slow:?}",
                    pace.count()
                ));
            }
        }
        wrong
    }
}

/// How many answers make one of a hundred a measure.
pub const MANY: usize = 200;

/// Does `work`, and asks the daemon and the running instance `other` again and again meanwhile.
pub fn answers_during<T>(subject: &Subject, other: &str, work: impl FnOnce() -> T) -> (T, Answers) {
    answers_until(subject, other, |_| work())
}

/// As [`answers_during`]; `work` is told how many answers of the API there are so far.
pub fn answers_until<T>(
    subject: &Subject,
    other: &str,
    work: impl FnOnce(&AtomicUsize) -> T,
) -> (T, Answers) {
    let (over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let count = &count;
    std::thread::scope(|scope| {
        // Asked as a person would, not as a flood.
        let again_and_again = |ask: &dyn Fn() -> Result<(), String>| {
            let mut pace = Pace::default();
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                pace.add(began, ask());
                std::thread::park_timeout(Duration::from_millis(5));
            }
            pace
        };
        let asking = scope.spawn(move || {
            let state = format!("/1.0/instances/{other}/state");
            let next = AtomicBool::new(false);
            again_and_again(&|| {
                let list = next.fetch_xor(true, Ordering::Relaxed);
                let seen = look(subject, if list { "/1.0/instances?recursion=1" } else { &state });
                count.fetch_add(1, Ordering::Relaxed);
                seen
            })
        });
        let running = scope.spawn(move || again_and_again(&|| run_true(subject, other)));
        // Told to end also when the work panics.
        let _told = Over(&over);
        let done = work(count);
        over.store(true, Ordering::Relaxed);
        let measured =
            |pace: std::thread::ScopedJoinHandle<'_, Pace>| pace.join().expect("what was measured");
        (done, Answers { api: measured(asking), exec: measured(running) })
    })
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn look(subject: &Subject, target: &str) -> Result<(), String> {
    match subject.call("GET", target, None) {
        Ok(reply) if reply.status == 200 => Ok(()),
        Ok(reply) => Err(format!("GET {target}: {} {}", reply.status, reply.text())),
        Err(why) => Err(format!("GET {target}: {why}")),
    }
}

fn run_true(subject: &Subject, name: &str) -> Result<(), String> {
    let body = json!({ "command": ["true"], "wait-for-websocket": false, "interactive": false });
    let ended = subject.ask("POST", &format!("/1.0/instances/{name}/exec"), &body);
    match ended {
        Ok(ended) if ended["metadata"]["return"] == 0 => Ok(()),
        Ok(ended) => Err(format!("`true` in `{name}`: {ended}")),
        Err(why) => Err(format!("`true` in `{name}`: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let took: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let pace = Pace { took, failed: Vec::new() };
        assert_eq!((pace.percentile(50), pace.percentile(99), pace.percentile(100)), (50, 99, 100));
        assert_eq!(Pace::default().percentile(99), 0);
    }
}
