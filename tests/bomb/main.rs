//! Takes what the kernel counts for a user, inside a container: `cabin-bomb inotify` or `cabin-bomb terminals`,
//! until it gets no more, and holds it. With a number it takes so many, or fails.

use std::os::fd::OwnedFd;

use rustix::fs::inotify;
use rustix::pty::OpenptFlags;

fn main() {
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap_or_default();
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
