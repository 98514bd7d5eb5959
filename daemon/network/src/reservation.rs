//! Which nic has which address: one file for each in `dnsmasq.hosts`, and one for its name in `dnsmasq.names` where it
//! does not come with the lease; `MAC.slaac` there is for the address it made for itself.
//!
//! A nic without a fixed address gets one reserved when it is plugged in, so that its filter knows it before
//! the first packet. The pick starts from its MAC: as long as nobody is in the way, a nic that comes back
//! gets the same one. Files are named by MAC, origin and, if it outlives the port, `kept`: `00163e112233.static`,
//! `00163e112233.automatic`, `00163e112233.static.kept`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cabin_sys::dir::HostDir;

use crate::dnsmasq::config::ranges4;
use crate::dnsmasq::{Servers, file_error};
use crate::error::{Error, Result};
use crate::lease::{self, Given};
use crate::name::{DnsLabel, IfName, Mac};
use crate::slaac::Found;
use crate::spec::{BridgeSpec, DnsMode, Ipv4Side, NicSpec};

/// How the files' names end.
const ENDS: [(&str, Origin, Until); 4] = [
    ("static", Origin::Static, Until::Unplugged),
    ("static.kept", Origin::Static, Until::Released),
    ("automatic", Origin::Automatic, Until::Unplugged),
    ("automatic.kept", Origin::Automatic, Until::Released),
];

/// What is kept for one nic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The name it answers to; none where the bridge makes no names.
    pub name: Option<DnsLabel>,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its fixed IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Who chose the addresses.
    pub origin: Origin,
    /// When it ends.
    pub until: Until,
}

impl Reservation {
    fn addresses(&self) -> Vec<IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6)).collect()
    }
}

/// When a reservation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// With the port it was made for.
    Unplugged,
    /// When it is released.
    Released,
}

/// Who chose an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Whoever configured the nic.
    Static,
    /// This crate.
    Automatic,
}

/// What [`Reservations::keep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The nic's address.
    pub ipv4: Option<Ipv4Addr>,
    /// Whether there was none for it before.
    pub fresh: bool,
}

type Book = BTreeMap<Mac, Reservation>;

/// The reservations of every bridge. The files are the truth; nobody else writes them, so they are read once.
#[derive(Default)]
pub struct Reservations {
    books: Mutex<HashMap<IfName, Book>>,
}

impl Reservations {
    fn lock(&self) -> MutexGuard<'_, HashMap<IfName, Book>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an address and a name for a nic. What was to stay until it is released still does. Of two instances with one
    /// MAC the one that has a port has what is kept for it.
    pub fn keep(&self, servers: &Servers, bridge: &BridgeSpec, nic: &NicSpec, until: Until) -> Result<Kept> {
        check_addresses(bridge, nic)?;
        let home = servers.home(&bridge.name)?;
        let mut books = self.lock();
        let book = open_book(&mut books, &bridge.name, &home)?;
        let before = book.get(&nic.mac).cloned();
        let theirs = before.as_ref().filter(|entry| is_of_another(entry, &nic.instance));
        if theirs.is_some_and(|entry| entry.until == Until::Unplugged) && until == Until::Released {
            return Ok(Kept { ipv4: nic.ipv4, fresh: false });
        }
        let inherited = before.as_ref().filter(|_| theirs.is_none() || until == Until::Released);
        let others = |mac: &Mac| *mac != nic.mac;
        let of_others = || book.iter().filter(|(mac, _)| others(mac)).map(|(_, entry)| entry);
        for asked in nic.ipv4.map(IpAddr::from).into_iter().chain(nic.ipv6.map(IpAddr::from)) {
            if let Some(holder) = of_others().find(|entry| entry.addresses().contains(&asked)) {
                let holder = match &holder.name {
                    Some(name) => format!("instance `{name}`"),
                    None => "another nic".to_owned(),
                };
                return Err(Error::Taken { network: bridge.name.clone(), address: asked, holder });
            }
        }
        let (ipv4, origin) = match (nic.ipv4, &bridge.ipv4) {
            (Some(address), _) => (Some(address), Origin::Static),
            (None, Some(side)) if side.dhcp.is_some() => {
                let taken4: BTreeSet<Ipv4Addr> = of_others().filter_map(|entry| entry.ipv4).collect();
                let leases = read_leases(&home);
                let leased = |address| lease::is_given_to_others(&leases, address, nic.mac);
                let old = inherited.and_then(|entry| entry.ipv4);
                let found = pick(side, nic.mac, old, &taken4, leased);
                let none = || Error::NoAddressLeft { network: bridge.name.clone() };
                (Some(found.ok_or_else(none)?), Origin::Automatic)
            }
            _ => (None, Origin::Automatic),
        };
        let origin = if nic.ipv6.is_some() { Origin::Static } else { origin };
        let name = (bridge.dns.mode != DnsMode::None).then(|| nic.instance.clone());
        let stays = inherited.is_some_and(|entry| entry.until == Until::Released);
        let until = if stays { Until::Released } else { until };
        let entry = Reservation { name, ipv4, ipv6: nic.ipv6, origin, until };
        let fresh = before.is_none();
        if before.as_ref() != Some(&entry) {
            let file = host_file(nic.mac, &entry);
            if let Some(old) = before.map(|old| host_file(nic.mac, &old)).filter(|old| *old != file) {
                remove_file(&home, &bridge.name, &old)?;
            }
            let namesakes = namesakes(book, nic.mac, &entry);
            for (mac, other) in &namesakes {
                write_name(&home, bridge, *mac, other)?;
            }
            // Under another name it is found anew.
            remove_file(&home, &bridge.name, &learnt_file(nic.mac))?;
            match namesakes.is_empty() && comes_with_lease(bridge, &entry) {
                true => remove_file(&home, &bridge.name, &name_file(nic.mac))?,
                false => write_name(&home, bridge, nic.mac, &entry)?,
            }
            write_host(&home, bridge, nic.mac, &entry)?;
            let confused = servers.confuses(&bridge.name, nic.mac, &entry.addresses());
            book.insert(nic.mac, entry);
            if !fresh || confused {
                servers.reload(&bridge.name)?;
            }
        }
        Ok(Kept { ipv4, fresh })
    }

    /// Writes the names down that do not come with leases and are not written down yet: names may have had no server of their own
    /// until now.
    pub fn name_all(&self, servers: &Servers, bridge: &BridgeSpec) -> Result<()> {
        let home = servers.home(&bridge.name)?;
        let mut books = self.lock();
        for (mac, entry) in open_book(&mut books, &bridge.name, &home)? {
            let file = name_file(*mac);
            let there =
                home.exists(&file).map_err(|source| file_error("look for", &file, &bridge.name, source))?;
            if !there && !comes_with_lease(bridge, entry) {
                write_name(&home, bridge, *mac, entry)?;
            }
        }
        Ok(())
    }

    /// Writes down the address that a nic made for itself, beside the others that its name stands for. Nothing when it is
    /// not kept any more, or is known.
    pub fn learn(&self, servers: &Servers, Found { bridge, mac, address }: &Found) -> Result<()> {
        let Ok(home) = servers.existing_home(bridge) else { return Ok(()) };
        let mut books = self.lock();
        let Some(entry) = open_book(&mut books, bridge, &home)?.get(mac) else { return Ok(()) };
        let Some(name) = &entry.name else { return Ok(()) };
        let (file, line) = (learnt_file(*mac), format!("{address} {name}\n"));
        if home.read(&file, 4096).is_ok_and(|known| known == line.as_bytes()) {
            return Ok(());
        }
        home.put(&file, line.as_bytes(), 0o644).map_err(|source| file_error("write", &file, bridge, source))
    }

    /// Gives up what is kept for a MAC: all of it, or only what this crate chose. None is success.
    pub fn release(
        &self,
        servers: &Servers,
        bridge: &IfName,
        mac: Mac,
        what: Release<'_>,
    ) -> Result<Released> {
        let Ok(home) = servers.existing_home(bridge) else { return Ok(Released::default()) };
        let mut books = self.lock();
        let book = open_book(&mut books, bridge, &home)?;
        let Some(entry) = book.get(&mac).cloned() else { return Ok(Released::default()) };
        let stays = match what {
            Release::WithPort => entry.until == Until::Released,
            Release::Of(instance) => is_of_another(&entry, instance),
            Release::Any => false,
        };
        if stays {
            return Ok(Released::default());
        }
        remove_file(&home, bridge, &name_file(mac))?;
        remove_file(&home, bridge, &learnt_file(mac))?;
        remove_file(&home, bridge, &host_file(mac, &entry))?;
        book.remove(&mac);
        // Whoever is given the address next must find it noted that the server may still know the old one.
        let reload_in = servers.reload_soon(bridge, mac, &entry.addresses())?;
        drop(books);
        Ok(Released { lease: lease::of(&read_leases(&home), mac), reload_in })
    }

    /// Gives up what this crate chose outside of a bridge's present subnet.
    pub fn prune(&self, servers: &Servers, bridge: &BridgeSpec) -> Result<()> {
        let outside =
            |address: &Ipv4Addr| bridge.ipv4.as_ref().is_none_or(|side| !side.address.contains(address));
        let entries = self.of(servers, &bridge.name)?;
        let mut released = false;
        for (mac, entry) in entries {
            if entry.origin == Origin::Automatic && entry.ipv4.as_ref().is_some_and(outside) {
                self.release(servers, &bridge.name, mac, Release::Any)?;
                released = true;
            }
        }
        if released { servers.reload(&bridge.name) } else { Ok(()) }
    }

    /// Everything kept on a bridge.
    pub fn of(&self, servers: &Servers, bridge: &IfName) -> Result<Book> {
        let Ok(home) = servers.existing_home(bridge) else { return Ok(Book::new()) };
        Ok(open_book(&mut self.lock(), bridge, &home)?.clone())
    }

    /// Forgets a bridge whose files are gone.
    pub fn forget(&self, bridge: &IfName) {
        self.lock().remove(bridge);
    }
}

/// What came of giving something up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Released {
    /// The lease that the server still has for it.
    pub lease: Option<Given>,
    /// In what time the server is to be told to forget it; none when it was told, or somebody will tell it.
    pub reload_in: Option<Duration>,
}

/// What is to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release<'a> {
    /// Whatever is there.
    Any,
    /// What was made for the port that goes.
    WithPort,
    /// What is not known to be another instance's.
    Of(&'a DnsLabel),
}

/// Where a bridge makes no names nothing is known to be.
fn is_of_another(entry: &Reservation, instance: &DnsLabel) -> bool {
    entry.name.as_ref().is_some_and(|name| name != instance)
}

/// The server's file of leases.
pub fn read_leases(home: &HostDir) -> String {
    let text = home.read("dnsmasq.leases", 16 << 20).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

fn check_addresses(bridge: &BridgeSpec, nic: &NicSpec) -> Result<()> {
    let refuse = |address: IpAddr, why| {
        Err(Error::Address { network: bridge.name.clone(), address: address.to_string(), why })
    };
    if let (Some(address), Some(side)) = (nic.ipv4, &bridge.ipv4) {
        let net = side.address;
        if !net.contains(&address) || address == net.network() || address == net.broadcast() {
            return refuse(address.into(), "outside the subnet");
        }
        if address == net.addr() {
            return refuse(address.into(), "the bridge's own");
        }
    }
    if let (Some(address), Some(side)) = (nic.ipv6, &bridge.ipv6) {
        if !side.address.contains(&address) {
            return refuse(address.into(), "outside the prefix");
        }
        if address == side.address.addr() {
            return refuse(address.into(), "the bridge's own");
        }
    }
    Ok(())
}

/// An address for a MAC: the old one if it still fits, else the first free one from where its hash falls in the upper
/// half; the lower half, from which people choose, is touched last.
fn pick(
    side: &Ipv4Side,
    mac: Mac,
    old: Option<Ipv4Addr>,
    taken: &BTreeSet<Ipv4Addr>,
    leased: impl Fn(Ipv4Addr) -> bool,
) -> Option<Ipv4Addr> {
    let ranges = ranges4(side);
    let free =
        |address: &Ipv4Addr| *address != side.address.addr() && !taken.contains(address) && !leased(*address);
    let inside = |address: &Ipv4Addr| ranges.iter().any(|(first, last)| first <= address && address <= last);
    if let Some(old) = old.filter(|old| inside(old) && free(old)) {
        return Some(old);
    }
    let sizes = ranges.iter().map(|(first, last)| u64::from(u32::from(*last) - u32::from(*first)) + 1);
    let all: u64 = sizes.sum();
    let (lower, upper) = (all / 2, all - all / 2);
    let start = crate::hash(&mac.0) % upper.max(1);
    let above = (0..upper).map(|step| lower + (start + step) % upper);
    above.chain(0..lower).map(|index| nth(&ranges, index)).find_map(|address| address.filter(free))
}

fn nth(ranges: &[(Ipv4Addr, Ipv4Addr)], mut index: u64) -> Option<Ipv4Addr> {
    for (first, last) in ranges {
        let size = u64::from(u32::from(*last) - u32::from(*first)) + 1;
        if index < size {
            return Some(Ipv4Addr::from(u32::from(*first) + u32::try_from(index).ok()?));
        }
        index -= size;
    }
    None
}

fn host_file(mac: Mac, entry: &Reservation) -> String {
    let end = ENDS.iter().find(|(_, origin, until)| (*origin, *until) == (entry.origin, entry.until));
    format!("dnsmasq.hosts/{}.{}", mac.digits(), end.map_or("automatic", |(end, ..)| end))
}

fn name_file(mac: Mac) -> String {
    format!("dnsmasq.names/{}", mac.digits())
}

/// The file of the address that a nic made for itself.
fn learnt_file(mac: Mac) -> String {
    format!("dnsmasq.names/{}.slaac", mac.digits())
}

fn remove_file(home: &HostDir, bridge: &IfName, file: &str) -> Result<()> {
    home.remove_file(file).map_err(|source| file_error("remove", file, bridge, source))
}

/// Other nics of the same name, such as those of one instance: of several leases the server names only one.
fn namesakes(book: &Book, mac: Mac, entry: &Reservation) -> Vec<(Mac, Reservation)> {
    let same =
        |(other, it): &(&Mac, &Reservation)| **other != mac && it.name.is_some() && it.name == entry.name;
    book.iter().filter(same).map(|(mac, it)| (*mac, it.clone())).collect()
}

/// Whether a nic gets its address by DHCP, and with it its name: it need not be told apart, which costs the server of leases
/// a look at every lease for every reservation (`lease_update_from_configs`).
fn comes_with_lease(bridge: &BridgeSpec, entry: &Reservation) -> bool {
    !bridge.names_apart()
        && entry.origin == Origin::Automatic
        && bridge.ipv4.as_ref().is_some_and(|side| side.dhcp.is_some())
}

fn write_name(home: &HostDir, bridge: &BridgeSpec, mac: Mac, entry: &Reservation) -> Result<()> {
    let addresses = entry.addresses();
    match (&entry.name, bridge.dns.mode) {
        (Some(name), DnsMode::Managed) if !addresses.is_empty() => {
            let (file, lines) =
                (name_file(mac), addresses.iter().map(|address| format!("{address} {name}\n")));
            let lines: String = lines.collect();
            // Written again at every start.
            let failed = |source| file_error("write", &file, &bridge.name, source);
            home.put(&file, lines.as_bytes(), 0o644).map_err(failed)
        }
        _ => remove_file(home, &bridge.name, &name_file(mac)),
    }
}

fn write_host(home: &HostDir, bridge: &BridgeSpec, mac: Mac, entry: &Reservation) -> Result<()> {
    let (file, line) = (host_file(mac, entry), line(mac, entry));
    let written = match entry.until {
        Until::Unplugged => home.put(&file, line.as_bytes(), 0o644),
        Until::Released => home.replace(&file, line.as_bytes(), 0o644),
    };
    written.map_err(|source| file_error("write", &file, &bridge.name, source))
}

fn line(mac: Mac, entry: &Reservation) -> String {
    let mut fields = vec![mac.to_string()];
    fields.extend(entry.ipv4.map(|address| address.to_string()));
    fields.extend(entry.ipv6.map(|address| format!("[{address}]")));
    fields.extend(entry.name.as_ref().map(ToString::to_string));
    fields.join(",") + "\n"
}

fn open_book<'a>(
    books: &'a mut HashMap<IfName, Book>,
    bridge: &IfName,
    home: &HostDir,
) -> Result<&'a mut Book> {
    if !books.contains_key(bridge) {
        let read = || {
            let hosts = home.open_dir("dnsmasq.hosts")?;
            let mut book = Book::new();
            for entry in hosts.list()? {
                let text = String::from_utf8_lossy(&hosts.read(&entry.name, 4096)?).into_owned();
                book.extend(parse(&entry.name, &text));
            }
            Ok(book)
        };
        let book = read().map_err(|source| file_error("read", "dnsmasq.hosts", bridge, source))?;
        books.insert(bridge.clone(), book);
    }
    Ok(books.entry(bridge.clone()).or_default())
}

/// A file of `dnsmasq.hosts`; none when it is not ours (a half-written one begins with a dot).
fn parse(file: &str, text: &str) -> Option<(Mac, Reservation)> {
    let (digits, end) = file.split_once('.').filter(|(digits, _)| !digits.is_empty())?;
    let (_, origin, until) = *ENDS.iter().find(|(known, ..)| *known == end)?;
    let mut fields = text.trim_end().split(',');
    let mac: Mac = fields.next()?.parse().ok()?;
    let mut entry = Reservation { name: None, ipv4: None, ipv6: None, origin, until };
    for field in fields {
        if let Some(address) = field.strip_prefix('[').and_then(|field| field.strip_suffix(']')) {
            entry.ipv6 = address.parse().ok();
        } else if let Ok(address) = field.parse() {
            entry.ipv4 = Some(address);
        } else {
            entry.name = field.parse().ok();
        }
    }
    (mac.digits() == digits).then_some((mac, entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Dhcp4;

    #[test]
    fn what_is_written_is_what_is_read() {
        let mac: Mac = "00:16:3e:11:22:33".parse().unwrap();
        let entry = Reservation {
            name: Some("web".parse().unwrap()),
            ipv4: Some("10.0.0.7".parse().unwrap()),
            ipv6: Some("fd42::7".parse().unwrap()),
            origin: Origin::Static,
            until: Until::Released,
        };
        assert_eq!(host_file(mac, &entry), "dnsmasq.hosts/00163e112233.static.kept");
        assert_eq!(line(mac, &entry), "00:16:3e:11:22:33,10.0.0.7,[fd42::7],web\n");
        assert_eq!(parse("00163e112233.static.kept", &line(mac, &entry)), Some((mac, entry)));
        assert_eq!(parse(".00163e112233.static.new", "00:16:3e:11:22:33\n"), None);
    }

    #[test]
    fn a_pick_is_steady_skips_what_is_taken_and_ends() {
        let side = Ipv4Side {
            address: "10.0.0.1/29".parse().unwrap(),
            nat: None,
            dhcp: Some(Dhcp4::default()),
            firewall: true,
            routing: true,
        };
        let mut taken = BTreeSet::new();
        for n in 0..5u8 {
            let mac = Mac([0, 0x16, 0x3e, 0, 0, n]);
            let first = pick(&side, mac, None, &taken, |_| false).unwrap();
            assert_eq!(pick(&side, mac, None, &taken, |_| false), Some(first));
            assert_eq!(first >= Ipv4Addr::new(10, 0, 0, 4), n < 3, "{first}");
            assert!(taken.insert(first), "{first} was given twice");
        }
        assert_eq!(pick(&side, Mac([0, 0x16, 0x3e, 0, 0, 9]), None, &taken, |_| false), None);
    }
}
