//! The supervisor's control socket: one question or one watch per connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cabin_runtime::Exit;
use cabin_runtime::wire::{self, Answer, Ask, Failure, Standing};
use cabin_sys::dir::HostDir;
use cabin_sys::socket;
use rustix::net::{self, SocketFlags};

use crate::console::Console;

/// The largest question, in bytes.
const QUESTION: usize = 256;

/// How many may be connected at once. Only the host's root can connect at all.
const CLIENTS: usize = 128;

/// The listening socket and who is connected.
pub struct Control {
    listener: OwnedFd,
    clients: Vec<Client>,
}

struct Client {
    socket: OwnedFd,
    watches: bool,
}

/// What a question may be about.
pub struct Subject<'a> {
    pub standing: &'a Standing,
    pub pidfd: BorrowedFd<'a>,
    pub netlink: BorrowedFd<'a>,
    pub console: &'a mut Console,
}

impl Control {
    /// Listens at the container's place in the run directory. Whatever is there is of a supervisor long
    /// dead: the daemon does not start what runs.
    pub fn listen(run_dir: &HostDir, name: &str) -> io::Result<Control> {
        let listener = cabin_runtime::listen(run_dir, name)?;
        Ok(Control { listener, clients: Vec::new() })
    }

    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub fn clients(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.clients.iter().map(|client| client.socket.as_fd())
    }

    pub fn accept(&mut self) {
        let Ok(socket) = net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        else {
            return;
        };
        if self.clients.len() < CLIENTS {
            self.clients.push(Client { socket, watches: false });
        }
    }

    /// Answers the client with this number, or forgets it when it has gone.
    pub fn serve(&mut self, number: usize, subject: &mut Subject<'_>) {
        let Some(client) = self.clients.get_mut(number) else { return };
        match answer(client, subject) {
            Ok(None) => {}
            Ok(Some(listener)) => self.listener = listener,
            Err(_) => drop(self.clients.swap_remove(number)),
        }
    }

    /// Tells everybody who watches how it ended.
    pub fn tell_end(&self, exit: Exit) {
        for client in self.clients.iter().filter(|client| client.watches) {
            let _ = wire::send(&client.socket, &Answer::Ended(exit), &[]);
        }
    }
}

/// Gives the socket to listen on from now on, when the daemon sent another.
fn answer(client: &mut Client, subject: &mut Subject<'_>) -> io::Result<Option<OwnedFd>> {
    let (bytes, fds) = match socket::recv_up_to(&client.socket, QUESTION) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        other => other?,
    };
    if bytes.is_empty() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let socket = &client.socket;
    let done = |outcome: io::Result<()>, what: &str| match outcome {
        Ok(()) => wire::send(socket, &Answer::Done, &[]),
        Err(e) => wire::send(socket, &Answer::Refused(Failure::new(what, &e)), &[]),
    };
    match wire::unpack(&bytes)? {
        Ask::Standing => {
            let answer = Answer::Standing(subject.standing.clone());
            wire::send(socket, &answer, &[subject.pidfd, subject.netlink])
        }
        Ask::ConsoleLog => wire::send(socket, &Answer::Log(subject.console.log()), &[]),
        Ask::ClearConsoleLog => {
            subject.console.clear_log();
            done(Ok(()), "")
        }
        Ask::AttachConsole => match subject.console.attach() {
            Ok(stream) => wire::send(socket, &Answer::Console, &[stream.as_fd()]),
            Err(e) => done(Err(e), "attach to the console"),
        },
        Ask::Resize(width, height) => done(subject.console.resize(width, height), "resize the console"),
        Ask::Watch => {
            done(Ok(()), "")?;
            client.watches = true;
            Ok(())
        }
        Ask::Listen if client.watches => return Ok(fds.into_iter().next()),
        Ask::Listen => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
    .map(|()| None)
}
