//! The sorts of value that keys and properties have, and the check of each.

use crate::value::{Invalid, address, cpu, name, number, schedule, size, snapshot};

/// What a value must be. The parsers behind are in [`crate::value`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text on one line.
    Text,
    /// Any text.
    Blob,
    /// `true` or `false`.
    Bool,
    /// `true` alone: the other way is not offered, for the reason given.
    OnlyTrue(&'static str),
    /// A whole number, least and most.
    Integer(i64, i64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A size in bytes, or a percentage of the host's memory.
    Memory,
    /// A size in bytes.
    Bytes,
    /// A rate in bits a second.
    Rate,
    /// A mode of a file, octal.
    Mode,
    /// What a disk shows.
    Source,
    /// A bool or a size in bytes.
    Swap,
    /// How many or which processors.
    Cpus,
    /// A share or a quota of processor time.
    Allowance,
    /// `SOFT:HARD`.
    Rlimit,
    /// A MAC address.
    Mac,
    /// A MAC address with `x` for digits that are made up.
    MacPattern,
    /// The name of an interface.
    Interface,
    /// The name of a managed network.
    Network,
    /// The name of a pool.
    Pool,
    /// An absolute path.
    Path,
    /// `auto`, `none`, or an IPv4 address with its prefix.
    Ipv4Subnet,
    /// `auto`, `none`, or an IPv6 address with its prefix.
    Ipv6Subnet,
    /// An IPv4 address, or `none`.
    Ipv4Host,
    /// An IPv6 address, or `none`.
    Ipv6Host,
    /// An IPv4 address.
    Ipv4,
    /// A list of IPv4 networks.
    Ipv4Routes,
    /// A list of IPv6 networks.
    Ipv6Routes,
    /// Ranges of IPv4 addresses.
    Ipv4Ranges,
    /// Ranges of IPv6 addresses.
    Ipv6Ranges,
    /// A list of addresses of either family.
    Addresses,
    /// A DNS domain.
    Domain,
    /// A list of DNS domains.
    Domains,
    /// How long a lease lasts.
    LeaseTime,
    /// A span of the calendar.
    Expiry,
    /// How snapshots are named.
    SnapshotPattern,
    /// When snapshots are taken.
    Schedule,
}

impl Kind {
    /// Whether `text` is such a value. The empty text is not asked about: it means "not set".
    ///
    /// # Errors
    /// When it is not; the error says what is wanted.
    pub fn check(self, text: &str) -> Result<(), Invalid> {
        match self {
            Kind::Text => one_line(text),
            Kind::Blob => no_nul(text),
            Kind::Bool => number::boolean(text).map(drop),
            Kind::OnlyTrue(reason) => match number::boolean(text) {
                Ok(true) => Ok(()),
                _ => Err(Invalid::new(text, format!("`true` ({reason})"))),
            },
            Kind::Integer(least, most) => number::integer(text, least, most).map(drop),
            Kind::OneOf(words) => one_of(text, words),
            Kind::Memory => size::memory(text).map(drop),
            Kind::Bytes => size::bytes(text).map(drop),
            Kind::Mode => number::mode(text).map(drop),
            Kind::Source => one_line(text),
            Kind::Swap => size::swap(text).map(drop),
            Kind::Cpus => cpu::cpus(text).map(drop),
            Kind::Allowance => cpu::allowance(text).map(drop),
            Kind::Rlimit => number::rlimit(text).map(drop),
            Kind::Mac => address::mac(text).map(drop),
            Kind::MacPattern => address::mac_pattern(text),
            Kind::Interface => name::interface(text),
            Kind::Network => name::network(text),
            Kind::Pool => name::object(text),
            Kind::Path => absolute(text),
            Kind::Ipv4Subnet => address::ipv4_subnet(text).map(drop),
            Kind::Ipv6Subnet => address::ipv6_subnet(text).map(drop),
            Kind::Ipv4Host => address::ipv4_host(text).map(drop),
            Kind::Ipv6Host => address::ipv6_host(text).map(drop),
            Kind::Ipv4 => address::ipv4(text).map(drop),
            Kind::Rate => size::bits(text).map(drop),
            Kind::Ipv4Routes => address::ipv4_routes(text).map(drop),
            Kind::Ipv6Routes => address::ipv6_routes(text).map(drop),
            Kind::Ipv4Ranges => address::ipv4_ranges(text).map(drop),
            Kind::Ipv6Ranges => address::ipv6_ranges(text).map(drop),
            Kind::Addresses => address::addresses(text).map(drop),
            Kind::Domain => name::domain(text),
            Kind::Domains => text.split(',').try_for_each(|part| name::domain(part.trim())),
            Kind::LeaseTime => number::lease_time(text).map(drop),
            Kind::Expiry => snapshot::expiry(text).map(drop),
            Kind::SnapshotPattern => snapshot::pattern(text).map(drop),
            Kind::Schedule => schedule::parse(text, 0).map(drop),
        }
    }

    /// The type's name in Incus's metadata: `bool`, `integer`, `blob` or `string`.
    #[must_use]
    pub fn type_name(self) -> &'static str {
        match self {
            Kind::Bool | Kind::OnlyTrue(_) => "bool",
            Kind::Integer(..) => "integer",
            Kind::Blob => "blob",
            _ => "string",
        }
    }

    /// What values look like, for people; empty when the type's name says it all.
    #[must_use]
    pub fn values(self) -> String {
        match self {
            Kind::OnlyTrue(reason) => format!("`true` only: {reason}"),
            Kind::OneOf(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
            Kind::Integer(least, i64::MAX) if least != i64::MIN => format!("at least {least}"),
            Kind::Integer(least, most) if least != i64::MIN => format!("{least} to {most}"),
            Kind::Memory => "`512MiB`, `50%` of the host".to_owned(),
            Kind::Swap => "`true`, `false`, `512MiB`".to_owned(),
            Kind::Bytes => "`512MiB`, `2GB`".to_owned(),
            Kind::Mode => "`0755`".to_owned(),
            Kind::Source => "`/path`, `tmpfs:`, with a pool `VOLUME` or `VOLUME/DIRECTORY`".to_owned(),
            Kind::Cpus => "`2` (how many), `0-3`, `1,3`, `1-1` (which)".to_owned(),
            Kind::Allowance => "`50%` (share), `25ms/100ms` (quota)".to_owned(),
            Kind::Rlimit => "`1024`, `1024:4096`, `unlimited`".to_owned(),
            Kind::Ipv4Subnet | Kind::Ipv6Subnet => "an address with its prefix, `auto`, `none`".to_owned(),
            Kind::Ipv4Host | Kind::Ipv6Host => "an address, `none`".to_owned(),
            Kind::Rate => "`10Mbit`, `1Gbit`".to_owned(),
            Kind::Ipv4Routes => "`192.0.2.0/24`, several with `,` between".to_owned(),
            Kind::Ipv6Routes => "`2001:db8:1::/64`, several with `,` between".to_owned(),
            Kind::Ipv4Ranges | Kind::Ipv6Ranges => "`FIRST-LAST`, several with `,` between".to_owned(),
            Kind::LeaseTime => "`1h`, `30m`, `infinite`".to_owned(),
            _ => String::new(),
        }
    }
}

fn no_nul(text: &str) -> Result<(), Invalid> {
    if text.contains('\0') { Err(Invalid::new(text, "text without NUL characters")) } else { Ok(()) }
}

fn one_line(text: &str) -> Result<(), Invalid> {
    match text.chars().any(|letter| letter.is_control()) {
        true => Err(Invalid::new(text, "text on one line")),
        false => Ok(()),
    }
}

fn one_of(text: &str, words: &[&str]) -> Result<(), Invalid> {
    if words.contains(&text) {
        return Ok(());
    }
    let list = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    Err(Invalid::new(text, format!("one of {list}")))
}

fn absolute(text: &str) -> Result<(), Invalid> {
    one_line(text)?;
    match text.starts_with('/') && !text.split('/').any(|part| part == "..") {
        true => Ok(()),
        false => Err(Invalid::new(text, "an absolute path without `..`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_must_be_in_the_list_and_the_list_is_shown() {
        let error = Kind::OneOf(&["hard", "soft"]).check("firm").unwrap_err();
        assert_eq!(error.to_string(), "`firm` is not one of `hard`, `soft`");
    }

    #[test]
    fn a_path_is_absolute_and_does_not_climb() {
        assert!(Kind::Path.check("/srv/a").is_ok());
        for text in ["srv", "/srv/../etc", "/a\nb"] {
            assert!(Kind::Path.check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_text_in_blobs_may_have_lines() {
        assert!(Kind::Blob.check("a\nb").is_ok());
        assert!(Kind::Text.check("a\nb").is_err());
        assert!(Kind::Blob.check("a\0b").is_err());
    }
}
