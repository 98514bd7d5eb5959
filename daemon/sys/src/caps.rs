//! Capability sets of the calling thread (capabilities(7)).

use std::io;

use rustix::thread::{self, CapabilitySet, CapabilitySets};

pub use rustix::thread::CapabilitySet as Caps;

/// Takes `drop` out of the bounding set, one by one, and out of the effective, permitted and inheritable
/// sets. A capability this kernel does not know is passed over: it cannot be held either.
///
/// # Errors
/// As prctl(2) with `PR_CAPBSET_DROP` and capset(2).
pub fn drop_for_good(drop: Caps) -> io::Result<()> {
    for one in drop.iter() {
        match thread::remove_capability_from_bounding_set(one) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let held = thread::capabilities(None)?;
    let left = CapabilitySets {
        effective: held.effective.difference(drop),
        permitted: held.permitted.difference(drop),
        inheritable: CapabilitySet::empty(),
    };
    Ok(thread::set_capabilities(None, left)?)
}

/// Empties the inheritable and the ambient set, so that nothing outlives a change of user but by setuid.
///
/// # Errors
/// As capset(2) and prctl(2).
pub fn clear_inherited() -> io::Result<()> {
    let mut held = thread::capabilities(None)?;
    held.inheritable = CapabilitySet::empty();
    thread::set_capabilities(None, held)?;
    Ok(thread::clear_ambient_capability_set()?)
}

/// The capabilities in effect for the calling thread.
///
/// # Errors
/// As capget(2).
pub fn effective() -> io::Result<Caps> {
    Ok(thread::capabilities(None)?.effective)
}
