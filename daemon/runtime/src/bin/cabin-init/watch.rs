//! Watching over a running container: the supervisor's life after the start.
//!
//! It needs nothing of the daemon and keeps almost nothing: a terminal, a socket, a handle of init. When init
//! ends it writes down how, tells who watches, and ends. When it is killed, the kernel kills init.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use cabin_runtime::wire::{self, Failure, Progress, Standing};
use cabin_runtime::{Exit, console_name, record_name, socket_name};
use cabin_sys::caps::{self, Caps};
use cabin_sys::dir::HostDir;
use cabin_sys::landlock::{self, Access, Tcp};
use cabin_sys::process::{self, Ended};
use rustix::event::{PollFd, PollFlags, poll};

use crate::console::Console;
use crate::control::{Control, Subject};
use crate::owner;
use crate::step::Step;

/// `SIGHUP` and `SIGINT`: what the kernel ends an init with that called reboot(2), to restart or to halt.
const RESTARTED: i32 = 1;
const HALTED: i32 = 2;

/// `SIGKILL`.
const KILL: i32 = 9;

/// A container whose init has just begun.
pub struct Watched {
    pub name: String,
    pub run_dir: PathBuf,
    pub standing: Standing,
    pub pidfd: OwnedFd,
    pub console: OwnedFd,
    pub netlink: OwnedFd,
    pub devpts: OwnedFd,
}

struct Watcher {
    name: String,
    standing: Standing,
    pidfd: OwnedFd,
    netlink: OwnedFd,
    run_dir: HostDir,
    console: Console,
    control: Control,
}

/// Watches until the container has ended. The daemon is told that init runs once it can be asked for.
pub fn run(watched: Watched, daemon: OwnedFd) -> i32 {
    let Ok(init) = watched.pidfd.try_clone() else { return 1 };
    let mut watcher = match prepare(watched) {
        Ok(watcher) => watcher,
        Err(failure) => {
            let _ = process::signal(&init, KILL);
            let _ = process::wait(&init);
            let _ = wire::send(&daemon, &Progress::Failed(failure), &[]);
            return 1;
        }
    };
    let _ = wire::send(&daemon, &Progress::Running, &[]);
    drop((daemon, init));
    while !watcher.turn() {}
    match watcher.finish() {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

fn prepare(watched: Watched) -> Result<Watcher, Failure> {
    let Watched { name, run_dir, standing, pidfd, console, netlink, devpts } = watched;
    let run_dir = HostDir::open(&run_dir).step("open the run directory")?;
    let console = Console::new(console).step("take the console")?;
    let control = Control::listen(&run_dir, &name).step("listen for the daemon")?;
    let title: String = format!("cabin:{name}").chars().take(15).collect();
    if let Ok(title) = std::ffi::CString::new(title) {
        let _ = rustix::thread::set_name(&title);
    }
    process::give_back_memory();
    owner::may_signal_root_of(standing.ids).step("stay init's master")?;
    shed(&run_dir, &devpts).step("give up its rights")?;
    Ok(Watcher { name, standing, pidfd, netlink, run_dir, console, control })
}

/// From here on it can write its run directory and open the container's terminals, and that is all.
fn shed(run_dir: &HostDir, devpts: &OwnedFd) -> io::Result<()> {
    process::set_no_new_privs()?;
    let reach = [(run_dir.as_fd(), Access::All), (devpts.as_fd(), Access::Write)];
    match landlock::restrict(&reach, Tcp::Denied) {
        // A kernel without Landlock; the capabilities still go.
        Err(e) if e.kind() == io::ErrorKind::Unsupported || e.raw_os_error() == Some(95) => {}
        other => other?,
    }
    caps::drop_for_good(Caps::all())
}

impl Watcher {
    /// Waits for something to happen and deals with it. `true` when init has ended.
    fn turn(&mut self) -> bool {
        let Some(ready) = self.wait() else { return false };
        let (fixed, rest) = ready.split_at(3.min(ready.len()));
        let streams = self.console.streams().len().min(rest.len());
        let (streams, clients) = rest.split_at(streams);
        if fixed.get(1).is_some_and(|happened| !happened.is_empty()) {
            self.console.read_output();
            if self.console.has_input() {
                self.console.write_input();
            }
        }
        // From the last to the first: one that has gone is replaced by the last.
        for number in (0..clients.len()).rev().filter(|n| clients.get(*n).is_some_and(|r| !r.is_empty())) {
            let mut subject = Subject {
                standing: &self.standing,
                pidfd: self.pidfd.as_fd(),
                netlink: self.netlink.as_fd(),
                console: &mut self.console,
            };
            self.control.serve(number, &mut subject);
        }
        for number in (0..streams.len()).rev().filter(|n| streams.get(*n).is_some_and(|r| !r.is_empty())) {
            self.console.read_input(number);
        }
        if fixed.get(2).is_some_and(|happened| !happened.is_empty()) {
            self.control.accept();
        }
        fixed.first().is_some_and(|happened| !happened.is_empty())
    }

    /// What happened to: init, the terminal, the listener, each stream, each client.
    fn wait(&self) -> Option<Vec<PollFlags>> {
        let terminal = if self.console.has_input() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.console.master(), terminal),
            PollFd::from_borrowed_fd(self.control.listener(), PollFlags::IN),
        ];
        fds.extend(self.console.streams().iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.control.clients().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).ok()?;
        Some(fds.iter().map(PollFd::revents).collect())
    }

    fn finish(mut self) -> io::Result<()> {
        let ended = process::wait(&self.pidfd)?;
        self.console.read_rest();
        let exit = match ended {
            Ended::Killed(RESTARTED) => Exit::Reboot,
            Ended::Killed(HALTED) => Exit::Stopped { status: 0 },
            Ended::Exited(status) => Exit::Stopped { status },
            Ended::Killed(signal) => Exit::Stopped { status: 128 + signal },
        };
        let name = &self.name;
        // On a disk without room the record comes first, and whoever watches is told in any case.
        let record =
            wire::pack(&exit).and_then(|record| self.run_dir.replace(&record_name(name), &record, 0o600));
        let console = self.run_dir.replace(&console_name(name), &self.console.log(), 0o600);
        // Whoever finds no socket any more finds the record.
        let socket = self.run_dir.remove_file(&socket_name(name));
        self.control.tell_end(exit);
        record.and(console).and(socket)
    }
}
