//! Batches for the kernel's packet filter, as nfnetlink messages: encoding, sending, and the kernel's answer.
//!
//! Values go into length-prefixed attributes, never into text, so nothing can be injected; a batch is one
//! transaction in the kernel. It also saves the start of a program for each nic, and does not depend on
//! nft(8), of which Debian 12's 1.0.6 dies when a newer one has written a table it does not know how to read. The numbers are those of
//! `linux/netfilter/nf_tables.h` and `nfnetlink.h`; integers are big-endian.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::rule::Rule;

/// A family of the packet filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6 together.
    Inet = 1,
    /// One device's frames, before anything else sees them.
    Netdev = 5,
    /// Frames that came in by a port of a bridge.
    Bridge = 7,
}

/// A table. Rules see only the sets of their own.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a>(pub Family, pub &'a str);

impl Table<'_> {
    fn named(&self) -> Attrs {
        let mut attrs = Attrs::default();
        attrs.text(1, self.1);
        attrs
    }
}

/// Where a base chain hangs.
#[derive(Debug, Clone, Copy)]
pub struct Hook<'a> {
    /// `filter` or `nat`.
    pub kind: &'a str,
    /// The hook's number in its family.
    pub number: u32,
    /// Its place among other chains of the hook.
    pub priority: i32,
    /// The device, for netdev chains.
    pub device: Option<&'a str>,
}

/// What a set holds.
#[derive(Debug, Clone, Copy)]
pub struct SetKind {
    /// nft's number of the key's type, so that `nft list` shows it properly.
    pub key_type: u32,
    /// Bytes of a key.
    pub key_len: u32,
    /// The most elements.
    pub size: u32,
}

const NESTED: u16 = 0x8000;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NONREC: u16 = 0x100;
const SUBSYS: u16 = 10 << 8;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;

/// Attributes as they are written one after another.
#[derive(Debug, Default, Clone)]
pub struct Attrs(Vec<u8>);

impl Attrs {
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Attrs {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub fn number(&mut self, kind: u16, value: u32) -> &mut Attrs {
        self.put(kind, &value.to_be_bytes())
    }

    pub fn long(&mut self, kind: u16, value: u64) -> &mut Attrs {
        self.put(kind, &value.to_be_bytes())
    }

    pub fn text(&mut self, kind: u16, value: &str) -> &mut Attrs {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attrs)) -> &mut Attrs {
        let mut inner = Attrs::default();
        fill(&mut inner);
        self.put(kind | NESTED, &inner.0)
    }

    pub fn append(&mut self, other: &Attrs) -> &mut Attrs {
        self.0.extend_from_slice(&other.0);
        self
    }
}

/// Changes that hold together or not at all.
pub struct Batch {
    messages: Vec<u8>,
    count: u32,
    last: usize,
}

impl Batch {
    pub fn new() -> Batch {
        let mut batch = Batch { messages: Vec::new(), count: 0, last: 0 };
        batch.push(0x10, 0, 0, &Attrs::default());
        batch
    }

    fn push(&mut self, kind: u16, flags: u16, family: u8, attrs: &Attrs) {
        self.last = self.messages.len();
        let res_id = if kind == 0x10 || kind == 0x11 { 10u16 } else { 0 };
        push_message(&mut self.messages, kind, flags, self.count, family, res_id, attrs);
        self.count += 1;
    }

    fn change(&mut self, message: u16, flags: u16, Table(family, _): Table<'_>, attrs: &Attrs) {
        self.push(SUBSYS | message, flags, family as u8, attrs);
    }

    /// Makes the table unless it is there.
    pub fn table(&mut self, table: Table<'_>) {
        let mut attrs = table.named();
        attrs.number(2, 0);
        self.change(0, CREATE, table, &attrs);
    }

    /// Removes the table and all in it.
    pub fn drop_table(&mut self, table: Table<'_>) {
        self.change(2, 0, table, &table.named());
    }

    /// Removes the table if nothing is in it; else it is EBUSY.
    pub fn drop_empty_table(&mut self, table: Table<'_>) {
        self.change(2, NONREC, table, &table.named());
    }

    /// Puts a base chain with these rules in the place of whatever has its name.
    pub fn replace_chain(&mut self, table: Table<'_>, name: &str, hook: Hook<'_>, rules: &[Rule]) {
        self.drop_chain(table, name);
        let mut attrs = table.named();
        attrs.text(3, name).nest(4, |nest| {
            nest.number(1, hook.number).put(2, &hook.priority.to_be_bytes());
            if let Some(device) = hook.device {
                nest.text(3, device);
            }
        });
        attrs.number(5, 1).text(7, hook.kind);
        self.change(3, CREATE, table, &attrs);
        for rule in rules {
            let mut attrs = table.named();
            attrs.text(2, name).nest(4, |list| {
                list.append(rule.expressions());
            });
            self.change(6, CREATE | APPEND, table, &attrs);
        }
    }

    /// Removes a chain and its rules; one that is not there is made first, so that it never fails.
    pub fn drop_chain(&mut self, table: Table<'_>, name: &str) {
        let mut attrs = table.named();
        attrs.text(3, name);
        self.change(3, CREATE, table, &attrs);
        self.change(5, 0, table, &attrs);
    }

    /// Makes a set whose elements may end by themselves, unless it is there.
    pub fn set(&mut self, table: Table<'_>, name: &str, kind: SetKind) {
        let mut attrs = table.named();
        attrs.text(2, name).number(3, SET_TIMEOUT | SET_EVAL);
        attrs.number(4, kind.key_type).number(5, kind.key_len);
        attrs.nest(9, |desc| {
            desc.number(1, kind.size);
        });
        // The id is only to tell new sets of one batch apart; sets are referred to by name here.
        attrs.number(10, self.count);
        self.change(9, CREATE, table, &attrs);
    }

    /// Removes a set; one that is not there is made first, so that it never fails.
    pub fn drop_set(&mut self, table: Table<'_>, name: &str, kind: SetKind) {
        self.set(table, name, kind);
        let mut attrs = table.named();
        attrs.text(2, name);
        self.change(11, 0, table, &attrs);
    }

    /// Puts elements that do not end into a set.
    pub fn elements(&mut self, table: Table<'_>, set: &str, keys: &[Vec<u8>]) {
        if !keys.is_empty() {
            let attrs = element_list(table, set, keys);
            self.change(12, CREATE, table, &attrs);
        }
    }

    /// Takes elements out of a set; those that are not there are put in first, so that it never fails.
    pub fn drop_elements(&mut self, table: Table<'_>, set: &str, keys: &[Vec<u8>]) {
        if !keys.is_empty() {
            let attrs = element_list(table, set, keys);
            self.change(12, CREATE, table, &attrs);
            self.change(14, 0, table, &attrs);
        }
    }

    /// Has the kernel apply all of it, or nothing.
    pub fn commit(mut self, socket: &OwnedFd) -> io::Result<()> {
        // The answer to the last change says that the kernel has seen all of them.
        let flags = u16::from_ne_bytes([self.messages[self.last + 6], self.messages[self.last + 7]]) | ACK;
        self.messages[self.last + 6..self.last + 8].copy_from_slice(&flags.to_ne_bytes());
        let awaited = self.count - 1;
        self.push(0x11, 0, 0, &Attrs::default());
        send(socket, &self.messages)?;
        let mut first = Ok(());
        loop {
            let answers = receive(socket)?;
            let mut rest = answers.as_slice();
            while let Some((kind, sequence, body, next)) = split_message(rest) {
                rest = next;
                if kind != ERROR || body.len() < 4 {
                    continue;
                }
                let code = i32::from_ne_bytes([body[0], body[1], body[2], body[3]]);
                if code != 0 && first.is_ok() {
                    first = Err(io::Error::from_raw_os_error(-code));
                }
                // A failed commit is answered to the first message, and nothing may follow.
                if sequence == awaited || (sequence == 0 && code != 0) {
                    return first;
                }
            }
        }
    }
}

fn element_list(table: Table<'_>, set: &str, keys: &[Vec<u8>]) -> Attrs {
    let mut attrs = table.named();
    attrs.text(2, set).nest(3, |list| {
        for key in keys {
            list.nest(1, |element| {
                element.nest(1, |data| {
                    data.put(1, key);
                });
            });
        }
    });
    attrs
}

/// The chains of a family, each as its table and its name.
pub fn chains(socket: &OwnedFd, family: Family) -> io::Result<Vec<(String, String)>> {
    let all = dump(socket, 4, family as u8)?;
    Ok(all.iter().filter_map(|(_, attrs)| Some((text_attr(attrs, 1)?, text_attr(attrs, 3)?))).collect())
}

/// The names of the tables of a family, each with how many chains and sets are in it.
pub fn tables(socket: &OwnedFd, family: Family) -> io::Result<Vec<(String, u32)>> {
    let all = dump(socket, 1, family as u8)?;
    Ok(all.iter().filter_map(|(_, attrs)| Some((text_attr(attrs, 1)?, number_attr(attrs, 3)?))).collect())
}

/// The chains of whatever table through which packets are routed and that drop what none of their rules lets through,
/// each as nft calls it: family, table, chain.
pub fn dropping(socket: &OwnedFd) -> io::Result<Vec<String>> {
    const FORWARD: u32 = 2;
    const DROP: u32 = 0;
    let of = |family: u8, attrs: &[u8]| {
        let family = match family {
            1 => "inet",
            2 => "ip",
            10 => "ip6",
            _ => return None,
        };
        let (table, chain) = (text_attr(attrs, 1)?, text_attr(attrs, 3)?);
        let forwards = number_attr(attr(attrs, 4)?, 1)? == FORWARD;
        (forwards && number_attr(attrs, 5)? == DROP).then(|| format!("{family} {table} {chain}"))
    };
    // Of all families.
    Ok(dump(socket, 4, 0)?.iter().filter_map(|(family, attrs)| of(*family, attrs)).collect())
}

/// All that the kernel lists when it is asked with that message: the family and the attributes of each.
fn dump(socket: &OwnedFd, message: u16, family: u8) -> io::Result<Vec<(u8, Vec<u8>)>> {
    let mut request = Vec::new();
    push_message(&mut request, SUBSYS | message, DUMP, 1, family, 0, &Attrs::default());
    send(socket, &request)?;
    let mut found = Vec::new();
    loop {
        let answers = receive(socket)?;
        let mut rest = answers.as_slice();
        while let Some((kind, _, body, next)) = split_message(rest) {
            rest = next;
            match (kind, body) {
                (DONE, _) => return Ok(found),
                (ERROR, _) => {
                    let code = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                    return if code == 0 { Ok(found) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                (_, [family, _, _, _, attrs @ ..]) => found.push((*family, attrs.to_vec())),
                _ => {}
            }
        }
    }
}

/// Whether what the kernel tells is that somebody other than the socket `own` took something out of one of our tables.
/// What the kernel itself removes with its device bears no number.
pub fn foreign_removal(told: &[u8], is_ours: impl Fn(&str) -> bool, own: u32) -> bool {
    /// Tables, chains, rules, sets, elements.
    const REMOVALS: [u16; 5] = [2, 5, 8, 11, 14];
    let mut rest = told;
    while let Some((kind, _, body, next)) = split_message(rest) {
        let by = rest.get(12..16).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        let removal = kind & 0xff00 == SUBSYS && REMOVALS.contains(&(kind & 0xff));
        let of_ours = || text_attr(body.get(4..).unwrap_or_default(), 1).is_some_and(|table| is_ours(&table));
        if removal && by != own && by != 0 && of_ours() {
            return true;
        }
        rest = next;
    }
    false
}

/// The number of a socket, given by the kernel when it was first used.
pub fn port(socket: &OwnedFd) -> io::Result<u32> {
    let address = SocketAddrNetlink::try_from(net::getsockname(socket)?)?;
    Ok(address.pid())
}

fn text_attr(attrs: &[u8], wanted: u16) -> Option<String> {
    let value = attr(attrs, wanted)?;
    String::from_utf8(value.strip_suffix(&[0]).unwrap_or(value).to_vec()).ok()
}

fn number_attr(attrs: &[u8], wanted: u16) -> Option<u32> {
    Some(u32::from_be_bytes(attr(attrs, wanted)?.try_into().ok()?))
}

fn attr(mut attrs: &[u8], wanted: u16) -> Option<&[u8]> {
    while attrs.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([attrs[0], attrs[1]]));
        let kind = u16::from_ne_bytes([attrs[2], attrs[3]]) & !NESTED;
        if len < 4 || len > attrs.len() {
            return None;
        }
        if kind == wanted {
            return attrs.get(4..len);
        }
        attrs = attrs.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn push_message(
    to: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    res_id: u16,
    attrs: &Attrs,
) {
    let len = u32::try_from(20 + attrs.0.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&len.to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
    to.extend_from_slice(&sequence.to_ne_bytes());
    to.extend_from_slice(&0u32.to_ne_bytes());
    to.extend_from_slice(&[family, 0]);
    to.extend_from_slice(&res_id.to_be_bytes());
    to.extend_from_slice(&attrs.0);
}

/// Kind, sequence and body of the first message, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let head = bytes.get(..16)?;
    let len = usize::try_from(u32::from_ne_bytes([head[0], head[1], head[2], head[3]])).ok()?;
    let kind = u16::from_ne_bytes([head[4], head[5]]);
    let sequence = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
    let body = bytes.get(16..len)?;
    let next = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, sequence, body, next))
}

/// Opens the way to the packet filter of the calling thread's network namespace. Keep it: when one is closed,
/// the kernel first waits for everything that was ever removed to be gone, some 10 ms.
pub fn open() -> io::Result<OwnedFd> {
    Ok(net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    )?)
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    // Answers that a failure left unread must not be taken for those to this message.
    let mut nothing = [0u8; 64];
    while net::recv(socket, nothing.as_mut_slice(), RecvFlags::DONTWAIT).is_ok() {}
    net::sendto(socket, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

/// The kernel answers before sendto(2) returns, so an empty queue means that an answer was lost.
fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        match net::recv(socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((_, got)) => {
                buffer.truncate(got);
                return Ok(buffer);
            }
            Err(Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
    }
}
