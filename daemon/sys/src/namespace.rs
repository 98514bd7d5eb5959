//! Entering and making namespaces (namespaces(7)). Only for single-threaded helper processes: a daemon's
//! threads stay where they are.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub use rustix::thread::UnshareFlags as Namespaces;

use crate::process;

/// One run of ids in a user namespace (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRun {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Moves the calling process into new namespaces.
///
/// # Errors
/// As unshare(2).
pub fn unshare(what: Namespaces) -> io::Result<()> {
    let flags = i32::try_from(what.bits()).map_err(io::Error::other)?;
    // SAFETY: namespace flags change where paths, ids and names lead, never this process's memory or its
    // descriptor table.
    let done = unsafe { libc::unshare(flags) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Joins namespaces: those of the process behind a pidfd that `what` names, or the one namespace that `fd`
/// is (then `what` is its kind, or empty for "whatever it is").
///
/// # Errors
/// As setns(2).
pub fn enter(fd: impl AsFd, what: Namespaces) -> io::Result<()> {
    let flags = i32::try_from(what.bits()).map_err(io::Error::other)?;
    // SAFETY: a descriptor and flags; as for `unshare`, memory is not concerned.
    let done = unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes the user and group maps of the user namespace of process `pid`, which must not have any yet.
///
/// # Errors
/// As write(2) on `/proc/PID/uid_map`; `EPERM` without `CAP_SETUID`/`CAP_SETGID` over the parent namespace.
pub fn write_id_maps(pid: u32, users: &[IdRun], groups: &[IdRun]) -> io::Result<()> {
    // One write(2) per file: the kernel takes a map whole or not at all.
    fs::write(format!("/proc/{pid}/uid_map"), lines(users))?;
    fs::write(format!("/proc/{pid}/gid_map"), lines(groups))
}

fn lines(map: &[IdRun]) -> String {
    map.iter().map(|run| format!("{} {} {}\n", run.inside, run.outside, run.count)).collect()
}

/// A user namespace with these maps, for users and groups alike. A child makes it and is gone when this
/// returns; only the descriptor keeps the namespace. Single-threaded callers only ([`process::clone`]).
///
/// # Errors
/// As clone3(2) and [`write_id_maps`].
pub fn user_namespace(map: &[IdRun]) -> io::Result<OwnedFd> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // The child sleeps in a read that ends when the parent lets go of the writing end, dead or alive.
    let writer = theirs.as_raw_fd();
    let child = process::clone(Namespaces::NEWUSER, None, || {
        process::close_raw(writer);
        let mut byte = [0u8; 1];
        let _ = rustix::io::retry_on_intr(|| rustix::io::read(&ours, &mut byte));
        0
    })?;
    let made = write_id_maps(child.pid, map, map)
        .and_then(|()| Ok(fs::File::open(format!("/proc/{}/ns/user", child.pid))?.into()));
    drop(theirs);
    process::wait(&child.pidfd)?;
    made
}

/// Sets the host name of the UTS namespace the caller is in.
///
/// # Errors
/// As sethostname(2); longer than 64 bytes is `EINVAL`.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Whether `a` and `b` are the same namespace (or, generally, the same inode).
///
/// # Errors
/// As fstat(2).
pub fn same(a: impl AsFd, b: impl AsFd) -> io::Result<bool> {
    let (a, b) = (rustix::fs::fstat(a)?, rustix::fs::fstat(b)?);
    Ok(a.st_dev == b.st_dev && a.st_ino == b.st_ino)
}
