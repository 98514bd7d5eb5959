//! What dnsmasq is told: one line for each setting, made from checked values alone.
//!
//! A bridge has one server for everything, or two: [`Part::Leases`] gives addresses and [`Part::Names`] answers
//! questions ([`BridgeSpec::names_apart`]).

use std::fmt::{Display, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::spec::{BridgeSpec, Dhcp6, DnsMode, Expiry, Ipv4Side, Ipv6Side};

/// Addresses a server gives out at most.
const LEASES: u32 = 65_536;

/// One of the servers a bridge may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Gives addresses, and names too where they have no server of their own.
    Leases,
    /// Knows names.
    Names,
}

impl Part {
    /// Every one there may be.
    pub const ALL: [Part; 2] = [Part::Leases, Part::Names];

    /// The file of its settings.
    pub fn conf(self) -> &'static str {
        match self {
            Part::Leases => "dnsmasq.conf",
            Part::Names => "dnsmasq.dns.conf",
        }
    }

    /// The file of its pid.
    pub fn pid(self) -> &'static str {
        match self {
            Part::Leases => "dnsmasq.pid",
            Part::Names => "dnsmasq.dns.pid",
        }
    }

    /// Whether a bridge needs it.
    pub fn serves(self, spec: &BridgeSpec) -> bool {
        match self {
            Part::Leases => spec.serves(),
            Part::Names => spec.serves() && spec.names_apart(),
        }
    }
}

impl BridgeSpec {
    /// The files of settings, below the bridge's directory, of the servers that it needs.
    #[must_use]
    pub fn servers(&self) -> Vec<&'static str> {
        Part::ALL.into_iter().filter(|part| part.serves(self)).map(Part::conf).collect()
    }
}

/// Whom the server runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user's name.
    pub user: String,
    /// The name of its group.
    pub group: String,
}

/// The account for a server whose files are in `home`: `dnsmasq` or `nobody`, if that one gets to them.
/// Beneath a directory that only root may enter it has to stay root.
pub fn account(home: &Path) -> Account {
    let root = || Account { user: "root".to_owned(), group: "root".to_owned() };
    let open =
        home.ancestors().all(|dir| std::fs::metadata(dir).is_ok_and(|found| found.mode() & 0o001 != 0));
    if !open {
        return root();
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    ["dnsmasq", "nobody"].iter().find_map(|user| find_account(user, &users, &groups)).unwrap_or_else(root)
}

fn find_account(user: &str, users: &str, groups: &str) -> Option<Account> {
    let entry = |table: &str, at: usize, wanted: &str, take: usize| {
        table
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.get(at) == Some(&wanted))
            .and_then(|fields| Some((*fields.get(take)?).to_owned()))
    };
    let gid = entry(users, 0, user, 3)?;
    let group = entry(groups, 2, &gid, 0)?;
    Some(Account { user: user.to_owned(), group })
}

/// The whole configuration file.
pub fn render(part: Part, spec: &BridgeSpec, home: &Path, account: &Account) -> String {
    let mut conf = Conf(String::from("# Written by Cabin; changes are lost.\n"));
    conf.set("interface", &spec.name).set("except-interface", "lo").flag("bind-interfaces");
    conf.set("user", &account.user).set("group", &account.group);
    conf.set("pid-file", home.join(part.pid()).display());
    let gives = part == Part::Leases;
    let answers = part == Part::Names || !spec.names_apart();
    if gives {
        conf.set("dhcp-leasefile", home.join("dnsmasq.leases").display());
        conf.set("dhcp-hostsdir", home.join("dnsmasq.hosts").display());
    }
    if answers {
        conf.set("hostsdir", home.join("dnsmasq.names").display());
        conf.flag("no-hosts").flag("domain-needed");
    } else {
        conf.set("port", 0);
    }
    let routed =
        spec.ipv4.as_ref().is_some_and(|s| s.routing) || spec.ipv6.as_ref().is_some_and(|s| s.routing);
    if !routed {
        // What cannot send packets out must not send them as questions either (CVE-2024-29018).
        conf.flag("no-resolv");
    }
    if let Some(domain) = &spec.dns.domain {
        conf.set("domain", domain);
    }
    if answers {
        names(&mut conf, spec);
    }
    if gives {
        leases(&mut conf, spec);
    }
    if gives && spec.raw_dnsmasq.is_some() {
        conf.set("conf-file", home.join("dnsmasq.raw").display());
    }
    conf.0
}

fn names(conf: &mut Conf, spec: &BridgeSpec) {
    if let Some(domain) = &spec.dns.domain {
        conf.set("local", format!("/{domain}/")).flag("expand-hosts");
        let own = spec.ipv4.iter().map(|side| IpAddr::V4(side.address.addr()));
        let own = own.chain(spec.ipv6.iter().map(|side| IpAddr::V6(side.address.addr())));
        let own: Vec<String> = own.map(|address| address.to_string()).collect();
        if spec.dns.mode != DnsMode::None {
            conf.set("host-record", format!("_gateway.{domain},{}", own.join(",")));
        }
    }
}

fn leases(conf: &mut Conf, spec: &BridgeSpec) {
    for flag in ["no-ping", "quiet-dhcp", "quiet-dhcp6", "quiet-ra"] {
        conf.flag(flag);
    }
    if spec.dns.mode != DnsMode::Dynamic {
        // A client could take another's name by asking for it.
        conf.flag("dhcp-ignore-names");
    }
    if let Some(side) = &spec.ipv4 {
        ipv4(conf, spec, side);
    }
    if let Some(side) = &spec.ipv6 {
        ipv6(conf, spec, side);
    }
}

fn ipv4(conf: &mut Conf, spec: &BridgeSpec, side: &Ipv4Side) {
    let Some(dhcp) = &side.dhcp else { return };
    // Its own limit is 1000: fewer than a bridge has ports.
    conf.flag("dhcp-authoritative").set("dhcp-lease-max", LEASES);
    for (first, last) in ranges4(side) {
        conf.set("dhcp-range", format!("{first},{last},{},{}", side.address.netmask(), expiry(dhcp.expiry)));
    }
    if let Some(gateway) = dhcp.gateway {
        conf.set("dhcp-option", format!("option:router,{gateway}"));
    }
    if spec.mtu != 1500 {
        conf.set("dhcp-option-force", format!("option:mtu,{}", spec.mtu));
    }
    let mut servers: Vec<String> =
        spec.dns.nameservers.iter().filter(|address| address.is_ipv4()).map(ToString::to_string).collect();
    if servers.is_empty() && spec.names_apart() {
        // The bridge's own address, as dnsmasq(8) puts it: one that answers no questions itself does not name it.
        servers.push("0.0.0.0".to_owned());
    }
    if !servers.is_empty() {
        conf.set("dhcp-option", format!("option:dns-server,{}", servers.join(",")));
    }
    if !spec.dns.search.is_empty() {
        conf.set("dhcp-option", format!("option:domain-search,{}", search(spec)));
    }
}

fn ipv6(conf: &mut Conf, spec: &BridgeSpec, side: &Ipv6Side) {
    let name = &spec.name;
    conf.flag("enable-ra");
    match &side.dhcp {
        Dhcp6::Off => {
            conf.set("dhcp-range", format!("::,constructor:{name},ra-only"));
        }
        Dhcp6::Stateless => {
            // Without leases to name them by, `slaac` looks for these addresses.
            let named = if spec.names_apart() { "" } else { ",ra-names" };
            conf.set("dhcp-range", format!("::,constructor:{name},ra-stateless{named}"));
        }
        Dhcp6::Stateful { ranges, expiry: time } => {
            let whole = [(first6(side), Ipv6Addr::from(u128::from(side.address.broadcast())))];
            let ranges = if ranges.is_empty() { &whole[..] } else { ranges.as_slice() };
            for (first, last) in ranges {
                let bits = side.address.prefix_len();
                conf.set("dhcp-range", format!("{first},{last},{bits},{}", expiry(*time)));
            }
        }
    }
    let mut servers: Vec<String> =
        spec.dns.nameservers.iter().filter(|a| a.is_ipv6()).map(|a| format!("[{a}]")).collect();
    if servers.is_empty() && spec.names_apart() {
        // Likewise: the bridge's own link-local address.
        servers.push("[fe80::]".to_owned());
    }
    if !servers.is_empty() {
        conf.set("dhcp-option", format!("option6:dns-server,{}", servers.join(",")));
    }
    if !spec.dns.search.is_empty() {
        conf.set("dhcp-option", format!("option6:domain-search,{}", search(spec)));
    }
}

fn search(spec: &BridgeSpec) -> String {
    spec.dns.search.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn first6(side: &Ipv6Side) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(side.address.network()) + 2)
}

/// The ranges addresses are given from: those asked for, or every host of the subnet.
pub fn ranges4(side: &Ipv4Side) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let Some(dhcp) = &side.dhcp else { return Vec::new() };
    if !dhcp.ranges.is_empty() {
        return dhcp.ranges.clone();
    }
    let first = u32::from(side.address.network()) + 1;
    let last = u32::from(side.address.broadcast()) - 1;
    // The gateway is mostly the first host: a range that begins behind it reads better.
    let first = if u32::from(side.address.addr()) == first { first + 1 } else { first };
    vec![(Ipv4Addr::from(first), Ipv4Addr::from(last))]
}

fn expiry(time: Expiry) -> String {
    match time {
        Expiry::Seconds(seconds) => seconds.to_string(),
        Expiry::Never => "infinite".to_owned(),
    }
}

struct Conf(String);

impl Conf {
    fn set(&mut self, key: &str, value: impl Display) -> &mut Conf {
        let _ = writeln!(self.0, "{key}={value}");
        self
    }

    fn flag(&mut self, key: &str) -> &mut Conf {
        let _ = writeln!(self.0, "{key}");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Dhcp4, DnsSpec};

    #[test]
    fn a_full_bridge_renders_to_exactly_this() {
        let mut spec = BridgeSpec::bare("cabinbr0".parse().unwrap());
        spec.ipv4 = Some(Ipv4Side {
            address: "10.1.2.1/24".parse().unwrap(),
            nat: None,
            dhcp: Some(Dhcp4::default()),
            firewall: true,
            routing: true,
        });
        spec.ipv6 = Some(Ipv6Side {
            address: "fd42:1::1/64".parse().unwrap(),
            nat: None,
            dhcp: Dhcp6::Stateless,
            firewall: true,
            routing: true,
        });
        spec.dns = DnsSpec { domain: Some("cabin".parse().unwrap()), ..DnsSpec::default() };
        let account = Account { user: "dnsmasq".to_owned(), group: "nogroup".to_owned() };
        let told = |part, spec: &BridgeSpec| render(part, spec, Path::new("/n/cabinbr0"), &account);
        let head = "# Written by Cabin; changes are lost.
interface=cabinbr0
except-interface=lo
bind-interfaces
user=dnsmasq
group=nogroup
";
        let leases = "pid-file=/n/cabinbr0/dnsmasq.pid
dhcp-leasefile=/n/cabinbr0/dnsmasq.leases
dhcp-hostsdir=/n/cabinbr0/dnsmasq.hosts
port=0
domain=cabin
no-ping
quiet-dhcp
quiet-dhcp6
quiet-ra
dhcp-ignore-names
dhcp-authoritative
dhcp-lease-max=65536
dhcp-range=10.1.2.2,10.1.2.254,255.255.255.0,3600
dhcp-option=option:dns-server,0.0.0.0
enable-ra
dhcp-range=::,constructor:cabinbr0,ra-stateless
dhcp-option=option6:dns-server,[fe80::]
";
        assert_eq!(told(Part::Leases, &spec), format!("{head}{leases}"));
        let names = "pid-file=/n/cabinbr0/dnsmasq.dns.pid
hostsdir=/n/cabinbr0/dnsmasq.names
no-hosts
domain-needed
domain=cabin
local=/cabin/
expand-hosts
host-record=_gateway.cabin,10.1.2.1,fd42:1::1
";
        assert_eq!(told(Part::Names, &spec), format!("{head}{names}"));
        // Names that guests choose come with their leases: one server for both.
        spec.dns.mode = DnsMode::Dynamic;
        let both = told(Part::Leases, &spec);
        assert!(!Part::Names.serves(&spec));
        for line in ["hostsdir=/n/cabinbr0/dnsmasq.names", "local=/cabin/", "expand-hosts", "no-hosts"] {
            assert!(both.lines().any(|told| told == line), "{line}: {both}");
        }
        assert!(both.contains(",ra-stateless,ra-names") && !both.contains("port=0"), "{both}");
        assert!(!both.contains("dhcp-ignore-names") && !both.contains("dns-server"), "{both}");
    }

    #[test]
    fn an_account_needs_its_group() {
        let users = "root:x:0:0::/:/bin/sh\ndnsmasq:x:999:65534::/:/bin/false\n";
        let found = find_account("dnsmasq", users, "root:x:0:\nnogroup:x:65534:\n");
        assert_eq!(found, Some(Account { user: "dnsmasq".to_owned(), group: "nogroup".to_owned() }));
        assert_eq!(find_account("dnsmasq", users, "root:x:0:\n"), None);
        assert_eq!(find_account("nobody", users, ""), None);
    }
}
