//! Streams that the kernel makes of subvolumes of this host, read as they come.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;

use cabin_sys::btrfs::stream::commands::{Broken, Commands};
use cabin_sys::btrfs::stream::{Content, send};
use cabin_sys::dir::HostDir;
use rustix::io::Errno;

/// The commands of a stream.
pub(crate) type Stream = Commands<BufReader<File>>;

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
    let (reading, writing) = io::pipe()?;
    std::thread::scope(|scope| {
        let kernel = std::thread::Builder::new().name("send".to_owned()).spawn_scoped(scope, move || {
            send(of, parent.map(|it| it as &dyn std::os::fd::AsFd), content, OwnedFd::from(writing))
        })?;
        let input = BufReader::with_capacity(256 * 1024, File::from(OwnedFd::from(reading)));
        // Whoever does not read on closes the pipe, which ends the other end.
        let read = Commands::begin(input, None).map_err(broken).and_then(|mut stream| read(&mut stream));
        match kernel.join() {
            // What could not be sent is why the stream ended early; that nobody read on is no reason.
            Ok(Err(source)) if source.raw_os_error() != Some(Errno::PIPE.raw_os_error()) => Err(source),
            Ok(_) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
