//! Confining the calling thread to a list of files (landlock(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: libc::c_uint = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: libc::c_int = 1;

const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
/// Removing, making and linking names: bits 4 to 13.
const NAMES: u64 = 0x3ff0;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;

/// What may be done beneath one directory, or to one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read files and list directories.
    Read,
    /// Read, list and execute.
    Execute,
    /// Read and write files that are there; nothing is made or removed.
    Write,
    /// Everything.
    All,
}

/// Whether TCP may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tcp {
    /// As before.
    Unchanged,
    /// Neither bind nor connect (on kernels that can hold this; older ones leave it unchanged).
    Denied,
}

#[repr(C)]
struct Ruleset {
    fs: u64,
    net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// The version of Landlock this kernel has; 0 when it has none.
#[must_use]
pub fn version() -> u32 {
    // SAFETY: with a null ruleset of size 0 and this flag the call only answers a number.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Ruleset>(), 0usize, VERSION)
    };
    u32::try_from(version).unwrap_or(0)
}

/// From here on the thread and its children reach only what is beneath the listed directories, as far as
/// each entry says. Descriptors already open stay as they are. The thread needs no_new_privs or
/// `CAP_SYS_ADMIN`.
///
/// # Errors
/// `Unsupported` when the kernel has no Landlock; else as landlock_restrict_self(2).
pub fn restrict(allow: &[(BorrowedFd<'_>, Access)], tcp: Tcp) -> io::Result<()> {
    let version = version();
    let handled = match version {
        0 => return Err(io::Error::from(io::ErrorKind::Unsupported)),
        // 1 could not allow a rename across directories (bit 13) and refused it always.
        1 => EXECUTE | WRITE_FILE | READ_FILE | READ_DIR | (NAMES & !(1 << 13)),
        2 => EXECUTE | WRITE_FILE | READ_FILE | READ_DIR | NAMES,
        3 | 4 => EXECUTE | WRITE_FILE | READ_FILE | READ_DIR | NAMES | TRUNCATE,
        _ => EXECUTE | WRITE_FILE | READ_FILE | READ_DIR | NAMES | TRUNCATE | IOCTL_DEV,
    };
    let net = if version >= 4 && tcp == Tcp::Denied { 3 } else { 0 };
    let size = if version >= 4 { 16usize } else { 8 };
    let ruleset = Ruleset { fs: handled, net, scoped: 0 };
    // SAFETY: `ruleset` is at least `size` bytes long and only read.
    let fd =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::from_ref(&ruleset), size, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call just made this descriptor for us, and nobody else knows it.
    let rules = unsafe { OwnedFd::from_raw_fd(fd) };
    for (object, access) in allow {
        add(&rules, *object, *access, handled)?;
    }
    // SAFETY: a descriptor and a number; no memory is touched.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn add(rules: &OwnedFd, object: BorrowedFd<'_>, access: Access, handled: u64) -> io::Result<()> {
    let wanted = match access {
        Access::Read => READ_FILE | READ_DIR,
        Access::Execute => READ_FILE | READ_DIR | EXECUTE,
        Access::Write => READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | IOCTL_DEV,
        Access::All => handled,
    };
    let stat = rustix::fs::fstat(object.as_fd())?;
    let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    // The kernel refuses rights of directories on a file.
    let fits = if is_dir { handled } else { EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV };
    let rule = PathBeneath { allowed: wanted & handled & fits, parent: object.as_raw_fd() };
    // SAFETY: `rule` has the layout of `landlock_path_beneath_attr` and is only read.
    let done = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_raw_fd(),
            PATH_BENEATH,
            std::ptr::from_ref(&rule),
            0,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use std::fs;
    use std::io::ErrorKind::PermissionDenied;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_restricted_thread_reaches_what_is_allowed_and_no_other_path() {
        assert!(version() > 0, "a kernel with Landlock is needed (lsm=landlock,… on its command line)");
        let place = std::env::temp_dir().join(format!("cabin-landlock-{}", std::process::id()));
        for part in ["all", "read", "none"] {
            fs::create_dir_all(place.join(part)).unwrap();
            fs::write(place.join(part).join("file"), part).unwrap();
        }
        let beside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inside = || {
            let open = |part: &str| fs::File::open(place.join(part)).unwrap();
            let (all, read) = (open("all"), open("read"));
            crate::process::set_no_new_privs().unwrap();
            restrict(&[(all.as_fd(), Access::All), (read.as_fd(), Access::Read)], Tcp::Denied).unwrap();
            let refused = |done: io::Result<()>| done.is_err_and(|why| why.kind() == PermissionDenied);
            fs::write(place.join("all/new"), "new").unwrap();
            fs::rename(place.join("all/new"), place.join("all/newer")).unwrap();
            assert_eq!(fs::read_to_string(place.join("read/file")).unwrap(), "read");
            assert!(refused(fs::write(place.join("read/file"), "x")), "written where reading is allowed");
            assert!(refused(fs::write(place.join("read/new"), "x")), "made where reading is allowed");
            assert!(refused(fs::read(place.join("none/file")).map(drop)), "read beside what is allowed");
            assert!(refused(fs::read_dir("/").map(drop)), "the root directory is listed");
            // The kernel says either that it may not be or that the two are apart.
            assert!(fs::hard_link(place.join("none/file"), place.join("all/link")).is_err(), "linked in");
            if version() >= 4 {
                let reached = std::net::TcpStream::connect(beside.local_addr().unwrap());
                assert!(refused(reached.map(drop)), "a socket is connected");
            }
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap());
        assert_eq!(fs::read_to_string(place.join("none/file")).unwrap(), "none", "and no other thread is");
        fs::remove_dir_all(place).unwrap();
    }
}
