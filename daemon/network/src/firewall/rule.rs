//! One rule of the packet filter, built from the kernel's own small instructions.
//!
//! Register 1 takes what is looked at; register 2 lies behind it, so that an IPv6 address in 1 and an
//! Ethernet address in 2 are one 24-byte key.

use std::net::IpAddr;

use super::wire::Attrs;

/// From where an offset counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The Ethernet header.
    Link = 0,
    /// The IP or ARP header.
    Network = 1,
    /// The UDP, TCP or ICMP header.
    Transport = 2,
}

/// Bytes of a frame: where they count from, the offset and the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field(pub Base, pub u32, pub u32);

/// Facts about a packet that are not in it (`enum nft_meta_keys`).
#[derive(Debug, Clone, Copy)]
pub enum Meta {
    /// The priority in the queues it waits in.
    Priority = 2,
    /// The mark, which goes with the packet through the host and is in no frame.
    Mark = 3,
    /// The number of the interface it came in by.
    In = 4,
    /// The name of the interface it came in by.
    InName = 6,
    /// The name of the interface it leaves by.
    OutName = 7,
    /// IPv4 or IPv6, in the inet family.
    Family = 15,
    /// The transport protocol, behind IPv6's extension headers.
    Transport = 16,
}

/// The sender's Ethernet address.
pub const ETHER_SOURCE: Field = Field(Base::Link, 6, 6);
/// The Ethernet address sent to.
pub const ETHER_TARGET: Field = Field(Base::Link, 0, 6);
/// The outermost Ethernet type: a VLAN tag counts.
pub const ETHER_TYPE: Field = Field(Base::Link, 12, 2);

const REG_VERDICT: u32 = 0;
const REG_1: u32 = 1;
const REG_2: u32 = 2;

/// A rule that is being built, instruction by instruction.
#[derive(Debug, Default, Clone)]
pub struct Rule {
    list: Attrs,
}

#[allow(clippy::wrong_self_convention, reason = "a rule reads as the condition it holds")]
impl Rule {
    pub fn new() -> Rule {
        Rule::default()
    }

    pub fn expressions(&self) -> &Attrs {
        &self.list
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attrs)) -> Rule {
        self.list.nest(1, |element| {
            element.text(1, name).nest(2, fill);
        });
        self
    }

    fn load(self, field: Field, register: u32) -> Rule {
        let Field(base, offset, len) = field;
        self.expression("payload", |data| {
            data.number(1, register).number(2, base as u32).number(3, offset).number(4, len);
        })
    }

    fn compare(self, op: u32, value: &[u8]) -> Rule {
        self.expression("cmp", |data| {
            data.number(1, REG_1).number(2, op).nest(3, |nest| {
                nest.put(1, value);
            });
        })
    }

    fn mask(self, mask: &[u8]) -> Rule {
        let len = u32::try_from(mask.len()).unwrap_or(u32::MAX);
        let zero = vec![0u8; mask.len()];
        self.expression("bitwise", |data| {
            data.number(1, REG_1).number(2, REG_1).number(3, len);
            data.nest(4, |nest| {
                nest.put(1, mask);
            });
            data.nest(5, |nest| {
                nest.put(1, &zero);
            });
        })
    }

    /// Goes on when the field is `value`.
    pub fn is(self, field: Field, value: &[u8]) -> Rule {
        self.load(field, REG_1).compare(0, value)
    }

    /// Goes on when the field is anything but `value`.
    pub fn is_not(self, field: Field, value: &[u8]) -> Rule {
        self.load(field, REG_1).compare(1, value)
    }

    /// Goes on when the field's bits under `mask` are `value`.
    pub fn masked_is(self, field: Field, mask: &[u8], value: &[u8]) -> Rule {
        self.load(field, REG_1).mask(mask).compare(0, value)
    }

    /// Goes on when the field's bits under `mask` are anything but `value`.
    pub fn masked_is_not(self, field: Field, mask: &[u8], value: &[u8]) -> Rule {
        self.load(field, REG_1).mask(mask).compare(1, value)
    }

    /// Goes on when the field lies from `first` to `last`, read as a big-endian number.
    pub fn between(self, field: Field, first: &[u8], last: &[u8]) -> Rule {
        self.load(field, REG_1).compare(5, first).compare(3, last)
    }

    /// Goes on when a fact is `value`.
    pub fn meta_is(self, key: Meta, value: &[u8]) -> Rule {
        self.meta(key).compare(0, value)
    }

    /// Goes on when the bits of the mark under `mask` are those of `value`.
    pub fn mark_is(self, mask: u32, value: u32) -> Rule {
        self.meta(Meta::Mark).mask(&mask.to_ne_bytes()).compare(0, &value.to_ne_bytes())
    }

    /// Goes on when the bits of the mark under `mask` are anything but those of `value`.
    pub fn mark_is_not(self, mask: u32, value: u32) -> Rule {
        self.meta(Meta::Mark).mask(&mask.to_ne_bytes()).compare(1, &value.to_ne_bytes())
    }

    fn meta(self, key: Meta) -> Rule {
        self.expression("meta", |data| {
            data.number(1, REG_1).number(2, key as u32);
        })
    }

    /// Goes on for what came in by this interface.
    pub fn arriving_by(self, name: &str) -> Rule {
        self.meta_is(Meta::InName, &padded_name(name))
    }

    /// Goes on for what leaves by this interface.
    pub fn leaving_by(self, name: &str) -> Rule {
        self.meta_is(Meta::OutName, &padded_name(name))
    }

    /// Goes on for what leaves by any other interface.
    pub fn leaving_elsewhere(self, name: &str) -> Rule {
        self.meta(Meta::OutName).compare(1, &padded_name(name))
    }

    /// Goes on for what came in by any other interface.
    pub fn arriving_elsewhere(self, name: &str) -> Rule {
        self.meta(Meta::InName).compare(1, &padded_name(name))
    }

    /// Goes on for packets of connections the host knows already.
    pub fn known_connection(self) -> Rule {
        const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
        self.expression("ct", |data| {
            data.number(1, REG_1).number(2, 0);
        })
        .mask(&ESTABLISHED_OR_RELATED.to_ne_bytes())
        .compare(1, &[0; 4])
    }

    /// Goes on when the field is in the set.
    pub fn in_set(self, field: Field, set: &str) -> Rule {
        self.load(field, REG_1).lookup(set, 0)
    }

    /// Goes on when the field together with the sender's Ethernet address is in the set.
    pub fn pair_in_set(self, field: Field, set: &str) -> Rule {
        self.load(field, REG_1).load(ETHER_SOURCE, REG_2).lookup(set, 0)
    }

    /// Goes on when the field together with the sender's Ethernet address is not in the set.
    pub fn pair_not_in_set(self, field: Field, set: &str) -> Rule {
        self.load(field, REG_1).load(ETHER_SOURCE, REG_2).lookup(set, 1)
    }

    fn lookup(self, set: &str, flags: u32) -> Rule {
        self.expression("lookup", |data| {
            data.text(1, set).number(2, REG_1).number(5, flags);
        })
    }

    /// Puts the field into the set, or lets it stay longer.
    pub fn remember(self, field: Field, set: &str, milliseconds: u64) -> Rule {
        self.load(field, REG_1).dynset(set, milliseconds)
    }

    /// Puts the field together with the sender's Ethernet address into the set, or lets it stay longer.
    pub fn remember_pair(self, field: Field, set: &str, milliseconds: u64) -> Rule {
        self.load(field, REG_1).load(ETHER_SOURCE, REG_2).dynset(set, milliseconds)
    }

    fn dynset(self, set: &str, milliseconds: u64) -> Rule {
        self.expression("dynset", |data| {
            data.text(1, set).number(3, 1).number(4, REG_1).long(6, milliseconds);
        })
    }

    /// Goes on once more than `rate` packets a minute (and `burst` at once) of the port they came in by came to rules with
    /// that set; it is forgotten after so many milliseconds without any.
    pub fn over_per_minute_of_port(self, set: &str, milliseconds: u64, rate: u64, burst: u32) -> Rule {
        self.meta(Meta::In).expression("dynset", |data| {
            data.text(1, set).number(3, 1).number(4, REG_1).long(6, milliseconds);
            data.nest(7, |each| {
                each.text(1, "limit").nest(2, |limit| over(limit, rate, 60, burst));
            });
        })
    }

    /// Goes on once more than `rate` packets a second (and `burst` at once) came here.
    pub fn over_per_second(self, rate: u64, burst: u32) -> Rule {
        self.expression("limit", |data| over(data, rate, 1, burst))
    }

    /// Goes on once more than `rate` bytes a second came here; a second's worth may come at once.
    pub fn over_bytes_per_second(self, rate: u64) -> Rule {
        self.expression("limit", |data| {
            data.long(1, rate).long(2, 1).number(3, 0).number(4, 1).number(5, 1);
        })
    }

    /// Gives the packet this priority for the queues it waits in, and goes on.
    pub fn set_priority(self, priority: u32) -> Rule {
        self.set_meta(Meta::Priority, priority)
    }

    /// Gives the packet this mark, and goes on.
    pub fn set_mark(self, mark: u32) -> Rule {
        self.set_meta(Meta::Mark, mark)
    }

    fn set_meta(self, key: Meta, value: u32) -> Rule {
        self.expression("immediate", |data| {
            data.number(1, REG_1).nest(2, |nest| {
                nest.put(1, &value.to_ne_bytes());
            });
        })
        .expression("meta", |data| {
            data.number(2, key as u32).number(3, REG_1);
        })
    }

    /// Writes these bytes into the frame, where no checksum covers them (`NFTA_PAYLOAD_SREG`), and goes on.
    pub fn write(self, field: Field, bytes: &[u8]) -> Rule {
        let Field(base, offset, length) = field;
        self.expression("immediate", |data| {
            data.number(1, REG_1).nest(2, |nest| {
                nest.put(1, bytes);
            });
        })
        .expression("payload", |data| {
            data.number(2, base as u32).number(3, offset).number(4, length).number(5, REG_1).number(6, 0);
        })
    }

    /// Counts what came here.
    pub fn count(self) -> Rule {
        self.expression("counter", |data| {
            data.long(1, 0).long(2, 0);
        })
    }

    /// Lets the packet leave with the outgoing interface's address, or this one.
    pub fn source_nat(self, address: Option<IpAddr>) -> Rule {
        let (bytes, family) = match address {
            None => return self.expression("masq", |_| {}),
            Some(IpAddr::V4(address)) => (address.octets().to_vec(), 2),
            Some(IpAddr::V6(address)) => (address.octets().to_vec(), 10),
        };
        self.expression("immediate", |data| {
            data.number(1, REG_1).nest(2, |nest| {
                nest.put(1, &bytes);
            });
        })
        .expression("nat", |data| {
            data.number(1, 0).number(2, family).number(3, REG_1);
        })
    }

    /// Ends here: the packet is let through this chain.
    pub fn accept(self) -> Rule {
        self.verdict(1)
    }

    /// Ends here: the packet is gone.
    pub fn drop(self) -> Rule {
        self.verdict(0)
    }

    fn verdict(self, code: u32) -> Rule {
        self.expression("immediate", |data| {
            data.number(1, REG_VERDICT).nest(2, |nest| {
                nest.nest(2, |verdict| {
                    verdict.number(1, code);
                });
            });
        })
    }
}

/// A limit that counts packets and is about those above it.
fn over(data: &mut Attrs, rate: u64, seconds: u64, burst: u32) {
    data.long(1, rate).long(2, seconds).number(3, burst).number(4, 0).number(5, 1);
}

fn padded_name(name: &str) -> [u8; 16] {
    let mut bytes = [0u8; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    bytes
}
