//! Socket pairs and messages that carry descriptors (unix(7), `SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// The largest message [`recv`] takes, in bytes: a request's body in another form.
pub const MAX_MESSAGE: usize = 2 << 20;

/// The most descriptors one message carries here.
pub const MAX_FDS: usize = 32;

/// A connected pair of sequenced-packet sockets, both close-on-exec: messages keep their borders, and the
/// end of the other side is seen as an empty read.
///
/// # Errors
/// As socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) =
        net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for end in [&one, &other] {
        // The kernel takes no message that is larger than this. Who may not raise it (socket(7)) sends none.
        let _ = net::sockopt::set_socket_send_buffer_size_force(end, 2 * MAX_MESSAGE);
    }
    Ok((one, other))
}

/// A connected pair of stream sockets, both close-on-exec.
///
/// # Errors
/// As socketpair(2).
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message with descriptors.
///
/// # Errors
/// As sendmsg(2); `InvalidInput` for more than [`MAX_FDS`] descriptors.
pub fn send(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let sent = retry_on_intr(|| {
        net::sendmsg(&socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    if sent != message.len() {
        return Err(io::Error::from(io::ErrorKind::WriteZero));
    }
    Ok(())
}

/// Receives one message and its descriptors; an empty message without descriptors is the end.
///
/// # Errors
/// As recvmsg(2); `InvalidData` when the message or its descriptors did not fit.
pub fn recv(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    recv_up_to(socket, MAX_MESSAGE)
}

/// Like [`recv`], for messages of at most `limit` bytes: for processes that count their memory.
///
/// # Errors
/// As [`recv`].
pub fn recv_up_to(socket: impl AsFd, limit: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut message = vec![0u8; limit];
    // A socket with a timeout is interrupted even without a handler: by a stop and its end, a frozen cgroup or
    // a machine that is frozen whole (signal(7)).
    let got = retry_on_intr(|| {
        net::recvmsg(&socket, &mut [IoSliceMut::new(&mut message)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let fds = ancillary
        .drain()
        .flat_map(|part| match part {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => Vec::new(),
        })
        .collect();
    if got.flags.intersects(net::ReturnFlags::TRUNC | net::ReturnFlags::CTRUNC) {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    message.truncate(got.bytes);
    Ok((message, fds))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors_and_the_end_is_empty() {
        let (a, b) = pair().unwrap();
        let (inner, _keep) = stream_pair().unwrap();
        send(&a, b"hello", &[inner.as_fd()]).unwrap();
        let (message, fds) = recv(&b).unwrap();
        assert_eq!(message, b"hello");
        assert_eq!(fds.len(), 1);
        drop(a);
        assert_eq!(recv(&b).unwrap().0.len(), 0);
    }

    /// What a frozen and thawed machine does to every process in it, done to this one.
    #[test]
    fn a_process_that_is_stopped_and_goes_on_still_gets_its_message() {
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        let (a, b) = pair().unwrap();
        set_socket_timeout(&b, Timeout::Recv, Some(std::time::Duration::from_secs(60))).unwrap();
        let sender = std::thread::spawn(move || {
            for _ in 0..5 {
                let pause = "kill -STOP $PPID; timeout 0.05 tail -f /dev/null; kill -CONT $PPID";
                std::process::Command::new("sh").args(["-c", pause]).status().unwrap();
            }
            send(&a, b"late", &[]).unwrap();
        });
        assert_eq!(recv(&b).unwrap().0, b"late");
        sender.join().unwrap();
    }
}
