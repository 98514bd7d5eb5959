//! Starts a container and watches over it; as `cabin-init exec`, runs one command in a running container; as
//! `cabin-init disk`, mounts disks in one.
//!
//! Run by the daemon with a socket as standard input, over which everything else comes. It copies itself
//! at once and the first process ends: what goes on belongs to nobody who would have to wait for it, and
//! outlives the daemon. One thread, always.

#![forbid(unsafe_code)]

mod accounts;
mod command;
mod confine;
mod console;
mod control;
mod devices;
mod disk;
mod filesystems;
mod link;
mod network;
mod owner;
mod payload;
mod rendered;
mod session;
mod start;
mod watch;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use cabin_runtime::wire::{Failure, Progress, SessionProgress};
use cabin_runtime::{step, wire};
use cabin_sys::namespace::Namespaces;
use cabin_sys::{inheritance, process};
use rustix::fs::{Mode, OFlags};

fn main() -> ExitCode {
    let mode = std::env::args_os().nth(1).unwrap_or_default();
    if mode == wire::DISK_MODE {
        return mount_disks();
    }
    let session = mode == wire::EXEC_MODE;
    let Err(error) = detach(session) else { return ExitCode::SUCCESS };
    // Nobody may be there to hear it; then its end is all there is to tell.
    let failure = Failure::new("go on in a process of its own", &error);
    let _ = match session {
        true => wire::send(rustix::stdio::stdin(), &SessionProgress::Failed(failure), &[]),
        false => wire::send(rustix::stdio::stdin(), &Progress::Failed(failure), &[]),
    };
    ExitCode::FAILURE
}

/// The daemon waits for this one, and ends it when it takes too long.
fn mount_disks() -> ExitCode {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3);
    match socket.map_err(io::Error::from).and_then(|socket| settle(&socket).map(|()| socket)) {
        Ok(socket) => disk::run(&socket),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Goes on in a copy that nobody has to wait for.
fn detach(session: bool) -> io::Result<()> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    process::clone(Namespaces::empty(), None, || match settle(&socket) {
        Err(_) => 1,
        Ok(()) if session => session::run(&socket),
        Ok(()) => start::run(socket),
    })?;
    Ok(())
}

/// Leaves everything of the daemon's behind but the socket.
fn settle(socket: &OwnedFd) -> io::Result<()> {
    process::close_all_but(&[socket.as_fd()])?;
    process::set_dumpable(false)?;
    inheritance::shed_scheduling()?;
    // Somebody waits for the container or the command. The guest's init has the usual turns: it is made, not become.
    inheritance::take_short_turns()?;
    let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for standard in 0..3 {
        process::place(&nothing, standard)?;
    }
    rustix::process::setsid()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chdir("/")?;
    Ok(())
}
