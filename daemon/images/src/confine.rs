//! Shutting the unpacking process in before it looks at the first hostile byte.
//!
//! It gets a user namespace of its own whose ids are a private range of the host, a mount view that holds
//! the target and nothing else, no network, few capabilities even there, resource limits, Landlock and a
//! list of the system calls it needs. The target is an idmapped mount: what the process makes as its own
//! root lies on disk as root of the image, without the process being root of anything else.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

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

/// Confines this process for good. What comes back is the target, or an empty directory when there is none.
pub(crate) fn confine(target: Option<BorrowedFd<'_>>, ids: IdRange, limits: Limits) -> Result<OwnedFd> {
    step("no new privileges", process::set_no_new_privs())?;
    let map = [IdRun { inside: 0, outside: ids.base, count: ids.size }];
    let userns = step("user namespace", namespace::user_namespace(&map))?;
    let idmapped = target.map(|dir| {
        use std::os::fd::AsFd;
        mount::clone_idmapped(dir, "", userns.as_fd())
    });
    let idmapped = step("idmapped target (the filesystem must allow it)", idmapped.transpose())?;
    step("enter the user namespace", namespace::enter(&userns, Namespaces::NEWUSER))?;
    step("become its root", process::set_ids(0, 0, &[]))?;
    let others = Namespaces::NEWNS | Namespaces::NEWNET | Namespaces::NEWIPC | Namespaces::NEWUTS;
    step("namespaces", namespace::unshare(others | Namespaces::NEWCGROUP))?;
    step("private mounts", mount::make_all_private())?;
    let root = match idmapped {
        Some(tree) => tree,
        None => step("empty root", mount::filesystem("tmpfs", &[("size", "4k")], mount::INERT))?,
    };
    step("attributes of the root", mount::set_attributes(&root, mount::INERT, mount::Depth::One))?;
    step("mount the root", mount::attach(&root, CWD, "/"))?;
    step("pivot", mount::pivot_into(&root))?;
    rustix::process::umask(Mode::empty());
    // A change of ids takes this setting away, so it comes after.
    step("death signal", process::set_parent_death_signal(Some(libc::SIGKILL)))?;
    let needed = Caps::CHOWN | Caps::DAC_OVERRIDE | Caps::FOWNER | Caps::FSETID | Caps::SETFCAP;
    step("capabilities", caps::clear_inherited())?;
    step("capabilities", caps::drop_for_good(Caps::all().difference(needed)))?;
    for (name, limit) in [
        ("fsize", limits.expanded),
        ("as", MEMORY),
        ("cpu", CPU),
        ("nofile", 64),
        ("core", 0),
        ("memlock", 0),
    ] {
        step("resource limits", process::set_rlimit(name, Some(limit), Some(limit)))?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = step("open the root", rustix::fs::open("/", flags, Mode::empty()).map_err(Into::into))?;
    let allowed = {
        use std::os::fd::AsFd;
        [(open.as_fd(), Access::All)]
    };
    step("landlock", landlock::restrict(if target.is_some() { &allowed } else { &[] }, Tcp::Denied))?;
    step("system call filter", seccomp::load(&filter()))?;
    Ok(open)
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

fn filter() -> Vec<Instruction> {
    let op = |code, k| Instruction { code, jt: 0, jf: 0, k };
    let jump = |k, jt, jf| Instruction { code: EQUALS, jt, jf, k };
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    // Offsets into seccomp_data: the call 0, the architecture 4, the third argument 32.
    let mut program = vec![op(LOAD, 4), jump(ARCHITECTURE, 1, 0), op(RETURN, KILL), op(LOAD, 0)];
    for call in CALLS {
        program.push(jump(number(*call), 0, 1));
        program.push(op(RETURN, ALLOW));
    }
    // mknodat makes pipes and nothing else.
    program.push(jump(number(libc::SYS_mknodat), 0, 4));
    program.extend([op(LOAD, 32), op(AND, 0o170_000), jump(0o010_000, 0, 1), op(RETURN, ALLOW)]);
    program.push(op(RETURN, REFUSE));
    program
}
