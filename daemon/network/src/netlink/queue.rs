//! How fast packets leave by an interface: a token bucket of the kernel's (HTB) with one class, at the root of its
//! queues. It goes with the interface.

use std::io;

use futures_util::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};

use super::{Netlink, index_of};
use crate::error::{Error, Result};
use crate::name::IfName;

/// The number of the bucket, by which ours is told from those of others, and of its one class.
const ROOT: TcHandle = TcHandle { major: 0x0cab, minor: 0 };
const CLASS: TcHandle = TcHandle { major: 0x0cab, minor: 0x10 };

/// The bucket's options (`linux/pkt_sched.h`).
const HTB_PARMS: u16 = 1;
const HTB_INIT: u16 = 2;
const HTB_RATE64: u16 = 6;
const HTB_CEIL64: u16 = 7;
/// The version of those the kernel understands.
const HTB_VERSION: u32 = 3;
/// `TC_LINKLAYER_ETHERNET`: the kernel reckons itself, without a table of ours.
const ETHERNET: u8 = 1;
/// What may pass at once beyond a hundredth of a second's worth, in bytes: two full packets.
const AT_ONCE: u64 = 3_000;
/// What one class takes at its turn, in bytes; with one class it means nothing, and unset the kernel warns.
const QUANTUM: u32 = 60_000;

impl Netlink {
    /// Lets `bits` a second leave by an interface, whatever it was before. What comes faster waits; what finds the
    /// queue full is dropped.
    pub fn limit_rate(&self, name: &IfName, bits: u64) -> Result<()> {
        let index = index_of(name)?.ok_or_else(|| Error::NoLink { name: name.clone() })?;
        let bucket = message(index, ROOT, TcHandle::ROOT, vec![TcOption::Other(options_of_bucket())]);
        let class = message(index, CLASS, ROOT, options_of_class(bits));
        let bucket = RouteNetlinkMessage::NewQueueDiscipline(bucket);
        let made = match self.ask(bucket, NLM_F_CREATE | NLM_F_EXCL) {
            // One of ours; of another's the class will be refused.
            Err(why) if why.raw_os_error() == Some(17) => Ok(()),
            made => made,
        };
        let class = RouteNetlinkMessage::NewTrafficClass(class);
        made.and_then(|()| self.ask(class, NLM_F_CREATE | NLM_F_REPLACE))
            .map_err(|source| Error::Rate { name: name.clone(), source })
    }

    /// Takes that limit away; none is success.
    pub fn unlimit_rate(&self, name: &IfName) -> Result<()> {
        let Some(index) = index_of(name)? else { return Ok(()) };
        let bucket = message(index, ROOT, TcHandle::ROOT, Vec::new());
        match self.ask(RouteNetlinkMessage::DelQueueDiscipline(bucket), 0) {
            // Not there, of another number, or the interface has gone meanwhile.
            Err(why) if matches!(why.raw_os_error(), Some(2 | 22 | 19)) => Ok(()),
            done => done.map_err(|source| Error::Rate { name: name.clone(), source }),
        }
    }

    fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        self.run(|mut handle| async move {
            let mut answers = handle.request(request)?;
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::Error(error) = answer.payload
                    && error.code.is_some()
                {
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
            }
            Ok(())
        })
    }
}

fn message(index: u32, handle: TcHandle, parent: TcHandle, options: Vec<TcOption>) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.handle = handle;
    message.header.parent = parent;
    message.attributes.push(TcAttribute::Kind("htb".to_owned()));
    if !options.is_empty() {
        message.attributes.push(TcAttribute::Options(options));
    }
    message
}

/// `struct tc_htb_glob`: what belongs to no class belongs to ours.
fn options_of_bucket() -> DefaultNla {
    let words = [HTB_VERSION, 10, u32::from(CLASS.minor), 0, 0];
    DefaultNla::new(HTB_INIT, words.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

/// `struct tc_htb_opt` and the rate in full: 32 bits end at 34 Gbit/s.
fn options_of_class(bits: u64) -> Vec<TcOption> {
    let rate = (bits / 8).max(1);
    let short = u32::try_from(rate).unwrap_or(u32::MAX);
    // `struct tc_ratespec`: cell log, link layer, overhead, cell align, least packet, rate.
    let mut spec = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    spec.extend_from_slice(&short.to_ne_bytes());
    let (burst, at) = (rate / 100 + AT_ONCE, u128::from(rate));
    // In ticks of 64 nanoseconds.
    let ticks = u32::try_from(u128::from(burst) * 1_000_000_000 / at / 64).unwrap_or(u32::MAX);
    let mut parms = [spec.clone(), spec].concat();
    for word in [ticks, ticks, QUANTUM, 0, 0] {
        parms.extend_from_slice(&word.to_ne_bytes());
    }
    let nla = |kind, bytes: Vec<u8>| TcOption::Other(DefaultNla::new(kind, bytes));
    vec![
        nla(HTB_PARMS, parms),
        nla(HTB_RATE64, rate.to_ne_bytes().to_vec()),
        nla(HTB_CEIL64, rate.to_ne_bytes().to_vec()),
    ]
}
