//! Keeping a long-lived process small: the allocator of the C library (mallopt(3), malloc_trim(3)), and the pages of
//! the program's own code (madvise(2)).

use std::fs;
use std::io;

use rustix::mm::{Advice, madvise};

/// `M_ARENA_MAX`, `M_TRIM_THRESHOLD`, `M_MMAP_THRESHOLD` of malloc.h.
const ARENA_MAX: libc::c_int = -8;
const TRIM_THRESHOLD: libc::c_int = -1;
const MMAP_THRESHOLD: libc::c_int = -3;

/// Bytes from which freed memory goes back at once, and from which a piece is mapped by itself.
const PIECE: libc::c_int = 128 * 1024;

/// Tells the allocator that memory matters more than threads that never wait for each other. Each arena keeps what
/// its threads once needed; without this there are eight for each processor. To be called before there are threads.
pub fn economise() {
    for (what, value) in [(ARENA_MAX, 2), (TRIM_THRESHOLD, PIECE), (MMAP_THRESHOLD, PIECE)] {
        // SAFETY: sets a number inside the allocator and touches no memory of anybody else.
        let _ = unsafe { libc::mallopt(what, value) };
    }
}

/// Gives memory that is free in the allocator back to the kernel.
pub fn give_back() {
    // SAFETY: only pages that hold nothing but free memory are given back, under the allocator's own locks.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Unmaps the pages of the program's code, so that what only its start needed is not held any more. What is needed
/// comes back from the page cache as it is used.
///
/// # Errors
/// When /proc/self/maps cannot be read.
pub fn forget_code() -> io::Result<()> {
    let program = fs::read_link("/proc/self/exe")?;
    let program = program.to_string_lossy();
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some("r-xp")) = (fields.next(), fields.next()) else { continue };
        let Some((from, to)) = range.split_once('-').filter(|_| line.ends_with(&*program)) else { continue };
        let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16)) else {
            continue;
        };
        // SAFETY: the range is a private mapping of the program's file that nobody can write to, so nobody has: each
        // page is in memory as it is in the file, and the kernel maps it from there again at the next use.
        unsafe { madvise(std::ptr::without_provenance_mut(from), to - from, Advice::LinuxDontNeed)? };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(kind: &str) -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(kind)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn a_program_runs_on_without_the_code_of_its_start() {
        let before = resident("RssFile:");
        forget_code().unwrap();
        let after = resident("RssFile:");
        assert!(after < before, "{before} KiB before, {after} after");
    }

    #[test]
    fn freed_memory_goes_back() {
        economise();
        // Small pieces, every thousandth of which stays: none of the rest is at the end of the heap.
        let mut pieces: Vec<Vec<u8>> = (0..200_000).map(|_| vec![1; 200]).collect();
        let mut number = 0;
        pieces.retain(|_| {
            number += 1;
            number % 1000 == 0
        });
        let before = resident("RssAnon:");
        give_back();
        let after = resident("RssAnon:");
        assert!(after + 16_000 < before, "{before} KiB before, {after} after, {} pieces left", pieces.len());
    }
}
