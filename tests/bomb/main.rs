//! What a hostile guest does that its shell cannot. `cabin-bomb inotify` and `cabin-bomb terminals` take what the kernel
//! counts for a user until there is no more, and hold it; with a number they take so many, or fail. `cabin-bomb exchange
//! ONE OTHER` has two names change places for ever, as fast as the kernel does it.

use std::os::fd::OwnedFd;
use std::{fs, io};

use rustix::fs::{CWD, RenameFlags, inotify, renameat_with};
use rustix::io::Errno;
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
