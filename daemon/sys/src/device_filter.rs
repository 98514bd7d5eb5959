//! Programs that a cgroup asks before a process in it opens or makes a device (bpf(2), `BPF_PROG_TYPE_CGROUP_DEVICE`).
//! What they say is decided elsewhere.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// One instruction: operation, registers (the source in the high half), offset, number.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// The operation.
    pub code: u8,
    /// The registers.
    pub registers: u8,
    /// How far to jump, or where in the context to read.
    pub offset: i16,
    /// The number to work with.
    pub number: i32,
}

/// Commands of bpf(2).
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_QUERY: libc::c_int = 16;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const PROGRAM_TYPE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const ATTACH_TYPE: u32 = 6;

/// How often a program is offered that the kernel was kept from looking at.
const ATTEMPTS: u32 = 1000;

/// The kernel's `union bpf_attr`, as 32-bit words; what a command does not use stays 0.
type Attr = [u32; 32];

/// Loads a program and makes it the one that `cgroup` and every cgroup below asks; one that was there before is
/// replaced. None can be put below it.
///
/// # Errors
/// As bpf(2): `EINVAL` on a kernel without such programs, or for a program that it does not accept.
pub fn attach(cgroup: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let loaded = load(program)?;
    let mut attr: Attr = [0; 32];
    attr[0] = word(cgroup.as_fd().as_raw_fd());
    attr[1] = word(loaded.as_raw_fd());
    attr[2] = ATTACH_TYPE;
    call(PROG_ATTACH, &mut attr).map(|_| ())
}

/// A program that the kernel has taken. While it looks at one, any signal of the thread ends that with `EAGAIN`
/// (`do_check` in kernel/bpf/verifier.c), whether there is a handler for it or not: then it is asked again.
fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attr: Attr = [0; 32];
    attr[0] = PROGRAM_TYPE;
    attr[1] = u32::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    set_pointer(&mut attr, 2, program.as_ptr().expose_provenance());
    set_pointer(&mut attr, 4, license.as_ptr().expose_provenance());
    // Its addresses are seen by the kernel only; both are borrowed until the call has returned.
    let mut left = ATTEMPTS;
    let loaded = loop {
        left -= 1;
        match call(PROG_LOAD, &mut attr) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && left > 0 => {}
            answer => break answer?,
        }
    };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(loaded) })
}

/// Whether `cgroup` itself asks a program.
///
/// # Errors
/// As bpf(2).
pub fn is_attached(cgroup: impl AsFd) -> io::Result<bool> {
    let mut attr: Attr = [0; 32];
    attr[0] = word(cgroup.as_fd().as_raw_fd());
    attr[1] = ATTACH_TYPE;
    // With no room for their ids, only their number is given: in the seventh word.
    call(PROG_QUERY, &mut attr)?;
    Ok(attr[6] > 0)
}

fn call(command: libc::c_int, attr: &mut Attr) -> io::Result<RawFd> {
    // SAFETY: `attr` is larger than any field these commands read or write, and zero where unused; the addresses in
    // it are of memory that the caller keeps borrowed, which the kernel only reads.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of::<Attr>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(done).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

fn set_pointer(attr: &mut Attr, at: usize, address: usize) {
    let bytes = (address as u64).to_ne_bytes();
    for (word, half) in attr[at..at + 2].iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes([half[0], half[1], half[2], half[3]]);
    }
}

fn word(fd: RawFd) -> u32 {
    u32::from_ne_bytes(fd.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::sys::signal::{SigHandler, Signal, signal};

    use super::*;

    const LOADS: usize = 1000;

    extern "C" fn nothing(_: libc::c_int) {}

    #[test]
    fn a_signal_does_not_keep_a_program_from_being_loaded() {
        // r0 = 0, a thousand times; then the end.
        let mut program = vec![Instruction { code: 0xb7, registers: 0, offset: 0, number: 0 }; 1000];
        program.push(Instruction { code: 0x95, registers: 0, offset: 0, number: 0 });
        // SAFETY: the handler does nothing.
        unsafe { signal(Signal::SIGUSR1, SigHandler::Handler(nothing)) }.unwrap();
        // SAFETY: it names the calling thread, which outlives the scope below.
        let (loader, turn) = (unsafe { libc::pthread_self() }, AtomicUsize::new(0));
        std::thread::scope(|scope| {
            // One signal for each load, each time a little later after its beginning.
            scope.spawn(|| {
                for signalled in 1..=LOADS {
                    while turn.load(Ordering::Acquire) < signalled {
                        std::hint::spin_loop();
                    }
                    (0..signalled % 500).for_each(|_| std::hint::spin_loop());
                    // SAFETY: the thread waits for this one's end.
                    assert_eq!(unsafe { libc::pthread_kill(loader, libc::SIGUSR1) }, 0);
                }
            });
            let loaded: Vec<_> = (1..=LOADS)
                .map(|load_number| {
                    turn.store(load_number, Ordering::Release);
                    load(&program).map(drop)
                })
                .collect();
            for answer in loaded {
                answer.unwrap();
            }
        });
    }
}
