//! Plugging nics into running containers: a port of a bridge, or a pair of which the host keeps the other end.

use std::os::fd::BorrowedFd;

use cabin_network::BridgeSpec;
use cabin_undo::Undo;

use crate::live::Plugged;
use crate::{Error, Host, resolve};

/// Makes a nic with its guest's end in `netns`.
///
/// # Errors
/// When the bridge is not there, the interface's name is taken, or the kernel refuses.
pub(crate) fn plug(
    host: &Host,
    bridge: Option<&BridgeSpec>,
    plugged: &Plugged,
    netns: BorrowedFd<'_>,
    undo: &mut Undo,
) -> Result<(), Error> {
    match bridge {
        Some(bridge) => host.network().plug(bridge, &plugged.nic, netns, undo).map(drop)?,
        None => host.network().plug_pair(&plugged.nic, netns, undo)?,
    }
    Ok(())
}

/// Changes what a nic may send and carry, and what is behind it, without taking it away.
///
/// # Errors
/// As [`plug`].
pub(crate) fn adjust(
    host: &Host,
    bridge: Option<&BridgeSpec>,
    (old, new): (&Plugged, &Plugged),
    undo: &mut Undo,
) -> Result<(), Error> {
    match bridge {
        Some(bridge) => host.network().adjust_port(bridge, (&old.nic, &new.nic), undo)?,
        None => host.network().adjust_pair((&old.nic, &new.nic), undo)?,
    }
    Ok(())
}

/// Puts the host's end of a nic right again.
///
/// # Errors
/// When it is gone or somebody else's, or the kernel refuses.
pub(crate) fn ensure(host: &Host, bridge: Option<&BridgeSpec>, plugged: &Plugged) -> Result<(), Error> {
    match bridge {
        Some(bridge) => host.network().ensure_port(bridge, &plugged.nic).map(drop)?,
        None => host.network().ensure_pair(&plugged.nic)?,
    }
    Ok(())
}

/// Takes a nic away; one that is gone is success.
///
/// # Errors
/// When something of it cannot be removed.
pub(crate) fn unplug(host: &Host, plugged: &Plugged) -> Result<(), Error> {
    match &plugged.network {
        Some(network) => host.network().unplug(&resolve::interface(network)?, &plugged.nic)?,
        None => host.network().unplug_pair(&plugged.nic)?,
    }
    Ok(())
}
