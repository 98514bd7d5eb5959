//! Streams that the kernel makes of subvolumes of this host, read as they come.

use std::io::{self, BufReader};
use std::os::fd::AsFd;

use cabin_sys::btrfs::stream::commands::{Broken, Commands};
use cabin_sys::btrfs::stream::{Content, Sending};
use cabin_sys::dir::HostDir;

/// The commands of a stream.
pub(crate) type Stream = Commands<BufReader<Sending>>;

/// Why a stream is not read on.
pub(crate) fn broken(broken: Broken) -> io::Error {
    match broken {
        Broken::Form(why) => io::Error::new(io::ErrorKind::InvalidData, why),
        Broken::Read(source) => source,
    }
}

/// Reads what the subvolume `of` has otherwise than `parent`, or all of it. Nobody can write in either of them.
///
/// # Errors
/// When the kernel does not say it all, or `read` fails.
pub(crate) fn follow<T>(
    of: &HostDir,
    parent: Option<&HostDir>,
    content: Content,
    read: impl FnOnce(&mut Stream) -> io::Result<T>,
) -> io::Result<T> {
    let sending = Sending::begin(of, parent.map(|it| it as &dyn AsFd), content)?;
    let mut stream = Commands::begin(BufReader::with_capacity(256 * 1024, sending), None).map_err(broken)?;
    read(&mut stream)
}
