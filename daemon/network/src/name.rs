//! Names that reach the kernel, the filter and the name server: checked once here, trusted everywhere else.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A text is not the name it was given as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct BadName {
    /// What was given, cut at 80 characters.
    pub text: String,
    /// What it should have been, with its rule.
    pub wanted: &'static str,
}

fn bad(text: &str, wanted: &'static str) -> BadName {
    BadName { text: text.chars().take(80).flat_map(char::escape_default).collect(), wanted }
}

/// The name of a network interface: 2 to 15 of `[-_a-zA-Z0-9.]`, the first a letter, digit or `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<IfName, BadName> {
        const WANTED: &str = "an interface name (2 to 15 of letters, digits, `-`, `_` and `.`)";
        let fits = (2..=15).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && !text.starts_with(['-', '.'])
            && !["all", "default"].contains(&text);
        if fits { Ok(IfName(text.to_owned())) } else { Err(bad(text, WANTED)) }
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One label of a DNS name, as instances are named: 1 to 63 of letters, digits and inner hyphens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsLabel(String);

impl DnsLabel {
    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsLabel {
    type Err = BadName;
    fn from_str(text: &str) -> Result<DnsLabel, BadName> {
        const WANTED: &str = "a host name (1 to 63 letters, digits and inner hyphens)";
        let fits = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if fits { Ok(DnsLabel(text.to_owned())) } else { Err(bad(text, WANTED)) }
    }
}

impl fmt::Display for DnsLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A DNS domain: labels of letters, digits, `-` and `_`, joined by dots, at most 253 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

impl Domain {
    /// The domain as text, without a last dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Domain, BadName> {
        const WANTED: &str = "a domain (labels of letters, digits, `-` and `_`, joined by dots)";
        let trimmed = text.strip_suffix('.').unwrap_or(text);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let fits = trimmed.len() <= 253 && trimmed.split('.').all(label);
        if fits { Ok(Domain(trimmed.to_owned())) } else { Err(bad(text, WANTED)) }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A random one under Xen's prefix `00:16:3e`, which LXD and Incus use for containers.
    #[must_use]
    pub fn random() -> Mac {
        let tail: [u8; 3] = rand::random();
        Mac([0x00, 0x16, 0x3e, tail[0], tail[1], tail[2]])
    }

    /// The interface identifier SLAAC makes of it (modified EUI-64, RFC 4291 appendix A).
    #[must_use]
    pub fn eui64(self) -> [u8; 8] {
        let m = self.0;
        [m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]]
    }

    /// The link-local address SLAAC makes of it.
    #[must_use]
    pub fn link_local(self) -> Ipv6Addr {
        self.address_in(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0))
    }

    /// The address SLAAC makes of it in a /64.
    #[must_use]
    pub fn address_in(self, prefix: Ipv6Addr) -> Ipv6Addr {
        let mut octets = prefix.octets();
        octets[8..].copy_from_slice(&self.eui64());
        Ipv6Addr::from(octets)
    }

    /// The twelve digits without colons, for file names.
    #[must_use]
    pub fn digits(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl FromStr for Mac {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Mac, BadName> {
        const WANTED: &str = "a unicast Ethernet address (`xx:xx:xx:xx:xx:xx`)";
        let mut bytes = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(|| bad(text, WANTED))?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad(text, WANTED))?;
        }
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(bad(text, WANTED));
        }
        Ok(Mac(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_name_is_what_the_kernel_and_proc_take() {
        let check = |text: &str, fits: bool| assert_eq!(text.parse::<IfName>().is_ok(), fits, "{text:?}");
        check("cabinbr0", true);
        check("br-1.2_x", true);
        check("a", false);
        check("sixteencharslong", false);
        check("..", false);
        check("-x", false);
        check("a/b", false);
        check("a\nb", false);
        check("all", false);
    }

    #[test]
    fn a_domain_or_label_cannot_carry_a_second_line() {
        for text in ["a\nb", "a,b", "a=b", "a b", "#a", "", "-a", "a-", "a..b", "set:x"] {
            assert!(text.parse::<Domain>().is_err(), "{text:?}");
            assert!(text.parse::<DnsLabel>().is_err(), "{text:?}");
        }
        assert_eq!("lan.example.".parse::<Domain>().unwrap().as_str(), "lan.example");
    }

    #[test]
    fn a_mac_is_unicast_and_makes_the_address_slaac_makes() {
        assert!("01:80:c2:00:00:00".parse::<Mac>().is_err());
        assert!("0:16:3e:00:00:00".parse::<Mac>().is_err());
        let mac: Mac = "00:16:3e:11:22:33".parse().unwrap();
        assert_eq!(mac.link_local().to_string(), "fe80::216:3eff:fe11:2233");
        assert_eq!(mac.to_string(), "00:16:3e:11:22:33");
    }
}
