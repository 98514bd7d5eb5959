//! The console: its last output kept, and passed between the terminal and whoever is attached.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cabin_sys::{pty, socket};
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

    pub fn streams(&self) -> &[OwnedFd] {
        &self.streams
    }

    /// Whether there is input to be written to the terminal.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether more input may be taken from those attached.
    pub fn takes_input(&self) -> bool {
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
        if self.streams.len() >= STREAMS {
            return Err(io::Error::from(io::ErrorKind::QuotaExceeded));
        }
        let (ours, theirs) = socket::stream_pair()?;
        self.streams.push(ours);
        Ok(theirs)
    }

    /// Reads what the guest has written. `false` when there was nothing.
    pub fn read_output(&mut self) -> bool {
        let mut chunk = [0u8; CHUNK];
        match rustix::io::read(&self.master, &mut chunk) {
            Ok(0) | Err(Errno::AGAIN | Errno::INTR) => false,
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
                true
            }
            Err(_) => {
                // Hung up: vhangup(2) in the guest took the terminal from everybody, us included.
                self.peer = pty::open_peer(&self.master).ok();
                false
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
        let Some(stream) = self.streams.get(number) else { return };
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
