//! A dnsmasq as a process: known again by its command line, told things by signals, waited for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cabin_sys::command;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::config::Part;

/// How long an address is waited for that is in use: a server that could not start says so a moment before it ends.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// A server that was running when it was found.
pub struct Server {
    pid: i32,
    handle: OwnedFd,
}

impl AsFd for Server {
    /// Can be read when the server has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Server {
    /// That process, if it is the dnsmasq of this part whose files are in `home`.
    pub fn open(pid: i32, home: &Path, part: Part) -> Option<Server> {
        let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let process = PathBuf::from(format!("/proc/{pid}"));
        let line = std::fs::read(process.join("cmdline")).ok()?;
        if !line.split(|byte| *byte == 0).any(|argument| argument == conf_argument(home, part).as_bytes()) {
            return None;
        }
        // After an upgrade of the package the link says `… (deleted)`.
        let program = std::fs::read_link(process.join("exe")).ok()?;
        let program = program.file_name()?.to_str()?;
        (program.trim_end_matches(" (deleted)") == "dnsmasq").then_some(())?;
        // A dead one that nobody reaped yet is no server.
        (!ended(&handle, Duration::ZERO).ok()?).then_some(Server { pid, handle })
    }

    /// Has it read its files anew. One that does not listen to that signal yet would end by it, and has still to read
    /// them all.
    pub fn reload(&self) -> io::Result<()> {
        if catches(self.pid, Signal::HUP) { self.signal(Signal::HUP) } else { Ok(()) }
    }

    /// Sends a signal; one already gone is success.
    pub fn signal(&self, what: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, what) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }

    /// Whether it ends within that time.
    pub fn ended(&self, within: Duration) -> io::Result<bool> {
        ended(&self.handle, within)
    }
}

/// Whether a process has a handler for a signal: the mask `SigCgt` of proc_pid_status(5).
fn catches(pid: i32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal.as_raw() - 1)) != 0
}

/// A killed server gives up its memory, and with it its command line, before its sockets: it cannot be
/// found any more but still holds the addresses. Waits for its end; whoever else has that pid costs a
/// second at most.
pub fn outlast_dying(pid: i32) {
    let Some(handle) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return;
    };
    if std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty()) {
        let _ = ended(&handle, Duration::from_secs(1));
    }
}

/// What its command line is known by.
pub fn conf_argument(home: &Path, part: Part) -> String {
    format!("--conf-file={}", home.join(part.conf()).display())
}

/// Runs dnsmasq until it is in the background.
pub fn launch(command: &mut std::process::Command) -> io::Result<()> {
    let deadline = Instant::now() + LAST_MOMENTS;
    loop {
        match command::output_without_new_rights(command) {
            Err(error)
                if Instant::now() < deadline && error.to_string().contains("Address already in use") =>
            {
                // Woken too early it only tries sooner.
                std::thread::park_timeout(Duration::from_millis(20));
            }
            other => return other.map(drop),
        }
    }
}

fn ended(handle: &OwnedFd, within: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&time)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_nobody_catches_is_known() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!catches(own, Signal::HUP));
        // The Rust runtime's own, for stack overflows.
        assert!(catches(own, Signal::SEGV));
    }
}
