//! The console: its last output kept, and passed between the terminal and whoever is attached.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cabin_sys::{pty, socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// How much output is kept, in bytes.
const KEPT: usize = 128 * 1024;

/// How much one read takes, and how much input may wait for the guest to read it, in bytes.
const CHUNK: usize = 4096;

/// How many may be attached at once.
const STREAMS: usize = 8;

/// The supervisor's end of the console.
pub struct Console {
    master: OwnedFd,
    /// Held open, so that the terminal does not count as hung up while no guest process has it open.
    peer: Option<OwnedFd>,
    log: VecDeque<u8>,
    streams: Vec<OwnedFd>,
    /// Input the terminal has not taken yet.
    input: Vec<u8>,
}

impl Console {
    pub fn new(master: OwnedFd) -> io::Result<Console> {
        rustix::fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        let peer = Some(pty::open_peer(&master)?);
        Ok(Console { master, peer, log: VecDeque::new(), streams: Vec::new(), input: Vec::new() })
    }

    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    /// Those attached whose input is taken now: nobody's while what waits is enough.
    pub fn streams(&self) -> &[OwnedFd] {
        if self.takes_input() { &self.streams } else { &[] }
    }

    /// Whether there is input to be written to the terminal.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether more input may be taken from those attached.
    fn takes_input(&self) -> bool {
        self.input.len() < CHUNK
    }

    pub fn log(&self) -> Vec<u8> {
        self.log.iter().copied().collect()
    }

    pub fn clear_log(&mut self) {
        self.log = VecDeque::new();
    }

    pub fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        pty::set_size(&self.master, width, height)
    }

    /// A new stream of the console; the other end of it.
    pub fn attach(&mut self) -> io::Result<OwnedFd> {
        if self.streams.len() >= STREAMS
            && let Some(gone) = self.streams.iter().position(is_hung_up)
        {
            // While no input is taken, nobody is seen to leave.
            self.streams.swap_remove(gone);
        }
        if self.streams.len() >= STREAMS {
            return Err(io::Error::from(io::ErrorKind::QuotaExceeded));
        }
        let (ours, theirs) = socket::stream_pair()?;
        self.streams.push(ours);
        Ok(theirs)
    }

    /// Reads what the guest had written when it ended: no more than is kept. Whoever else has the terminal may go on
    /// writing without an end.
    pub fn read_rest(&mut self) {
        let mut left = KEPT;
        while left > 0 {
            match self.read_output() {
                0 => return,
                length => left = left.saturating_sub(length),
            }
        }
    }

    /// Reads a part of what the guest has written; how many bytes.
    pub fn read_output(&mut self) -> usize {
        let mut chunk = [0u8; CHUNK];
        match rustix::io::read(&self.master, &mut chunk) {
            Ok(0) | Err(Errno::AGAIN | Errno::INTR) => 0,
            Ok(length) => {
                let output = chunk.get(..length).unwrap_or(&[]);
                self.keep(output);
                // Not waiting for a slow reader: the guest would wait too. The reader misses something.
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                self.streams.retain(|stream| {
                    matches!(
                        rustix::net::send(stream, output, flags),
                        Ok(_) | Err(Errno::AGAIN | Errno::INTR)
                    )
                });
                length
            }
            Err(_) => {
                // Hung up: vhangup(2) in the guest took the terminal from everybody, us included.
                self.peer = pty::open_peer(&self.master).ok();
                0
            }
        }
    }

    fn keep(&mut self, output: &[u8]) {
        let excess = (self.log.len() + output.len()).saturating_sub(KEPT);
        self.log.drain(..excess.min(self.log.len()));
        self.log.extend(output);
    }

    /// Reads input from the attached stream with this number; one that has ended is dropped.
    pub fn read_input(&mut self, number: usize) {
        // The others of the same turn may have said enough.
        let Some(stream) = self.streams().get(number) else { return };
        let mut chunk = [0u8; CHUNK];
        match rustix::net::recv(stream, &mut chunk[..], RecvFlags::DONTWAIT) {
            Ok((_, length)) if length > 0 => {
                self.input.extend(chunk.get(..length).unwrap_or(&[]));
                self.write_input();
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => drop(self.streams.swap_remove(number)),
        }
    }

    /// Writes waiting input to the terminal, as far as it takes it.
    pub fn write_input(&mut self) {
        match rustix::io::write(&self.master, &self.input) {
            Ok(length) => drop(self.input.drain(..length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.input.clear(),
        }
    }
}

fn is_hung_up(stream: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
}
