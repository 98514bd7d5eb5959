//! A folder of /sys or /proc to look things up in. Its links are followed: the kernel made them.

use std::path::PathBuf;
use std::str::FromStr;

/// A folder; whatever is not there reads as empty.
pub(super) struct Place(PathBuf);

impl Place {
    pub fn at(path: &str) -> Place {
        Place(path.into())
    }

    pub fn then(&self, name: &str) -> Place {
        Place(self.0.join(name))
    }

    pub fn exists(&self) -> bool {
        self.0.exists()
    }

    /// What a file says, without the spaces around it.
    pub fn text(&self, file: &str) -> String {
        let content = std::fs::read(self.0.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&content).trim().to_owned()
    }

    pub fn number<T: FromStr + Default>(&self, file: &str) -> T {
        self.text(file).parse().unwrap_or_default()
    }

    /// A number that is on when it is 1.
    pub fn flag(&self, file: &str) -> bool {
        self.text(file) == "1"
    }

    /// An id as devices have it: four hexadecimal digits.
    pub fn id(&self, file: &str) -> String {
        self.text(file).trim_start_matches("0x").to_owned()
    }

    /// What is in it, in order; numbers as numbers (cpu2 before cpu10).
    pub fn list(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_by_key(|name| {
            (name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned(), digits(name))
        });
        names
    }

    /// Those of them that are named so and a number, with their numbers.
    pub fn numbered(&self, prefix: &str) -> Vec<(u32, Place)> {
        let number = |name: &String| name.strip_prefix(prefix)?.parse().ok();
        self.list().iter().filter_map(|name| Some((number(name)?, self.then(name)))).collect()
    }

    /// The way to what a link leads to, as the kernel wrote it.
    pub fn way(&self, link: &str) -> Vec<String> {
        let target = std::fs::read_link(self.0.join(link)).unwrap_or_default();
        target.iter().map(|part| part.to_string_lossy().into_owned()).collect()
    }

    /// The name of what a link leads to.
    pub fn linked(&self, link: &str) -> String {
        self.way(link).pop().unwrap_or_default()
    }

    /// The node of memory it is nearest to: 0 where the kernel does not say.
    pub fn numa_node(&self) -> u64 {
        self.number("numa_node")
    }

    /// The driver in charge of this device, and its version: the kernel's, when it has none of its own.
    pub fn driver(&self) -> (String, String) {
        let name = self.linked("driver");
        let own = self.text("driver/module/version");
        let kernel = || rustix::system::uname().release().to_string_lossy().into_owned();
        let version = if own.is_empty() && !name.is_empty() { kernel() } else { own };
        (name, version)
    }
}

fn digits(name: &str) -> u64 {
    let start = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name[start..].parse().unwrap_or_default()
}

/// The last of a way's parts that is an address on the PCI bus.
pub(super) fn pci_address(way: &[String]) -> String {
    way.iter().rev().find(|part| is_pci_address(part)).cloned().unwrap_or_default()
}

/// `0000:00:1f.2`
fn is_pci_address(text: &str) -> bool {
    let mut parts = text.split([':', '.']);
    let lengths: Vec<usize> = parts.by_ref().map(str::len).collect();
    lengths == [4, 2, 2, 1] && text.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_device_is_the_last_on_its_way() {
        let check = |way: &str, expected: &str| {
            let way: Vec<String> = way.split('/').map(str::to_owned).collect();
            assert_eq!(pci_address(&way), expected);
        };
        check("../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth0", "0000:00:03.0");
        check("../../devices/pci0000:00/0000:00:1c.0/0000:02:00.1/nvme/nvme0/nvme0n1", "0000:02:00.1");
        check("../../devices/platform/serial8250/tty", "");
        check("../../devices/virtual/net/lo", "");
    }
}
