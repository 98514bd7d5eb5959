//! What a hostile guest does that its shell cannot. `cabin-bomb inotify` and `cabin-bomb terminals` take what the kernel
//! counts for a user until there is no more, and hold it; with a number they take so many, or fail. `cabin-bomb exchange
//! ONE OTHER` has two names change places for ever, as fast as the kernel does it. `cabin-bomb answers` tells whoever has the
//! first route socket of the network namespace of interfaces for ever, as if it were the kernel.

use std::os::fd::OwnedFd;
use std::{fs, io};

use rustix::fs::{CWD, RenameFlags, inotify, renameat_with};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};
use rustix::pty::OpenptFlags;

/// Puts another directory like it in the place of one: of overlay's frozen layers none is moved (rename(2), EXDEV).
fn make_anew(name: &str) -> io::Result<()> {
    if !fs::symlink_metadata(name)?.is_dir() {
        return Ok(());
    }
    fs::remove_dir_all(name)?;
    fs::create_dir_all(format!("{name}/deep/er"))?;
    ["secret", "deep/secret", "deep/er/secret"]
        .iter()
        .try_for_each(|file| fs::write(format!("{name}/{file}"), "guest\n"))
}

/// Sends what looks like the kernel's answers about interfaces to the socket that has the number of the first process.
fn answer() -> ! {
    let mut message = Vec::new();
    for sequence in 0..1500u32 {
        // Header (length, RTM_NEWLINK, NLM_F_MULTI, sequence, sender), then `struct ifinfomsg`.
        message.extend(32u32.to_ne_bytes());
        message.extend([16u16, 2].iter().flat_map(|half| half.to_ne_bytes()));
        message.extend([sequence, 0].iter().flat_map(|word| word.to_ne_bytes()));
        message.extend([0u8; 16]);
    }
    let send = || {
        let route = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        while let Ok(socket) = &route {
            // Where nobody takes them it tries again.
            let _ = sendto(socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(1, 0));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(send);
        }
    });
    std::process::exit(1)
}

fn main() {
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap_or_default();
    if what == "exchange" {
        let (one, other) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        loop {
            // What else holds them up for a moment is no reason to end.
            if renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE) == Err(Errno::XDEV) {
                let _ = [&one, &other].map(|name| make_anew(name));
            }
        }
    }
    if what == "answers" {
        answer();
    }
    let wanted = words.next().and_then(|text| text.parse::<usize>().ok());
    let mut held: Vec<OwnedFd> = Vec::new();
    let why = loop {
        if wanted.is_some_and(|wanted| held.len() >= wanted) {
            return;
        }
        let one = match what.as_str() {
            "terminals" => rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY),
            _ => inotify::init(inotify::CreateFlags::CLOEXEC),
        };
        match one {
            Ok(one) => held.push(one),
            Err(why) => break why,
        }
    };
    println!("{} {what}: {why}", held.len());
    if wanted.is_some() {
        std::process::exit(1);
    }
    loop {
        std::thread::park();
    }
}
