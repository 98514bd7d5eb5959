//! Pseudo-terminals of a given devpts, and the terminal of a session.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::{self, Winsize};

/// `DEVPTS_SUPER_MAGIC` of statfs(2).
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Opens a new, unlocked master in the devpts whose root directory is `devpts`. The caller makes sure that
/// nobody hostile can put another filesystem there; that it is a devpts at all is checked.
///
/// # Errors
/// As openat2(2) on `ptmx`; `InvalidInput` when the directory is no devpts.
pub fn open_master(devpts: impl AsFd) -> io::Result<OwnedFd> {
    if u64::try_from(rustix::fs::fstatfs(&devpts)?.f_type).unwrap_or(0) != DEVPTS_MAGIC {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let master = rustix::fs::openat2(
        devpts,
        "ptmx",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )?;
    rustix::pty::unlockpt(&master)?;
    Ok(master)
}

/// The other end of a master, found without a path (`TIOCGPTPEER`).
///
/// # Errors
/// As ioctl_tty(2).
pub fn open_peer(master: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::pty::ioctl_tiocgptpeer(
        master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?)
}

/// Tells the terminal its size in characters; its foreground processes get SIGWINCH.
///
/// # Errors
/// As ioctl_tty(2) with `TIOCSWINSZ`.
pub fn set_size(terminal: impl AsFd, width: u16, height: u16) -> io::Result<()> {
    Ok(termios::tcsetwinsize(
        terminal,
        Winsize { ws_col: width, ws_row: height, ws_xpixel: 0, ws_ypixel: 0 },
    )?)
}

/// The size of the terminal in characters: width, height.
///
/// # Errors
/// As ioctl_tty(2) with `TIOCGWINSZ`.
pub fn size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let size = termios::tcgetwinsize(terminal)?;
    Ok((size.ws_col, size.ws_row))
}

/// Starts a session of its own for the calling process with `terminal` as its controlling terminal.
///
/// # Errors
/// As setsid(2) and ioctl_tty(2) with `TIOCSCTTY`.
pub fn become_controlling(terminal: impl AsFd) -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}
