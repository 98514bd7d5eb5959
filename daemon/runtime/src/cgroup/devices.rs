//! Which devices containers may open: those that mean nothing to the host. Nodes of others may be made, as programs
//! that unpack trees do, but not opened. A container with a user namespace meets walls before this one; for a
//! privileged one it is the wall between it and the host's disks.

use std::io;

use cabin_sys::device_filter::{self, Instruction};
use rustix::io::Errno;

use super::Error;
use super::group::Group;

/// Character devices that may be opened: major number, and minor number unless it is any.
const OPEN: &[(i32, Option<i32>)] = &[
    // null, zero, full, random, urandom
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    // tty, console, ptmx, and terminals of devpts
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
    // fuse and tun: what they make belongs to the mount and network namespace of who opens them
    (10, Some(229)),
    (10, Some(200)),
];

/// `BPF_DEVCG_DEV_CHAR`.
const CHARACTER: i32 = 2;
/// `BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE`.
const READ_OR_WRITE: i32 = 6;

/// Bars all other devices from the group `prefix` of a cgroup2 tree and whatever will be below it. A kernel without
/// such programs is passed over.
pub(super) fn bar(prefix: &Group) -> Result<(), Error> {
    let barred = prefix.handle().map(|handle| match device_filter::is_attached(&handle) {
        Ok(true) => Ok(()),
        _ => device_filter::attach(&handle, &program()),
    })?;
    match barred {
        Err(why) if !without_programs(&why) => {
            Err(Error::Devices { path: prefix.path().to_owned(), source: why })
        }
        _ => Ok(()),
    }
}

/// A kernel without them does not know the command, or not such programs; one that is locked down allows none.
fn without_programs(why: &io::Error) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::PERM]
        .iter()
        .any(|known| why.raw_os_error() == Some(known.raw_os_error()))
}

/// The same in the hierarchy of version 1's controller. A group that has children already, an earlier version's, stays
/// as it is: the kernel takes no such change there.
pub(super) fn bar_v1(prefix: &Group) -> Result<(), Error> {
    if !prefix.read("devices.list")?.starts_with("a ") || !prefix.children()?.is_empty() {
        return Ok(());
    }
    prefix.write("devices.deny", "a")?;
    // Nodes may be made.
    for kind in ["b *:* m", "c *:* m"] {
        prefix.write("devices.allow", kind)?;
    }
    for (major, minor) in OPEN {
        let minor = minor.map_or_else(|| "*".to_owned(), |minor| minor.to_string());
        prefix.write("devices.allow", &format!("c {major}:{minor} rwm"))?;
    }
    Ok(())
}

/// The program: its context holds the access in the high half of the first word and the kind in the low one, then
/// the two numbers.
fn program() -> Vec<Instruction> {
    const LOAD: u8 = 0x61;
    const COPY: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const AND: u8 = 0x57;
    const SHIFT_RIGHT: u8 = 0x77;
    const JUMP_IF_NOT: u8 = 0x55;
    const END: u8 = 0x95;
    // Registers: 0 is the answer, 1 the context; the others are ours.
    let (access, kind, major, minor) = (2, 3, 4, 5);
    let code = |code, target: u8, source: u8, offset, number| Instruction {
        code,
        registers: source << 4 | target,
        offset,
        number,
    };
    let answer = |yes| [code(SET, 0, 0, 0, yes), code(END, 0, 0, 0, 0)];
    let mut program = vec![
        code(LOAD, access, 1, 0, 0),
        code(COPY, kind, access, 0, 0),
        code(AND, kind, 0, 0, 0xffff),
        code(SHIFT_RIGHT, access, 0, 0, 16),
        code(AND, access, 0, 0, READ_OR_WRITE),
        code(LOAD, major, 1, 4, 0),
        code(LOAD, minor, 1, 8, 0),
        code(JUMP_IF_NOT, access, 0, 2, 0),
    ];
    program.extend(answer(1));
    program.push(code(JUMP_IF_NOT, kind, 0, 0, CHARACTER));
    let not_a_character_device = program.len() - 1;
    for (wanted, second) in OPEN {
        program.push(code(JUMP_IF_NOT, major, 0, if second.is_some() { 3 } else { 2 }, *wanted));
        program.extend(second.map(|second| code(JUMP_IF_NOT, minor, 0, 2, second)));
        program.extend(answer(1));
    }
    let jump = i16::try_from(program.len() - not_a_character_device - 1).unwrap_or(0);
    if let Some(instruction) = program.get_mut(not_a_character_device) {
        instruction.offset = jump;
    }
    program.extend(answer(0));
    program
}
