//! What one client may ask of the daemon: sizes, depths, times, connections. Nothing here is configurable.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// The largest JSON body, in bytes.
pub const JSON_BODY: usize = 1024 * 1024;

/// How deep objects and lists may be nested in a JSON body.
pub const JSON_DEPTH: usize = 64;

/// How long a JSON body may take to arrive.
pub const JSON_TIME: Duration = Duration::from_secs(30);

/// How long a JSON body may send nothing at all.
pub const JSON_IDLE: Duration = Duration::from_secs(10);

/// How long an upload may send nothing at all.
pub const UPLOAD_IDLE: Duration = Duration::from_secs(60);

/// How long is read on what nobody wants of a body: until a client that only then reads its answer has sent it.
pub const LINGER: Duration = Duration::from_secs(30);

/// How much of that is read: what a client has on its way, and not a body without end.
pub const LINGER_BYTES: usize = 8 * 1024 * 1024;

/// How long is waited for the next piece of that.
pub const LINGER_IDLE: Duration = Duration::from_secs(5);

/// The largest target of a symlink, in bytes (PATH_MAX).
pub const LINK_TARGET: usize = 4096;

/// How many names of a guest's directory are listed at most.
pub const LISTED: usize = 100_000;

/// How deep a guest's directory may be that is deleted with all that is in it.
pub const TREE_DEPTH: usize = 256;

/// How long a client may take nothing of an answer.
pub const ANSWER_IDLE: Duration = Duration::from_secs(300);

/// How long the header of a request may take to arrive; an idle connection is closed after it too.
pub const HEADER_TIME: Duration = Duration::from_secs(10);

/// The largest header of a request, in bytes.
pub const HEADER_SIZE: usize = 64 * 1024;

/// Connections at once. Those beyond are told to come back later.
pub const CONNECTIONS: usize = 12_000;

/// How long the websockets of an operation may take to be connected.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How often a websocket is pinged.
pub const PING_EVERY: Duration = Duration::from_secs(10);

/// The largest message taken from a websocket, in bytes.
pub const MESSAGE: usize = 4 * 1024 * 1024;

/// What a websocket keeps at hand to read into, in bytes; what is larger is given room as it comes.
pub const READ_BUFFER: usize = 8 * 1024;

/// How long a listener of events may refuse to read before it is dropped.
pub const EVENT_TIME: Duration = Duration::from_secs(10);

/// How much is recorded of a command's output, for each of its two streams, in bytes. A command that writes more is
/// killed.
pub const RECORDED: u64 = 256 * 1024 * 1024;

/// How long requests that are being answered may take once the daemon is told to stop.
pub const STOP_TIME: Duration = Duration::from_secs(5);

/// The largest image upload, in bytes.
pub const IMAGE: u64 = 64 * 1024 * 1024 * 1024;

/// How long a client may take to hang up once a websocket has nothing more for it.
pub const PARTING_TIME: Duration = Duration::from_secs(30);

/// Descriptors that must be free for a change to begin: more than one takes, and takes back, at a time. A change
/// that runs out of them halfway could not even remove what it made.
const DESCRIPTORS: u32 = 64;

/// Whether there are enough descriptors left for a change. The kernel gives the lowest free number, so the
/// highest ones are free as long as there are any to spare.
#[must_use]
pub fn enough_descriptors() -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current.and_then(|limit| u32::try_from(limit).ok()) else {
        return true;
    };
    let from = limit.saturating_sub(DESCRIPTORS * 2);
    let Ok(from) = i32::try_from(from) else { return true };
    let taken = rustix::io::fcntl_dupfd_cloexec(std::io::stderr().as_fd(), from);
    taken.is_ok_and(|taken| {
        u32::try_from(taken.as_raw_fd()).is_ok_and(|number| limit.saturating_sub(number) >= DESCRIPTORS)
    })
}
