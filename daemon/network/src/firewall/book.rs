//! Who holds which IPv6 address on a bridge.
//!
//! A guest makes its own addresses (SLAAC: from the MAC, stable-private or temporary), so the filter keeps book, as
//! RFC 6620 does: whoever first shows an address holds it, together with its MAC, until it has been silent for an hour.
//! Nobody else can send from it, or answer for it. The bridge's own addresses are the host's from the start.
//!
//! All ports of a bridge share its book, and a port's own rules cannot reach it: sets are seen only from within their
//! table. So a port's chain looks at all that a frame says by itself ([`super::port`]) and writes into its mark what is
//! to be looked up; the chain here sees the frame next, looks it up, and takes the mark off before anybody else sees the
//! frame. A guest cannot set marks: they do not come through a veth pair (`skb_scrub_packet`, net/core/skbuff.c).

use super::rule::{Base, Field, Meta, Rule};
use super::wire::{Batch, SetKind, Table};

/// IPv6 addresses; nft's name for the type is `ipv6_addr`.
const ADDRESSES: SetKind = SetKind { key_type: 8, key_len: 16, size: 65_535 };
/// IPv6 addresses with MACs: `ipv6_addr . ether_addr`.
const PAIRS: SetKind = SetKind { key_type: (8 << 6) | 9, key_len: 24, size: 65_535 };
/// Interfaces by number: `iface_index`.
const INTERFACES: SetKind = SetKind { key_type: 20, key_len: 4, size: 65_535 };

/// How long an IPv6 address stays with a silent holder, in milliseconds.
const HELD: u64 = 3_600_000;
/// New IPv6 addresses a port may show in a minute, and at once.
const NEW_PER_MINUTE: u64 = 30;
const NEW_AT_ONCE: u32 = 20;
/// How long is remembered how many a port showed, in milliseconds: all it may show at once is there again by then.
const COUNTED: u64 = 120_000;

/// Where a frame says whom it is from.
pub const SOURCE6: Field = Field(Base::Network, 8, 16);
/// Where neighbour discovery says what it is about.
pub const ND_TARGET: Field = Field(Base::Transport, 8, 16);

/// What is to be looked up for a frame: the sender's address.
pub const SENDER: u32 = 1;
/// The address a neighbour advertisement is about.
pub const ADVERTISED: u32 = 2;
/// The address a neighbour solicitation asks for, of somebody who wants to have it.
pub const WANTED: u32 = 4;
const WHATEVER: u32 = SENDER | ADVERTISED | WANTED;

/// The names of a bridge's book, and what its frames are marked with.
pub struct Book {
    /// The chain.
    pub chain: String,
    /// The set of addresses that have a holder.
    pub held: String,
    /// The set of addresses with their holders' MACs.
    pub holders: String,
    /// The set of ports that showed new addresses a moment ago.
    newcomers: String,
    /// The mark of frames for this book; what is to be looked up comes to it.
    pub mark: u32,
}

impl Book {
    /// The book of the bridge of that name.
    pub fn of(bridge: &str) -> Book {
        let number = u32::try_from(crate::hash(bridge.as_bytes()) >> 32).unwrap_or_default();
        Book {
            chain: format!("book.{bridge}"),
            held: format!("held.{bridge}"),
            holders: format!("holders.{bridge}"),
            newcomers: format!("newcomers.{bridge}"),
            mark: number & !WHATEVER,
        }
    }

    /// Makes the sets unless they are there.
    pub fn sets(&self, batch: &mut Batch, table: Table<'_>) {
        batch.set(table, &self.held, ADDRESSES);
        batch.set(table, &self.holders, PAIRS);
        batch.set(table, &self.newcomers, INTERFACES);
    }

    /// Removes all of it.
    pub fn drop(&self, batch: &mut Batch, table: Table<'_>) {
        batch.drop_chain(table, &self.chain);
        batch.drop_set(table, &self.held, ADDRESSES);
        batch.drop_set(table, &self.holders, PAIRS);
        batch.drop_set(table, &self.newcomers, INTERFACES);
    }

    /// The rules of its chain, in order.
    pub fn rules(&self) -> Vec<Rule> {
        let mut rules = vec![Rule::new().mark_is_not(!WHATEVER, self.mark).accept()];
        // Most of what is sent, and nothing below is about it.
        let tcp = Rule::new().mark_is(!0, self.mark | SENDER).meta_is(Meta::Transport, &[6]);
        rules.push(pass(tcp.pair_in_set(SOURCE6, &self.holders)));

        // Looking for a duplicate: the target becomes the sender's, unless somebody holds it already.
        let wanted = || Rule::new().mark_is(WANTED, WANTED);
        rules.push(pass(wanted().in_set(ND_TARGET, &self.held)));
        rules.push(self.too_many(wanted()).drop());
        rules.push(pass(self.hold(wanted(), ND_TARGET)));
        rules.push(wanted().drop());

        self.claim(&mut rules, SENDER, SOURCE6);
        self.claim(&mut rules, ADVERTISED, ND_TARGET);
        rules.push(pass(Rule::new()));
        rules
    }

    /// Lets only the holder of the address pass; the first to show it becomes that.
    fn claim(&self, rules: &mut Vec<Rule>, what: u32, address: Field) {
        let about = || Rule::new().mark_is(what, what);
        let strange = || about().pair_not_in_set(address, &self.holders);
        rules.push(strange().in_set(address, &self.held).drop());
        rules.push(self.too_many(strange()).drop());
        rules.push(self.hold(about(), address));
        // A full set takes nothing more, and then nothing more passes.
        rules.push(strange().drop());
    }

    fn hold(&self, rule: Rule, address: Field) -> Rule {
        rule.remember(address, &self.held, HELD).remember_pair(address, &self.holders, HELD)
    }

    fn too_many(&self, rule: Rule) -> Rule {
        rule.over_per_minute_of_port(&self.newcomers, COUNTED, NEW_PER_MINUTE, NEW_AT_ONCE)
    }
}

/// Lets the frame go on without its mark.
fn pass(rule: Rule) -> Rule {
    rule.set_mark(0).accept()
}
