//! What vendors and products are called: the lists of the Debian packages `pci.ids` and `usb.ids`, where they are there.

/// One of the lists.
pub(super) struct Names(String);

impl Names {
    /// The list of that bus: `pci` or `usb`.
    pub fn of(bus: &str) -> Names {
        let read = |folder: &str| std::fs::read(format!("/usr/share/{folder}/{bus}.ids")).ok();
        let content = read("misc").or_else(|| read("hwdata")).unwrap_or_default();
        Names(String::from_utf8_lossy(&content).into_owned())
    }

    /// The names of a vendor and of its product; empty when they are not known.
    pub fn find(&self, vendor: &str, product: &str) -> (String, String) {
        let mut lines = self.0.lines();
        let Some(maker) = lines.find_map(|line| named(line, vendor)) else { return Default::default() };
        // Its products follow, a tab before each; two before what they are built into.
        let mut own = lines.take_while(|line| line.starts_with(['\t', '#']));
        let thing = own.find_map(|line| named(line.strip_prefix('\t')?, product)).unwrap_or_default();
        (maker.to_owned(), thing.to_owned())
    }
}

/// The name in a line that begins with that id.
fn named<'a>(line: &'a str, id: &str) -> Option<&'a str> {
    if id.is_empty() { None } else { line.strip_prefix(id)?.strip_prefix("  ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_under_their_vendor() {
        let list = "# ids\n1af4  Red Hat, Inc.\n\t1041  Virtio 1.0 network device\n\t\t1af4 1100  QEMU\n\
                    8086  Intel Corporation\n\t1041  Another\nC 01  Mass storage controller\n";
        let names = Names(list.to_owned());
        let check = |vendor: &str, product: &str, expected: (&str, &str)| {
            assert_eq!(names.find(vendor, product), (expected.0.to_owned(), expected.1.to_owned()));
        };
        check("1af4", "1041", ("Red Hat, Inc.", "Virtio 1.0 network device"));
        check("8086", "1041", ("Intel Corporation", "Another"));
        check("1af4", "1100", ("Red Hat, Inc.", ""));
        check("beef", "1041", ("", ""));
        check("", "", ("", ""));
    }
}
