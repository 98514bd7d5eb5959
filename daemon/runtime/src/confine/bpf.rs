//! Compiles the table of refusals to classic BPF.
//!
//! The program is a straight line: for each interface a run of tests, each of which is a comparison and the
//! few instructions it jumps over. Jumps are short and only forward, so nothing has to be resolved later.

use cabin_sys::seccomp::Instruction;

use super::policy::{AUDIT, Abi, FAMILIES, NETLINK, Rule, When};

/// `AUDIT_ARCH_X86_64`.
pub const ARCH_X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`.
pub const ARCH_I386: u32 = 0x4000_0003;
/// The bit that marks a call of the x32 interface.
pub const X32: u32 = 0x4000_0000;

/// `SECCOMP_RET_ALLOW`.
pub const ALLOW: u32 = 0x7fff_0000;
/// `SECCOMP_RET_ERRNO`.
pub const ERRNO: u32 = 0x0005_0000;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// Load a word of the data; jump on equal, on greater or equal, on any common bit; jump; return.
pub const LOAD: u16 = 0x20;
/// See [`LOAD`].
pub const EQUAL: u16 = 0x15;
/// See [`LOAD`].
pub const AT_LEAST: u16 = 0x35;
/// See [`LOAD`].
pub const ANY_BIT: u16 = 0x45;
/// See [`LOAD`].
pub const JUMP: u16 = 0x05;
/// See [`LOAD`].
pub const RETURN: u16 = 0x06;

/// The program for these rules.
#[must_use]
pub fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let of = |abi: Abi| -> Vec<Instruction> {
        let mut code = vec![load(NUMBER)];
        if abi == Abi::X86_64 {
            code.extend([test(AT_LEAST, X32, 0, 1), refuse(super::policy::ENOSYS)]);
        }
        for rule in rules.iter().filter(|rule| rule.abi == abi) {
            code.extend(compile_rule(rule));
        }
        code.push(give(ALLOW));
        code
    };
    let (wide, narrow) = (of(Abi::X86_64), of(Abi::I386));
    let mut program = vec![load(ARCH)];
    program.extend([test(EQUAL, ARCH_X86_64, 1, 0), jump(wide.len())]);
    program.extend(wide);
    program.extend([test(EQUAL, ARCH_I386, 1, 0), refuse(super::policy::ENOSYS)]);
    program.extend(narrow);
    program
}

/// The tests of one call; a call with another number passes over them.
fn compile_rule(rule: &Rule) -> Vec<Instruction> {
    let body = match rule.when {
        When::Always => vec![refuse(rule.errno)],
        When::AnyBit { arg, bits } => {
            vec![load(low(arg)), test(ANY_BIT, bits, 0, 1), refuse(rule.errno), give(ALLOW)]
        }
        When::NoBit { arg, bits } => {
            vec![load(low(arg)), test(ANY_BIT, bits, 1, 0), refuse(rule.errno), give(ALLOW)]
        }
        When::AnyOf { arg, values } => {
            let each = values.iter().flat_map(|value| [test(EQUAL, *value, 0, 1), refuse(rule.errno)]);
            [load(low(arg))].into_iter().chain(each).chain([give(ALLOW)]).collect()
        }
        When::Socket => compile_socket(rule.errno),
    };
    let mut code = vec![test(EQUAL, rule.number, 1, 0), jump(body.len())];
    code.extend(body);
    code
}

/// The family is the first argument, the protocol the third.
fn compile_socket(errno: u32) -> Vec<Instruction> {
    let mut code = vec![load(low(0))];
    code.extend([test(EQUAL, NETLINK, 0, 4), load(low(2)), test(EQUAL, AUDIT, 0, 1)]);
    code.extend([refuse(errno), give(ALLOW)]);
    for family in FAMILIES.iter().filter(|family| **family != NETLINK) {
        code.extend([test(EQUAL, *family, 0, 1), give(ALLOW)]);
    }
    code.push(refuse(errno));
    code
}

/// The lower half of an argument. All arguments judged here are ints: the kernel looks at no more.
fn low(arg: u8) -> u32 {
    16 + 8 * u32::from(arg)
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn test(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Passes over this many instructions.
fn jump(over: usize) -> Instruction {
    Instruction { code: JUMP, jt: 0, jf: 0, k: u32::try_from(over).unwrap_or(u32::MAX) }
}

fn give(action: u32) -> Instruction {
    Instruction { code: RETURN, jt: 0, jf: 0, k: action }
}

fn refuse(errno: u32) -> Instruction {
    give(ERRNO | errno)
}
