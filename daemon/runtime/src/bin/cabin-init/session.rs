//! A command in a running container, from outside: enters the namespaces, makes the command's process, tells
//! the daemon how it ended.

use std::os::fd::{AsFd, OwnedFd};

use cabin_runtime::cgroup::Entry;
use cabin_runtime::spec::{ExecSpec, IdMap, Streams};
use cabin_runtime::wire::{self, Failure, SessionOrder, SessionProgress, Standing};
use cabin_sys::namespace::{self, Namespaces};
use cabin_sys::process::{self, Child, Ended};
use cabin_sys::{pty, socket};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::command::{self, Terminal, Word};
use crate::confine;
use crate::link;
use crate::step::{Step, odd};

/// `SIGKILL`.
const KILL: i32 = 9;

/// Runs the command the daemon orders, to its end, and gives the exit status.
pub fn run(daemon: &OwnedFd) -> i32 {
    let outcome = prepare(daemon).map_err(SessionProgress::Failed).and_then(|begun| start(daemon, begun));
    match outcome {
        Ok(child) => accompany(daemon, &child),
        Err(progress) => {
            let _ = wire::send(daemon, &progress, &[]);
            1
        }
    }
}

/// The streams of a command: its own ends, and the daemon's.
struct Ends {
    command: [OwnedFd; 3],
    daemon: Vec<OwnedFd>,
}

/// The command's process, which waits, and what it waits for.
struct Begun {
    child: Child,
    link: OwnedFd,
    streams: [OwnedFd; 3],
}

/// Makes the command's process and enters the container, as it does.
fn prepare(daemon: &OwnedFd) -> Result<Begun, Failure> {
    let (order, fds) = link::next(daemon, "read the order")?;
    let SessionOrder::Run { spec, standing, unified, cgroups } = order else {
        return Err(odd("read the order", "an order out of order"));
    };
    let mut fds = fds.into_iter();
    let init = fds.next().ok_or_else(|| odd("read the order", "no container is given"))?;
    let entry = Entry::received(unified, fds.by_ref().take(cgroups).collect());
    let given: Vec<OwnedFd> = fds.collect();
    own_pipes(&given, &spec, standing.ids);
    // What inside it may not raise; the command inherits both.
    confine::set_rlimits(0, &standing.rlimits)?;
    let _ = process::set_oom_score_adj(std::process::id(), 0);
    namespace::enter(&init, OUTER).step("enter the namespaces")?;

    let (ours, theirs) = socket::pair().step("make a socket pair")?;
    let (child, placed) = born(&entry, |entry| command::run(&theirs, &spec, (&init, &standing), entry))?;
    drop((theirs, entry));
    let opened = enter(&init, &standing).and_then(|()| open_streams(&spec, given)).and_then(|ends| {
        let far: Vec<_> = ends.daemon.iter().map(AsFd::as_fd).collect();
        let here = SessionProgress::Here { pid: child.pid, placed };
        wire::send(daemon, &here, &far).step("report the process")?;
        Ok(ends.command)
    });
    match opened {
        Ok(streams) => Ok(Begun { child, link: ours, streams }),
        Err(failure) => {
            end(&child);
            Err(failure)
        }
    }
}

/// What is joined before the command's process is made. It is made with the host's rights: only they reach from
/// the daemon's cgroup into the container's, and only out of the host's cgroup namespace. Nothing is looked up
/// by path with them, and neither process can be traced from inside.
const OUTER: Namespaces = Namespaces::NEWNS
    .union(Namespaces::NEWIPC)
    .union(Namespaces::NEWUTS)
    .union(Namespaces::NEWNET)
    .union(Namespaces::NEWPID);

/// Makes the command's process in its cgroups, or, where it cannot be born there, anywhere; says which.
fn born(entry: &Entry, child: impl Fn(&Entry) -> i32) -> Result<(Child, bool), Failure> {
    let what = "make the process";
    let Some(place) = &entry.unified else {
        return process::clone(Namespaces::empty(), None, || child(entry)).step(what).map(|c| (c, true));
    };
    match process::clone(Namespaces::empty(), Some(place.as_fd()), || child(entry)) {
        Ok(made) => Ok((made, true)),
        Err(_) => {
            let nowhere = Entry::default();
            process::clone(Namespaces::empty(), None, || child(&nowhere)).step(what).map(|c| (c, false))
        }
    }
}

/// Joins the namespaces that are left, and becomes the container's root: no right on the host is left.
pub fn enter(init: &OwnedFd, standing: &Standing) -> Result<(), Failure> {
    let mut kinds = Namespaces::NEWCGROUP;
    if standing.ids != IdMap::Privileged {
        kinds |= Namespaces::NEWUSER;
    }
    namespace::enter(init, kinds).step("enter the namespaces")?;
    process::set_ids(0, 0, &[]).step("become the container's root")
}

fn end(child: &Child) {
    let _ = process::signal(&child.pidfd, KILL);
    let _ = process::wait(&child.pidfd);
}

fn open_streams(spec: &ExecSpec, given: Vec<OwnedFd>) -> Result<Ends, Failure> {
    match spec.streams {
        Streams::Terminal { width, height } => {
            let what = "open a terminal";
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let devpts =
                rustix::fs::openat2(rustix::fs::CWD, "/dev/pts", flags, Mode::empty(), resolve).step(what)?;
            let master = pty::open_master(&devpts).step(what)?;
            let peer = pty::open_peer(&master).step(what)?;
            pty::set_size(&master, width, height).step(what)?;
            rustix::fs::fchown(&peer, Some(Uid::from_raw(spec.uid)), None).step(what)?;
            let second = peer.try_clone().step(what)?;
            let third = peer.try_clone().step(what)?;
            Ok(Ends { command: [peer, second, third], daemon: vec![master] })
        }
        Streams::Pipes => {
            let pipe = || pipe_with(PipeFlags::CLOEXEC).step("make a pipe");
            let ((stdin, input), (output, stdout), (errors, stderr)) = (pipe()?, pipe()?, pipe()?);
            for end in [&stdin, &stdout, &stderr] {
                // So that the command may open /dev/stdout and its like again.
                let owner = (Some(Uid::from_raw(spec.uid)), Some(Gid::from_raw(spec.gid)));
                rustix::fs::fchown(end, owner.0, owner.1).step("make a pipe")?;
            }
            Ok(Ends { command: [stdin, stdout, stderr], daemon: vec![input, output, errors] })
        }
        Streams::Given => <[OwnedFd; 3]>::try_from(given)
            .map(|command| Ends { command, daemon: Vec::new() })
            .map_err(|_| odd("take the given streams", "there are not three")),
    }
}

/// Given pipes are made the command's own, as those made here are. Other things stay as they are: a file of
/// the host must not become the container's.
fn own_pipes(given: &[OwnedFd], spec: &ExecSpec, ids: IdMap) {
    let base = match ids {
        IdMap::Isolated(range) => range.base,
        IdMap::Privileged => 0,
    };
    for stream in given {
        let is_pipe = rustix::fs::fstat(stream).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo
        });
        let (uid, gid) = (base.checked_add(spec.uid), base.checked_add(spec.gid));
        if let (true, Some(uid), Some(gid)) = (is_pipe, uid, gid) {
            // Without it everything works but a second open by name.
            let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
    }
}

fn wait_for_leave(daemon: &OwnedFd) -> Result<(), Failure> {
    let what = "wait for leave to run the command";
    match link::next(daemon, what)? {
        (SessionOrder::Go, _) => Ok(()),
        _ => Err(odd(what, "an order out of order")),
    }
}

/// Lets the command run once the daemon says so.
fn start(daemon: &OwnedFd, begun: Begun) -> Result<Child, SessionProgress> {
    let child = begun.child;
    let started = wait_for_leave(daemon)
        .and_then(|()| release(daemon, &child, &begun.link, begun.streams))
        .map_err(SessionProgress::Failed)
        .and_then(|why| why.map_or(Ok(()), Err));
    if let Err(why) = started {
        end(&child);
        return Err(why);
    }
    Ok(child)
}

/// Hands the command its streams; what it says instead of running, if anything.
fn release(
    daemon: &OwnedFd,
    child: &Child,
    link: &OwnedFd,
    streams: [OwnedFd; 3],
) -> Result<Option<SessionProgress>, Failure> {
    let ends: Vec<_> = streams.iter().map(AsFd::as_fd).collect();
    let told = wire::send(link, &Word::Go, &ends).step("release the command");
    // The command's ends of its streams must be the command's alone, or their end is never seen.
    drop(streams);
    process::close_all_but(&[daemon.as_fd(), child.pidfd.as_fd(), link.as_fd()]).step("close descriptors")?;
    // The daemon does not wait for ever: whoever can stop the command there holds nothing up here.
    loop {
        let mut fds = [PollFd::new(link, PollFlags::IN), PollFd::new(daemon, PollFlags::empty())];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(std::io::Error::from).step("wait for the command")?,
        };
        if !fds[0].revents().is_empty() {
            break;
        }
        if !fds[1].revents().is_empty() {
            return Err(odd("wait for the command", "the daemon is gone"));
        }
    }
    // One that failed before it was told has said why. The end of the socket is the beginning of the program.
    match wire::receive(link).step("wait for the command")? {
        Some((why, _)) => Ok(Some(why)),
        None => told.map(|()| None),
    }
}

/// Passes signals on until the command has ended; the daemon's end ends the command.
fn accompany(daemon: &OwnedFd, child: &Child) -> i32 {
    if wire::send(daemon, &SessionProgress::Started, &[]).is_err() {
        kill_group(child);
    }
    let mut listening = true;
    loop {
        let mut fds = vec![PollFd::new(&child.pidfd, PollFlags::IN)];
        if listening {
            fds.push(PollFd::new(daemon, PollFlags::IN));
        }
        if poll(&mut fds, None).is_err() {
            continue;
        }
        if fds.first().is_some_and(|fd| !fd.revents().is_empty()) {
            break;
        }
        match wire::receive(daemon) {
            Ok(Some((SessionOrder::Signal(number), _))) => {
                let _ = process::signal(&child.pidfd, number);
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                listening = false;
                kill_group(child);
            }
        }
    }
    let progress = match process::wait(&child.pidfd) {
        Ok(Ended::Exited(code)) => SessionProgress::Exited(code),
        Ok(Ended::Killed(signal)) => SessionProgress::Killed(signal),
        Err(_) => return 1,
    };
    let _ = wire::send(daemon, &progress, &[]);
    0
}

/// Kills the command and what shares its process group. It is not reaped yet, so the number is still its.
fn kill_group(child: &Child) {
    let group = i32::try_from(child.pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = process::signal(&child.pidfd, KILL);
}

/// Whether the streams are a terminal, for the command's process.
pub fn terminal(streams: Streams) -> Terminal {
    match streams {
        Streams::Terminal { .. } => Terminal::Controlling,
        Streams::Pipes | Streams::Given => Terminal::None,
    }
}
