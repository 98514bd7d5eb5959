//! Shutting the unpacking process in before it looks at the first hostile byte.
//!
//! It gets a user namespace of its own whose ids are a private range of the host, a mount view that holds
//! the target and nothing else, no network, few capabilities even there, resource limits, Landlock and a
//! list of the system calls it needs. The target is an idmapped mount: what the process makes as its own
//! root lies on disk as root of the image, without the process being root of anything else.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cabin_sys::caps::{self, Caps};
use cabin_sys::landlock::{self, Access, Tcp};
use cabin_sys::mount;
use cabin_sys::namespace::{self, IdRun, Namespaces};
use cabin_sys::process;
use cabin_sys::seccomp::{self, Instruction};
use rustix::fs::{CWD, Mode, OFlags};

use crate::error::{Error, Result};
use crate::message::{IdRange, Limits};

/// Address space of the process, in bytes: decoder windows, tables of large images.
const MEMORY: u64 = 2 << 30;
/// Processor time, in seconds.
const CPU: u64 = 3600;

fn step<T>(step: &'static str, done: io::Result<T>) -> Result<T> {
    done.map_err(|source| Error::Confine { step, source })
}

/// Confines this process for good; `streams` says whether it does what streams of btrfs say. What comes back are the targets, in their order.
pub(crate) fn confine(
    targets: &[OwnedFd],
    ids: IdRange,
    limits: Limits,
    streams: bool,
) -> Result<Vec<OwnedFd>> {
    step("no new privileges", process::set_no_new_privs())?;
    let map = [IdRun { inside: 0, outside: ids.base, count: ids.size }];
    let userns = step("user namespace", namespace::user_namespace(&map))?;
    let idmapped: io::Result<Vec<OwnedFd>> =
        targets.iter().map(|dir| mount::clone_idmapped(dir, "", userns.as_fd())).collect();
    let idmapped = step("idmapped target (the filesystem must allow it)", idmapped)?;
    step("enter the user namespace", namespace::enter(&userns, Namespaces::NEWUSER))?;
    step("become its root", process::set_ids(0, 0, &[]))?;
    let others = Namespaces::NEWNS | Namespaces::NEWNET | Namespaces::NEWIPC | Namespaces::NEWUTS;
    step("namespaces", namespace::unshare(others | Namespaces::NEWCGROUP))?;
    step("private mounts", mount::make_all_private())?;
    let roots = step("mount the targets", show(&idmapped))?;
    rustix::process::umask(Mode::empty());
    // A change of ids takes this setting away, so it comes after.
    step("death signal", process::set_parent_death_signal(Some(libc::SIGKILL)))?;
    let needed = Caps::CHOWN | Caps::DAC_OVERRIDE | Caps::FOWNER | Caps::FSETID | Caps::SETFCAP;
    step("capabilities", caps::clear_inherited())?;
    step("capabilities", caps::drop_for_good(Caps::all().difference(needed)))?;
    let files = 64 + 2 * u64::try_from(targets.len()).unwrap_or(0);
    for (name, limit) in [
        ("fsize", limits.expanded),
        ("as", MEMORY),
        ("cpu", CPU),
        ("nofile", files),
        ("core", 0),
        ("memlock", 0),
    ] {
        step("resource limits", process::set_rlimit(name, Some(limit), Some(limit)))?;
    }
    let allowed: Vec<_> = roots.iter().map(|root| (root.as_fd(), Access::All)).collect();
    step("landlock", landlock::restrict(&allowed, Tcp::Denied))?;
    step("system call filter", seccomp::load(&filter(streams)))?;
    Ok(roots)
}

/// Makes the targets all there is to be seen: a single one is the root, several lie side by side in an empty
/// one.
fn show(targets: &[OwnedFd]) -> io::Result<Vec<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &str| Ok(rustix::fs::open(path, flags, Mode::empty())?);
    for target in targets {
        mount::set_attributes(target, mount::INERT, mount::Depth::One)?;
    }
    if let [only] = targets {
        mount::attach(only, CWD, "/")?;
        mount::pivot_into(only)?;
        return Ok(vec![open("/")?]);
    }
    let root = mount::filesystem("tmpfs", &[("size", "64k")], mount::INERT)?;
    mount::attach(&root, CWD, "/")?;
    for (number, target) in targets.iter().enumerate() {
        let name = number.to_string();
        rustix::fs::mkdirat(&root, &name, Mode::from_raw_mode(0o700))?;
        mount::attach(target, &root, &name)?;
    }
    mount::pivot_into(&root)?;
    (0..targets.len()).map(|number| open(&format!("/{number}"))).collect()
}

/// What reading a file, making a tree and talking on a socket take, and nothing else.
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_sendmsg,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fsetxattr,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_sched_yield,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What doing what a stream says takes beyond that: moving files about, and hearing that a subvolume is there.
const STREAM_CALLS: &[libc::c_long] = &[
    libc::SYS_recvmsg,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fremovexattr,
    libc::SYS_getdents64,
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const REFUSE: u32 = 0x0005_0000 | 1;

const LOAD: u16 = 0x20;
const EQUALS: u16 = 0x15;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

fn filter(streams: bool) -> Vec<Instruction> {
    let op = |code, k| Instruction { code, jt: 0, jf: 0, k };
    let jump = |k, jt, jf| Instruction { code: EQUALS, jt, jf, k };
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    // Offsets into seccomp_data: the call 0, the architecture 4, the third argument 32.
    let mut program = vec![op(LOAD, 4), jump(ARCHITECTURE, 1, 0), op(RETURN, KILL), op(LOAD, 0)];
    let more = if streams { STREAM_CALLS } else { &[] };
    for call in CALLS.iter().chain(more) {
        program.push(jump(number(*call), 0, 1));
        program.push(op(RETURN, ALLOW));
    }
    if streams {
        // ioctl shares parts of files and nothing else: its second argument lies at 24.
        let share = u32::try_from(cabin_sys::btrfs::stream::share_range_request()).unwrap_or(0);
        program.push(jump(number(libc::SYS_ioctl), 0, 4));
        program.extend([op(LOAD, 24), jump(share, 0, 1), op(RETURN, ALLOW), op(RETURN, REFUSE)]);
    }
    // mknodat makes pipes and nothing else.
    program.push(jump(number(libc::SYS_mknodat), 0, 4));
    program.extend([op(LOAD, 32), op(AND, 0o170_000), jump(0o010_000, 0, 1), op(RETURN, ALLOW)]);
    program.push(op(RETURN, REFUSE));
    program
}
