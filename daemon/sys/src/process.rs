//! Making, watching and shedding the inheritance of processes.
//!
//! [`clone`] copies the whole process and is refused when it has more than one thread: the copy would keep
//! locks of threads it does not have. Helpers use it, the daemon does not.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::{self, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use rustix::thread::{CapabilitiesSecureBits, Gid, Uid};

use crate::namespace::Namespaces;

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process made by [`clone`].
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's pid namespace.
    pub pid: u32,
    /// The handle that never means another process.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Whether the calling process has this one thread only, and shares its memory with nobody.
#[must_use]
pub fn is_single_threaded() -> bool {
    // unshare(2): CLONE_VM has no effect on a single-threaded process and is refused for any other. Unlike
    // a look into /proc it works in any mount namespace.
    // SAFETY: with this flag alone the call changes nothing, whether it succeeds or fails.
    unsafe { libc::unshare(libc::CLONE_VM) == 0 }
}

/// Copies the process into new namespaces, the copy into a cgroup2 directory if one is given. The copy runs
/// `child` and exits with its result; it never returns from here.
///
/// # Errors
/// `Unsupported` when the process has several threads; else as clone3(2).
pub fn clone(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> i32,
) -> io::Result<Child> {
    if !is_single_threaded() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the process has several threads"));
    }
    let mut pidfd: libc::c_int = -1;
    let mut flags = u64::from(namespaces.bits()) | u64::try_from(libc::CLONE_PIDFD).unwrap_or(0);
    let mut group = 0;
    if let Some(fd) = cgroup {
        flags |= CLONE_INTO_CGROUP;
        group = u64::try_from(fd.as_raw_fd()).map_err(io::Error::other)?;
    }
    let args = CloneArgs {
        flags,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        exit_signal: u64::try_from(libc::SIGCHLD).unwrap_or(0),
        cgroup: group,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM the child gets a copy of all memory and goes on on a copy of this stack, so
    // nothing is shared; the process has one thread, so no lock is held by somebody who is not copied.
    // `args` has the kernel's layout and the length given, and `pidfd` outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&args), size_of::<CloneArgs>()) };
    match pid {
        0 => {
            // An unwinding panic must not run on into the parent's code.
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
            exit_now(code)
        }
        pid if pid > 0 => {
            // SAFETY: the kernel put a new descriptor of ours there.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: u32::try_from(pid).unwrap_or(0), pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the process at once: no destructors, no buffers written.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// A handle for the process with this number.
///
/// # Errors
/// As pidfd_open(2): `ESRCH` when there is none.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    Ok(process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal by number, real-time ones included.
///
/// # Errors
/// As pidfd_send_signal(2): `ESRCH` when the process has ended.
pub fn signal(pidfd: impl AsFd, number: i32) -> io::Result<()> {
    let Some(signal) = Signal::from_named_raw(number) else { return signal_raw(pidfd.as_fd(), number) };
    Ok(process::pidfd_send_signal(pidfd, signal)?)
}

fn signal_raw(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: no siginfo is given, so the kernel reads no memory of ours.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits for a child to end, and reaps it.
///
/// # Errors
/// As waitid(2): `ECHILD` when it is not the caller's child.
pub fn wait(pidfd: impl AsFd) -> io::Result<Ended> {
    loop {
        match process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(ended(&status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Like [`wait`], but `None` at once when it still runs.
///
/// # Errors
/// As waitid(2).
pub fn try_wait(pidfd: impl AsFd) -> io::Result<Option<Ended>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    Ok(process::waitid(WaitId::PidFd(pidfd.as_fd()), options)?.as_ref().map(ended))
}

/// Reaps any one child that has ended; `None` when none has.
///
/// # Errors
/// As waitid(2), but having no children is `None`.
pub fn reap_any() -> io::Result<Option<Ended>> {
    match process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(status) => Ok(status.as_ref().map(ended)),
        Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn ended(status: &WaitIdStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, signal) => Ended::Killed(signal.unwrap_or(0)),
    }
}

/// Closes every descriptor but standard ones and `keep`.
///
/// # Errors
/// As close_range(2).
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    keep.sort_unstable();
    let mut first = 3u32;
    for fd in keep.into_iter().filter(|fd| *fd >= 3) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd.saturating_add(1));
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: memory is not concerned. Descriptors owned elsewhere in the process may be closed: that is what
    // the callers ask for, right after exec or clone, and they use none but those they keep.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes one descriptor by number: in a copied process, where its owner lives in the other copy.
pub fn close_raw(fd: RawFd) {
    // SAFETY: memory is not concerned; a number that is not open is refused by the kernel.
    unsafe { libc::close(fd) };
}

/// Takes over a descriptor the program was started with.
///
/// # Errors
/// As fcntl(2): `EBADF` when it is not open; `InvalidInput` for the standard ones.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 3 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: F_GETFD/F_SETFD touch no memory.
    let open = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if open < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and a program calls this once for each number at its start, before anything else
    // could have got it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts `fd` at the number `target` (dup2), not close-on-exec: what the next program will see there.
///
/// # Errors
/// As dup3(2), fcntl(2).
pub fn place(fd: impl AsFd, target: RawFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is touched; whatever was open at `target` is replaced, which is what is asked for.
    let done =
        unsafe { if fd == target { libc::fcntl(fd, libc::F_SETFD, 0) } else { libc::dup2(fd, target) } };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Asks to be sent `number` when the thread that made this process ends; `None` takes it back. The caller
/// checks afterwards that it has not ended already.
///
/// # Errors
/// As prctl(2).
pub fn set_parent_death_signal(number: Option<i32>) -> io::Result<()> {
    Ok(process::set_parent_process_death_signal(number.and_then(Signal::from_named_raw))?)
}

/// Whether others with the same ids may look into this process (and whether it may leave a core).
///
/// # Errors
/// As prctl(2).
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    use process::DumpableBehavior::{Dumpable, NotDumpable};
    Ok(process::set_dumpable_behavior(if dumpable { Dumpable } else { NotDumpable })?)
}

/// No program that the calling thread starts from here on gains rights by setuid or file capabilities. For good.
///
/// # Errors
/// As prctl(2).
pub fn set_no_new_privs() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Whether changes of user ids leave the capability sets alone (`SECBIT_NO_SETUID_FIXUP`).
///
/// # Errors
/// As prctl(2).
pub fn keep_caps_over_setuid(keep: bool) -> io::Result<()> {
    let bits = if keep { CapabilitiesSecureBits::NO_SETUID_FIXUP } else { CapabilitiesSecureBits::empty() };
    Ok(rustix::thread::set_capabilities_secure_bits(bits)?)
}

/// Sets the ids that count for file access only, of the calling thread.
///
/// # Errors
/// `PermissionDenied` when the kernel kept the old ones (setfsuid(2) itself cannot fail).
pub fn set_fs_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: numbers in, numbers out.
    let now = unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
        // An id no process may have asks without changing.
        (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX))
    };
    if now == (uid.cast_signed(), gid.cast_signed()) {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::PermissionDenied))
    }
}

/// Becomes this user and group for good, with these further groups. The calling thread only: helpers have
/// no other.
///
/// # Errors
/// As setgroups(2), setresgid(2), setresuid(2); `InvalidInput` for the number that there stands for leaving an id as it is.
pub fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    if uid == u32::MAX || gid == u32::MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let groups: Vec<Gid> = groups.iter().map(|g| Gid::from_raw(*g)).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Gives every signal its default action and blocks none, as a new program expects.
///
/// # Errors
/// As sigprocmask(2).
pub fn reset_signals() -> io::Result<()> {
    // The kernel's `struct sigaction` on x86-64: handler, flags, restorer, mask. All zero is the default.
    let default = [0u64; 4];
    for number in 1..=64 {
        // The call itself and not the C library's, which keeps two signals to itself and would leave them
        // ignored when they were inherited so.
        // SAFETY: the default action runs no code of ours; `default` has the layout and mask size given and
        // is only read. KILL and STOP refuse, which is right.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: all zero is a valid sigset_t, initialised by sigemptyset before it is read.
    let done = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Names of resource limits as configuration keys spell them, with their numbers.
pub const RLIMITS: &[(&str, u32)] = &[
    ("as", libc::RLIMIT_AS),
    ("core", libc::RLIMIT_CORE),
    ("cpu", libc::RLIMIT_CPU),
    ("data", libc::RLIMIT_DATA),
    ("fsize", libc::RLIMIT_FSIZE),
    ("locks", libc::RLIMIT_LOCKS),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("nofile", libc::RLIMIT_NOFILE),
    ("nproc", libc::RLIMIT_NPROC),
    ("rss", libc::RLIMIT_RSS),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("rttime", libc::RLIMIT_RTTIME),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("stack", libc::RLIMIT_STACK),
];

/// Sets a resource limit of the calling process by name; `None` is unlimited.
///
/// # Errors
/// `InvalidInput` for a name not in [`RLIMITS`]; else as setrlimit(2).
pub fn set_rlimit(name: &str, soft: Option<u64>, hard: Option<u64>) -> io::Result<()> {
    set_rlimit_of(0, name, soft, hard)
}

/// Sets a resource limit of process `pid` (0: the caller) by name; `None` is unlimited.
///
/// # Errors
/// `InvalidInput` for a name not in [`RLIMITS`]; else as prlimit(2).
pub fn set_rlimit_of(pid: u32, name: &str, soft: Option<u64>, hard: Option<u64>) -> io::Result<()> {
    let number = rlimit_number(name)?;
    let limit = libc::rlimit {
        rlim_cur: soft.unwrap_or(libc::RLIM_INFINITY),
        rlim_max: hard.unwrap_or(libc::RLIM_INFINITY),
    };
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: `limit` is only read, and lives until the call returns; no old limit is asked for.
    let done = unsafe { libc::prlimit(pid, number, &raw const limit, std::ptr::null_mut()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The hard limit of the calling process by name; `None` is unlimited.
///
/// # Errors
/// `InvalidInput` for a name not in [`RLIMITS`]; else as getrlimit(2).
pub fn hard_rlimit(name: &str) -> io::Result<Option<u64>> {
    let number = rlimit_number(name)?;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is written by the kernel, and outlives the call; no new limit is given.
    let done = unsafe { libc::prlimit(0, number, std::ptr::null(), &raw mut limit) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((limit.rlim_max != libc::RLIM_INFINITY).then_some(limit.rlim_max))
}

fn rlimit_number(name: &str) -> io::Result<u32> {
    let known = RLIMITS.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number).ok_or(io::Error::from(io::ErrorKind::InvalidInput))
}

/// Sets how readily the out-of-memory killer takes process `pid` (-1000 never, 1000 first).
///
/// # Errors
/// As write(2) on `/proc/PID/oom_score_adj`.
pub fn set_oom_score_adj(pid: u32, value: i32) -> io::Result<()> {
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), value.to_string())
}

/// Gives free heap back to the kernel, before a long wait.
pub fn give_back_memory() {
    // SAFETY: only memory the allocator knows to be free is returned.
    unsafe { libc::malloc_trim(0) };
}

/// Becomes the program `path`. Returns only when it could not.
#[must_use]
pub fn exec(path: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let list = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (list(argv), list(env));
    // SAFETY: both lists end with a null pointer and point at C strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_cannot_be_copied() {
        let (_keep, wait) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || wait.recv());
        assert_eq!(clone(Namespaces::empty(), None, || 0).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn an_unknown_limit_is_refused() {
        assert_eq!(set_rlimit("files", None, None).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(RLIMITS.iter().any(|(name, _)| *name == "nofile"));
    }

    #[test]
    fn ids_for_file_access_change_and_come_back() {
        if rustix::process::geteuid().is_root() {
            set_fs_ids(1234, 4321).unwrap();
            set_fs_ids(0, 0).unwrap();
        }
    }
}
