//! Sending subvolumes as streams (btrfs-send(8)), and sharing parts of files, which is what streams also say.

pub mod commands;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::signal::{SigSet, SigmaskHow};

use super::{WRITE, call, info, request};

const CLONE_RANGE: std::ffi::c_ulong = request(WRITE, 13, size_of::<CloneRange>());
const SEND: std::ffi::c_ulong = request(WRITE, 38, size_of::<SendArguments>());

#[repr(C)]
struct CloneRange {
    from: i64,
    from_offset: u64,
    length: u64,
    to_offset: u64,
}

#[repr(C)]
struct SendArguments {
    to: i64,
    sources_count: u64,
    sources: *const u64,
    parent: u64,
    flags: u64,
    version: u32,
    reserved: [u8; 28],
}

// What `call` relies on.
const _: () = assert!(size_of::<CloneRange>() == 32 && size_of::<SendArguments>() == 72);

/// The request number of [`share_range`], for filters of system calls.
#[must_use]
pub fn share_range_request() -> u64 {
    CLONE_RANGE
}

const WITHOUT_DATA: u64 = 1;

/// What a stream says of the content of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// All that there is to say.
    Whole,
    /// Only where it changed.
    Told,
}

/// Writes the read-only subvolume with this root into `to` as a stream of version 1: what it has otherwise than the
/// read-only subvolume `parent`, or all of it. Comes back when all is written.
///
/// No signal reaches the calling thread meanwhile: the kernel gives up when one does (`write_buf` in
/// `fs/btrfs/send.c`, Linux 6.18), and after its handler begins the whole call anew, in the middle of a command.
///
/// # Errors
/// As the ioctl; `EPERM` when one is not read-only, `EPIPE` when nobody reads any more.
pub fn send(of: impl AsFd, parent: Option<&dyn AsFd>, content: Content, to: impl AsFd) -> io::Result<()> {
    let parent = parent.map(|parent| Ok::<_, io::Error>(info(parent.as_fd())?.id)).transpose()?;
    let sources: Vec<u64> = parent.into_iter().collect();
    let mut arguments = SendArguments {
        to: i64::from(to.as_fd().as_raw_fd()),
        sources_count: sources.len() as u64,
        sources: sources.as_ptr(),
        parent: parent.unwrap_or(0),
        flags: if content == Content::Told { WITHOUT_DATA } else { 0 },
        version: 0,
        reserved: [0; 28],
    };
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // `sources` lives until the call is over, and is as long as it says.
    let sent = call(of.as_fd(), SEND, &mut arguments);
    before.thread_set_mask()?;
    sent
}

/// Lets `length` bytes of a file at `to_offset` be those of another one at `from_offset`, which both then share.
///
/// # Errors
/// As ioctl_ficlonerange(2).
pub fn share_range(from: &File, from_offset: u64, length: u64, to: &File, to_offset: u64) -> io::Result<()> {
    let mut arguments = CloneRange { from: i64::from(from.as_raw_fd()), from_offset, length, to_offset };
    call(to.as_fd(), CLONE_RANGE, &mut arguments)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::thread::JoinHandleExt;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use nix::sys::signal::{SaFlags, SigAction, SigHandler, Signal, sigaction};

    use super::*;

    /// A filesystem of its own, with a subvolume in which nobody can write.
    struct Disk(PathBuf);

    impl Disk {
        fn new() -> Disk {
            let place = PathBuf::from(format!("/var/tmp/cabin-sys-{}", std::process::id()));
            let script = "set -e; mkdir $0; cd $0; truncate -s 200M img; mkfs.btrfs -q img; mkdir m; mount -o loop img m
                btrfs -q subvolume create m/a; head -c 8M /dev/urandom >m/a/f; btrfs -q subvolume snapshot -r m/a m/b";
            sh(script, &place);
            Disk(place)
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            sh("umount $0/m; rm -r $0", &self.0);
        }
    }

    #[allow(clippy::disallowed_methods)]
    fn sh(script: &str, place: &Path) {
        let done = Command::new("sh").args(["-c", script]).arg(place).status().unwrap();
        assert!(done.success(), "{script}");
    }

    extern "C" fn handler(_: std::ffi::c_int) {}

    /// All that is sent, while the sending thread is given a signal before each read, or none.
    fn sent(tree: &File, signal: Option<Signal>) -> Vec<u8> {
        const ENOUGH: usize = 64 << 20;
        let (mut reading, writing) = io::pipe().unwrap();
        let tree = tree.try_clone().unwrap();
        let sending = std::thread::spawn(move || send(&tree, None, Content::Whole, writing));
        let (mut all, mut part) = (Vec::new(), vec![0; 16 * 1024]);
        while all.len() < ENOUGH {
            if let Some(signal) = signal.filter(|_| !sending.is_finished()) {
                // SAFETY: the thread is not joined yet, so its id is still its own.
                unsafe { libc::pthread_kill(sending.as_pthread_t(), signal as i32) };
            }
            match reading.read(&mut part).unwrap() {
                0 => break,
                read => all.extend_from_slice(&part[..read]),
            }
        }
        drop(reading);
        let _ = sending.join().unwrap();
        all
    }

    #[test]
    fn a_stream_is_whole_whatever_signals_come() {
        let action = SigAction::new(SigHandler::Handler(handler), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        let disk = Disk::new();
        let tree = File::open(disk.0.join("m/b")).unwrap();
        let calm = sent(&tree, None);
        assert!(calm.len() > 8 << 20);
        let disturbed = sent(&tree, Some(Signal::SIGUSR1));
        assert!(disturbed == calm, "{} bytes, {} without signals", disturbed.len(), calm.len());
    }
}
