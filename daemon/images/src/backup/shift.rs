//! Taking back a shift of ids: some servers write trees as they lie on their disk, owned by the host ids that the
//! instance last ran with.

use serde::{Deserialize, Serialize};

use crate::tree::Attributes;

/// Who the kernel shows in place of an owner that has no place in a map.
const NOBODY: u32 = 65534;

const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;
/// Revision 3 of a file's capabilities: with the id of the root that they hold for.
const CAPS_WITH_ROOT: u32 = 0x0300_0000;
const CAPS: u32 = 0x0200_0000;

/// A run of ids on disk that stands for another one inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShiftRun {
    /// The first id in the archive.
    pub outside: u32,
    /// The first id inside.
    pub inside: u32,
    /// How many.
    pub count: u32,
    /// Whether it holds for users.
    pub users: bool,
    /// Whether it holds for groups.
    pub groups: bool,
}

fn back(id: u32, runs: &[ShiftRun], applies: impl Fn(&ShiftRun) -> bool) -> u32 {
    runs.iter()
        .filter(|run| applies(run))
        .find_map(|run| {
            let offset = id.checked_sub(run.outside).filter(|offset| *offset < run.count)?;
            run.inside.checked_add(offset)
        })
        .unwrap_or(NOBODY)
}

/// Gives a member the owners it has inside. Without runs nothing changes.
pub(crate) fn take_back(attributes: &mut Attributes, runs: &[ShiftRun]) {
    if runs.is_empty() {
        return;
    }
    let user = |id| back(id, runs, |run| run.users);
    let group = |id| back(id, runs, |run| run.groups);
    attributes.uid = user(attributes.uid);
    attributes.gid = group(attributes.gid);
    for (name, value) in &mut attributes.xattrs {
        match name.as_slice() {
            b"system.posix_acl_access" | b"system.posix_acl_default" => {
                for entry in value.get_mut(4..).unwrap_or_default().chunks_exact_mut(8) {
                    let tag = u16::from_le_bytes([entry[0], entry[1]]);
                    let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
                    let inside = match tag {
                        ACL_USER => user(id),
                        ACL_GROUP => group(id),
                        _ => continue,
                    };
                    entry[4..].copy_from_slice(&inside.to_le_bytes());
                }
            }
            b"security.capability" if value.len() == 24 => {
                let head = u32::from_le_bytes([value[0], value[1], value[2], value[3]]);
                if head & 0xff00_0000 == CAPS_WITH_ROOT {
                    // They hold for the root inside, whoever that is.
                    value[..4].copy_from_slice(&(CAPS | head & 0x00ff_ffff).to_le_bytes());
                    value.truncate(20);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn owners_acls_and_capabilities_are_those_inside_again() {
        let run = |outside, inside, count, users| ShiftRun { outside, inside, count, users, groups: !users };
        let runs = [run(100_000, 0, 65536, true), run(200_000, 0, 65536, false)];
        let mut acl = 2u32.to_le_bytes().to_vec();
        for (tag, id) in [(1u16, u32::MAX), (ACL_USER, 101_000), (ACL_GROUP, 201_001), (0x20, u32::MAX)] {
            acl.extend(tag.to_le_bytes());
            acl.extend([7, 0]);
            acl.extend(id.to_le_bytes());
        }
        let mut caps = [0u8; 24].to_vec();
        caps[..4].copy_from_slice(&(CAPS_WITH_ROOT | 1).to_le_bytes());
        caps[20..].copy_from_slice(&100_000u32.to_le_bytes());
        let mut attributes = Attributes {
            uid: 100_033,
            gid: 5,
            xattrs: vec![(b"system.posix_acl_access".to_vec(), acl), (b"security.capability".to_vec(), caps)],
            ..Attributes::default()
        };
        take_back(&mut attributes, &runs);
        assert_eq!((attributes.uid, attributes.gid), (33, NOBODY));
        let acl = &attributes.xattrs[0].1;
        let id = |entry: usize| u32::from_le_bytes(acl[8 + entry * 8..12 + entry * 8].try_into().unwrap());
        assert_eq!([id(0), id(1), id(2), id(3)], [u32::MAX, 1000, 1001, u32::MAX]);
        assert_eq!(attributes.xattrs[1].1.len(), 20);
        assert_eq!(attributes.xattrs[1].1[..4], (CAPS | 1).to_le_bytes());
    }
}
