//! What a process has from the one that started it and keeps over every exec: how the kernel schedules it and
//! lays out its memory.

use std::io;

/// Linux's own personality (personality(2)).
const LINUX: libc::c_ulong = 0;
/// What the kernel gives the first process, in nanoseconds: how late a timer may be, so that several end together.
const TIMER_SLACK: libc::c_ulong = 50_000;
/// `IOPRIO_WHO_PROCESS` of ioprio_set(2).
const ONE_PROCESS: libc::c_int = 1;
/// `IOPRIO_CLASS_NONE`: as the nice value has it.
const AS_NICE_HAS_IT: libc::c_int = 0;
/// The shortest turn that the kernel gives, in nanoseconds.
const SHORT_TURN: u64 = 100_000;
/// Room for more processors than any kernel can be built for.
const PROCESSORS: [u8; 1024] = [0xff; 1024];

/// Runs the calling thread as the kernel runs the first one of a host: nice 0, the usual scheduling policy, every
/// processor and memory node its cgroup has, the usual personality, disk priority and timer slack.
///
/// What it has no right to is left as it is: in a container that holds a daemon, the host may have set it.
///
/// # Errors
/// As the calls' own, apart from the lack of a right or of the call.
pub fn shed_scheduling() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: a number in, a number out.
    shed(i64::from(unsafe { libc::personality(LINUX) }))?;
    // The policy first: a nice value means nothing to the real-time ones.
    // SAFETY: `param` is only read, and outlives the call.
    shed(i64::from(unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const param) }))?;
    // SAFETY: numbers alone.
    shed(i64::from(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) }))?;
    // SAFETY: numbers alone.
    shed(unsafe { libc::syscall(libc::SYS_ioprio_set, ONE_PROCESS, 0, AS_NICE_HAS_IT) })?;
    // SAFETY: the mask is only read, as far as the length given with it.
    shed(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, PROCESSORS.len(), PROCESSORS.as_ptr()) })?;
    // SAFETY: no node mask is read: NULL with the length 0 is the empty one, which the default policy wants.
    shed(unsafe {
        libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_DEFAULT, std::ptr::null::<libc::c_ulong>(), 0)
    })?;
    // SAFETY: numbers alone.
    shed(i64::from(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK) }))
}

fn shed(returned: i64) -> io::Result<()> {
    if returned >= 0 {
        return Ok(());
    }
    let why = io::Error::last_os_error();
    match why.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Ok(()),
        _ => Err(why),
    }
}

/// Asks to run for short turns, but soon, for as long as the calling thread lives: among many that want a processor it is
/// then among the first to get one, with the same share of it. What it makes later has the usual turns.
///
/// A kernel that knows no turns (before Linux 6.12) takes no notice.
///
/// # Errors
/// As sched_setattr(2), apart from the lack of a right or of the call.
pub fn take_short_turns() -> io::Result<()> {
    let wish = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: SHORT_TURN,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: `wish` is only read, as far as the length in it, and outlives the call.
    shed(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) })
}
