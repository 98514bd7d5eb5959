//! Proof of the filter: the compiled program is run for every call number under every interface and compared
//! with a second statement of the policy, written from the manual pages and not from the table.

use cabin_sys::seccomp::Instruction;
use nix::libc;

use super::bpf::{ALLOW, ANY_BIT, AT_LEAST, EQUAL, ERRNO, JUMP, LOAD, RETURN};
use super::filter;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ARM64: u32 = 0xc000_00b7;
const X32: u32 = 0x4000_0000;

/// Second arguments that matter to some rule, and some that do not.
const SECOND: [u64; 10] = [
    0,
    1,
    2,
    3,
    8,
    0x5000_9401,
    0x5000_940e,
    0x5000_9417,
    0x5000_9418,
    // Reading a subvolume's flags harms nobody.
    0x8008_9419,
];

#[derive(Clone, Copy)]
struct Call {
    arch: u32,
    number: u32,
    args: [u64; 6],
}

/// Runs a program as the kernel would, and fails where the kernel would refuse it.
fn run(program: &[Instruction], call: Call) -> u32 {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&call.number.to_le_bytes());
    data[4..8].copy_from_slice(&call.arch.to_le_bytes());
    for (i, arg) in call.args.iter().enumerate() {
        data[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_le_bytes());
    }
    let (mut at, mut word) = (0usize, 0u32);
    loop {
        let step = program[at];
        at += 1;
        let over = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
        match step.code {
            LOAD => {
                let k = step.k as usize;
                assert_eq!(k % 4, 0, "the kernel loads aligned words only");
                word = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
            }
            EQUAL => at += over(word == step.k),
            AT_LEAST => at += over(word >= step.k),
            ANY_BIT => at += over(word & step.k != 0),
            JUMP => at += step.k as usize,
            RETURN => return step.k,
            code => panic!("instruction {code:#x} is not expected"),
        }
    }
}

fn refused(errno: i32) -> u32 {
    ERRNO | u32::try_from(errno).unwrap()
}

/// The policy, said again.
fn expected(call: Call) -> u32 {
    match call.arch {
        X86_64 if call.number & X32 != 0 => refused(libc::ENOSYS),
        X86_64 => wide(call),
        I386 => narrow(call),
        _ => refused(libc::ENOSYS),
    }
}

fn wide(call: Call) -> u32 {
    match i64::from(call.number) {
        // modules, kexec
        174..=178
        | libc::SYS_finit_module
        | libc::SYS_kexec_load
        | libc::SYS_kexec_file_load
        | libc::SYS_open_by_handle_at
        // swap, quota, accounting
        | libc::SYS_swapon
        | libc::SYS_swapoff
        | libc::SYS_quotactl
        | 443
        | libc::SYS_acct
        // dead calls
        | libc::SYS_nfsservctl
        | libc::SYS_uselib
        | libc::SYS_ustat
        | libc::SYS_sysfs
        | libc::SYS__sysctl
        | libc::SYS_iopl
        | libc::SYS_ioperm => refused(libc::ENOSYS),
        libc::SYS_perf_event_open | libc::SYS_lookup_dcookie | libc::SYS_bpf | 425..=427 => {
            refused(libc::EPERM)
        }
        libc::SYS_umount2 => umount(call.args[1]),
        libc::SYS_userfaultfd => userfaultfd(call.args[0]),
        libc::SYS_ioctl => ioctl(call.args[1]),
        libc::SYS_socket | libc::SYS_socketpair => socket(call.args[0], call.args[2]),
        _ => ALLOW,
    }
}

fn narrow(call: Call) -> u32 {
    match call.number {
        127..=130
        | 167
        | 350
        | 283
        | 342
        | 87
        | 115
        | 131
        | 443
        | 51
        | 169
        | 86
        | 62
        | 135
        | 149
        | 113
        | 166
        | 110
        | 101
        | 102 => refused(libc::ENOSYS),
        336 | 253 | 357 | 425..=427 => refused(libc::EPERM),
        52 => umount(call.args[1]),
        374 => userfaultfd(call.args[0]),
        54 => ioctl(call.args[1]),
        359 | 360 => socket(call.args[0], call.args[2]),
        _ => ALLOW,
    }
}

fn umount(flags: u64) -> u32 {
    if flags as i32 & libc::MNT_FORCE == 0 { ALLOW } else { refused(libc::EACCES) }
}

/// `_IOW(0x94, n, 4096 bytes)`, where n is 1 or 23 for a snapshot, 14 or 24 for a subvolume.
fn ioctl(request: u64) -> u32 {
    let made = [1, 23, 14, 24].map(|number| 1 << 30 | 4096 << 16 | 0x94 << 8 | number);
    if made.contains(&(request as u32)) { refused(libc::ENOTTY) } else { ALLOW }
}

fn userfaultfd(flags: u64) -> u32 {
    if flags & 1 == 1 { ALLOW } else { refused(libc::EPERM) }
}

fn socket(family: u64, protocol: u64) -> u32 {
    match (family as i32, protocol as i32) {
        (libc::AF_NETLINK, libc::NETLINK_AUDIT) => refused(libc::EAFNOSUPPORT),
        (libc::AF_UNIX | libc::AF_INET | libc::AF_INET6 | libc::AF_NETLINK | libc::AF_PACKET, _) => ALLOW,
        _ => refused(libc::EAFNOSUPPORT),
    }
}

#[test]
fn the_filter_says_what_the_policy_says_for_every_call() {
    let program = filter();
    let high = 0xdead_beef_0000_0000;
    let mut judged = 0;
    for arch in [X86_64, I386, ARM64, 0] {
        for number in (0..=600).chain(X32..X32 + 600).chain([u32::MAX, X32 - 1]) {
            for first in (0..50).chain([u64::from(u32::MAX), high | 1, high | 38, high]) {
                for second in SECOND.into_iter().chain([high | 1, high, high | SECOND[5]]) {
                    for third in [0, 9, 15, high | 9] {
                        let call = Call { arch, number, args: [first, second, third, 0, 0, 0] };
                        assert_eq!(
                            run(&program, call),
                            expected(call),
                            "arch {arch:#x} call {number:#x} ({first:#x}, {second:#x}, {third:#x})"
                        );
                        judged += 1;
                    }
                }
            }
        }
    }
    assert!(judged > 1_000_000);
}

#[test]
fn the_sockets_that_were_ways_out_are_refused() {
    let program = filter();
    // ALG, RXRPC, VSOCK, and others that say nothing to a container.
    for family in [38, 33, 40, 3, 4, 5, 9, 29, 30, 31, 41, 43, 44] {
        for (arch, numbers) in [(X86_64, [41, 53]), (I386, [359, 360])] {
            for number in numbers {
                let call = Call { arch, number, args: [family, 3, 0, 0, 0, 0] };
                assert_eq!(run(&program, call), refused(libc::EAFNOSUPPORT), "family {family}");
            }
        }
    }
}

#[test]
fn the_filter_is_short_enough_for_the_kernel() {
    let program = filter();
    assert!(program.len() < cabin_sys::seccomp::MAX_INSTRUCTIONS / 4, "{}", program.len());
    for (at, step) in program.iter().enumerate() {
        let furthest = match step.code {
            JUMP => step.k as usize,
            EQUAL | AT_LEAST | ANY_BIT => usize::from(step.jt.max(step.jf)),
            _ => 0,
        };
        assert!(at + 1 + furthest <= program.len(), "instruction {at} jumps out");
    }
}
