//! Sending subvolumes as streams (btrfs-send(8)), and sharing parts of files, which is what streams also say.

pub mod commands;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};

use super::{WRITE, call, call_once, info, request};

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

/// The read-only subvolume with a root as a stream of version 1, to be read while the kernel sends it: what it has
/// otherwise than the read-only subvolume `parent`, or all of it.
///
/// What the kernel could not send is an error where it would have come: `EPERM` when one is not read-only.
///
/// When the sending thread is stopped or frozen while it waits for room, the kernel gives up, and would begin the whole
/// ioctl anew, in the middle of a command (`write_buf` in `fs/btrfs/send.c` returns `ERESTARTSYS`, Linux 6.18; seen). A
/// socket with a time limit gives `EINTR` instead (`sock_intr_errno`); then it is sent once more, which gives the same
/// bytes, and what was read already is left out.
#[derive(Debug)]
pub struct Sending {
    of: OwnedFd,
    parent: Option<OwnedFd>,
    content: Content,
    /// The end to read from, and who writes; none when all is read.
    running: Option<(UnixStream, JoinHandle<io::Result<()>>)>,
    /// How many bytes were given out.
    given: u64,
    /// How many of those that come were given out already.
    again: u64,
}

impl Sending {
    /// Begins.
    ///
    /// # Errors
    /// When there are no more descriptors or threads.
    pub fn begin(of: impl AsFd, parent: Option<&dyn AsFd>, content: Content) -> io::Result<Sending> {
        let parent = parent.map(|parent| parent.as_fd().try_clone_to_owned()).transpose()?;
        let of = of.as_fd().try_clone_to_owned()?;
        let running = Some(start(&of, parent.as_ref(), content)?);
        Ok(Sending { of, parent, content, running, given: 0, again: 0 })
    }

    /// What the thread came to that has closed its end.
    fn outcome(&mut self) -> io::Result<()> {
        let Some((_, thread)) = self.running.take() else { return Ok(()) };
        match thread.join() {
            Ok(Err(source)) if source.kind() == io::ErrorKind::Interrupted => {
                self.running = Some(start(&self.of, self.parent.as_ref(), self.content)?);
                self.again = self.given;
                Ok(())
            }
            Ok(sent) => sent,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Read for Sending {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((end, _)) = &mut self.running {
            let most = usize::try_from(self.again).unwrap_or(usize::MAX);
            let wanted = if most > 0 { buffer.len().min(most) } else { buffer.len() };
            let got = end.read(&mut buffer[..wanted])?;
            match got {
                0 if wanted == 0 => return Ok(0),
                0 => self.outcome()?,
                _ if most > 0 => self.again -= got as u64,
                _ => {
                    self.given += got as u64;
                    return Ok(got);
                }
            }
        }
        Ok(0)
    }
}

/// Nobody reads any more: the kernel is told so, and its end waited for.
impl Drop for Sending {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.running.take() {
            drop(end);
            let _ = thread.join();
        }
    }
}

fn start(
    of: &OwnedFd,
    parent: Option<&OwnedFd>,
    content: Content,
) -> io::Result<(UnixStream, JoinHandle<io::Result<()>>)> {
    let (reading, writing) = UnixStream::pair()?;
    // As good as none; but with none there is no `EINTR`.
    writing.set_write_timeout(Some(Duration::from_secs(1 << 20)))?;
    let (of, parent) = (of.try_clone()?, parent.map(OwnedFd::try_clone).transpose()?);
    let thread = std::thread::Builder::new().name("send".to_owned());
    let thread = thread.spawn(move || send(&of, parent.as_ref(), content, &writing))?;
    Ok((reading, thread))
}

/// Writes into `to`, and comes back when all is written. No signal reaches the calling thread meanwhile.
fn send(of: &OwnedFd, parent: Option<&OwnedFd>, content: Content, to: &UnixStream) -> io::Result<()> {
    let parent = parent.map(|parent| Ok::<_, io::Error>(info(parent)?.id)).transpose()?;
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
    let sent = call_once(of.as_fd(), SEND, &mut arguments);
    before.thread_set_mask()?;
    Ok(sent?)
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

    /// All that is sent; `disturb` is done before each read.
    fn sent(tree: &File, mut disturb: impl FnMut(&Sending)) -> Vec<u8> {
        const ENOUGH: usize = 64 << 20;
        let mut sending = Sending::begin(tree, None, Content::Whole).unwrap();
        let (mut all, mut part) = (Vec::new(), vec![0; 16 * 1024]);
        while all.len() < ENOUGH {
            disturb(&sending);
            match sending.read(&mut part).unwrap() {
                0 => break,
                read => all.extend_from_slice(&part[..read]),
            }
        }
        all
    }

    #[test]
    fn a_stream_is_whole_whoever_disturbs_the_kernel() {
        let action = SigAction::new(SigHandler::Handler(handler), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        let disk = Disk::new();
        let tree = File::open(disk.0.join("m/b")).unwrap();
        let calm = sent(&tree, |_| {});
        assert!(calm.len() > 8 << 20);
        let signalled = sent(&tree, |sending| {
            if let Some((_, thread)) = &sending.running {
                // SAFETY: the thread is not joined yet, so its id is still its own.
                unsafe { libc::pthread_kill(thread.as_pthread_t(), Signal::SIGUSR1 as i32) };
            }
        });
        assert!(signalled == calm, "{} bytes, {} without signals", signalled.len(), calm.len());
        let mut reads = 0;
        let stopped = sent(&tree, |_| {
            reads += 1;
            if reads % 40 == 0 {
                sh("kill -STOP $0; sleep 0.01; kill -CONT $0", Path::new(&std::process::id().to_string()));
            }
        });
        assert!(stopped == calm, "{} bytes, {} without stops", stopped.len(), calm.len());
    }
}
