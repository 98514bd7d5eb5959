//! A confined process opens nothing by a descriptor that was left open. Only a process of one thread can be shut in, so
//! this program is its own harness.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::os::fd::OwnedFd;

use cabin_sys::namespace::Namespaces;
use cabin_sys::process::{self, Ended};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

#[path = "../src/confine.rs"]
mod confine;
#[allow(dead_code)]
#[path = "../src/error.rs"]
mod error;
#[allow(dead_code)]
#[path = "../src/message.rs"]
mod message;

/// What the system call filter lets through, Landlock alone refuses.
fn main() {
    let place = tempfile::tempdir().unwrap();
    for dir in ["target", "outside"] {
        std::fs::create_dir(place.path().join(dir)).unwrap();
    }
    std::fs::write(place.path().join("outside/file"), "secret").unwrap();
    let confined = process::clone(Namespaces::empty(), None, || confined(place.path())).unwrap();
    let ended = process::wait(&confined.pidfd).unwrap();
    assert_eq!(ended, Ended::Exited(Errno::ACCESS.raw_os_error()), "a file outside could be opened");
    println!("test a_confined_process_opens_nothing_by_a_descriptor_that_was_left_open ... ok");
}

/// The number of the error with which a file outside could not be opened, or 0.
fn confined(place: &std::path::Path) -> i32 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |name: &str| rustix::fs::open(place.join(name), flags, Mode::empty()).unwrap();
    let (target, outside) = (open("target"), open("outside"));
    let ids = message::IdRange { base: 1_300_000_000, size: 65536 };
    let roots = confine::confine(&[target], ids, message::Limits::default(), false).unwrap();
    let reached = |dir: &OwnedFd, name: &str| {
        rustix::fs::openat2(dir, name, OFlags::RDONLY, Mode::empty(), ResolveFlags::empty())
    };
    assert!(reached(&roots[0], ".").is_ok(), "what it was given it cannot open");
    reached(&outside, "file").err().map_or(0, Errno::raw_os_error)
}
