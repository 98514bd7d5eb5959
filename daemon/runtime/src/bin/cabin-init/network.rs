//! The container's network namespace as far as the container itself must set it up: the loopback interface,
//! and the socket through which the daemon reads it.

use std::os::fd::OwnedFd;

use cabin_runtime::wire::Failure;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::step::{Step, odd};

/// `RTM_NEWLINK`, `NLM_F_REQUEST | NLM_F_ACK`, `NLMSG_ERROR`, `IFF_UP`.
const NEW_LINK: u16 = 16;
const REQUEST_ACK: u16 = 5;
const ERROR: u16 = 2;
const UP: u32 = 1;

/// The index of the loopback interface in every namespace.
const LOOPBACK: u32 = 1;

/// Opens a route socket (protocol 0) in the current network namespace, and switches the loopback interface on with it.
pub fn open_with_loopback_up() -> Result<OwnedFd, Failure> {
    let what = "switch the loopback interface on";
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .step("open a route socket")?;
    // From here on only the kernel may send to it, and nobody inside.
    net::connect(&socket, &SocketAddrNetlink::new(0, 0)).step("connect a route socket")?;
    net::send(&socket, &set_up(LOOPBACK), SendFlags::empty()).step(what)?;
    let mut answer = [0u8; 1024];
    let (_, length) = net::recv(&socket, &mut answer[..], RecvFlags::empty()).step(what)?;
    match outcome(answer.get(..length).unwrap_or(&[])) {
        Some(0) => Ok(socket),
        Some(errno) => Err(std::io::Error::from_raw_os_error(-errno)).step(what),
        None => Err(odd(what, "the kernel's answer is not understood")),
    }
}

/// A request that sets the up flag of one interface (rtnetlink(7)): header, then `struct ifinfomsg`.
fn set_up(index: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(32);
    message.extend(32u32.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST_ACK.to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend([0u8; 4]);
    for word in [index, UP, UP] {
        message.extend(word.to_ne_bytes());
    }
    message
}

/// The number in an acknowledgement: 0, or a negative errno.
fn outcome(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    (kind == ERROR).then_some(())?;
    Some(i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?))
}
