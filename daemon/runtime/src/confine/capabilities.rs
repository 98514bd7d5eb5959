//! The capabilities no process of a container ever gets.

use cabin_sys::caps::Caps;

use crate::spec::IdMap;

/// What is taken out of the bounding set. With a user namespace of its own these mean nothing for the
/// container anyway, as the kernel asks for them in the first namespace: withholding them costs nothing and
/// covers a check that asks in the wrong one. Without, they are what would reach past the container first.
#[must_use]
pub fn withheld(ids: IdMap) -> Caps {
    let always = Caps::SYS_MODULE
        | Caps::SYS_RAWIO
        | Caps::SYS_TIME
        | Caps::MAC_ADMIN
        | Caps::MAC_OVERRIDE
        | Caps::WAKE_ALARM
        | Caps::BLOCK_SUSPEND
        | Caps::AUDIT_CONTROL
        | Caps::AUDIT_READ
        | Caps::PERFMON
        | Caps::BPF
        | Caps::SYSLOG;
    match ids {
        // CAP_SYS_BOOT stays: in a pid namespace reboot(2) ends the container, not the host.
        IdMap::Isolated(_) | IdMap::Privileged => always,
    }
}
