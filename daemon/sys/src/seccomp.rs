//! Loading a system call filter (seccomp(2)). What the filter says is decided elsewhere.

use std::io;

/// One instruction of classic BPF.
pub type Instruction = libc::sock_filter;

/// The most instructions one filter may have (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Makes `program` the filter of the calling thread and of all it will start. It cannot be taken off.
///
/// # Errors
/// As seccomp(2): `EACCES` without `CAP_SYS_ADMIN` in the thread's user namespace and without
/// no_new_privs; `InvalidInput` for an empty or too long program.
pub fn load(program: &[Instruction]) -> io::Result<()> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points at `len` instructions that live until the call returns; the kernel copies
    // and checks them and writes nothing.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&program))
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
