//! A descriptor of a process's stream (pipe, terminal, socket) as an asynchronous one.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// One end of a pipe, a terminal or a socket.
pub struct Stream {
    fd: AsyncFd<OwnedFd>,
}

impl Stream {
    /// Takes a descriptor over. It becomes non-blocking, for everybody who shares its open file.
    ///
    /// # Errors
    /// When it is none that can be waited for.
    pub fn new(fd: OwnedFd) -> io::Result<Stream> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Stream { fd: watch(fd)? })
    }

    /// Reads what is there, waiting for the first byte; 0 at the end.
    ///
    /// # Errors
    /// As read(2).
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.fd.readable().await?;
            if let Ok(read) = ready.try_io(|_| self.try_read(buffer)) {
                return read;
            }
        }
    }

    /// Reads what is there without waiting; 0 at the end.
    ///
    /// # Errors
    /// As read(2); `WouldBlock` when nothing is there.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.fd, &mut *buffer) {
                // A terminal whose last user is gone says EIO once everything is read.
                Err(Errno::IO) => return Ok(0),
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// As write(2).
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let mut ready = self.fd.writable().await?;
            let written = ready.try_io(|_| Ok(rustix::io::write(&self.fd, data)?));
            match written {
                Ok(Ok(count)) => data = data.get(count..).unwrap_or_default(),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }
}

/// A descriptor whose readiness can be waited for.
///
/// # Errors
/// When it is none that can be waited for.
// What is unsafe about `AsyncFd` is a type that changes or closes its descriptor; `OwnedFd` does neither.
#[allow(deprecated)]
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_written_before_the_end_is_read() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (read, write) = (Stream::new(read).unwrap(), Stream::new(write).unwrap());
        let sender = tokio::spawn(async move {
            write.write_all(&vec![7; 300_000]).await.unwrap();
        });
        let (mut total, mut buffer) = (0, vec![0; 64 * 1024]);
        loop {
            match read.read(&mut buffer).await.unwrap() {
                0 => break,
                count => total += count,
            }
        }
        sender.await.unwrap();
        assert_eq!(total, 300_000);
    }

    #[tokio::test]
    async fn an_empty_stream_does_not_wait_when_asked_not_to() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let error = Stream::new(read).unwrap().try_read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
