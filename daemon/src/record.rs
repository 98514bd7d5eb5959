//! Recording a command's output: what its pipes give goes into files, up to a limit. A container cannot fill the
//! host's disk through them, neither while the command runs nor by what it leaves running.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use cabin_core::Error;
use cabin_core::instance::Session;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::limits;

/// The most a stream may still hold when its process is gone: the largest pipe an unprivileged process can make.
const TAIL: u64 = 1024 * 1024;

const ACT: &str = "record the command's output";

/// `SIGKILL`.
const KILL: i32 = 9;

/// One of a command's outputs, and where it goes.
struct Track {
    from: OwnedFd,
    to: File,
    left: u64,
}

/// What became of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Took {
    Some,
    End,
    TooMuch,
}

/// Writes standard output and error of a command into two files until it has ended; its exit code.
///
/// # Errors
/// When it writes more than [`limits::RECORDED`] (it is killed then), or a file cannot be written.
pub fn until_end(mut command: Session, files: [File; 2]) -> Result<i32, Error> {
    drop(command.stdin.take());
    let pipes = [command.stdout.take(), command.stderr.take()];
    let tracks = pipes.into_iter().zip(files);
    let tracks = tracks.filter_map(|(from, to)| Some(Track { from: from?, to, left: limits::RECORDED }));
    let recorded = copy(&command, tracks.collect());
    if recorded.is_err() {
        // One that is gone already needs no killing.
        let _ = command.signal(KILL);
    }
    let code = command.wait().code();
    recorded.map(|()| code)
}

fn copy(command: &Session, mut tracks: Vec<Track>) -> Result<(), Error> {
    let mut buffer = vec![0; 64 * 1024];
    let mut ended = false;
    while !tracks.is_empty() {
        let ready = wait(command, &tracks, ended)?;
        let (of_tracks, of_end) = ready.split_at(tracks.len());
        if ended && !of_tracks.contains(&true) {
            return Ok(());
        }
        if !ended && of_end.contains(&true) {
            ended = true;
            // What comes later was written by somebody else.
            tracks.iter_mut().for_each(|track| track.left = track.left.min(TAIL));
            continue;
        }
        let mut which = of_tracks.iter();
        let mut wrong = Ok(());
        tracks.retain_mut(|track| {
            if wrong.is_err() || which.next() != Some(&true) {
                return true;
            }
            match track.take(&mut buffer) {
                Ok(Took::Some) => true,
                Ok(Took::End) => false,
                Ok(Took::TooMuch) if ended => false,
                Ok(Took::TooMuch) => {
                    let most = limits::RECORDED >> 20;
                    wrong = Err(Error::invalid(format!(
                        "the command wrote more than the {most} MiB that are recorded"
                    )));
                    true
                }
                Err(error) => {
                    wrong = Err(Error::io(ACT)(error));
                    true
                }
            }
        });
        wrong?;
    }
    Ok(())
}

/// Which of the tracks can be read, and then whether the command has ended; does not wait once it has.
fn wait(command: &Session, tracks: &[Track], ended: bool) -> Result<Vec<bool>, Error> {
    let end = command.as_fd();
    let mut fds: Vec<PollFd<'_>> =
        tracks.iter().map(|track| PollFd::new(&track.from, PollFlags::IN)).collect();
    if !ended {
        fds.push(PollFd::from_borrowed_fd(end, PollFlags::IN));
    }
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let waited = rustix::io::retry_on_intr(|| poll(&mut fds, ended.then_some(&at_once)));
    waited.map_err(|error| Error::io(ACT)(error.into()))?;
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

impl Track {
    fn take(&mut self, buffer: &mut [u8]) -> std::io::Result<Took> {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&self.from, &mut *buffer))?;
        let Some(left) = self.left.checked_sub(count as u64) else { return Ok(Took::TooMuch) };
        self.left = left;
        self.to.write_all(buffer.get(..count).unwrap_or_default())?;
        Ok(if count == 0 { Took::End } else { Took::Some })
    }
}
