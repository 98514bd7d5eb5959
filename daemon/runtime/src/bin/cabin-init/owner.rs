//! On whose account a container's user namespace is: the kernel counts what is used in it (inotify instances,
//! message queues, pending signals, locked memory, namespaces) against the user who made it, too. Made by root, all
//! containers and the host's own services would share one account, and one container could use it up.

use std::io;

use cabin_runtime::spec::IdMap;
use rustix::thread::{CapabilitiesSecureBits, Uid, set_capabilities_secure_bits, set_thread_res_uid};

/// Lets this process signal the container's root without any right of its own: the kernel asks for that when it is
/// to kill init with this process. Processes inside cannot name this one.
///
/// # Errors
/// When the kernel refuses.
pub fn may_signal_root_of(ids: IdMap) -> io::Result<()> {
    match ids {
        IdMap::Isolated(range) => Ok(set_thread_res_uid(Uid::from_raw(range.base), None, None)?),
        IdMap::Privileged => Ok(()),
    }
}

/// Does `make` as the host's user that is the container's root, with every right this process has.
///
/// # Errors
/// When the kernel refuses the change of user, or the way back.
pub fn as_root_of<T>(ids: IdMap, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let IdMap::Isolated(range) = ids else { return make() };
    // Without this the rights would go with the user.
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    let (root, user) = (Uid::ROOT, Uid::from_raw(range.base));
    set_thread_res_uid(user, user, user)?;
    let made = make();
    set_thread_res_uid(root, root, root)?;
    set_capabilities_secure_bits(CapabilitiesSecureBits::empty())?;
    made
}
