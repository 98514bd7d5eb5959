//! The terminal the client runs in: its size, and its raw mode, which is always given back.

use std::io;
use std::time::Duration;

use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{self, OptionalActions, Termios};

/// Whether standard input is a terminal.
pub fn input_is_terminal() -> bool {
    termios::isatty(stdin())
}

/// Whether standard output is a terminal.
pub fn output_is_terminal() -> bool {
    termios::isatty(stdout())
}

/// Whether a person reads standard error.
pub fn person_watches() -> bool {
    termios::isatty(stderr())
}

/// Whether standard input is a pipe or a file, so that something may have been written for us.
pub fn input_is_given() -> bool {
    use rustix::fs::{FileType, fstat};
    fstat(stdin()).is_ok_and(|stat| {
        matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::RegularFile)
    })
}

/// Whether standard input has something, or its end, before this time is over.
pub fn input_arrives_within(patience: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdin = stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    let patience = Timespec::try_from(patience).ok();
    poll(&mut fds, patience.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Columns and rows, of whichever of the standard streams is a terminal.
pub fn size() -> Option<(u16, u16)> {
    [stdout(), stdin(), stderr()]
        .into_iter()
        .find_map(|stream| termios::tcgetwinsize(stream).ok())
        .filter(|size| size.ws_col > 0 && size.ws_row > 0)
        .map(|size| (size.ws_col, size.ws_row))
}

/// Standard input in raw mode; as it was again when this is dropped.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Goes to raw mode. None when standard input is no terminal.
    pub fn enter() -> io::Result<Option<Raw>> {
        if !input_is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Raw { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = termios::tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
