//! What a container's processes may not do: system calls and capabilities. Pure data and its compilation;
//! applying it is the work of `cabin-init`.

pub mod bpf;
mod capabilities;
mod policy;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]
mod proof;

pub use capabilities::withheld;
pub use policy::{Abi, Rule, When, rules};

use cabin_sys::seccomp::Instruction;

/// The filter for every process of a container.
#[must_use]
pub fn filter() -> Vec<Instruction> {
    bpf::compile(&rules())
}
