//! The session keyring (keyrings(7)).

use std::io;

/// `KEYCTL_JOIN_SESSION_KEYRING` of keyctl(2).
const JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Leaves the inherited session keyring for a new, empty, nameless one.
///
/// # Errors
/// As keyctl(2); `ENOSYS` on a kernel without keys.
pub fn join_new_session() -> io::Result<()> {
    // SAFETY: the command takes one pointer, and NULL asks for a nameless keyring; no memory is touched.
    let done =
        unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
