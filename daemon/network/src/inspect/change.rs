//! What the kernel tells of changes: which of this daemon's links went.

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};

/// What some messages say.
#[derive(Debug, Default)]
pub struct Change {
    /// Links of the group that went, or are switched off; links of anybody that left a bridge.
    pub links: Vec<String>,
    /// Whether an address was taken away, from whatever interface.
    pub address: bool,
}

/// Reads what came over a routing socket that listens; links of other groups are left out.
pub fn read(mut bytes: &[u8], group: u32) -> Change {
    let mut change = Change::default();
    while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
        let length = usize::try_from(message.header.length).unwrap_or(0);
        match &message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(gone)) if is_of(gone, group) => {
                change.links.extend(name_of(gone));
            }
            // Not the link went, but its place on a bridge; this message bears no group.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(gone))
                if gone.header.interface_family == AddressFamily::Bridge =>
            {
                change.links.extend(name_of(gone));
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(changed))
                if is_of(changed, group) && !changed.header.flags.contains(LinkFlags::Up) =>
            {
                change.links.extend(name_of(changed));
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(_)) => change.address = true,
            _ => {}
        }
        match bytes.get(length.next_multiple_of(4)..) {
            Some(rest) if length > 0 && !rest.is_empty() => bytes = rest,
            _ => break,
        }
    }
    change
}

fn is_of(link: &LinkMessage, group: u32) -> bool {
    link.attributes.contains(&LinkAttribute::Group(group))
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}
