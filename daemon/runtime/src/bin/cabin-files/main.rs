//! Serves the files of one container over SFTP, from inside its root.
//!
//! Standard input is the control socket: one request with the stream socket, one reply. In between the
//! process, which has one thread, becomes the container's root user in the container's root directory.
//! Only then the server starts.

#![forbid(unsafe_code)]

mod attributes;
mod enter;
mod extension;
mod failure;
mod handles;
mod server;

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use cabin_runtime::files::{FilesReply, FilesRequest};
use cabin_runtime::step::{Step, odd};
use cabin_runtime::wire::{self, Failure};
use rustix::fs::Mode;

/// The longest request taken from a client, in bytes: the usual 256 KiB of data and its frame.
const MAX_PACKET: u32 = 512 * 1024;

fn main() -> ExitCode {
    let control = rustix::stdio::stdin();
    let reply = match prepare() {
        Ok(stream) => {
            if tell(control, &FilesReply::Ready) {
                return match serve(stream) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(_) => ExitCode::FAILURE,
                };
            }
            return ExitCode::FAILURE;
        }
        Err(failure) => FilesReply::Failed(failure),
    };
    tell(control, &reply);
    ExitCode::FAILURE
}

fn tell(control: impl std::os::fd::AsFd, reply: &FilesReply) -> bool {
    wire::send(control, reply, &[]).is_ok()
}

/// From the request to the last right given up; gives the socket to serve.
fn prepare() -> Result<OwnedFd, Failure> {
    let what = "understand its request";
    let Some((request, mut fds)) = wire::receive::<FilesRequest>(rustix::stdio::stdin()).step(what)? else {
        return Err(odd(what, "there is none"));
    };
    if fds.is_empty() {
        return Err(odd(what, "there is no socket"));
    }
    let stream = fds.remove(0);
    match request {
        FilesRequest::Running => {
            let pidfd = fds.pop().ok_or_else(|| odd(what, "there is no container"))?;
            enter::running(&pidfd).step("enter the container")?;
        }
        FilesRequest::Stopped { root, ids } => enter::stopped(&root, ids)?,
    }
    enter::confine().step("give up its rights")?;
    rustix::process::umask(Mode::empty());
    Ok(stream)
}

fn serve(stream: OwnedFd) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let stream = std::os::unix::net::UnixStream::from(stream);
        stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        // Many small frames in one read.
        let stream = tokio::io::BufReader::with_capacity(1 << 20, stream);
        let (server, ended) = server::Server::new();
        let config = russh_sftp::server::Config { max_client_packet_len: MAX_PACKET };
        russh_sftp::server::run_with_config(stream, server, config).await;
        // The session runs in a task that drops the server at its end.
        let _ = ended.await;
        Ok(())
    })
}
